"""Where a run computes."""

from __future__ import annotations

import torch

from vad.errors import InputError


def pick_device(name: str) -> torch.device:
    """Device by --device name; "auto" takes the GPU where there is one. InputError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try auto, cpu or cuda") from None
    return device
