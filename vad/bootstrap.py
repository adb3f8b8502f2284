"""95 % intervals by resampling whole videos: how far a number would move with other test videos of the same kind.

Frames of one video are anything but independent, so videos are drawn, not frames. A resample only changes how often
each video counts; everything that depends on the scores is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vad.calibration import BINS, bin_sums
from vad.catalog import Dataset
from vad.metrics import Samples, in_ano_auc, samples
from vad.scoring import ScoredVideo

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
BLOCK = 2048  # thresholds handled at once: bounds the memory of the average precision


def draw_counts(videos: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each video occurs in each resample, (resamples, videos) float64; every row sums to `videos`.

    Plain resampling, without strata: the share of anomalous videos varies too.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(videos, size=(resamples, videos))
    places = drawn + videos * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * videos).reshape(resamples, videos).astype(np.float64)


def resample(
    videos: Sequence[ScoredVideo],
    dataset: Dataset,
    *,
    ano_auc: str = "abnormal",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, np.ndarray]:
    """AUC, AP, Ano-AUC, FAR@0.5, Brier and ECE of every resample, (resamples,) each, NaN where not defined.

    The same seed draws the same videos whatever their scores are, so that several runs are resampled alike.
    """
    parts = [samples([video]) for video in videos]
    counts = draw_counts(len(videos), resamples, seed)
    pairs = _pairs(parts)
    kept = np.array([in_ano_auc(video.label, dataset, ano_auc) for video in videos])
    normal = np.array([not dataset.is_anomalous(video.label) for video in videos])
    return {
        "AUC": _auc(counts, parts, pairs),
        "AP": _average_precision(counts, parts),
        "Ano-AUC": _auc(counts * kept, parts, pairs),
        "FAR@0.5": _ratio(counts * normal, [(p.negative[p.scores >= 0.5].sum(), p.negative.sum()) for p in parts]),
        "Brier": _ratio(counts, [(_squared_error(p), p.positive.sum() + p.negative.sum()) for p in parts]),
        "ECE": _calibration_error(counts, parts),
    }


def intervals(resampled: Mapping[str, np.ndarray], level: float = LEVEL) -> dict[str, tuple[float, float]]:
    """Central interval of each number over its resamples (percentiles), those where it is not defined left out."""
    tail = (1 - level) / 2
    return {
        name: tuple(map(float, np.nanquantile(values, (tail, 1 - tail))))
        for name, values in resampled.items()
        if np.isfinite(values).any()
    }


def _pairs(parts: Sequence[Samples]) -> np.ndarray:
    """[u, v]: pairs of an anomalous frame of u and a normal frame of v that u's wins, ties for a half; (V, V)."""
    owner = np.repeat(np.arange(len(parts)), [np.count_nonzero(p.positive) for p in parts])
    scores = np.concatenate([p.scores[p.positive > 0] for p in parts])
    positive = np.concatenate([p.positive[p.positive > 0] for p in parts])
    found = np.zeros((len(parts), len(parts)))
    for v, other in enumerate(parts):
        order = np.argsort(other.scores)
        ranked, below = other.scores[order], np.concatenate([[0], np.cumsum(other.negative[order])])
        # frames below and frames at or below, averaged: a tie counts for a half
        won = (below[np.searchsorted(ranked, scores)] + below[np.searchsorted(ranked, scores, "right")]) / 2
        found[:, v] = np.bincount(owner, positive * won, len(parts))
    return found


def _auc(counts: np.ndarray, parts: Sequence[Samples], pairs: np.ndarray) -> np.ndarray:
    positive, negative = (
        counts @ np.array([float(getattr(p, kind).sum()) for p in parts]) for kind in ("positive", "negative")
    )
    won = np.einsum("bu,bu->b", counts @ pairs, counts)
    return np.divide(won, positive * negative, out=np.full(len(counts), np.nan), where=positive * negative > 0)


def _average_precision(counts: np.ndarray, parts: Sequence[Samples]) -> np.ndarray:
    """Σ over thresholds of precision × rise of recall; recall rises only at scores that an anomalous frame has."""
    held = [p.scores[p.positive > 0] for p in parts]
    thresholds = np.unique(np.concatenate(held))[::-1]
    total = counts @ np.array([float(p.positive.sum()) for p in parts])
    area, before = np.zeros(len(counts)), np.zeros(len(counts))
    for at in range(0, len(thresholds), BLOCK):
        block = thresholds[at : at + BLOCK]
        hits, alarms = (counts @ np.stack(list(_at_or_above(parts, kind, block))) for kind in ("positive", "negative"))
        rise = np.diff(hits, axis=1, prepend=before[:, None])
        marked = hits + alarms
        precision = np.divide(hits, marked, out=np.zeros_like(hits), where=marked > 0)
        area += (precision * rise).sum(1)
        before = hits[:, -1]
    return np.divide(area, total, out=np.full(len(counts), np.nan), where=total > 0)


def _at_or_above(parts: Sequence[Samples], kind: str, thresholds: np.ndarray) -> Iterator[np.ndarray]:
    """For each video the number of its frames of one kind with a score ≥ each threshold, (K,)."""
    for part in parts:
        order = np.argsort(part.scores)
        left = np.concatenate([np.cumsum(getattr(part, kind)[order][::-1])[::-1], [0]])
        yield left[np.searchsorted(part.scores[order], thresholds)].astype(np.float64)


def _ratio(counts: np.ndarray, sums: Sequence[tuple[float, float]]) -> np.ndarray:
    """Number that is a sum over frames divided by another."""
    above, below = (counts @ np.array(column, np.float64) for column in zip(*sums, strict=True))
    return np.divide(above, below, out=np.full(len(counts), np.nan), where=below > 0)


def _squared_error(part: Samples) -> float:
    p = part.scores.astype(np.float64)
    return float((part.positive * (1 - p) ** 2 + part.negative * p**2).sum())


def _calibration_error(counts: np.ndarray, parts: Sequence[Samples]) -> np.ndarray:
    binned = [(part, *bin_sums(part)) for part in parts]
    # |Σ positive − Σ score| of each bin: its frames cancel between the bin's means and its weight
    gaps = np.stack([np.bincount(place, part.positive - score, BINS) for part, place, score in binned])
    frames = counts @ np.array([float(p.positive.sum() + p.negative.sum()) for p in parts])
    return np.abs(counts @ gaps).sum(1) / frames
