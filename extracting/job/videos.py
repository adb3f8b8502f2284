"""Which videos a run is about: those of a folder, all or the test videos of their data set."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from extracting.config import Job
from extracting.job.files import NAME_BYTES
from extracting.video.frames import frame_files, is_frame_folder
from vad.datasets import VIDEO_SUFFIXES, Dataset
from vad.files import InputError
from vad.prepare.lists import read_names, video_key


def find_videos(folder: Path) -> list[Job]:
    """Videos below a folder, by path: video files, and folders of frames.

    A video's class is the folder it lies in, none if that is `folder` itself. Videos that cannot be used
    are among them with an outcome: unreadable ones, and those that would write the same embeddings
    (a.mp4 beside a.avi). Raises InputError for a missing folder, or one without videos.
    """
    if not folder.is_dir():
        raise InputError(f"--video_dir {folder}: no such folder")
    folder = folder.absolute()  # a process on another machine has another working directory
    jobs = [_job(path, folder) for path in sorted(_walk(folder))]
    if not jobs:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(
            f"--video_dir {folder}: holds no video (looked for {suffixes} and for folders of frames)"
        )
    same = defaultdict(list)
    for job in jobs:
        same[job.name].append(job.video)
    return [_refuse_same_name(job, same[job.name]) for job in jobs]


def _walk(folder: Path) -> Iterator[Path]:
    """Video files and folders of frames below a folder, through links too, each real folder once."""
    seen = set()

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: this folder cannot be read ({error.strerror})")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        here, real = Path(place), os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # of two links to one folder always the same is followed
        if here != folder and not folders and is_frame_folder(here):
            yield here
        for name in files:
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield here / name


def _job(path: Path, folder: Path) -> Job:
    """The job of a video file or a folder of frames below `folder`."""
    is_folder = path.is_dir()
    stem = path.name if is_folder else path.stem
    name = stem if path.parent == folder else f"{path.parent.name}/{stem}"
    job = Job(path, path.relative_to(folder).as_posix(), name, -1)
    if len(os.fsencode(stem)) > NAME_BYTES:
        reason = f"its name is too long for its embeddings' names; rename it to {NAME_BYTES} bytes or fewer"
        return replace(job, outcome="unreadable", reason=reason)
    try:
        size = sum(file.stat().st_size for file in (frame_files(path) if is_folder else [path]))
    except OSError as error:
        return replace(job, outcome="unreadable", reason=f"cannot be read ({error.strerror})")
    if not is_folder and not path.is_file():
        return replace(job, outcome="unreadable", reason="is no regular file")
    return replace(job, size=size)


def _refuse_same_name(job: Job, videos: Sequence[str]) -> Job:
    if len(videos) == 1:
        return job
    others = " and ".join(other for other in videos if other != job.video)
    reason = f"{others} would write {job.name}__0.npy too; rename one of them"
    return replace(job, outcome="same_name", reason=reason)


def pick_test_videos(
    jobs: Sequence[Job], dataset: Dataset, split: str, test_list: Path | None = None
) -> tuple[list[Job], list[str]]:
    """The test videos of a data set among those found, and the names of the others.

    split: a split of the data set's table. test_list: a list of names other than the split's.
    Raises InputError where none of the test videos is found.
    """
    keys = [video_key(job.name, dataset) for job in jobs]
    names = read_names(test_list, dataset, keys) if test_list else dataset.split_names(split, "test")
    found = [job for key, job in zip(keys, jobs, strict=True) if key in names]
    if not found:
        where = test_list or dataset.annotation_path
        raise InputError(f"--split test: {where} names none of the {len(jobs)} videos found")
    return found, [name for name in names if name not in keys]
