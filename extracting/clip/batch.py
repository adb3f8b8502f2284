"""Snippets of whatever videos, collected into batches for one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from extracting.clip.encoder import Encoder
from extracting.video.frames import HEIGHT, SNIPPET_FRAMES, WIDTH


class Owner(Protocol):
    """What a snippet's embeddings are for."""

    owed: int  # snippets whose embeddings are still to come

    def append(self, rows: np.ndarray) -> None:
        """Take the embeddings (C, D) of the next snippet."""


class Batch:
    """Two batches in turn: the device works on one while the host fills the other.

    The rows of a batch are handed over after the next one was started. Every copy is on the
    encoder's own stream, and one event per batch says that all of them are over.
    """

    def __init__(self, encoder: Encoder, modality: str, crops: Sequence[int]) -> None:
        """crops: their numbers, C of them."""
        self._encoder, self._modality, self._crops = encoder, modality, crops
        images, shape = 1, (HEIGHT, WIDTH)
        if modality == "image":
            images, shape = SNIPPET_FRAMES, (SNIPPET_FRAMES, HEIGHT, WIDTH, 3)
        size = self._size = max(1, encoder.batch_size // images)  # snippets
        pin = self._on_gpu = encoder.device.type == "cuda"
        rows = (size, len(crops), encoder.embed_dim)

        def pair(shape: tuple[int, ...], kind: torch.dtype) -> list[Tensor]:
            return [torch.zeros(shape, dtype=kind, pin_memory=pin) for _ in range(2)]

        self._pixels = pair((size, *shape), torch.uint8)
        self._divisors = pair((size, len(crops)), torch.float32)
        self._rows = pair(rows, torch.float32)
        self._owners: list[Owner] = []
        self._running: tuple[list[Owner], Tensor, torch.cuda.Event | None] | None = None

    def slot(self) -> np.ndarray:
        """Where the next snippet's pixels go: frames (16, 256, 340, 3) or counts (256, 340), uint8."""
        return self._pixels[0][len(self._owners)].numpy()

    def add(self, owner: Owner, divisors: np.ndarray | None = None) -> None:
        """Queue what was put into the slot. divisors: (C,) float32, of event counts."""
        if divisors is not None:
            self._divisors[0].numpy()[len(self._owners)] = divisors
        self._owners.append(owner)
        owner.owed += 1
        if len(self._owners) == self._size:
            self._start()

    def flush(self) -> None:
        """Embed and hand over everything that was added."""
        if self._owners:
            self._start()
        self._hand_over()

    def _start(self) -> None:
        n, device = len(self._owners), self._encoder.device
        pixels = self._pixels[0][:n].to(device, non_blocking=True)
        if self._modality == "image":
            rows = self._encoder.images(pixels, self._crops)
        else:
            divisors = self._divisors[0][:n].to(device, non_blocking=True)
            rows = self._encoder.events(pixels, divisors, self._crops)
        arrived = self._rows[0][:n].copy_(rows, non_blocking=True)
        over = None
        if self._on_gpu:
            over = torch.cuda.Event(blocking=True)  # the host sleeps instead of spinning
            over.record()
        started = (self._owners, arrived, over)
        self._hand_over()  # of the batch before, whose buffers are free from here on
        self._running, self._owners = started, []
        for buffers in (self._pixels, self._divisors, self._rows):
            buffers.reverse()

    def _hand_over(self) -> None:
        if self._running is None:
            return
        owners, rows, over = self._running
        self._running = None
        if over is not None:
            over.synchronize()
        for owner, row in zip(owners, rows.numpy(), strict=True):
            owner.append(row)
