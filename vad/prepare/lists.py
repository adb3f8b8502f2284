"""Make train.csv and test.csv from the image embeddings and the table of a data set, joined by video name."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from vad.data import LISTS_METADATA, split_crop
from vad.datasets import IMAGE_FOLDER, SIDES, SOURCE_SUFFIXES, Dataset
from vad.files import InputError, read_text, sha256, write_bytes, write_json

_ENDINGS = "|".join(sorted(suffix[1:] for suffix in SOURCE_SUFFIXES))
_FILE = re.compile(rf'.*?\.({_ENDINGS}|npy)(?=[\s,"]|$)', re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s,;]+")


def scan(base_path: Path, dataset: Dataset) -> dict[str, dict[int, str]]:
    """Return the embeddings below `<…>/rgb` as `scan_folder` does; raise InputError for a folder of another name."""
    if base_path.name != IMAGE_FOLDER:
        raise InputError(f"{base_path}: the folder of image embeddings must be called {IMAGE_FOLDER}.")
    return scan_folder(base_path, dataset)


def scan_folder(base_path: Path, dataset: Dataset) -> dict[str, dict[int, str]]:
    """Return video key → crop → path below the folder's parent, for all embeddings below a folder.

    Hidden files are skipped, because extraction writes them before it renames them. Raises InputError for a folder
    that is missing or empty, a file name without crop, and a video with two names.
    """
    if not base_path.is_dir():
        raise InputError(f"{base_path} does not exist. Extract the embeddings first, or give --base_path.")
    videos: dict[str, dict[int, str]] = {}
    names: dict[str, Path] = {}
    for path in sorted(base_path.rglob("*.npy")):
        relative = path.relative_to(base_path.parent)
        if any(part.startswith(".") for part in relative.parts):
            continue
        name, crop = split_crop(path.stem)
        if crop is None:
            raise InputError(f"{path}: the file name has no crop. Expected <video>__<crop>.npy.")
        key = video_key(name, dataset)
        first = names.setdefault(key, relative.with_name(name))
        if first != relative.with_name(name):
            raise InputError(f"{path} and {first} are the same video. Remove the embeddings of one.")
        videos.setdefault(key, {})[crop] = relative.as_posix()
    if not videos:
        raise InputError(f"{base_path} contains no file <video>__<crop>.npy.")
    return videos


def video_key(text: str, dataset: Dataset, extra_keys: Container[str] = ()) -> str:
    """Return the video key of a name or path: `f/Assault_1_i3d__5.npy` → `Assault_1`.

    A crop, and the `_i3d` of feature files, are removed if the name with them is unknown.
    extra_keys: keys in addition to those of the table.
    """
    name = text.strip().strip('"').replace("\\", "/")
    stem = split_crop(name[:-4])[0] if name.lower().endswith(".npy") else name
    spellings = (stem, split_crop(stem)[0], split_crop(stem)[0].removesuffix("_i3d"))
    keys = [dataset.key(spelling) for spelling in spellings]
    return next((key for key in keys if key in dataset.videos or key in extra_keys), keys[0])


def read_names(path: Path, dataset: Dataset, extra_keys: Container[str] = ()) -> list[str]:
    """Return the keys of the videos in a list, without duplicates, in the order of the list.

    Each line starts with a name, with or without folder, suffix and further columns. Lists of embeddings with a
    line per crop, and the released CSVs, are accepted. extra_keys: keys in addition to those of the table.
    Raises InputError for a list without a known video, a repeated line, and two videos on one line.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(read_text(path, "list of videos").splitlines(), 1):
        text = line.strip()
        if not text or (number == 1 and text.lower().startswith("path,")):
            continue
        key, *others = _names_of_line(text, dataset, extra_keys)
        if not key:
            raise InputError(f"{path}, line {number}: {text[:80]!r} contains no video name.")
        if others:
            raise InputError(f"{path}, line {number}: names {key} and {others[0]}. Write one video per line.")
        if keys.get(key) == text:
            raise InputError(f"{path}, line {number}: {key} is repeated. Remove one of the lines.")
        keys.setdefault(key, text)
    if not any(key in dataset.videos or key in extra_keys for key in keys):
        raise InputError(f"{path} names no video of {dataset.title}. Check that it is the right list.")
    return list(keys)


def _names_of_line(text: str, dataset: Dataset, extra_keys: Container[str]) -> list[str]:
    """Return the key of the video at the start of a line, and keys of other known videos on it."""

    def known_key(part: str) -> str | None:
        key = video_key(part, dataset, extra_keys)
        return key if key in dataset.videos or key in extra_keys else None

    file, first = _FILE.match(text), _SEPARATORS.split(text)[0]
    likely = file[0] if file else first
    start = next((part for part in (text, likely, text.split(",")[0], first) if known_key(part)), None)
    if start is None:
        return [video_key(likely, dataset)]
    # a name may contain spaces, but a "/" after a space starts another name
    others = _SEPARATORS.split(text.removeprefix(start)) + [part for part in _SEPARATORS.split(start) if "/" in part]
    keys = dict.fromkeys(known_key(part) for part in (start, *others) if not part.isdecimal() or part == start)
    return [key for key in keys if key]


def make_lists(
    dataset: Dataset, split: str, base_path: Path, train_csv: Path, test_csv: Path, *,
    train_crops: Sequence[int] | None = None, test_crops: Sequence[int] = (5,),
    train_list: Path | None = None, test_list: Path | None = None, allow_missing: bool = False,
) -> list[str]:  # fmt: skip
    """Write train.csv, test.csv and then lists.json in the same folder. Return a summary to print.

    The order of videos is that of the table, or of a given list. train_crops: None takes all existing crops.
    Raises InputError, before anything is written, if a test video or more than half of the training videos have no
    embedding. allow_missing: leave these videos out instead.
    """
    base_path = Path(os.path.abspath(base_path))  # resolve() would replace the name of a symbolic link rgb/
    embedded = scan(base_path, dataset)
    list_files = {"train": train_list, "test": test_list}
    listed = _listed(dataset, split, list_files, embedded)
    missing = {side: [key for key in keys if key not in embedded] for side, keys in listed.items()}
    if not allow_missing:
        _refuse_missing(dataset, listed, missing, base_path)
    if len(missing["test"]) == len(listed["test"]):
        raise InputError(f"{base_path} contains no embedding of a test video of {dataset.title}.")
    texts = {
        train_csv: _csv(listed["train"], embedded, dataset, train_crops),
        test_csv: _csv(listed["test"], embedded, dataset, test_crops),
    }
    unlisted = [key for key in embedded if key not in {*listed["train"], *listed["test"]}]
    summary = _summary(dataset, split, listed, missing, unlisted)
    summary += _custom_lists(dataset, listed) if train_list or test_list else []
    summary += [f"{path}: {'written' if write_bytes(path, text) else 'unchanged'}" for path, text in texts.items()]
    metadata = {"dataset": dataset.name, "split": split, "feature_root": str(base_path.parent.resolve())}
    sources = {f"{side}_list": path or dataset.annotation_path for side, path in list_files.items()}
    files = {name: {"name": path.name, "sha256": sha256(path)} for name, path in sources.items()}
    for folder in {train_csv.parent, test_csv.parent}:
        write_json(folder / LISTS_METADATA, {**metadata, "files": files, "unlisted": unlisted, "missing": missing})
    return summary


def _listed(
    dataset: Dataset, split: str, list_files: Mapping[str, Path | None], embedded: Container[str]
) -> dict[str, list[str]]:
    """Return the keys of training and test videos from list or table. Raise InputError for a video in both."""
    listed = {
        side: read_names(path, dataset, embedded) if path else dataset.split_names(split, side)
        for side, path in list_files.items()
    }
    overlap = set(listed["train"]) & set(listed["test"])
    if overlap:
        source = list_files["train"] or list_files["test"] or dataset.annotation_path
        raise InputError(f"{source}: {min(overlap)} is both a training and a test video. Remove it from one list.")
    return listed


def _refuse_missing(
    dataset: Dataset, listed: Mapping[str, list[str]], missing: Mapping[str, list[str]], base_path: Path
) -> None:
    """Raise InputError if a test video or more than half of the training videos have no embeddings."""
    for side, name, tolerated in (("test", "test", 0), ("train", "training", len(listed["train"]) // 2)):
        if len(missing[side]) > tolerated:
            raise InputError(
                f"{base_path}: {len(missing[side])} of {len(listed[side])} {name} videos of {dataset.title} have no "
                f"embeddings ({shorten(missing[side])}). Extract them, give their folder with --base_path, or leave "
                f"them out with --allow_missing."
            )


def _csv(
    listed: Sequence[str], embedded: Mapping[str, Mapping[int, str]], dataset: Dataset, crops: Sequence[int] | None
) -> bytes:
    """Return CSV rows path,label of these crops (None: all) of the listed videos that have embeddings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label"))
    for key, paths in ((key, embedded[key]) for key in listed if key in embedded):
        selected = sorted(paths if crops is None else set(crops))
        absent = [crop for crop in selected if crop not in paths]
        if absent:
            raise InputError(f"{key} has no embedding of crop {shorten(absent)}, only of {shorten(sorted(paths), 10)}.")
        writer.writerows((paths[crop], _label(key, paths[crop], dataset)) for crop in selected)
    return text.getvalue().encode()


def _label(key: str, path: str, dataset: Dataset) -> str:
    """Return the label of an embedding from its folder or name, or from the table if it has no class folder."""
    annotated = dataset.videos.get(key)
    if annotated and path.count("/") == 1 and not dataset.label_in_name:
        return annotated.label
    label = dataset.label_of(path)
    if annotated and label != annotated.label:
        table = dataset.annotation_path.name
        raise InputError(f"{path}: {key} has label {annotated.label} in {table}. Move the file, or correct the table.")
    return label


def shorten(names: Sequence[object], count: int = 5) -> str:
    """Return the first names as text, with the number of further ones."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(str, names[:count])) + more


def _summary(
    dataset: Dataset, split: str, listed: Mapping[str, list[str]], missing: Mapping[str, list[str]], unlisted: list[str]
) -> list[str]:
    """Return a line with the sizes of the lists, and a line for each reason why videos are left out."""
    train, test = (len(listed[side]) - len(missing[side]) for side in SIDES)
    counts = dataset.split_counts.get(split)
    table = f" (table: {counts[0]} and {counts[1]})" if counts else ""
    lines = [f"{dataset.title}, {split} split: {train} training and {test} test videos{table}"]
    if unlisted:
        lines.append(f"{len(unlisted)} embedded videos are in no list and not used: {shorten(unlisted, 50)}")
    for side, name in (("train", "training"), ("test", "test")):
        if missing[side]:
            count = len(missing[side])
            lines.append(f"{count} {name} videos without embeddings are left out: {shorten(missing[side])}")
    if not train:
        lines.append("no training videos: these lists can be used for evaluation only")
    return lines


def _custom_lists(dataset: Dataset, listed: Mapping[str, Sequence[str]]) -> list[str]:
    """Compare lists that replace the table with the splits of the table."""
    split, leaks = dataset.split_of(listed["train"], listed["test"])
    lines = [f"the test videos {f'are those of the {split} split' if split else 'match no split of the table'}"]
    if leaks:
        lines.append(f"{len(leaks)} training videos are test videos of the official split: {shorten(leaks)}")
    return lines
