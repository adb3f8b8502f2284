"""Find the videos and recordings in a folder, and select the test videos of a data set."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from extracting.job.files import NAME_BYTES
from extracting.video.config import Job
from extracting.video.frames import frame_files, is_frame_folder
from vad.datasets import SOURCE_SUFFIXES, Dataset, is_source
from vad.files import InputError
from vad.prepare.lists import read_names, video_key


def find_videos(folder: Path) -> list[Job]:
    """Return the video files, frame folders and event-camera recordings below a folder, sorted by path.

    The parent folder of a video is its class, unless the parent is `folder` itself. Unreadable videos
    and videos that would write the same files (a.mp4 and a.avi) are included with an outcome.
    Raises InputError if the folder is missing or contains no videos.
    """
    if not folder.is_dir():
        raise InputError(f"--video_dir {folder}: the folder does not exist")
    folder = folder.absolute()  # processes on other machines have another working directory
    jobs = [_job(path, folder) for path in sorted(_walk(folder))]
    if not jobs:
        suffixes = " ".join(sorted(SOURCE_SUFFIXES))
        raise InputError(
            f"--video_dir {folder}: no videos found (searched for {suffixes} and folders of frames)"
        )
    same = defaultdict(list)
    for job in jobs:
        same[job.name].append(job.video)
    return [_refuse_same_name(job, same[job.name]) for job in jobs]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield video files, frame folders and recordings below a folder. Links are followed, each real folder once."""
    seen = set()

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        current, real = Path(root), os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # if two links lead to one folder, always follow the same one
        # Test001_gt of UCSD Ped has masks, not frames
        is_mask = current.name.endswith("_gt")
        if current != folder and not folders and not is_mask and is_frame_folder(current):
            yield current
            continue  # an array beside the frames is no recording
        for name in files:
            if is_source(name):
                yield current / name


def _job(path: Path, folder: Path) -> Job:
    is_folder = path.is_dir()
    stem = path.name if is_folder else path.stem
    name = stem if path.parent == folder else f"{path.parent.name}/{stem}"
    job = Job(path, path.relative_to(folder).as_posix(), name, -1)
    if len(os.fsencode(stem)) > NAME_BYTES:
        reason = f"the name is too long for the embedding files; shorten it to {NAME_BYTES} bytes"
        return replace(job, outcome="unreadable", reason=reason)
    try:
        size = sum(file.stat().st_size for file in (frame_files(path) if is_folder else [path]))
    except OSError as error:
        return replace(job, outcome="unreadable", reason=f"cannot be read ({error.strerror})")
    if not is_folder and not path.is_file():
        return replace(job, outcome="unreadable", reason="not a regular file")
    return replace(job, size=size)


def _refuse_same_name(job: Job, videos: Sequence[str]) -> Job:
    if len(videos) == 1:
        return job
    others = " and ".join(other for other in videos if other != job.video)
    reason = f"{others} would also write {job.name}__0.npy; rename one of the videos"
    return replace(job, outcome="same_name", reason=reason)


def require_images(jobs: Sequence[Job], modalities: Iterable[str]) -> None:
    """Raise InputError if image embeddings are to be made of an event-camera recording."""
    recording = next((job for job in jobs if job.is_recording), None)
    if recording and "image" in modalities:
        raise InputError(
            f"{recording.path} is an event-camera recording and has no images. Give --modality event,"
            " or move the recordings to another folder."
        )


def pick_test_videos(
    jobs: Sequence[Job], dataset: Dataset, split: str, test_list: Path | None = None
) -> tuple[list[Job], list[str]]:
    """Return the jobs of a data set's test videos, and the names of the test videos without a job.

    split: a split of the data set's table. test_list: a file of video names that replaces the split.
    Raises InputError if no job is a test video.
    """
    keys = [video_key(job.name, dataset) for job in jobs]
    names = read_names(test_list, dataset, keys) if test_list else dataset.split_names(split, "test")
    test_jobs = [job for key, job in zip(keys, jobs, strict=True) if key in names]
    if not test_jobs:
        source = test_list or dataset.annotation_path
        raise InputError(f"--split test: none of the {len(jobs)} videos is listed in {source}")
    return test_jobs, [name for name in names if name not in keys]
