"""Paired differences against SciPy's t interval and its permutation test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vad.comparison import compare_paired, sign_flip_p


@pytest.mark.parametrize("n", [2, 3, 5, 10, 13])
def test_interval_and_p_are_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.8, 0.05, n), rng.normal(0.83, 0.05, n)
    found = compare_paired(dict(enumerate(a)), dict(enumerate(b)))
    interval = stats.ttest_1samp(b - a, 0).confidence_interval()
    exact = stats.permutation_test((b - a,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.p == pytest.approx(exact.pvalue)
    assert found.mean == pytest.approx((b - a).mean()) and found.pairs == n


def test_known_p_values():
    """All five differences on one side: the pattern found and its mirror image, 2 of 32. No difference: all of them."""
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == 2 / 32
    assert sign_flip_p(np.zeros(4)) == 1
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1  # the sum is zero but for its last bits


def test_many_pairs_are_sampled_and_never_give_zero():
    ones = np.ones(40)
    assert sign_flip_p(ones) == 1 / 100_001
    mixed = np.random.default_rng(0).normal(0.35, 1, 21)
    exact = stats.permutation_test((mixed,), np.mean, permutation_type="samples", n_resamples=200_000, rng=1)
    assert sign_flip_p(mixed) == pytest.approx(exact.pvalue, abs=0.005)


def test_only_shared_seeds_with_numbers_count():
    found = compare_paired({0: 0.5, 1: 0.6, 2: math.nan, 3: 0.7}, {0: 0.6, 1: 0.7, 2: 0.8, 9: 0.1})
    assert found.pairs == 2 and found.mean == pytest.approx(0.1) and found.higher == 2
    assert compare_paired({0: 0.5}, {1: 0.5}) is None


def test_the_sentence_says_what_is_known():
    assert "one pair says nothing" in compare_paired({0: 0.5}, {0: 0.6}).words()
    five = {seed: 0.5 + 0.01 * seed for seed in range(5)}
    more = {seed: value + 0.1 + 0.001 * seed for seed, value in five.items()}
    # 2 of 32 patterns: 0.0625 is the smallest p of five pairs
    assert compare_paired(five, more).words().endswith("undecided, for 5 pairs cannot reach p < 0.05")
    six, seven = ({**values, 5: values[4], 6: values[4]} for values in (five, more))
    assert compare_paired(six, seven).words().endswith(": higher")
    assert compare_paired(seven, six).words().endswith(": lower")
    assert compare_paired(six, six).words().startswith("+0.00 points") and not compare_paired(six, six).differs
