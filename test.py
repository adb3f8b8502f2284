"""Evaluate checkpoints: `python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd`.

Several checkpoints are compared: runs that differ in their seed only become mean ± std. Tables 1 and 2 of the paper are
`python test.py --table 1 --dataset xd --ckpt_path …` (or `--runs 10` for the runs of main.py), its Appendix I
`python test.py --timeline [VIDEO …] --ckpt_path …`. One's own video is scored with
`python test.py --ckpt_path … --video my.mp4 --clip_ckpt ViT-L-14.pt --event_ckpt event_clip.pt`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from extracting.clip.encoder import load_encoder
from extracting.own_video import embed_own_videos
from model import CheckpointError, ConfigError
from vad.datasets import load_dataset
from vad.evaluation import NETWORK_OPTIONS, check_width, open_checkpoint, open_runs
from vad.experiments import find_runs
from vad.files import InputError, run_command
from vad.options import add_flags, command_parser, explicit_options, resolve
from vad.report.report import check_number, check_table, log_stream, report_results, report_table, show
from vad.report.table import SUFFIXES
from vad.report.timelines import own_video, report_own_videos, report_timelines
from vad.runtime import pick_device
from vad.scoring import Embeddings, score


def parse() -> argparse.Namespace:
    """The flags; options that were not set are absent."""
    parser = command_parser(__doc__)
    parser.add_argument("--ckpt_path", nargs="+", default=[], help="one checkpoint, or several to compare")
    parser.add_argument("--runs", type=int, help="instead: the runs <exp_name>_seed0 … of main.py --runs")
    parser.add_argument("--table", type=int, choices=range(1, 10), help="1: methods; 2: classes, with Figure 2")
    parser.add_argument("--timeline", nargs="*", metavar="VIDEO", help="timelines alone, of these test videos")
    add_flags(parser, "data", "exp_name", "checkpoint_dir", "figure_dir", "device", "test_crops", "ano_auc")
    add_flags(parser, *NETWORK_OPTIONS, title="network (default: the checkpoint's values)")
    parser.add_argument("--video_dir", type=Path, help="folder of the test videos, for frames above the timelines")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="text", help="of the printed tables")
    own = parser.add_argument_group("one's own videos, instead of a data set's")
    own.add_argument("--video", type=Path, nargs="+", help="videos to score")
    own.add_argument("--clip_ckpt", help="image encoder (default: OpenAI's ViT-L/14), or 'untrained'")
    own.add_argument("--event_ckpt", help="event encoder, or 'untrained'")
    own.add_argument("--threshold", type=float, default=0.5, help="score that counts as an anomaly (0.5)")
    return parser.parse_args()


def main() -> None:
    """Open the checkpoints, score what is asked for, print tables and draw pictures."""
    flags = parse()
    explicit = explicit_options(flags)
    paths, notes = find_checkpoints(flags, explicit)
    device = pick_device(str(explicit.get("device", "auto")))
    if flags.video:
        return score_own_videos(flags, explicit, paths[0], device)
    runs = open_runs(paths, explicit, device, streams=flags.table == 2)
    check_table(flags.table, runs)
    first = runs[0]
    folder = Path(first.options.figure_dir) / (str(explicit.get("exp_name", "")) or first.dataset.name)
    video_dir = flags.video_dir or first.dataset.video_root
    if flags.timeline is not None:
        reported = report_timelines(first, folder, flags.timeline, video_dir)
    elif flags.table:
        reported = report_table(flags.table, runs, folder, notes)
    else:
        reported = report_results(runs, folder, video_dir)
    show(*reported, folder, flags.format)


def find_checkpoints(flags: argparse.Namespace, explicit: Mapping[str, object]) -> tuple[list[Path], list[str]]:
    """The checkpoints that are meant, and notes for the table; InputError for flags that contradict each other."""
    asked = [f"--{name}" for name in ("table", "timeline", "video") if getattr(flags, name) is not None]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} ask for different results; give one of them")
    check_number(flags.table, resolve(explicit).dataset)
    if flags.ckpt_path and flags.runs is not None:
        raise InputError("--ckpt_path and --runs both say which checkpoints to take; give one of them")
    if flags.runs is None and not flags.ckpt_path:
        name = resolve(explicit).dataset
        raise InputError(f"no checkpoint is named; give --ckpt_path, or --runs N for the runs that `python main.py "
                         f"--dataset {name} --runs 10` trains")  # fmt: skip
    paths, notes = ([Path(path) for path in flags.ckpt_path], []) if flags.ckpt_path else find_runs(
        explicit, flags.runs, flags.table
    )  # fmt: skip
    single = next((flag for flag in ("--timeline", "--video") if flag in asked), None)
    if single and len(paths) > 1:
        raise InputError(f"{single} is of one checkpoint, {len(paths)} are named; give --ckpt_path one of them")
    return paths, notes


def score_own_videos(
    flags: argparse.Namespace, explicit: Mapping[str, object], path: Path, device: torch.device
) -> None:
    """Embed and score one's own videos, and draw their timelines."""
    model, options, _, _ = open_checkpoint(path, explicit)
    modalities = ("image", "event") if options.modality == "fusion" else (options.modality,)
    weights = {"image": flags.clip_ckpt, "event": flags.event_ckpt}
    tower = load_dataset(options.dataset).encoder
    encoders = {m: load_encoder(weights[m], m, tower=tower, device=options.device) for m in modalities}
    for modality, encoder in encoders.items():
        check_width(path, model, encoder.embed_dim, f"those of the {modality} encoder")
        print(f"{modality} encoder: {encoder.note}", file=log_stream(flags.format))
    folder = Path(options.figure_dir) / (options.exp_name or "own_videos")
    paths = embed_own_videos(flags.video, encoders, folder / "embeddings")
    videos = [own_video(video.stem, streams) for video, streams in zip(flags.video, paths, strict=True)]
    scored = score(model.to(device), videos, Embeddings(options.nan), window=options.window, device=device)
    show([report_own_videos(scored, flags.video, folder, flags.threshold)], [], folder, flags.format)


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
