"""Masking experiment, on a scorer that is simple enough to know the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad.datasets import load_dataset
from vad.files import InputError
from vad.report import masking
from vad.scoring import ScoredVideo, Transform

UCFCRIME, XD = map(load_dataset, ("ucfcrime", "xd"))
S, D = 24, 40
WEIGHTS = [f"w_{stream}{part}" for stream in ("image", "event") for part in ("", "_abnormal", "_normal")]


def scorer(labels: tuple[str, str] = ("Normal", "Abuse")) -> Callable[[Transform | None], list[ScoredVideo]]:
    """Return a scorer of six videos: ŵ_i is image / (image + event), and the score depends on the image only."""
    rng = np.random.default_rng(0)
    data = {
        f"v{number}": {m: (rng.random((S + number, D)) + 0.5).astype(np.float32) for m in ("image", "event")}
        for number in range(6)
    }

    def score(transform: Transform | None) -> list[ScoredVideo]:
        videos = []
        for number, (name, both) in enumerate(data.items()):
            image, event = (both[m] if transform is None else transform(m, both[m], name) for m in ("image", "event"))
            weight = (image + 1e-3) / (image + event + 2e-3)
            frames = np.zeros(16 * len(image), np.uint8)
            frames[20:100] = number % 2
            scores, mean = np.clip(image.mean(1) - 0.4, 0, 1), weight.mean(1)
            weights = {"image": mean, "event": 1 - mean}
            videos.append(ScoredVideo(name, labels[number % 2], scores, weights, {"image": weight.mean(0)}, frames))
        return videos

    return score


@pytest.fixture(scope="module")
def response() -> masking.MaskingResponse:
    return masking.run_masking(scorer(), UCFCRIME, seed=1)


@given(ratio=st.floats(0, 1), length=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99))
def test_mask_covers_exactly_the_masking_ratio(ratio: float, length: int, width: int, seed: int) -> None:
    ones = np.ones((length, width), np.float32)
    feature = masking.mask(ones, ratio, "feature", np.random.default_rng(seed), 8)
    assert set(np.unique(feature)) <= {0, 1}
    assert (feature == feature[0]).all()  # the same dimensions in every snippet
    assert (feature[0] == 0).sum() == round(ratio * width)
    time = masking.mask(ones, ratio, "time", np.random.default_rng(seed), 8)
    assert (time == time[:, :1]).all()
    assert (time[:, 0] < 1).sum() == round(ratio * length)
    assert time.min() == pytest.approx(0.01 if round(ratio * length) else 1)
    assert (ones == 1).all()  # the input is unchanged
    assert time.dtype == feature.dtype == np.float32


def test_window_axis_masks_every_padded_window() -> None:
    """With T = 8 and ratio 0.3, ⌊2.4⌋ = 2 steps of each window are masked, some of them on padding."""
    ones = np.ones((18, 3), np.float32)
    hits = np.zeros(18)
    for seed in range(400):
        masked = masking.mask(ones, 0.3, "window", np.random.default_rng(seed), 8)
        assert (masked == masked[:, :1]).all() and set(np.unique(masked)) <= {np.float32(0.01), 1}
        steps = masked[:, 0] < 1
        assert (steps[:8].sum(), steps[8:16].sum()) == (2, 2)
        hits += steps
    # each step of the padded window is masked as often as any other: 2/8 of 400 times
    assert hits[16:].mean() == pytest.approx(100, abs=20)
    assert hits[:16].min() > 60


def test_time_and_window_axes_differ_by_the_padding() -> None:
    """Of 10 steps in a window of 256 at ratio 0.5, "time" masks 5 and "window" a varying number."""
    ones, counts = np.ones((10, 2), np.float32), set()
    for seed in range(20):
        time, window = (
            (masking.mask(ones, 0.5, axis, np.random.default_rng(seed), 256)[:, 0] < 1).sum()
            for axis in ("time", "window")
        )
        assert time == 5
        counts.add(int(window))
    assert len(counts) > 2


def test_mask_depends_only_on_seed_stream_level_and_name() -> None:
    embedding = np.ones((5, 64), np.float32)

    def masked(stream: str, seed: int, name: str) -> np.ndarray:
        return masking.mask_stream(stream, 0.3, "feature", seed, 256)(stream, embedding, name)

    transform = masking.mask_stream("image", 0.3, "feature", 7, 256)
    assert transform("event", embedding, "a") is embedding
    first = transform("image", embedding, "a")
    transform("image", embedding, "b")
    assert np.array_equal(transform("image", embedding, "a"), first)  # independent of calls in between
    assert np.array_equal(masked("image", 7, "a"), first)
    others = [masked("image", 7, "b"), masked("image", 8, "a"), masked("event", 7, "a")]
    assert not any(np.array_equal(first, other) for other in others)


def test_mask_is_the_same_in_every_process() -> None:
    """Python's hash() differs between processes; the mask must not."""
    transform = masking.mask_stream("image", 0.1, "feature", 0, 256)
    masked = transform("image", np.ones((1, 99)), "Abuse028")
    assert np.flatnonzero(masked[0] == 0).tolist() == [13, 32, 37, 51, 57, 61, 63, 67, 73, 93]


@pytest.mark.parametrize(("dataset", "labels"), [(UCFCRIME, ("Normal", "Abuse")), (XD, ("A", "B1-0-0"))])
def test_response_has_the_rows_and_columns_of_the_paper(dataset: object, labels: tuple[str, str]) -> None:
    """Tables 6 (AUC) and 7 (AP) have an unmasked row, then event and image masked at five levels."""
    table = masking.run_masking(scorer(labels), dataset).table
    assert list(table.columns) == ["masked", "level", dataset.metric, "brier", "kl", *WEIGHTS]
    levels = [0.05, 0.1, 0.2, 0.3, 0.5]
    expected = [["CLEAN", 0.0], *([name, level] for name in ("EV_NOISE", "IMG_NOISE") for level in levels)]
    assert table[["masked", "level"]].values.tolist() == expected


@pytest.mark.parametrize("axis", masking.AXES)
def test_masking_ratio_zero_changes_nothing(axis: str) -> None:
    response = masking.run_masking(scorer(), UCFCRIME, axis=axis, levels=(0.0,))
    numbers = response.table.drop(columns=["masked", "level"]).to_numpy(float)
    assert np.array_equal(numbers[1:], np.tile(numbers[0], (2, 1)))
    assert all((change == 0).all() for change in response.weight_change.values())


def test_masking_a_stream_lowers_its_weight(response: masking.MaskingResponse) -> None:
    """The scorer trusts large embeddings: masking the image lowers ŵ_i, masking the event raises it."""
    table = response.table
    clean = table.w_image[0]
    image, event = (table[table.masked == name] for name in ("IMG_NOISE", "EV_NOISE"))
    assert (np.diff([clean, *image.w_image]) < 0).all()
    assert (np.diff([clean, *event.w_image]) > 0).all()
    assert np.allclose(table.w_image + table.w_event, 1)
    assert (event.kl == 0).all()  # the score depends on the image only
    assert (np.diff([0, *image.kl]) > 0).all()


def test_weight_change_averages_to_the_table(response: masking.MaskingResponse) -> None:
    table = response.table
    assert list(response.weight_change) == [(m, level) for m in ("event", "image") for level in masking.LEVELS]
    for (stream, level), change in response.weight_change.items():
        assert change.shape == (D,)
        row = table[(table.masked == masking.MASKED[stream]) & (table.level == level)].iloc[0]
        assert change.mean() == pytest.approx(row.w_image - table.w_image[0], abs=1e-6)


def test_masking_uses_the_window_of_the_data_set() -> None:
    """At ratio 0.2 a window of 4 steps has ⌊0.8⌋ = 0 masked steps, a window of 256 has some."""
    short = replace(UCFCRIME, window=4)
    response = masking.run_masking(scorer(), short, axis="window", levels=(0.2,))
    assert (response.table.kl == 0).all()
    assert masking.run_masking(scorer(), UCFCRIME, axis="window", levels=(0.2,)).table.kl.iloc[-1] > 0


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"levels": (0.1, 5)}, "--levels: 5 is no masking ratio"),
    ({"levels": (0.1, 0.3, 0.1)}, "--levels: 0.1 is repeated"),
])  # fmt: skip
def test_invalid_levels_are_refused_before_scoring(arguments: dict[str, object], sentence: str) -> None:
    def never(transform: Transform | None) -> list[ScoredVideo]:
        raise AssertionError("scored before the arguments were checked")

    with pytest.raises(InputError, match=sentence):
        masking.run_masking(never, UCFCRIME, **arguments)
