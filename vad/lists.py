"""The lists train.csv and test.csv, read: rows, where their embeddings lie, what was noted beside them."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vad.annotations import split_crop
from vad.catalog import IMAGE_FOLDER, Dataset
from vad.errors import InputError
from vad.files import read_json, read_text

SIDECAR = "lists.json"  # beside train.csv and test.csv


@dataclass(frozen=True)
class Item:
    """One row of a list: the image embedding of one crop of one video."""

    path: str  # as it stands in the list
    label: str  # of the catalogue
    video: str  # name without folder, crop and suffix
    crop: int


def read_csv(path: Path | str, dataset: Dataset) -> list[Item]:
    """Rows of a `path,label` list in its order; ours and the release's.

    Raises InputError for a missing or empty file, columns that lack, a path without crop, a class that
    `dataset` does not have, or a crop that stands in the list twice.
    """
    path = Path(path)
    items: list[Item] = []
    seen: dict[tuple[str, int], int] = {}
    for number, item in csv_rows(path, dataset):
        try:
            if isinstance(item, InputError):
                raise item
            dataset.class_names(item.label)
        except InputError as error:
            raise InputError(f"{path}, row {number}: {error}") from None
        first = seen.setdefault((item.video, item.crop), number)
        if first != number:
            raise InputError(f"{path}, row {number}: crop {item.crop} of {item.video} stands in row {first} already")
        items.append(item)
    if not items:
        raise InputError(f"{path}: the list holds no video; make it again with list/generate_file.py")
    return items


def csv_rows(path: Path, dataset: Dataset) -> Iterator[tuple[int, Item | InputError]]:
    """Row number and row of a `path,label` list, or what is wrong with the row; labels are as written.

    Raises InputError for a missing file, one that is no CSV, and columns that lack.
    """
    text = read_text(path, "list (make it with list/generate_file.py)")
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    header = [name.strip() for name in rows[0]] if rows else []
    lacking = [name for name in ("path", "label") if name not in header]
    if lacking:
        raise InputError(f"{path}: no column {' and '.join(lacking)} in its first line; expected path,label")
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            if len(row) != len(header):
                raise InputError(f"{len(row)} columns instead of {len(header)}")
            yield number, _item(dict(zip(header, row, strict=True)), dataset)
        except InputError as error:
            yield number, error


def _item(row: Mapping[str, str], dataset: Dataset) -> Item:
    path, label = row["path"].strip(), unicodedata.normalize("NFC", row["label"].strip())
    name = PurePosixPath(path)
    video, crop = split_crop(name.stem)
    if name.suffix != ".npy" or crop is None:
        raise InputError(f"{path!r} is not <video>__<crop>.npy")
    return Item(path, dataset.folder_labels.get(label, label), video, crop)


def resolve_path(path: str, feature_root: Path | str | None) -> Path:
    """Where the embedding of a list's row lies.

    A relative path lies below feature_root. Of an absolute one (the release's lists hold their author's)
    everything from the last `rgb` on lies below feature_root; without feature_root it is taken as it is.
    Raises InputError where feature_root is needed and missing, or an absolute path has no `rgb` in it.
    """
    written = PurePosixPath(path)
    if feature_root is None:
        if not written.is_absolute():
            raise InputError(f"{path}: relative to an unknown folder; give --feature_root, the folder that holds rgb/")
        return Path(path)
    if not written.is_absolute():
        return Path(feature_root) / path
    return Path(feature_root).joinpath(*written.parts[_image_folder(written.parts, path) :])


def event_path(image_path: Path, event_folders: Sequence[str]) -> Path:
    """The event embedding that belongs to an image embedding: the last `rgb` becomes the event folder.

    That is the first of event_folders that exists beside `rgb`. Raises InputError where none does.
    """
    root = embedding_root(image_path)
    for folder in event_folders:
        if (root / folder).is_dir():
            return root.joinpath(folder, *image_path.relative_to(root).parts[1:])
    raise InputError(f"{root}: no folder {' or '.join(event_folders)} beside {IMAGE_FOLDER}/; extract the events first")


def embedding_root(image_path: Path) -> Path:
    """The folder that holds `rgb`, of an image embedding in it; InputError where the path has no `rgb`."""
    return Path(*image_path.parts[: _image_folder(image_path.parts, image_path)])


def _image_folder(parts: Sequence[str], path: Path | str) -> int:
    """Position of the last `rgb` in a path's parts, its file name aside."""
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == IMAGE_FOLDER:
            return at
    raise InputError(f"{path}: no folder {IMAGE_FOLDER}/ in this path")


def lists_sidecar(csv_path: Path | str) -> dict[str, object]:
    """What was noted beside a list when it was made (feature_root, split, …); empty where nothing was."""
    sidecar = Path(csv_path).parent / SIDECAR
    return read_json(sidecar, "note beside the lists") if sidecar.is_file() else {}


def feature_root_of(csv_path: Path | str) -> Path | None:
    """The folder that holds rgb/, as noted when the list was made; None for a list that was not made here."""
    root = lists_sidecar(csv_path).get("feature_root")
    return Path(root) if isinstance(root, str) else None
