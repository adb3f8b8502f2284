"""Ground truth gt.npy: made from an annotation in the order of test.csv, and checked against it before use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.annotations import Annotation, Marks, frame_labels, read_annotation, video_name
from vad.catalog import MANIFEST, SNIPPET_FRAMES, Dataset
from vad.embeddings import embedding_shape
from vad.errors import InputError
from vad.files import read_json, sha256, write_json, write_whole
from vad.lists import Item, feature_root_of, read_csv, resolve_path
from vad.splits import split_files


@dataclass(frozen=True)
class TruthRequest:
    """What is asked of `make_ground_truth`; None stands for what the catalogue or the lists' note says."""

    dataset: Dataset
    split: str
    csv_path: Path
    save_path: Path  # a .npy file, or a folder that gets gt.npy
    annotation_path: Path | None = None
    annotation_root: Path | None = None
    annotation_form: str | None = None
    feature_root: Path | None = None


def make_ground_truth(ask: TruthRequest) -> list[str]:
    """Write gt.npy (uint8, a value a frame, in the order of the list) and its note; returns what came of it.

    Raises InputError, before anything is written, where an embedding or a video's annotation is missing.
    """
    items = read_csv(ask.csv_path, ask.dataset)
    root = ask.feature_root or feature_root_of(ask.csv_path)
    files = split_files(ask.dataset, ask.split)
    source = ask.annotation_path or ask.dataset.annotation_file(files.annotation, ask.annotation_root)
    annotation = read_annotation(source, ask.annotation_form or ("auto" if ask.annotation_path else files.form))
    videos = _snippets(items, root)
    labels = label_videos(annotation, ask.dataset, [(item.video, item.label, count) for item, count in videos])
    truth = np.concatenate(labels)
    stream = io.BytesIO()
    np.save(stream, truth)
    path = ask.save_path if ask.save_path.suffix == ".npy" else ask.save_path / "gt.npy"
    new = write_whole(path, stream.getvalue())
    write_json(path.with_suffix(".json"), {
        "videos": [
            {"name": item.video, "frames": len(part), "positive": int(part.sum())}
            for (item, _), part in zip(videos, labels, strict=True)
        ],
        "tail": recorded_tail(extraction_records([item for item, _ in videos], root).values()),
        "annotation": {
            "name": annotation.source.name,
            "form": annotation.form,
            "sha256": sha256(annotation.source),
        },
        "sha256": sha256(path),
    })
    return [
        f"{ask.dataset.title}, {annotation.source.name} ({annotation.form}): {len(videos)} videos, "
        f"{len(truth):,} frames, {int(truth.sum()):,} anomalous",
        *_unmarked(videos, labels, ask.dataset),
        f"{path}: {'written' if new else 'as before'}",
    ]


def _snippets(items: Sequence[Item], root: Path | None) -> list[tuple[Item, int]]:
    """The first row of each video with its S; InputError where the crops of a video differ in it or there is none."""
    first: dict[str, tuple[Item, int]] = {}
    for item in tqdm(items, desc="embedding headers", unit="file", leave=False, delay=1):
        path = resolve_path(item.path, root)
        count = embedding_shape(path)[0]
        if count == 0:
            raise InputError(f"{path}: holds no snippet; take the video out of the test list")
        known = first.setdefault(item.video, (item, count))
        if known[1] != count:
            raise InputError(f"{path}: {count} snippets, but {known[1]} in crop {known[0].crop} of this video")
    return list(first.values())


def label_videos(
    annotation: Annotation, dataset: Dataset, videos: Sequence[tuple[str, str, int]]
) -> list[np.ndarray]:
    """Frame labels, (16·S,) uint8 each, of (name, label, S) videos in the order given.

    A normal video need not stand in a form that names abnormal ones only. Raises InputError where a video is
    missing otherwise, and where a normal one has anomalous frames.
    """
    marks = annotation.of(dataset)
    return [
        _label(annotation, dataset, marks.get(dataset.key(name)), name, label, snippets)
        for name, label, snippets in videos
    ]


def _label(
    annotation: Annotation, dataset: Dataset, marks: Marks | None, name: str, label: str, snippets: int
) -> np.ndarray:
    anomalous = dataset.is_anomalous(label)
    if marks is None:
        if anomalous or annotation.complete:
            raise InputError(f"{annotation.source}: {name} ({label}) is a test video and is not annotated here")
        marks = ()
    try:
        labels = frame_labels(marks, snippets)
    except InputError as error:
        raise InputError(f"{annotation.source}: {name}: {error}") from None
    if labels.any() and not anomalous:
        raise InputError(f"{annotation.source}: {name} is labelled {label}, but has anomalous frames here")
    return labels


def _unmarked(
    videos: Sequence[tuple[Item, int]], labels: Sequence[np.ndarray], dataset: Dataset
) -> list[str]:
    names = [
        item.video
        for (item, _), part in zip(videos, labels, strict=True)
        if dataset.is_anomalous(item.label) and not part.any()
    ]
    return [f"anomalous videos without an anomalous frame: {', '.join(names)}"] if names else []


def extraction_records(items: Sequence[Item], root: Path | None) -> dict[str, dict[str, object]]:
    """What extraction recorded of the videos of these rows, by name: the last line of each in `manifest.jsonl`."""
    wanted = {item.video for item in items}
    records: dict[str, dict[str, object]] = {}
    folders = {parent for item in items for parent in resolve_path(item.path, root).parents[:2]}
    for manifest in sorted(folder / MANIFEST for folder in folders):
        if not manifest.is_file():
            continue
        for line in manifest.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                name = video_name(str(record["video"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line that a killed run left half written; its video has another or no embedding
            if name in wanted:
                records[name] = record
    return records


def recorded_tail(records: Iterable[Mapping[str, object]]) -> str | None:
    """Tail rule that extraction recorded for videos: its name, "mixed", or None where nothing is recorded."""
    rules = set()
    for record in records:
        settings = record.get("settings")
        rule = record.get("tail") or (settings.get("tail") if isinstance(settings, dict) else None)
        rules |= {str(rule)} if rule else set()
    return rules.pop() if len(rules) == 1 else "mixed" if rules else None


def load_ground_truth(gt_path: Path | str, videos: Sequence[tuple[str, int]]) -> list[np.ndarray]:
    """Frame labels, (16·S,) uint8 each, of (name, S) videos, in the order given, which must be the array's.

    With its note beside it (gt.json) names, order and lengths are compared; without one (the release's gt.npy)
    the length of the whole. Raises InputError naming the first video that differs.
    """
    gt_path = Path(gt_path)
    truth = load_labels(gt_path)
    lengths = [SNIPPET_FRAMES * snippets for _, snippets in videos]
    note = gt_path.with_suffix(".json")
    if note.is_file():
        _compare(gt_path, note, videos, lengths)
    if len(truth) != sum(lengths):
        raise InputError(
            f"{gt_path}: {len(truth)} frames, but the {len(videos)} test videos have {sum(lengths)};"
            " make both again: list/generate_file.py, list/generate_gt.py"
        )
    return np.split(truth, np.cumsum(lengths)[:-1]) if lengths else []


def load_labels(gt_path: Path) -> np.ndarray:
    """Frame labels (frames,) uint8 of a gt.npy as a whole; InputError for a file that does not hold zeros and ones."""
    try:
        truth = np.load(gt_path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{gt_path}: no ground truth; make it with list/generate_gt.py") from None
    except Exception as error:  # numpy raises many kinds for a broken file
        raise InputError(f"{gt_path}: not a .npy array ({error}); make it with list/generate_gt.py") from None
    if not isinstance(truth, np.ndarray) or truth.ndim != 1 or truth.dtype.kind not in "buif":
        raise InputError(f"{gt_path}: not one number a frame; make it with list/generate_gt.py")
    if not np.isin(truth, (0, 1)).all():
        raise InputError(f"{gt_path}: holds other values than 0 and 1; make it with list/generate_gt.py")
    return truth.astype(np.uint8)


def noted_videos(gt_path: Path) -> list[tuple[str, int]]:
    """Names and frames of the videos in the note beside gt.npy, in its order; empty where there is no note.

    Raises InputError for a note that is none.
    """
    note = gt_path.with_suffix(".json")
    return _read_note(note)[0] if note.is_file() else []


def _read_note(note: Path) -> tuple[list[tuple[str, int]], object]:
    """Names and frames of the videos, and the array's hash."""
    content = read_json(note, "note beside the ground truth")
    try:
        return [(str(video["name"]), int(video["frames"])) for video in content["videos"]], content["sha256"]
    except (KeyError, TypeError, ValueError):
        again = "make it again with list/generate_gt.py"
        raise InputError(f"{note}: not the note of a ground truth; {again}, or remove it") from None


def _compare(gt_path: Path, note: Path, videos: Sequence[tuple[str, int]], lengths: Sequence[int]) -> None:
    again = "make it again with list/generate_gt.py"
    there, digest = _read_note(note)
    if sha256(gt_path) != digest:
        raise InputError(f"{gt_path}: not the array that {note.name} was written for; {again}")
    here = [(name, frames) for (name, _), frames in zip(videos, lengths, strict=True)]
    for number, (ours, theirs) in enumerate(zip(here, there, strict=False), 1):
        if ours != theirs:
            raise InputError(
                f"{gt_path}: video {number} is {theirs[0]} with {theirs[1]} frames there,"
                f" but {ours[0]} with {ours[1]} frames in the test list; {again}"
            )
    if len(here) != len(there):
        extra = (here if len(here) > len(there) else there)[min(len(here), len(there))][0]
        raise InputError(f"{gt_path}: {len(there)} videos, but {len(here)} in the test list, {extra} first; {again}")
