"""The ten 224x224 crops of a 340x256 frame, numbered as in the released embeddings."""

from __future__ import annotations

CROP_SIZE = 224
# top row and left column of centre, top-left, top-right, bottom-left, bottom-right
_ORIGINS = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))


def crop_origin(crop: int) -> tuple[int, int]:
    """Return the top row and left column of a crop in the unmirrored frame."""
    return _ORIGINS[crop % 5]


def is_mirrored(crop: int) -> bool:
    """Return whether a crop is flipped left to right after cutting: 5-9 are 0-4 mirrored."""
    return crop >= 5


def crop_slices(crop: int) -> tuple[slice, slice]:
    """Return the rows and columns of a crop, without mirroring."""
    top, left = crop_origin(crop)
    return slice(top, top + CROP_SIZE), slice(left, left + CROP_SIZE)
