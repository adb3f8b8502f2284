"""Many commands of ours at a time, each in a process of its own that starts in a moment, with a log and an outcome."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

# what takes seconds to import: imported once, every process is then a copy of the one that did
PRELOAD = (
    "torch", "torch._dynamo", "sklearn.metrics", "pandas", "cv2", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf", "model", "vad.benchmark", "vad.figures_sweep",
)  # fmt: skip
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Command:
    """One call of a door: its name here, its script, its flags, and the file for what it prints."""

    name: str
    door: Path
    flags: tuple[str, ...]
    log: Path

    def typed(self) -> str:
        """The same as a user would type it."""
        return shlex.join(["python", self.door.name, *self.flags])


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int  # exit code; negative: ended by this signal
    seconds: float
    last_lines: tuple[str, ...]  # of its log

    @property
    def words(self) -> str:
        """The exit code in words."""
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}"


def run_commands(
    commands: Sequence[Command],
    *,
    jobs: int,
    threads: int = 1,
    tick: Callable[[Mapping[str, Outcome], Sequence[str]], None] = lambda done, running: None,
    finished: Callable[[Command, Outcome], None] = lambda command, outcome: None,
) -> dict[str, Outcome]:
    """Run every command, `jobs` at a time, and return their outcomes by name; one that fails stops no other.

    tick: called about twice a second with the outcomes so far and the names that are running. finished: called as
    each ends. Ctrl-C is passed on to what runs, waited for, and raised again; a second Ctrl-C does not wait.
    """
    pending, outcomes = deque(commands), {}
    running: dict[BaseProcess, tuple[Command, float]] = {}
    try:
        while pending or running:
            while pending and len(running) < jobs:
                command = pending.popleft()
                running[_start(command, threads)] = (command, time.monotonic())
            wait([process.sentinel for process in running], timeout=0.5)
            for process in [p for p in running if not p.is_alive()]:
                command, since = running.pop(process)
                process.join()
                seconds = time.monotonic() - since
                outcomes[command.name] = Outcome(process.exitcode, seconds, last_lines(command.log))
                finished(command, outcomes[command.name])
            tick(outcomes, [command.name for command, _ in running.values()])
    except BaseException:
        _stop(list(running))
        raise
    return outcomes


def last_lines(log: Path, count: int = 4) -> tuple[str, ...]:
    """Last lines of a log without the many states of a progress bar, the bar's last one counting as a line."""
    try:
        # not as text: that would take each state of a bar for a line
        lines = log.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")
    except OSError:
        return ()
    kept = [line.rstrip("\r").rpartition("\r")[2].strip() for line in lines]
    return tuple([line for line in kept if line][-count:])


def _start(command: Command, threads: int) -> BaseProcess:
    # forkserver: a process that has imported everything and done nothing is copied. A copy of *this* process would
    # share its threads' locks and its GPU; a new interpreter would import torch again, which takes seconds
    ways = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
    if "forkserver" in ways:
        context.set_forkserver_preload(list(PRELOAD))
    command.log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_child, args=(str(command.door), command.flags, str(command.log)))
    with _thread_limit(threads):
        process.start()
    return process


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """The libraries read these variables when they are imported, which is when the first process starts."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _child(door: str, flags: Sequence[str], log: str) -> None:
    """What the new process does: be `python <door> <flags>`, with its output in the log."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        sys.stdout.flush()
        os.dup2(stream, number)
    threading.Thread(target=_follow_parent, daemon=True).start()
    sys.argv = [door, *flags]
    runpy.run_path(door, run_name="__main__")


def _follow_parent() -> None:
    """Stop as at Ctrl-C when the parent is gone: a run that nobody waits for would meet its own repetition."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGINT)


def _stop(processes: Sequence[BaseProcess]) -> None:
    try:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
            process.join()
