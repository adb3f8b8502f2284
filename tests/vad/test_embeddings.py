"""Embedding files: number types, and what is kept of them in memory."""

from __future__ import annotations

import numpy as np
import pytest

from vad.embeddings import KeptEmbeddings, convert, load_embedding
from vad.errors import InputError


def test_all_float16_numbers_widen_to_the_bits_that_numpy_gives():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    ours, numpys = convert(every, np.float32), every.astype(np.float32)
    number = ~np.isnan(every)
    np.testing.assert_array_equal(ours[number].view(np.uint32), numpys[number].view(np.uint32))
    assert np.isnan(ours[~number]).all()


def test_float32_narrows_to_the_bits_that_numpy_gives():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, dtype=np.uint32).view(np.float32)
    numbers = bits[~np.isnan(bits)]
    with np.errstate(over="ignore"):
        expected = numbers.astype(np.float16)
    np.testing.assert_array_equal(convert(numbers, np.float16).view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", "<i4"])
def test_every_number_type_is_read_as_float32(tmp_path, dtype):
    x = np.array([[1, 2], [3, -4]], dtype)
    np.save(tmp_path / "x.npy", x)
    loaded = load_embedding(tmp_path / "x.npy", "refuse")
    assert loaded.dtype == np.float32 and loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, [[1, 2], [3, -4]])


def test_what_is_kept_is_read_once_and_what_does_not_fit_each_time(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((2, 4), number, np.float32))  # 32 bytes each
    kept = KeptEmbeddings(most_bytes=64)
    for number in range(3):
        np.testing.assert_array_equal(kept(tmp_path / f"{number}.npy", "refuse"), np.full((2, 4), number))
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((2, 4), 9, np.float32))
    assert [kept(tmp_path / f"{number}.npy", "refuse")[0, 0] for number in range(3)] == [0, 1, 9]
    with pytest.raises(ValueError, match="read-only"):
        kept(tmp_path / "0.npy", "refuse")[0] = 1


def test_nan_is_refused_also_by_what_keeps(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 4), np.nan, np.float32))
    kept = KeptEmbeddings()
    assert (kept(tmp_path / "x.npy", "zero") == 0).all()
    with pytest.raises(InputError, match="has NaN in 2 of its 2 snippets"):
        kept(tmp_path / "x.npy", "refuse")
