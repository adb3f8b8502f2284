"""Extract the image embeddings of the UCF-Crime videos."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from extracting.job.cli import main

if __name__ == "__main__":
    main("image", "ucfcrime")
