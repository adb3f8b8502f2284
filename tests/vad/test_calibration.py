"""Calibration, per-video AUC and bootstrap: scikit-learn or the plain definition on every frame as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from vad.bootstrap import draw_counts, intervals, resample
from vad.calibration import BINS, calibration_error, reliability
from vad.catalog import SHANG, UCFCRIME
from vad.metrics import Samples, evaluate, samples, video_aucs, video_spread
from vad.scoring import ScoredVideo


def video(name: str, label: str, scores: np.ndarray, frames: np.ndarray) -> ScoredVideo:
    values = np.asarray(scores, np.float32)
    half = np.full(len(values), 0.5, np.float32)
    return ScoredVideo(name, label, values, half, half, half[:4], np.asarray(frames, np.uint8))


@pytest.fixture
def videos() -> list[ScoredVideo]:
    """Fifteen videos, every third normal; scores from 0 to 0.9 with ties, intervals that cut through snippets."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(15):
        length = int(rng.integers(4, 30))
        frames = np.zeros(16 * length, np.uint8)
        if number % 3:
            start, end = sorted(rng.choice(16 * length, 2, replace=False))
            frames[start:end] = 1
        label = ("Normal", "Abuse", "Arson")[number % 3]
        made.append(video(f"v{number}", label, 0.9 * rng.random(length).round(1 + number % 2), frames))
    return made


def by_frame(videos: list[ScoredVideo]) -> tuple[np.ndarray, np.ndarray]:
    scores = [np.repeat(v.scores.astype(np.float64), 16) for v in videos]
    return np.concatenate([v.frame_labels for v in videos]), np.concatenate(scores)


def test_reliability_is_scikit_learns_on_every_frame(videos: list[ScoredVideo]) -> None:
    labels, scores = by_frame(videos)
    found = reliability(samples(videos))
    observed, predicted = calibration_curve(labels, scores, n_bins=BINS, strategy="uniform")
    filled = found.frames > 0
    assert 0 < np.count_nonzero(~filled) < BINS  # the example has empty bins, which scikit-learn leaves out
    assert found.observed[filled] == pytest.approx(observed, abs=1e-12)
    assert found.score[filled] == pytest.approx(predicted, abs=1e-12)
    assert found.frames.sum() == len(labels)
    counts = np.array([np.count_nonzero(np.digitize(scores, found.edges[1:-1], right=True) == b) for b in range(BINS)])
    assert np.array_equal(found.frames, counts)
    expected = np.sum(counts[filled] / len(labels) * np.abs(observed - predicted))
    assert found.error == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    """Scores 0.9 on frames of which half are anomalous: 0.4 off. 0.1 where none is: 0.1 off. Equal frames: 0.25."""
    data = samples([video("a", "Abuse", np.array([0.9, 0.1]), np.repeat([1, 0, 0], [8, 8, 16]))])
    assert calibration_error(data) == pytest.approx(0.25, abs=1e-6)
    sure = samples([video("a", "Abuse", np.array([1.0, 0.0]), np.repeat([1, 0], 16))])
    assert calibration_error(sure) == 0.0
    empty = Samples(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    assert np.isnan(calibration_error(empty))


def test_a_score_on_an_edge_belongs_to_the_bin_below() -> None:
    """(k/15, (k+1)/15]: 0.2 = 3/15 is in bin 2, 1 in the last, 0 in the first."""
    data = Samples(np.array([0.2, 1.0, 0.0]), np.array([16, 16, 16]), np.array([0, 0, 0]))
    assert np.flatnonzero(reliability(data).frames).tolist() == [0, 2, 14]


def test_per_video_auc_is_inside_each_video_that_has_both_kinds(videos: list[ScoredVideo]) -> None:
    found = video_aucs(videos)
    both = [v for v in videos if 0 < v.frame_labels.sum() < len(v.frame_labels)]
    assert list(found) == [v.name for v in both] and 5 < len(found) < 15
    for v in both:
        assert found[v.name] == pytest.approx(roc_auc_score(*by_frame([v])), abs=1e-12)
    spread = video_spread(videos)
    values = sorted(found.values())
    assert spread["per-video AUC, median"] == pytest.approx(np.median(values))
    assert spread["per-video AUC, lower quartile"] == pytest.approx(np.percentile(values, 25))
    assert spread["per-video AUC, upper quartile"] == pytest.approx(np.percentile(values, 75))
    assert spread["videos with AUC below 0.5"] == sum(value < 0.5 for value in values) / len(values)
    assert all(map(np.isnan, video_spread(videos[:1]).values()))  # a normal video alone


def test_a_resample_is_the_evaluation_of_the_videos_drawn(videos: list[ScoredVideo]) -> None:
    """Every number of every resample, against `evaluate` on a list in which each video stands as often as drawn."""
    found = resample(videos, UCFCRIME, resamples=25, seed=3)
    counts = draw_counts(len(videos), 25, 3)
    assert set(counts.sum(1)) == {15.0}
    for row, times in enumerate(counts.astype(int)):
        drawn = [v for v, n in zip(videos, times, strict=True) for _ in range(n)]
        expected = {**evaluate(drawn, UCFCRIME), "ECE": calibration_error(samples(drawn))}
        for name, values in found.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_resampling_follows_the_kind_of_ano_auc() -> None:
    """The released kind keeps ShanghaiTech's normal videos: with both videos drawn once, 2/3 instead of 1."""
    pair = [
        video("a", "car", np.array([0.9, 0.8]), np.repeat([1, 0], 16)),
        video("n", "normal", np.array([0.95, 0.1]), np.zeros(32)),
    ]
    counts = draw_counts(2, 20, 0)
    once = int(np.flatnonzero((counts == 1).all(1))[0])
    assert resample(pair, SHANG, resamples=20)["Ano-AUC"][once] == 1.0
    assert resample(pair, SHANG, resamples=20, ano_auc="released")["Ano-AUC"][once] == pytest.approx(2 / 3)


def test_intervals_are_percentiles_of_what_is_defined() -> None:
    """0 … 100 without its undefined value: 2.5 and 97.5."""
    values = np.append(np.arange(101.0), np.nan)
    found = intervals({"AUC": values, "AP": np.full(3, np.nan)})
    assert found == {"AUC": (pytest.approx(2.5), pytest.approx(97.5))}


def test_intervals_hold_the_number_and_grow_with_fewer_videos(videos: list[ScoredVideo]) -> None:
    all_videos = intervals(resample(videos, UCFCRIME, resamples=300))["AUC"]
    many = [v for v in videos for _ in range(4)]
    narrow = intervals(resample(many, UCFCRIME, resamples=300))["AUC"]
    value = evaluate(videos, UCFCRIME)["AUC"]
    assert all_videos[0] < value < all_videos[1]
    # four times as many videos: half the width, give or take
    assert 0.35 < (narrow[1] - narrow[0]) / (all_videos[1] - all_videos[0]) < 0.7
