"""Evaluate checkpoints: metrics, Tables 1 and 2, timelines, and the scores of your own videos.

Checkpoints that differ only in their seed become mean ± std; others are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from extracting.own.answers import TrainedModel, answer_live, answer_videos
from extracting.video.live import LiveSource
from model import CheckpointError, ConfigError
from vad.evaluation import NETWORK_OPTIONS, open_runs, require_ief_vad
from vad.experiments import find_runs
from vad.files import InputError, run_command
from vad.options import add_flags, command_parser, explicit_options, resolve
from vad.report.own_videos import missing_packages
from vad.report.report import (
    check_number,
    check_table,
    export_checkpoint,
    log_stream,
    report_results,
    report_table,
    show,
)
from vad.report.table import SUFFIXES
from vad.report.timelines import report_timelines
from vad.runtime import pick_device


def parse() -> argparse.Namespace:
    """Parse the flags. Options that were not set are absent."""
    parser = command_parser(
        __doc__,
        "python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd",
        "python test.py --ckpt_path xd.pth --video my.mp4 --event_ckpt event_clip.pt",
    )
    add = parser.add_argument
    add("--ckpt_path", nargs="+", metavar="FILE", default=[], help="one checkpoint, or several to compare")
    add("--runs", type=int, metavar="N", help="instead: the N runs of main.py --runs N")
    add("--table", type=int, metavar="N", choices=range(1, 10), help="Table 1 (methods) or 2 (classes, with Figure 2)")
    add("--timeline", nargs="*", metavar="VIDEO", help="only timelines of test videos (Appendix I)")
    add("--video_dir", type=Path, metavar="DIR", help="folder of test videos, for frames above timelines")
    add("--export", type=Path, metavar="FILE", help="only write the model: .onnx, .pt2 or a folder")
    add("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
        help=f"tables as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    add_flags(parser, "data", "test_crops", "ano_auc", title="data (default: the checkpoint's)")
    add_flags(parser, "exp_name", "checkpoint_dir", "figure_dir", "device", title="results")
    add_flags(parser, *NETWORK_OPTIONS, title="network (default: the checkpoint's values)")
    own = parser.add_argument_group("your own videos, instead of a data set")
    own.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="videos, or folders of videos")
    own.add_argument("--live", metavar="SOURCE", help="camera number, URL or file, scored as it comes")
    own.add_argument("--clip_ckpt", metavar="FILE", help="image encoder (default: that of the training)")
    own.add_argument("--event_ckpt", metavar="FILE", help="event encoder (default: that of the training)")
    own.add_argument("--threshold", type=float, metavar="X", help="score of an alarm (default: the checkpoint's)")
    own.add_argument("--embed", action="store_true", help="put the video into its report.html")
    own.add_argument("--annotated", type=Path, metavar="FILE", help="write the video with its scores burnt in")
    return parser.parse_args()


def main() -> int:
    """Open the checkpoints, score the videos, print tables and draw pictures; return 1 if a video failed."""
    flags = parse()
    explicit = explicit_options(flags)
    paths, notes = find_checkpoints(flags, explicit)
    if flags.export:
        print(export_checkpoint(paths[0], explicit, flags.export))
        return 0
    device = pick_device(str(explicit.get("device", "auto")))
    if flags.video or flags.live is not None:
        return score_own(flags, explicit, paths[0], device)
    runs = open_runs(paths, explicit, device, streams=flags.table == 2)
    check_table(flags.table, runs)
    first = runs[0]
    folder = Path(first.options.figure_dir) / (str(explicit.get("exp_name", "")) or first.dataset.name)
    video_dir = flags.video_dir or first.dataset.video_root
    if flags.timeline is not None:
        require_ief_vad(first.path, first.options, "--timeline")
        reported = report_timelines(first, folder, flags.timeline, video_dir)
    elif flags.table:
        reported = report_table(flags.table, runs, folder, notes)
    else:
        reported = report_results(runs, folder, video_dir)
    show(*reported, folder, flags.format)
    return 0


def find_checkpoints(flags: argparse.Namespace, explicit: Mapping[str, object]) -> tuple[list[Path], list[str]]:
    """Return the checkpoints and notes for the table; raise InputError for flags that exclude each other."""
    names = ("table", "timeline", "video", "live", "export")
    results = [f"--{name}" for name in names if getattr(flags, name) is not None]
    if len(results) > 1:
        raise InputError(f"{' and '.join(results)} make different results. Give one of them.")
    check_number(flags.table, resolve(explicit).dataset)
    if flags.ckpt_path and flags.runs is not None:
        raise InputError("--ckpt_path and --runs both select checkpoints. Give one of them.")
    if flags.runs is None and not flags.ckpt_path:
        name = resolve(explicit).dataset
        raise InputError(f"no checkpoint is given. Give --ckpt_path, or --runs N for the runs of "
                         f"`python main.py --dataset {name} --runs N`.")  # fmt: skip
    paths, notes = ([Path(path) for path in flags.ckpt_path], []) if flags.ckpt_path else find_runs(
        explicit, flags.runs, flags.table
    )  # fmt: skip
    single = next((flag for flag in ("--timeline", "--video", "--live", "--export") if flag in results), None)
    if single and len(paths) > 1:
        raise InputError(f"{single} takes one checkpoint, but --ckpt_path names {len(paths)}. Name one of them.")
    return paths, notes


def score_own(flags: argparse.Namespace, explicit: Mapping[str, object], path: Path, device: torch.device) -> int:
    """Score the user's own videos or a live source; return 1 if a video failed."""
    source = None if flags.live is None else LiveSource(flags.live)
    weights = {"image": flags.clip_ckpt, "event": flags.event_ckpt}
    log = sys.stderr if source else log_stream(flags.format)
    trained = TrainedModel.open(path, explicit, weights, flags.threshold, device, log)
    if source:
        answer_live(trained, source)
        return 0
    table, page, failed = answer_videos(trained, flags.video, embed=flags.embed, annotated=flags.annotated)
    show([table], [], trained.folder, flags.format)
    if missing_packages() or page:
        print(missing_packages() or f"Open {page}", file=log)
    for video, reason in failed.items():
        print(f"error: {video}: {reason}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
