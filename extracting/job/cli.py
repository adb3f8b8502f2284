"""Extraction commands: parse the flags, start the run, and print a summary."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from extracting.clip.encoder import PRECISIONS, load_encoder
from extracting.clip.weights import EVENT_URL, UNTRAINED
from extracting.job.manifest import OUTCOMES
from extracting.job.ray import Cluster
from extracting.job.run import ExtractionRun, Output, Result, Summary
from extracting.job.videos import find_videos, pick_test_videos, require_images
from extracting.video.config import MODALITIES, Config, Job
from extracting.video.frames import check_opencv
from vad.datasets import IMAGE_FOLDER, Dataset, load_dataset
from vad.files import InputError, run_command
from vad.options import DATASET_HELP, PROFILES, TITLES, add_flags, advanced, command_parser, parse_crops, preset

# options that the profile sets unless the user does
PROFILE_OPTIONS = ("tail", "event_threshold", "event_clamp", "event_scaling")
EVENT_TOWERS = ("vitl", "tiny")  # towers whose event maps need an event checkpoint
OutputSpecs = Mapping[str, tuple[Path, Mapping[str, Any]]]  # modality → folder, arguments of `load_encoder`


def main(modality: str | None = None, name: str | None = None) -> None:
    """Run a command and exit with 0, 1 (a video is not ok), 2 (invalid input) or 130 (Ctrl-C).

    modality, name of a data set: fixed by a documented script; None reads the flag.
    """
    # keeps the order with the progress bar; video names may contain characters the terminal cannot show
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    run_command(lambda: extract(modality, load_dataset(name) if name else None))


def extract(modality: str | None = None, fixed: Dataset | None = None) -> int:
    """Parse the flags and run the extraction. Return 0, or 1 if a video is not "ok".

    Raises InputError for invalid input, before any video is decoded where possible.
    """
    check_opencv()
    flags = parser(modality, fixed).parse_args()
    record = fixed or load_dataset(flags.dataset)
    selected = modality or flags.modality
    modalities = MODALITIES if selected == "both" else (selected,)
    config = read_config(flags, modalities, record)
    specs = read_outputs(flags, modalities, record)
    shard = read_shard(flags.shard)
    video_dir = flags.video_dir or record.video_root
    if video_dir is None:
        raise InputError(f"--video_dir is missing. Give the folder of the {record.title} videos.")
    jobs, missing = select_videos(flags, config, record, find_videos(video_dir))
    jobs = jobs[shard]
    require_images(jobs, modalities)
    print(f"{len(jobs)} videos in {video_dir} · crops {','.join(map(str, config.crops))}")
    if flags.ray is not None:
        with Cluster(flags.ray or None, specs, config, max_actors=max(1, len(jobs))) as cluster:
            return embed(flags, jobs, cluster.outputs, config, missing, cluster.run)
    outputs = {
        m: Output.of(m, folder, load_encoder(**arguments, device=flags.device), config)
        for m, (folder, arguments) in specs.items()
    }
    return embed(flags, jobs, outputs, config, missing)


def embed(
    flags: argparse.Namespace,
    jobs: Sequence[Job],
    outputs: Mapping[str, Output],
    config: Config,
    missing: Sequence[str],
    embedder: Callable[[Sequence[Job]], Generator[Result]] | None = None,
) -> int:
    """Embed the videos, or print what a dry run would do. Return the exit code.

    embedder: takes the place of `job.run.run`, on a cluster and for sound.
    """
    for out in outputs.values():
        print(f"{' · '.join(f'{key} {value}' for key, value in out.settings.items())} → {out.folder}")
        print(f"  encoder: {out.note} · fingerprint {out.hash}")
    run = ExtractionRun(jobs, outputs, config, flags.overwrite)
    if flags.dry_run:
        return print_dry_run(run)
    summary = run.run(embedder(run.todo) if embedder else None)
    print_summary(summary, outputs)
    return 1 if summary.problems or missing else 0


def parser(modality: str | None, fixed: Dataset | None) -> argparse.ArgumentParser:
    """Return the parser of a command. modality, fixed: fixed by the script; None adds the flag."""
    title = f"{fixed.title} videos" if fixed else "videos"
    script = Path(sys.argv[0]).name
    example = f"python extracting/{script} --video_dir VIDEOS --save_dir FEATURES"
    if fixed is None:
        example = f"python extracting/{script} --dataset ucfcrime --modality both --video_dir VIDEOS \\\n"
        example += "    --image_dir FEATURES/rgb --event_dir FEATURES/event_thr_10 --event_ckpt event_clip.pt"
    elif modality == "event":
        example += " --clip_ckpt event_clip.pt"
    flags = command_parser(f"Embed {title}: one .npy (S, D) per video and crop, one row per 16 frames.", example)
    add = flags.add_argument
    if fixed is None:
        add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    if modality is None:
        add("--modality", required=True, choices=("both", *MODALITIES), metavar="NAME",
            help="image, event, or both in one pass over the videos")  # fmt: skip
    add("--video_dir", type=Path, metavar="DIR", help="videos, or folders of frames, in sub-folders too")
    if modality is None:
        add("--image_dir", type=Path, metavar="DIR", help="folder for the image embeddings")
        add("--event_dir", type=Path, metavar="DIR", help="folder for the event embeddings")
    add("--save_dir", type=Path, metavar="DIR", help="folder for the embeddings of one modality")
    weights = "event checkpoint" if modality == "event" else "image weights (default: CLIP ViT-L/14, downloaded)"
    add("--clip_ckpt", metavar="FILE", help=weights)
    if modality is None:
        add("--event_ckpt", metavar="FILE", help=f"event checkpoint ({UNTRAINED}: try without weights)")
    add("--encoder", metavar="NAME", help="image tower: vitl, open_clip:NAME or timm:NAME (default: the data set's)")
    add("--crops", metavar="CROPS", help="crop numbers: 5, 0,5 or 0..9 (default: 0..9)")
    add("--split", choices=("all", "test"), default="all", metavar="NAME",
        help="all, or test: only what evaluation needs (default: all)")  # fmt: skip
    add("--overwrite", action="store_true", help="make finished embeddings again")
    add("--dry_run", action="store_true", help="print what would be done and write nothing")
    more = flags.add_argument_group(TITLES["preparation"])
    more.add_argument("--profile", default="default", choices=tuple(PROFILES), metavar="NAME",
                      help="default, paper or released: sets the event options")  # fmt: skip
    for name in PROFILE_OPTIONS:
        add_flags(flags, name)
    if modality != "image":
        more.add_argument("--save_events", action="store_true", help="write event maps too: <video>__events.npz")
    more = flags.add_argument_group("machine")
    add = more.add_argument
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 (default: auto)")
    add("--precision", choices=PRECISIONS, metavar="NAME",
        help=advanced("fp32, bf16 or fp16 (default: bf16 for ViT-L/14 on a GPU, else fp32)"))  # fmt: skip
    add("--batch_size", type=int, metavar="N", help=advanced("images in a forward pass (default: 256 on a GPU)"))
    add("--workers", type=int, metavar="N", help="decoder processes (default: cores − 1)")
    add("--shard", default="0/1", metavar="K/N", help="every N-th video from the K-th, for N commands")
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="one encoder per GPU of a Ray cluster or this machine")
    add("--time_limit", type=float, default=Config.time_limit, metavar="X",
        help=advanced(f"seconds without a snippet that end a video (default: {Config.time_limit:g})"))  # fmt: skip
    add("--strict", action="store_true", help=advanced("stop at the first video that is not ok"))
    add("--fps", type=float, metavar="X",
        help=advanced("frame rate of frame folders and recordings (default: the data set's)"))  # fmt: skip
    add("--test_list", type=Path, metavar="FILE", help=advanced("list of the test videos (default: the split's)"))
    return flags


def read_config(flags: argparse.Namespace, modalities: Sequence[str], record: Dataset) -> Config:
    """Return the settings. An option that is not set explicitly comes from the profile."""
    profile = preset(flags.profile)
    save_events = getattr(flags, "save_events", False)
    if save_events and "event" not in modalities:
        raise InputError("--save_events writes event maps. Give --modality event or both.")
    crops = flags.crops if flags.crops is not None else "0..9"
    if flags.crops is None and flags.split == "test":
        crops = ",".join(map(str, profile.test_crops))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = 2 if flags.ray is not None else max(1, cores - 1)
    explicit = {name: getattr(flags, name, None) for name in PROFILE_OPTIONS}
    return Config(
        crops=parse_crops(crops),
        **{name: getattr(profile, name) if value is None else value for name, value in explicit.items()},
        save_events=save_events,
        fps=record.fps if flags.fps is None else flags.fps,
        workers=workers if flags.workers is None else flags.workers,
        time_limit=flags.time_limit,
        strict=flags.strict,
    )


def read_outputs(flags: argparse.Namespace, modalities: Sequence[str], record: Dataset) -> OutputSpecs:
    """Return the output folder and `load_encoder` arguments of each modality, from the flags or the data set."""
    if flags.save_dir and len(modalities) > 1:
        raise InputError("--save_dir takes one modality. For both, give --image_dir and --event_dir.")
    if flags.ray is not None and flags.device != "auto":
        raise InputError("--device has no effect with --ray, because Ray assigns the GPUs. Remove --device.")
    specs = {}
    for modality in modalities:
        folder = flags.save_dir or getattr(flags, f"{modality}_dir", None)
        if folder is None and record.video_root is None:
            flag = f"{modality}_dir" if len(modalities) > 1 else "save_dir"
            raise InputError(f"--{flag} is missing. Give the folder for the {record.title} {modality} embeddings.")
        default = IMAGE_FOLDER if modality == "image" else record.event_folders[0]
        specs[modality] = (folder or record.data_root / default).absolute(), read_encoder(flags, modality, record)
    if len({folder.resolve() for folder, _ in specs.values()}) < len(specs):
        raise InputError(f"--image_dir and --event_dir are both {flags.image_dir}. Give two different folders.")
    return specs


def read_encoder(flags: argparse.Namespace, modality: str, record: Dataset) -> dict[str, Any]:
    """Return the arguments of `load_encoder`. Towers without an event checkpoint use --clip_ckpt for events."""
    tower = flags.encoder or record.encoder
    checkpoint = flags.clip_ckpt
    if modality == "event" and hasattr(flags, "event_ckpt"):
        checkpoint = flags.event_ckpt or (None if tower in EVENT_TOWERS else flags.clip_ckpt)
    if checkpoint is None and record.synthetic:
        checkpoint = UNTRAINED
    if checkpoint is None and modality == "event" and tower in EVENT_TOWERS and hasattr(flags, "event_ckpt"):
        raise InputError(
            f"event embeddings need the event checkpoint. Download it from {EVENT_URL} and give it as --event_ckpt."
        )
    arguments = {"checkpoint": checkpoint, "modality": modality, "tower": tower}
    return arguments | {"precision": flags.precision, "pass_size": flags.batch_size}


def read_shard(text: str) -> slice:
    """Return the slice of the video list that --shard K/N selects."""
    first, _, number = text.partition("/")
    if not (first.isdecimal() and number.isdecimal() and int(first) < int(number)):
        raise InputError(f"--shard {text} is not K/N with K from 0 to N−1, for example 0/4")
    return slice(int(first), None, int(number))


def select_videos(
    flags: argparse.Namespace, config: Config, record: Dataset, jobs: Sequence[Job]
) -> tuple[Sequence[Job], list[str]]:
    """Return the videos of --split and the names of missing test videos. Print what the split selects."""
    if flags.split != "test":
        if flags.test_list:
            raise InputError("--test_list needs --split test. Add --split test, or remove --test_list.")
        return jobs, []
    profile = preset(flags.profile)
    split = record.default_split(profile.split)
    test_jobs, missing = pick_test_videos(jobs, record, split, flags.test_list)
    note = "sufficient for evaluation"
    if not set(profile.test_crops) <= set(config.crops):
        note = f"but evaluation needs crops {','.join(map(str, profile.test_crops))}"
    crops = ",".join(map(str, config.crops))
    print(f"--split test: {len(test_jobs)} test videos ({split} split), crops {crops}, {note}")
    if missing:
        print(f"{len(missing)} test videos of the list were not found: {', '.join(missing)}")
    return test_jobs, missing


def print_dry_run(run: ExtractionRun) -> int:
    """Print what a run would do. Return 1 if a video is unusable, else 0."""
    print("dry run: no files are written")
    for modality, out in run.outputs.items():
        todo = [job.name for job in run.todo if modality in job.modalities]
        failed = sum(name in run.manifests[modality].records for name in todo)
        finished = len(run.summary.before[modality])
        print(
            f"{modality} → {out.folder}: {len(todo) - failed} videos to embed,"
            f" {failed} to embed again, {finished} finished"
        )
    print_problems({(job.outcome, job.video, job.reason): list(run.outputs) for job in run.rejected}, 0)
    return 1 if run.rejected else 0


def print_summary(summary: Summary, outputs: Mapping[str, Output]) -> None:
    """Print the number of embedded videos, and a table of the videos that are not "ok"."""
    speed = f" · {summary.frames} frames, {summary.frames / summary.seconds:.0f} frames/s" if summary.frames else ""
    for modality, out in outputs.items():
        embedded = sum(record.embedded for record in summary.done[modality])
        before = len(summary.before[modality])
        print(f"{out.folder}: {embedded} videos written, {before} already finished{speed}")
        silent = sum(record.outcome == "silent" for record in (*summary.done[modality], *summary.before[modality]))
        if silent:
            print(f"{silent} videos are silent; their files are zero")
        notes = [record for record in summary.done[modality] if record.outcome == "ok" and record.reason]
        for record in notes[:1]:
            print(f"{len(notes)} videos have a note in the manifest; {record.video}: {record.reason}")
    problems: dict[tuple[str, str, str], list[str]] = {}
    for modality, record in summary.problems:
        problems.setdefault((record.outcome, record.video, record.reason), []).append(modality)
    print_problems(problems, len(outputs))
    if summary.stopped:
        print("stopped at the first video that is not ok (--strict)")


def print_problems(problems: Mapping[tuple[str, str, str], Sequence[str]], modalities: int) -> None:
    """Print a table of the videos that are not "ok". problems: (outcome, video, reason) → modalities."""
    if not problems:
        return
    print(f"{len({video for _, video, _ in problems})} videos are not ok:")
    order = list(OUTCOMES)
    width = max(len(video) for _, video, _ in problems)
    for outcome, video, reason in sorted(problems, key=lambda row: (order.index(row[0]), row[1])):
        affected = problems[outcome, video, reason]
        only = f" ({affected[0]} only)" if len(affected) < modalities else ""
        print(f"  {outcome:<12}  {video:<{width}}  {reason}{only}")
    counts = {outcome: sum(row[0] == outcome for row in problems) for outcome in order}
    print("  " + ", ".join(f"{outcome} {number}" for outcome, number in counts.items() if number))
