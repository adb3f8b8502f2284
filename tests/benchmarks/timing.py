"""What the benches share: the median time of an action, and a device with the most it can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of an action after one call to warm up."""
    action()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@dataclass
class Machine:
    """A device under test; a CPU, few repeats and a small product show that a measurement itself runs."""

    device: str = "cuda"
    product: int = 8192  # rows of the large product
    repeats: int = 10

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object]) -> float:
        """Of an action, finished, after one to warm up; the mean of `repeats`, which the device may overlap."""
        action()
        self.wait()
        start = time.perf_counter()
        for _ in range(self.repeats):
            action()
        self.wait()
        return (time.perf_counter() - start) / self.repeats

    def peak(self, dtype: torch.dtype) -> float:
        """Operations a second of a large matrix product: what this machine can do at most."""
        a, b = (torch.randn(self.product, self.product, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * self.product**3 / self.seconds(lambda: a @ b)
