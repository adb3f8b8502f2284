"""Synthetic events: per-pixel counts of the brightness changes in a snippet (Appendix F.1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from extracting.video.crops import crop_slices
from extracting.video.frames import BLOCK_SNIPPETS, HEIGHT, WIDTH

RED, GREEN, BLUE = np.float32(0.2989), np.float32(0.5870), np.float32(0.1140)


class EventCounter:
    """Counts events. Its scratch arrays are reused, since allocating them per frame is slow."""

    def __init__(self) -> None:
        self._planes = tuple(np.empty((HEIGHT, WIDTH), np.uint8) for _ in range(3))
        self._previous, self._current, self._product, self._change = (
            np.empty((HEIGHT, WIDTH), np.float32) for _ in range(4)
        )
        self._fired = np.empty((HEIGHT, WIDTH), np.uint8)

    def count(self, snippet: np.ndarray, threshold: int) -> np.ndarray:
        """Return the event counts (256, 340) uint8 of a snippet (16, 256, 340, 3) BGR uint8.

        A pixel fires an event if its grey level changes by more than `threshold` between two
        consecutive frames of the snippet. Counts therefore range from 0 to 15.
        """
        previous, current = self._previous, self._current
        counts = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.grey(snippet[0], out=previous)
        for frame in snippet[1:]:
            self.grey(frame, out=current)
            cv2.absdiff(current, previous, dst=self._change)
            cv2.compare(self._change, float(threshold), cv2.CMP_GT, dst=self._fired)
            counts -= self._fired  # 255 for an event, which is -1 modulo 256: this adds one
            previous, current = current, previous
        return counts

    def grey(self, frame: np.ndarray, out: np.ndarray) -> None:
        """Write the grey levels of a BGR uint8 frame into `out`, (256, 340) float32.

        Grey = (0.2989 R + 0.5870 G) + 0.1140 B, rounded to float32 after each step. Integer or
        fused arithmetic rounds some values differently and therefore changes the events.
        """
        cv2.split(frame, self._planes)
        blue, green, red = self._planes
        np.multiply(red, RED, out=out)
        np.multiply(green, GREEN, out=self._product)
        out += self._product
        np.multiply(blue, BLUE, out=self._product)
        out += self._product


class EventScaling:
    """Clamps the event counts of one video and computes the divisors that scale them to [0, 1].

    Scaling "clamp" divides by the clamp. Scaling "block", as in the released code, divides by the
    largest count of the crop in a block of 32 snippets. Snippets wait until their block is
    complete. A block without events stays zero (the released code replaces the NaN of 0/0 later).
    """

    def __init__(self, crops: Sequence[int], clamp: int, scaling: str) -> None:
        """crops: the C crop numbers."""
        self._crops, self._clamp = crops, np.uint8(min(clamp, 255))
        self._fixed = np.full(len(crops), clamp, np.float32) if scaling == "clamp" else None
        self._block: list[np.ndarray] = []

    def add(self, counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Add the counts (256, 340) of the next snippet and return the snippets that are ready.

        Each is a new array of clamped counts (256, 340) uint8 with its divisors (C,) float32.
        """
        clamped = np.minimum(counts, self._clamp)
        if self._fixed is not None:
            return [(clamped, self._fixed)]
        self._block.append(clamped)
        return self.flush() if len(self._block) == BLOCK_SNIPPETS else []

    def flush(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the waiting snippets of the current block; call it at the end of the video."""
        if not self._block:
            return []
        block, self._block = self._block, []
        peak = np.max(block, axis=0)
        divisors = [max(int(peak[crop_slices(crop)].max()), 1) for crop in self._crops]
        return [(counts, np.array(divisors, np.float32)) for counts in block]
