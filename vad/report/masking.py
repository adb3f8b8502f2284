"""Masking probe: scores and weights with one stream masked (Section 4.2, Tables 6–9, Figure 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from vad.datasets import Dataset
from vad.files import InputError
from vad.metrics import binary_kl, evaluate
from vad.scoring import ScoredVideo, Transform

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)  # shares of Tables 6–9
AXES = {
    "feature": "a share of the feature dimensions set to 0",
    "time": "a share of the time steps × 0.01",
    "window": "a share of the steps of every padded window × 0.01",
}
MASKED = {"event": "EV_NOISE", "image": "IMG_NOISE"}  # the tables' names, in the tables' order
STEP_FACTOR = 0.01  # what a masked time step is multiplied by in the released probe


@dataclass(frozen=True)
class MaskingResponse:
    """What masking either stream at every level does to one model."""

    table: pd.DataFrame  # Tables 6–9: masked, level, AUC|AP, brier, kl (nats), w_image …; fractions
    weight_change: Mapping[tuple[str, float], np.ndarray]  # (masked stream, level) → (D,) Δŵ_i


def mask(embedding: np.ndarray, share: float, axis: str, rng: np.random.Generator, window: int) -> np.ndarray:
    """Masked copy of an (S, D) embedding.

    "feature": round(share · D) dimensions, the same for the whole video, are 0 (Section 4.2).
    "time": round(share · S) steps are multiplied by 0.01. "window": ⌊share · T⌋ steps of every padded
    window of T = window steps are (the released probe); those on padding change nothing.
    """
    masked = np.array(embedding)
    S, D = masked.shape
    if axis == "feature":
        masked[:, rng.choice(D, round(share * D), replace=False)] = 0
    elif axis == "time":
        masked[rng.choice(S, round(share * S), replace=False)] *= STEP_FACTOR
    else:
        for start in range(0, S, window):
            steps = start + rng.choice(window, int(share * window), replace=False)
            masked[steps[steps < S]] *= STEP_FACTOR
    return masked


def mask_stream(stream: str, level: float, axis: str, seed: int, window: int) -> Transform:
    """Transform that masks one stream and leaves the other unchanged.

    The choice depends on seed, stream, level and the video's name alone, not on order or batching.
    """

    def transform(given: str, embedding: np.ndarray, name: str) -> np.ndarray:
        if given != stream:
            return embedding
        key = hashlib.sha256(f"{seed}|{stream}|{level:g}|{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key, "little"))
        return mask(embedding, level, axis, rng, window)

    return transform


def run_masking(
    score: Callable[[Transform | None], Sequence[ScoredVideo]], dataset: Dataset, *, axis: str = "feature",
    levels: Sequence[float] = LEVELS, seed: int = 0,
) -> MaskingResponse:  # fmt: skip
    """Score the test videos unmasked, then with either stream masked at every level.

    score: scores the test videos under a transform of the embeddings (None: unchanged). Raises
    InputError before scoring for a level outside 0 … 1 or given twice.
    """
    for number, level in enumerate(levels):
        if not 0 <= level <= 1:
            raise InputError(f"a share of {level:g} cannot be masked; give one from 0 to 1")
        if level in levels[:number]:
            raise InputError(f"the level {level:g} is given twice; give each once")
    clean = score(None)
    rows, change = [_row("CLEAN", 0.0, clean, clean, dataset)], {}
    conditions = [(stream, level) for stream in MASKED for level in levels]
    for stream, level in tqdm(conditions, desc="masking", unit="condition"):
        videos = score(mask_stream(stream, level, axis, seed, dataset.window))
        rows.append(_row(MASKED[stream], level, clean, videos, dataset))
        change[stream, level] = _weight_by_dimension(videos) - _weight_by_dimension(clean)
    return MaskingResponse(pd.DataFrame(rows), change)


def _weight_by_dimension(videos: Sequence[ScoredVideo]) -> np.ndarray:
    """ŵ_i of each dimension, (D,), mean over all snippets of all videos."""
    lengths = [len(video.scores) for video in videos]
    return np.average([video.weight_image_by_dimension for video in videos], 0, lengths)


def _row(
    masked: str, level: float, clean: Sequence[ScoredVideo], videos: Sequence[ScoredVideo], dataset: Dataset
) -> dict[str, str | float]:
    """One row of Tables 6–9, columns in the paper's order."""
    metrics = evaluate(videos, dataset)
    numbers = {dataset.metric: metrics[dataset.metric], "brier": metrics["Brier"], "kl": binary_kl(clean, videos)}
    weights = {name: value for name, value in metrics.items() if name.startswith("w_")}
    return {"masked": masked, "level": level, **numbers, **weights}
