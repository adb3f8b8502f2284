"""Masking probes: scores and modality weights when one modality is damaged (Section 4.2, Tables 6–9, Figure 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from vad.catalog import Dataset
from vad.errors import InputError
from vad.metrics import binary_kl, evaluate
from vad.scoring import ScoredVideo, Transform

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)  # shares of Tables 6–9
AXES = ("feature", "time")
MASKED = {"event": "EV_NOISE", "image": "IMG_NOISE"}  # the tables' names, in their order
TIME_FACTOR = 0.01  # what a masked time step is multiplied by in the released probe

Score = Callable[[Transform | None], Sequence[ScoredVideo]]


@dataclass(frozen=True)
class Probes:
    """The answers to all levels of both modalities.

    table: one row a condition, columns of Tables 6–9 (`masked, level, AUC|AP, brier, kl, w_image …`); every number a
    fraction, so the paper's AUC of 89.09 stands as 0.8909.
    weight_change: (masked modality, level) → (D,) change of ŵ_i against the clean run, mean over all snippets.
    """

    table: pd.DataFrame
    weight_change: Mapping[tuple[str, float], np.ndarray]


def mask(embedding: np.ndarray, share: float, axis: str, rng: np.random.Generator) -> np.ndarray:
    """Damaged copy of an (S, D) embedding; the input is left alone.

    "feature": round(share · D) dimensions, the same for the whole video, are 0 (Section 4.2).
    "time": round(share · S) snippets are multiplied by 0.01 (the released probe).
    """
    if axis not in AXES:
        raise InputError(f"unknown mask axis {axis!r}; known are {', '.join(AXES)}")
    if not 0 <= share <= 1:
        raise InputError(f"a share of {share:g} cannot be masked; give one from 0 to 1")
    masked = np.array(embedding)
    length = masked.shape[1 if axis == "feature" else 0]
    # an exact count rather than a coin for each: the level is then what it says for every video
    chosen = rng.choice(length, round(share * length), replace=False)
    if axis == "feature":
        masked[:, chosen] = 0
    else:
        masked[chosen] *= TIME_FACTOR
    return masked


def masking(modality: str, level: float, axis: str, seed: int) -> Transform:
    """Transform that masks one modality and leaves the other alone.

    The choice depends on seed, modality, level and the video's name only: neither the order of the videos nor the
    way they are batched changes it.
    """

    def transform(given: str, embedding: np.ndarray, name: str) -> np.ndarray:
        if given != modality:
            return embedding
        key = hashlib.sha256(f"{seed}|{modality}|{level:g}|{name}".encode()).digest()
        return mask(embedding, level, axis, np.random.default_rng(int.from_bytes(key, "little")))

    return transform


def mean_weight_by_dimension(videos: Sequence[ScoredVideo]) -> np.ndarray:
    """ŵ_i of each dimension (D,), mean over all snippets of all videos."""
    lengths = np.array([len(video.scores) for video in videos], np.float64)
    return lengths @ np.stack([video.weight_image_by_dimension for video in videos]) / lengths.sum()


def run_probes(
    score: Score,
    dataset: Dataset,
    *,
    axis: str = "feature",
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
) -> Probes:
    """Scores the test videos clean, then with either modality masked at every level.

    score: runs the inference loop with a transform of the embeddings (None: as they are).
    Raises InputError for an unknown axis, a level outside 0 … 1 or given twice, before anything is scored.
    """
    twice = next((level for k, level in enumerate(levels) if level in levels[:k]), None)
    if twice is not None:
        raise InputError(f"the level {twice:g} is given twice; give each once")
    for level in levels:
        mask(np.zeros((1, 1)), level, axis, np.random.default_rng(0))
    clean = score(None)
    base = mean_weight_by_dimension(clean)
    rows = [_row("CLEAN", 0.0, clean, clean, dataset)]
    change: dict[tuple[str, float], np.ndarray] = {}
    conditions = [(modality, level) for modality in MASKED for level in levels]
    with tqdm(conditions, desc="probes", unit="condition") as bar:
        for modality, level in bar:
            bar.set_postfix_str(f"{modality} {level:g}")
            videos = score(masking(modality, level, axis, seed))
            rows.append(_row(MASKED[modality], level, clean, videos, dataset))
            change[modality, level] = mean_weight_by_dimension(videos) - base
    return Probes(pd.DataFrame(rows), change)


def _row(
    masked: str, level: float, clean: Sequence[ScoredVideo], videos: Sequence[ScoredVideo], dataset: Dataset
) -> dict[str, str | float]:
    """One row of Tables 6–9, columns in the paper's order."""
    found = evaluate(videos, dataset)
    weights = {name: value for name, value in found.items() if name.startswith("w_")}
    return {
        "masked": masked,
        "level": level,
        dataset.metric: found[dataset.metric],
        "brier": found["Brier"],
        "kl": binary_kl(clean, videos),
        **weights,
    }
