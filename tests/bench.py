"""`make bench`: compare the optimised code with straightforward code on this machine; medians and ratios.

`python tests/bench.py` runs every section, `python tests/bench.py model training` only these two.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# modules of tests/benchmarks/, each with a function run()
SECTIONS = ("model", "extraction", "training", "evaluation", "scale", "gpu")


def main() -> None:
    """Run the sections given on the command line, by default all."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("sections", nargs="*", metavar="SECTION", help=" ".join(SECTIONS))
    sections = flags.parse_args().sections
    for name in sections:
        if name not in SECTIONS:
            flags.error(f"unknown section {name!r}. Choose from {', '.join(SECTIONS)}.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in sections or SECTIONS:
        print(f"\n== {name}")
        importlib.import_module(f"tests.benchmarks.{name}").run()


if __name__ == "__main__":
    main()
