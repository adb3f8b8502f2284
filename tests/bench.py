"""Time what was made fast against the plain way, in one run on this machine: medians and ratios."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vad.options import command_parser

# each a module of tests/benchmarks/ with a run()
SECTIONS = ("model", "extraction", "training", "evaluation", "scale", "gpu")


def main() -> None:
    """Run the sections named on the command line, all of them by default."""
    flags = command_parser(__doc__, "python tests/bench.py training model", usage="[SECTION …]")
    flags.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
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
