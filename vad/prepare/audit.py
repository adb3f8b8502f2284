"""Audit a data set: compare its lists, embeddings, ground truth and videos with each other and with its table.

One DataFrame has a row for each crop of each listed video. Each check is computed from these rows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from vad import data
from vad.datasets import AUDIO_FOLDER, IMAGE_FOLDER, SIDES, SNIPPET_FRAMES, Dataset, is_source
from vad.files import InputError
from vad.prepare import ground_truth as gt
from vad.prepare.lists import scan, shorten

LISTS = {"train": "training", "test": "test"}
MAX_BYTES = 2 << 30  # more bytes of embeddings than this are read only with --all_values
READERS = 8  # threads that read files, because network disks have a high latency
MAX_EXAMPLES, MAX_WIDTH = 3, 100  # examples per line, and characters per example; JSON has all
UNKNOWN = "?"  # class of a video with a label that the data set does not define


@dataclass(frozen=True)
class Check:
    """The result of one check: what was found, what was expected, and whether this is a finding."""

    check: str
    found: int | str
    expected: int | str | None = None
    finding: bool = False
    note: str = ""
    examples: tuple[str, ...] = ()


def none_of(check: str, examples: Iterable[object], note: str = "") -> Check:
    """Return a check that counts things that should not exist."""
    texts = tuple(map(str, examples))
    return Check(check, len(texts), 0, bool(texts), note if texts else "", texts)


def not_checked(check: str, reason: str) -> Check:
    """Return a check that could not be made, which is not a finding."""
    return Check(check, "not checked", note=reason)


@dataclass
class Audit:
    """All checks of one data set under one split."""

    title: str
    dataset: str
    split: str
    sources: dict[str, str]  # folders and files that were read
    checks: list[Check] = field(default_factory=list)

    @property
    def findings(self) -> list[Check]:
        """Return the checks that found an error."""
        return [check for check in self.checks if check.finding]

    def as_json(self) -> str:
        """Return the audit as JSON with all examples."""
        content = {**asdict(self), "clean": not self.findings, "findings": len(self.findings)}
        return json.dumps(content, indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        """Return a table with the columns check, found and expected. Findings start with an exclamation mark."""
        head = [f"{self.title}, {self.split} split", *(f"  {name}: {text}" for name, text in self.sources.items())]
        table = pd.DataFrame({
            "check": [f"{'!' if check.finding else ' '} {check.check}" for check in self.checks],
            "found": [_number(check.found) for check in self.checks],
            "expected": [_number(check.expected) for check in self.checks],
            " ": [_remark(check) for check in self.checks],
        })  # fmt: skip
        for column in ("check", " "):
            table[column] = table[column].str.ljust(table[column].str.len().max())
        lines = table.to_string(index=False, justify="left", max_colwidth=None).splitlines()
        count = len(self.findings)
        end = f"{count} finding{'s' * (count > 1)}, marked with !" if count else "no findings"
        return "\n".join([*head, "", *map(str.rstrip, lines), "", end])


def _number(value: int | str | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else value


def _remark(check: Check) -> str:
    texts = [text if len(text) <= MAX_WIDTH else f"{text[: MAX_WIDTH - 1]}…" for text in check.examples]
    return "; ".join(part for part in (check.note, shorten(texts, MAX_EXAMPLES)) if part)


def audit(
    dataset: Dataset, split: str, *, list_root: Path | None = None, feature_root: Path | None = None,
    video_root: Path | None = None, all_values: bool = False,
) -> Audit:  # fmt: skip
    """Check everything that exists. Folders that are not given default to those of the data set.

    all_values: search embeddings for NaN even if they have more than 2 GiB.
    Raises InputError if a given folder lacks the expected files, or if there is nothing to audit.
    """
    lists = list_root or dataset.lists_of(split)
    names = [f"{side}.csv" for side in SIDES if (lists / f"{side}.csv").is_file()]
    if list_root and not names:
        raise InputError(f"--list_root {lists} contains neither train.csv nor test.csv.")
    root = feature_root or data.feature_root_of(lists / "test.csv") or dataset.data_root
    embedded = (root / IMAGE_FOLDER).is_dir()
    if feature_root and not embedded:
        raise InputError(f"--feature_root {root} has no folder {IMAGE_FOLDER}/.")
    videos = _video_files(dataset, video_root)
    if not names and not embedded and not videos:
        raise InputError(f"{lists} contains neither train.csv nor test.csv. Give --list_root, or make the lists first.")
    report = Audit(dataset.title, dataset.name, split, {
        "lists": f"{lists} ({', '.join(names) or 'none'})",
        "table": str(dataset.annotation_path),
        "embeddings": str(root) if embedded else "none; give --feature_root",
        "videos": f"{len(videos):,}" if videos else "none; give --video_root",
    })  # fmt: skip
    rows = _read_lists(dataset, lists, names, report.checks)
    files = _read_headers(rows, dataset, root) if embedded and len(rows) else pd.DataFrame()
    report.checks += [*_counts(dataset, split, rows), *_splits(dataset, split, rows)]
    report.checks += _unlisted(dataset, rows, root if embedded else None, videos)
    report.checks += _embeddings(files, root, all_values)
    report.checks += _ground_truth(dataset, split, lists / "gt.npy", rows, files)
    return report


def _video_files(dataset: Dataset, folder: Path | None) -> set[str]:
    """Return the key of every video and recording. Raise InputError if the given folder contains none."""
    root = folder or dataset.video_root
    paths = sorted(root.rglob("*")) if root and root.is_dir() else []
    names = [p.stem for p in paths if is_source(p.name)]
    if folder and not names:
        raise InputError(f"--video_root {root} {'contains no videos' if root.is_dir() else 'does not exist'}.")
    return set(map(dataset.key, names))


# lists


def _read_lists(dataset: Dataset, folder: Path, names: list[str], checks: list[Check]) -> pd.DataFrame:
    """Return the rows of the lists without duplicates, with key and class, and append checks of them."""
    records, broken = [], []
    for name in names:
        count = len(records)
        for number, row in data.list_rows(folder / name, dataset):
            location = f"{name}, row {number}: "
            if isinstance(row, InputError):
                broken.append(f"{location}{row}")
            else:
                records.append((Path(name).stem, location, row, dataset.key(row.video), *vars(row).values()))
        if len(records) == count:
            broken.append(f"{name}: contains no videos")
    rows = pd.DataFrame(records, columns=["side", "location", "row", "key", "path", "label", "video", "crop"])
    rows["class_key"] = [_get(dataset.class_key, label, UNKNOWN) for label in rows.label]
    rows["path_label"] = [_get(dataset.label_of, row.path, row.label) for row in rows.itertuples()]
    repeated = rows.duplicated(["side", "video", "crop"])
    unique, again = rows[~repeated], rows[repeated]
    unknown = unique[unique.class_key == UNKNOWN]
    wrong = unique[(unique.class_key != UNKNOWN) & (unique.path_label != unique.label)]
    checks += [
        none_of("unreadable rows", broken),
        none_of("duplicate rows", again.location + "crop " + again.crop.astype(str) + " of " + again.video),
        none_of("rows with an unknown class", unknown.location + unknown.label.map(repr)),
        none_of("rows whose label contradicts their path", wrong.location + wrong.label + " in " + wrong.path_label),
    ]
    return unique


def _get(lookup: Callable[[str], str], text: str, default: str) -> str:
    try:
        return lookup(text)
    except InputError:
        return default


def _counts(dataset: Dataset, split: str, rows: pd.DataFrame) -> Iterator[Check]:
    """Compare the number of videos of each list and class with the table."""
    table = dataset.class_counts(split)
    for n, (side, name) in enumerate(LISTS.items()):
        counts = Counter(rows[rows.side == side].drop_duplicates("video").class_key)
        if not counts:
            yield not_checked(f"{name} videos", "no list")
            continue
        numbers = {f"{name} videos": (counts.total(), dataset.split_counts[split][n])}
        for key in dict.fromkeys([dataset.normal, *dataset.classes, *table, *sorted(counts)]):
            title = "normal" if key == dataset.normal else dataset.classes.get(key, key)
            title = title if title.lower() == key.lower() else f"{title} ({key})"
            numbers[f"  {name}, {title}"] = counts[key], table.get(key, (0, 0))[n]
        for check, (count, expected) in numbers.items():
            note = f"{count - expected:+} videos" if count != expected else ""
            if count or expected:
                yield Check(check, count, expected, bool(note), note)


def _splits(dataset: Dataset, split: str, rows: pd.DataFrame) -> Iterator[Check]:
    """Check for videos in both lists, in neither list, and on the wrong side of the official split."""
    official_split = split if dataset.split_per_run else dataset.default_split("official")
    official = {side: dataset.split_names(official_split, side) for side in SIDES}
    train, test = (rows[rows.side == side].drop_duplicates("key") for side in SIDES)
    note = f"the {split} split {{}} on them" if split != official_split else ""
    if len(train) and len(test):
        yield none_of("videos in both lists", train[train.key.isin(test.key)].video)
    if len(train):
        leaks = train[train.key.isin(official["test"])].video
        yield none_of("official test videos used for training", leaks, note.format("trains"))
    if len(test):
        moved = test[test.key.isin(official["train"])].video
        yield none_of("official training videos used for testing", moved, note.format("tests"))
    listed = set(rows.key)
    for side, name in LISTS.items() if listed else ():
        yield none_of(f"official {name} videos in neither list", (v for v in official[side] if v not in listed))


def _unlisted(dataset: Dataset, rows: pd.DataFrame, root: Path | None, videos: set[str]) -> Iterator[Check]:
    """Check for embeddings and video files that are in neither list."""
    listed, embedded = set(rows.key), set()
    if not listed:
        return
    if root:
        try:
            embedded = set(scan(root / IMAGE_FOLDER, dataset))
            yield none_of("embedded videos in neither list", sorted(embedded - listed))
        except InputError as error:
            yield Check("folder of image embeddings", "invalid", None, True, str(error))
    if videos:
        yield none_of("video files in neither list", sorted(videos - listed))
        yield none_of("listed videos without a video file", sorted(listed - videos))
    if videos and embedded:
        yield none_of("video files without embeddings", sorted(videos - embedded))


# embeddings


def _read_headers(rows: pd.DataFrame, dataset: Dataset, root: Path) -> pd.DataFrame:
    """Return one row per file, in the order of `STREAMS`: the columns of `rows`, and stream, file, S, D, problem."""

    def read(row: data.ListRow) -> list[tuple[str, str, float, float, str]]:
        try:
            image = data.resolve_path(row.path, root)
        except InputError as error:
            return [("image", row.path, np.nan, np.nan, str(error))]
        try:
            event = data.event_path(image, dataset.event_folders)
        except InputError:
            event = root / dataset.event_folders[0] / image.name  # no event folder: all event files are missing
        files = {"image": image, "event": event}
        if (root / AUDIO_FOLDER).is_dir():
            files["audio"] = data.audio_path(image, row.video)
        return [(stream, *_header(path, f"{root}/")) for stream, path in files.items()]

    files = rows.assign(file=in_threads(read, rows["row"], "embedding headers")).explode("file", ignore_index=True)
    return files.join(pd.DataFrame(files.pop("file").tolist(), columns=["stream", "file", "S", "D", "problem"]))


def _header(path: Path, root: str) -> tuple[str, float, float, str]:
    """Return the path below `root`, S, D, and a problem: "", "missing" or a sentence."""
    file = str(path).removeprefix(root)
    if not os.path.exists(path):  # Path.exists raises for an overlong name
        return file, np.nan, np.nan, "missing"
    try:
        return file, *data.embedding_header(path)[0], ""
    except InputError as error:
        return file, np.nan, np.nan, str(error).replace(root, "")


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], title: str) -> list[Any]:
    """Return the results of `function` for all items, computed in threads. A long run shows a progress bar."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(tqdm(pool.map(function, items), title, len(items), leave=False, delay=1))


def _embeddings(files: pd.DataFrame, root: Path, all_values: bool) -> Iterator[Check]:
    if files.empty:
        yield not_checked("embeddings", f"give --feature_root, a folder with {IMAGE_FOLDER}/")
        return
    for stream, part in files.groupby("stream", sort=False):
        yield none_of(f"missing {stream} files (of {len(part):,})", part[part.problem == "missing"].file)
        yield none_of(f"unreadable {stream} files", part[~part.problem.isin(["", "missing"])].problem)
    good = files[files.problem == ""].astype({"S": int, "D": int})
    lengths = good.groupby("path", sort=False).S.unique()
    lengths = lengths[lengths.map(len) > 1]
    yield none_of("streams with different S", (f"{p}: {' and '.join(map(str, s))}" for p, s in lengths.items()))
    counts = good.groupby(["video", "stream"], sort=False).S.nunique()
    yield none_of("videos whose crops differ in S", dict.fromkeys(v for v, _ in counts[counts > 1].index))
    yield none_of("embeddings without snippets", good[good.S == 0].file)
    for sound, part in good.groupby(good.stream == "audio") if len(good) else ((False, good),):
        width = int(part.D.mode().iloc[0]) if len(part) else 0
        of_sound = " of sound" if sound else ""
        yield Check(f"embedding dimension D{of_sound}", width)
        others = (f"{f.file}: {f.D}" for f in part[part.D != width].itertuples())
        yield none_of(f"files{of_sound} with another D", others)
    for side, rows in files.groupby("side", sort=False):
        crops = rows.groupby("video", sort=False).crop.agg(frozenset)
        usual = Counter(crops).most_common(1)[0][0]
        missing = (f"{name}: {shorten(sorted(usual - present))}" for name, present in crops.items() if usual - present)
        yield none_of(f"{LISTS[side]} videos with missing crops", missing, f"usual crops: {shorten(sorted(usual), 10)}")
    yield _values([root / file for file in good.file], all_values)
    tail = gt.recorded_tail(root / file for file in good[good.stream == "image"].file)
    yield Check("tail rule of the embeddings", tail or "not recorded", "one rule", tail == "mixed")


def _values(paths: list[Path], all_values: bool) -> Check:
    check, size = "files with NaN or infinite values", sum(path.stat().st_size for path in paths)
    if size > MAX_BYTES and not all_values:
        return not_checked(check, f"{size / 2**30:.1f} GiB; give --all_values to read them")
    finite = in_threads(_is_finite, paths, "embedding values")
    return none_of(check, (path for path, good in zip(paths, finite, strict=True) if not good))


def _is_finite(path: Path) -> bool:
    try:
        return bool(np.isfinite(data.load_embedding(path, "refuse")).all())
    except InputError:
        return False


# ground truth


def _ground_truth(
    dataset: Dataset, split: str, path: Path, rows: pd.DataFrame, files: pd.DataFrame
) -> Iterator[Check]:
    """Compare gt.npy with the test list, whose S comes from the embeddings or gt.json, and with the table."""
    check = "ground-truth frames"
    if not path.is_file():
        yield not_checked(check, f"no {path.name}")
        return
    test = rows[rows.side == "test"].drop_duplicates("video")
    try:
        counts = _snippets(path, test, files)
        if not counts:
            yield not_checked(check, "neither embeddings nor gt.json")
            return
        labels, notes = gt.load_ground_truth(path, counts, dataset, insist=True)
    except InputError as error:
        yield Check(check, "wrong", None, True, str(error))
        return
    yield Check(check, sum(map(len, labels)), SNIPPET_FRAMES * sum(S for _, S in counts), note="; ".join(notes))
    yield from _labels(dataset, split, test.assign(labels=labels, positive=[int(part.sum()) for part in labels]))


def _snippets(path: Path, test: pd.DataFrame, files: pd.DataFrame) -> list[tuple[str, int]]:
    """Return name and S of the test videos from embeddings or gt.json, or [] if neither gives all."""
    recorded = gt.recorded_videos(path)[0] if path.with_suffix(".json").is_file() else []
    counts = {name: frames // SNIPPET_FRAMES for name, frames in recorded}
    if len(files):
        counts |= files[files.S.notna()].drop_duplicates("video").set_index("video").S.astype(int)
    missing = [name for name in test.video if name not in counts]
    if missing and recorded:
        raise InputError(f"{path.with_suffix('.json')} lacks {shorten(missing)}. Make the ground truth again.")
    return [] if missing else [(name, int(counts[name])) for name in test.video]


def _labels(dataset: Dataset, split: str, test: pd.DataFrame) -> Iterator[Check]:
    """Check the frame labels of each class and test video."""
    yield Check("anomalous frames", int(test.positive.sum()))
    known = test[test.class_key != UNKNOWN]
    normal = known.class_key == dataset.normal
    for key, count in known[~normal].groupby("class_key").positive.sum().items():
        yield Check(f"  anomalous frames, {dataset.classes.get(key, key)}", int(count))
    yield none_of("normal videos with anomalous frames", known[normal & (known.positive > 0)].video)
    yield none_of("anomalous videos without anomalous frames", known[~normal & (known.positive == 0)].video)
    differ, absent = [], []
    for name, part in zip(test.video, test["labels"], strict=True):
        try:
            off = int((dataset.frame_labels(name, len(part), split) != part).sum())
            differ += [f"{name}: {off} frames"] if off else []
        except InputError:
            absent.append(name)
    yield none_of("videos whose frame labels differ from the table", differ)
    yield none_of("test videos without annotation in the table", absent)
