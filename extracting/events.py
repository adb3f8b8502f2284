"""Synthetic events: a snippet's brightness changes counted per pixel (Appendix F.1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from extracting.crops import crop_views
from extracting.frames import BLOCK_SNIPPETS
from vad.errors import InputError

SCALINGS = ("clamp", "block")
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.5870), np.float32(0.1140)


def grey(frame: np.ndarray) -> np.ndarray:
    """Grey levels (256, 340) float32 of a BGR uint8 frame.

    Plain float32, (0.2989 R + 0.5870 G) + 0.1140 B in this order and rounded after each step: integer or fused
    arithmetic gives other values at ties, and other events with them.
    """
    blue, green, red = cv2.split(frame)
    level = np.multiply(red, _RED)
    level += np.multiply(green, _GREEN)
    level += np.multiply(blue, _BLUE)
    return level


def count_events(snippet: np.ndarray, threshold: int) -> np.ndarray:
    """Events of a snippet (16, 256, 340, 3) BGR uint8: counts (256, 340) uint8, 0 … 15.

    An event is a grey level that differs from the frame before, inside the snippet, by more than threshold.
    """
    before = grey(snippet[0])
    counts = np.zeros(before.shape, np.uint8)
    for frame in snippet[1:]:
        now = grey(frame)
        fired = cv2.compare(cv2.absdiff(now, before), float(threshold), cv2.CMP_GT)
        counts -= fired  # fired is 255 = −1 modulo 256, so this adds one
        before = now
    return counts


def check_event_settings(threshold: int, clamp: int, scaling: str) -> None:
    """Raise InputError for an event setting that means nothing."""
    if not 0 <= threshold <= 255:
        raise InputError(f"--event_threshold {threshold}: grey levels go from 0 to 255")
    if clamp < 1:
        raise InputError(f"--event_clamp {clamp}: counts are cut to the clamp, which is at least 1")
    if scaling not in SCALINGS:
        raise InputError(f"unknown event scaling {scaling!r}; known are {', '.join(SCALINGS)}")


class EventScaling:
    """What the encoder divides counts by to reach [0, 1], decided as the snippets of one video come in.

    Scaling "clamp" divides by the clamp. "block" divides by the largest count of the crop in its block of 32
    snippets, as the release does, so a block is held back until it is complete; a block without events stays zero
    (the release computes 0/0 and zeroes the NaN later).
    """

    def __init__(self, crops: Sequence[int], clamp: int, scaling: str) -> None:
        self._crops, self._clamp = crops, np.uint8(min(clamp, 255))
        self._divisors = np.full(len(crops), clamp, np.float32) if scaling == "clamp" else None
        self._block: list[np.ndarray] = []

    def add(self, counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Counts (256, 340) of the next snippet; returns what is decided: those counts, divisors (number of crops,)."""
        if self._divisors is not None:
            return [(counts, self._divisors)]
        self._block.append(counts)
        return self.end() if len(self._block) == BLOCK_SNIPPETS else []

    def end(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The rest, when the video has ended."""
        if not self._block:
            return []
        views = crop_views(self.clamped(np.stack(self._block)), self._crops)
        largest = np.array([max(int(view.max()), 1) for view in views], np.float32)
        block, self._block = self._block, []
        return [(counts, largest) for counts in block]

    def clamped(self, counts: np.ndarray) -> np.ndarray:
        """Counts cut at the clamp, as the encoder gets them."""
        return np.minimum(counts, self._clamp)
