"""Ctrl-C while training: the step under way is finished and saved, then the command ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The run was interrupted and can be continued; the message says how."""


class StopRequest:
    """Turns Ctrl-C, and the signal by which job schedulers end a job, into a stop between two steps.

    As a context manager around the loop. Inside `finishing()` the first request waits until the block ends and the
    second, where `patient` is not set, ends it at once; outside of it (loading, evaluation) a request takes effect at
    once. Elsewhere than in the main thread Python allows no handler, and nothing is changed.
    """

    def __init__(self, *, patient: bool = False) -> None:
        """patient: never raise, only note the request; for processes that must all stop at the same step."""
        self.patient = patient
        self.asked = False
        self.broke = False  # a step was left half done: what is in memory is not to be saved
        self._finishing = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            # processes that train together are ended by their launcher, which sends SIGTERM when one of them died
            for number in [signal.SIGINT] if self.patient else [signal.SIGINT, signal.SIGTERM]:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            # the launcher passes Ctrl-C on to processes that have had it from the terminal: the second comes while
            # they leave the group
            signal.signal(number, signal.SIG_IGN if self.patient and self.asked else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if not self.patient and (again or not self._finishing):
            self.broke = self._finishing
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """What must not be left half done."""
        self._finishing = True
        try:
            yield
        finally:
            self._finishing = False
