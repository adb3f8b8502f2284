"""Synthetic events: the brightness changes of a snippet, counted per pixel (Appendix F.1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from extracting.video.crops import crop_slices
from extracting.video.frames import BLOCK_SNIPPETS, HEIGHT, WIDTH

RED, GREEN, BLUE = np.float32(0.2989), np.float32(0.5870), np.float32(0.1140)


class EventCounter:
    """Counts events. Its scratch arrays are made once, as new ones for every frame are slow."""

    def __init__(self) -> None:
        self._planes = tuple(np.empty((HEIGHT, WIDTH), np.uint8) for _ in range(3))
        self._before, self._now, self._part, self._change = (
            np.empty((HEIGHT, WIDTH), np.float32) for _ in range(4)
        )
        self._fired = np.empty((HEIGHT, WIDTH), np.uint8)

    def count(self, snippet: np.ndarray, threshold: int) -> np.ndarray:
        """Events of a snippet (16, 256, 340, 3) BGR uint8: a new array of counts (256, 340) uint8.

        An event is a grey level that differs by more than `threshold` from the frame before, inside
        the snippet, so a count is 0 ... 15.
        """
        before, now = self._before, self._now
        counts = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.grey(snippet[0], out=before)
        for frame in snippet[1:]:
            self.grey(frame, out=now)
            cv2.absdiff(now, before, dst=self._change)
            cv2.compare(self._change, float(threshold), cv2.CMP_GT, dst=self._fired)
            counts -= self._fired  # 255 where an event fired, which is -1 modulo 256: adds one
            before, now = now, before
        return counts

    def grey(self, frame: np.ndarray, out: np.ndarray) -> None:
        """Grey levels of a BGR uint8 frame into `out` (256, 340) float32.

        (0.2989 R + 0.5870 G) + 0.1140 B, rounded to float32 after each step: integer or fused
        arithmetic gives other values at ties, and other events with them.
        """
        cv2.split(frame, self._planes)
        blue, green, red = self._planes
        np.multiply(red, RED, out=out)
        np.multiply(green, GREEN, out=self._part)
        out += self._part
        np.multiply(blue, BLUE, out=self._part)
        out += self._part


class EventScaling:
    """Clamps the counts of one video and finds what to divide them by to reach [0, 1].

    Scaling "clamp" divides by the clamp. "block" divides by the largest count of the crop within
    its block of 32 snippets, as the release does: a block is held back until it is complete. There
    a block without events stays zero (the release computes 0/0 and replaces the NaN later).
    """

    def __init__(self, crops: Sequence[int], clamp: int, scaling: str) -> None:
        """crops: their numbers, C of them."""
        self._crops, self._clamp = crops, np.uint8(min(clamp, 255))
        self._fixed = np.full(len(crops), clamp, np.float32) if scaling == "clamp" else None
        self._block: list[np.ndarray] = []

    def add(self, counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Take the counts (256, 340) of the next snippet; return the snippets settled by now.

        Each as clamped counts (256, 340) uint8, a new array, and divisors (C,) float32.
        """
        clamped = np.minimum(counts, self._clamp)
        if self._fixed is not None:
            return [(clamped, self._fixed)]
        self._block.append(clamped)
        return self.end() if len(self._block) == BLOCK_SNIPPETS else []

    def end(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the snippets of the last, partial block once the video has ended."""
        if not self._block:
            return []
        block, self._block = self._block, []
        most = np.max(block, axis=0)
        largest = [max(int(most[crop_slices(crop)].max()), 1) for crop in self._crops]
        return [(counts, np.array(largest, np.float32)) for counts in block]
