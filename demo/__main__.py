"""Create the synthetic data set: videos, embeddings, lists and ground truth."""

from __future__ import annotations

import argparse
import os

from demo import prepare
from demo.videos import TEST, TRAIN
from vad.files import run_command


def main() -> None:
    """Parse the flags and create the data set."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--seed", type=int, default=0, help="another seed makes another data set (default 0)")
    add("--train", type=int, default=TRAIN, help=f"training videos (default {TRAIN})")
    add("--test", type=int, default=TEST, help=f"test videos (default {TEST})")
    add("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes (default: cores)")
    add("--overwrite", action="store_true", help="render and extract again, also with other settings")
    prepare(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_command(main)
