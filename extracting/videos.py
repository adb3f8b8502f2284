"""Which videos a run is about: those of a folder, all or the test videos of their data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from extracting.stream import Job
from vad.catalog import VIDEO_SUFFIXES, Dataset
from vad.errors import InputError
from vad.splits import Found, split_files, split_videos


def find_videos(folder: Path) -> list[Job]:
    """Videos below a folder, by path. A video's class is the folder it lies in, none if it lies at the top.

    Files that would write the same embeddings (a.mp4 beside a.avi) and files that cannot be read are among them,
    with an outcome that says so. Raises InputError for a missing folder, or one without videos.
    """
    if not folder.is_dir():
        raise InputError(f"--video_dir {folder}: no such folder")
    jobs: list[Job] = []
    claims: dict[str, list[str]] = {}
    folder = folder.absolute()  # a process on another machine has another working directory
    for path in sorted(_files(folder, set())):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith("."):
            continue
        name = path.stem if path.parent == folder else f"{path.parent.name}/{path.stem}"
        video = path.relative_to(folder).as_posix()
        jobs.append(_job(path, video, name))
        claims.setdefault(name, []).append(video)
    if not jobs:
        raise InputError(f"--video_dir {folder}: holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))})")
    return [_refuse_claimed(job, claims[job.name]) for job in jobs]


def _files(folder: Path, above: set[str]) -> Iterator[Path]:
    """Files below a folder, through linked folders too; `above` holds the real folders it lies in, against circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be read ({error.strerror})") from None
    for entry in entries:
        if os.path.isdir(entry.path):  # entry.is_dir() raises for a link to itself
            yield from _files(Path(entry.path), above | {real})
        else:
            yield Path(entry.path)


def _job(path: Path, video: str, name: str) -> Job:
    try:
        size = path.stat().st_size
    except OSError as error:
        return Job(path, video, name, -1, outcome="unreadable", reason=f"cannot be read ({error.strerror})")
    if not path.is_file():
        return Job(path, video, name, -1, outcome="unreadable", reason="is no regular file")
    return Job(path, video, name, size)


def _refuse_claimed(job: Job, claims: Sequence[str]) -> Job:
    if len(claims) == 1:
        return job
    others = " and ".join(other for other in claims if other != job.video)
    return replace(job, outcome="same_name", reason=f"{others} would write {job.name}__0.npy too; rename one of them")


def pick_test_videos(
    jobs: Sequence[Job], record: Dataset, split: str, test_list: Path | None = None
) -> tuple[list[Job], list[str]]:
    """The test videos of a data set among those found, and the names of the others on its list.

    split: whose, "official" or "released". test_list: a list other than the split's own; the test.csv of the data
    set does where that is missing. Raises InputError where there is no list, or none of its videos.
    """
    files = split_files(record, split)
    own = record.annotation_file(files.test_list)
    known = [path for path in (test_list or own, record.list_root / "test.csv") if path.is_file()]
    if not known or (test_list and known[0] != test_list):
        raise InputError(
            f"--split test: {test_list or own} is missing, which names {record.title}'s test videos; put it there"
            " (list/README.md says whose it is), give another with --test_list, or extract every video"
        )
    train_list = record.annotation_file(files.train_list) if files.train_list else None
    if train_list and not train_list.is_file():
        train_list = None
    stems = {Path(job.name).name: Found(Path(job.name).name) for job in jobs}
    found = split_videos(stems, record, files, train_list, known[0])
    wanted = {video.name for video in found.test}
    if not wanted:
        raise InputError(f"--split test: {known[0]} names none of the {len(jobs)} videos found")
    return [job for job in jobs if Path(job.name).name in wanted], found.missing_test
