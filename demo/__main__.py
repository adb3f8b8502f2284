"""Make the synthetic data set: render its videos, embed them, write lists and ground truth."""

from __future__ import annotations

import os
from pathlib import Path

from demo import prepare
from demo.videos import SIZES
from vad.files import run_command
from vad.options import command_parser


def main() -> None:
    """Parse the flags and create the data set."""
    parser = command_parser(__doc__, "python -m demo", prog="python -m demo")
    add = parser.add_argument
    add("--dataset", choices=tuple(SIZES), default="demo", help="demo_av has sound (default: demo)")
    add("--seed", type=int, metavar="N", default=0, help="seed of the data set (default: 0)")
    for k, side in enumerate(("train", "test")):
        sizes = ", ".join(f"{name} {size[k]}" for name, size in SIZES.items())
        add(f"--{side}", type=int, metavar="N", help=f"{side}ing videos (default: {sizes})".replace("testing", "test"))
    add("--workers", type=int, metavar="N", default=os.cpu_count() or 1, help="rendering processes (default: cores)")
    add("--overwrite", action="store_true", help="render and extract again, also with other settings")
    add("--folder", type=Path, metavar="DIR", help="make a data set of its own here (default: data/ and list/)")
    prepare(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_command(main)
