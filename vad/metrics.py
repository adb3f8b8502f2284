"""Numbers of scored videos: AUC, AP, Ano-AUC, per class and video, false alarms, Brier score, KL, modality weights.

Every frame carries its snippet's score, so a snippet enters as two weighted samples: its number of anomalous
frames and its number of normal frames. That equals the frame-level number, 16 times smaller. Counts, not the
majority: hundreds of snippets hold both labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from sklearn.metrics import auc as trapezoid
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from vad.catalog import SNIPPET_FRAMES, Dataset
from vad.errors import InputError
from vad.scoring import ScoredVideo

PER_VIDEO = (
    "per-video AUC, median", "per-video AUC, lower quartile", "per-video AUC, upper quartile",
    "videos with AUC below 0.5",
)  # fmt: skip
# printed in percent, the others as fractions
PERCENT = ("AUC", "AP", "AP (trapezoid)", "Ano-AUC", "FAR@0.5", *PER_VIDEO)
# why a number is NaN: said below the table that shows it
UNDEFINED: Mapping[str, str] = MappingProxyType({
    "AUC": "AUC needs normal and anomalous frames; these videos hold one kind only",
    "AP": "AP needs anomalous frames; these videos hold none",
    "AP (trapezoid)": "AP needs anomalous frames; these videos hold none",
    "Ano-AUC": "Ano-AUC needs normal and anomalous frames in abnormal videos",
    "FAR@0.5": "the false-alarm rate needs normal videos; there are none",
    **dict.fromkeys(PER_VIDEO, "the per-video AUC needs videos that hold normal and anomalous frames; there are none"),
})


@dataclass(frozen=True)
class Samples:
    """Snippets of one or many videos with the number of their frames of either kind."""

    scores: np.ndarray  # (N,) anomaly probability
    positive: np.ndarray  # (N,) anomalous frames of the snippet, 0 … 16
    negative: np.ndarray  # (N,) normal frames

    @property
    def weighted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, scores and sample weights, (2N,) each, as scikit-learn takes them."""
        labels = np.repeat(np.array([1, 0], np.uint8), len(self.scores))
        return labels, np.tile(self.scores, 2), np.concatenate([self.positive, self.negative])


def samples(videos: Iterable[ScoredVideo]) -> Samples:
    """Scores and frame counts of the videos, one after the other.

    Raises InputError for a score that is not a number and for labels that do not fit the scores.
    """
    scores, positive = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for video in videos:
        if len(video.frame_labels) != SNIPPET_FRAMES * len(video.scores):
            raise InputError(
                f"{video.name}: {len(video.frame_labels)} frame labels for {len(video.scores)} snippets of "
                f"{SNIPPET_FRAMES} frames; make the ground truth again for these embeddings"
            )
        if not np.isfinite(video.scores).all():
            raise InputError(f"{video.name}: a score is not a number; the checkpoint's training has diverged")
        scores.append(video.scores)
        positive.append((np.asarray(video.frame_labels) != 0).reshape(-1, SNIPPET_FRAMES).sum(1))
    counts = np.concatenate(positive)
    return Samples(np.concatenate(scores), counts, SNIPPET_FRAMES - counts)


def roc_auc(data: Samples) -> float:
    """Area under the ROC curve over frames; NaN where one kind of frame is missing."""
    if not data.positive.any() or not data.negative.any():
        return float("nan")
    labels, scores, weights = data.weighted
    return float(roc_auc_score(labels, scores, sample_weight=weights))


def average_precision(data: Samples) -> float:
    """Average precision over frames, Σ (R_n − R_{n−1}) P_n; NaN without an anomalous frame."""
    if not data.positive.any():
        return float("nan")
    labels, scores, weights = data.weighted
    return float(average_precision_score(labels, scores, sample_weight=weights))


def trapezoid_precision(data: Samples) -> float:
    """Trapezoid area under precision–recall, which older repositories of the field call AP; NaN without an anomaly."""
    if not data.positive.any():
        return float("nan")
    recall, precision = precision_recall(data)
    return float(trapezoid(recall, precision))


def roc(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """False-positive and true-positive rate at every threshold."""
    labels, scores, weights = data.weighted
    false_positive, true_positive, _ = roc_curve(labels, scores, sample_weight=weights)
    return false_positive, true_positive


def precision_recall(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Recall (falling from 1 to 0) and precision at every threshold."""
    labels, scores, weights = data.weighted
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
    return recall, precision


def false_alarm_rate(data: Samples, threshold: float = 0.5) -> float:
    """Share of normal frames with a score of at least `threshold`; give it normal videos alone. NaN without frames."""
    total = data.negative.sum()
    return float(data.negative[data.scores >= threshold].sum() / total) if total else float("nan")


def brier_score(data: Samples) -> float:
    """Mean squared distance of a frame's score from its label (Appendix H); NaN without frames."""
    p = data.scores.astype(np.float64)
    total = data.positive.sum() + data.negative.sum()
    errors = data.positive * (1 - p) ** 2 + data.negative * p**2
    return float(errors.sum() / total) if total else float("nan")


def binary_kl(clean: Sequence[ScoredVideo], masked: Sequence[ScoredVideo]) -> float:
    """Mean over frames of KL(p_clean ‖ p_masked) between the two Bernoulli predictions, in nats (Appendix H).

    Videos are joined by name; InputError names one that only one side has, or that differs in length.
    """
    partners = {video.name: video.scores for video in masked}
    if len(partners) != len(masked) or len({video.name for video in clean}) != len(clean):
        raise InputError("two videos of one name: clean and masked predictions cannot be joined; name each video once")
    odd = {video.name for video in clean} ^ set(partners)
    odd |= {video.name for video in clean if len(partners.get(video.name, ())) != len(video.scores)}
    if odd:
        raise InputError(f"clean and masked predictions are not of the same videos: {min(odd)} differs")
    if not clean:
        return float("nan")
    # a float32 sigmoid reaches 0 and 1 exactly, where the logarithm has no value; 1e-7 is its resolution there
    p, q = (
        np.clip(np.concatenate(side).astype(np.float64), 1e-7, 1 - 1e-7)
        for side in ([video.scores for video in clean], [partners[video.name] for video in clean])
    )
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def modality_weights(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Mean ŵ_i and ŵ_e over all, over abnormal, over normal frames (Tables 6–9); NaN where there are none."""
    data = samples(videos)
    counts = {"": data.positive + data.negative, "_abnormal": data.positive, "_normal": data.negative}
    found: dict[str, float] = {}
    for name, weights in (
        ("w_image", [video.weight_image for video in videos]),
        ("w_event", [video.weight_event for video in videos]),
    ):
        values = np.concatenate([np.empty(0), *weights])
        for part, frames in counts.items():
            found[name + part] = float(values @ frames / frames.sum()) if frames.any() else float("nan")
    return found


def evaluate(videos: Sequence[ScoredVideo], dataset: Dataset, *, ano_auc: str = "abnormal") -> dict[str, float]:
    """Every number of one evaluation, as fractions.

    Keys: AUC, AP, AP (trapezoid), Ano-AUC, FAR@0.5, Brier, and w_image, w_image_abnormal … w_event_normal.
    ano_auc: "abnormal" takes the abnormal videos; "released" every video not labelled exactly "Normal", so that the
    normal videos of XD-Violence (`A`) and ShanghaiTech (`normal`) stay in. A number that is not defined is NaN;
    `UNDEFINED` has the reason. InputError where there is no video.
    """
    if not videos:
        raise InputError(f"no {dataset.title} video to evaluate: the test list is empty")
    data = samples(videos)
    return {
        "AUC": roc_auc(data),
        "AP": average_precision(data),
        "AP (trapezoid)": trapezoid_precision(data),
        "Ano-AUC": roc_auc(samples(video for video in videos if in_ano_auc(video.label, dataset, ano_auc))),
        "FAR@0.5": false_alarm_rate(samples(video for video in videos if not dataset.is_anomalous(video.label))),
        "Brier": brier_score(data),
        **modality_weights(videos),
    }


def in_ano_auc(label: str, dataset: Dataset, ano_auc: str) -> bool:
    """Whether a video of this label counts for Ano-AUC, see `evaluate`; InputError for an unknown kind."""
    if ano_auc == "abnormal":
        return dataset.is_anomalous(label)
    if ano_auc == "released":
        return label != "Normal"
    raise InputError(f"unknown kind of Ano-AUC {ano_auc!r}; known are abnormal, released")


def per_class(videos: Sequence[ScoredVideo], dataset: Dataset) -> dict[str, float]:
    """AUC (XD-Violence: AP) of each class on the videos of that class alone, as Table 2 has it.

    In the order of the catalogue, classes without a test video left out. A video with several labels counts under
    each of them. NaN where a class has one kind of frame only.
    """
    members: dict[str, list[ScoredVideo]] = {name: [] for name in dataset.classes.values()}
    for video in videos:
        for name in dataset.class_names(video.label):
            members[name].append(video)
    measure = {"AUC": roc_auc, "AP": average_precision}[dataset.metric]
    return {name: measure(samples(group)) for name, group in members.items() if group}


def video_aucs(videos: Iterable[ScoredVideo]) -> dict[str, float]:
    """Name → frame-level AUC inside that video alone, for the videos that hold normal and anomalous frames.

    A frame-level AUC over all videos pools them: it can be high because abnormal videos score high from end to end.
    Inside one video only the place of the anomaly counts.
    """
    return {v.name: roc_auc(samples([v])) for v in videos if v.frame_labels.any() and not v.frame_labels.all()}


def video_spread(videos: Iterable[ScoredVideo]) -> dict[str, float]:
    """Median and quartiles of `video_aucs`, and the share of these videos below 0.5; NaN where there is none."""
    found = np.array(list(video_aucs(videos).values()))
    if not len(found):
        return dict.fromkeys(PER_VIDEO, float("nan"))
    lower, median, upper = np.quantile(found, (0.25, 0.5, 0.75))
    return dict(zip(PER_VIDEO, map(float, (median, lower, upper, (found < 0.5).mean())), strict=True))
