"""Windows against the released code's, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from vad.windows import test_windows as windows_of
from vad.windows import train_window, window_lengths

SIZES = (1, 5, 255, 256, 257, 300, 511, 512, 513, 1000)


@pytest.mark.parametrize("S", SIZES)
def test_training_window_is_the_released_one(golden, S):
    case = golden("windows")
    window, length = train_window(case[f"in/{S}"])
    np.testing.assert_array_equal(window, case[f"train/{S}"])
    assert length == case[f"trainlen/{S}"]


@pytest.mark.parametrize("S", SIZES)
def test_test_windows_are_the_released_ones(golden, S):
    case = golden("windows")
    expected = case[f"test/{S}"]
    windows = windows_of(case[f"in/{S}"])
    np.testing.assert_array_equal(windows, expected if expected.ndim == 3 else expected[None])
    assert window_lengths(S).sum() == S == case[f"testlen/{S}"]
    assert len(window_lengths(S)) == len(windows)


def test_the_parity_file_holds_these_sizes(golden):
    assert {f"in/{S}" for S in SIZES} == {name for name in golden("windows").files if name.startswith("in/")}


def test_a_multiple_of_the_window_ends_in_a_window_of_padding():
    assert window_lengths(512).tolist() == [256, 256, 0]
    assert window_lengths(70, window=64).tolist() == [64, 6]
