"""Device, precision, random seeds, and distributed processes of a run.

`torchrun --nproc-per-node=N main.py …` starts N processes. With one process the collective methods do nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import shlex
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model import LossTerms
from vad.files import ROOT, InputError
from vad.options import Options

T = TypeVar("T")
GROUP_TIMEOUT = timedelta(hours=4)  # long enough to build the window cache of a large data set


@dataclass(frozen=True)
class Runtime:
    """Device and precision of a run, and the position of this process in its process group.

    A run may resume on another device or with another number of processes. Results then agree up to rounding.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    precision: str = "fp32"
    compiled: bool = False
    deterministic: bool = False

    @property
    def is_main_process(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the precision context of the forward pass. Weights, optimiser, losses and evaluation are float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def wrap(self, model: torch.nn.Module) -> Callable[..., Any]:
        """Return the network for training steps: distributed over several processes, compiled if requested."""
        network: Callable[..., Any] = model
        if self.world > 1:
            network = DistributedDataParallel(model, device_ids=[self.device] if self.on_gpu else None)
        return torch.compile(network) if self.compiled else network

    def mean(self, values: Tensor) -> Tensor:
        """Return the element-wise mean over processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def reweight(self, terms: LossTerms, lengths: Tensor, masked: bool) -> LossTerms:
        """Weight the loss terms of this process so that their mean over processes is that of the whole batch.

        The classification term is a mean over B videos. The other terms are means over S valid steps, or over all
        steps if padding is attended. With W processes the weights are W·B_r/B and W·S_r/S.
        """
        if self.world == 1:
            return terms
        counts = torch.stack([torch.ones_like(lengths).sum(), lengths.sum()]).double()
        videos, steps = (counts / self.mean(counts)).float()
        steps = steps if masked else videos
        return LossTerms(videos * terms.classification, *(steps * term for term in terms[1:]))

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, ordered by rank, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this process."""
        return items[self.rank :: self.world]

    def merge(self, part: Sequence[T]) -> list[T]:
        """Return the whole list from the parts made by `shard`."""
        parts = self.gather(part)
        return [parts[k % self.world][k // self.world] for k in range(sum(map(len, parts)))]

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block on the main process first, so that the others can use its files."""
        if not self.is_main_process:
            dist.barrier()
        yield
        if self.is_main_process and self.world > 1:
            dist.barrier()

    def describe(self) -> str:
        """Return device, precision and number of processes as one line."""
        parts = [f"{self.device} ({torch.cuda.get_device_name(self.device)})" if self.on_gpu else str(self.device)]
        parts += [self.precision, *(["compiled"] if self.compiled else [])]
        parts += [*(["deterministic"] if self.deterministic else [])]
        return ", ".join([*parts, *([f"{self.world} processes"] if self.world > 1 else [])])


@contextlib.contextmanager
def start(options: Options) -> Iterator[Runtime]:
    """Set up device and process group of a training run. Raises InputError for an unavailable device or precision."""
    if options.deterministic:
        make_deterministic()
    launched = "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ  # set by torchrun
    device = pick_device(_local_device(options.device) if launched else options.device)
    if options.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"--precision bf16 is not supported by {torch.cuda.get_device_name(device)}. Use fp32.")
    settings = (options.precision, options.compile, options.deterministic)
    if not launched or os.environ["WORLD_SIZE"] == "1":
        yield Runtime(device, 0, 1, *settings)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=GROUP_TIMEOUT)
    runtime = Runtime(device, dist.get_rank(), dist.get_world_size(), *settings)
    try:
        with open(os.devnull, "w") as devnull, contextlib.ExitStack() as stack:
            if not runtime.is_main_process:
                stack.enter_context(contextlib.redirect_stdout(devnull))
            yield runtime
    except BaseException as error:
        _exit_process(error, runtime)
    dist.destroy_process_group()


def _exit_process(error: BaseException, runtime: Runtime) -> NoReturn:
    """Exit one of several processes immediately, with the exit codes of `run_command`.

    Normal unwinding would destroy the process group, which can block forever.
    """
    code = 1
    if isinstance(error, ValueError):  # InputError or ConfigError
        if not runtime.is_main_process:
            time.sleep(5)  # if the main process reports the same error, the launcher kills this one first
        print(f"error: {error}", file=sys.stderr)
        code = 2
    elif isinstance(error, SystemExit | KeyboardInterrupt):
        code = 130 if isinstance(error, KeyboardInterrupt) else int(error.code or 0)
    else:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def pick_device(name: str) -> torch.device:
    """Return the device of --device. "auto" prefers a GPU. Raises InputError for an unusable device."""
    if "OMP_NUM_THREADS" not in os.environ:  # torch counts all cores, not only the allowed ones
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # read back, since "meta" tensors hold no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}). Use auto, cpu or cuda.") from None
    return device


def available_cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local_device(name: str) -> str:
    """Return the device name of this process under torchrun: one GPU per local rank."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        if name.startswith("cuda:"):
            raise InputError(f"--device {name} is one GPU for several processes. Use --device cuda or cpu.")
        return name
    local, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= available:
        count = os.environ.get("LOCAL_WORLD_SIZE", local + 1)
        raise InputError(f"{count} processes for {available} GPUs. Use --nproc-per-node={available} or --device cpu.")
    return f"cuda:{local}"


# reproducibility


def seed_everything(seed: int) -> None:
    """Seed the random generators of torch (all devices), numpy and Python."""
    torch.manual_seed(_derived(seed))
    np.random.seed(_derived(seed) % 2**32)
    random.seed(seed)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch for one training step on one process.

    The seed depends only on (seed, step, rank). A run can thus resume at any step without a saved generator state,
    and processes that share a batch draw different dropout masks.
    """
    torch.manual_seed(_derived(seed, step, rank))


def _derived(*numbers: int) -> int:
    # SeedSequence decorrelates neighbouring seeds. The modulo admits negative seeds
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0])


def make_deterministic() -> None:
    """Select kernels with bitwise reproducible results on one machine. Call this before the first use of a GPU.

    An operation without a deterministic kernel raises a RuntimeError.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS may change the summation order
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # slow, and no result depends on it


# provenance


def command_line() -> str:
    """Return the command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Return the versions of the code and of the main libraries."""
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


@functools.cache
def code_version() -> str:
    """Return version and commit of this code, followed by "+" if files have uncommitted changes."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if not (ROOT / ".git").exists():  # otherwise git would report an enclosing repository
        return version
    git = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=10, cwd=ROOT)
    try:
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} {commit}{'+' if changed else ''}"
