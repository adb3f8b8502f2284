"""Class names of any --dataset → the text tower of CLIP that AVadCLIP trains with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from extracting.clip.text import main

if __name__ == "__main__":
    main()
