"""Extract the audio embeddings of the videos of any --dataset."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from extracting.audio.cli import main

if __name__ == "__main__":
    main()
