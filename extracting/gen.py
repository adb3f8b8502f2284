"""Videos of any --dataset → image and event embeddings, every video decoded once."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from extracting.doors import open_door

if __name__ == "__main__":
    open_door(None)
