"""Metrics: hand-worked examples, scikit-learn on single frames, and published results of published scores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

from vad import metrics
from vad.datasets import load_dataset
from vad.files import InputError
from vad.metrics import BINS, Samples, calibration_error, evaluate, reliability, samples
from vad.scoring import ScoredVideo

UCFCRIME, XD, SHANG = map(load_dataset, ("ucfcrime", "xd", "shang"))


def scored(name: str, label: str, scores: Sequence[float], frames: np.ndarray, image: float = 0.5) -> ScoredVideo:
    """Return a video whose snippets all have ŵ_i = image."""
    values = np.asarray(scores, np.float32)
    weight = np.full(len(values), image, np.float32)
    weights = {"image": weight, "event": 1 - weight}
    by_dimension = {"image": np.full(4, image, np.float32)}
    return ScoredVideo(name, label, values, weights, by_dimension, np.asarray(frames, np.uint8))


def snippets(labels: Sequence[int]) -> np.ndarray:
    """Return the frame labels of snippets that are entirely normal or entirely anomalous."""
    return np.repeat(np.asarray(labels, np.uint8), 16)


# (snippet labels, scores, AUC, average precision, trapezoid area), each worked by hand
WORKED = [
    ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 1.0, 1.0, 1.0),  # perfect order
    # reversed order: precision 0, 0, 1/3, 1/2 at recall 0, 0, 1/2, 1
    ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 0.0, (1 / 3 + 1 / 2) / 2, (0 + 1 / 3) / 4 + (1 / 3 + 1 / 2) / 4),
    ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5, 0.5, 0.75),  # all scores equal: one point (1, 1/2), connected to (0, 1)
    ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75, 5 / 6, 19 / 24),  # scikit-learn's example
    ([1, 0, 0, 0], [0.9, 0.9, 0.1, 0.1], 5 / 6, 0.5, 0.75),  # one tie: of 3 pairs 2 won and 1 tied
]


@pytest.mark.parametrize(("labels", "scores", "area", "precision", "trapezoid"), WORKED)
def test_metrics_equal_values_worked_by_hand(
    labels: list[int], scores: list[float], area: float, precision: float, trapezoid: float
) -> None:
    result = evaluate([scored("v", "Abuse", scores, snippets(labels))], UCFCRIME)
    assert result["AUC"] == pytest.approx(area)
    assert result["AP"] == pytest.approx(precision)
    assert result["AP (trapezoid)"] == pytest.approx(trapezoid)


@pytest.fixture
def videos() -> list[ScoredVideo]:
    """15 UCF-Crime videos, every third normal. Intervals end within snippets. Scores 0 … 0.9 have ties."""
    rng = np.random.default_rng(5)
    videos = []
    for number in range(15):
        length = int(rng.integers(4, 40))
        frames = np.zeros(16 * length, np.uint8)
        label = ("Normal", "Abuse", "RoadAccidents")[number % 3]
        if label != "Normal":
            start, end = sorted(rng.choice(16 * length, 2, replace=False))
            frames[start:end] = 1
        videos.append(scored(f"v{number}", label, 0.9 * rng.random(length).round(1 + number % 2), frames))
    return videos


def by_frame(videos: Sequence[ScoredVideo]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores of every frame, as in the definition of the metrics."""
    scores = [np.repeat(v.scores.astype(np.float64), 16) for v in videos]
    return np.concatenate([v.frame_labels for v in videos]), np.concatenate(scores)


def test_metrics_equal_scikit_learn_on_every_frame(videos: list[ScoredVideo]) -> None:
    result = evaluate(videos, UCFCRIME)
    labels, scores = by_frame(videos)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert result["AUC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-15)
    assert result["AP"] == pytest.approx(average_precision_score(labels, scores), abs=1e-15)
    assert result["AP (trapezoid)"] == pytest.approx(auc(recall, precision), abs=1e-15)
    assert result["Brier"] == pytest.approx(brier_score_loss(labels, scores), abs=1e-12)
    abnormal = by_frame([v for v in videos if v.label != "Normal"])
    assert result["Ano-AUC"] == pytest.approx(roc_auc_score(*abnormal), abs=1e-15)
    normal = by_frame([v for v in videos if v.label == "Normal"])[1]
    assert result["FAR@0.5"] == pytest.approx(np.mean(normal >= 0.5), abs=1e-15)
    false_positive, true_positive = metrics.roc(samples(videos))
    assert auc(false_positive, true_positive) == pytest.approx(result["AUC"], abs=1e-15)
    # the example must contain snippets with both labels
    assert np.count_nonzero(labels.reshape(-1, 16).sum(1) % 16) > 5


def test_snippets_count_frames_not_majority_labels() -> None:
    """10 anomalous frames do not count as 16: of 10 · 22 pairs, 10 · 16 are won and 10 · 6 tied."""
    data = samples([scored("v", "Abuse", [0.9, 0.1], np.repeat([1, 0], [10, 22]))])
    assert metrics.roc_auc(data) == pytest.approx((160 + 30) / 220)


def test_per_class_uses_the_videos_of_the_class(videos: list[ScoredVideo]) -> None:
    result = metrics.per_class(videos, UCFCRIME)
    assert list(result) == ["Abuse", "RoadAccident"]  # names of the paper in order, only classes with videos
    for label, name in (("Abuse", "Abuse"), ("RoadAccidents", "RoadAccident")):
        expected = roc_auc_score(*by_frame([v for v in videos if v.label == label]))
        assert result[name] == pytest.approx(expected, abs=1e-15)


def test_xd_reports_ap_and_counts_every_label() -> None:
    two_labels = scored("a_label_B1-G-0", "B1-G-0", [0.9, 0.1], snippets([1, 0]))
    fight = scored("b_label_B1-0-0", "B1-0-0", [0.1, 0.9], snippets([1, 0]))
    result = metrics.per_class([two_labels, fight], XD)
    # Fighting ranks 0.9⁺ 0.9⁻ before 0.1⁺ 0.1⁻: precision 1/2 at two_labels. Explosion has only the first video
    assert result == {"Fighting": pytest.approx(0.5), "Explosion": pytest.approx(1.0)}


def test_released_ano_auc_includes_normal_shanghaitech_videos() -> None:
    """`normal` is not `Normal`: the released code does not exclude ShanghaiTech's normal videos."""
    videos = [
        scored("a", "car", [0.9, 0.8], snippets([1, 0])),
        scored("n", "normal", [0.95, 0.1], snippets([0, 0])),
    ]
    assert evaluate(videos, SHANG)["Ano-AUC"] == 1.0
    assert evaluate(videos, SHANG, ano_auc="released")["Ano-AUC"] == pytest.approx(2 / 3)
    named = [replace(videos[0], label="Abuse"), replace(videos[1], label="Normal")]
    assert evaluate(named, UCFCRIME, ano_auc="released")["Ano-AUC"] == 1.0  # `Normal` is excluded here too


def test_brier_and_false_alarms_equal_values_by_hand() -> None:
    """Errors are 0.5 and 0.75. A score equal to the threshold is an alarm: 16 of 16 normal frames."""
    result = evaluate([scored("n", "Normal", [0.5, 0.25], snippets([0, 1]))], UCFCRIME)
    assert result["Brier"] == pytest.approx((0.25 + 0.5625) / 2)
    assert result["FAR@0.5"] == 1.0


def test_reliability_equals_scikit_learn_on_every_frame(videos: list[ScoredVideo]) -> None:
    labels, scores = by_frame(videos)
    result = reliability(samples(videos)).to_records()
    observed, predicted = calibration_curve(labels, scores, n_bins=BINS, strategy="uniform")
    filled = result.frames > 0
    assert 0 < np.count_nonzero(~filled) < BINS  # empty bins occur; scikit-learn omits them
    assert result.observed[filled] == pytest.approx(observed, abs=1e-12)
    assert result.score[filled] == pytest.approx(predicted, abs=1e-12)
    bins = np.digitize(scores, np.arange(1, BINS) / BINS, right=True)
    assert np.array_equal(result.frames, np.bincount(bins, minlength=BINS))
    expected = np.sum(result.frames[filled] / len(labels) * np.abs(observed - predicted))
    assert calibration_error(samples(videos)) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_equals_value_by_hand() -> None:
    """Half of the frames with score 0.9 are anomalous: gap 0.4. None with 0.1 is: gap 0.1. Mean: 0.25."""
    data = samples([scored("a", "Abuse", [0.9, 0.1], np.repeat([1, 0, 0], [8, 8, 16]))])
    assert calibration_error(data) == pytest.approx(0.25, abs=1e-6)
    assert calibration_error(samples([scored("a", "Abuse", [1.0, 0.0], snippets([1, 0]))])) == 0.0
    assert math.isnan(calibration_error(samples([])))


def test_score_on_a_bin_edge_belongs_to_the_lower_bin() -> None:
    """(k/15, (k+1)/15]: 0.2 = 3/15 is in bin 2, 1 in the last, 0 in the first."""
    data = Samples(np.array([0.2, 1.0, 0.0]), np.array([16, 16, 16]), np.array([0, 0, 0]))
    assert np.flatnonzero(reliability(data).frames).tolist() == [0, 2, 14]


def test_kl_equals_value_by_hand_and_is_directed() -> None:
    clean = [scored("v", "Abuse", [0.5, 0.9], snippets([0, 1]))]
    masked = [scored("v", "Abuse", [0.25, 0.9], snippets([0, 1]))]
    expected = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert metrics.binary_kl(clean, masked) == pytest.approx(expected)
    assert metrics.binary_kl(clean, clean) == 0.0
    assert metrics.binary_kl(masked, clean) != pytest.approx(expected)


def test_kl_of_saturated_scores_is_finite() -> None:
    """Scores of 1 and 0 are clipped to 1 − 1e-7 and 1e-7."""
    one, zero = scored("a", "Abuse", [1.0], snippets([1])), scored("a", "Abuse", [0.0], snippets([1]))
    assert metrics.binary_kl([one], [zero]) == pytest.approx(math.log(1e7), rel=1e-6)


def test_modality_weights_are_weighted_by_frames() -> None:
    """All 4 anomalous frames are in the first snippet, so its weight is the mean over abnormal frames."""
    video = scored("v", "Abuse", [0.1, 0.2], np.repeat([1, 0], [4, 28]))
    video.weights["image"][:] = [0.2, 0.6]
    video.weights["event"][:] = [0.8, 0.4]
    result = metrics.modality_weights([video])
    assert list(result)[:4] == ["w_image", "w_image_abnormal", "w_image_normal", "w_event"]
    assert result["w_image"] == pytest.approx(0.4)
    assert result["w_image_abnormal"] == pytest.approx(0.2)
    assert result["w_image_normal"] == pytest.approx((12 * 0.2 + 16 * 0.6) / 28)
    assert result["w_event_abnormal"] == pytest.approx(0.8)


@pytest.mark.filterwarnings("error")  # scikit-learn must not warn
def test_undefined_metrics_are_nan_with_a_reason() -> None:
    result = evaluate([scored("n", "Normal", [0.1, 0.2], snippets([0, 0]))], UCFCRIME)
    missing = {name for name, value in result.items() if math.isnan(value)} - {*metrics.VIDEO_MEANS.values()}
    assert missing == {"AUC", "AP", "AP (trapezoid)", "Ano-AUC", "w_image_abnormal", "w_event_abnormal"}
    assert {name for name in missing if not name.startswith("w_")} <= set(metrics.UNDEFINED)
    abnormal = [scored("a", "Abuse", [0.1], snippets([1]))]
    assert math.isnan(evaluate(abnormal, UCFCRIME)["FAR@0.5"])
    assert math.isnan(metrics.per_class(abnormal, UCFCRIME)["Abuse"])
    *spread, number = metrics.video_spread(*metrics.within_videos(abnormal)).values()
    assert all(map(math.isnan, spread)) and number == 0


def test_per_video_auc_is_computed_within_each_video(videos: list[ScoredVideo]) -> None:
    """Only videos with normal and anomalous frames count."""
    result = metrics.video_aucs(videos)
    mixed = [v for v in videos if 0 < v.frame_labels.sum() < len(v.frame_labels)]
    assert list(result) == [v.name for v in mixed] and 5 < len(result) < 15
    for v in mixed:
        assert result[v.name] == pytest.approx(roc_auc_score(*by_frame([v])), abs=1e-12)
    values = list(result.values())
    expected = [*np.percentile(values, [50, 25, 75]), np.mean(np.less(values, 0.5)), len(mixed)]
    _, *spread = metrics.video_spread(*metrics.within_videos(videos)).values()
    assert spread == pytest.approx(expected)


def test_auc_within_videos_is_the_share_of_pairs_won(videos: list[ScoredVideo]) -> None:
    """The pairs of an anomalous and a normal frame of one video are compared one by one; a tie is half a win."""
    won = pairs = 0
    for v in videos:
        labels, scores = by_frame([v])
        differences = scores[labels == 1][:, None] - scores[labels == 0]
        won += (differences > 0).sum() + (differences == 0).sum() / 2
        pairs += differences.size
    result = metrics.video_spread(*metrics.within_videos(videos))
    assert result["AUC within videos"] == pytest.approx(won / pairs, abs=1e-12)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "test list is empty"),
        ([scored("short", "Abuse", [0.1, 0.2], snippets([1]))], "short: 16 frame labels for 2 snippets"),
        ([scored("broken", "Abuse", [float("nan")], snippets([1]))], "broken: a score is not a finite number"),
    ],
)
def test_invalid_videos_are_refused(videos: list[ScoredVideo], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(videos, UCFCRIME)


def published(folder: Path, ground_truth: str, scores: str, rows: str) -> list[ScoredVideo]:
    """Split a published score array and a published ground truth into videos."""
    frames = np.load(folder / "gt" / f"{ground_truth}.npz", allow_pickle=False)["gt"]
    values = np.load(folder / "scores" / f"{scores}.npz", allow_pickle=False)["scores"]
    videos, start = [], 0
    for row in json.loads((folder / "gt" / f"{rows}.json").read_text()):
        code = re.search(r"_label_([A-Za-z0-9-]+)", row["video"])
        label = code[1] if code else re.match(r"[A-Za-z]+", row["video"])[0].removesuffix("_Videos")
        end = start + row["chunks"]
        videos.append(scored(row["video"], label, values[start:end], frames[16 * start : 16 * end]))
        start = end
    assert start == len(values)
    return videos


def test_published_ucf_crime_scores_give_published_results(realdata: Path) -> None:
    """PEL4VAD's authors report 86.76 (AUC), 33.99 (trapezoidal AP) and 0.47 (false alarms)."""
    videos = published(realdata, "ucf_gt_290.published", "ucf_pel4vad_scores", "ucf_test_290")
    result = evaluate(videos, UCFCRIME)
    assert result["AUC"] == pytest.approx(0.867580, abs=5e-7)
    assert result["AP"] == pytest.approx(0.339173, abs=5e-7)
    assert result["AP (trapezoid)"] == pytest.approx(0.339992, abs=5e-7)
    assert result["FAR@0.5"] == pytest.approx(0.00474, abs=5e-6)


def test_published_auc_falls_within_videos(realdata: Path) -> None:
    """PEL4VAD's 86.76 is 70.94 over the pairs of frames of one video; the median of 140 videos is 80.65."""
    videos = published(realdata, "ucf_gt_290.published", "ucf_pel4vad_scores", "ucf_test_290")
    aucs, pairs = metrics.within_videos(videos)
    result = metrics.video_spread(aucs, pairs)
    assert result["AUC within videos"] == pytest.approx(0.7094, abs=5e-5)
    assert result["per-video AUC, median"] == pytest.approx(0.8065, abs=5e-5)
    assert (result[metrics.MIXED], (aucs < 0.5).sum()) == (140, 18)


def test_published_xd_violence_scores_give_known_results(realdata: Path) -> None:
    videos = published(realdata, "xd_gt_800.published", "xd_run_A_scores", "xd_test_800")
    result = evaluate(videos, XD)
    assert result["AUC"] == pytest.approx(0.4132456730, abs=5e-11)
    assert result["AP (trapezoid)"] == pytest.approx(0.1952652693, abs=5e-11)


def test_mean_of_each_video_replaces_its_scores(videos: list[ScoredVideo]) -> None:
    """Plain frame-level code on repeated means."""
    result = evaluate(videos, UCFCRIME)
    labels = np.concatenate([video.frame_labels for video in videos])
    means = np.concatenate([np.full(len(v.frame_labels), v.scores.mean()) for v in videos])
    assert result[metrics.VIDEO_MEANS["AUC"]] == pytest.approx(roc_auc_score(labels, means), abs=1e-12)
    assert result[metrics.VIDEO_MEANS["AP"]] == pytest.approx(average_precision_score(labels, means), abs=1e-12)
    kept = np.concatenate([np.full(len(v.frame_labels), UCFCRIME.is_anomalous(v.label)) for v in videos])
    expected = roc_auc_score(labels[kept], means[kept])
    assert result[metrics.VIDEO_MEANS["Ano-AUC"]] == pytest.approx(expected, abs=1e-12)


def test_spread_of_weights_is_over_snippets_and_over_dimensions() -> None:
    one, two = scored("a", "Abuse", [0.1] * 3, snippets([0, 1, 0])), scored("b", "Abuse", [0.2], snippets([1]))
    one.weights["image"][:], two.weights["image"][:] = [0.4, 0.5, 0.6], [0.9]
    one = replace(one, by_dimension={"image": np.array([0.2, 0.8])})
    two = replace(two, by_dimension={"image": np.array([1.0, 0.8])})
    spread = metrics.weight_spread([one, two])
    assert spread[metrics.SPREAD_SNIPPETS] == pytest.approx(np.std([0.4, 0.5, 0.6, 0.9]))
    assert spread[metrics.SPREAD_DIMENSIONS] == pytest.approx(np.std([0.4, 0.8]))  # three snippets and one
