"""Metrics of scored videos: AUC, AP, per-class and per-video results, false alarms, calibration, KL, weights.

Every frame has the score of its snippet. A snippet is thus two weighted samples: the numbers of its
anomalous and of its normal frames. This equals the frame-level metric with 16 times less data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import pandas as pd
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from vad.datasets import SNIPPET_FRAMES, Dataset
from vad.files import InputError
from vad.scoring import ScoredVideo

BINS = 15  # calibration bins (k/15, (k+1)/15]; the first includes a score of 0
ALARM = 0.5  # scores of at least this value are alarms
QUARTILES = {"median": 0.5, "lower quartile": 0.25, "upper quartile": 0.75}
PER_VIDEO = ("AUC within videos", *(f"per-video AUC, {part}" for part in QUARTILES), "videos with AUC below 0.5")
MIXED = "videos with both kinds of frames"
SPREAD_SNIPPETS, SPREAD_DIMENSIONS = "ŵ_i, std over snippets", "ŵ_i, std over dimensions"
# the same metric with each score replaced by the mean score of its video
VIDEO_MEANS = {name: f"{name}, mean of each video" for name in ("AUC", "AP", "Ano-AUC")}
ALIGNMENT = {name: f"{name}, alignment branch" for name in ("AUC", "AP")}  # of AVadCLIP
# metrics shown as percentages; the others are shown as they are
PERCENT = (
    "AUC", "AP", "AP (trapezoid)", "Ano-AUC", "FAR@0.5", *PER_VIDEO, *VIDEO_MEANS.values(),
    *ALIGNMENT.values(), "events touched", "recall",
)  # fmt: skip
# definitions printed below the tables that show a metric
DEFINITIONS: Mapping[str, str] = {
    "AP (trapezoid)": "AP (trapezoid): trapezoidal area under the precision–recall curve.",
    "FAR@0.5": "FAR@0.5: share of frames of normal-labelled videos with a score of at least 0.5.",
    "ECE": f"ECE: expected calibration error over frames, {BINS} bins of equal width.",
    "kl": "KL: KL(unmasked ‖ masked prediction), mean over frames, in nats.",
    **dict.fromkeys(PER_VIDEO, "Per-video AUC: AUC within each video that contains normal and anomalous frames."),
    "AUC within videos": "AUC within videos: AUC over those (anomalous, normal) pairs of frames that lie in one video.",
}
# reasons for NaN, printed below the tables that show a metric
UNDEFINED: Mapping[str, str] = {
    "AUC": "AUC needs normal and anomalous frames, but these videos contain only one of them",
    **dict.fromkeys(("AP", "AP (trapezoid)"), "AP needs anomalous frames, but these videos contain none"),
    "Ano-AUC": "Ano-AUC needs normal and anomalous frames in abnormal videos",
    "FAR@0.5": "the false-alarm rate needs normal videos, but there are none",
    **dict.fromkeys(PER_VIDEO, "the per-video AUC needs videos with normal and anomalous frames, but there are none"),
}


@dataclass(frozen=True)
class Samples:
    """Snippets of one or more videos with their numbers of anomalous and normal frames."""

    scores: np.ndarray  # (N,) anomaly probability
    positive: np.ndarray  # (N,) anomalous frames of the snippet, 0 … 16
    negative: np.ndarray  # (N,) normal frames

    @property
    def weighted(self) -> dict[str, np.ndarray]:
        """Labels, scores and sample weights, (2N,) each, as arguments of scikit-learn's functions."""
        labels = np.repeat(np.array([1, 0], np.uint8), len(self.scores))
        weights = np.concatenate([self.positive, self.negative])
        return {"y_true": labels, "y_score": np.tile(self.scores, 2), "sample_weight": weights}

    @property
    def frames(self) -> np.ndarray:
        """Number of frames of each snippet, (N,)."""
        return self.positive + self.negative

    @property
    def squared_errors(self) -> np.ndarray:
        """(score − label)², summed over the frames of each snippet, (N,)."""
        p = self.scores.astype(np.float64)
        return self.positive * (1 - p) ** 2 + self.negative * p**2

    @property
    def bins(self) -> np.ndarray:
        """Calibration bin of each snippet, (N,)."""
        return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], self.scores.astype(np.float64))


def samples(videos: Iterable[ScoredVideo]) -> Samples:
    """Concatenate the scores and frame counts of videos.

    Raises InputError for a score that is not finite and for labels whose number does not match the scores.
    """
    scores, positive = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for video in videos:
        if len(video.frame_labels) != SNIPPET_FRAMES * len(video.scores):
            raise InputError(
                f"{video.name}: {len(video.frame_labels)} frame labels for {len(video.scores)} "
                f"snippets of {SNIPPET_FRAMES} frames. Create the ground truth again for these embeddings."
            )
        if not np.isfinite(video.scores).all():
            raise InputError(f"{video.name}: a score is not a finite number. The training has diverged.")
        scores.append(video.scores)
        positive.append((np.asarray(video.frame_labels) != 0).reshape(-1, SNIPPET_FRAMES).sum(1))
    counts = np.concatenate(positive)
    return Samples(np.concatenate(scores), counts, SNIPPET_FRAMES - counts)


def roc_auc(data: Samples) -> float:
    """Return the area under the ROC curve over frames, or NaN without normal or without anomalous frames."""
    defined = data.positive.any() and data.negative.any()
    return float(roc_auc_score(**data.weighted)) if defined else math.nan


def average_precision(data: Samples) -> float:
    """Return the average precision over frames, Σ (R_n − R_{n−1}) P_n, or NaN without anomalous frames."""
    return float(average_precision_score(**data.weighted)) if data.positive.any() else math.nan


def roc(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return false-positive and true-positive rates at every threshold."""
    return roc_curve(**data.weighted)[:2]


def precision_recall(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return recall (from 1 down to 0) and precision at every threshold."""
    precision, recall, _ = precision_recall_curve(**data.weighted)
    return recall, precision


def reliability(data: Samples) -> pd.DataFrame:
    """Return a row per calibration bin: `frames`, mean `score`, and fraction `observed` of anomalous frames.

    Score and fraction are NaN in an empty bin.
    """
    sums = {"frames": data.frames, "score": data.scores.astype(np.float64) * data.frames, "observed": data.positive}
    # not np.histogram, whose bins include their lower edge
    bins = pd.DataFrame({name: np.bincount(data.bins, values, BINS) for name, values in sums.items()})
    return bins.assign(score=bins.score / bins.frames, observed=bins.observed / bins.frames)


def calibration_error(data: Samples) -> float:
    """Return the expected calibration error Σ_b n_b/n · |observed_b − score_b|, or NaN without frames."""
    bins = reliability(data)
    gaps = bins.frames * (bins.observed - bins.score).abs()
    return float(gaps.sum() / bins.frames.sum()) if len(data.scores) else math.nan


def binary_kl(clean: Sequence[ScoredVideo], masked: Sequence[ScoredVideo]) -> float:
    """Return the mean over frames of KL(p_clean ‖ p_masked) of Bernoulli predictions, in nats (Appendix H).

    Both arguments have the same videos in the same order.
    """
    scores = (np.concatenate([video.scores for video in videos]) for videos in (clean, masked))
    # a float32 sigmoid reaches 0 and 1, whose logarithms diverge; 1e-7 is its resolution near 1
    p, q = (np.clip(values.astype(np.float64), 1e-7, 1 - 1e-7) for values in scores)
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def modality_weights(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Return the mean ŵ of each stream over all, abnormal and normal frames (Tables 6–9). NaN without frames."""
    data, means = samples(videos), {}
    parts = {"": data.frames, "_abnormal": data.positive, "_normal": data.negative}
    for stream in videos[0].weights:
        values = np.concatenate([video.weights[stream] for video in videos])
        for part, frames in parts.items():
            mean = values @ frames / frames.sum() if frames.any() else math.nan
            means[f"w_{stream}{part}"] = float(mean)
    return means


def weight_by_dimension(videos: Sequence[ScoredVideo]) -> np.ndarray:
    """Return the mean ŵ of the first stream, ŵ_i, of each dimension over all snippets of all videos, (D,)."""
    lengths = [len(video.scores) for video in videos]
    return np.average([next(iter(video.by_dimension.values())) for video in videos], 0, lengths)


def weight_spread(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Return how far ŵ_i varies: its standard deviation over snippets and over dimensions, or NaN without snippets.

    Each is of the mean over the other.
    """
    if not videos[0].weights:  # AVadCLIP
        return {}
    if not any(len(video.scores) for video in videos):
        return {SPREAD_SNIPPETS: math.nan, SPREAD_DIMENSIONS: math.nan}
    over_time = np.concatenate([next(iter(video.weights.values())) for video in videos])
    return {SPREAD_SNIPPETS: float(over_time.std()), SPREAD_DIMENSIONS: float(weight_by_dimension(videos).std())}


def evaluate(videos: Sequence[ScoredVideo], dataset: Dataset, *, ano_auc: str = "abnormal") -> dict[str, float]:
    """Return every metric of an evaluation as a fraction, or NaN where undefined (see `UNDEFINED`).

    ano_auc: see `in_ano_auc`. Raises InputError without videos.
    """
    if not videos:
        raise InputError(f"the test list is empty: there is no {dataset.title} video to evaluate")
    data = samples(videos)
    normal = samples(v for v in videos if not dataset.is_anomalous(v.label))
    alarms, frames = normal.negative[normal.scores >= ALARM].sum(), normal.negative.sum()
    abnormal = [in_ano_auc(v.label, dataset, ano_auc) for v in videos]
    by_video = [replace(v, scores=np.full_like(v.scores, v.scores.mean())) if len(v.scores) else v for v in videos]
    means = samples(by_video)
    # called AP in older repositories
    trapezoid = auc(*precision_recall(data)) if data.positive.any() else math.nan
    return {
        "AUC": roc_auc(data),
        "AP": average_precision(data),
        "AP (trapezoid)": float(trapezoid),
        "Ano-AUC": roc_auc(samples(compress(videos, abnormal))),
        "FAR@0.5": float(alarms / frames) if frames else math.nan,
        "Brier": float(data.squared_errors.sum() / data.frames.sum()),  # Appendix H
        VIDEO_MEANS["AUC"]: roc_auc(means),
        VIDEO_MEANS["AP"]: average_precision(means),
        VIDEO_MEANS["Ano-AUC"]: roc_auc(samples(compress(by_video, abnormal))),
        **modality_weights(videos),
        **weight_spread(videos),
        **alignment_metrics(videos),
    }


def alignment_metrics(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Return AUC and AP of AVadCLIP's second score, 1 − p(normal), or nothing for another method."""
    if videos[0].class_scores is None:
        return {}
    data = samples(replace(video, scores=1 - video.class_scores[:, 0]) for video in videos)
    return {ALIGNMENT["AUC"]: roc_auc(data), ALIGNMENT["AP"]: average_precision(data)}


def in_ano_auc(label: str, dataset: Dataset, ano_auc: str) -> bool:
    """Return whether Ano-AUC includes a video of this label.

    "abnormal": the abnormal videos. "released": every video not labelled exactly "Normal", as in the released
    code, which includes the normal videos of XD-Violence (`A`) and ShanghaiTech (`normal`).
    """
    return dataset.is_anomalous(label) if ano_auc == "abnormal" else label != "Normal"


def per_class(videos: Sequence[ScoredVideo], dataset: Dataset) -> dict[str, float]:
    """Return the metric of the data set (AUC or AP) for each class, over the videos of that class (Table 2).

    Classes are in the order of the data set. Classes without a test video are omitted. A video with several
    labels belongs to each of its classes. The metric can be NaN, see `roc_auc`.
    """
    members: dict[str, list[ScoredVideo]] = {name: [] for name in dataset.classes.values()}
    for video in videos:
        for name in dataset.class_names(video.label):
            members[name].append(video)
    measure = {"AUC": roc_auc, "AP": average_precision}[dataset.metric]
    return {name: measure(samples(group)) for name, group in members.items() if group}


def within_videos(videos: Sequence[ScoredVideo]) -> tuple[np.ndarray, np.ndarray]:
    """Return AUC and number of (anomalous, normal) pairs of frames of each video, (V,) each. NaN without pairs."""
    parts = [samples([video]) for video in videos]
    pairs = [float(part.positive.sum() * part.negative.sum()) for part in parts]
    return np.array([roc_auc(part) for part in parts]), np.array(pairs)


def video_aucs(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Return the AUC within each video that contains normal and anomalous frames, by name."""
    aucs = zip(videos, *within_videos(videos), strict=True)
    return {video.name: float(auc) for video, auc, pairs in aucs if pairs}


def video_spread(aucs: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Return weighted mean, median, quartiles, fraction below 0.5 and number of the AUCs of `within_videos`.

    All but the number are NaN if no video contains normal and anomalous frames.
    """
    aucs, pairs = aucs[pairs > 0], pairs[pairs > 0]
    if not len(aucs):
        return {**dict.fromkeys(PER_VIDEO, math.nan), MIXED: 0.0}
    spread = (np.average(aucs, weights=pairs), *np.quantile(aucs, list(QUARTILES.values())), (aucs < 0.5).mean())
    return dict(zip((*PER_VIDEO, MIXED), map(float, (*spread, len(aucs))), strict=True))
