"""Door: what does not fit in the lists, embeddings, ground truth and videos of any --dataset."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vad.errors import run_door
from vad.list_doors import audit

if __name__ == "__main__":
    run_door(audit)
