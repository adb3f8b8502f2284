"""Frame labels of test videos, from a data set's table or from frame masks, checked against the videos.

A published annotation starts up to 11 frames after the last snippet of its video. Therefore an anomaly is refused
only if it starts at least one snippet (16 frames) after the end. Smaller deviations give a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vad.datasets import SNIPPET_FRAMES, Dataset
from vad.files import InputError

PAST_END = "anomalies end at least one snippet after the last snippet and are cut"
OTHER_LENGTH = "the length of the embeddings differs from the table by more than one snippet"
NO_ANOMALY = "anomalous videos without anomalous frames"


class LabelledVideo(NamedTuple):
    """One video of a test list."""

    name: str
    label: str
    snippets: int  # S

    @property
    def frames(self) -> int:
        """Return the number of frames covered by the snippets."""
        return SNIPPET_FRAMES * self.snippets


def read_masks(path: Path, dataset: Dataset) -> dict[str, np.ndarray]:
    """Return video → frame mask (frames,) uint8, from a folder of <video>.npy or an .npz with a key per video.

    Raises InputError for other content, and for two masks of one video.
    """
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays = {}
    except Exception as error:  # numpy and zipfile raise many types for a damaged file
        raise InputError(f"{path}: cannot read the frame masks ({error}). Save them again.") from None
    if not arrays:
        raise InputError(f"{path} contains no masks. Give a folder of <video>.npy files, or an .npz file.")
    masks: dict[str, np.ndarray] = {}
    for name, mask in arrays.items():
        if mask.ndim != 1 or mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
            raise InputError(f"{path}: the mask of {name} must be a 1-D array with one 0 or 1 per frame.")
        if dataset.key(name) in masks:
            raise InputError(f"{path} has two masks of the video {dataset.key(name)}. Remove one.")
        masks[dataset.key(name)] = mask.astype(np.uint8)
    return masks


def label_videos(
    dataset: Dataset, split: str, videos: Sequence[LabelledVideo], masks: Path | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Return the frame labels (16·S,) uint8 of each video, and warnings.

    masks: see `read_masks`; normal videos need no mask. Raises InputError for a video without annotation, and for
    an annotation that cannot belong to its video.
    """
    source = masks or dataset.annotation_path
    by_name = read_masks(masks, dataset) if masks else {}
    labels: list[np.ndarray] = []
    warnings: dict[str, list[str]] = {text: [] for text in (PAST_END, OTHER_LENGTH, NO_ANOMALY)}
    for video in videos:
        location = f"{source}: {video.name}"
        if masks:
            labels.append(_from_mask(dataset, video, by_name.get(dataset.key(video.name)), location))
        else:
            labels.append(_from_table(dataset, split, video, location, warnings))
        if dataset.is_anomalous(video.label) and not labels[-1].any():
            warnings[NO_ANOMALY].append(video.name)
    return labels, [f"{text}: {', '.join(names)}" for text, names in warnings.items() if names]


def _from_mask(dataset: Dataset, video: LabelledVideo, mask: np.ndarray | None, location: str) -> np.ndarray:
    anomalous = dataset.is_anomalous(video.label)
    if mask is None and not anomalous:
        return np.zeros(video.frames, np.uint8)
    if mask is None:
        raise InputError(f"{location}: this test video (label {video.label}) has no mask. Add one.")
    # under the released tail rule up to 31 frames at the end belong to no snippet
    if not 0 <= len(mask) - video.frames < 2 * SNIPPET_FRAMES:
        raise InputError(
            f"{location}: the mask has {len(mask)} frames, which do not fit {video.snippets} snippets of "
            f"{SNIPPET_FRAMES} frames. Give the masks of these videos."
        )
    if mask.any() != anomalous:
        frames = "anomalous frames" if mask.any() else "no anomalous frames"
        raise InputError(f"{location}: the label is {video.label}, but the mask has {frames}. Correct one of them.")
    return mask[: video.frames]


def _from_table(
    dataset: Dataset, split: str, video: LabelledVideo, location: str, warnings: Mapping[str, list[str]]
) -> np.ndarray:
    annotated = dataset.find(video.name)
    if annotated is None:
        raise InputError(f"{location}: this test video (label {video.label}) is not in the table. Add a row.")
    if dataset.is_anomalous(annotated.label) != dataset.is_anomalous(video.label):
        raise InputError(f"{location}: the label is {annotated.label}, but {video.label} in the list. Correct one.")
    intervals = dataset.intervals(video.name, split)
    for start, end in intervals:
        if start >= video.frames + SNIPPET_FRAMES:
            raise InputError(
                f"{location}: the anomaly {start}-{end} starts after the last of {video.frames} frames. "
                f"Check the frame numbers."
            )
        if end > video.frames + SNIPPET_FRAMES and video.name not in warnings[PAST_END]:
            warnings[PAST_END].append(video.name)
    frames = annotated.frames or video.frames
    if abs(frames - video.frames) >= 2 * SNIPPET_FRAMES:
        if not 2 / 3 < video.frames / frames < 3 / 2:
            raise InputError(
                f"{location}: the table has {frames} frames, but the embeddings have {video.snippets} snippets of "
                f"{SNIPPET_FRAMES}. Extract the video at its original frame rate, or correct the table."
            )
        warnings[OTHER_LENGTH].append(video.name)
    return dataset.frame_labels(video.name, video.frames, split)
