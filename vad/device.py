"""Where a run computes."""

from __future__ import annotations

import os

import torch

from vad.errors import InputError


def pick_device(name: str) -> torch.device:
    """Device by --device name; "auto" takes the GPU where there is one. InputError for one that is not there."""
    if hasattr(os, "sched_getaffinity") and "OMP_NUM_THREADS" not in os.environ:
        # torch counts the machine's cores, not those this process may use; too many threads are several times slower
        torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # read back: "meta" makes tensors that hold no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto, cpu or cuda") from None
    return device
