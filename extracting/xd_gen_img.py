"""XD-Violence videos → image embeddings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from extracting.doors import open_door

if __name__ == "__main__":
    open_door("image", "xd")
