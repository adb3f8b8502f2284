"""Decoder processes that go wrong at video "a": stand-ins for `decode`, run in a forked process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from extracting.config import Config, Job
from extracting.video import decode as module

real = module.decode


def crash(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Segfault at every attempt, after one snippet."""
    _after_one_snippet(job, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    real(run, job, config, maps)


def crash_once(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Be killed at the first attempt, as by a system without memory, after one snippet."""
    if job.attempt == 1:
        _after_one_snippet(job, lambda: os.kill(os.getpid(), signal.SIGKILL))
    real(run, job, config, maps)


def hang(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Hang after one snippet in native code that holds the interpreter lock."""
    _after_one_snippet(job, lambda: ctypes.PyDLL(None).usleep(60_000_000))
    real(run, job, config, maps)


def fail(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Raise what only a mistake of ours can raise."""
    _after_one_snippet(job, lambda: 1 / 0)
    real(run, job, config, maps)


def limited(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Allow files of 100,000 bytes: a snippet's event map of 87,040 and no second one."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    real(run, job, config, maps)


def tell_modules(run: object, job: Job, config: Config, maps: Path | None) -> None:
    """Write the names of all imported modules beside the video, then decode."""
    Path(f"{job.path}.modules").write_text("\n".join(sys.modules))
    real(run, job, config, maps)


def _after_one_snippet(job: Job, action: object) -> None:
    if job.name != "a":
        return
    snippets = module.Video.snippets

    def one(self: module.Video) -> object:
        yield next(snippets(self))
        import time

        time.sleep(0.3)  # until it is sent
        action()

    module.Video.snippets = one
