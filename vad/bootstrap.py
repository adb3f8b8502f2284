"""95 % intervals by resampling whole videos: how far a number would move with other test videos of the same kind.

Frames of one video are anything but independent, so videos are drawn, not frames. A resample only changes how often
each video counts; everything that depends on the scores is counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from vad.calibration import BINS, bin_sums
from vad.catalog import Dataset
from vad.metrics import Samples, in_ano_auc, samples
from vad.scoring import ScoredVideo

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
BLOCK = 2048  # thresholds handled at once: bounds the memory


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
    steps = _Steps.of(parts)
    area, precision = _areas(counts, steps)
    kept = np.array([in_ano_auc(video.label, dataset, ano_auc) for video in videos])
    normal = np.array([not dataset.is_anomalous(video.label) for video in videos])
    return {
        "AUC": area,
        "AP": precision,
        "Ano-AUC": _areas(counts * kept, steps)[0],
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


@dataclass(frozen=True)
class _Steps:
    """Frames of each video at each threshold, the K scores that an anomalous frame has, falling: (K, V) sparse."""

    positive: csr_matrix  # anomalous frames with exactly this score
    negative: csr_matrix  # normal frames with this score, or above it and below the threshold before
    tied: csr_matrix  # of these the ones with exactly this score
    totals: tuple[np.ndarray, np.ndarray]  # anomalous and normal frames of each video, (V,) each

    @classmethod
    def of(cls, parts: Sequence[Samples]) -> _Steps:
        owner = np.repeat(np.arange(len(parts)), [len(p.scores) for p in parts])
        scores, positive, negative = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("scores", "positive", "negative")
        )
        falling = np.unique(-scores[positive > 0])
        place = np.searchsorted(falling, -scores)
        reached = place < len(falling)  # a score below every threshold is an alarm at none
        exact = reached.copy()
        exact[reached] = falling[place[reached]] == -scores[reached]

        def table(frames: np.ndarray, which: np.ndarray) -> csr_matrix:
            where = which & (frames > 0)
            entries = frames[where].astype(np.float64), (place[where], owner[where])
            return csr_matrix(entries, (len(falling), len(parts)))

        totals = tuple(np.bincount(owner, frames, len(parts)) for frames in (positive, negative))
        return cls(table(positive, reached), table(negative, reached), table(negative, exact), totals)


def _areas(counts: np.ndarray, steps: _Steps) -> tuple[np.ndarray, np.ndarray]:
    """Area under ROC and average precision of each resample; NaN where a kind of frame that they need is missing."""
    all_positive, all_negative = (counts @ total for total in steps.totals)
    times = np.ascontiguousarray(counts.T)
    won, area, hits, alarms = (np.zeros(len(counts)) for _ in range(4))
    for at in range(0, steps.positive.shape[0], BLOCK):
        found, false, tied = (
            part[at : at + BLOCK] @ times for part in (steps.positive, steps.negative, steps.tied)
        )
        false = alarms + np.cumsum(false, axis=0)
        reached = hits + np.cumsum(found, axis=0)
        # an anomalous frame wins against every normal frame below it, and half against one of its own score
        won += (found * (all_negative - false + tied / 2)).sum(0)
        marked = reached + false
        area += (found * np.divide(reached, marked, out=np.zeros_like(marked), where=marked > 0)).sum(0)
        hits, alarms = reached[-1], false[-1]
    undefined, pairs = np.full(len(counts), np.nan), all_positive * all_negative
    auc = np.divide(won, pairs, out=undefined.copy(), where=pairs > 0)
    return auc, np.divide(area, all_positive, out=undefined, where=all_positive > 0)


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
