"""Render the synthetic videos and write their annotations.csv; existing videos are kept."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from demo.scene import HEIGHT, WIDTH
from demo.script import FPS, render, write_script
from demo.sounds import record_sound, wav_file
from vad.datasets import Dataset, load_dataset
from vad.files import InputError, read_json, read_text, write_bytes, write_json

DATASET = load_dataset("demo")
# data set → training and test videos; with 108 to train, some seeds learn nothing (docs/training.md)
SIZES = {"demo": (432, 108), "demo_av": (336, 96)}
SOUND = 1  # version of the sound; change it when it changes
RENDERING = "275327e85c8e"  # version of the rendered pixels; change it when they change (tests/demo checks their hash)


def dataset_in(folder: Path | None, like: Dataset = DATASET) -> Dataset:
    """Return a demo, or with a folder a data set like it that lies in this folder as a whole, lists included.

    Writes <folder>/dataset.toml if it is missing. Raises InputError if the folder holds another data set.
    """
    if folder is None:
        return like
    path = folder.expanduser().absolute() / "dataset.toml"
    if not path.is_file():
        text = read_text(like.path, "data set file").replace(f'name = "{like.name}"', f'name = "small_{like.name}"')
        write_bytes(path, text.replace(like.annotations, "annotations.csv").encode())
    dataset = load_dataset(str(path))
    if not dataset.synthetic:
        raise InputError(f"{path} describes another data set. Choose another --folder.")
    return dataset


@dataclass(frozen=True)
class SyntheticVideo:
    """Name, label, split and ground truth of one video."""

    index: int
    name: str
    label: str
    split: str  # "train" or "test"
    frames: int
    intervals: tuple[tuple[int, int], ...]  # half-open, in frames

    @property
    def file(self) -> str:
        """Path relative to videos/."""
        return f"{self.label}/{self.name}.mp4"

    @property
    def row(self) -> str:
        """Row of annotations.csv; the official and released splits of the demo are equal."""
        intervals = " ".join(f"{start}-{end}" for start, end in self.intervals)
        return f"{self.name},,{self.label},{self.split},{self.split},{self.frames},{intervals}\n"


def plan_videos(seed: int, train: int, test: int, dataset: Dataset = DATASET) -> list[SyntheticVideo]:
    """Return training, then test videos: half are normal, the others take the classes in turn.

    Raises InputError if a split has fewer than 2 videos, too few for both labels.
    """
    if min(train, test) < 2:
        raise InputError(f"--train {train} --test {test}: each split needs at least 2 videos.")
    classes, videos, counts = tuple(dataset.classes), [], dict.fromkeys(dataset.classes, 0)
    for split, number in (("train", train), ("test", test)):
        for k in range(number):
            label = classes[k // 2 % len(classes)] if k % 2 else dataset.normal
            counts[label] = counts.get(label, 0) + 1
            script = write_script(seed, len(videos), label)
            videos.append(SyntheticVideo(
                len(videos), f"{label}_{counts[label]:03d}", label, split, script.frames, tuple(script.intervals)
            ))  # fmt: skip
    return videos


def write_video(video: SyntheticVideo, seed: int, out: Path, sound: bool = False) -> int:
    """Render one video into <out>/videos atomically, its sound beside it, and return its number of frames.

    Raises InputError if the video cannot be written.
    """
    final = out / "videos" / video.file
    unfinished = out / "unfinished" / f"{video.name}.{os.getpid()}.mp4"  # extraction ignores this folder
    for folder in (final.parent, unfinished.parent):
        folder.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise InputError(f"{unfinished}: OpenCV cannot write it. Check the free space and OpenCV's mp4v encoder.")
    script = write_script(seed, video.index, video.label)
    samples = record_sound(script) if sound else None
    if samples is not None:  # before the video, whose presence says that both are complete
        write_bytes(final.with_suffix(".wav"), wav_file(samples))
    for frame in render(script):
        writer.write(frame)
    writer.release()
    declared = int(cv2.VideoCapture(str(unfinished)).get(cv2.CAP_PROP_FRAME_COUNT))
    if declared != video.frames:  # the writer does not report a full disk
        raise InputError(f"{unfinished}: only {declared} of {video.frames} frames were written. Free some space.")
    os.replace(unfinished, final)
    return video.frames


def render_videos(
    out: Path, table: Path, seed: int, train: int, test: int,
    workers: int = 1, overwrite: bool = False, dataset: Dataset = DATASET,
) -> None:  # fmt: skip
    """Render the missing videos into <out>/videos and write annotations.csv to `table`.

    Raises InputError if `out` contains other videos and `overwrite` is false.
    """
    videos = plan_videos(seed, train, test, dataset)
    settings = {"seed": seed, "train": train, "test": test, "drawing": RENDERING}
    _check_settings(out, {**settings, "sound": SOUND} if dataset.sound else settings, overwrite)
    missing = [video for video in videos if not (out / "videos" / video.file).is_file()]
    if missing:
        _render_all(missing, seed, out, max(1, workers), dataset.sound)
    existing = f", kept {len(videos) - len(missing)}" if len(missing) < len(videos) else ""
    frames = sum(video.frames for video in videos)
    print(f"{out / 'videos'}: {len(videos)} videos, {frames} frames (rendered {len(missing)}{existing})")
    flag = f" --dataset {dataset.name}" if dataset.sound else ""
    head = f"# synthetic videos: python -m demo{flag} --seed {seed} --train {train} --test {test}\n"
    rows = ["video,alias,label,official,released,frames,intervals\n", *(video.row for video in videos)]
    write_bytes(table, "".join([head, *rows]).encode())
    print(f"{table}: {train} training and {test} test videos")


def _check_settings(out: Path, settings: dict[str, object], overwrite: bool) -> None:
    """Compare `settings` with those recorded in `out` and record them; `overwrite` deletes its videos."""
    record, videos = out / "demo.json", out / "videos"
    recorded = read_json(record, "description of the synthetic videos") if record.is_file() else {}
    if not recorded and videos.is_dir() and any(videos.iterdir()):
        raise InputError(f"{videos} contains videos that this command did not render. Move them to another folder.")
    if recorded not in ({}, settings) and not overwrite:
        key = next(key for key in {**settings, **recorded} if recorded.get(key) != settings.get(key))
        old = f"{key} {recorded.get(key)}, not {settings[key]}"
        old = "another version of this code" if key in ("drawing", "sound") else old
        raise InputError(f"{out} contains videos rendered with {old}. Use --overwrite to replace them.")
    if overwrite:
        shutil.rmtree(videos, ignore_errors=True)
    write_json(record, settings)


def _render_all(videos: Sequence[SyntheticVideo], seed: int, out: Path, workers: int, sound: bool) -> None:
    job = partial(write_video, seed=seed, out=out, sound=sound)
    longest_first = sorted(videos, key=lambda video: -video.frames)  # workers then finish at similar times
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=sum(video.frames for video in videos), desc="rendering", unit="frame") as bar,
        context.Pool(min(workers, len(videos)), _start_worker) as pool,
    ):
        for frames in pool.imap_unordered(job, longest_first):
            bar.update(frames)
    shutil.rmtree(out / "unfinished", ignore_errors=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    cv2.setNumThreads(1)  # the worker processes already run in parallel
