"""Start a decoder process for one video, receive its messages, and end it."""

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

from extracting.video.config import Config, Job
from extracting.video.decode import LENGTH, DecodeResult, decode
from vad.datasets import SNIPPET_FRAMES
from vad.files import ROOT

BUFFER = 4 << 20  # socket buffer in bytes; a snippet has 4.2 MB
# forking a process that has loaded OpenCV takes about 15 ms per video, a new Python 0.4 s
FORK = multiprocessing.get_context("forkserver")


class Decoder:
    """Parent side of one decoder process. `multiprocessing.connection.wait` accepts it."""

    def __init__(self, job: Job, config: Config, maps_path: Path | None) -> None:
        """Start the process. maps_path: file that it writes the event maps to, or None."""
        self.job, self._time_limit, self._snippets = job, config.time_limit, 0
        self._socket, child_socket = socket.socketpair()
        for end in (self._socket, child_socket):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        arguments = (child_socket, job, config, maps_path)
        self.process = FORK.Process(target=decode, args=arguments, daemon=True)
        try:
            with child_socket, _decoder_environment():
                self.process.start()
        except KeyboardInterrupt:  # deferred until the process exists and can be ended
            self.close()
            raise

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when a message arrives."""
        return self._socket.fileno()

    def receive(self) -> tuple[Any, ...]:
        """Return the next message, see `decode`; an "end" message if the process has died."""
        length, data = bytearray(LENGTH.size), b""
        if self._fill(length):
            data = bytearray(LENGTH.unpack(length)[0])
        return pickle.loads(data) if data and self._fill(data) else ("end", self.exit_result())

    def receive_into(self, array: np.ndarray) -> bool:
        """Receive the array that follows a message; return False if the process has died."""
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

    def exit_result(self) -> DecodeResult:
        """Return the outcome of a process that died before its last message."""
        self.process.join()
        code, frames = self.process.exitcode, self._snippets * SNIPPET_FRAMES
        if code == -signal.SIGALRM:
            reason = f"no new snippet within {self._time_limit:g} seconds after frame {frames}"
            return DecodeResult("time_limit", f"{reason} (--time_limit)", frames)
        cause = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return DecodeResult("decoder_died", f"the decoder process crashed ({cause})", frames)

    def close(self) -> None:
        """End the process if it is still running."""
        if self.process.pid:  # it has started
            self.process.kill()
            self.process.join()
        self._socket.close()


@contextmanager
def _decoder_environment() -> Iterator[None]:
    """Set environment and signal mask for starting a decoder process from any script.

    Otherwise it would import the running script, and torch with it. It would also not find this
    project from another working directory, and would die of a Ctrl-C during its start.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    changed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in changed}
    script = sys.modules["__main__"]
    resource_tracker.ensure_running()  # first, because starting it unblocks SIGINT
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by the decoder
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
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # last: a pending Ctrl-C is raised here
