"""One video's decoder process, seen from the run: started, read from, ended."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np

from extracting.config import Config, Job
from extracting.video.decode import LENGTH, Ended, decode
from vad.datasets import SNIPPET_FRAMES
from vad.files import ROOT

BUFFER = 4 << 20  # bytes of the sockets: a snippet is 4.2 MB
# A forked copy of a process that has OpenCV loaded takes some 15 ms a video, a fresh Python 0.4 s.
FORK = multiprocessing.get_context("forkserver")


class Decoder:
    """The run's end of one decoder process. `multiprocessing.connection.wait` takes it."""

    def __init__(self, job: Job, config: Config, maps: Path | None) -> None:
        """Start it. maps: where the process writes the event maps, or None."""
        self.job, self._time_limit, self._snippets = job, config.time_limit, 0
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.process = FORK.Process(target=decode, args=(theirs, job, config, maps), daemon=True)
        try:
            with theirs, _forking():
                self.process.start()
        except KeyboardInterrupt:  # held back until the process is there to be ended
            self.close()
            raise

    def fileno(self) -> int:
        """Descriptor that is readable when a message has come."""
        return self._socket.fileno()

    def receive(self) -> tuple[Any, ...]:
        """The next message, see `decode`; a process that has died has ended its video."""
        length, data = bytearray(LENGTH.size), b""
        if self._fill(length):
            data = bytearray(LENGTH.unpack(length)[0])
        return pickle.loads(data) if data and self._fill(data) else ("end", self.died())

    def receive_into(self, array: np.ndarray) -> bool:
        """Receive the array that follows a message; False if the process has died meanwhile."""
        self._snippets += array.ndim == 4 or self.job.modalities == ("event",)
        return self._fill(array)

    def _fill(self, buffer: bytearray | np.ndarray) -> bool:
        view = memoryview(buffer).cast("B")
        try:
            while view:
                received = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
                if not received:
                    return False
                view = view[received:]
        except ConnectionResetError:
            return False
        return True

    def died(self) -> Ended:
        """How the process ended that was expected to say more."""
        self.process.join()
        code, frames = self.process.exitcode, self._snippets * SNIPPET_FRAMES
        if code == -signal.SIGALRM:
            reason = f"no further snippet within {self._time_limit:g} seconds after {frames} frames"
            return Ended("time_limit", f"{reason} (--time_limit)", frames)
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return Ended("decoder_died", f"the decoder process died ({how})", frames)

    def close(self) -> None:
        """End the process if it still runs."""
        if self.process.pid:  # it has started
            self.process.kill()
            self.process.join()
        self._socket.close()


@contextmanager
def _forking() -> Iterator[None]:
    """Make decoder processes start fast and undisturbed, from whatever script.

    Without it they would import the script that runs the extraction, and torch with it, would not
    find this project where the working directory is another, and would die of Ctrl-C at their start.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    changed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in changed}
    script = sys.modules["__main__"]
    resource_tracker.ensure_running()  # before: its start would let Ctrl-C through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is not for them
    try:
        os.environ.update(changed)
        sys.modules["__main__"] = types.ModuleType("__main__")
        FORK.set_forkserver_preload([decode.__module__])
        forkserver.ensure_running()
        yield
    finally:
        sys.modules["__main__"] = script
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # last: Ctrl-C that has come is raised here
