"""Embed a live source snippet by snippet, as it comes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from extracting.clip.encoder import Encoder
from extracting.config import Config
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import check_opencv

MIRRORED_CENTRE = 5  # the crop used for evaluation


class SnippetEncoder:
    """Embeds one snippet at a time, with the mirrored centre crop.

    Event counts are divided by the clamp, although scaling "block" divides by the largest count in 32 snippets,
    which a live source does not know yet. In real footage that count is nearly always the clamp.
    """

    def __init__(self, encoders: Mapping[str, Encoder], config: Config) -> None:
        """encoders: modality → encoder."""
        check_opencv()
        self._encoders, self._threshold = encoders, config.event_threshold
        self._counter, self._crops = EventCounter(), (MIRRORED_CENTRE,)
        self._scaling = EventScaling(self._crops, config.event_clamp, "clamp")

    def __call__(self, frames: np.ndarray) -> dict[str, Tensor]:
        """Return modality → embedding (D,) float32 of a snippet (16, 256, 340, 3) BGR uint8."""
        embeddings = {}
        if "image" in self._encoders:
            rows = self._encoders["image"].images(torch.from_numpy(frames)[None], self._crops)
            embeddings["image"] = rows[0, 0]
        if "event" in self._encoders:
            ((clamped, divisors),) = self._scaling.add(self._counter.count(frames, self._threshold))
            maps = (torch.from_numpy(clamped)[None], torch.from_numpy(divisors)[None])
            embeddings["event"] = self._encoders["event"].events(*maps, self._crops)[0, 0]
        return embeddings
