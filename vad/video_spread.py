"""One number a video: the AUC inside each video that has both kinds of frame, and how these numbers spread."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vad.metrics import PER_VIDEO, roc_auc, samples
from vad.scoring import ScoredVideo


def video_aucs(videos: Iterable[ScoredVideo]) -> dict[str, float]:
    """Name → frame-level AUC inside that video alone, for the videos that hold normal and anomalous frames.

    A frame-level AUC over all videos pools them: it can be high because abnormal videos score high from end to end.
    Inside one video only the place of the anomaly counts.
    """
    return {v.name: roc_auc(samples([v])) for v in videos if v.frame_labels.any() and not v.frame_labels.all()}


def video_spread(videos: Iterable[ScoredVideo]) -> dict[str, float]:
    """Median and quartiles of `video_aucs`, and the share of these videos below 0.5; NaN where there is none."""
    found = np.array(list(video_aucs(videos).values()))
    if not len(found):
        return dict.fromkeys(PER_VIDEO, float("nan"))
    lower, median, upper = np.quantile(found, (0.25, 0.5, 0.75))
    return dict(zip(PER_VIDEO, map(float, (median, lower, upper, (found < 0.5).mean())), strict=True))
