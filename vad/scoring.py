"""The only inference loop: videos in, snippet scores and modality weights out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredVideo:
    """What the model says about one video of S snippets, beside what is true of it."""

    name: str
    label: str  # of the catalogue
    scores: np.ndarray  # (S,) float32, anomaly probability of each snippet
    weight_image: np.ndarray  # (S,) float32, ŵ_i averaged over the D dimensions
    weight_event: np.ndarray  # (S,) float32, ŵ_e
    weight_image_by_dimension: np.ndarray  # (D,) float32, ŵ_i averaged over the S snippets
    frame_labels: np.ndarray  # (16·S,) uint8, 1 in anomalous frames
