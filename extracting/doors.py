"""The body shared by all extraction commands: from the flags to the run, and what is printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import torch

from extracting.crew import Crew
from extracting.embedder import Target
from extracting.encoder import MODALITIES, load_encoder
from extracting.flags import Request, read_request
from extracting.manifest import OUTCOMES
from extracting.pipeline import standardise_on
from extracting.planning import make_plan, tell
from extracting.ray_engine import RayEngine
from extracting.run import FolderRun, Summary
from extracting.share import Engine
from extracting.stream import Job
from extracting.videos import find_videos, pick_test_videos
from vad.catalog import dataset
from vad.device import pick_device
from vad.errors import InputError, run_door
from vad.profile import profile


def extract(modality: str | None, name: str | None = None) -> int:
    """Parse, run, print. modality and name (of a data set): those of a documented script; None reads the flag.

    Returns the exit code: 0, or 1 if a video is not "ok". Raises InputError before any work for what can be known
    before.
    """
    ask = read_request(modality, dataset(name) if name else None)
    videos = find_videos(ask.video_dir)
    chosen, missing = choose(ask, videos)
    jobs = chosen[ask.shard]
    targets = targets_of(ask, videos)
    typed = ask.flags
    crops = ",".join(map(str, ask.crops))
    where = "Ray" if typed.engine == "ray" else ", ".join(devices_of(typed))
    print(f"{len(jobs)} videos of {ask.video_dir} · crops {crops} · {where}")
    for target in targets:
        used = " · ".join(f"{key} {value}" for key, value in target.recorded.items())
        print(f"{used} → {target.folder}")
        print(f"  encoder: {target.encoder.note} · fingerprint {target.encoder.hash}")
    run = FolderRun(
        jobs,
        targets,
        ask.settings,
        ask.crops,
        batch_size=typed.batch_size,
        workers=typed.workers,
        time_limit=typed.time_limit,
        overwrite=typed.overwrite,
        strict=typed.strict,
        engine=engine_of(typed),
    )
    if typed.dry_run:
        return foretell(run, typed)
    summary = run.run()
    report(summary, targets)
    return 1 if summary.odd or missing else 0


def devices_of(flags: argparse.Namespace) -> list[str]:
    """The devices that encoders run on: those typed, or with --device cuda all GPUs of this machine."""
    if flags.devices:
        devices = flags.devices.split(",")
        gpus = [device for device in devices if device != "cpu"]
        if "" in devices or len(set(gpus)) < len(gpus):
            raise InputError(f"--devices {flags.devices}: write each GPU once, for example cuda:0,cuda:1")
        return [str(pick_device(device)) for device in devices]
    device = str(pick_device(flags.device))
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]


def engine_of(flags: argparse.Namespace) -> Engine | None:
    """Where encoders run beside this process; None for one device of this machine."""
    if flags.engine == "ray":
        return RayEngine(flags.address)
    devices = devices_of(flags)
    return Crew(devices) if len(devices) > 1 else None


def foretell(run: FolderRun, flags: argparse.Namespace) -> int:
    """--dry_run: print what the run would do; returns 0, or 1 if a video is seen to be no good."""
    plan = make_plan(run, flags.workers, flags.batch_size)
    print("\n".join(tell(plan, run.targets, flags.workers)))
    rows = {(ended.outcome, job.video, ended.reason): [] for job, ended in plan.unusable}
    print_odd(rows)
    return 1 if rows else 0


def choose(ask: Request, videos: Sequence[Job]) -> tuple[Sequence[Job], list[str]]:
    """The videos of --split, and the names of test videos that were not found; says what the split means."""
    if ask.flags.split != "test":
        return videos, []
    split = profile(ask.flags.profile).split
    chosen, missing = pick_test_videos(videos, ask.record, split, ask.flags.test_list)
    crops = ",".join(map(str, ask.crops))
    needed = profile(ask.flags.profile).test_crops
    enough = "the evaluation needs no more" if set(needed) <= set(ask.crops) else f"the evaluation needs crops {needed}"
    print(f"--split test: {len(chosen)} test videos ({split} split), crops {crops}; {enough}")
    if missing:
        print(f"{len(missing)} videos of the test list are not below {ask.video_dir}: {', '.join(missing)}")
    return chosen, missing


def targets_of(ask: Request, videos: Sequence[Job]) -> list[Target]:
    """Encoder and folder of each modality asked for."""
    found = []
    for modality, folder in ask.folders.items():
        typed = ask.flags
        try:
            encoder = load_encoder(
                ask.checkpoints[modality],
                modality,
                tower=ask.record.encoder,
                device="cpu" if typed.engine == "ray" else devices_of(typed)[0],
                precision=typed.precision,
                compiled=typed.compile,
            )
        except InputError as error:
            apart = modality == "event" and hasattr(typed, "event_ckpt")
            raise InputError(str(error).replace("--clip_ckpt", "--event_ckpt") if apart else str(error)) from None
        if ask.record.drawn and not encoder.trained:
            standardise_on(encoder, modality, [job.path for job in videos], ask.settings)
        save_events = getattr(typed, "save_events", False)
        found.append(Target(modality, folder, encoder, ask.settings, save_events=save_events))
    return found


def report(summary: Summary, targets: Sequence[Target]) -> None:
    """Print what was done and, where a video is not "ok", the table of outcomes."""
    speed = f" · {summary.frames} frames, {summary.frames / summary.seconds:.0f} frames/s" if summary.frames else ""
    for target in targets:
        written = sum(record.written for record in summary.done[target.modality])
        before = len(summary.before[target.modality])
        print(f"{target.folder}: {written} videos written, {before} were finished before{speed}")
    rows: dict[tuple[str, str, str], list[str]] = {}
    for modality, record in summary.odd:
        rows.setdefault((record.outcome, record.video, record.reason), []).append(modality)
    print_odd(rows, len(targets))
    if summary.stopped:
        print("stopped at the first of them (--strict)")


def print_odd(rows: Mapping[tuple[str, str, str], Sequence[str]], modalities: int = 0) -> None:
    """Print the table of videos that are not "ok": (outcome, video, reason) → the modalities it is so for."""
    if not rows:
        return
    print(f"{len({video for _, video, _ in rows})} videos are not ok:")
    order = {outcome: place for place, outcome in enumerate(OUTCOMES)}
    width = max(len(video) for _, video, _ in rows)
    for (outcome, video, reason), found in sorted(rows.items(), key=lambda row: (order.get(row[0][0], 99), row[0][1])):
        which = "" if len(found) == modalities else f" ({found[0]} alone)"
        print(f"  {outcome:<12}  {video:<{width}}  {reason}{which}")
    counts = {outcome: sum(row[0] == outcome for row in rows) for outcome in OUTCOMES}
    print("  " + ", ".join(f"{outcome} {number}" for outcome, number in counts.items() if number))


def open_door(modality: str | None, name: str | None = None) -> None:
    """Run a command to its exit code: 0, 1 (some videos are not ok), 2 (wrong input), 130 (Ctrl-C)."""
    if modality not in (None, *MODALITIES):
        raise ValueError(modality)
    # in order with the progress bar, also into a file; names of videos may hold what the terminal cannot show
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    run_door(lambda: extract(modality, name))
