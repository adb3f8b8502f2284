"""Whole videos of S snippets → windows of T steps, as the released code cuts them."""

from __future__ import annotations

import numpy as np


def train_window(embedding: np.ndarray, window: int = 256) -> tuple[np.ndarray, int]:
    """One window for training: zero-padded where S ≤ T, else T means over uniform stretches of the video.

    embedding: (S, D). Returns the window (T, D) in the embedding's type and its number of valid steps.
    """
    S, D = embedding.shape
    if S <= window:
        return _padded(embedding, window), S
    edges = np.linspace(0, S, window + 1).astype(int)
    reduced = np.empty((window, D), embedding.dtype)
    for row, start, stop in zip(reduced, edges[:-1], edges[1:], strict=True):
        # sum in place, divide once below: the bits of np.mean at a quarter of its time
        np.add.reduce(embedding[start:stop], axis=0, out=row)
    reduced /= np.diff(edges)[:, None].astype(embedding.dtype)
    return reduced, window


def test_windows(embedding: np.ndarray, window: int = 256) -> np.ndarray:
    """All windows of a video for testing: one zero-padded window where S < T, else ⌊S/T⌋ + 1 consecutive ones.

    embedding: (S, D). Returns (W, T, D); the last window is all padding where S is a multiple of T.
    """
    S, D = embedding.shape
    count = S // window + 1
    return _padded(embedding, count * window).reshape(count, window, D)


def window_lengths(S: int, window: int = 256) -> np.ndarray:
    """Valid steps of each window that `test_windows` cuts from S snippets: (W,) int64, the last may be 0."""
    return np.clip(S - window * np.arange(S // window + 1), 0, window)


def _padded(embedding: np.ndarray, steps: int) -> np.ndarray:
    out = np.zeros((steps, embedding.shape[1]), embedding.dtype)
    out[: len(embedding)] = embedding
    return out
