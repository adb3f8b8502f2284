"""The audit of the ground truth: its length, its positives, its annotation; and the frames each split should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vad.annotations import frame_labels, read_annotation
from vad.audit_files import Embeddings
from vad.audit_report import Row, none_of, not_checked
from vad.catalog import SNIPPET_FRAMES, Dataset
from vad.errors import InputError
from vad.frame_counts import TAILS, Range, frames_of, in_words, predict, read_counts
from vad.lists import Item
from vad.truth import load_ground_truth, load_labels, noted_videos

Video = tuple[str, str, int]  # name, label, S


def audit_truth(
    dataset: Dataset,
    split: str,
    annotation_root: Path | None,
    gt_path: Path,
    items: Sequence[Item],
    snippets: Mapping[str, int],
) -> list[Row]:
    """Rows on gt.npy: against the videos of the test list, class by class, and against the annotation.

    snippets: S by `dataset.key`, from the embeddings; where they are not at hand, the note beside gt.npy tells.
    """
    check = "frames of the ground truth"
    if not gt_path.is_file():
        return [not_checked(check, f"no {gt_path.name}")]
    labels = {item.video: item.label for item in items}
    try:
        noted = dict(noted_videos(gt_path))
        lengths = {name: snippets[dataset.key(name)] for name in labels if dataset.key(name) in snippets}
        if len(lengths) < len(labels):
            lengths = {name: noted[name] // SNIPPET_FRAMES for name in labels if name in noted}
        if noted and len(lengths) < len(labels):
            lacking = sorted(set(labels) - set(lengths))
            return [Row(check, "wrong", None, True, f"the note beside {gt_path.name} lacks videos", tuple(lacking))]
        if not labels or len(lengths) < len(labels):
            unknown = not_checked("frames of each test video", "no embeddings, and no note beside the ground truth")
            return [Row(check, len(load_labels(gt_path))), unknown]
        videos = [(name, label, lengths[name]) for name, label in labels.items()]
        parts = load_ground_truth(gt_path, [(name, length) for name, _, length in videos])
    except InputError as error:
        return [Row(check, "wrong", None, True, str(error))]
    return [
        Row(check, sum(map(len, parts)), SNIPPET_FRAMES * sum(lengths.values())),
        *_positives(dataset, videos, parts),
        *_against_annotation(dataset, split, annotation_root, videos, parts),
    ]


def _positives(dataset: Dataset, videos: Sequence[Video], parts: Sequence[np.ndarray]) -> list[Row]:
    """Anomalous frames of every class; normal videos should have none, anomalous ones some."""
    sums: dict[str, int] = {}
    wrong: list[str] = []
    unmarked: list[str] = []
    for (name, label, _), part in zip(videos, parts, strict=True):
        try:
            key = dataset.class_key(label)
        except InputError:
            continue  # an unknown class is a finding of the lists
        sums[key] = sums.get(key, 0) + int(part.sum())
        if part.any() and not dataset.is_anomalous(label):
            wrong.append(name)
        if dataset.is_anomalous(label) and not part.any():
            unmarked.append(name)
    order = dict.fromkeys([*dataset.classes, *sorted(sums)])
    kinds = [key for key in order if key in sums and key != dataset.normal]
    rows = [Row(f"  anomalous frames, {dataset.classes.get(key, key)}", sums[key]) for key in kinds]
    return [
        Row("anomalous frames", sum(sums.values())),
        *rows,
        none_of("normal videos with anomalous frames", wrong),
        none_of("anomalous videos without an anomalous frame", unmarked),
    ]


def _against_annotation(
    dataset: Dataset, split: str, root: Path | None, videos: Sequence[Video], parts: Sequence[np.ndarray]
) -> list[Row]:
    check = "videos whose frames differ from the annotation"
    files = dataset.annotations[split]
    path = dataset.annotation_file(files.annotation, root)
    if not path.exists():
        return [not_checked(check, f"no {path.name}")]
    annotation = read_annotation(path, files.form)
    marks = annotation.of(dataset)
    different: list[str] = []
    absent: list[str] = []
    for (name, label, length), part in zip(videos, parts, strict=True):
        mark = marks.get(dataset.key(name))
        if mark is None and (annotation.complete or dataset.is_anomalous(label)):
            absent.append(name)
            continue
        try:
            there = frame_labels(() if mark is None else mark, length)
        except InputError as error:
            different.append(f"{name}: {error}")
            continue
        if not np.array_equal(there, part):
            different.append(f"{name}: {int((there != part).sum())} frames")
    return [none_of(check, different, annotation.source.name), none_of("test videos the annotation lacks", absent)]


def audit_frames(
    dataset: Dataset, names: set[str], embeddings: Embeddings, counts: Sequence[Path]
) -> list[Row]:
    """How many frames the test videos of each split have under each tail rule, as far as lengths are known.

    names: keys of the test videos at hand, of either split; the catalogue says which the other split has.
    """
    lengths: dict[str, Range] = {key: frames_of(S, embeddings.tail) for key, S in embeddings.snippets.items()}
    for name, record in embeddings.records.items():
        if isinstance(record.get("frames"), int):
            lengths[dataset.key(name)] = (record["frames"], record["frames"])
    for path in counts:
        lengths |= read_counts(path, dataset)
    official = dataset.annotations["official"]
    moved = {dataset.key(name) for name in official.to_test}
    returned = {dataset.key(name) for name in official.to_train}
    splits = {"official": (names | moved) - returned, "released": (names | returned) - moved}
    if splits["official"] == splits["released"]:
        splits = {"": names}
    rows = []
    for split, members in splits.items():
        known = [lengths[key] for key in members if key in lengths]
        what = f"{split} split, {len(members)} test videos" if split else f"{len(members)} test videos"
        for tail in TAILS if known else ():
            lacking = len(members) - len(known)
            note = f"{lacking} videos of unknown length are not counted" if lacking else ""
            rows.append(Row(f"frames: {what}, {tail} tail", in_words(predict(known, tail)), None, False, note))
    return rows or [not_checked("frames of each split", "no embeddings, no --frame_counts")]
