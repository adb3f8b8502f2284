"""Evaluate checkpoints: metrics, Tables 1 and 2, timelines, and the scores of your own videos.

Checkpoints that differ only in their seed become mean ± std; others are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extracting.clip.encoder import Encoder, load_encoder
from extracting.clip.weights import find_weights
from extracting.config import Config
from extracting.own.footage import ShownScores, import_av, view
from extracting.own.videos import OwnVideo, embed_own_videos
from model import IEFVAD, CheckpointError, ConfigError, read_checkpoint
from vad.datasets import load_dataset
from vad.evaluation import NETWORK_OPTIONS, check_encoder, check_width, open_checkpoint, open_runs
from vad.experiments import find_runs
from vad.files import InputError, run_command, sha256
from vad.options import Options, add_flags, as_text, command_parser, explicit_options, resolve
from vad.prepare.ground_truth import EXTRACTION
from vad.report.own_videos import (
    CLIP,
    Threshold,
    answer_of,
    choose_threshold,
    find_events,
    finished_answer,
    in_events,
    missing_packages,
    own_video,
    own_videos_table,
    shown_snippets,
    write_answer,
    write_index,
)
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
from vad.scoring import Embeddings, ScoredVideo, score


def parse() -> argparse.Namespace:
    """Parse the flags. Options that were not set are absent."""
    parser = command_parser(
        __doc__,
        "python test.py --dataset xd --ckpt_path checkpoints/xd/xd.pth --exp_name xd",
        "python test.py --dataset xd --runs 10 --table 1",
        "python test.py --ckpt_path xd.pth --video my.mp4 --event_ckpt event_clip.pt",
    )
    add = parser.add_argument
    add("--ckpt_path", nargs="+", metavar="FILE", default=[], help="one checkpoint, or several to compare")
    add("--runs", type=int, metavar="N", help="instead: the N runs of main.py --runs N")
    add("--table", type=int, metavar="N", choices=range(1, 10), help="Table 1 (methods) or 2 (classes, with Figure 2)")
    add("--timeline", nargs="*", metavar="VIDEO", help="only timelines of test videos (Appendix I)")
    add("--video_dir", type=Path, metavar="DIR", help="folder of test videos, for frames above timelines")
    add("--export", type=Path, metavar="FILE", help="only write the model: .onnx, .pt2 or a folder for the hub")
    add("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
        help=f"tables as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    add_flags(parser, "data", "test_crops", "ano_auc", title="data (default: the checkpoint's)")
    add_flags(parser, "exp_name", "checkpoint_dir", "figure_dir", "device", title="results")
    add_flags(parser, *NETWORK_OPTIONS, title="network (default: the checkpoint's values)")
    own = parser.add_argument_group("your own videos, instead of a data set")
    own.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="videos, or folders of videos")
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
        return print(export_checkpoint(paths[0], explicit, flags.export))
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
    return 0


def find_checkpoints(flags: argparse.Namespace, explicit: Mapping[str, object]) -> tuple[list[Path], list[str]]:
    """Return the checkpoints and notes for the table; raise InputError for flags that exclude each other."""
    results = [f"--{name}" for name in ("table", "timeline", "video", "export") if getattr(flags, name) is not None]
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
    single = next((flag for flag in ("--timeline", "--video", "--export") if flag in results), None)
    if single and len(paths) > 1:
        raise InputError(f"{single} takes one checkpoint, but --ckpt_path names {len(paths)}. Name one of them.")
    return paths, notes


@dataclass(frozen=True)
class OwnModel:
    """A checkpoint for your own videos, with the encoders and the extraction settings of its training."""

    path: Path
    model: IEFVAD
    options: Options
    content: Mapping[str, Any]  # of the checkpoint
    encoders: Mapping[str, Encoder]
    config: Config
    folder: Path  # of the results

    def made_from(self) -> dict[str, object]:
        """Return what the results depend on, for their record."""
        encoders = {f"{modality} encoder": encoder.note for modality, encoder in self.encoders.items()}
        checkpoint = f"{self.path.name} (SHA-256 {sha256(self.path)[:16]}), {self.options.modality}"
        settings = " · ".join(f"{name} {as_text(getattr(self.config, name))}" for name in ("crops", *EXTRACTION))
        return {"checkpoint": checkpoint, **encoders, "extraction": settings}


def open_own(flags: argparse.Namespace, explicit: Mapping[str, object], path: Path) -> OwnModel:
    """Open a checkpoint for your own videos; load its encoders from flags, known folders or packages.

    Raises InputError for encoders with other weights than those that it was trained with.
    """
    model, options, content, _ = open_checkpoint(path, explicit)
    dataset, trained, encoders = load_dataset(options.dataset), content.get("encoders", {}), {}
    folders = (Path(), Path(options.checkpoint_dir), dataset.data_root / "weights")
    for modality in ("image", "event") if options.modality == "fusion" else (options.modality,):
        recorded = trained.get(modality, {"weights": "", "settings": {}})
        given = flags.clip_ckpt if modality == "image" else flags.event_ckpt
        weights = given or find_weights(recorded["weights"], folders)
        tower = recorded["settings"].get("tower", dataset.encoder)
        encoder = load_encoder(weights, modality, tower=tower, device=options.device)
        source = f"those of the {modality} encoder with {encoder.note}"
        check_width(path, model, encoder.embed_dim, source)
        check_encoder(path, content, modality, encoder.hash, source)
        print(f"{modality} encoder: {encoder.note}", file=log_stream(flags.format))
        encoders[modality] = encoder
    recorded = {name: value for encoder in trained.values() for name, value in encoder["settings"].items()}
    settings = {name: recorded.get(name, getattr(options, name)) for name in EXTRACTION}
    folder = Path(options.figure_dir) / (options.exp_name or "own_videos")
    return OwnModel(path, model, options, content, encoders, Config(options.test_crops, **settings), folder)


def score_own_videos(
    flags: argparse.Namespace, explicit: Mapping[str, object], path: Path, device: torch.device
) -> int:
    """Embed and score the user's own videos and write their answers; return 1 if a video failed."""
    threshold = choose_threshold(flags.threshold, read_checkpoint(path))
    if flags.annotated:
        import_av()
    own = open_own(flags, explicit, path)
    videos = embed_own_videos(flags.video, own.encoders, own.folder / "embeddings", own.config)
    if flags.annotated and len(videos) > 1:
        raise InputError(f"--annotated writes one video, but --video names {len(videos)}. Name one of them.")
    tests = [own_video(video.name, video.embeddings) for video in videos if not video.problem]
    model, options = own.model.to(device), own.options
    scored = score(model, tests, Embeddings(options.nan), window=options.window, device=device)
    results, answers = {result.name: result for result in scored}, []
    for video in videos:
        if not video.problem:
            answer = answer_own_video(flags, own, video, results[video.name], threshold)
            answers.append((answer, results[video.name].scores))
    if len(videos) > 1 and not missing_packages():
        write_index(own.folder, answers, {video.name: video.problem for video in videos if video.problem})
    table = own_videos_table([answer for answer, _ in answers], threshold)
    table.save(own.folder / "videos")
    show([table], [], own.folder, flags.format)
    if missing_packages():
        print(missing_packages(), file=log_stream(flags.format))
    for video in videos:
        if video.problem:
            print(f"error: {video.path}: {video.problem}", file=sys.stderr)
    return int(len(answers) < len(videos))


def answer_own_video(
    flags: argparse.Namespace, own: OwnModel, video: OwnVideo, result: ScoredVideo, threshold: Threshold
) -> dict[str, Any]:
    """Write the files about one video, unless they exist; return the content of events.json."""
    folder, pages = own.folder / video.name, not missing_packages()
    embeddings = [file.name for crops in video.embeddings.values() for file in crops.values()]
    made_from = own.made_from() | {"embeddings": ", ".join(embeddings), "threshold": threshold.value,
                                   "pages": pages, "video embedded": flags.embed}  # fmt: skip
    answer = finished_answer(folder, made_from)
    if answer and not flags.annotated:
        return answer
    events = find_events(result.scores, threshold)
    shown = ShownScores(result.scores, in_events(events, len(result.scores)), threshold.value)
    clip = folder / CLIP if pages and not video.is_recording else None
    chosen = {k for snippets in shown_snippets(result.scores, events) for k in snippets}
    footage = view(video.path, chosen, shown, own.config, preview=clip, annotated=flags.annotated)
    answer = answer_of(result, footage.times, events, threshold, made_from, footage.note)
    write_answer(folder, result, answer, footage.times, events, footage.pictures, footage.event_maps, clip=clip,
                 embed=flags.embed)  # fmt: skip
    return answer


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
