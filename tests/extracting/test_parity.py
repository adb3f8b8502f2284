"""Crops and event maps against the arrays of the authors' released code, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from extracting.crops import crop_views, parse_crops
from extracting.events import count_events, grey
from extracting.frames import Video, group_snippets
from extracting.stream import Settings, snippets_of
from tests.extracting.helpers import golden_frames
from vad.errors import InputError

REAL = [
    "mmaction2_test.avi",
    "mmaction2_part_0.mp4",
    "RoadAccidents017_x264.mp4",
    "Arson009_x264.mp4",
    "intel_car-detection.mp4",
    "torchcodec_h264_10bits.mp4",
]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def snippets(golden: Callable) -> list[np.ndarray]:
    frames = golden_frames()
    assert sha256(frames) == str(golden("extraction")["frames_sha256"])
    return list(group_snippets(iter(frames), "whole"))


@pytest.mark.parametrize("crop", range(10))
def test_crops_and_events_equal_the_release(golden: Callable, snippets: list[np.ndarray], crop: int) -> None:
    arrays = golden("extraction")
    rgb = np.concatenate([crop_views(snippet, [crop])[0][..., ::-1] for snippet in snippets])
    assert (rgb[7, ::37, ::41] == arrays[f"crop_sample/{crop}"]).all()
    assert sha256(rgb) == str(arrays[f"crop_sha256/{crop}"])
    for threshold in (10, 25):
        maps = [count_events(snippet, threshold) for snippet in snippets]
        counts = np.stack([crop_views(count[None], [crop])[0][0] for count in maps])
        assert int(counts.sum()) == int(arrays[f"event_sum/{crop}/{threshold}"])
        assert (counts[:, ::4, ::4] == arrays[f"event_counts/{crop}/{threshold}"]).all()
        assert sha256(counts) == str(arrays[f"event_sha256/{crop}/{threshold}"])


@pytest.mark.parametrize("name", REAL)
def test_real_videos_equal_the_release(golden: Callable, realdata: Path, name: str) -> None:
    if "10bits" in name and int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV before 5 converts 10-bit video to other pixels")
    arrays, crops = golden("real_extraction"), (0, 3, 5, 9)
    video = Video(realdata / "videos" / name, "released")
    images, counts = [hashlib.sha256() for _ in crops], [hashlib.sha256() for _ in crops]
    sums: list[list[int]] = [[] for _ in crops]
    for snippet in video.snippets():
        maps = crop_views(count_events(snippet, 10)[None], crops)
        for c, view in enumerate(crop_views(snippet, crops)):
            images[c].update(np.ascontiguousarray(view[..., ::-1]))
            counts[c].update(np.ascontiguousarray(maps[c]))
            sums[c].append(int(maps[c].sum()))
    assert video.frames == int(arrays[f"{name}/frames"])
    for c, crop in enumerate(crops):
        assert images[c].hexdigest() == str(arrays[f"{name}/{crop}/rgb_sha256"])
        assert counts[c].hexdigest() == str(arrays[f"{name}/{crop}/event_sha256"])
        assert sums[c] == arrays[f"{name}/{crop}/event_sum"].tolist()


def event_maps(
    snippets: Iterator[np.ndarray], crops: Sequence[int], clamp: int, scaling: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the encoder gets of these snippets at threshold 10: clamped counts (256, 340), and divisors by crop."""
    settings = Settings(event_threshold=10, event_clamp=clamp, event_scaling=scaling)
    video = SimpleNamespace(snippets=lambda: snippets)
    return [(item.pixels[0], item.divisors) for item in snippets_of(video, ("event",), settings, crops)]


@pytest.mark.parametrize("name", REAL[:4])
def test_block_scaling_divides_by_the_releases_block_maximum(golden: Callable, realdata: Path, name: str) -> None:
    arrays, crops = golden("real_extraction"), (0, 3, 5, 9)
    snippets = Video(realdata / "videos" / name, "released").snippets()
    divisors = np.stack([divisor for _, divisor in event_maps(snippets, crops, 16, "block")])
    for c, crop in enumerate(crops):
        largest = np.repeat(arrays[f"{name}/{crop}/block_max"], 32)[: len(divisors)]
        assert (divisors[:, c] == largest).all()


def test_block_scaling_by_hand() -> None:
    """34 snippets: the block of 32 has one pixel with 15 events in the top-left corner, the last two have none."""
    still = np.zeros((16, 256, 340, 3), np.uint8)
    flashing = still.copy()
    flashing[::2, 0, 0] = 200  # on, off, on, …: each of the 15 differences is an event
    stream = iter([still] * 31 + [flashing] + [still] * 2)
    maps = event_maps(stream, (1, 4), 16, "block")
    # crop 1 holds the pixel, crop 4 (bottom right) does not; without events the divisor is 1, so the map stays zero
    assert [tuple(divisor) for _, divisor in maps] == [(15.0, 1.0)] * 32 + [(1.0, 1.0)] * 2
    assert maps[31][0][0, 0] == 15
    assert sum(int(count.sum()) for count, _ in maps) == 15
    clamped, divisor = event_maps(iter([flashing]), (1, 4), 10, "clamp")[0]
    assert (clamped[0, 0], tuple(divisor)) == (10, (10.0, 10.0))


def test_threshold_is_strict() -> None:
    """A difference equal to the threshold is no event: at threshold 0 a still scene has none (not 15 a pixel)."""
    snippet = np.full((16, 256, 340, 3), 77, np.uint8)
    snippet[8:, 3, 4] = 78
    counts = count_events(snippet, 0)
    assert (int(counts[3, 4]), int(counts.sum())) == (1, 1)


def test_grey_is_rounded_after_each_step() -> None:
    """Against the same three products and two sums, each rounded to float32 by NumPy's scalars."""
    frame = np.random.RandomState(3).randint(0, 256, (256, 340, 3)).astype(np.uint8)
    b, g, r = (frame[..., c].astype(np.float32) for c in range(3))
    expected = (r * np.float32(0.2989) + g * np.float32(0.5870)) + b * np.float32(0.1140)
    assert (grey(frame) == expected).all()


def test_mirrored_crops_show_the_same_place() -> None:
    frame = np.random.RandomState(0).randint(0, 256, (2, 256, 340, 3)).astype(np.uint8)
    views = crop_views(frame, range(10))
    for crop in range(5):
        assert (views[crop + 5] == views[crop][:, :, ::-1]).all()
    assert (views[0] == frame[:, 16:240, 58:282]).all()


def test_crop_numbers() -> None:
    assert parse_crops("0..9") == tuple(range(10))
    assert parse_crops("5") == (5,)
    assert parse_crops("5, 0,5") == (0, 5)
    for wrong in ("10", "-1", "", "a", "0..12", "0..99999999999", "9..0", "1.5", "0,,1"):
        with pytest.raises(InputError, match="--crops"):
            parse_crops(wrong)
