"""Event counts, their scaling and the ten crops, compared with arrays of the released code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from extracting.video.crops import crop_origin, crop_slices, is_mirrored
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import Video, group_snippets
from tests.extracting.video.helpers import golden_frames

REAL = [
    "mmaction2_test.avi",
    "mmaction2_part_0.mp4",
    "RoadAccidents017_x264.mp4",
    "Arson009_x264.mp4",
    "intel_car-detection.mp4",
    "torchcodec_h264_10bits.mp4",
]
CROPS = (0, 3, 5, 9)  # as in real_extraction.npz


def cut(stack: np.ndarray, crop: int) -> np.ndarray:
    """Return a crop of frames (n, 256, 340[, 3]), mirrored for crops 5 to 9."""
    rows, columns = crop_slices(crop)
    view = stack[:, rows, columns]
    return view[:, :, ::-1] if is_mirrored(crop) else view


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def released_arrays(golden: Callable, name: str) -> np.lib.npyio.NpzFile:
    """Return the arrays of a real video; real_10bit.npz replaces those made with OpenCV 5."""
    return golden("real_10bit" if "10bits" in name else "real_extraction")


@pytest.fixture(scope="module")
def snippets(golden: Callable) -> list[np.ndarray]:
    frames = golden_frames()
    assert sha256(frames) == str(golden("extraction")["frames_sha256"])
    return list(group_snippets(iter(frames), "whole"))


@pytest.mark.parametrize("crop", range(10))
def test_crops_and_events_equal_the_released_code(
    golden: Callable, snippets: list[np.ndarray], crop: int
) -> None:
    arrays = golden("extraction")
    rgb = np.concatenate([cut(snippet, crop)[..., ::-1] for snippet in snippets])
    assert (rgb[7, ::37, ::41] == arrays[f"crop_sample/{crop}"]).all()
    assert sha256(rgb) == str(arrays[f"crop_sha256/{crop}"])
    counter = EventCounter()
    for threshold in (10, 25):
        counts = np.stack([counter.count(snippet, threshold) for snippet in snippets])
        counts = cut(counts, crop)
        assert int(counts.sum()) == int(arrays[f"event_sum/{crop}/{threshold}"])
        assert (counts[:, ::4, ::4] == arrays[f"event_counts/{crop}/{threshold}"]).all()
        assert sha256(counts) == str(arrays[f"event_sha256/{crop}/{threshold}"])


@pytest.mark.parametrize("name", REAL)
def test_real_videos_equal_the_released_code(golden: Callable, realdata: Path, name: str) -> None:
    arrays, counter = released_arrays(golden, name), EventCounter()
    images, events = [hashlib.sha256() for _ in CROPS], [hashlib.sha256() for _ in CROPS]
    sums: list[list[int]] = [[] for _ in CROPS]
    video = Video(realdata / "videos" / name, "released")
    for snippet in video.snippets():
        counts = counter.count(snippet, 10)[None]
        for c, crop in enumerate(CROPS):
            images[c].update(np.ascontiguousarray(cut(snippet, crop)[..., ::-1]))
            events[c].update(np.ascontiguousarray(cut(counts, crop)))
            sums[c].append(int(cut(counts, crop).sum()))
    assert video.frames == int(arrays[f"{name}/frames"])
    for c, crop in enumerate(CROPS):
        assert images[c].hexdigest() == str(arrays[f"{name}/{crop}/rgb_sha256"])
        assert events[c].hexdigest() == str(arrays[f"{name}/{crop}/event_sha256"])
        assert sums[c] == arrays[f"{name}/{crop}/event_sum"].tolist()


def scaled(
    snippets: Sequence[np.ndarray], crops: Sequence[int], clamp: int, scaling: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the clamped counts and divisors of snippets at threshold 10."""
    counter, scale = EventCounter(), EventScaling(crops, clamp, scaling)
    maps = [item for snippet in snippets for item in scale.add(counter.count(snippet, 10))]
    return maps + scale.flush()


@pytest.mark.parametrize("name", [REAL[0], REAL[1], REAL[3], REAL[5]])
def test_block_divisors_equal_the_released_maxima(
    golden: Callable, realdata: Path, name: str
) -> None:
    arrays = released_arrays(golden, name)
    snippets = list(Video(realdata / "videos" / name, "released").snippets())
    divisors = np.stack([divisor for _, divisor in scaled(snippets, CROPS, 16, "block")])
    assert len(divisors) == len(snippets)
    for c, crop in enumerate(CROPS):
        largest = np.repeat(arrays[f"{name}/{crop}/block_max"], 32)[: len(divisors)]
        assert (divisors[:, c] == largest).all()


def flashing_and_still() -> tuple[np.ndarray, np.ndarray]:
    """Return a snippet whose top-left pixel flashes, which gives 15 events, and one without events."""
    still = np.zeros((16, 256, 340, 3), np.uint8)
    flashing = still.copy()
    flashing[::2, 0, 0] = 200
    return flashing, still


def test_block_scaling_divides_by_the_block_maximum() -> None:
    """34 snippets: the block of 32 has one pixel with 15 events, and the last two have none."""
    flashing, still = flashing_and_still()
    maps = scaled([still] * 31 + [flashing] + [still] * 2, (1, 4), 16, "block")
    # crop 1 (top left) contains the pixel, crop 4 (bottom right) does not; a divisor is at least 1
    assert [tuple(divisor) for _, divisor in maps] == [(15.0, 1.0)] * 32 + [(1.0, 1.0)] * 2
    assert maps[31][0][0, 0] == 15
    assert sum(int(counts.sum()) for counts, _ in maps) == 15


def test_block_scaling_clamps_first() -> None:
    flashing, _ = flashing_and_still()
    ((counts, divisors),) = scaled([flashing], (1,), 10, "block")
    assert (counts[0, 0], tuple(divisors)) == (10, (10.0,))  # 15 before the clamp


def test_clamp_scaling_divides_by_the_clamp() -> None:
    flashing, _ = flashing_and_still()
    ((counts, divisors),) = scaled([flashing], (1, 4), 10, "clamp")
    assert (counts[0, 0], tuple(divisors)) == (10, (10.0, 10.0))
    assert (counts.dtype, divisors.dtype) == (np.uint8, np.float32)
    # a clamp above 255 has no effect on the counts but is still the divisor
    ((counts, divisors),) = scaled([flashing], (1,), 300, "clamp")
    assert (counts[0, 0], tuple(divisors)) == (15, (300.0,))


def test_counts_are_not_overwritten_by_the_next() -> None:
    """They may still be in the send queue while the next snippet is counted."""
    flashing, still = flashing_and_still()
    counter, scale = EventCounter(), EventScaling((1,), 10, "clamp")
    first = counter.count(flashing, 10)
    ((clamped, _),) = scale.add(first)
    ((other, _),) = scale.add(counter.count(still, 10))
    assert (first[0, 0], clamped[0, 0], other[0, 0]) == (15, 10, 0)


def test_change_equal_to_the_threshold_is_no_event() -> None:
    """At threshold 0 a still scene has no events, not 15."""
    snippet = np.full((16, 256, 340, 3), 77, np.uint8)
    snippet[8:, 3, 4] = 78
    counts = EventCounter().count(snippet, 0)
    assert (int(counts[3, 4]), int(counts.sum())) == (1, 1)


def test_grey_is_rounded_after_each_step() -> None:
    """Three products and two sums, each rounded to float32 by NumPy, give the same grey levels."""
    frame = np.random.RandomState(3).randint(0, 256, (256, 340, 3)).astype(np.uint8)
    b, g, r = (frame[..., c].astype(np.float32) for c in range(3))
    expected = (r * np.float32(0.2989) + g * np.float32(0.5870)) + b * np.float32(0.1140)
    grey = np.empty((256, 340), np.float32)
    EventCounter().grey(frame, out=grey)
    assert (grey == expected).all()


def test_mirrored_crops_have_the_same_origin() -> None:
    """Crop 6 is crop 1 mirrored, not the top-left crop of the mirrored frame."""
    assert [crop_origin(crop) for crop in range(5, 10)] == [crop_origin(crop) for crop in range(5)]
    assert [is_mirrored(crop) for crop in range(10)] == [False] * 5 + [True] * 5
    assert crop_slices(0) == crop_slices(5) == (slice(16, 240), slice(58, 282))
    assert crop_slices(9) == (slice(32, 256), slice(116, 340))
