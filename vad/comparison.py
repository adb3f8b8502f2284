"""Do two sets of runs differ? Paired by seed: mean difference, 95 % interval, exact sign-flip permutation test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
EXACT_PAIRS = 20  # up to here all 2^n signs are tried, beyond as many random ones

PAIRED_NOTE = "95 % interval: Student's t of the paired differences; p: sign-flip test."


@dataclass(frozen=True)
class Paired:
    """Differences b − a of runs with equal seeds, as fractions."""

    mean: float
    low: float  # ends of the interval of Student's t for the mean; NaN for one pair
    high: float
    p: float  # two-sided, of the sign-flip test; NaN for one pair
    pairs: int
    higher: int  # pairs in which b is higher
    lower: int  # pairs in which it is lower

    @property
    def differs(self) -> bool:
        """Whether the permutation test tells the difference from zero at 5 %."""
        return self.p < 1 - CONFIDENCE

    def words(self) -> str:
        """The comparison in one sentence, in points of a percentage."""
        found = f"{100 * self.mean:+.2f} points"
        if self.pairs == 1:
            return f"{found} in the one seed they share; one pair says nothing about chance"
        interval = f"95 % interval {100 * self.low:+.2f} … {100 * self.high:+.2f}"
        test = f"p = {self.p:.3g}, higher in {self.higher} of {self.pairs} seeds"
        if self.differs:
            verdict = "higher" if self.mean > 0 else "lower"
        elif smallest_p(self.pairs) >= 1 - CONFIDENCE:
            verdict = f"undecided, for {self.pairs} pairs cannot reach p < 0.05"
        else:
            verdict = "not told from zero"
        return f"{found} ({interval}; {test}): {verdict}"


def compare_paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """Compare two sets of runs, seed → metric, on the seeds they share; None where they share no defined pair.

    Under the null hypothesis either run of a pair could be a's: every sign of every difference is as likely, and p
    is the share of the 2^n sign patterns whose mean is at least as far from zero as the one found.
    """
    differences = np.array([b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())], np.float64)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n == 0:
        return None
    mean = float(differences.mean())
    low = high = p = math.nan
    if n > 1:
        reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
        low, high = mean - reach, mean + reach
        p = sign_flip_p(differences)
    return Paired(mean, low, high, p, n, int((differences > 0).sum()), int((differences < 0).sum()))


def smallest_p(pairs: int) -> float:
    """The p of differences that all point one way: that pattern and its mirror image among 2^n."""
    return min(1.0, 2.0 ** (1 - pairs))


def about_many(tests: int) -> list[str]:
    """What to say below a table of several tests, none of which is corrected for the others."""
    said = "tests stand here, none corrected for the others: where nothing differs, up to"
    return [f"{tests} {said} one in twenty still comes out with p < 0.05."] if tests > 1 else []


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the sign-flip test of (n,) differences: exact up to `EXACT_PAIRS`, else from as many random signs.

    Runs that are equal in every seed give 1.
    """
    n = len(differences)
    if n <= EXACT_PAIRS:
        sums = np.zeros(1)
        for difference in np.abs(differences):
            sums = np.concatenate([sums + difference, sums - difference])
        added = 0
    else:
        # the pattern that was found counts as one of the random ones, or p could be 0
        signs = np.random.default_rng(0).integers(0, 2, (100_000, n), dtype=np.int8) * 2 - 1
        sums, added = signs @ np.abs(differences), 1
    # equal sums of floats in another order differ in their last bits
    found = abs(float(differences.sum())) - 1e-12 * float(np.abs(differences).sum())
    return float((np.count_nonzero(np.abs(sums) >= found) + added) / (len(sums) + added))
