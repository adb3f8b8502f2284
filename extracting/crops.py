"""The ten 224×224 crops of a 340×256 frame, as slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from extracting.frames import WIDTH
from vad.errors import InputError

CROP_SIZE = 224
ALL_CROPS = tuple(range(10))
# (top row, left column) of centre, top-left, top-right, bottom-left, bottom-right; 5–9 show the same five places,
# mirrored: crop 6 is crop 1 mirrored (not the top-left of the mirrored frame, which torchvision's ten_crop takes)
_CORNERS = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))


def parse_crops(text: str) -> tuple[int, ...]:
    """Crop numbers of "0..9", "5" or "0,5", ascending and each once. InputError for anything else."""
    crops: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        ends = (first, last if dots else first)
        if not all(end.isdecimal() for end in ends):
            raise InputError(f"--crops {text}: not a crop number or range; write 5, or 0,5, or 0..9")
        if int(ends[1]) > ALL_CROPS[-1]:
            crops.clear()
            break
        crops.update(range(int(ends[0]), int(ends[1]) + 1))
    if not crops:
        raise InputError(f"--crops {text}: crops are numbered 0 to 9 (5 is the mirrored centre)")
    return tuple(sorted(crops))


def place_of(crop: int) -> tuple[int, int]:
    """Top row and left column of a crop, in the mirrored frame from crop 5 on."""
    top, left = _CORNERS[crop % 5]
    return top, WIDTH - CROP_SIZE - left if crop >= 5 else left


def crop_views(stack: np.ndarray, crops: Sequence[int]) -> list[np.ndarray]:
    """Crops of a stack of frames (N, 256, 340, 3) or maps (N, 256, 340): views (N, 224, 224[, 3]), one a number."""
    mirrored = stack
    if any(crop >= 5 for crop in crops):
        # Whole rows are mirrored once for all crops and all frames: a frame is as good as N of them on top of
        # each other, and slices of the result are plain views, where a negative stride copies 14 times slower.
        rows = stack.reshape(-1, *stack.shape[2:])
        mirrored = cv2.flip(rows, 1).reshape(stack.shape)
    return cut(stack, mirrored, crops)


def cut(stack: Any, mirrored: Any, crops: Sequence[int]) -> list[Any]:
    """Crops of a stack, an array or a tensor, whose mirror image is at hand: views, one a number."""
    views = []
    for crop in crops:
        top, left = place_of(crop)
        source = mirrored if crop >= 5 else stack
        views.append(source[:, top : top + CROP_SIZE, left : left + CROP_SIZE])
    return views
