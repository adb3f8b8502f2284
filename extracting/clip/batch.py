"""Collect snippets of several videos into batches for one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from extracting.clip.encoder import Encoder
from extracting.video.frames import HEIGHT, SNIPPET_FRAMES, WIDTH


class Receiver(Protocol):
    """Receives the embeddings of one video, snippet by snippet."""

    pending: int  # snippets whose embeddings have not arrived yet

    def append(self, rows: np.ndarray) -> None:
        """Add the embeddings (C, D) of the next snippet."""


class Batch:
    """Double buffer: the device embeds one batch while the host fills the other.

    The embeddings of a batch are collected after the next batch was submitted. All copies run on
    the encoder's stream, and one CUDA event per batch marks their end.
    """

    def __init__(self, encoder: Encoder, modality: str, crops: Sequence[int]) -> None:
        """crops: the C crop numbers."""
        self._encoder, self._modality, self._crops = encoder, modality, crops
        images, shape = 1, (HEIGHT, WIDTH)
        if modality == "image":
            images, shape = SNIPPET_FRAMES, (SNIPPET_FRAMES, HEIGHT, WIDTH, 3)
        size = self._size = max(1, encoder.batch_size // images)  # snippets
        pin = self._on_gpu = encoder.device.type == "cuda"
        rows = (size, len(crops), encoder.embed_dim)

        def pair(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
            return [torch.zeros(shape, dtype=dtype, pin_memory=pin) for _ in range(2)]

        self._pixels = pair((size, *shape), torch.uint8)
        self._divisors = pair((size, len(crops)), torch.float32)
        self._rows = pair(rows, torch.float32)
        self._receivers: list[Receiver] = []
        self._submitted: tuple[list[Receiver], Tensor, torch.cuda.Event | None] | None = None

    def slot(self) -> np.ndarray:
        """Return the buffer of the next snippet: frames (16, 256, 340, 3) or counts (256, 340) uint8."""
        return self._pixels[0][len(self._receivers)].numpy()

    def add(self, receiver: Receiver, divisors: np.ndarray | None = None) -> None:
        """Queue the snippet in the slot. divisors: (C,) float32, for event counts only."""
        if divisors is not None:
            self._divisors[0].numpy()[len(self._receivers)] = divisors
        self._receivers.append(receiver)
        receiver.pending += 1
        if len(self._receivers) == self._size:
            self._submit()

    def flush(self) -> None:
        """Embed the queued snippets and deliver all embeddings."""
        if self._receivers:
            self._submit()
        self._collect()

    def _submit(self) -> None:
        n, device = len(self._receivers), self._encoder.device
        pixels = self._pixels[0][:n].to(device, non_blocking=True)
        if self._modality == "image":
            rows = self._encoder.images(pixels, self._crops)
        else:
            divisors = self._divisors[0][:n].to(device, non_blocking=True)
            rows = self._encoder.events(pixels, divisors, self._crops)
        on_host = self._rows[0][:n].copy_(rows, non_blocking=True)
        copied = None
        if self._on_gpu:
            copied = torch.cuda.Event(blocking=True)  # the host sleeps instead of spinning
            copied.record()
        submitted = (self._receivers, on_host, copied)
        self._collect()  # frees the buffers of the previous batch
        self._submitted, self._receivers = submitted, []
        for buffers in (self._pixels, self._divisors, self._rows):
            buffers.reverse()

    def _collect(self) -> None:
        if self._submitted is None:
            return
        receivers, rows, copied = self._submitted
        self._submitted = None
        if copied is not None:
            copied.synchronize()
        for receiver, row in zip(receivers, rows.numpy(), strict=True):
            receiver.append(row)
