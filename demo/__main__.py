"""Make the synthetic data set: render its videos, then extract, list and label them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from demo import prepare
from demo.videos import DATASET, TEST, TRAIN, render_videos
from vad.files import run_command


def main() -> None:
    """Parse the flags; render, and run the documented commands."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--seed", type=int, default=0, help="another seed makes another data set (default 0)")
    add("--train", type=int, default=TRAIN, help=f"training videos (default {TRAIN})")
    add("--test", type=int, default=TEST, help=f"test videos (default {TEST})")
    add("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes (default: cores)")
    add("--overwrite", action="store_true", help="render and extract again, also with other settings")
    add("--draw_only", action="store_true", help="render the videos and write their table, no more")
    add("--out", type=Path, help="render into this folder, the table into its list/, and no more")
    flags = vars(parser.parse_args())
    out, draw_only = flags.pop("out"), flags.pop("draw_only")
    if out is not None:
        render_videos(out, out / "list" / "annotations.csv", **flags)
    elif draw_only:
        render_videos(DATASET.data_root, DATASET.annotation_path, **flags)
    else:
        prepare(**flags)


if __name__ == "__main__":
    run_command(main)
