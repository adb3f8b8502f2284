"""Evaluate checkpoints: metrics, Tables 1 and 2, timelines, and the scores of your own videos.

Checkpoints that differ only in their seed become mean ± std; others are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from extracting.clip.encoder import Encoder, load_encoder
from extracting.own_video import SnippetEncoder, embed_own_videos
from extracting.video.live import LiveSource
from model import IEFVAD, CheckpointError, ConfigError
from vad.datasets import load_dataset
from vad.evaluation import NETWORK_OPTIONS, check_width, open_checkpoint, open_runs
from vad.experiments import find_runs
from vad.files import InputError, run_command
from vad.options import Options, add_flags, command_parser, explicit_options, resolve
from vad.report.live import LiveReport
from vad.report.report import check_number, check_table, log_stream, report_results, report_table, show
from vad.report.table import SUFFIXES
from vad.report.timelines import own_video, report_own_videos, report_timelines
from vad.runtime import pick_device
from vad.scoring import LIVE_WINDOW, CausalScorer, Embeddings, score


def parse() -> argparse.Namespace:
    """Parse the flags. Options that were not set are absent."""
    parser = command_parser(
        __doc__,
        "python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd",
        "python test.py --dataset xd --runs 10 --table 1",
        "python test.py --ckpt_path xd.pth --video my.mp4 --event_ckpt event_clip.pt",
        "python test.py --ckpt_path xd.pth --live rtsp://camera/1 --event_ckpt event_clip.pt",
    )
    add = parser.add_argument
    add("--ckpt_path", nargs="+", metavar="FILE", default=[], help="one checkpoint, or several to compare")
    add("--runs", type=int, metavar="N", help="instead: the N runs of main.py --runs N")
    add("--table", type=int, metavar="N", choices=range(1, 10), help="Table 1 (methods) or 2 (classes, with Figure 2)")
    add("--timeline", nargs="*", metavar="VIDEO", help="only timelines of test videos (Appendix I)")
    add("--video_dir", type=Path, metavar="DIR", help="folder of test videos, for frames above timelines")
    add("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
        help=f"tables as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    add_flags(parser, "data", "test_crops", "ano_auc", title="data (default: the checkpoint's)")
    add_flags(parser, "exp_name", "checkpoint_dir", "figure_dir", "device", title="results")
    add_flags(parser, *NETWORK_OPTIONS, title="network (default: the checkpoint's values)")
    own = parser.add_argument_group("your own videos, instead of a data set")
    own.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="videos to score")
    own.add_argument("--live", metavar="SOURCE", help="camera number, URL or file, scored as it comes")
    own.add_argument("--clip_ckpt", metavar="FILE", help="image encoder (default: OpenAI's ViT-L/14)")
    own.add_argument("--event_ckpt", metavar="FILE", help="event encoder (untrained: try without weights)")
    own.add_argument("--threshold", type=float, metavar="X", default=0.5, help="lowest anomalous score (default: 0.5)")
    return parser.parse_args()


def main() -> None:
    """Open the checkpoints, score the videos, print tables and draw pictures."""
    flags = parse()
    explicit = explicit_options(flags)
    paths, notes = find_checkpoints(flags, explicit)
    device = pick_device(str(explicit.get("device", "auto")))
    if flags.video:
        return score_own_videos(flags, explicit, paths[0], device)
    if flags.live is not None:
        return score_live(flags, explicit, paths[0], device)
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
    """Return the checkpoints and notes for the table; raise InputError for flags that exclude each other."""
    results = [f"--{name}" for name in ("table", "timeline", "video", "live") if getattr(flags, name) is not None]
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
    single = next((flag for flag in ("--timeline", "--video", "--live") if flag in results), None)
    if single and len(paths) > 1:
        raise InputError(f"{single} takes one checkpoint, but --ckpt_path names {len(paths)}. Name one of them.")
    return paths, notes


def open_own(flags: argparse.Namespace, explicit: Mapping[str, object], path: Path) -> tuple[
    IEFVAD, Options, dict[str, Encoder]
]:  # fmt: skip
    """Return the model of a checkpoint, its options, and the encoder of each of its modalities."""
    model, options, _, _ = open_checkpoint(path, explicit)
    modalities = ("image", "event") if options.modality == "fusion" else (options.modality,)
    weights = {"image": flags.clip_ckpt, "event": flags.event_ckpt}
    tower = load_dataset(options.dataset).encoder
    encoders = {m: load_encoder(weights[m], m, tower=tower, device=options.device) for m in modalities}
    for modality, encoder in encoders.items():
        check_width(path, model, encoder.embed_dim, f"those of the {modality} encoder")
        print(f"{modality} encoder: {encoder.note}", file=sys.stderr if flags.live else log_stream(flags.format))
    return model, options, encoders


def score_own_videos(
    flags: argparse.Namespace, explicit: Mapping[str, object], path: Path, device: torch.device
) -> None:
    """Embed and score the user's own videos and draw their timelines."""
    model, options, encoders = open_own(flags, explicit, path)
    folder = Path(options.figure_dir) / (options.exp_name or "own_videos")
    paths = embed_own_videos(flags.video, encoders, folder / "embeddings")
    videos = [own_video(video.stem, streams) for video, streams in zip(flags.video, paths, strict=True)]
    scored = score(model.to(device), videos, Embeddings(options.nan), window=options.window, device=device)
    show([report_own_videos(scored, flags.video, folder, flags.threshold)], [], folder, flags.format)


def score_live(
    flags: argparse.Namespace, explicit: Mapping[str, object], path: Path, device: torch.device
) -> None:
    """Score a camera, a stream or a file as it comes; print a line of JSON for each snippet."""
    source = LiveSource(flags.live)
    model, options, encoders = open_own(flags, explicit, path)
    encode = SnippetEncoder(encoders, options.event_threshold, options.event_clamp)
    scorer = CausalScorer(model, LIVE_WINDOW, device)
    with LiveReport(source, tuple(encoders), flags.threshold) as report, source:
        for snippet in source:
            if snippet.after_gap:
                scorer.reset()
            report.print_line(snippet.number, snippet.arrived, scorer(encode(snippet.frames)))


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
