"""The ten 224x224 crops of a 340x256 frame, numbered as in the released embeddings."""

from __future__ import annotations

CROP_SIZE = 224
# top row and left column of centre, top-left, top-right, bottom-left, bottom-right
_PLACES = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))


def place_of(crop: int) -> tuple[int, int]:
    """Top row and left column of a crop in the frame as it is, not mirrored."""
    return _PLACES[crop % 5]


def is_mirrored(crop: int) -> bool:
    """Whether a crop is mirrored left-right after cutting: 5-9 are 0-4 mirrored."""
    return crop >= 5


def crop_slices(crop: int) -> tuple[slice, slice]:
    """Rows and columns of a crop, to cut arrays and tensors with; mirror the result if needed."""
    top, left = place_of(crop)
    return slice(top, top + CROP_SIZE), slice(left, left + CROP_SIZE)
