"""Frame labels of test videos from a data set's table or from frame masks, checked against the videos.

Some published annotation starts 11 frames past its video's last snippet. So a contradiction is refused from
one snippet (16 frames) past the end on; what may be right is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vad.datasets import SNIPPET_FRAMES, Dataset
from vad.files import InputError

PAST_END = "anomalies end a snippet or more past the last snippet, and are cut"
OTHER_LENGTH = "embeddings are longer or shorter than the table's frames by more than a snippet"
NO_ANOMALY = "anomalous videos without an anomalous frame"


class LabelledVideo(NamedTuple):
    """One video of a test list."""

    name: str
    label: str
    snippets: int  # S

    @property
    def frames(self) -> int:
        """Frames that the snippets stand for."""
        return SNIPPET_FRAMES * self.snippets


def read_masks(path: Path, dataset: Dataset) -> dict[str, np.ndarray]:
    """Frame masks (frames,) uint8 by video, from a folder of <video>.npy or an .npz of one key a video.

    Raises InputError for another content, and for two masks of one video.
    """
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays = {}
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        raise InputError(f"{path}: cannot read the frame masks ({error}); save them again") from None
    if not arrays:
        raise InputError(f"{path}: holds no mask; give a folder of <video>.npy, or an .npz of them")
    masks: dict[str, np.ndarray] = {}
    for name, mask in arrays.items():
        if mask.ndim != 1 or mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
            raise InputError(f"{path}: the mask of {name} is no row of zeros and ones, one a frame")
        if dataset.key(name) in masks:
            raise InputError(f"{path}: two masks mean the video {dataset.key(name)}; keep one")
        masks[dataset.key(name)] = mask.astype(np.uint8)
    return masks


def label_videos(
    dataset: Dataset, split: str, videos: Sequence[LabelledVideo], masks: Path | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Labels (16·S,) uint8 of each video's frames, and sentences on what looks odd.

    masks: see `read_masks`; a normal video needs none. Raises InputError where a video is not annotated,
    or its annotation cannot belong to it.
    """
    source = masks or dataset.annotation_path
    by_name = read_masks(masks, dataset) if masks else {}
    labels: list[np.ndarray] = []
    odd: dict[str, list[str]] = {sentence: [] for sentence in (PAST_END, OTHER_LENGTH, NO_ANOMALY)}
    for video in videos:
        where = f"{source}: {video.name}"
        if masks:
            labels.append(_from_mask(dataset, video, by_name.get(dataset.key(video.name)), where))
        else:
            labels.append(_from_table(dataset, split, video, where, odd))
        if dataset.is_anomalous(video.label) and not labels[-1].any():
            odd[NO_ANOMALY].append(video.name)
    return labels, [f"{sentence}: {', '.join(names)}" for sentence, names in odd.items() if names]


def _from_mask(dataset: Dataset, video: LabelledVideo, mask: np.ndarray | None, where: str) -> np.ndarray:
    anomalous = dataset.is_anomalous(video.label)
    if mask is None and not anomalous:
        return np.zeros(video.frames, np.uint8)
    if mask is None:
        raise InputError(f"{where}: a test video labelled {video.label} has no mask here; add one")
    # a tail of up to 31 frames is no whole snippet under the released rule
    if not 0 <= len(mask) - video.frames < 2 * SNIPPET_FRAMES:
        raise InputError(
            f"{where}: a mask of {len(mask)} frames for {video.snippets} snippets of {SNIPPET_FRAMES}, which "
            f"cannot be one video's; give masks of these videos"
        )
    if mask.any() != anomalous:
        frames = "anomalous frames" if mask.any() else "no anomalous frame"
        raise InputError(f"{where}: labelled {video.label}, but its mask has {frames}; correct one of the two")
    return mask[: video.frames]


def _from_table(
    dataset: Dataset, split: str, video: LabelledVideo, where: str, odd: Mapping[str, list[str]]
) -> np.ndarray:
    annotated = dataset.find(video.name)
    if annotated is None:
        raise InputError(f"{where}: a test video labelled {video.label} has no row here; add one")
    if dataset.is_anomalous(annotated.label) != dataset.is_anomalous(video.label):
        raise InputError(f"{where}: {annotated.label} here, but {video.label} in the list; correct one of the two")
    intervals = dataset.intervals(video.name, split)
    for start, end in intervals:
        if start >= video.frames + SNIPPET_FRAMES:
            raise InputError(
                f"{where}: the anomaly {start}-{end} starts after its {video.frames} frames; "
                f"are these its frame numbers?"
            )
        if end > video.frames + SNIPPET_FRAMES and video.name not in odd[PAST_END]:
            odd[PAST_END].append(video.name)
    frames = annotated.frames or video.frames
    if abs(frames - video.frames) >= 2 * SNIPPET_FRAMES:
        if not 2 / 3 < video.frames / frames < 3 / 2:
            raise InputError(
                f"{where}: {frames} frames here, but {video.snippets} snippets of {SNIPPET_FRAMES} in its embeddings; "
                f"extract the video at its own frame rate, or correct the table"
            )
        odd[OTHER_LENGTH].append(video.name)
    return dataset.frame_labels(video.name, video.frames, split)
