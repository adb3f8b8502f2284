"""Replacements for `decode` that fail at video "a"; they run in the decoder process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from extracting.video import decode as module
from extracting.video.config import Config, Job

real = module.decode


def crash(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Segfault after one snippet, in every attempt."""
    _after_one_snippet(job, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    real(connection, job, config, maps_path)


def crash_once(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Be killed after one snippet in the first attempt, as by a system out of memory."""
    if job.attempt == 1:
        _after_one_snippet(job, lambda: os.kill(os.getpid(), signal.SIGKILL))
    real(connection, job, config, maps_path)


def hang(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Hang after one snippet, in native code that holds the interpreter lock."""
    _after_one_snippet(job, lambda: ctypes.PyDLL(None).usleep(60_000_000))
    real(connection, job, config, maps_path)


def fail(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Raise an exception that only a bug can raise."""
    _after_one_snippet(job, lambda: 1 / 0)
    real(connection, job, config, maps_path)


def limited(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Limit files to 100,000 bytes: one event map of 87,040 bytes fits, two do not."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    real(connection, job, config, maps_path)


def list_modules(connection: object, job: Job, config: Config, maps_path: Path | None) -> None:
    """Write the names of all imported modules into a file next to the video, then decode."""
    Path(f"{job.path}.modules").write_text("\n".join(sys.modules))
    real(connection, job, config, maps_path)


def _after_one_snippet(job: Job, action: object) -> None:
    if job.name != "a":
        return
    snippets = module.Video.snippets

    def one(self: module.Video) -> object:
        yield next(snippets(self))
        import time

        time.sleep(0.3)  # until the snippet is sent
        action()

    module.Video.snippets = one
