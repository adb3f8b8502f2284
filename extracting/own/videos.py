"""Embed your own videos, outside any data set, and cache their embeddings."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from extracting.clip.encoder import Encoder
from extracting.job.files import embedding_path
from extracting.job.run import Output, run
from extracting.job.videos import find_videos, require_images
from extracting.video.config import Config, Job
from extracting.video.frames import check_opencv, is_frame_folder
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError


@dataclass
class OwnVideo:
    """One of your own videos, with its embeddings or the reason why there are none."""

    path: Path
    name: str  # without suffix; [<folder>/]<name> below a folder
    embeddings: dict[str, dict[int, Path]] = field(default_factory=dict)  # modality → crop → (S, D) array
    problem: str = ""

    @property
    def is_recording(self) -> bool:
        """Whether this is an event-camera recording, which has no pictures."""
        return Job(self.path, "", "", 0).is_recording


def embed_own_videos(
    paths: Sequence[Path], encoders: Mapping[str, Encoder], folder: Path, config: Config
) -> list[OwnVideo]:
    """Embed videos, and all videos in folders, with each encoder.

    Files below `folder` are reused if path, size and time of the video, the settings and the weights are equal.
    A video that cannot be embedded gets a `problem`. Raises InputError for two videos of the same name.
    """
    check_opencv()
    found = [job for path in paths for job in _jobs(path)]
    names = [job.name for job in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two videos are named {name}, and so would be their results. Rename one of them.")
    outputs = {m: Output.of(m, folder / m, encoder, config) for m, encoder in encoders.items()}
    require_images(found, outputs)
    videos = [OwnVideo(job.path, job.name, problem=job.reason) for job in found]
    jobs, todo = [], {}
    for job, video in zip(found, videos, strict=True):
        if video.problem:
            continue
        name = _cache_name(job, outputs)
        video.embeddings = {
            m: {crop: embedding_path(out.folder, name, crop) for crop in config.crops} for m, out in outputs.items()
        }
        if not all(path.is_file() for crops in video.embeddings.values() for path in crops.values()):
            jobs.append(replace(job, name=name, modalities=tuple(outputs)))
            todo[name] = video
    _embed(jobs, todo, outputs, config)
    return videos


def _jobs(path: Path) -> list[Job]:
    """Return the videos of a path that a user gave. Raises InputError for a folder without videos."""
    if path.is_dir() and not is_frame_folder(path):
        return find_videos(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        return [Job(path, path.name, path.stem, 0, outcome="unreadable", reason=f"cannot be read ({error.strerror})")]
    name = path.name if path.is_dir() else path.stem
    if not name.strip("."):  # results would be written outside their folder
        return [Job(path, path.name, name, 0, outcome="unreadable", reason="rename the file: its name is only dots")]
    return [Job(path.absolute(), path.name, name, size)]


def _cache_name(job: Job, outputs: Mapping[str, Output]) -> str:
    """Return a name for the embedding files that hashes everything they depend on."""
    stat = job.path.stat()
    provenance = [(m, sorted(out.settings.items()), out.hash) for m, out in outputs.items()]
    key = repr((str(job.path), stat.st_size, stat.st_mtime_ns, provenance))
    return f"{Path(job.name).name[:100]}_{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _embed(
    jobs: Sequence[Job], videos: Mapping[str, OwnVideo], outputs: Mapping[str, Output], config: Config
) -> None:
    """Embed the jobs, and set the `problem` of the video of each that fails. videos: by the job's name."""
    frames, started = 0, time.perf_counter()
    with tqdm(total=len(jobs) * len(outputs), desc="embedding", unit="file", disable=not jobs) as bar:
        for result in run(jobs, outputs, config):
            if result is None:
                frames += SNIPPET_FRAMES
                rate = frames / (time.perf_counter() - started)
                bar.set_postfix_str(f"{frames} frames, {rate:.0f} frames/s", refresh=False)
                bar.update(0)
                continue
            job, _, record = result
            if not record.embedded:
                videos[job.name].problem = record.reason
            bar.update()
