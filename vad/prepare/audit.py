"""The audit: lists, embeddings, ground truth and videos of a data set against each other and its table.

One row a crop of a video of a list, in one DataFrame; each check is a line on these rows.
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
from vad.datasets import IMAGE_FOLDER, SIDES, SNIPPET_FRAMES, VIDEO_SUFFIXES, Dataset
from vad.files import InputError
from vad.prepare import ground_truth as gt
from vad.prepare.lists import scan, some

LISTS = {"train": "training", "test": "test"}
MOST_BYTES = 2 << 30  # values of embeddings larger than this together are read only when asked for
READERS = 8  # files are opened side by side: on a network disk waiting is everything
SHOWN, WIDE = 3, 100  # examples in a line of the table, and characters of one; JSON has all
UNKNOWN = "?"  # class of a video whose label the data set does not have


@dataclass(frozen=True)
class Check:
    """One check: what was found, what should be, and whether that is a finding."""

    check: str
    found: int | str
    expected: int | str | None = None
    finding: bool = False
    note: str = ""
    examples: tuple[str, ...] = ()


def none_of(check: str, examples: Iterable[object], note: str = "") -> Check:
    """A check of things of which there should be none."""
    named = tuple(map(str, examples))
    return Check(check, len(named), 0, bool(named), note if named else "", named)


def not_checked(check: str, why: str) -> Check:
    """A check for which something is not at hand; not a finding."""
    return Check(check, "not checked", note=why)


@dataclass
class Audit:
    """All checks of one data set under one split."""

    title: str
    dataset: str
    split: str
    sources: dict[str, str]  # what was read
    checks: list[Check] = field(default_factory=list)

    @property
    def findings(self) -> list[Check]:
        """The checks that found something wrong."""
        return [check for check in self.checks if check.finding]

    def as_json(self) -> str:
        """The whole audit with every example."""
        content = {**asdict(self), "clean": not self.findings, "findings": len(self.findings)}
        return json.dumps(content, indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        """A table: check, found, expected; an exclamation mark before a finding."""
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
        end = f"{count} finding{'s' * (count > 1)}, marked !" if count else "no finding"
        return "\n".join([*head, "", *map(str.rstrip, lines), "", end])


def _number(value: int | str | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else value


def _remark(check: Check) -> str:
    shown = [text if len(text) <= WIDE else f"{text[: WIDE - 1]}…" for text in check.examples]
    return "; ".join(part for part in (check.note, some(shown, SHOWN)) if part)


def audit(
    dataset: Dataset,
    split: str,
    *,
    list_root: Path | None = None,
    feature_root: Path | None = None,
    video_root: Path | None = None,
    all_values: bool = False,
) -> Audit:
    """Check all that is there; a folder that is not given is looked for where the data set says.

    all_values: read embeddings for NaN also where they are larger than 2 GiB together.
    Raises InputError where a given folder does not hold what it should, or there is nothing to audit.
    """
    lists = list_root or dataset.list_root
    names = [f"{side}.csv" for side in SIDES if (lists / f"{side}.csv").is_file()]
    if list_root and not names:
        raise InputError(f"--list_root {lists}: holds no train.csv and no test.csv")
    root = feature_root or data.feature_root_of(lists / "test.csv") or dataset.data_root
    embedded = (root / IMAGE_FOLDER).is_dir()
    if feature_root and not embedded:
        raise InputError(f"--feature_root {root}: no folder {IMAGE_FOLDER}/ in it")
    videos = _video_files(dataset, video_root)
    if not names and not embedded and not videos:
        raise InputError(f"{lists}: no train.csv or test.csv; give --list_root, or make them first")
    report = Audit(dataset.title, dataset.name, split, {
        "lists": f"{lists} ({', '.join(names) or 'none'})",
        "table": str(dataset.annotation_path),
        "embeddings": str(root) if embedded else "none; give --feature_root",
        "videos": f"{len(videos):,}" if videos else "none; give --video_root",
    })  # fmt: skip
    rows = _read_lists(dataset, lists, names, report.checks)
    files = _read_headers(rows, dataset, root) if embedded and len(rows) else pd.DataFrame()
    report.checks += [*_counts(dataset, split, rows), *_sides(dataset, split, rows)]
    report.checks += _unlisted(dataset, rows, root if embedded else None, videos)
    report.checks += _embeddings(files, root, all_values)
    report.checks += _ground_truth(dataset, split, lists / "gt.npy", rows, files)
    return report


def _video_files(dataset: Dataset, given: Path | None) -> set[str]:
    """Key of every video file; InputError where a given folder holds none."""
    root = given or dataset.video_root
    paths = sorted(root.rglob("*")) if root and root.is_dir() else []
    names = [p.stem for p in paths if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")]
    if given and not names:
        raise InputError(f"--video_root {root}: {'holds no video' if root.is_dir() else 'no such folder'}")
    return set(map(dataset.key, names))


# lists


def _read_lists(dataset: Dataset, folder: Path, names: list[str], checks: list[Check]) -> pd.DataFrame:
    """The rows of the lists, each once, with key and class; what is wrong with some goes to `checks`."""
    records, broken = [], []
    for name in names:
        count = len(records)
        for number, row in data.list_rows(folder / name, dataset):
            where = f"{name}, row {number}: "
            if isinstance(row, InputError):
                broken.append(f"{where}{row}")
            else:
                records.append((Path(name).stem, where, row, dataset.key(row.video), *vars(row).values()))
        if len(records) == count:
            broken.append(f"{name}: holds no video")
    rows = pd.DataFrame(records, columns=["side", "where", "row", "key", "path", "label", "video", "crop"])
    rows["kind"] = [_ask(dataset.class_key, label, UNKNOWN) for label in rows.label]
    rows["told"] = [_ask(dataset.label_of, path, label) for path, label in zip(rows.path, rows.label, strict=True)]
    twice = rows.duplicated(["side", "video", "crop"])
    once, again = rows[~twice], rows[twice]
    unknown = once[once.kind == UNKNOWN]
    wrong = once[(once.kind != UNKNOWN) & (once.told != once.label)]
    checks += [
        none_of("rows that cannot be read", broken),
        none_of("rows that stand twice", again["where"] + "crop " + again.crop.astype(str) + " of " + again.video),
        none_of("rows with an unknown class", unknown["where"] + unknown.label.map(repr)),
        none_of("rows whose label contradicts their path", wrong["where"] + wrong.label + " in " + wrong.told),
    ]
    return once


def _ask(of_dataset: Callable[[str], str], text: str, unknown: str) -> str:
    try:
        return of_dataset(text)
    except InputError:
        return unknown


def _counts(dataset: Dataset, split: str, rows: pd.DataFrame) -> Iterator[Check]:
    """Videos of each list and class beside the numbers of the table."""
    table = dataset.class_counts(split)
    for n, (side, name) in enumerate(LISTS.items()):
        found = Counter(rows[rows.side == side].drop_duplicates("video").kind)
        if not found:
            yield not_checked(f"{name} videos", "no list")
            continue
        numbers = {f"{name} videos": (found.total(), dataset.split_counts[split][n])}
        for kind in dict.fromkeys([dataset.normal, *dataset.classes, *table, *sorted(found)]):
            title = "normal" if kind == dataset.normal else dataset.classes.get(kind, kind)
            title = title if title.lower() == kind.lower() else f"{title} ({kind})"
            numbers[f"  {name}, {title}"] = found[kind], table.get(kind, (0, 0))[n]
        for check, (count, expected) in numbers.items():
            note = f"{count - expected:+} videos" if count != expected else ""
            if count or expected:
                yield Check(check, count, expected, bool(note), note)


def _sides(dataset: Dataset, split: str, rows: pd.DataFrame) -> Iterator[Check]:
    """Videos in both lists, in neither, and on the other side of the data set's own split."""
    own = dataset.default_split("official")
    official = {side: dataset.split_names(own, side) for side in SIDES}
    train, test = (rows[rows.side == side].drop_duplicates("key") for side in SIDES)
    note = f"the {split} split {{}} on them" if split != own else ""
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
    """Embeddings and video files that neither list names."""
    listed, embedded = set(rows.key), set()
    if not listed:
        return
    if root:
        try:
            embedded = set(scan(root / IMAGE_FOLDER, dataset))
            yield none_of("embedded videos in neither list", sorted(embedded - listed))
        except InputError as error:
            yield Check("tree of image embeddings", "broken", None, True, str(error))
    if videos:
        yield none_of("video files in neither list", sorted(videos - listed))
        yield none_of("listed videos without a video file", sorted(listed - videos))
    if videos and embedded:
        yield none_of("video files without embeddings", sorted(videos - embedded))


# embeddings


def _read_headers(rows: pd.DataFrame, dataset: Dataset, root: Path) -> pd.DataFrame:
    """One row a file, image before event: the columns of `rows`, and stream, file, S, D, problem."""

    def read(row: data.ListRow) -> list[tuple[str, str, float, float, str]]:
        try:
            image = data.resolve_path(row.path, root)
        except InputError as error:
            return [("image", row.path, np.nan, np.nan, str(error))]
        try:
            event = data.event_path(image, dataset.event_folders)
        except InputError:
            event = root / dataset.event_folders[0] / image.name  # no folder of events: all are missing
        return [(stream, *_header(path, f"{root}/")) for stream, path in zip(data.STREAMS, (image, event), strict=True)]

    files = rows.assign(file=_in_threads(read, rows["row"], "embedding headers")).explode("file", ignore_index=True)
    return files.join(pd.DataFrame(files.pop("file").tolist(), columns=["stream", "file", "S", "D", "problem"]))


def _header(path: Path, root: str) -> tuple[str, float, float, str]:
    """File below `root`, S, D and "", or what is wrong: "missing" or a sentence."""
    file = str(path).removeprefix(root)
    if not os.path.exists(path):  # Path.exists raises for a name that is too long
        return file, np.nan, np.nan, "missing"
    try:
        return file, *data.embedding_header(path)[0], ""
    except InputError as error:
        return file, np.nan, np.nan, str(error).replace(root, "")


def _in_threads(function: Callable[[Any], Any], items: Sequence[Any], what: str) -> list[Any]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(tqdm(pool.map(function, items), what, len(items), leave=False, delay=1))


def _embeddings(files: pd.DataFrame, root: Path, all_values: bool) -> Iterator[Check]:
    if files.empty:
        yield not_checked("embeddings", "no --feature_root with rgb/ in it")
        return
    for stream in data.STREAMS:
        own = files[files.stream == stream]
        yield none_of(f"{stream} files missing, of {len(own):,}", own[own.problem == "missing"].file)
        yield none_of(f"{stream} files that cannot be read", own[~own.problem.isin(["", "missing"])].problem)
    good = files[files.problem == ""].astype({"S": int, "D": int})
    pairs = good.groupby("path", sort=False).S.agg(["first", "last"])
    pairs = pairs[pairs["first"] != pairs["last"]]
    yield none_of("image and event of different S", (f"{p}: {i} and {e}" for p, i, e in pairs.itertuples()))
    counts = good.groupby(["video", "stream"], sort=False).S.nunique()
    yield none_of("videos whose crops differ in S", dict.fromkeys(v for v, _ in counts[counts > 1].index))
    yield none_of("embeddings without a snippet", good[good.S == 0].file)
    width = int(good.D.mode().iloc[0]) if len(good) else 0
    yield Check("width of the embeddings", width)
    yield none_of("files of another width", (f"{f.file}: {f.D}" for f in good[good.D != width].itertuples()))
    for side, rows in files.groupby("side", sort=False):
        crops = rows.groupby("video", sort=False).crop.agg(frozenset)
        usual = Counter(crops).most_common(1)[0][0]
        lacking = (f"{video}: {some(sorted(usual - own))}" for video, own in crops.items() if usual - own)
        yield none_of(f"{LISTS[side]} videos that lack crops", lacking, f"usual: {some(sorted(usual), 10)}")
    yield _values([root / file for file in good.file], all_values)
    tail = gt.recorded_tail(root / file for file in good[good.stream == "image"].file)
    yield Check("tail rule of the extraction", tail or "not recorded", "one rule", tail == "mixed")


def _values(paths: list[Path], all_values: bool) -> Check:
    check, size = "files with NaN or infinite numbers", sum(path.stat().st_size for path in paths)
    if size > MOST_BYTES and not all_values:
        return not_checked(check, f"{size / 2**30:.1f} GiB; --all_values reads them")
    finite = _in_threads(_is_finite, paths, "embedding values")
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
    """gt.npy against the videos of the test list, whose S the embeddings or gt.json tell, and the table."""
    check = "frames of the ground truth"
    if not path.is_file():
        yield not_checked(check, f"no {path.name}")
        return
    test = rows[rows.side == "test"].drop_duplicates("video")
    try:
        counts = _snippets(path, test, files)
        if not counts:
            yield not_checked(check, "no embeddings, and no metadata of the ground truth")
            return
        labels, notes = gt.load_ground_truth(path, counts, dataset, insist=True)
    except InputError as error:
        yield Check(check, "wrong", None, True, str(error))
        return
    yield Check(check, sum(map(len, labels)), SNIPPET_FRAMES * sum(S for _, S in counts), note="; ".join(notes))
    yield from _labels(dataset, split, test.assign(labels=labels, positive=[int(part.sum()) for part in labels]))


def _snippets(path: Path, test: pd.DataFrame, files: pd.DataFrame) -> list[tuple[str, int]]:
    """S of the test videos, from embeddings or gt.json; empty where neither tells."""
    recorded = gt.recorded_videos(path)[0] if path.with_suffix(".json").is_file() else []
    counts = {name: frames // SNIPPET_FRAMES for name, frames in recorded}
    if len(files):
        counts |= files[files.S.notna()].drop_duplicates("video").set_index("video").S.astype(int)
    lacking = [name for name in test.video if name not in counts]
    if lacking and recorded:
        raise InputError(f"{path.with_suffix('.json')}: lacks {some(lacking)}; make it again")
    return [] if lacking else [(name, int(counts[name])) for name in test.video]


def _labels(dataset: Dataset, split: str, test: pd.DataFrame) -> Iterator[Check]:
    """The labels of each class and video of the test list."""
    yield Check("anomalous frames", int(test.positive.sum()))
    known = test[test.kind != UNKNOWN]
    normal = known.kind == dataset.normal
    for kind, count in known[~normal].groupby("kind").positive.sum().items():
        yield Check(f"  anomalous frames, {dataset.classes.get(kind, kind)}", int(count))
    yield none_of("normal videos with anomalous frames", known[normal & (known.positive > 0)].video)
    yield none_of("anomalous videos without an anomalous frame", known[~normal & (known.positive == 0)].video)
    differ, absent = [], []
    for name, part in zip(test.video, test["labels"], strict=True):
        try:
            off = int((dataset.frame_labels(name, len(part), split) != part).sum())
            differ += [f"{name}: {off} frames"] if off else []
        except InputError:
            absent.append(name)
    yield none_of("videos whose frames differ from the table", differ)
    yield none_of("test videos that the table does not annotate", absent)
