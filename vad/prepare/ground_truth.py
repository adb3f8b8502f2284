"""Ground truth gt.npy: made in the order of test.csv, and checked against the test videos before use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.data import ListRow, Video, embedding_header, feature_root_of, read_list, resolve_path, split_crop
from vad.datasets import MANIFEST, SNIPPET_FRAMES, Dataset, video_name
from vad.files import InputError, read_json, sha256, write_bytes, write_json
from vad.options import Options
from vad.prepare.annotations import LabelledVideo, label_videos
from vad.prepare.lists import some

MAKE = "make it with list/generate_gt.py"
EXTRACTION = ("tail", "event_threshold", "event_clamp", "event_scaling")


def make_ground_truth(
    dataset: Dataset,
    split: str,
    csv_path: Path,
    save_path: Path,
    *,
    masks: Path | None = None,
    feature_root: Path | None = None,
) -> list[str]:
    """Write gt.npy (uint8, one value a frame, in the order of the list) and gt.json; returns sentences.

    save_path: a .npy file, or a folder that gets gt.npy. masks: frame masks instead of the table.
    Raises InputError, before anything is written, where an embedding or an annotation is missing.
    """
    rows = read_list(csv_path, dataset)
    root = feature_root or feature_root_of(csv_path)
    videos = _with_snippets(rows, root)
    labels, odd = label_videos(dataset, split, videos, masks)
    truth = np.concatenate(labels)
    stream = io.BytesIO()
    np.save(stream, truth)
    path = save_path if save_path.suffix == ".npy" else save_path / "gt.npy"
    new = write_bytes(path, stream.getvalue())
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
        f"{dataset.title}, {source.name} ({form}): {len(videos)} videos, {len(truth):,} frames, "
        f"{int(truth.sum()):,} anomalous",
        *odd,
        f"{path}: {'written' if new else 'as before'}",
    ]


def _with_snippets(rows: Sequence[ListRow], root: Path | None) -> list[LabelledVideo]:
    """The videos of a list with their S; InputError where it is 0, or the crops of a video differ in it."""
    videos: dict[str, LabelledVideo] = {}
    for row in tqdm(rows, desc="snippets", unit="file", leave=False, delay=1):
        path = resolve_path(row.path, root)
        (count, _), _ = embedding_header(path)
        if not count:
            raise InputError(f"{path}: holds no snippet; take {row.video} out of the list, or extract it again")
        first = videos.setdefault(row.video, LabelledVideo(row.video, row.label, count))
        if first.snippets != count:
            raise InputError(f"{path}: {count} snippets, but {first.snippets} in another crop; extract it again")
    return list(videos.values())


# how embeddings were made


def extraction_settings(paths: Iterable[Path]) -> list[dict[str, object]]:
    """Settings under which embeddings were made, as extraction recorded them: one a recorded video."""
    paths, settings = list(paths), {}
    for folder in dict.fromkeys(parent for path in paths for parent in path.parents[:2]):
        manifest = folder / MANIFEST
        lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines() if manifest.is_file() else []
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # a killed run leaves half a line
                continue
            if isinstance(record, dict) and record.get("crops") and isinstance(record.get("settings"), dict):
                settings[video_name(str(record.get("video")))] = record["settings"]
    names = dict.fromkeys(split_crop(path.stem)[0] for path in paths)
    return [settings[name] for name in names if name in settings]


def recorded_tail(paths: Iterable[Path]) -> str | None:
    """Tail rule of embeddings: its name, "mixed", or None where nothing is recorded."""
    rules = {str(settings["tail"]) for settings in extraction_settings(paths) if "tail" in settings}
    return rules.pop() if len(rules) == 1 else "mixed" if rules else None


def provenance_notes(videos: Sequence[Video], options: Options) -> tuple[str, ...]:
    """A sentence for each modality whose embeddings were made otherwise than the options say.

    No flag of training or evaluation can change it. Embeddings without a record are passed over.
    """
    notes = []
    for stream in videos[0].streams if videos else ():
        made = next(iter(extraction_settings(video.streams[stream] for video in videos)), {})
        other = [name for name in EXTRACTION if name in made and made[name] != getattr(options, name)]
        if other:
            here = ", ".join(f"{name} {made[name]}" for name in other)
            there = ", ".join(str(getattr(options, name)) for name in other)
            notes.append(f"The {stream} embeddings were made with {here} (profile {options.profile}: {there}).")
    return tuple(notes)


# loading


def load_ground_truth(
    gt_path: Path, videos: Sequence[tuple[str, int]], dataset: Dataset, insist: bool = False
) -> tuple[list[np.ndarray], list[str]]:
    """Frame labels of (name, S) videos, in the order given, which must be the array's, and sentences.

    A video gets 16·S labels, or 16·(S − 1) where a published array is a snippet shorter: its scores are to
    be cut. With gt.json beside the array names, order and lengths are compared. Without, the array is held
    against the table, which `insist` overrides. Raises InputError where it is not that of these videos.
    """
    truth = read_labels(gt_path)
    snippets = [count for _, count in videos]
    if gt_path.with_suffix(".json").is_file():
        _compare(gt_path, videos)
        return _split(truth, snippets), []
    tables = [_table_labels(dataset, name, SNIPPET_FRAMES * (count + 1)) for name, count in videos]
    published = _published_snippets(truth, videos, tables, dataset)
    if published is None:
        raise InputError(
            f"{gt_path}: {len(truth)} frames, but the {len(videos)} test videos have "
            f"{SNIPPET_FRAMES * sum(snippets)}; make both again: list/generate_file.py, list/generate_gt.py"
        )
    labels, notes = _split(truth, published), []
    for word, what, count in (
        ("shorter", "scores", sum(np.less(published, snippets))),
        ("longer", "labels", sum(np.greater(published, snippets))),
    ):
        if count:
            cut = f"a snippet {word} than the embeddings of {count} videos, whose {what} are cut to fit"
            notes.append(f"{gt_path}: {cut}")
    notes += _check_against_table(gt_path, labels, videos, tables, dataset, insist)
    return [part[: SNIPPET_FRAMES * most] for part, most in zip(labels, snippets, strict=True)], notes


def _split(truth: np.ndarray, snippets: Sequence[int]) -> list[np.ndarray]:
    return np.split(truth, SNIPPET_FRAMES * np.cumsum(snippets)[:-1])


def read_labels(gt_path: Path) -> np.ndarray:
    """All frame labels (frames,) uint8 of a gt.npy; InputError for other values than zeros and ones."""
    try:
        truth = np.load(gt_path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{gt_path}: there is no ground truth; {MAKE}") from None
    except Exception as error:  # numpy raises many kinds for a broken file
        raise InputError(f"{gt_path}: not a .npy array ({error}); {MAKE}") from None
    if not isinstance(truth, np.ndarray) or truth.ndim != 1 or truth.dtype.kind not in "buif":
        raise InputError(f"{gt_path}: not one number a frame; {MAKE}")
    if not np.isin(truth, (0, 1)).all():
        raise InputError(f"{gt_path}: holds other values than 0 and 1; {MAKE}")
    return truth.astype(np.uint8)


def recorded_videos(gt_path: Path) -> tuple[list[tuple[str, int]], str]:
    """Names and frames of the videos in gt.json, in its order, and the SHA-256 of the array."""
    metadata = gt_path.with_suffix(".json")
    content = read_json(metadata, "metadata of the ground truth")
    try:
        videos = [(str(video["name"]), int(video["frames"])) for video in content["videos"]]
        return videos, str(content["sha256"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{metadata}: not the metadata of a ground truth; {MAKE}, or remove it") from None


def _compare(gt_path: Path, videos: Sequence[tuple[str, int]]) -> None:
    """InputError naming the first test video that differs from gt.json."""
    there, digest = recorded_videos(gt_path)
    if sha256(gt_path) != digest:
        raise InputError(f"{gt_path}: not the array that {gt_path.stem}.json was written for; {MAKE}")
    here = [(name, SNIPPET_FRAMES * snippets) for name, snippets in videos]
    for number, (ours, theirs) in enumerate(zip_longest(here, there, fillvalue=("no video", 0)), 1):
        if ours != theirs:
            their, our = (f"{name} with {frames} frames" for name, frames in (theirs, ours))
            raise InputError(f"{gt_path}: video {number} is {their} there, but {our} in the test list; {MAKE}")


def _table_labels(dataset: Dataset, name: str, frames: int) -> list[np.ndarray]:
    """Labels (frames,) of a video in each reading of the table; none where the table does not tell."""
    row = dataset.find(name)
    if row is None:
        return []
    if not dataset.is_anomalous(row.label):
        return [np.zeros(frames, np.uint8)]
    annotated = [split for split in dataset.splits if row.intervals.get(split, row.intervals.get(""))]
    return [dataset.frame_labels(name, frames, split) for split in annotated]


def _published_snippets(
    truth: np.ndarray, videos: Sequence[tuple[str, int]], tables: Sequence[list[np.ndarray]], dataset: Dataset
) -> list[int] | None:
    """S of each video in the array: that of the embeddings, or for some one fewer, or for some one more.

    Published arrays lack the last snippet of videos whose frames are a multiple of 16, of all such videos
    (XD-Violence) or of some (UCF-Crime). Of the ways to reach the array's length the one closest to the
    table is taken, by dynamic programming over the number of snippets that differ so far.
    """
    missing, rest = divmod(len(truth) - SNIPPET_FRAMES * sum(count for _, count in videos), SNIPPET_FRAMES)
    step, start = int(np.sign(missing)), 0
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # snippets that differ → frames off the table, S
    for (name, count), table in zip(videos, tables, strict=True):
        row = dataset.find(name)
        frames = row.frames if row and row.frames else 0
        may_differ = frames == SNIPPET_FRAMES * count if step < 0 else frames >= SNIPPET_FRAMES * (count + 1)
        ways: dict[int, tuple[int, list[int]]] = {}
        for shift, (off, chosen) in best.items():
            for extra in (0, step) if step and may_differ and shift != missing else (0,):
                first = start + SNIPPET_FRAMES * shift
                part = truth[first : first + SNIPPET_FRAMES * (count + extra)]
                way = (off + _frames_off(part, table), [*chosen, count + extra])
                if shift + extra not in ways or way[0] < ways[shift + extra][0]:
                    ways[shift + extra] = way
        best, start = ways, start + SNIPPET_FRAMES * count
    return best[missing][1] if not rest and missing in best else None


def _frames_off(part: np.ndarray, table: Sequence[np.ndarray]) -> int:
    """Frames in which labels differ from the nearest reading of the table."""
    return min((int((part != labels[: len(part)]).sum()) for labels in table), default=0)


def _check_against_table(
    gt_path: Path,
    labels: Sequence[np.ndarray],
    videos: Sequence[tuple[str, int]],
    tables: Sequence[list[np.ndarray]],
    dataset: Dataset,
    insist: bool,
) -> list[str]:
    """Sentences on how an array differs from the table; InputError where it is of other videos."""
    wrong = []
    for part, (name, _), table in zip(labels, videos, tables, strict=True):
        row = dataset.find(name)
        # a normal video has no anomalous frame; an anomalous one shares one with a reading of the table
        shared = any((part & t[: len(part)]).any() or not (part.any() or t[: len(part)].any()) for t in table)
        unmarked = row and dataset.is_anomalous(row.label) and not part.any()
        if (table or unmarked) and not shared:
            wrong.append(name)
    frames_off = [_frames_off(part, table) for part, table in zip(labels, tables, strict=True)]
    source = dataset.annotation_path.name
    if wrong and not insist:
        raise InputError(
            f"{gt_path}: {len(wrong)} of {len(videos)} videos contradict {source} ({some(wrong)}), so the array is "
            f"probably in another order than test.csv; {MAKE}, or accept it with --insist_gt"
        )
    accepted = f"; {len(wrong)} contradict it, accepted by --insist_gt" if wrong else ""
    total, count = sum(frames_off), np.count_nonzero(frames_off)
    return [f"{gt_path}: differs from {source} in {total:,} frames of {count} videos{accepted}"] if total else []
