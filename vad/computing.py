"""Where and how a training run computes: device, precision, compilation, and the processes that share the work."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from vad.device import pick_device
from vad.distributed import ALONE, Ranks, join, launched, local_device
from vad.errors import InputError
from vad.repeatable import make_deterministic

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Computing:
    """How steps are computed.

    A run may continue on another device, with or without --compile and --deterministic, and with another number of
    processes: results then agree to rounding (and to the dropout masks), no longer bit for bit. Another precision is
    another run.
    """

    device: torch.device
    ranks: Ranks = ALONE
    precision: str = "fp32"
    compiled: bool = False
    deterministic: bool = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """The forward pass's precision; weights, optimiser and losses are float32 either way, and so is evaluation."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, model: torch.nn.Module) -> Callable[..., object]:
        """What a training step calls: the model, averaging gradients over processes and compiled where asked for."""
        call: Callable[..., object] = model
        if self.ranks.world > 1:
            own = [self.device] if self.device.type == "cuda" else None
            call = DistributedDataParallel(model, device_ids=own)
        return torch.compile(call) if self.compiled else call

    def describe(self) -> str:
        """Device, precision and the rest in a few words."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        more = [
            self.precision,
            *(["compiled"] if self.compiled else []),
            *(["deterministic"] if self.deterministic else []),
            *([f"{self.ranks.world} processes"] if self.ranks.world > 1 else []),
        ]
        return f"{self.device}{f' ({name})' if name else ''}, {', '.join(more)}"


def add_computing_flags(parser: argparse.ArgumentParser) -> None:
    """--device, --precision, --compile, --deterministic."""
    group = parser.add_argument_group("computing", "several GPUs: torchrun --nproc-per-node=N main.py …")
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the forward pass (default fp32)")
    group.add_argument("--compile", action="store_true", help="torch.compile: slow to start, faster steps on a GPU")
    group.add_argument("--deterministic", action="store_true", help="the same bits in every run on one GPU; slower")


@contextlib.contextmanager
def start_computing(args: argparse.Namespace) -> Iterator[Computing]:
    """Device and processes by the flags above; InputError for what this machine cannot do."""
    if args.deterministic:
        make_deterministic()
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)
    device = pick_device(local_device(args.device) if launched() else args.device)
    if args.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"--precision bf16 is not supported by {torch.cuda.get_device_name(device)}; leave it out")
    with join(device) as ranks:
        yield Computing(device, ranks, args.precision, args.compile, args.deterministic)
