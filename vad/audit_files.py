"""The audit of embeddings: which files of the lists are missing, broken, of another length or width, or hold NaN."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.audit_report import Row, none_of, not_checked
from vad.catalog import Dataset
from vad.embeddings import embedding_shape
from vad.errors import InputError
from vad.lists import Item, event_path, resolve_path
from vad.truth import extraction_records, recorded_tail

MOST_BYTES = 2 << 30  # values of embeddings larger than this together are read only when asked for
READERS = 8  # files are opened side by side: on a network disk waiting is everything
KINDS = ("image", "event")

Shape = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """One row of a list and its two files; a shape is None where the file is missing or broken, `wrong` says which."""

    item: Item
    paths: tuple[Path | None, Path | None]
    shapes: tuple[Shape | None, Shape | None]
    wrong: tuple[str, str]  # "", "missing" or what is wrong with the file


@dataclass
class Embeddings:
    """What the headers say, and the rows that come of it."""

    pairs: list[Pair] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    snippets: dict[str, int] = field(default_factory=dict)  # S by `dataset.key`
    records: dict[str, dict[str, object]] = field(default_factory=dict)  # extraction's, by video name
    tail: str | None = None


def audit_embeddings(
    lists: Mapping[str, Sequence[Item]], dataset: Dataset, root: Path | None, values: str, progress: bool
) -> Embeddings:
    """Rows on the embeddings of every list; values: "auto" reads numbers up to 2 GiB, "all" any, "none" no number."""
    found = Embeddings()
    items = [item for rows in lists.values() for item in rows]
    found.pairs = _read_headers(items, dataset, root, progress)
    below = f"{root}/"  # paths are told from here on
    for n, kind in enumerate(KINDS):
        missing = [str(pair.paths[n] or pair.item.path) for pair in found.pairs if pair.wrong[n] == "missing"]
        missing = [path.removeprefix(below) for path in missing]
        broken = [pair.wrong[n].replace(below, "") for pair in found.pairs if pair.wrong[n] not in ("", "missing")]
        found.rows.append(none_of(f"{kind} files missing, of {len(items):,}", missing))
        found.rows.append(none_of(f"{kind} files that cannot be read", broken))
    found.rows += [_lengths(found.pairs), _crop_lengths(found.pairs), _empty(found.pairs), *_widths(found.pairs)]
    found.rows += [_crops(which, rows) for which, rows in lists.items()]
    found.rows.append(_values(found.pairs, values, progress))
    for pair in found.pairs:
        shape = pair.shapes[0] or pair.shapes[1]
        if shape:
            found.snippets.setdefault(dataset.key(pair.item.video), shape[0])
    found.records = extraction_records([pair.item for pair in found.pairs if pair.paths[0]], root)
    found.tail = recorded_tail(found.records.values())
    mixed = found.tail == "mixed"
    found.rows.append(Row("tail rule of the extraction", found.tail or "not recorded", "one rule", mixed))
    return found


def _read_headers(items: Sequence[Item], dataset: Dataset, root: Path | None, progress: bool) -> list[Pair]:
    def read(item: Item) -> Pair:
        try:
            image = resolve_path(item.path, root)
        except InputError as error:
            return Pair(item, (None, None), (None, None), (str(error), ""))
        try:
            event = event_path(image, dataset.event_folders)
        except InputError:
            event = None  # no folder of events at all: every file of it is missing
        looked = [_look(path) for path in (image, event)]
        return Pair(item, (image, event), tuple(shape for shape, _ in looked), tuple(wrong for _, wrong in looked))

    with ThreadPoolExecutor(READERS) as pool:
        work = pool.map(read, items)
        return list(tqdm(work, "embedding headers", len(items), unit="row", leave=False, disable=not progress))


def _look(path: Path | None) -> tuple[Shape | None, str]:
    if path is None or not os.path.exists(path):  # Path.exists raises for a name that is too long
        return None, "missing"
    try:
        return embedding_shape(path), ""
    except InputError as error:
        return None, str(error)


def _files(pairs: Sequence[Pair]) -> list[tuple[Path, Shape]]:
    """The files that can be read, image before event."""
    both = ((path, shape) for pair in pairs for path, shape in zip(pair.paths, pair.shapes, strict=True))
    return [(path, shape) for path, shape in both if path and shape]


def _lengths(pairs: Sequence[Pair]) -> Row:
    both = [(pair.item, *pair.shapes) for pair in pairs if all(pair.shapes)]
    different = [f"{item.path}: {image[0]} and {event[0]}" for item, image, event in both if image[0] != event[0]]
    return none_of("image and event of different S", different)


def _crop_lengths(pairs: Sequence[Pair]) -> Row:
    """Videos whose crops differ in S, in either modality."""
    lengths: dict[tuple[str, int], set[int]] = {}
    for pair in pairs:
        for n, shape in enumerate(pair.shapes):
            if shape:
                lengths.setdefault((pair.item.video, n), set()).add(shape[0])
    wrong = {video: None for (video, _), found in lengths.items() if len(found) > 1}
    return none_of("videos whose crops differ in S", wrong)


def _empty(pairs: Sequence[Pair]) -> Row:
    return none_of("embeddings without a snippet", (str(path) for path, shape in _files(pairs) if not shape[0]))


def _widths(pairs: Sequence[Pair]) -> list[Row]:
    """The width most files have, and the files that have another."""
    files = _files(pairs)
    if not files:
        return [not_checked("width of the embeddings", "no file")]
    common = Counter(shape[1] for _, shape in files).most_common(1)[0][0]
    other = [f"{path}: {shape[1]}" for path, shape in files if shape[1] != common]
    return [Row("width of the embeddings", common), none_of("files of another width", other)]


def _crops(which: str, items: Sequence[Item]) -> Row:
    """Videos that lack crops which most videos of the same list have."""
    crops: dict[str, set[int]] = {}
    for item in items:
        crops.setdefault(item.video, set()).add(item.crop)
    usual = Counter(frozenset(found) for found in crops.values()).most_common(1)[0][0]
    lacking = [f"{video}: {_numbers(usual - found)}" for video, found in crops.items() if usual - found]
    return none_of(f"{which} videos that lack crops", lacking, f"usual: {_numbers(usual)}")


def _numbers(crops: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(crops)))


def _values(pairs: Sequence[Pair], values: str, progress: bool) -> Row:
    """Files with NaN or infinite numbers."""
    check = "files with NaN or infinite numbers"
    paths = [path for path, _ in _files(pairs)]
    size = sum(path.stat().st_size for path in paths)
    if values == "none" or (values == "auto" and size > MOST_BYTES):
        return not_checked(check, f"{size / 2**30:.1f} GiB; --values all reads them")

    def finite(path: Path) -> bool:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError):
            return False
        return array.dtype.kind in "fiub" and bool(np.isfinite(array).all())

    with ThreadPoolExecutor(READERS) as pool:
        work = pool.map(finite, paths)
        good = list(tqdm(work, "embedding values", len(paths), unit="file", leave=False, disable=not progress))
    return none_of(check, (str(path) for path, ok in zip(paths, good, strict=True) if not ok))
