"""Snippets on a GPU: sent up once as they were decoded, cropped and mirrored there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from extracting.crops import cut


class Uploads:
    """Page-locked room through which arrays of one shape go to a device while the host prepares the next."""

    def __init__(self, device: torch.device, rooms: int) -> None:
        """rooms: snippets that may be on their way at once."""
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._number = rooms
        self._rooms: list[tuple[Tensor, torch.cuda.Event | None]] = []
        self._next = 0

    def send(self, pixels: np.ndarray) -> Tensor:
        """A uint8 array's copy on the device; the array may be changed as soon as this returns."""
        if not self._rooms:
            make_event = torch.cuda.Event if self._on_gpu else lambda: None
            self._rooms = [
                (torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=self._on_gpu), make_event())
                for _ in range(self._number)
            ]
        room, gone = self._rooms[self._next]
        self._next = (self._next + 1) % self._number
        if gone is not None:
            gone.synchronize()  # the copy that used this room last
        room.numpy()[...] = pixels
        sent = torch.empty(room.shape, dtype=torch.uint8, device=self._device).copy_(room, non_blocking=True)
        if gone is not None:
            gone.record()
        return sent


def crop_tensors(stack: Tensor, crops: Sequence[int]) -> list[Tensor]:
    """As `crop_views`, of a stack that is a tensor on whatever device."""
    return cut(stack, stack.flip(2) if any(crop >= 5 for crop in crops) else stack, crops)
