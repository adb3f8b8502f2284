"""Videos decoded in threads beside the encoder, through a queue that holds a few snippets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extracting.frames import Video, VideoError
from extracting.pipeline import Settings, Snippet, snippets_of

_DECODED_AHEAD = 8  # snippets waiting for the encoder: 34 MB of frames at most


@dataclass(frozen=True)
class Job:
    """One video of a run."""

    path: Path
    video: str  # path below the folder of videos
    name: str  # [<Class>/]<video>
    size: int  # bytes


@dataclass(frozen=True)
class Ended:
    """A decoder's last word on a video."""

    frames: int  # decoded
    promised: int | None  # by the container
    failure: str = ""  # a sentence if the video gives no embedding


class Decoders:
    """Threads that decode videos beside the encoder; OpenCV and NumPy let them run at the same time.

    Whatever the length of the videos, at most a few snippets wait in memory.
    """

    def __init__(
        self, jobs: Sequence[Job], modality: str, settings: Settings, crops: Sequence[int], workers: int
    ) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._left = len(jobs)
        self._how = (modality, settings, crops)
        self._ready: queue.Queue[tuple[Job, Snippet | Ended | BaseException]] = queue.Queue(_DECODED_AHEAD)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(workers, len(jobs)))]

    def __enter__(self) -> Decoders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Decoders:
        return self

    def __next__(self) -> tuple[Job, Snippet | Ended]:
        """Next snippet, in order within a video, or the end of one, until every video has ended."""
        if self._left == 0:
            raise StopIteration
        job, item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        self._left -= isinstance(item, Ended)
        return job, item

    def _put(self, job: Job, item: Snippet | Ended | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put((job, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                self._decode(job)
            except BaseException as error:  # a bug of ours: raised where the run is, not lost in a thread
                self._put(job, error)
                return

    def _decode(self, job: Job) -> None:
        modality, settings, crops = self._how
        video = None
        failure = ""
        try:
            video = Video(job.path, settings.tail)
            for snippet in snippets_of(video, modality, settings, crops):
                if not self._put(job, snippet):
                    return
        except VideoError as error:
            failure = str(error).removeprefix(f"{job.path}: ")
        frames, promised = (video.frames, video.promised) if video else (0, None)
        self._put(job, Ended(frames, promised, failure))
