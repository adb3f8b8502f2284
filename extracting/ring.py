"""Slots for snippets in memory that a decoder process and the run share."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

import numpy as np

from extracting.frames import HEIGHT, WIDTH
from extracting.stream import Snippet
from vad.catalog import SNIPPET_FRAMES

# what one decoder is ahead by, at most: 25 MB of images and 1.4 MB of event maps
SLOTS = {"image": 6, "event": 8}
_SHAPES = {"image": (SNIPPET_FRAMES, HEIGHT, WIDTH, 3), "event": (2, HEIGHT, WIDTH)}  # event: clamped, as counted
_COUNTER_BYTES = 64


class Ring:
    """One decoder's slots and its count of decoded frames.

    The memory has no name in the file system, only a descriptor that parent and child hold: when both are gone it is
    gone, however they ended.
    """

    def __init__(self, descriptor: int, modalities: Sequence[str]) -> None:
        """descriptor: of `create_memory`, for the same modalities."""
        self._memory = mmap.mmap(descriptor, memory_bytes(modalities))
        self.frames = np.frombuffer(self._memory, np.int64, 1)  # of the current video, decoded so far
        self.slots: dict[str, np.ndarray] = {}
        start = _COUNTER_BYTES
        for modality in modalities:
            shape = (SLOTS[modality], *_SHAPES[modality])
            length = int(np.prod(shape))
            self.slots[modality] = np.frombuffer(self._memory, np.uint8, length, start).reshape(shape)
            start += length

    def put(self, slot: int, snippet: Snippet) -> None:
        """Copy a snippet's arrays into a free slot."""
        room = self.slots[snippet.modality][slot]
        if snippet.modality == "image":
            room[...] = snippet.pixels
        else:
            room[0], room[1] = snippet.pixels[0], snippet.counts

    def get(self, modality: str, slot: int, divisors: np.ndarray | None) -> Snippet:
        """The snippet in a slot, as views that hold until the slot is given back."""
        room = self.slots[modality][slot]
        if modality == "image":
            return Snippet(modality, room)
        return Snippet(modality, room[:1], divisors, room[1])


def memory_bytes(modalities: Sequence[str]) -> int:
    """Size of a ring."""
    return _COUNTER_BYTES + sum(SLOTS[m] * int(np.prod(_SHAPES[m])) for m in modalities)


def create_memory(modalities: Sequence[str]) -> int:
    """Descriptor of fresh memory for a ring; whoever asks closes it."""
    if hasattr(os, "memfd_create"):
        # not bound by the size of /dev/shm, of which containers have 64 MB
        descriptor = os.memfd_create("snippets")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, memory_bytes(modalities))
    return descriptor
