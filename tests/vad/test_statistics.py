"""Statistics: the bootstrap against evaluation of the drawn videos, paired tests against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vad.datasets import load_dataset
from vad.metrics import PER_VIDEO, calibration_error, evaluate, samples, video_spread, within_videos
from vad.scoring import ScoredVideo
from vad.statistics import (
    compare_paired,
    draw_counts,
    intervals,
    multiple_tests_note,
    resample,
    seeds_needed,
    sign_flip_p,
)

UCFCRIME, SHANG = map(load_dataset, ("ucfcrime", "shang"))


def video(name: str, label: str, scores: np.ndarray, frames: np.ndarray) -> ScoredVideo:
    values = np.asarray(scores, np.float32)
    half = np.full(len(values), 0.5, np.float32)
    weights = {"image": half, "event": half}
    return ScoredVideo(name, label, values, weights, {"image": half[:4]}, np.asarray(frames, np.uint8))


def make_videos(number: int, mean: int) -> list[ScoredVideo]:
    """Return videos of `mean` snippets on average, every third normal, with ties and mixed snippets."""
    rng = np.random.default_rng(5)
    videos = []
    for k in range(number):
        length = int(rng.integers(4, 2 * mean))
        frames = np.zeros(16 * length, np.uint8)
        if k % 3:
            start, end = sorted(rng.choice(16 * length, 2, replace=False))
            frames[start:end] = 1
        label = ("Normal", "Abuse", "Arson")[k % 3]
        videos.append(video(f"v{k}", label, 0.9 * rng.random(length).round(1 + k % 2), frames))
    return videos


def test_resample_equals_evaluation_of_the_drawn_videos() -> None:
    """Every metric of every resample equals `evaluate` on the list of drawn videos."""
    videos = make_videos(15, 15)
    result = resample(videos, UCFCRIME, resamples=70)  # more than one chunk
    counts = draw_counts(15, 70)
    assert set(counts.sum(1)) == {15.0}
    assert list(result) == ["AUC", "AP", "Ano-AUC", "FAR@0.5", "Brier", "ECE", *PER_VIDEO]
    for row, times in enumerate(counts.astype(int)):
        drawn = [v for v, n in zip(videos, times, strict=True) for _ in range(n)]
        spread = video_spread(*within_videos(drawn))
        expected = {**evaluate(drawn, UCFCRIME), "ECE": calibration_error(samples(drawn)), **spread}
        for name, values in result.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_drawn_videos_are_fixed_by_the_seed() -> None:
    """The first resample of three videos with seed 0 draws 2, 1, 1."""
    assert draw_counts(3, 2)[0].tolist() == [0, 2, 1]


def test_undefined_metrics_of_a_resample_are_nan() -> None:
    """A single normal video has no AUC, AP or Ano-AUC. Half of its scores equal the alarm threshold."""
    normal = video("n", "Normal", np.array([0.5, 0.4]), np.zeros(32))
    result = resample([normal], UCFCRIME, resamples=3)
    assert result["FAR@0.5"].tolist() == [0.5, 0.5, 0.5]
    undefined = {name for name, values in result.items() if np.isnan(values).all()}
    assert undefined == {"AUC", "AP", "Ano-AUC", *PER_VIDEO}
    assert set(intervals(result)) == {"FAR@0.5", "Brier", "ECE"}


def test_resampling_uses_the_ano_auc_option() -> None:
    """`released` includes ShanghaiTech's normal videos: with both videos drawn once, 2/3 instead of 1."""
    pair = [
        video("a", "car", np.array([0.9, 0.8]), np.repeat([1, 0], 16)),
        video("n", "normal", np.array([0.95, 0.1]), np.zeros(32)),
    ]
    once = int(np.flatnonzero((draw_counts(2, 20) == 1).all(1))[0])
    assert resample(pair, SHANG, resamples=20)["Ano-AUC"][once] == 1.0
    assert resample(pair, SHANG, resamples=20, ano_auc="released")["Ano-AUC"][once] == pytest.approx(2 / 3)


def test_intervals_are_percentiles_of_defined_values() -> None:
    """The percentiles of 0 … 100 are 2.5 and 97.5. NaN is ignored."""
    values = np.append(np.arange(101.0), np.nan)
    result = intervals({"AUC": values, "AP": np.full(3, np.nan)})
    assert result == {"AUC": (pytest.approx(2.5), pytest.approx(97.5))}


def test_intervals_contain_the_metric_and_narrow_with_videos() -> None:
    videos = make_videos(15, 15)
    wide = intervals(resample(videos, UCFCRIME, resamples=300))["AUC"]
    narrow = intervals(resample(videos * 4, UCFCRIME, resamples=300))["AUC"]
    assert wide[0] < evaluate(videos, UCFCRIME)["AUC"] < wide[1]
    # four times as many videos: about half the width
    assert 0.35 < (narrow[1] - narrow[0]) / (wide[1] - wide[0]) < 0.7


@pytest.mark.parametrize("n", [2, 3, 5, 10, 13])
def test_interval_and_p_equal_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.8, 0.05, n), rng.normal(0.83, 0.05, n)
    result = compare_paired(dict(enumerate(a)), dict(enumerate(b)))
    interval = stats.ttest_1samp(b - a, 0).confidence_interval()
    exact = stats.permutation_test((b - a,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert (result.low, result.high) == pytest.approx(tuple(interval))
    assert result.p == pytest.approx(exact.pvalue)
    assert result.mean == pytest.approx((b - a).mean()) and result.pairs == n


def test_sign_flip_p_equals_values_by_hand() -> None:
    """All five differences are positive: the observed pattern and its mirror image, 2 of 32."""
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == 2 / 32
    assert sign_flip_p(np.zeros(4)) == 1
    # the sum is zero up to rounding, so every pattern is at least as far from zero
    assert sign_flip_p(np.array([-0.02, -0.03, 0.02, 0.03])) == 1


def test_sampled_sign_flip_p_is_never_zero() -> None:
    """More than 13 pairs use 9,999 random patterns and the observed one."""
    assert sign_flip_p(np.ones(40)) == 1 / 10_000
    mixed = np.random.default_rng(0).normal(0.35, 1, 16)
    exact = stats.permutation_test((mixed,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(mixed) == pytest.approx(exact.pvalue, abs=0.01)
    assert sign_flip_p(mixed) == sign_flip_p(mixed)


def test_only_shared_seeds_with_defined_values_count() -> None:
    result = compare_paired({0: 0.5, 1: 0.6, 2: math.nan, 3: 0.7}, {0: 0.6, 1: 0.7, 2: 0.8, 9: 0.1})
    assert (result.pairs, result.higher, result.lower) == (2, 2, 0) and result.mean == pytest.approx(0.1)
    assert compare_paired({0: 0.5}, {1: 0.5}) is None
    alone = compare_paired({0: 0.5}, {0: 0.6})
    assert math.isnan(alone.p) and math.isnan(alone.low) and not alone.differs


def test_equal_differences_have_an_interval_of_zero_width() -> None:
    """If all seeds have the same difference, both limits of the interval equal it."""
    result = compare_paired({0: 0.5, 1: 0.5}, {0: 0.75, 1: 0.75})
    assert (result.low, result.mean, result.high) == (0.25, 0.25, 0.25)


def test_describe_states_the_verdict() -> None:
    assert "one pair allows no significance test" in compare_paired({0: 0.5}, {0: 0.6}).describe()
    five = {seed: 0.5 + 0.01 * seed for seed in range(5)}
    higher = {seed: value + 0.1 + 0.001 * seed for seed, value in five.items()}
    # 2 of 32 patterns: 0.0625 is the smallest p of five pairs
    assert compare_paired(five, higher).describe().endswith("undecided, because 5 pairs cannot reach p < 0.05")
    six, seven = ({**values, 5: values[4], 6: values[4]} for values in (five, higher))
    assert compare_paired(six, seven).describe().endswith(": higher")
    assert compare_paired(seven, six).describe().endswith(": lower")
    same = compare_paired(six, six)
    assert same.describe().startswith("+0.00 points") and not same.differs
    assert same.describe().endswith("not significantly different from zero")


def test_note_says_that_tests_are_not_corrected() -> None:
    assert multiple_tests_note(1) == []
    assert multiple_tests_note(4)[0].startswith("4 tests, not corrected for multiple comparisons")


def test_number_of_seeds_is_the_textbook_sample_size():
    """Two-sided 5 %, power 80 %, normal approximation: 8 pairs for one standard deviation, 32 for a half."""
    assert [seeds_needed(std) for std in (0.01, 0.02, 0.037)] == [8, 32, 108]
    assert seeds_needed(0.02, difference=0.02) == 8
