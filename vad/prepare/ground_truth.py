"""Make the ground truth gt.npy in the order of test.csv, and check it against the test videos before use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vad.data import ListRow, Video, embedding_header, feature_root_of, read_list, resolve_path, split_crop
from vad.datasets import MANIFEST, SNIPPET_FRAMES, Dataset, video_name
from vad.files import InputError, read_json, sha256, write_bytes, write_json
from vad.options import Options
from vad.prepare.annotations import LabelledVideo, label_videos
from vad.prepare.lists import shorten

MAKE = "Make it with list/generate_gt.py"
EXTRACTION = ("tail", "event_threshold", "event_clamp", "event_scaling")


def make_ground_truth(
    dataset: Dataset, split: str, csv_path: Path, save_path: Path, *, masks: Path | None = None,
    feature_root: Path | None = None,
) -> list[str]:  # fmt: skip
    """Write gt.npy (uint8, one value per frame, in the order of the list) and gt.json. Return a summary to print.

    save_path: a .npy file, or a folder for gt.npy. masks: frame masks that replace the table.
    Raises InputError, before anything is written, if an embedding or an annotation is missing.
    """
    rows = read_list(csv_path, dataset)
    root = feature_root or feature_root_of(csv_path)
    videos = _with_snippets(rows, root)
    labels, warnings = label_videos(dataset, split, videos, masks)
    ground_truth = np.concatenate(labels)
    stream = io.BytesIO()
    np.save(stream, ground_truth)
    path = save_path if save_path.suffix == ".npy" else save_path / "gt.npy"
    changed = write_bytes(path, stream.getvalue())
    source, form = masks or dataset.annotation_path, "masks" if masks else f"{split} split"
    write_json(path.with_suffix(".json"), {
        "videos": [
            {"name": video.name, "frames": len(part), "positive": int(part.sum())}
            for video, part in zip(videos, labels, strict=True)
        ],
        "tail": recorded_tail(resolve_path(row.path, root) for row in rows),
        "annotation": {"name": source.name, "form": form, "sha256": sha256(source)},
        "sha256": sha256(path),
    })  # fmt: skip
    return [
        f"{dataset.title}, {source.name} ({form}): {len(videos)} videos, {len(ground_truth):,} "
        f"frames, {int(ground_truth.sum()):,} anomalous",
        *warnings,
        f"{path}: {'written' if changed else 'unchanged'}",
    ]


def _with_snippets(rows: Sequence[ListRow], root: Path | None) -> list[LabelledVideo]:
    """Return the videos of a list with their S. Raise InputError if S is 0 or differs between crops."""
    videos: dict[str, LabelledVideo] = {}
    for row in tqdm(rows, desc="snippets", unit="file", leave=False, delay=1):
        path = resolve_path(row.path, root)
        (count, _), _ = embedding_header(path)
        if not count:
            raise InputError(f"{path} contains no snippets. Remove {row.video} from the list, or extract it again.")
        first = videos.setdefault(row.video, LabelledVideo(row.video, row.label, count))
        if first.snippets != count:
            raise InputError(f"{path} has {count} snippets, but another crop has {first.snippets}. Extract it again.")
    return list(videos.values())


# provenance of embeddings


def extraction_records(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the manifest record of each video that has one: `settings`, `encoder`, `weights` and others."""
    paths, records = list(paths), {}
    for folder in dict.fromkeys(parent for path in paths for parent in path.parents[:2]):
        manifest = folder / MANIFEST
        lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines() if manifest.is_file() else []
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # a killed run leaves an incomplete line
                continue
            if isinstance(record, dict) and record.get("crops") and isinstance(record.get("settings"), dict):
                records[video_name(str(record.get("video")))] = record
    names = dict.fromkeys(split_crop(path.stem)[0] for path in paths)
    return [records[name] for name in names if name in records]


def recorded_encoders(videos: Sequence[Video]) -> dict[str, dict[str, Any]]:
    """Return stream → `hash` and `weights` of the encoder and `settings` of the extraction, where recorded.

    Raises InputError if videos of one stream were embedded with different weights.
    """
    encoders = {}
    for stream in videos[0].streams if videos else ():
        by_hash: dict[str, dict[str, Any]] = {}
        paths = (video.streams[stream] for video in videos if stream in video.streams)
        for record in extraction_records(paths):
            by_hash.setdefault(str(record.get("encoder", "")), record)
        if len(by_hash) > 1:
            one, other, *_ = by_hash.values()
            raise InputError(
                f"the {stream} embeddings were made with different weights ({one['name']}: {one.get('weights')}; "
                f"{other['name']}: {other.get('weights')}). Extract them again with one encoder."
            )
        for key, record in by_hash.items():
            encoders[stream] = {"hash": key, "weights": str(record.get("weights", "")), "settings": record["settings"]}
    return encoders


def recorded_tail(paths: Iterable[Path]) -> str | None:
    """Return the name of the embeddings' tail rule, "mixed", or None if none is recorded."""
    rules = {str(r["settings"]["tail"]) for r in extraction_records(paths) if "tail" in r["settings"]}
    return rules.pop() if len(rules) == 1 else "mixed" if rules else None


def provenance_notes(encoders: Mapping[str, Mapping[str, Any]], options: Options) -> tuple[str, ...]:
    """Return a note for each stream whose embeddings were extracted with other settings than the options.

    encoders: see `recorded_encoders`. No flag of training or evaluation changes these settings.
    """
    notes = []
    for stream, encoder in encoders.items():
        settings = encoder["settings"]
        differing = [name for name in EXTRACTION if name in settings and settings[name] != getattr(options, name)]
        if differing:
            actual = ", ".join(f"{name} {settings[name]}" for name in differing)
            expected = ", ".join(str(getattr(options, name)) for name in differing)
            notes.append(f"The {stream} embeddings were made with {actual} (profile {options.profile}: {expected}).")
    return tuple(notes)


# loading


def load_ground_truth(
    gt_path: Path, videos: Sequence[tuple[str, int]], dataset: Dataset, insist: bool = False
) -> tuple[list[np.ndarray], list[str]]:
    """Return the frame labels of (name, S) videos, in the order of the array, and notes.

    A video has 16·S labels, or 16·(S − 1) if a published array is one snippet shorter; its scores must then be cut.
    With gt.json, names, order and lengths are compared. Without it, the array is compared with the table; `insist`
    accepts contradictions. Raises InputError if the array does not belong to these videos.
    """
    ground_truth = read_labels(gt_path)
    snippets = [count for _, count in videos]
    if gt_path.with_suffix(".json").is_file():
        _compare(gt_path, videos)
        return _split(ground_truth, snippets), []
    tables = [_table_labels(dataset, name, SNIPPET_FRAMES * (count + 1)) for name, count in videos]
    published = _published_snippets(ground_truth, videos, tables, dataset)
    if published is None:
        raise InputError(
            f"{gt_path} has {len(ground_truth)} frames, but the {len(videos)} test videos have "
            f"{SNIPPET_FRAMES * sum(snippets)}. Run list/generate_file.py and list/generate_gt.py again."
        )
    labels, notes = _split(ground_truth, published), []
    for relation, values, count in (
        ("shorter", "scores", sum(np.less(published, snippets))),
        ("longer", "labels", sum(np.greater(published, snippets))),
    ):
        if count:
            difference = f"is one snippet {relation} than the embeddings of {count} videos"
            notes.append(f"{gt_path} {difference}; their {values} are cut to fit")
    notes += _check_against_table(gt_path, labels, videos, tables, dataset, insist)
    return [part[: SNIPPET_FRAMES * count] for part, count in zip(labels, snippets, strict=True)], notes


def _split(ground_truth: np.ndarray, snippets: Sequence[int]) -> list[np.ndarray]:
    return np.split(ground_truth, SNIPPET_FRAMES * np.cumsum(snippets)[:-1])


def read_labels(gt_path: Path) -> np.ndarray:
    """Return all frame labels (frames,) uint8 of a gt.npy. Raise InputError for values other than 0 and 1."""
    try:
        labels = np.load(gt_path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{gt_path}: there is no ground truth. {MAKE}.") from None
    except Exception as error:  # numpy raises many types for a damaged file
        raise InputError(f"{gt_path} is not a .npy array ({error}). {MAKE}.") from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "buif":
        raise InputError(f"{gt_path} must have one number per frame. {MAKE}.")
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"{gt_path} contains other values than 0 and 1. {MAKE}.")
    return labels.astype(np.uint8)


def recorded_videos(gt_path: Path) -> tuple[list[tuple[str, int]], str]:
    """Return names and numbers of frames in gt.json, in its order, and the SHA-256 of the array."""
    metadata = gt_path.with_suffix(".json")
    content = read_json(metadata, "metadata of the ground truth")
    try:
        videos = [(str(video["name"]), int(video["frames"])) for video in content["videos"]]
        return videos, str(content["sha256"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{metadata} is not the metadata of a ground truth. {MAKE}, or remove it.") from None


def _compare(gt_path: Path, videos: Sequence[tuple[str, int]]) -> None:
    """Raise InputError for the first test video that differs from gt.json."""
    recorded, digest = recorded_videos(gt_path)
    if sha256(gt_path) != digest:
        raise InputError(f"{gt_path} is not the array that {gt_path.stem}.json was written for. {MAKE}.")
    listed = [(name, SNIPPET_FRAMES * snippets) for name, snippets in videos]
    for number, pair in enumerate(zip_longest(recorded, listed, fillvalue=("no video", 0)), 1):
        if pair[0] != pair[1]:
            record, entry = (f"{name} with {frames} frames" for name, frames in pair)
            raise InputError(f"{gt_path}: video {number} is {record}, but {entry} in the test list. {MAKE}.")


def _table_labels(dataset: Dataset, name: str, frames: int) -> list[np.ndarray]:
    """Return the labels (frames,) of a video in each split of the table, or [] for an unknown video."""
    row = dataset.find(name)
    if row is None:
        return []
    if not dataset.is_anomalous(row.label):
        return [np.zeros(frames, np.uint8)]
    annotated = [split for split in dataset.splits if row.intervals.get(split, row.intervals.get(""))]
    return [dataset.frame_labels(name, frames, split) for split in annotated]


def _published_snippets(
    ground_truth: np.ndarray, videos: Sequence[tuple[str, int]], tables: Sequence[list[np.ndarray]], dataset: Dataset
) -> list[int] | None:
    """Return S of each video in the array: that of the embeddings, or one less or one more for some videos.

    Published arrays lack the last snippet of videos whose length is a multiple of 16 frames: of all such videos
    (XD-Violence) or of some (UCF-Crime). Among the combinations with the array's length, dynamic programming over
    the number of differing snippets finds the one closest to the table. None if there is no combination.
    """
    missing, rest = divmod(len(ground_truth) - SNIPPET_FRAMES * sum(count for _, count in videos), SNIPPET_FRAMES)
    step, start = int(np.sign(missing)), 0
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # differing snippets → (frames that differ from table, S)
    for (name, count), table in zip(videos, tables, strict=True):
        row = dataset.find(name)
        frames = row.frames if row and row.frames else 0
        may_differ = frames == SNIPPET_FRAMES * count if step < 0 else frames >= SNIPPET_FRAMES * (count + 1)
        candidates: dict[int, tuple[int, list[int]]] = {}
        for shift, (errors, chosen) in best.items():
            for extra in (0, step) if step and may_differ and shift != missing else (0,):
                first = start + SNIPPET_FRAMES * shift
                part = ground_truth[first : first + SNIPPET_FRAMES * (count + extra)]
                candidate = (errors + _differing_frames(part, table), [*chosen, count + extra])
                if shift + extra not in candidates or candidate[0] < candidates[shift + extra][0]:
                    candidates[shift + extra] = candidate
        best, start = candidates, start + SNIPPET_FRAMES * count
    return best[missing][1] if not rest and missing in best else None


def _differing_frames(part: np.ndarray, table: Sequence[np.ndarray]) -> int:
    """Return the number of frames that differ from the closest split of the table."""
    return min((int((part != labels[: len(part)]).sum()) for labels in table), default=0)


def _check_against_table(
    gt_path: Path, labels: Sequence[np.ndarray], videos: Sequence[tuple[str, int]],
    tables: Sequence[list[np.ndarray]], dataset: Dataset, insist: bool,
) -> list[str]:  # fmt: skip
    """Return notes on differences from the table. Raise InputError if the array belongs to other videos."""
    wrong = []
    for part, (name, _), table in zip(labels, videos, tables, strict=True):
        row = dataset.find(name)
        # a normal video has no anomalous frame; an anomalous one shares a frame with some split of the table
        shared = any((part & t[: len(part)]).any() or not (part.any() or t[: len(part)].any()) for t in table)
        unlabelled = row and dataset.is_anomalous(row.label) and not part.any()
        if (table or unlabelled) and not shared:
            wrong.append(name)
    differing = [_differing_frames(part, table) for part, table in zip(labels, tables, strict=True)]
    source = dataset.annotation_path.name
    if wrong and not insist:
        raise InputError(
            f"{gt_path}: {len(wrong)} of {len(videos)} videos contradict {source} ({shorten(wrong)}). The array is "
            f"probably in another order than test.csv. {MAKE}, or accept it with --insist_gt."
        )
    accepted = f"; {len(wrong)} videos contradict it (accepted by --insist_gt)" if wrong else ""
    total, count = sum(differing), np.count_nonzero(differing)
    return [f"{gt_path} differs from {source} in {total:,} frames of {count} videos{accepted}"] if total else []
