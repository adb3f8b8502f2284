"""The extraction commands: from the flags to the run, and what is printed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extracting.clip.encoder import PRECISIONS, load_encoder
from extracting.clip.weights import EVENT_URL, UNTRAINED
from extracting.config import MODALITIES, Config, Job
from extracting.job.manifest import OUTCOMES
from extracting.job.ray import Cluster
from extracting.job.run import ExtractionRun, Output, Summary
from extracting.job.videos import find_videos, pick_test_videos
from extracting.video.frames import check_opencv
from vad.datasets import IMAGE_FOLDER, Dataset, dataset_names, load_dataset
from vad.files import InputError, run_command
from vad.options import PROFILES, TITLES, add_flags, advanced, command_parser, parse_crops, preset

# flags that a profile sets where the user does not
SWITCHES = ("tail", "event_threshold", "event_clamp", "event_scaling")
METHODS_OWN = ("vitl", "tiny")  # towers whose event maps need an event checkpoint
Wanted = Mapping[str, tuple[Path, Mapping[str, Any]]]  # modality → folder, arguments of `load_encoder`


def main(modality: str | None = None, name: str | None = None) -> None:
    """Run a command to its exit code: 0, 1 (a video is not ok), 2 (wrong input), 130 (Ctrl-C).

    modality, name (of a data set): those of a documented script; None reads the flag.
    """
    # in order with the progress bar, also into a file; video names may hold what the terminal cannot show
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    run_command(lambda: extract(modality, load_dataset(name) if name else None))


def extract(modality: str | None = None, fixed: Dataset | None = None) -> int:
    """Parse, run, print; returns 0, or 1 if a video is not "ok".

    Raises InputError before any work for what can be known before.
    """
    check_opencv()
    flags = parser(modality, fixed).parse_args()
    record = fixed or load_dataset(flags.dataset)
    asked = modality or flags.modality
    modalities = MODALITIES if asked == "both" else (asked,)
    config = read_config(flags, modalities)
    wanted = read_outputs(flags, modalities, record)
    shard = read_shard(flags.shard)
    video_dir = flags.video_dir or record.video_root
    if video_dir is None:
        raise InputError(f"--video_dir is missing: give the folder of {record.title}'s videos")
    jobs, missing = choose(flags, config, record, find_videos(video_dir))
    jobs = jobs[shard]
    print(f"{len(jobs)} videos of {video_dir} · crops {','.join(map(str, config.crops))}")
    if flags.ray is not None:
        with Cluster(flags.ray or None, wanted, config, most=max(1, len(jobs))) as cluster:
            return embed(flags, jobs, cluster.outputs, config, missing, cluster)
    outputs = {
        m: Output.of(m, folder, load_encoder(**how, device=flags.device), config)
        for m, (folder, how) in wanted.items()
    }
    return embed(flags, jobs, outputs, config, missing)


def embed(
    flags: argparse.Namespace,
    jobs: Sequence[Job],
    outputs: Mapping[str, Output],
    config: Config,
    missing: Sequence[str],
    cluster: Cluster | None = None,
) -> int:
    """Make the embeddings, or say what would be made; returns the exit code."""
    for out in outputs.values():
        print(f"{' · '.join(f'{key} {value}' for key, value in out.settings.items())} → {out.folder}")
        print(f"  encoder: {out.note} · fingerprint {out.hash}")
    run = ExtractionRun(jobs, outputs, config, flags.overwrite)
    if flags.dry_run:
        return tell_plan(run)
    summary = run.run(cluster.run(run.todo) if cluster else None)
    tell_summary(summary, outputs)
    return 1 if summary.problems or missing else 0


def parser(modality: str | None, fixed: Dataset | None) -> argparse.ArgumentParser:
    """Flags of a command. modality: its one, None adds --modality; fixed: its data set, or None."""
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
        add("--dataset", required=True, metavar="NAME", help=f"{', '.join(dataset_names())} or your own folder")
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
    for name in SWITCHES:
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
    add("--fps", type=float, metavar="X", help=advanced("frame rate of folders of frames, for the manifest"))
    add("--test_list", type=Path, metavar="FILE", help=advanced("list of the test videos (default: the split's)"))
    return flags


def read_config(flags: argparse.Namespace, modalities: Sequence[str]) -> Config:
    """The settings typed; a switch that was not is the profile's."""
    chosen = preset(flags.profile)
    save_events = getattr(flags, "save_events", False)
    if save_events and "event" not in modalities:
        raise InputError("--save_events writes event maps, which --modality image does not make")
    crops = flags.crops if flags.crops is not None else "0..9"
    if flags.crops is None and flags.split == "test":
        crops = ",".join(map(str, chosen.test_crops))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = 2 if flags.ray is not None else max(1, cores - 1)
    explicit = {name: getattr(flags, name, None) for name in SWITCHES}
    return Config(
        crops=parse_crops(crops),
        **{name: getattr(chosen, name) if value is None else value for name, value in explicit.items()},
        save_events=save_events,
        fps=flags.fps,
        workers=workers if flags.workers is None else flags.workers,
        time_limit=flags.time_limit,
        strict=flags.strict,
    )


def read_outputs(flags: argparse.Namespace, modalities: Sequence[str], record: Dataset) -> Wanted:
    """Folder and encoder of each modality: as typed, or where the data set says they are. Else InputError."""
    if flags.save_dir and len(modalities) > 1:
        raise InputError("--save_dir is one folder for two modalities; give --image_dir and --event_dir instead")
    if flags.ray is not None and flags.device != "auto":
        raise InputError("--device is that of this process; with --ray every encoder has the GPU Ray gives it")
    wanted = {}
    for modality in modalities:
        folder = flags.save_dir or getattr(flags, f"{modality}_dir", None)
        if folder is None and record.video_root is None:
            flag = f"{modality}_dir" if len(modalities) > 1 else "save_dir"
            raise InputError(f"--{flag} is missing: give the folder of {record.title}'s {modality} embeddings")
        below = IMAGE_FOLDER if modality == "image" else record.event_folders[0]
        wanted[modality] = (folder or record.data_root / below).absolute(), read_encoder(flags, modality, record)
    if len({folder.resolve() for folder, _ in wanted.values()}) < len(wanted):
        raise InputError(f"--image_dir and --event_dir are both {flags.image_dir}; files of one name would meet there")
    return wanted


def read_encoder(flags: argparse.Namespace, modality: str, record: Dataset) -> dict[str, Any]:
    """Arguments of `load_encoder`. Where no event checkpoint is given another tower than CLIP's takes events too."""
    tower = flags.encoder or record.encoder
    checkpoint = flags.clip_ckpt
    if modality == "event" and hasattr(flags, "event_ckpt"):
        checkpoint = flags.event_ckpt or (None if tower in METHODS_OWN else flags.clip_ckpt)
    if checkpoint is None and record.synthetic:
        checkpoint = UNTRAINED
    if checkpoint is None and modality == "event" and tower in METHODS_OWN and hasattr(flags, "event_ckpt"):
        raise InputError(
            f"event embeddings need the event checkpoint: get it from {EVENT_URL} and give its path as --event_ckpt"
        )
    how = {"checkpoint": checkpoint, "modality": modality, "tower": tower}
    return how | {"precision": flags.precision, "pass_size": flags.batch_size}


def read_shard(text: str) -> slice:
    """Slice of the video list of a --shard K/N."""
    first, _, number = text.partition("/")
    if not (first.isdecimal() and number.isdecimal() and int(first) < int(number)):
        raise InputError(f"--shard {text}: write K/N with K from 0 to N−1, for example 0/4")
    return slice(int(first), None, int(number))


def choose(
    flags: argparse.Namespace, config: Config, record: Dataset, jobs: Sequence[Job]
) -> tuple[Sequence[Job], list[str]]:
    """The videos of --split, and the names of test videos that were not found; says what the split means."""
    if flags.split != "test":
        if flags.test_list:
            raise InputError("--test_list says which videos are --split test; add that, or leave it out")
        return jobs, []
    chosen = preset(flags.profile)
    split = record.default_split(chosen.split)
    found, missing = pick_test_videos(jobs, record, split, flags.test_list)
    enough = "the evaluation needs no more"
    if not set(chosen.test_crops) <= set(config.crops):
        enough = f"the evaluation needs crops {chosen.test_crops}"
    crops = ",".join(map(str, config.crops))
    print(f"--split test: {len(found)} test videos ({split} split), crops {crops}; {enough}")
    if missing:
        print(f"{len(missing)} test videos of the list were not found: {', '.join(missing)}")
    return found, missing


def tell_plan(run: ExtractionRun) -> int:
    """Print what a run would do; returns 1 if a video is seen to be no good."""
    print("dry run: nothing is written")
    for modality, out in run.outputs.items():
        todo = [job.name for job in run.todo if modality in job.modalities]
        failed = sum(name in run.manifests[modality].records for name in todo)
        finished = len(run.summary.before[modality])
        print(
            f"{modality} → {out.folder}: {len(todo) - failed} videos to make,"
            f" {failed} to make again, {finished} finished"
        )
    tell_problems({(job.outcome, job.video, job.reason): list(run.outputs) for job in run.refused}, 0)
    return 1 if run.refused else 0


def tell_summary(summary: Summary, outputs: Mapping[str, Output]) -> None:
    """Print what was done and, where a video is not "ok", the table of outcomes."""
    speed = f" · {summary.frames} frames, {summary.frames / summary.seconds:.0f} frames/s" if summary.frames else ""
    for modality, out in outputs.items():
        embedded = sum(record.embedded for record in summary.done[modality])
        before = len(summary.before[modality])
        print(f"{out.folder}: {embedded} videos written, {before} were finished before{speed}")
    problems: dict[tuple[str, str, str], list[str]] = {}
    for modality, record in summary.problems:
        problems.setdefault((record.outcome, record.video, record.reason), []).append(modality)
    tell_problems(problems, len(outputs))
    if summary.stopped:
        print("stopped at the first of them (--strict)")


def tell_problems(problems: Mapping[tuple[str, str, str], Sequence[str]], modalities: int) -> None:
    """Print the videos that are not "ok": (outcome, video, reason) → the modalities it is so for."""
    if not problems:
        return
    print(f"{len({video for _, video, _ in problems})} videos are not ok:")
    order = list(OUTCOMES)
    width = max(len(video) for _, video, _ in problems)
    for outcome, video, reason in sorted(problems, key=lambda row: (order.index(row[0]), row[1])):
        found = problems[outcome, video, reason]
        which = f" ({found[0]} alone)" if len(found) < modalities else ""
        print(f"  {outcome:<12}  {video:<{width}}  {reason}{which}")
    counts = {outcome: sum(row[0] == outcome for row in problems) for outcome in order}
    print("  " + ", ".join(f"{outcome} {number}" for outcome, number in counts.items() if number))
