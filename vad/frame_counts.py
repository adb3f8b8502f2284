"""How many frames the videos of a split have under each tail rule, from whatever is known of their lengths."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vad.annotations import read_annotation, video_name
from vad.catalog import SNIPPET_FRAMES, Dataset, snippet_count
from vad.errors import InputError
from vad.files import read_text

TAILS = ("whole", "released")
Range = tuple[int, int]  # fewest and most frames that a video can have; equal where its length is known


def frames_of(snippets: int, tail: str | None) -> Range:
    """Frames (fewest, most) of a video with S snippets under a tail rule; None: whichever.

    Under the released rule a block's 33rd snippet needs a 17th frame, and a tail of exactly 16 frames adds none.
    """
    start, last = SNIPPET_FRAMES * snippets, SNIPPET_FRAMES - 1
    whole = (start, start + last)
    released = (start + (snippets % 32 == 1), start + last + (snippets % 32 == 0))
    if tail in TAILS:
        return whole if tail == "whole" else released
    return min(whole[0], released[0]), max(whole[1], released[1])


def predict(lengths: Iterable[Range], tail: str) -> Range:
    """Frames (fewest, most) that stand in the ground truth of these videos under a tail rule."""
    # the count grows with the frames under either rule, so the ends of a range give its ends
    ends = [[SNIPPET_FRAMES * snippet_count(frames, tail) for frames in length] for length in lengths]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def in_words(frames: Range) -> int | str:
    """A range of frames as one number, or as its two ends."""
    return frames[0] if frames[0] == frames[1] else f"{frames[0]:,} … {frames[1]:,}"


def read_counts(path: Path, dataset: Dataset) -> dict[str, Range]:
    """Lengths by `dataset.key`, from a JSON list of {"video", "frames"} or {"video", "chunks"}, or from frame masks.

    Chunks are snippets by the whole tail rule. A video whose number is null is left out. Frame masks are a folder
    of .npy or an .npz, see `annotations.read_annotation`. Raises InputError for another content.
    """
    if path.is_dir() or path.suffix == ".npz":
        masks = read_annotation(path, "masks").marks
        return {dataset.key(name): (len(mask), len(mask)) for name, mask in masks.items()}
    try:
        rows = json.loads(read_text(path, "list of frame counts"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a list of videos with their frames or chunks")
    lengths: dict[str, Range] = {}
    for number, row in enumerate(rows, 1):
        count = _count(row)
        if count is None or not isinstance(row.get("video"), str):
            raise InputError(f"{path}, entry {number}: expected a video and its frames or chunks")
        kind, value = count
        if value is not None:
            key = dataset.key(video_name(row["video"]))
            lengths[key] = (value, value) if kind == "frames" else frames_of(value, "whole")
    return lengths


def _count(row: object) -> tuple[str, int | None] | None:
    """Which number an entry gives, and the number; None where it gives none that can be used."""
    if not isinstance(row, Mapping):
        return None
    for kind in ("frames", "chunks"):
        if kind in row:
            value = row[kind]
            usable = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
            return (kind, value) if usable else None
    return None
