"""What makes a run the same again: seeds, deterministic kernels, and the record of code, versions and data."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import random
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vad.catalog import ROOT
from vad.data import Sample


def seed_everything(seed: int) -> None:
    """Fix every random number that follows: torch's on every device, numpy's, Python's."""
    torch.manual_seed(_derived(seed))
    np.random.seed(_derived(seed) % 2**32)
    random.seed(seed)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Fix the random numbers of one training step on one process.

    They depend on (seed, step, rank) alone, not on what was drawn before. So no generator's state has to be kept for a
    run to continue at any step, and processes that share a batch draw different dropout masks.
    """
    torch.manual_seed(_derived(seed, step, rank))


def _derived(*numbers: int) -> int:
    # neighbouring seeds must not give related streams; a negative seed counts too
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)[0])


def make_deterministic() -> None:
    """Ask for kernels that give the same bits in every run on one machine; call it before a GPU is first used.

    On a CPU they do so anyhow. A kernel that has no such form raises an error that names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may sum in another order
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # new memory is filled with NaN in this mode, to find reads of it; that costs time and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False


def fingerprint(samples: Sequence[Sample], files: Sequence[Path]) -> str:
    """Hash that tells whether two runs saw the same data: lists, ground truth, sizes, and some embeddings whole."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    digest.update(repr([(s.video, s.crop, s.snippets) for s in samples]).encode())
    for sample in samples[:: max(1, len(samples) // 16)]:
        for path in sample.paths:
            digest.update(path.read_bytes() if path else b"")
    return digest.hexdigest()[:16]


@functools.cache
def code_version() -> str:
    """The commit of this code, with "+" where files differ from it; without git, the version in pyproject.toml."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if not (ROOT / ".git").exists():  # inside another project's checkout its commit would say nothing of this code
        return version
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{version} {commit}{'+' if _git('status', '--porcelain', '--untracked-files=no') else ''}"
    except (OSError, subprocess.SubprocessError):
        return version


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def command() -> str:
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
