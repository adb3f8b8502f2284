"""Statistics of results: bootstrap 95 % intervals over videos, and paired comparisons of runs.

The bootstrap resamples videos, because the frames of one video are correlated. A resample only changes
the weight of each video, so everything that depends on the scores is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import csr_matrix

from vad.datasets import Dataset
from vad.metrics import ALARM, BINS, PER_VIDEO, Samples, in_ano_auc, samples, video_spread, within_videos
from vad.scoring import ScoredVideo

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
POWER = 0.8  # probability of showing a difference that exists
CHUNK = 50  # resamples per batch, to limit memory
SIGN_PATTERNS = 9999  # of the sign-flip test: all patterns for up to 13 pairs, otherwise random ones
PAIRED_NOTE = "95 % interval: Student's t of the paired differences; p: sign-flip test."


def draw_counts(videos: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Return how often each resample contains each video, (R, V) float64. Rows sum to V.

    The resampling is not stratified, so the share of anomalous videos varies too.
    """
    drawn = np.random.default_rng(SEED).integers(videos, size=(resamples, videos))
    return np.stack([np.bincount(row, minlength=videos) for row in drawn]).astype(np.float64)


def resample(
    videos: Sequence[ScoredVideo], dataset: Dataset, *, ano_auc: str = "abnormal", resamples: int = RESAMPLES
) -> dict[str, np.ndarray]:
    """Return AUC, AP, Ano-AUC, FAR@0.5, Brier, ECE and `PER_VIDEO` of every resample, (R,) each, NaN where undefined.

    The drawn videos do not depend on the scores, so all runs share the same resamples.
    """
    data, V = samples(videos), len(videos)
    owner = np.repeat(np.arange(V), [len(v.scores) for v in videos])  # video index of each snippet
    counts = draw_counts(V, resamples)
    abnormal = np.array([in_ano_auc(video.label, dataset, ano_auc) for video in videos])
    normal = np.array([not dataset.is_anomalous(video.label) for video in videos])
    alarms = data.negative * (data.scores >= ALARM)
    parts = (data.frames, data.negative, alarms, data.squared_errors)
    frames, negative, alarms, errors = (np.bincount(owner, values, V) for values in parts)
    # ECE is Σ_b |Σ positive − Σ score| / n: the number of frames of a bin cancels
    gaps = data.positive - data.scores.astype(np.float64) * data.frames
    gaps = np.bincount(BINS * owner + data.bins, gaps, BINS * V).reshape(V, BINS)
    aucs, pairs = within_videos(videos)
    drawn = (np.repeat(np.arange(V), row) for row in counts.astype(int))
    spreads = pd.DataFrame([video_spread(aucs[row], pairs[row]) for row in drawn])
    with np.errstate(invalid="ignore"):  # 0/0 gives NaN in a resample without the required frames
        auc, precision = _areas(data, owner, counts)
        return {
            "AUC": auc,
            "AP": precision,
            "Ano-AUC": _areas(data, owner, counts * abnormal)[0],
            "FAR@0.5": counts @ (normal * alarms) / (counts @ (normal * negative)),
            "Brier": counts @ errors / (counts @ frames),
            "ECE": np.abs(counts @ gaps).sum(1) / (counts @ frames),
            **{name: spreads[name].to_numpy() for name in PER_VIDEO},
        }


def _areas(data: Samples, owner: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC AUC and average precision of each resample, (R,) each.

    The thresholds are the K distinct scores of anomalous frames in descending order, and one below all scores.
    """
    thresholds = np.append(np.unique(-data.scores[data.positive > 0]), np.inf)
    position = np.searchsorted(thresholds, -data.scores)  # first threshold that the snippet reaches

    def table(frames: np.ndarray) -> csr_matrix:
        """Return the frames of each video that reach a threshold but not the previous one, (K + 1, V)."""
        nonzero = frames > 0
        entries = frames[nonzero].astype(np.float64), (position[nonzero], owner[nonzero])
        return csr_matrix(entries, (len(thresholds), counts.shape[1]))

    tied = data.negative * (thresholds[position] == -data.scores)
    tables = [table(frames) for frames in (data.positive, data.negative, tied)]
    areas = np.empty((2, len(counts)))
    for start in range(0, len(counts), CHUNK):
        chunk = slice(start, start + CHUNK)
        times = np.ascontiguousarray(counts[chunk].T)
        hits, alarms, ties = (part @ times for part in tables)
        positive, negative = hits.cumsum(0), alarms.cumsum(0)
        # an anomalous frame counts 1 for every normal frame of a lower score and 1/2 for every tie
        won = (hits * (negative[-1] - negative + ties / 2)).sum(0)
        precision = (hits * (positive / np.maximum(positive + negative, 1))).sum(0)
        areas[:, chunk] = won / (positive[-1] * negative[-1]), precision / positive[-1]
    return areas[0], areas[1]


def intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return the central 95 % interval of each metric over its resamples, ignoring NaN."""
    tail = (1 - LEVEL) / 2
    defined = {name: values for name, values in resampled.items() if np.isfinite(values).any()}
    return {n: tuple(map(float, np.nanquantile(values, (tail, 1 - tail)))) for n, values in defined.items()}


@dataclass(frozen=True)
class PairedComparison:
    """Paired differences b − a of a metric over shared seeds, as fractions."""

    mean: float
    low: float  # limits of Student's t interval of the mean; NaN for one pair
    high: float
    p: float  # two-sided p value of the sign-flip test; NaN for one pair
    pairs: int
    higher: int  # pairs with b > a
    lower: int  # pairs with b < a

    @property
    def differs(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p < 1 - LEVEL

    def describe(self) -> str:
        """Return the comparison in one sentence, in percentage points."""
        points = f"{100 * self.mean:+.2f} points"
        if self.pairs == 1:
            return f"{points} in the only pair; one pair allows no significance test"
        interval = f"95 % interval {100 * self.low:+.2f} … {100 * self.high:+.2f}"
        test = f"p = {self.p:.3g}, higher in {self.higher} of {self.pairs} pairs"
        if self.differs:
            verdict = "higher" if self.mean > 0 else "lower"
        elif smallest_p(self.pairs) >= 1 - LEVEL:
            verdict = f"undecided, because {self.pairs} pairs cannot reach p < 0.05"
        else:
            verdict = "not significantly different from zero"
        return f"{points} ({interval}; {test}): {verdict}"


def compare_paired(a: Mapping[int, float], b: Mapping[int, float]) -> PairedComparison | None:
    """Compare two sets of runs (seed → metric) over their shared seeds. None without a defined pair."""
    d = np.array([b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())], np.float64)
    d = d[np.isfinite(d)]
    n = len(d)
    if n == 0:
        return None
    # not ttest_1samp, which gives no interval if all differences are equal
    half_width = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * stats.sem(d)) if n > 1 else math.nan
    p, mean = sign_flip_p(d) if n > 1 else math.nan, float(d.mean())
    return PairedComparison(mean, mean - half_width, mean + half_width, p, n, int((d > 0).sum()), int((d < 0).sum()))


def seeds_needed(std: float, difference: float = 0.01) -> int:
    """Return the number of paired runs that show a mean difference at the 5 % level with a power of 80 %.

    It is ((z_0.975 + z_0.8) · std / difference)², rounded up, for the standard deviation `std` of the paired
    differences. Source: any text on sample sizes, such as Cohen, Statistical Power Analysis, 1988.
    """
    z = stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(POWER)
    return math.ceil((z * std / difference) ** 2)


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p value of the sign-flip test of differences (n,). It is 1 if all are zero.

    Under the null hypothesis both signs of each difference are equally likely. p is the fraction of sign
    patterns whose sum is at least as far from zero as the observed sum.
    """
    test = stats.permutation_test(
        # rounded, because equal sums can differ in their last bits
        (differences,), lambda signed, axis: np.abs(signed.sum(axis)).round(12), permutation_type="samples",
        alternative="greater", vectorized=True, n_resamples=SIGN_PATTERNS, random_state=0,
    )  # fmt: skip
    return float(test.pvalue)


def smallest_p(pairs: int) -> float:
    """Return the smallest p value for n pairs: all differences have the same sign, 2 of 2^n patterns."""
    return min(1.0, 2.0 ** (1 - pairs))


def multiple_tests_note(tests: int) -> list[str]:
    """Return the note below a table with several tests, or nothing for a single test."""
    note = "tests, not corrected for multiple comparisons. Without any true effect, up to one in twenty has p < 0.05."
    return [f"{tests} {note}"] if tests > 1 else []
