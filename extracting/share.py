"""One encoder's share of a run that several encoders work on: who has which video, and what each does with it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from extracting.decoders import Decoders
from extracting.embedder import Embedder, Target
from extracting.encoder import Encoder
from extracting.manifest import Record
from extracting.stream import Ended, Job, Settings

ATTEMPTS = 2  # at a video whose encoder process dies


@dataclass(frozen=True)
class Order:
    """All that an encoder process needs to know beside its videos; it can be sent to one."""

    targets: Sequence[tuple[str, Path, dict[str, Any], bool]]  # modality, folder, encoder's parts, save_events
    settings: Settings
    crops: Sequence[int]
    batch_size: int | None
    workers: int  # decoder processes of each encoder
    time_limit: float

    def open(self, device: str) -> list[Target]:
        """The targets with their encoders on a device."""
        where = torch.device(device)
        return [
            Target(modality, folder, Encoder.of_parts(parts, where), self.settings, save_events=save_events)
            for modality, folder, parts, save_events in self.targets
        ]


# (jobs, order) → (job, modality, record) as files are complete; Ended instead for a video given up
Engine = Callable[[Sequence[Job], Order], Generator[tuple[Job, str, Record | Ended], None, None]]


def embed(jobs: Iterable[Job], order: Order, targets: Sequence[Target]) -> Iterator[tuple[str, Record]]:
    """Decode, encode and write the jobs; yields (modality, record) as files are complete. Notes nothing itself.

    A job is taken when a decoder is free for it.
    """
    modalities = [target.modality for target in targets]
    embedder = Embedder(targets, order.crops, order.batch_size)
    decoders = Decoders(
        jobs, order.settings, order.crops, order.workers, time_limit=order.time_limit, modalities=modalities
    )
    try:
        with decoders:
            for job, item in decoders:
                embedder.receive(job, item)
                yield from ((target.modality, record) for target, record in embedder.complete())
            embedder.flush()
            yield from ((target.modality, record) for target, record in embedder.complete())
    finally:
        embedder.abandon()


class Feed:
    """The one queue that all encoders draw from, and its memory of who has what."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = collections.deque(jobs)
        self._held: dict[int, dict[str, Job]] = {}  # worker → video → job with the modalities still missing
        self._tried: collections.Counter[str] = collections.Counter()

    def take(self, worker: int) -> Job | None:
        """Next job for a worker; None where none waits."""
        if not self._waiting:
            return None
        job = self._waiting.popleft()
        self._held.setdefault(worker, {})[job.video] = job
        return job

    def settle(self, worker: int, video: str, modality: str) -> bool:
        """A record of a video has come; returns whether that was its last modality."""
        job = self._held[worker].pop(video)
        left = tuple(name for name in job.modalities if name != modality)
        if left:
            self._held[worker][video] = replace(job, modalities=left)
        return not left

    def lose(self, worker: int) -> list[Job]:
        """A worker is gone: its videos wait again, before all others; those lost ATTEMPTS times are returned."""
        held = self._held.pop(worker, {})
        self._tried.update(list(held))
        given_up = [job for video, job in held.items() if self._tried[video] >= ATTEMPTS]
        self._waiting.extendleft(reversed([job for job in held.values() if job not in given_up]))
        return given_up

    def waiting(self) -> int:
        """Jobs that nobody has."""
        return len(self._waiting)
