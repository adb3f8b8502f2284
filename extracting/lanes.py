"""Forward passes beside each other on a CPU, each by one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


class Lanes:
    """Threads that each compute alone: torch shares no product of theirs among others."""

    def __init__(self, number: int | None = None) -> None:
        """number: threads; None takes as many as torch would use for one product."""
        self._number = number or torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None  # made at the first use

    def map(self, work: Callable[[int], Tensor], parts: Iterable[int]) -> Iterator[Tensor]:
        """Results of work(part) in the order of the parts."""
        if self._pool is None:
            # torch keeps its number of threads for each thread of Python: the caller's stays what it was
            self._pool = ThreadPoolExecutor(self._number, "encoder", initializer=torch.set_num_threads, initargs=(1,))
        return self._pool.map(work, parts)
