"""Evaluate checkpoints: `python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd`.

Several checkpoints are compared: runs that differ in their seed only become mean ± std. Tables 1 and 2 of the paper are
`python test.py --table 1 --dataset xd --ckpt_path …` (or `--runs 10` for the runs of main.py), its Appendix I
`python test.py --timeline [VIDEO …] --ckpt_path …`. One's own video is scored with
`python test.py --ckpt_path … --video my.mp4 --clip_ckpt ViT-L-14.pt --event_ckpt event_clip.pt`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from extracting.clip.encoder import load_encoder
from extracting.own_video import embed_own_videos
from model import CheckpointError, ConfigError, build_model, read_checkpoint
from vad.benchmark import (
    add_list_flags,
    check_width,
    find_lists,
    open_test_set,
)
from vad.catalog import ROOT
from vad.checkpoints import open_checkpoint, open_checkpoints
from vad.data import MODALITIES, own_video
from vad.device import pick_device
from vad.errors import run_door
from vad.find_runs import add_run_flags, find_runs
from vad.paper_report import check_runs, report_table
from vad.report import aside, report_results, show
from vad.results import Result
from vad.scoring import score_videos
from vad.settings import add_dataset_flags, add_switch_flags
from vad.table import add_format_flag
from vad.timelines import only_named, report_own_videos, report_timelines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_flags(parser, ROOT / "checkpoints")
    add_dataset_flags(parser)
    parser.add_argument("--table", type=int, choices=range(1, 10), help="1: methods; 2: classes, with Figure 2")
    parser.add_argument("--timeline", nargs="*", metavar="VIDEO", help="timelines alone, of these test videos")
    parser.add_argument("--modality", choices=MODALITIES, help="take one stream out of a fused checkpoint")
    parser.add_argument("--exp_name", help="folder of the results below figure/ (default: the data set's name)")
    parser.add_argument("--timelines", type=int, default=6, help="videos drawn as timelines (default 6)")
    parser.add_argument("--video_dir", type=Path, help="folder of the test videos, for frames above the timelines")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    parser.add_argument("--figure_dir", default=str(ROOT / "figure"), help="folder of pictures and tables")
    add_format_flag(parser)
    own = parser.add_argument_group("one's own videos", "instead of a data set's test videos")
    own.add_argument("--video", type=Path, nargs="+", help="videos to score")
    own.add_argument("--clip_ckpt", help="image encoder (default: OpenAI's ViT-L/14), or 'untrained'")
    own.add_argument("--event_ckpt", help="event encoder, or 'untrained'")
    own.add_argument("--threshold", type=float, default=0.5, help="score that counts as an anomaly (default 0.5)")
    add_list_flags(parser)
    add_switch_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse()
    paths, remarks = find_runs(args, args.table)
    device = pick_device(args.device)
    if args.video:
        return score_own_videos(args, paths[0], device)
    opened = open_checkpoints(paths, args, read_checkpoint, build_model, streams=args.table == 2)
    check_runs(args.table, opened)
    tests = [open_test_set(find_lists(args, c.settings), c.settings, c.modality) for c in opened]
    for checkpoint, test in zip(opened, tests, strict=True):
        check_width(checkpoint.path, checkpoint.model.config.embed_dim, test.width, f"those of {test.lists.test}")
    tests = [only_named(test, args.timeline or ()) for test in tests]
    results = [Result(c, t, t.score(c.model.to(device), device)) for c, t in zip(opened, tests, strict=True)]
    dataset = opened[0].settings.dataset
    folder = Path(args.figure_dir) / (args.exp_name or dataset.name)
    video_dir = args.video_dir or dataset.video_root
    if args.timeline is not None:
        reported = report_timelines(
            results[0], folder, named=bool(args.timeline), count=args.timelines, video_dir=video_dir
        )
    elif args.table:
        reported = report_table(args.table, results, folder, remarks)
    else:
        reported = report_results(results, folder, timelines=args.timelines, video_dir=video_dir)
    show(*reported, folder, args.format)


def score_own_videos(args: argparse.Namespace, path: str, device: torch.device) -> None:
    checkpoint = open_checkpoint(path, args, read_checkpoint, build_model)
    modalities = ("image", "event") if checkpoint.modality == "fusion" else (checkpoint.modality,)
    weights = {"image": args.clip_ckpt, "event": args.event_ckpt}
    tower = checkpoint.settings.dataset.encoder
    encoders = {m: load_encoder(weights[m], m, tower=tower, device=args.device) for m in modalities}
    for modality, encoder in encoders.items():
        width, what = encoder.embed_dim, f"those of the {modality} encoder"
        check_width(checkpoint.path, checkpoint.model.config.embed_dim, width, what)
        print(f"{modality} encoder: {encoder.note}", file=aside(args.format))
    folder = Path(args.figure_dir) / (args.exp_name or "own_videos")
    paths = embed_own_videos(args.video, encoders, folder / "embeddings")
    videos = [own_video(video.stem, found) for video, found in zip(args.video, paths, strict=True)]
    settings = checkpoint.settings
    scored = score_videos(
        checkpoint.model.to(device),
        videos,
        window=settings.dataset.window,
        nan=settings.profile.nan,
        padding=settings.profile.padding,
        device=device,
    )
    show([report_own_videos(scored, args.video, folder, args.threshold)], [], folder, args.format)


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
