"""Metrics: examples by hand, scikit-learn on every single frame, and the published numbers of published scores."""

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
    """A video whose snippets all have ŵ_i = image."""
    values = np.asarray(scores, np.float32)
    weight = np.full(len(values), image, np.float32)
    weights = {"image": weight, "event": 1 - weight}
    return ScoredVideo(name, label, values, weights, np.full(4, image, np.float32), np.asarray(frames, np.uint8))


def snippets(labels: Sequence[int]) -> np.ndarray:
    """Frame labels of whole snippets of one kind."""
    return np.repeat(np.asarray(labels, np.uint8), 16)


# (snippet labels, scores, AUC, average precision, trapezoid area), each worked by hand
WORKED = [
    ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 1.0, 1.0, 1.0),  # perfect order
    # upside down: precision 0, 0, 1/3, 1/2 at recall 0, 0, 1/2, 1
    ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 0.0, (1 / 3 + 1 / 2) / 2, (0 + 1 / 3) / 4 + (1 / 3 + 1 / 2) / 4),
    ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5, 0.5, 0.75),  # all equal: one point (1, 1/2), joined to (0, 1)
    ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75, 5 / 6, 19 / 24),  # scikit-learn's own example
    ([1, 0, 0, 0], [0.9, 0.9, 0.1, 0.1], 5 / 6, 0.5, 0.75),  # one tie: 2 pairs won, 1 shared, of 3
]


@pytest.mark.parametrize(("labels", "scores", "area", "precision", "trapezoid"), WORKED)
def test_worked_by_hand(
    labels: list[int], scores: list[float], area: float, precision: float, trapezoid: float
) -> None:
    found = evaluate([scored("v", "Abuse", scores, snippets(labels))], UCFCRIME)
    assert found["AUC"] == pytest.approx(area)
    assert found["AP"] == pytest.approx(precision)
    assert found["AP (trapezoid)"] == pytest.approx(trapezoid)


@pytest.fixture
def videos() -> list[ScoredVideo]:
    """15 UCF-Crime videos, every third normal; intervals cut through snippets, scores 0 … 0.9 have ties."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(15):
        length = int(rng.integers(4, 40))
        frames = np.zeros(16 * length, np.uint8)
        label = ("Normal", "Abuse", "RoadAccidents")[number % 3]
        if label != "Normal":
            start, end = sorted(rng.choice(16 * length, 2, replace=False))
            frames[start:end] = 1
        made.append(scored(f"v{number}", label, 0.9 * rng.random(length).round(1 + number % 2), frames))
    return made


def by_frame(videos: Sequence[ScoredVideo]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of every single frame: the definition, without any counting."""
    scores = [np.repeat(v.scores.astype(np.float64), 16) for v in videos]
    return np.concatenate([v.frame_labels for v in videos]), np.concatenate(scores)


def test_equal_to_scikit_learn_on_every_frame(videos: list[ScoredVideo]) -> None:
    found = evaluate(videos, UCFCRIME)
    labels, scores = by_frame(videos)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert found["AUC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-15)
    assert found["AP"] == pytest.approx(average_precision_score(labels, scores), abs=1e-15)
    assert found["AP (trapezoid)"] == pytest.approx(auc(recall, precision), abs=1e-15)
    assert found["Brier"] == pytest.approx(brier_score_loss(labels, scores), abs=1e-12)
    abnormal = by_frame([v for v in videos if v.label != "Normal"])
    assert found["Ano-AUC"] == pytest.approx(roc_auc_score(*abnormal), abs=1e-15)
    normal = by_frame([v for v in videos if v.label == "Normal"])[1]
    assert found["FAR@0.5"] == pytest.approx(np.mean(normal >= 0.5), abs=1e-15)
    false_positive, true_positive = metrics.roc(samples(videos))
    assert auc(false_positive, true_positive) == pytest.approx(found["AUC"], abs=1e-15)
    # the example is worth something only if snippets with both labels occur
    assert np.count_nonzero(labels.reshape(-1, 16).sum(1) % 16) > 5


def test_counts_not_majority() -> None:
    """A snippet with 10 anomalous frames is not 16: of 10 · 22 pairs, 10 · 16 are won and 10 · 6 tied."""
    data = samples([scored("v", "Abuse", [0.9, 0.1], np.repeat([1, 0], [10, 22]))])
    assert metrics.roc_auc(data) == pytest.approx((160 + 30) / 220)


def test_per_class_is_on_the_videos_of_the_class(videos: list[ScoredVideo]) -> None:
    found = metrics.per_class(videos, UCFCRIME)
    assert list(found) == ["Abuse", "RoadAccident"]  # the paper's names in order, nothing without a video
    for label, name in (("Abuse", "Abuse"), ("RoadAccidents", "RoadAccident")):
        expected = roc_auc_score(*by_frame([v for v in videos if v.label == label]))
        assert found[name] == pytest.approx(expected, abs=1e-15)


def test_xd_reports_ap_and_counts_every_label() -> None:
    both = scored("a_label_B1-G-0", "B1-G-0", [0.9, 0.1], snippets([1, 0]))
    fight = scored("b_label_B1-0-0", "B1-0-0", [0.1, 0.9], snippets([1, 0]))
    found = metrics.per_class([both, fight], XD)
    # Fighting ranks 0.9⁺ 0.9⁻ before 0.1⁺ 0.1⁻: precision 1/2 at both; Explosion has the first video alone
    assert found == {"Fighting": pytest.approx(0.5), "Explosion": pytest.approx(1.0)}


def test_released_ano_auc_keeps_normal_of_shanghaitech() -> None:
    """`normal` is not `Normal`: the released comparison leaves ShanghaiTech's normal videos in."""
    made = [
        scored("a", "car", [0.9, 0.8], snippets([1, 0])),
        scored("n", "normal", [0.95, 0.1], snippets([0, 0])),
    ]
    assert evaluate(made, SHANG)["Ano-AUC"] == 1.0
    assert evaluate(made, SHANG, ano_auc="released")["Ano-AUC"] == pytest.approx(2 / 3)
    named = [replace(made[0], label="Abuse"), replace(made[1], label="Normal")]
    assert evaluate(named, UCFCRIME, ano_auc="released")["Ano-AUC"] == 1.0  # `Normal` is dropped there too


def test_brier_and_false_alarms_by_hand() -> None:
    """Errors 0.5 and 0.75; a score at the threshold is an alarm, on the 16 normal frames of the normal video."""
    found = evaluate([scored("n", "Normal", [0.5, 0.25], snippets([0, 1]))], UCFCRIME)
    assert found["Brier"] == pytest.approx((0.25 + 0.5625) / 2)
    assert found["FAR@0.5"] == 1.0


def test_reliability_is_scikit_learns_on_every_frame(videos: list[ScoredVideo]) -> None:
    labels, scores = by_frame(videos)
    found = reliability(samples(videos)).to_records()
    observed, predicted = calibration_curve(labels, scores, n_bins=BINS, strategy="uniform")
    filled = found.frames > 0
    assert 0 < np.count_nonzero(~filled) < BINS  # empty bins occur; scikit-learn leaves them out
    assert found.observed[filled] == pytest.approx(observed, abs=1e-12)
    assert found.score[filled] == pytest.approx(predicted, abs=1e-12)
    place = np.digitize(scores, np.arange(1, BINS) / BINS, right=True)
    assert np.array_equal(found.frames, np.bincount(place, minlength=BINS))
    expected = np.sum(found.frames[filled] / len(labels) * np.abs(observed - predicted))
    assert calibration_error(samples(videos)) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    """Scores 0.9 on frames of which half are anomalous: 0.4 off. 0.1 where none is: 0.1 off. Mean: 0.25."""
    data = samples([scored("a", "Abuse", [0.9, 0.1], np.repeat([1, 0, 0], [8, 8, 16]))])
    assert calibration_error(data) == pytest.approx(0.25, abs=1e-6)
    assert calibration_error(samples([scored("a", "Abuse", [1.0, 0.0], snippets([1, 0]))])) == 0.0
    assert math.isnan(calibration_error(samples([])))


def test_a_score_on_an_edge_belongs_to_the_bin_below() -> None:
    """(k/15, (k+1)/15]: 0.2 = 3/15 is in bin 2, 1 in the last, 0 in the first."""
    data = Samples(np.array([0.2, 1.0, 0.0]), np.array([16, 16, 16]), np.array([0, 0, 0]))
    assert np.flatnonzero(reliability(data).frames).tolist() == [0, 2, 14]


def test_kl_by_hand_and_direction() -> None:
    clean = [scored("v", "Abuse", [0.5, 0.9], snippets([0, 1]))]
    masked = [scored("v", "Abuse", [0.25, 0.9], snippets([0, 1]))]
    expected = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert metrics.binary_kl(clean, masked) == pytest.approx(expected)
    assert metrics.binary_kl(clean, clean) == 0.0
    assert metrics.binary_kl(masked, clean) != pytest.approx(expected)


def test_kl_stays_finite() -> None:
    """A score of 1 that becomes 0 counts as 1 − 1e-7 that becomes 1e-7."""
    one, zero = scored("a", "Abuse", [1.0], snippets([1])), scored("a", "Abuse", [0.0], snippets([1]))
    assert metrics.binary_kl([one], [zero]) == pytest.approx(math.log(1e7), rel=1e-6)


def test_modality_weights_are_weighted_by_frames() -> None:
    """4 anomalous frames in the first snippet: its weight alone is that of abnormal frames."""
    video = scored("v", "Abuse", [0.1, 0.2], np.repeat([1, 0], [4, 28]))
    video.weights["image"][:] = [0.2, 0.6]
    video.weights["event"][:] = [0.8, 0.4]
    found = metrics.modality_weights([video])
    assert list(found)[:4] == ["w_image", "w_image_abnormal", "w_image_normal", "w_event"]
    assert found["w_image"] == pytest.approx(0.4)
    assert found["w_image_abnormal"] == pytest.approx(0.2)
    assert found["w_image_normal"] == pytest.approx((12 * 0.2 + 16 * 0.6) / 28)
    assert found["w_event_abnormal"] == pytest.approx(0.8)


@pytest.mark.filterwarnings("error")  # no warning of scikit-learn beside the reason
def test_undefined_is_nan_with_a_reason() -> None:
    found = evaluate([scored("n", "Normal", [0.1, 0.2], snippets([0, 0]))], UCFCRIME)
    missing = {name for name, value in found.items() if math.isnan(value)}
    assert missing == {"AUC", "AP", "AP (trapezoid)", "Ano-AUC", "w_image_abnormal", "w_event_abnormal"}
    assert {name for name in missing if not name.startswith("w_")} <= set(metrics.UNDEFINED)
    abnormal = [scored("a", "Abuse", [0.1], snippets([1]))]
    assert math.isnan(evaluate(abnormal, UCFCRIME)["FAR@0.5"])
    assert math.isnan(metrics.per_class(abnormal, UCFCRIME)["Abuse"])
    assert all(map(math.isnan, metrics.video_spread(abnormal).values()))


def test_per_video_auc_is_inside_each_video(videos: list[ScoredVideo]) -> None:
    """Only videos with both kinds of frame count."""
    found = metrics.video_aucs(videos)
    both = [v for v in videos if 0 < v.frame_labels.sum() < len(v.frame_labels)]
    assert list(found) == [v.name for v in both] and 5 < len(found) < 15
    for v in both:
        assert found[v.name] == pytest.approx(roc_auc_score(*by_frame([v])), abs=1e-12)
    values = list(found.values())
    expected = [*np.percentile(values, [50, 25, 75]), np.mean(np.less(values, 0.5))]
    assert list(metrics.video_spread(videos).values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("videos", "sentence"),
    [
        ([], "test list is empty"),
        ([scored("short", "Abuse", [0.1, 0.2], snippets([1]))], "short: 16 frame labels for 2 snippets"),
        ([scored("broken", "Abuse", [float("nan")], snippets([1]))], "broken: a score is not a number"),
    ],
)
def test_bad_input_is_one_sentence(videos: list[ScoredVideo], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate(videos, UCFCRIME)


def published(folder: Path, ground_truth: str, scores: str, rows: str) -> list[ScoredVideo]:
    """A published score array over a published ground truth, cut into videos."""
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


def test_published_scores_on_ucf_crime(realdata: Path) -> None:
    """PEL4VAD's checkpoint: its authors printed 86.76 (AUC), 33.99 (the trapezoid), 0.47 (false alarms)."""
    videos = published(realdata, "ucf_gt_290.published", "ucf_pel4vad_scores", "ucf_test_290")
    found = evaluate(videos, UCFCRIME)
    assert found["AUC"] == pytest.approx(0.867580, abs=5e-7)
    assert found["AP"] == pytest.approx(0.339173, abs=5e-7)
    assert found["AP (trapezoid)"] == pytest.approx(0.339992, abs=5e-7)
    assert found["FAR@0.5"] == pytest.approx(0.00474, abs=5e-6)


def test_published_scores_on_xd_violence(realdata: Path) -> None:
    videos = published(realdata, "xd_gt_800.published", "xd_run_A_scores", "xd_test_800")
    found = evaluate(videos, XD)
    assert found["AUC"] == pytest.approx(0.4132456730, abs=5e-11)
    assert found["AP (trapezoid)"] == pytest.approx(0.1952652693, abs=5e-11)
