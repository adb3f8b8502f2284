"""Shared by the benchmarks: the median time of an action, and the peak rate of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of an action, in seconds, after one warm-up call."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass
class Machine:
    """The measured device; tests use a CPU with few repeats and a small matrix product."""

    device: str = "cuda"
    product: int = 8192  # rows and columns of the matrices in `peak`
    repeats: int = 10

    def wait(self) -> None:
        """Wait until the device has finished all work."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object]) -> float:
        """Return the mean time of an action after a warm-up call; the device may overlap the repeats."""
        action()
        self.wait()
        start = time.perf_counter()
        for _ in range(self.repeats):
            action()
        self.wait()
        return (time.perf_counter() - start) / self.repeats

    def peak(self, dtype: torch.dtype) -> float:
        """Return the peak rate of the device, FLOP/s, measured with a large matrix product."""
        a, b = (torch.randn(self.product, self.product, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * self.product**3 / self.seconds(lambda: a @ b)
