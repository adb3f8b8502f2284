"""Where and how a run computes: device, precision, random numbers, and the processes that share the work.

Alone, every method of `Runtime` about processes is the identity. `torchrun --nproc-per-node=N main.py …` starts N.
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
PATIENCE = timedelta(hours=4)  # the main process may make the windows of a large data set meanwhile


@dataclass(frozen=True)
class Runtime:
    """How steps are computed, and this process among those that train together.

    A run may resume on another device or with another number of processes: results then agree to rounding.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    precision: str = "fp32"
    compiled: bool = False
    deterministic: bool = False

    @property
    def is_main_process(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager:
        """Precision of the forward pass; weights, optimiser, losses and evaluation are float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def wrap(self, model: torch.nn.Module) -> Callable[..., Any]:
        """What a training step calls: averages gradients over processes, compiled on request."""
        network: Callable[..., Any] = model
        if self.world > 1:
            network = DistributedDataParallel(model, device_ids=[self.device] if self.on_gpu else None)
        return torch.compile(network) if self.compiled else network

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, element by element."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def reweight(self, terms: LossTerms, lengths: Tensor, masked: bool) -> LossTerms:
        """Terms of this part of a batch, so that their mean over processes is the whole batch's.

        The classification is a mean over B videos, the others over S valid steps (all steps where padding is
        attended): with W processes the weights are W·B_r/B and W·S_r/S.
        """
        if self.world == 1:
            return terms
        counts = torch.stack([torch.ones_like(lengths).sum(), lengths.sum()]).double()
        videos, steps = (counts / self.mean(counts)).float()
        steps = steps if masked else videos
        return LossTerms(videos * terms.classification, *(steps * term for term in terms[1:]))

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank, on every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list."""
        return items[self.rank :: self.world]

    def merge(self, part: Sequence[T]) -> list[T]:
        """The whole list, from the parts that `shard` gave."""
        parts = self.gather(part)
        return [parts[k % self.world][k // self.world] for k in range(sum(map(len, parts)))]

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The main process runs the block first; the others then find what it has made."""
        if not self.is_main_process:
            dist.barrier()
        yield
        if self.is_main_process and self.world > 1:
            dist.barrier()

    def describe(self) -> str:
        """Device, precision and the rest in a few words."""
        words = [f"{self.device} ({torch.cuda.get_device_name(self.device)})" if self.on_gpu else str(self.device)]
        words += [self.precision, *(["compiled"] if self.compiled else [])]
        words += [*(["deterministic"] if self.deterministic else [])]
        return ", ".join([*words, *([f"{self.world} processes"] if self.world > 1 else [])])


@contextlib.contextmanager
def start(options: Options) -> Iterator[Runtime]:
    """Device and processes of a training run; InputError for what this machine cannot do."""
    if options.deterministic:
        make_deterministic()
    launched = "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ  # by torchrun
    device = pick_device(_local_device(options.device) if launched else options.device)
    if options.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"--precision bf16 is not supported by {torch.cuda.get_device_name(device)}; leave it out")
    more = (options.precision, options.compile, options.deterministic)
    if not launched or os.environ["WORLD_SIZE"] == "1":
        yield Runtime(device, 0, 1, *more)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    runtime = Runtime(device, dist.get_rank(), dist.get_world_size(), *more)
    try:
        with open(os.devnull, "w") as nothing, contextlib.ExitStack() as stack:
            if not runtime.is_main_process:
                stack.enter_context(contextlib.redirect_stdout(nothing))
            yield runtime
    except BaseException as error:
        _leave(error, runtime)
    dist.destroy_process_group()


def _leave(error: BaseException, runtime: Runtime) -> NoReturn:
    """End one of several processes at once, with the exit codes of `run_command`.

    Unwinding would free what communicates, which may wait for ever for a thread of the library.
    """
    code = 1
    if isinstance(error, ValueError):  # a sentence for the user
        if not runtime.is_main_process:
            time.sleep(5)  # where the main process says the same, the launcher ends this one meanwhile
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
    """Device by --device; "auto" takes the GPU where there is one. InputError for one that is not there."""
    if "OMP_NUM_THREADS" not in os.environ:  # torch counts the machine's cores, not those allowed
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # read back: tensors of the device "meta" hold no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto, cpu or cuda") from None
    return device


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local_device(name: str) -> str:
    """The --device of this process under torchrun: one GPU each, in order."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        if name.startswith("cuda:"):
            raise InputError(f"--device {name} is one GPU for several processes; give --device cuda or cpu")
        return name
    local, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= available:
        count = os.environ.get("LOCAL_WORLD_SIZE", local + 1)
        raise InputError(f"{count} processes for {available} GPUs; give --nproc-per-node={available}, or --device cpu")
    return f"cuda:{local}"


# reproducibility


def seed_everything(seed: int) -> None:
    """Fix every random number that follows: torch's on every device, numpy's, Python's."""
    torch.manual_seed(_derived(seed))
    np.random.seed(_derived(seed) % 2**32)
    random.seed(seed)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Fix the random numbers of one training step on one process.

    They depend on (seed, step, rank) alone. So a run resumes at any step without a generator's state, and
    processes that share a batch draw different dropout masks.
    """
    torch.manual_seed(_derived(seed, step, rank))


def _derived(*numbers: int) -> int:
    # neighbouring seeds must not give related streams; a negative seed counts too
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0])


def make_deterministic() -> None:
    """Ask for kernels that give the same bits in every run on one machine; call it before a GPU is used.

    A kernel that has no such form raises an error that names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may sum in another order
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, changes no result


# provenance


def command_line() -> str:
    """The command line of this process, as it was typed."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Code and libraries behind a result."""
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


@functools.cache
def code_version() -> str:
    """Version and commit of this code, with "+" where files differ from the commit."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if not (ROOT / ".git").exists():  # the commit of an enclosing checkout would say nothing of this code
        return version
    git = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=10, cwd=ROOT)
    try:
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} {commit}{'+' if changed else ''}"
