"""train.csv and test.csv from image embeddings and the table of a data set, joined by name."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from vad.data import LISTS_METADATA, split_crop
from vad.datasets import IMAGE_FOLDER, SIDES, VIDEO_SUFFIXES, Dataset
from vad.files import InputError, read_text, sha256, write_bytes, write_json

_ENDINGS = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_FILE = re.compile(rf'.*?\.({_ENDINGS}|npy)(?=[\s,"]|$)', re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s,;]+")


def scan(base_path: Path, dataset: Dataset) -> dict[str, dict[int, str]]:
    """Key of every video with embeddings below `<…>/rgb` → crop → path below the embedding root, by path.

    Hidden files are passed over: extraction writes to them before it renames. Raises InputError for a folder
    that is missing, empty or not called rgb, a file without crop, and a video under two names.
    """
    if base_path.name != IMAGE_FOLDER:
        raise InputError(f"{base_path}: the folder of image embeddings must be called {IMAGE_FOLDER}")
    if not base_path.is_dir():
        raise InputError(f"{base_path}: no such folder; extract the embeddings first, or give --base_path")
    videos: dict[str, dict[int, str]] = {}
    names: dict[str, Path] = {}
    for path in sorted(base_path.rglob("*.npy")):
        relative = path.relative_to(base_path.parent)
        if any(part.startswith(".") for part in relative.parts):
            continue
        name, crop = split_crop(path.stem)
        if crop is None:
            raise InputError(f"{path}: no crop in this name; expected <video>__<crop>.npy")
        key = video_key(name, dataset)
        first = names.setdefault(key, relative.with_name(name))
        if first != relative.with_name(name):
            raise InputError(f"{path}: {first} means the same video; remove the embeddings of one")
        videos.setdefault(key, {})[crop] = relative.as_posix()
    if not videos:
        raise InputError(f"{base_path}: holds no <video>__<crop>.npy")
    return videos


def video_key(text: str, dataset: Dataset, known: Container[str] = ()) -> str:
    """The key of the video that a name or path means: `f/Assault_1_i3d__5.npy` → `Assault_1`.

    A crop, and the `_i3d` of feature files, are dropped where the name with them is not known.
    known: keys beside those of the table.
    """
    name = text.strip().strip('"').replace("\\", "/")
    stem = split_crop(name[:-4])[0] if name.lower().endswith(".npy") else name
    spellings = (stem, split_crop(stem)[0], split_crop(stem)[0].removesuffix("_i3d"))
    keys = [dataset.key(spelling) for spelling in spellings]
    return next((key for key in keys if key in dataset.videos or key in known), keys[0])


def read_names(path: Path, dataset: Dataset, known: Container[str] = ()) -> list[str]:
    """Keys of the videos that a list names, each once, in its order.

    A line begins with a name, with or without folder, suffix and further columns. A list of embeddings, crop
    by crop, and the release's CSV are lists too. known: keys beside those of the table.
    Raises InputError for a list without a known video, a line twice, and two videos on one line.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(read_text(path, "list of videos").splitlines(), 1):
        text = line.strip()
        if not text or (number == 1 and text.lower().startswith("path,")):
            continue
        key, *others = _names_of_line(text, dataset, known)
        if not key:
            raise InputError(f"{path}, line {number}: {text[:80]!r} holds no video name")
        if others:
            raise InputError(f"{path}, line {number}: names {key} and {others[0]}; write one a line")
        if keys.get(key) == text:
            raise InputError(f"{path}, line {number}: {key} stands in this list already; keep one")
        keys.setdefault(key, text)
    if not any(key in dataset.videos or key in known for key in keys):
        raise InputError(f"{path}: no line names a video of {dataset.title}; is this its list?")
    return list(keys)


def _names_of_line(text: str, dataset: Dataset, known: Container[str]) -> list[str]:
    """Key of the video that a line begins with, and keys of other known videos on it."""

    def known_key(part: str) -> str | None:
        key = video_key(part, dataset, known)
        return key if key in dataset.videos or key in known else None

    file, first = _FILE.match(text), _SEPARATORS.split(text)[0]
    likely = file[0] if file else first
    start = next((part for part in (text, likely, text.split(",")[0], first) if known_key(part)), None)
    if start is None:
        return [video_key(likely, dataset)]
    # a name may hold blanks, but no folder after one
    others = _SEPARATORS.split(text.removeprefix(start)) + [part for part in _SEPARATORS.split(start) if "/" in part]
    keys = dict.fromkeys(known_key(part) for part in (start, *others) if not part.isdecimal() or part == start)
    return [key for key in keys if key]


def make_lists(
    dataset: Dataset,
    split: str,
    base_path: Path,
    train_csv: Path,
    test_csv: Path,
    *,
    train_crops: Sequence[int] | None = None,
    test_crops: Sequence[int] = (5,),
    train_list: Path | None = None,
    test_list: Path | None = None,
    allow_missing: bool = False,
) -> list[str]:
    """Write train.csv, test.csv and, last, lists.json beside them; returns sentences to print.

    Videos stand in the order of the table, or of a list given instead. train_crops None: all there are.
    Raises InputError, before anything is written, where a test video has no embedding, or more than half
    of the training videos have none; allow_missing leaves these out.
    """
    base_path = Path(os.path.abspath(base_path))  # not resolved: a link called rgb/ keeps its name
    embedded = scan(base_path, dataset)
    given = {"train": train_list, "test": test_list}
    listed = _listed(dataset, split, given, embedded)
    missing = {side: [key for key in keys if key not in embedded] for side, keys in listed.items()}
    if not allow_missing:
        _refuse_missing(dataset, listed, missing, base_path)
    if len(missing["test"]) == len(listed["test"]):
        raise InputError(f"{base_path}: no embedding of a test video of {dataset.title}")
    texts = {
        train_csv: _csv(listed["train"], embedded, dataset, train_crops),
        test_csv: _csv(listed["test"], embedded, dataset, test_crops),
    }
    unlisted = [key for key in embedded if key not in {*listed["train"], *listed["test"]}]
    said = _summary(dataset, split, listed, missing, unlisted)
    said += _given_lists(dataset, listed) if train_list or test_list else []
    said += [f"{path}: {'written' if write_bytes(path, text) else 'as before'}" for path, text in texts.items()]
    metadata = {"dataset": dataset.name, "split": split, "feature_root": str(base_path.parent.resolve())}
    sources = {f"{side}_list": path or dataset.annotation_path for side, path in given.items()}
    files = {name: {"name": path.name, "sha256": sha256(path)} for name, path in sources.items()}
    for folder in {train_csv.parent, test_csv.parent}:
        write_json(folder / LISTS_METADATA, {**metadata, "files": files, "unlisted": unlisted, "missing": missing})
    return said


def _listed(
    dataset: Dataset, split: str, given: Mapping[str, Path | None], embedded: Container[str]
) -> dict[str, list[str]]:
    """Keys of the training and test videos, of a list or of the table; InputError for one in both."""
    listed = {
        side: read_names(path, dataset, embedded) if path else dataset.split_names(split, side)
        for side, path in given.items()
    }
    both = set(listed["train"]) & set(listed["test"])
    if both:
        where = given["train"] or given["test"] or dataset.annotation_path
        raise InputError(f"{where}: {min(both)} is a training video and a test video; keep one of them")
    return listed


def _refuse_missing(
    dataset: Dataset, listed: Mapping[str, list[str]], missing: Mapping[str, list[str]], base_path: Path
) -> None:
    """InputError where a test video or more than half of the training videos have no embeddings."""
    for side, name, most in (("test", "test", 0), ("train", "training", len(listed["train"]) // 2)):
        if len(missing[side]) > most:
            raise InputError(
                f"{base_path}: {len(missing[side])} of {len(listed[side])} {name} videos of {dataset.title} have no "
                f"embeddings ({some(missing[side])}); extract them, give the folder that holds them, or leave them "
                f"out with --allow_missing"
            )


def _csv(
    listed: Sequence[str], embedded: Mapping[str, Mapping[int, str]], dataset: Dataset, crops: Sequence[int] | None
) -> bytes:
    """The rows path,label of these crops (None: all there are) of the listed videos with embeddings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label"))
    for key, paths in ((key, embedded[key]) for key in listed if key in embedded):
        wanted = sorted(paths if crops is None else set(crops))
        lacking = [crop for crop in wanted if crop not in paths]
        if lacking:
            raise InputError(f"{key}: no embedding of crop {some(lacking)}; there are {some(sorted(paths), 10)}")
        writer.writerows((paths[crop], _label(key, paths[crop], dataset)) for crop in wanted)
    return text.getvalue().encode()


def _label(key: str, path: str, dataset: Dataset) -> str:
    """Label of an embedding, from its folder or name; of a video in no class folder, from the table."""
    annotated = dataset.videos.get(key)
    if annotated and path.count("/") == 1 and not dataset.label_in_name:
        return annotated.label
    label = dataset.label_of(path)
    if annotated and label != annotated.label:
        table = dataset.annotation_path.name
        raise InputError(f"{path}: {key} is {annotated.label} in {table}; move the file, or correct the table")
    return label


def some(names: Sequence[object], most: int = 5) -> str:
    """The first of many names, and how many there are beside them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def _summary(
    dataset: Dataset, split: str, listed: Mapping[str, list[str]], missing: Mapping[str, list[str]], unlisted: list[str]
) -> list[str]:
    """One sentence on the sizes, and one on each kind of video left out."""
    train, test = (len(listed[side]) - len(missing[side]) for side in SIDES)
    counts = dataset.split_counts.get(split)
    table = f" (table: {counts[0]} and {counts[1]})" if counts else ""
    said = [f"{dataset.title}, {split} split: {train} training and {test} test videos{table}"]
    if unlisted:
        said.append(f"{len(unlisted)} videos in no list, taken for nothing: {some(unlisted, 50)}")
    for side, name in (("train", "training"), ("test", "test")):
        if missing[side]:
            said.append(f"{len(missing[side])} {name} videos without embeddings, left out: {some(missing[side])}")
    if not train:
        said.append("no training video: these lists are good for evaluation only")
    return said


def _given_lists(dataset: Dataset, listed: Mapping[str, Sequence[str]]) -> list[str]:
    """What lists that were given instead of the table amount to."""
    split, leaks = dataset.split_of(listed["train"], listed["test"])
    said = [f"the test videos are {f'those of the {split} split' if split else 'of no split of the table'}"]
    if leaks:
        said.append(f"{len(leaks)} training videos are test videos of the official split: {some(leaks)}")
    return said
