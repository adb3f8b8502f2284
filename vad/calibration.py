"""Calibration: how far a score can be read as a probability. Expected calibration error and its reliability curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vad.metrics import Samples

BINS = 15  # of equal width, (k/15, (k+1)/15]; a score of exactly 0 is in the first


@dataclass(frozen=True)
class Reliability:
    """Frames gathered by their score; a bin without frames has NaN for both means."""

    edges: np.ndarray  # (bins + 1,)
    frames: np.ndarray  # (bins,) how many frames have their score in the bin
    score: np.ndarray  # (bins,) their mean score
    observed: np.ndarray  # (bins,) the share of them that is anomalous

    @property
    def error(self) -> float:
        """Expected calibration error Σ_b n_b/n · |observed_b − score_b|; NaN without frames."""
        if not self.frames.any():
            return float("nan")
        return float(np.nansum(self.frames * np.abs(self.observed - self.score)) / self.frames.sum())


def bin_sums(data: Samples, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """What reliability is made of, for each snippet: its bin, (N,), and its score summed over its frames, (N,)."""
    scores = data.scores.astype(np.float64)
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner, scores), scores * (data.positive + data.negative)


def reliability(data: Samples, bins: int = BINS) -> Reliability:
    """Mean score and share of anomalous frames in each of `bins` equal parts of [0, 1], weighted by frames."""
    place, score = bin_sums(data, bins)
    frames, total, positive = (
        np.bincount(place, weights, bins) for weights in (data.positive + data.negative, score, data.positive)
    )
    with np.errstate(invalid="ignore"):  # 0/0 in an empty bin: NaN is meant
        return Reliability(np.linspace(0, 1, bins + 1), frames, total / frames, positive / frames)


def calibration_error(data: Samples, bins: int = BINS) -> float:
    """Expected calibration error over frames, 15 bins of equal width; 0 where every score is its own frequency."""
    return reliability(data, bins).error
