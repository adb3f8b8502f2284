"""Masking experiment: scores and fusion weights with one stream masked (Section 4.2, Tables 6–9, Figure 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from vad.datasets import Dataset
from vad.files import InputError
from vad.metrics import binary_kl, evaluate, weight_by_dimension
from vad.scoring import ScoredVideo, Transform

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)  # masking ratios of Tables 6–9
AXES = {
    "feature": "masking: feature dimensions set to 0",
    "time": "masking: time steps × 0.01",
    "window": "masking: time steps of each padded window × 0.01",
}
MASKED = {"event": "EV_NOISE", "image": "IMG_NOISE", "audio": "AU_NOISE"}  # the first two as in the paper's tables
STEP_FACTOR = 0.01  # the released code multiplies a masked time step by this


@dataclass(frozen=True)
class MaskingResponse:
    """The response of one model to masking each stream at every level."""

    table: pd.DataFrame  # columns of Tables 6–9: masked, level, AUC|AP, brier, kl (nats), w_image …, as fractions
    weight_change: Mapping[tuple[str, float], np.ndarray]  # (masked stream, level) → (D,) change in the first ŵ


def mask(embedding: np.ndarray, ratio: float, axis: str, rng: np.random.Generator, window: int) -> np.ndarray:
    """Return a masked copy of an (S, D) embedding.

    "feature": set round(ratio · D) dimensions, the same for the whole video, to 0 (Section 4.2).
    "time": multiply round(ratio · S) time steps by 0.01. "window": multiply ⌊ratio · T⌋ steps of every padded
    window of T steps by 0.01, as the released code does. Steps on the padding change nothing.
    """
    masked = np.array(embedding)
    S, D = masked.shape
    if axis == "feature":
        masked[:, rng.choice(D, round(ratio * D), replace=False)] = 0
    elif axis == "time":
        masked[rng.choice(S, round(ratio * S), replace=False)] *= STEP_FACTOR
    else:
        for start in range(0, S, window):
            steps = start + rng.choice(window, int(ratio * window), replace=False)
            masked[steps[steps < S]] *= STEP_FACTOR
    return masked


def mask_stream(stream: str, level: float, axis: str, seed: int, window: int) -> Transform:
    """Return a transform that masks one stream and leaves the others unchanged.

    The mask depends only on seed, stream, level and video name, not on order or batching.
    """

    def transform(modality: str, embedding: np.ndarray, name: str) -> np.ndarray:
        if modality != stream:
            return embedding
        key = hashlib.sha256(f"{seed}|{stream}|{level:g}|{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key, "little"))
        return mask(embedding, level, axis, rng, window)

    return transform


def run_masking(
    score: Callable[[Transform | None], Sequence[ScoredVideo]], dataset: Dataset, *, axis: str = "feature",
    levels: Sequence[float] = LEVELS, seed: int = 0,
) -> MaskingResponse:  # fmt: skip
    """Score the test videos without masking, then with each stream masked at every level.

    score: scores the test videos after a transform of their embeddings (None: no transform).
    Raises InputError, before scoring, for a level outside [0, 1] or a repeated level.
    """
    for number, level in enumerate(levels):
        if not 0 <= level <= 1:
            raise InputError(f"--levels: {level:g} is no masking ratio. Give numbers from 0 to 1.")
        if level in levels[:number]:
            raise InputError(f"--levels: {level:g} is repeated. Give each level once.")
    clean = score(None)
    rows, change = [_row("CLEAN", 0.0, clean, clean, dataset)], {}
    conditions = [(stream, level) for stream in MASKED if stream in clean[0].weights for level in levels]
    for stream, level in tqdm(conditions, desc="masking", unit="condition"):
        videos = score(mask_stream(stream, level, axis, seed, dataset.window))
        rows.append(_row(MASKED[stream], level, clean, videos, dataset))
        change[stream, level] = weight_by_dimension(videos) - weight_by_dimension(clean)
    return MaskingResponse(pd.DataFrame(rows), change)


def _row(
    masked: str, level: float, clean: Sequence[ScoredVideo], videos: Sequence[ScoredVideo], dataset: Dataset
) -> dict[str, str | float]:
    """Return one row of Tables 6–9, with columns in the paper's order."""
    metrics = evaluate(videos, dataset)
    numbers = {dataset.metric: metrics[dataset.metric], "brier": metrics["Brier"], "kl": binary_kl(clean, videos)}
    weights = {name: value for name, value in metrics.items() if name.startswith("w_")}
    return {"masked": masked, "level": level, **numbers, **weights}
