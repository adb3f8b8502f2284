"""Embeddings of single videos outside any data set, kept for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from extracting.clip.encoder import Encoder
from extracting.config import Config, Job
from extracting.job.files import embedding_path
from extracting.job.run import Output, run
from extracting.video.frames import check_opencv
from vad.files import InputError

MIRRORED_CENTRE = 5  # the crop that the evaluation uses


def embed_own_videos(
    videos: Sequence[Path],
    encoders: Mapping[str, Encoder],
    folder: Path,
    config: Config = Config(crops=(MIRRORED_CENTRE,)),  # noqa: B008 (it is frozen)
) -> list[dict[str, Path]]:
    """Embed each video under each modality's encoder into files below `folder`; what is there is reused.

    Returns modality → path of the (S, D) array, for each video. A file is reused for the same path, size
    and time of the video, the same settings and the same weights. Raises InputError for a video that is
    missing, for two of one name, and, when all others are embedded, for one that is no good.
    """
    check_opencv()
    stems = [video.stem for video in videos]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"two videos are called {stem}, as their results would be; rename one")
    outputs = {m: Output.of(m, folder / m, encoder, config) for m, encoder in encoders.items()}
    jobs = [_job(video, outputs) for video in videos]
    found = [
        {m: embedding_path(out.folder, job.name, config.crops[0]) for m, out in outputs.items()}
        for job in jobs
    ]
    todo = {
        job.name: job
        for job, paths in zip(jobs, found, strict=True)
        if not all(path.is_file() for path in paths.values())
    }
    problems = {}
    with tqdm(total=len(todo) * len(outputs), desc="embedding", disable=not todo) as bar:
        for result in run(list(todo.values()), outputs, config):
            if result is not None:
                job, _, record = result
                if not record.embedded:
                    problems[job.path] = record.reason
                bar.update()
    if problems:
        raise InputError("; ".join(f"{path}: {reason}" for path, reason in problems.items()))
    return found


def _job(video: Path, outputs: Mapping[str, Output]) -> Job:
    """The job of a video, named after all that its embeddings depend on."""
    try:
        stat = video.stat()
    except OSError as error:
        raise InputError(f"{video}: there is no such video ({error.strerror})") from None
    made = [(m, sorted(out.settings.items()), out.hash) for m, out in outputs.items()]
    key = repr((str(video.resolve()), stat.st_size, stat.st_mtime_ns, made))
    name = f"{video.stem[:100]}_{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:16]}"
    return Job(video.absolute(), video.name, name, stat.st_size, tuple(outputs))
