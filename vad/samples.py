"""What a list's rows are once their embeddings have been found: samples, and test videos with their truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One row of a list, found on disk: a video seen through one crop."""

    video: str
    label: str
    anomalous: bool
    crop: int
    paths: tuple[Path | None, Path | None]  # image, event; None for a stream that is not used
    snippets: int  # S
    half: tuple[bool, bool] = (False, False)  # whether image and event embedding are float16


@dataclass(frozen=True)
class TestVideo:
    """One test video: its crops, and the truth about its frames."""

    name: str
    label: str
    crops: tuple[Sample, ...]
    frame_labels: np.ndarray  # (16·S,) uint8

    @property
    def snippets(self) -> int:
        """S, the same for every crop."""
        return self.crops[0].snippets
