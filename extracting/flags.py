"""The flags shared by all extraction commands, and what they mean together with profile and data set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extracting.crops import parse_crops
from extracting.encoder import MODALITIES, PRECISIONS
from extracting.events import SCALINGS
from extracting.frames import TAILS
from extracting.run import TIME_LIMIT
from extracting.stream import Settings
from extracting.weights import EVENT_URL, UNTRAINED
from vad.catalog import DATASETS, IMAGE_FOLDER, Dataset, dataset
from vad.errors import InputError
from vad.profile import PROFILES, profile

SWITCHES = ("tail", "event_threshold", "event_clamp", "event_scaling")


@dataclass(frozen=True)
class Request:
    """What a command is asked for, checked as far as that is possible without opening anything."""

    record: Dataset
    flags: argparse.Namespace  # as typed
    settings: Settings
    crops: tuple[int, ...]
    shard: slice
    video_dir: Path
    folders: Mapping[str, Path]  # modality → where its embeddings go; image before event
    checkpoints: Mapping[str, str | None]  # modality → its weights


def parser(modality: str | None, fixed: Dataset | None) -> argparse.ArgumentParser:
    """Flags of a command. modality: its one, None adds --modality; fixed: its data set, None adds --dataset."""
    title = f"{fixed.title} videos" if fixed else "Videos"
    flags = argparse.ArgumentParser(
        description=f"{title} → {modality or 'image and event'} embeddings: one .npy (S, D) a video and crop,"
        " one step per 16 frames."
    )
    add = flags.add_argument
    if fixed is None:
        names = "|".join([*DATASETS, "FILE.toml"])
        add("--dataset", required=True, metavar=names, help="data set of the videos")
    if modality is None:
        add("--modality", required=True, choices=("both", *MODALITIES), help="both: every video is decoded once")
    add("--video_dir", type=Path, help="folder of videos, searched with its sub-folders")
    add("--save_dir", type=Path, help="folder for the embeddings (of one modality); class sub-folders are kept")
    if modality is None:
        add("--image_dir", type=Path, help="folder for the image embeddings")
        add("--event_dir", type=Path, help="folder for the event embeddings")
    kind = "event checkpoint" if modality == "event" else "OpenAI or open_clip state_dict"
    add("--clip_ckpt", help=f"weights: {kind}, or '{UNTRAINED}' to try the pipeline")
    if modality is None:
        add("--event_ckpt", help=f"weights for events: event checkpoint, or '{UNTRAINED}'")
    add("--crops", help="crop numbers: 0..9 (default), 5 (mirrored centre), 0,5")
    add("--split", choices=("all", "test"), default="all", help="test: what the evaluation needs and no more")
    add("--test_list", type=Path, help="list of test videos (default: that of the profile's split)")
    add("--profile", default="default", metavar="|".join(PROFILES), help="sets the switches below")
    add("--tail", choices=TAILS, help="whole: every whole snippet; released: 512-frame blocks")
    add("--event_threshold", type=int, help="grey levels of 255 that make an event")
    add("--event_clamp", type=int, help="largest count kept")
    add("--event_scaling", choices=SCALINGS, help="divide by the clamp, or by the block's largest count")
    if modality != "image":
        add("--save_events", action="store_true", help="write the event maps too, <video>__events.npz")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--devices", metavar="D,D", help="several: an encoder process each, for example cuda:0,cuda:1")
    add("--engine", choices=("local", "ray"), default="local", help="ray: encoders on the machines of a Ray cluster")
    add("--address", help="of the Ray cluster: auto, or ray://HOST:PORT (default: a cluster of this machine alone)")
    add("--precision", default="fp32", choices=PRECISIONS, help="of the encoder; files are float32")
    add("--compile", action="store_true", help="compile the encoder (GPU; a minute at the start)")
    add("--batch_size", type=int, help="forward passes at once (default: 256 on a GPU, 16 on a CPU)")
    add("--workers", type=int, default=2, help="decoder processes of each encoder")
    add("--time_limit", type=float, default=TIME_LIMIT, help="seconds without a new snippet that end a video")
    add("--shard", default="0/1", metavar="K/N", help="every N-th video from the K-th, for N processes")
    add("--overwrite", action="store_true", help="make finished embeddings again")
    add("--strict", action="store_true", help="stop at the first video that is not ok; what is finished is kept")
    add("--dry_run", action="store_true", help="say what would be done and how long it takes; write nothing")
    return flags


def read_request(modality: str | None, fixed: Dataset | None) -> Request:
    """Parse the command line. Raises InputError for values that cannot work."""
    flags = parser(modality, fixed).parse_args()
    record = fixed or dataset(flags.dataset)
    asked = flags.modality if modality is None else modality
    modalities = MODALITIES if asked == "both" else (asked,)
    for flag, least in (("batch_size", 1), ("workers", 1), ("time_limit", 1)):
        value = getattr(flags, flag)
        if value is not None and not value >= least:
            raise InputError(f"--{flag} {value}: at least {least} is needed")
    if flags.test_list and flags.split != "test":
        raise InputError("--test_list says which videos are --split test; add that, or leave it out")
    if flags.address and flags.engine != "ray":
        raise InputError("--address is that of a Ray cluster; add --engine ray, or leave it out")
    if flags.devices and (flags.engine == "ray" or flags.device != "auto"):
        raise InputError("--devices names every device of this machine; leave out --device and --engine ray")
    if getattr(flags, "save_events", False) and "event" not in modalities:
        raise InputError("--save_events writes event maps, which --modality image does not make")
    return Request(
        record,
        flags,
        settings_of(flags),
        crops_of(flags),
        pick_shard(flags.shard),
        video_dir_of(flags, record),
        folders_of(flags, modalities, record),
        checkpoints_of(flags, modalities, record),
    )


def settings_of(flags: argparse.Namespace) -> Settings:
    """Switches of the profile, each overruled by the flag the user typed."""
    chosen = profile(flags.profile)
    typed = {name: getattr(flags, name) for name in SWITCHES}
    return Settings(**{name: getattr(chosen, name) if value is None else value for name, value in typed.items()})


def crops_of(flags: argparse.Namespace) -> tuple[int, ...]:
    """Crops typed, else those the profile's evaluation reads under --split test, else all."""
    if flags.crops is not None:
        return parse_crops(flags.crops)
    return profile(flags.profile).test_crops if flags.split == "test" else parse_crops("0..9")


def video_dir_of(flags: argparse.Namespace, record: Dataset) -> Path:
    """Folder of videos: as typed, or where the record says they are. Else InputError."""
    found = flags.video_dir or record.video_root
    if found is None:
        raise InputError(f"--video_dir is missing: give the folder of {record.title}'s videos")
    return found


def folders_of(flags: argparse.Namespace, modalities: tuple[str, ...], record: Dataset) -> dict[str, Path]:
    """Folder of each modality's embeddings: as typed, or where the record says they are. Else InputError."""
    if flags.save_dir and len(modalities) > 1:
        raise InputError("--save_dir is one folder for two modalities; give --image_dir and --event_dir instead")
    folders = {}
    for modality in modalities:
        below = IMAGE_FOLDER if modality == "image" else record.event_folders[0]
        own = f"{modality}_dir"
        typed = flags.save_dir or getattr(flags, own, None)
        if typed is None and record.video_root is None:
            flag = own if len(modalities) > 1 else "save_dir"
            raise InputError(f"--{flag} is missing: give the folder of {record.title}'s {modality} embeddings")
        folders[modality] = typed or record.data_root / below
    if len({folder.resolve() for folder in folders.values()}) < len(folders):
        raise InputError(f"--image_dir and --event_dir are both {folders['image']}; files of one name would meet there")
    return folders


def checkpoints_of(flags: argparse.Namespace, modalities: tuple[str, ...], record: Dataset) -> dict[str, str | None]:
    """Weights typed for each modality; a drawn data set has its small untrained tower unless weights are given."""
    standing = UNTRAINED if record.drawn else None
    found = {}
    for modality in modalities:
        apart = modality == "event" and hasattr(flags, "event_ckpt")
        found[modality] = (flags.event_ckpt if apart else flags.clip_ckpt) or standing
        if apart and found[modality] is None:
            raise InputError(
                f"event embeddings need the event checkpoint: get it from {EVENT_URL} and give its path as --event_ckpt"
            )
    return found


def pick_shard(text: str) -> slice:
    """Slice of the video list of a --shard K/N."""
    first, _, number = text.partition("/")
    if not (first.isdecimal() and number.isdecimal() and int(first) < int(number)):
        raise InputError(f"--shard {text}: write K/N with K from 0 to N−1, for example 0/4")
    return slice(int(first), None, int(number))
