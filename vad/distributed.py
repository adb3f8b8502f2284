"""Several processes that train one model (`torchrun --nproc-per-node=N main.py …`), or one that trains alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vad.errors import InputError

T = TypeVar("T")
# a process that is silent for longer ends the others with an error; while the leader makes the training windows of a
# large data set from a slow disk, they wait for it
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. Alone, every method is the obvious one and costs nothing."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, written to `values`."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def divisors(self, lengths: Tensor) -> tuple[Tensor, Tensor] | None:
        """By what this process divides its sums over videos and over valid steps, where their gradients are averaged.

        lengths: (B,) of this process's part of the batch. Parts differ in size and padding, so a mean of their means
        is not the mean of the whole batch: with the whole batch's counts / N instead, it is. None where alone.
        """
        if self.world == 1:
            return None
        counts = torch.stack([torch.ones_like(lengths).sum(), lengths.sum()]).double()
        videos, steps = self.sum(counts) / self.world
        return videos.float(), steps.float()

    def together(self, work: Callable[[], T]) -> T:
        """The leader does the work first, then the others, who find what it has made.

        Where it fails on some, the first of them says why and all end.
        """
        if self.world == 1:
            return work()
        result, error = None, None
        for turn in (self.leads, not self.leads):
            if turn:
                try:
                    result = work()
                except ValueError as problem:  # InputError and the model's own sentences are such
                    error = problem
            failed = [rank for rank, bad in enumerate(self.gather(error is not None)) if bad]
            if failed and self.rank == failed[0]:
                raise error
            if failed:
                raise SystemExit(2)
        return result

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list."""
        return items[self.rank :: self.world]

    def merge(self, part: Sequence[T]) -> list[T]:
        """The whole list on every process from the parts that `share` gave."""
        parts = self.gather(part)
        return [parts[k % self.world][k // self.world] for k in range(sum(map(len, parts)))]


ALONE = Ranks()


def launched() -> bool:
    """Whether torchrun started this process, as one of several or as the only one."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_device(name: str) -> str:
    """The --device of this process under torchrun: one GPU each, in order. InputError where there are too few."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        if name.startswith("cuda:"):
            raise InputError(f"--device {name} is one GPU for several processes; give --device cuda or cpu")
        return name
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise InputError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes for {there} GPUs; give "
            f"--nproc-per-node={there}, or --device cpu"
        )
    return f"cuda:{local}"


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started; ALONE where it did not. Only the leader prints."""
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    try:
        with contextlib.redirect_stdout(sys.stdout if ranks.leads else _Silence()):
            yield ranks
    finally:
        dist.destroy_process_group()


class _Silence:
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
