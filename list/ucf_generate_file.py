"""Door: train.csv and test.csv of UCF-Crime; the same as generate_file.py --dataset ucfcrime."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vad.errors import run_door
from vad.list_doors import generate_file

if __name__ == "__main__":
    run_door(lambda: generate_file("ucfcrime"))
