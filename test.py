"""Evaluate checkpoints: `python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd`.

Several checkpoints are compared: runs that differ in their seed only become mean ± std.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model import CheckpointError, ConfigError, build_model, read_checkpoint
from vad.benchmark import add_list_flags, check_width, find_lists, open_checkpoint, open_test_set
from vad.catalog import ROOT
from vad.data import MODALITIES
from vad.errors import run_door
from vad.report import Result, report_results
from vad.settings import add_dataset_flags, add_switch_flags
from vad.training import pick_device


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", nargs="+", required=True, help="one checkpoint, or several to compare")
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, help="take one stream out of a fused checkpoint")
    parser.add_argument("--exp_name", help="folder of the results below figure/ (default: the data set's name)")
    parser.add_argument("--timelines", type=int, default=6, help="videos drawn as timelines (default 6)")
    parser.add_argument("--video_dir", type=Path, help="folder of the test videos, for frames above the timelines")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    parser.add_argument("--figure_dir", default=str(ROOT / "figure"), help="folder of pictures and tables")
    add_list_flags(parser)
    add_switch_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    opened = [open_checkpoint(path, args, read_checkpoint, build_model) for path in args.ckpt_path]
    tests = [open_test_set(find_lists(args, c.settings), c.settings, c.modality) for c in opened]
    for checkpoint, test in zip(opened, tests, strict=True):
        check_width(checkpoint.path, checkpoint.model.config.embed_dim, test)
        print("\n".join(checkpoint.notes), end="\n" if checkpoint.notes else "")
    results = [Result(c, t, t.score(c.model.to(device), device)) for c, t in zip(opened, tests, strict=True)]
    dataset = opened[0].settings.dataset
    folder = Path(args.figure_dir) / (args.exp_name or dataset.name)
    video_dir = args.video_dir or (dataset.data_root / "videos" if dataset.drawn else None)
    tables, pictures = report_results(results, folder, timelines=args.timelines, video_dir=video_dir)
    print("\n\n".join(map(str, tables)))
    print("\npictures, tables and scores: " + ", ".join(p.name for p in pictures if p.suffix == ".png"))
    print(f"in {folder}")


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
