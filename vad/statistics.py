"""Statistics of results: 95 % intervals by resampling whole videos, and runs compared pair by pair.

Frames of one video depend on each other, so videos are drawn, not frames. A resample only changes
how often each video counts; everything that depends on the scores is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse import csr_matrix

from vad.datasets import Dataset
from vad.metrics import ALARM, BINS, Samples, in_ano_auc, samples
from vad.scoring import ScoredVideo

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
CHUNK = 50  # resamples handled at once: bounds the memory
SIGN_PATTERNS = 9999  # of the sign-flip test: all of them up to 13 pairs, else random ones
PAIRED_NOTE = "95 % interval: Student's t of the paired differences; p: sign-flip test."


def draw_counts(videos: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each video occurs in each resample, (R, V) float64; rows sum to V.

    Plain resampling, without strata: the share of anomalous videos varies too.
    """
    drawn = np.random.default_rng(SEED).integers(videos, size=(resamples, videos))
    return np.stack([np.bincount(row, minlength=videos) for row in drawn]).astype(np.float64)


def resample(
    videos: Sequence[ScoredVideo], dataset: Dataset, *, ano_auc: str = "abnormal", resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """AUC, AP, Ano-AUC, FAR@0.5, Brier and ECE of every resample, (R,) each; NaN: not defined.

    The same videos are drawn whatever their scores are: several runs are resampled alike.
    """
    data, V = samples(videos), len(videos)
    owner = np.repeat(np.arange(V), [len(v.scores) for v in videos])  # video of each snippet
    counts = draw_counts(V, resamples)
    abnormal = np.array([in_ano_auc(video.label, dataset, ano_auc) for video in videos])
    normal = np.array([not dataset.is_anomalous(video.label) for video in videos])
    alarms = data.negative * (data.scores >= ALARM)
    parts = (data.frames, data.negative, alarms, data.squared_errors)
    frames, negative, alarms, errors = (np.bincount(owner, values, V) for values in parts)
    # |Σ positive − Σ score| of each bin: its frames cancel between its means and its weight
    gaps = data.positive - data.scores.astype(np.float64) * data.frames
    gaps = np.bincount(BINS * owner + data.bins, gaps, BINS * V).reshape(V, BINS)
    with np.errstate(invalid="ignore"):  # 0/0 in a resample without the frames it needs: NaN is meant
        auc, precision = _areas(data, owner, counts)
        return {
            "AUC": auc,
            "AP": precision,
            "Ano-AUC": _areas(data, owner, counts * abnormal)[0],
            "FAR@0.5": counts @ (normal * alarms) / (counts @ (normal * negative)),
            "Brier": counts @ errors / (counts @ frames),
            "ECE": np.abs(counts @ gaps).sum(1) / (counts @ frames),
        }


def _areas(data: Samples, owner: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC AUC and average precision of each resample, (R,) each.

    Thresholds are the K scores that an anomalous frame has, falling, and one below all scores.
    """
    thresholds = np.append(np.unique(-data.scores[data.positive > 0]), np.inf)
    place = np.searchsorted(thresholds, -data.scores)  # first threshold that the snippet reaches

    def table(frames: np.ndarray) -> csr_matrix:
        """Frames of each video that reach each threshold and not the one before, (K + 1, V)."""
        there = frames > 0
        entries = frames[there].astype(np.float64), (place[there], owner[there])
        return csr_matrix(entries, (len(thresholds), counts.shape[1]))

    tied = data.negative * (thresholds[place] == -data.scores)
    tables = [table(frames) for frames in (data.positive, data.negative, tied)]
    areas = np.empty((2, len(counts)))
    for start in range(0, len(counts), CHUNK):
        chunk = slice(start, start + CHUNK)
        times = np.ascontiguousarray(counts[chunk].T)
        hits, alarms, ties = (part @ times for part in tables)
        positive, negative = hits.cumsum(0), alarms.cumsum(0)
        # an anomalous frame wins against every normal frame below it, half against one of its score
        won = (hits * (negative[-1] - negative + ties / 2)).sum(0)
        precision = (hits * (positive / np.maximum(positive + negative, 1))).sum(0)
        areas[:, chunk] = won / (positive[-1] * negative[-1]), precision / positive[-1]
    return areas[0], areas[1]


def intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Central 95 % interval of each metric over its resamples, undefined ones left out."""
    tail = (1 - LEVEL) / 2
    defined = {name: values for name, values in resampled.items() if np.isfinite(values).any()}
    return {n: tuple(map(float, np.nanquantile(values, (tail, 1 - tail)))) for n, values in defined.items()}


@dataclass(frozen=True)
class PairedComparison:
    """Differences b − a of runs with equal seeds, as fractions."""

    mean: float
    low: float  # ends of the interval of Student's t for the mean; NaN for one pair
    high: float
    p: float  # two-sided, of the sign-flip test; NaN for one pair
    pairs: int
    higher: int  # pairs in which b is higher
    lower: int  # pairs in which b is lower

    @property
    def differs(self) -> bool:
        """Whether the difference is significant at 5 %."""
        return self.p < 1 - LEVEL

    def describe(self) -> str:
        """The comparison in one sentence, in points of a percentage."""
        points = f"{100 * self.mean:+.2f} points"
        if self.pairs == 1:
            return f"{points} in the one seed they share; one pair says nothing about chance"
        interval = f"95 % interval {100 * self.low:+.2f} … {100 * self.high:+.2f}"
        test = f"p = {self.p:.3g}, higher in {self.higher} of {self.pairs} seeds"
        if self.differs:
            verdict = "higher" if self.mean > 0 else "lower"
        elif smallest_p(self.pairs) >= 1 - LEVEL:
            verdict = f"undecided, for {self.pairs} pairs cannot reach p < 0.05"
        else:
            verdict = "not significantly different from zero"
        return f"{points} ({interval}; {test}): {verdict}"


def compare_paired(a: Mapping[int, float], b: Mapping[int, float]) -> PairedComparison | None:
    """Compare two sets of runs, seed → metric, on shared seeds; None without a defined pair."""
    d = np.array([b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())], np.float64)
    d = d[np.isfinite(d)]
    n = len(d)
    if n == 0:
        return None
    # not ttest_1samp: it has no interval for differences that are all the same
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * stats.sem(d)) if n > 1 else math.nan
    p, mean = sign_flip_p(d) if n > 1 else math.nan, float(d.mean())
    return PairedComparison(mean, mean - reach, mean + reach, p, n, int((d > 0).sum()), int((d < 0).sum()))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the sign-flip test of (n,) differences; 1 for runs equal in every seed.

    Under the null hypothesis every sign of every difference is as likely. p is the share of the sign
    patterns whose sum is at least as far from zero as the one measured.
    """
    test = stats.permutation_test(
        # rounded, for equal sums of floats in another order differ in their last bits
        (differences,), lambda signed, axis: np.abs(signed.sum(axis)).round(12), permutation_type="samples",
        alternative="greater", vectorized=True, n_resamples=SIGN_PATTERNS, random_state=0,
    )  # fmt: skip
    return float(test.pvalue)


def smallest_p(pairs: int) -> float:
    """The p of differences that all point one way: that pattern and its mirror image among 2^n."""
    return min(1.0, 2.0 ** (1 - pairs))


def multiple_tests_note(tests: int) -> list[str]:
    """The note below a table of several tests, none of which is corrected for the others."""
    said = "tests stand here, none corrected for the others: where nothing differs, up to"
    return [f"{tests} {said} one in twenty still comes out with p < 0.05."] if tests > 1 else []
