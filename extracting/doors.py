"""The body shared by all extraction commands: flags, defaults of a profile and of a data set, what is printed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from extracting.crops import parse_crops
from extracting.encoder import MODALITIES, PRECISIONS, Encoder, load_encoder
from extracting.events import SCALINGS
from extracting.frames import TAILS
from extracting.pipeline import Settings, standardise_on
from extracting.run import FolderRun, Summary, find_videos
from extracting.weights import UNTRAINED
from vad.catalog import DATASETS, IMAGE_FOLDER, Dataset, dataset
from vad.errors import InputError, run_door
from vad.profile import PROFILES, profile

SWITCHES = ("tail", "event_threshold", "event_clamp", "event_scaling")


def parser(modality: str, fixed: Dataset | None) -> argparse.ArgumentParser:
    """Flags of a command. fixed: its data set; None adds --dataset."""
    title = f"{fixed.title} videos" if fixed else "Videos"
    flags = argparse.ArgumentParser(
        description=f"{title} → {modality} embeddings: one .npy (S, D) a video and crop, one step per 16 frames."
    )
    if fixed is None:
        names = "|".join([*DATASETS, "FILE.toml"])
        flags.add_argument("--dataset", required=True, metavar=names, help="data set of the videos")
    flags.add_argument("--video_dir", type=Path, help="folder of videos, searched with its sub-folders")
    flags.add_argument("--save_dir", type=Path, help="folder for the embeddings; class sub-folders are kept")
    kind = "OpenAI or open_clip state_dict" if modality == "image" else "event checkpoint"
    flags.add_argument("--clip_ckpt", help=f"weights: {kind}, or '{UNTRAINED}' to try the pipeline")
    flags.add_argument("--crops", default="0..9", help="crop numbers: 0..9 (default), 5 (mirrored centre), 0,5")
    flags.add_argument("--profile", default="default", metavar="|".join(PROFILES), help="sets the switches below")
    flags.add_argument("--tail", choices=TAILS, help="whole: every whole snippet; released: 512-frame blocks")
    flags.add_argument("--event_threshold", type=int, help="grey levels of 255 that make an event")
    flags.add_argument("--event_clamp", type=int, help="largest count kept")
    flags.add_argument("--event_scaling", choices=SCALINGS, help="divide by the clamp, or by the block's largest count")
    flags.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    flags.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of the encoder; files are float32")
    flags.add_argument("--batch_size", type=int, help="forward passes at once (default: 256 on a GPU, 16 on a CPU)")
    flags.add_argument("--workers", type=int, default=2, help="videos decoded at the same time")
    flags.add_argument("--shard", default="0/1", metavar="K/N", help="every N-th video from the K-th, for N processes")
    flags.add_argument("--overwrite", action="store_true", help="make finished embeddings again")
    return flags


def settings_of(flags: argparse.Namespace) -> Settings:
    """Switches of the profile, each overruled by the flag the user typed."""
    chosen = profile(flags.profile)
    typed = {name: getattr(flags, name) for name in SWITCHES}
    return Settings(**{name: getattr(chosen, name) if value is None else value for name, value in typed.items()})


def folders_of(flags: argparse.Namespace, modality: str, record: Dataset) -> tuple[Path, Path]:
    """Folders of videos and of embeddings: as typed, or where the record says they are. Else InputError."""
    if record.video_root:
        folder = IMAGE_FOLDER if modality == "image" else record.event_folders[0]
        flags.video_dir = flags.video_dir or record.video_root
        flags.save_dir = flags.save_dir or record.data_root / folder
    for name in ("video_dir", "save_dir"):
        if getattr(flags, name) is None:
            raise InputError(f"--{name} is missing: give the folder of {record.title}'s {name.split('_')[0]}s")
    return flags.video_dir, flags.save_dir


def pick_shard(text: str) -> slice:
    """Slice of the video list of a --shard K/N."""
    first, _, number = text.partition("/")
    if not (first.isdecimal() and number.isdecimal() and int(first) < int(number)):
        raise InputError(f"--shard {text}: write K/N with K from 0 to N−1, for example 0/4")
    return slice(int(first), None, int(number))


def encoder_of(flags: argparse.Namespace, modality: str, record: Dataset) -> Encoder:
    """Encoder the flags ask for; a drawn data set has its small untrained one unless weights are given."""
    checkpoint = flags.clip_ckpt or (UNTRAINED if record.drawn else None)
    tower = record.encoder
    return load_encoder(checkpoint, modality, tower=tower, device=flags.device, precision=flags.precision)


def report(summary: Summary, save_dir: Path) -> None:
    """Print what was done, what was odd, and the table of failures."""
    frames = sum(record.frames for record in summary.written)
    speed = f" ({frames} frames, {frames / summary.seconds:.0f} frames/s)" if summary.written else ""
    print(f"{save_dir}: {len(summary.written)} videos written{speed}, {summary.reused} were finished before")
    short = [record for record in summary.written if record.outcome == "short"]
    for title, records in (("written with fewer frames than promised", short), ("failed", summary.failed)):
        if records:
            print(f"{len(records)} {title}:")
            width = max(len(record.video) for record in records)
            for record in records:
                print(f"  {record.video:<{width}}  {record.reason}")


def extract(modality: str, name: str | None = None) -> int:
    """Parse, run, print. name: the data set of a documented script; None reads --dataset.

    Returns the exit code: 0, or 1 if a video gave no embedding. Raises InputError before any work for what can be
    known before.
    """
    fixed = dataset(name) if name else None
    flags = parser(modality, fixed).parse_args()
    record = fixed or dataset(flags.dataset)
    settings, crops, shard = settings_of(flags), parse_crops(flags.crops), pick_shard(flags.shard)
    for flag in ("batch_size", "workers"):
        value = getattr(flags, flag)
        if value is not None and value < 1:
            raise InputError(f"--{flag} {value}: at least 1 is needed")
    video_dir, save_dir = folders_of(flags, modality, record)
    videos = find_videos(video_dir)
    jobs = videos[shard]
    encoder = encoder_of(flags, modality, record)
    if record.drawn and not encoder.trained:
        standardise_on(encoder, modality, [job.path for job in videos], settings)
    used = " · ".join(f"{key} {value}" for key, value in settings.recorded(modality, encoder.precision).items())
    print(f"{len(jobs)} videos of {video_dir} · crops {flags.crops} · {used} · {encoder.device}")
    print(f"encoder: {encoder.note} · fingerprint {encoder.hash}")
    run = FolderRun(
        jobs,
        save_dir,
        modality,
        encoder,
        settings,
        crops,
        batch_size=flags.batch_size,
        workers=flags.workers,
        overwrite=flags.overwrite,
    )
    summary = run.run()
    report(summary, save_dir)
    return 1 if summary.failed else 0


def open_door(modality: str, name: str | None = None) -> None:
    """Run a command to its exit code: 0, 1 (some videos failed), 2 (wrong input), 130 (Ctrl-C)."""
    if modality not in MODALITIES:
        raise ValueError(modality)
    sys.stdout.reconfigure(line_buffering=True)  # in order with the progress bar, also into a file
    run_door(lambda: extract(modality, name))
