"""Embed single videos outside any data set, and cache their embeddings; embed a live source as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from extracting.clip.encoder import Encoder
from extracting.config import Config, Job
from extracting.job.files import embedding_path
from extracting.job.run import Output, run
from extracting.job.videos import require_images
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import check_opencv
from vad.files import InputError

MIRRORED_CENTRE = 5  # the crop used for evaluation


def embed_own_videos(
    videos: Sequence[Path],
    encoders: Mapping[str, Encoder],
    folder: Path,
    config: Config = Config(crops=(MIRRORED_CENTRE,)),  # noqa: B008 (Config is frozen)
) -> list[dict[str, Path]]:
    """Embed each video with each encoder and return, for each video, modality → path of the (S, D) array.

    Files below `folder` are reused if the path, size and time of the video, the settings and the weights
    are equal. Raises InputError for a missing video or two videos of the same name. For a video that
    cannot be embedded, InputError is raised after all other videos are embedded.
    """
    check_opencv()
    stems = [video.stem for video in videos]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"two videos are named {stem}, and so would be their results. Rename one of them.")
    outputs = {m: Output.of(m, folder / m, encoder, config) for m, encoder in encoders.items()}
    jobs = [_job(video, outputs) for video in videos]
    require_images(jobs, outputs)
    paths = [
        {m: embedding_path(out.folder, job.name, config.crops[0]) for m, out in outputs.items()}
        for job in jobs
    ]
    todo = {
        job.name: job
        for job, files in zip(jobs, paths, strict=True)
        if not all(path.is_file() for path in files.values())
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
    return paths


def _job(video: Path, outputs: Mapping[str, Output]) -> Job:
    """Return a job whose name is a hash of everything that its embeddings depend on."""
    try:
        stat = video.stat()
    except OSError as error:
        raise InputError(f"{video}: there is no such video ({error.strerror})") from None
    provenance = [(m, sorted(out.settings.items()), out.hash) for m, out in outputs.items()]
    key = repr((str(video.resolve()), stat.st_size, stat.st_mtime_ns, provenance))
    name = f"{video.stem[:100]}_{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:16]}"
    return Job(video.absolute(), video.name, name, stat.st_size, tuple(outputs))


class SnippetEncoder:
    """Embeds one snippet at a time, with the mirrored centre crop as in `embed_own_videos`.

    Event counts are divided by the clamp, although scaling "block" divides by the largest count in 32 snippets,
    which a live source does not know yet. In real footage that count is nearly always the clamp.
    """

    def __init__(self, encoders: Mapping[str, Encoder], event_threshold: int, event_clamp: int) -> None:
        """encoders: modality → encoder; for threshold and clamp see `Config`."""
        check_opencv()
        self._encoders, self._threshold = encoders, event_threshold
        self._counter, self._crops = EventCounter(), (MIRRORED_CENTRE,)
        self._scaling = EventScaling(self._crops, event_clamp, "clamp")

    def __call__(self, frames: np.ndarray) -> dict[str, Tensor]:
        """Return modality → embedding (D,) float32 of a snippet (16, 256, 340, 3) BGR uint8."""
        embeddings = {}
        if "image" in self._encoders:
            rows = self._encoders["image"].images(torch.from_numpy(frames)[None], self._crops)
            embeddings["image"] = rows[0, 0]
        if "event" in self._encoders:
            ((clamped, divisors),) = self._scaling.add(self._counter.count(frames, self._threshold))
            maps = (torch.from_numpy(clamped)[None], torch.from_numpy(divisors)[None])
            embeddings["event"] = self._encoders["event"].events(*maps, self._crops)[0, 0]
        return embeddings
