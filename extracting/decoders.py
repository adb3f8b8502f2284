"""Decoder processes beside the encoder: who gets which video, and what happens when one dies or hangs."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from extracting.ring import Ring, create_memory
from extracting.stream import Again, Ended, Item, Job, Opened, Settings
from vad.catalog import SNIPPET_FRAMES

ATTEMPTS = 2  # at a video whose decoder process dies
_FAILED_STARTS = 3  # decoder processes in a row that end before they are ready
_PROGRAM = Path(__file__).with_name("worker.py")


class DecoderError(RuntimeError):
    """Decoder processes do not start, or one met a mistake of ours."""


class DecoderProcess:
    """One process, its socket and its ring, seen from the parent."""

    def __init__(self, settings: Settings, crops: Sequence[int], modalities: Sequence[str]) -> None:
        """Start it. modalities: those of any job it may get."""
        ours, theirs = socket.socketpair()
        memory = create_memory(modalities)
        try:
            self.ring = Ring(memory, modalities)
            self.process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(theirs.fileno()), str(memory)],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in a terminal reaches the parent alone
            )
        finally:
            os.close(memory)
            theirs.close()
        self.connection = Connection(ours.detach())
        self.ready = False
        self.job: Job | None = None
        self.promised: int | None = None
        self._seen = (0, 0.0)  # snippets decoded, when that was noticed
        self.send("setup", settings, crops, tuple(modalities))

    def send(self, *message: object) -> None:
        """Tell the process something; that it has died meanwhile is found out when it is listened to."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def give(self, job: Job, kind: str) -> None:
        """Hand it a video."""
        self.job, self.promised = job, None
        self.ring.frames[0] = 0
        self.touch()
        self.send(kind, job)

    def touch(self) -> None:
        """Note that it is alive."""
        self._seen = (self.ring.frames[0] // SNIPPET_FRAMES, time.monotonic())

    def stalled(self, limit: float) -> bool:
        """Whether it has a video and for `limit` seconds has neither decoded a snippet nor said anything."""
        if self.job is None or not self.ready:  # how long it takes to start is no fault of a video
            return False
        if self.ring.frames[0] // SNIPPET_FRAMES != self._seen[0]:
            self.touch()
        return time.monotonic() - self._seen[1] > limit and not self.connection.poll()

    def end(self) -> int:
        """Kill it if it still runs; returns its exit code, negative for a signal."""
        self.process.kill()  # it writes no file, so there is nothing to finish
        self.connection.close()
        return self.process.wait()


class _Waiting:
    """Jobs that wait for a process: those to be tried again, then the others, drawn one by one. True while any is."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._first: collections.deque[Job] = collections.deque()
        self._others = iter(jobs)

    def again(self, job: Job) -> None:
        """Put a job before all others."""
        self._first.appendleft(job)

    def __bool__(self) -> bool:
        if not self._first:
            self._first.extend(itertools.islice(self._others, 1))
        return bool(self._first)

    def __next__(self) -> Job:
        if not self:
            raise StopIteration
        return self._first.popleft()


class Decoders:
    """Walks (job, item of its stream): snippets in order within a video, videos side by side, each job ends once.

    A process that dies takes nothing with it: its video is tried once more in a fresh one, and then ends as
    "decoder_died". One that decodes no whole snippet for `time_limit` seconds is killed: "time_limit".
    Whatever the length of the videos, SLOTS snippets a process wait in memory. Use it as a context manager.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        settings: Settings,
        crops: Sequence[int],
        workers: int,
        *,
        time_limit: float = 120.0,
        kind: str = "job",
        modalities: Sequence[str] = ("image", "event"),
    ) -> None:
        """jobs: each is taken when a process is free for it. modalities: those of any job.

        kind: "job" decodes, "probe" only asks every container how many frames it promises.
        """
        self._jobs = _Waiting(jobs)
        self._how = (settings, crops, tuple(modalities))
        self._workers, self._time_limit, self._kind = workers, time_limit, kind
        self._processes: list[DecoderProcess] = []
        self._tried: collections.Counter[str] = collections.Counter()
        self._failed_starts = 0

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()
        self._processes.clear()

    @property
    def pids(self) -> list[int]:
        """Of the processes that run now."""
        return [process.process.pid for process in self._processes]

    def __iter__(self) -> Iterator[tuple[Job, Item]]:
        while any(process.job for process in self._processes) or self._jobs:
            self._hand_out()
            for connection in wait([process.connection for process in self._processes], timeout=0.5):
                process = next(p for p in self._processes if p.connection is connection)
                yield from self._listen(process)
            for process in [p for p in self._processes if p.stalled(self._time_limit)]:
                yield self._give_up(process)

    def _hand_out(self) -> None:
        for process in self._processes:
            if process.job is None and self._jobs:
                process.give(next(self._jobs), self._kind)
        while len(self._processes) < self._workers and self._jobs:
            process = DecoderProcess(*self._how)
            process.give(next(self._jobs), self._kind)
            self._processes.append(process)

    def _listen(self, process: DecoderProcess) -> Iterator[tuple[Job, Item]]:
        try:
            kind, *rest = process.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            yield from self._bury(process)
            return
        process.touch()
        job = process.job
        if kind == "ready":
            process.ready, self._failed_starts = True, 0
        elif kind == "snippet":
            modality, slot, divisors = rest
            yield job, process.ring.get(modality, slot, divisors)
            process.send("free", modality, slot)
            process.touch()  # the encoder may have taken its time, in which the process had no free slot
        elif kind == "said":
            if isinstance(rest[0], Opened):
                process.promised = rest[0].promised
            else:
                process.job = None
            yield job, rest[0]
        else:
            raise DecoderError(f"a decoder process failed at {job.path if job else 'its start'}:\n{rest[0]}")

    def _bury(self, process: DecoderProcess) -> Iterator[tuple[Job, Again | Ended]]:
        """A process has died: its video is tried again, or has ended."""
        self._processes.remove(process)
        code = process.end()
        job = process.job
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        if not process.ready:
            self._failed_starts += 1
            if self._failed_starts == _FAILED_STARTS:
                raise DecoderError(f"decoder processes end before they are ready ({how}); does {_PROGRAM} run here?")
        elif job is not None:
            self._tried[job.video] += 1
        if job is None:
            return
        if self._tried[job.video] < ATTEMPTS:
            self._jobs.again(job)
            yield job, Again()
            return
        reason = f"the decoder process died ({how}), tried {ATTEMPTS} times"
        yield job, Ended(int(process.ring.frames[0]), process.promised, "decoder_died", reason, usable=False)

    def _give_up(self, process: DecoderProcess) -> tuple[Job, Ended]:
        """A process hangs: it is killed and its video has ended."""
        self._processes.remove(process)
        process.end()
        frames = int(process.ring.frames[0])
        reason = f"no further snippet within {self._time_limit:g} seconds after {frames} frames (--time_limit)"
        return process.job, Ended(frames, process.promised, "time_limit", reason, usable=False)
