"""Several devices of one machine: an encoder process each, all drawing from one queue of videos."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from extracting.manifest import Record
from extracting.share import ATTEMPTS, Feed, Order, embed
from extracting.stream import Ended, Job
from vad.errors import InputError


class Crew:
    """Encoder processes, one a device. A process that dies takes nothing with it: its videos are tried once more.

    Call it as an engine of `FolderRun`.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = tuple(devices)
        self._started = 0
        self.pids: dict[int, int] = {}  # worker → process, of those that run now

    def __call__(self, jobs: Sequence[Job], order: Order) -> Iterator[tuple[Job, str, Record | Ended]]:
        """Embed the jobs; yields (job, modality, record) as files are complete, or Ended for a video given up."""
        feed = Feed(jobs)
        self._by_video = {job.video: job for job in jobs}
        workers: dict[Connection, _Worker] = {}
        try:
            for device in self.devices[: len(jobs)]:
                self._start(device, order, workers)
            while workers:
                for connection in wait(list(workers)):
                    yield from self._listen(connection, feed, order, workers)
        finally:
            for worker in workers.values():
                worker.process.kill()
                worker.process.join()
            self.pids.clear()

    def _start(self, device: str, order: Order, workers: dict[Connection, _Worker]) -> None:
        number = self._started = self._started + 1
        worker = _Worker(number, device)
        workers[worker.connection] = worker
        self.pids[number] = worker.process.pid
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died at once: found out by listening
            worker.connection.send(order)

    def _listen(
        self, connection: Connection, feed: Feed, order: Order, workers: dict[Connection, _Worker]
    ) -> Iterator[tuple[Job, str, Record | Ended]]:
        worker = workers[connection]
        try:
            kind, *rest = connection.recv()
        except (EOFError, OSError):
            yield from self._bury(worker, feed, order, workers)
            return
        if kind == "next":
            worker.drew = True
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(feed.take(worker.number))
        elif kind == "record":
            modality, record = rest
            feed.settle(worker.number, record.video, modality)
            yield self._by_video[record.video], modality, record
        elif kind == "wrong":
            raise InputError(rest[0])
        elif kind == "done":
            self._forget(worker, workers)
        else:
            raise RuntimeError(f"the encoder process on {worker.device} failed:\n{rest[0]}")

    def _forget(self, worker: _Worker, workers: dict[Connection, _Worker]) -> int:
        del workers[worker.connection], self.pids[worker.number]
        worker.connection.close()
        worker.process.join()
        return worker.process.exitcode

    def _bury(
        self, worker: _Worker, feed: Feed, order: Order, workers: dict[Connection, _Worker]
    ) -> Iterator[tuple[Job, str, Ended]]:
        """A process has died. Its videos are drawn again; a fresh process takes its place where one is needed."""
        code = self._forget(worker, workers)
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        for job in feed.lose(worker.number):
            reason = f"the encoder process died ({how}), tried {ATTEMPTS} times"
            for modality in job.modalities:
                yield job, modality, Ended(0, None, "encoder_died", reason, usable=False)
        if feed.waiting():
            if not worker.drew:
                raise RuntimeError(f"the encoder process on {worker.device} died before its first video ({how})")
            self._start(worker.device, order, workers)


class _Worker:
    """One encoder process and the socket to it."""

    def __init__(self, number: int, device: str) -> None:
        context = get_context("spawn")  # never a fork: torch's threads do not live through one
        self.number, self.device = number, device
        self.drew = False  # whether it has asked for a video
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device), daemon=False)
        self.process.start()
        theirs.close()


def _serve(connection: Connection, device: str) -> None:
    """Body of an encoder process: opens the order, then draws videos until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def draw() -> Job | None:
        connection.send(("next",))
        return connection.recv()

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone, so are we
        try:
            order: Order = connection.recv()
            for modality, record in embed(iter(draw, None), order, order.open(device)):
                connection.send(("record", modality, record))
            connection.send(("done",))
        except InputError as error:
            connection.send(("wrong", str(error)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            connection.send(("bug", traceback.format_exc()))
