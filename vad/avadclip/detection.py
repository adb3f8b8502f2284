"""Fine-grained detection: mean average precision of class segments at a temporal IoU (mAP@IoU).

The released code of AVadCLIP has this metric from VadCLIP, which has it from W-TALC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vad.datasets import SNIPPET_FRAMES, Intervals

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
DEPTH = 0.6  # frames above max − 0.6 (max − min) form proposals
VIDEO_SHARE = 0.7  # weight of the video's own score in that of a proposal
MIN_FRAMES = 2  # of a proposal
POOLED = 16  # the video's score is the mean of one frame in 16


@dataclass(frozen=True)
class DetectionMAP:
    """Average precision of each class at each IoU, as fractions."""

    ap: np.ndarray  # (C, I); 0 for a class without true segments
    proposals: np.ndarray  # (C,) number of proposals

    def mean(self, *, normal: bool) -> np.ndarray:
        """Return the mAP (I,) over all classes, or without the normal class 0.

        As in the released code, it is 0 at every IoU if one of these classes has no proposal in any video.
        """
        first = 0 if normal else 1
        return self.ap[first:].mean(0) * (self.proposals[first:] > 0).all()


def detection_map(
    scores: Sequence[np.ndarray],
    segments: np.ndarray,
    *,
    frames_per_score: int = SNIPPET_FRAMES,
    ious: Sequence[float] = IOUS,
) -> DetectionMAP:
    """Return the average precision of each class at each IoU.

    scores: per video (S, C), the softmax of the class logits, column 0 normal; segments: (M, 4) integers, the true
    segments as video, class, start and end in frames, half-open; frames_per_score: frames that a score stands for.

    A proposal is right if its IoU with an unused true segment of its video and class is at least the threshold; the
    true segment with the largest IoU is then used. Average precision is the sum of the precisions at right
    proposals, in the order of falling scores, over the number of true segments.
    """
    classes = scores[0].shape[1]
    ap, counts = np.zeros((classes, len(ious))), np.zeros(classes, int)
    for c in range(classes):
        found = [
            (score, video, start, end)
            for video, x in enumerate(scores)
            for score, start, end in proposals(np.repeat(x[:, c], frames_per_score))
        ]
        found.sort(key=lambda proposal: -proposal[0])
        counts[c] = len(found)
        true = segments[segments[:, 1] == c]
        if found and len(true):
            overlaps = [_iou(true, *proposal[1:]) for proposal in found]
            ap[c] = [_average_precision(overlaps, threshold) for threshold in ious]
    return DetectionMAP(ap, counts)


def proposals(frame_scores: np.ndarray) -> list[tuple[float, int, int]]:
    """Return score, start and end, half-open, of the proposals of one class in the frame scores (n,) of a video."""
    high, low = frame_scores.max(), frame_scores.min()
    pooled = np.sort(frame_scores)[::-1][: max(1, len(frame_scores) // POOLED)].mean()
    above = np.concatenate([[0], frame_scores > high - (high - low) * DEPTH, [0]]).astype(int)
    starts, ends = (np.flatnonzero(np.diff(above) == step) for step in (1, -1))
    return [
        (frame_scores[start:end].max() + VIDEO_SHARE * pooled, int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
        if end - start >= MIN_FRAMES
    ]


def class_segments(labels: np.ndarray, intervals: Sequence[Intervals], frames: Sequence[int]) -> np.ndarray:
    """Return the true segments (M, 4) for `detection_map` from annotated videos.

    labels: (V, C) multi-hot, column 0 for normal videos; intervals: anomalous frames per video, half-open; frames:
    length of each video. A normal video is one segment of class 0. Annotations give no class per interval, so each
    interval of a video with several classes counts for all of them.
    """
    rows = [
        (video, c, start, end)
        for video, length in enumerate(frames)
        for c in np.flatnonzero(labels[video])
        for start, end in (intervals[video] if c else ((0, length),))
    ]
    return np.array(rows, dtype=int).reshape(-1, 4)


def _iou(true: np.ndarray, video: int, start: int, end: int) -> np.ndarray:
    """Return the IoU (M,) of a proposal with true segments (M, 4), 0 for those of other videos."""
    common = (np.minimum(true[:, 3], end) - np.maximum(true[:, 2], start)).clip(min=0)
    union = (true[:, 3] - true[:, 2]) + (end - start) - common
    return np.where(true[:, 0] == video, common / union, 0.0)


def _average_precision(overlaps: Sequence[np.ndarray], threshold: float) -> float:
    """Return the average precision of proposals in falling order; overlaps: per proposal the IoU (M,)."""
    unused = np.ones(len(overlaps[0]), bool)
    hits, precisions = 0, 0.0
    for rank, overlap in enumerate(overlaps, 1):
        best = np.argmax(overlap * unused)
        if unused[best] and overlap[best] >= threshold:
            unused[best] = False
            hits += 1
            precisions += hits / rank
    return precisions / len(unused)
