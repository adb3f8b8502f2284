"""train.csv and test.csv, made: embeddings and the data sets' own lists, joined by name, never by position."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vad.annotations import read_names, split_crop
from vad.catalog import IMAGE_FOLDER, Annotations, Dataset
from vad.errors import InputError
from vad.files import sha256, write_json, write_whole
from vad.lists import SIDECAR


@dataclass
class Found:
    """One video for which there are image embeddings."""

    name: str
    crops: dict[int, str] = field(default_factory=dict)  # crop → path below the embedding root


def scan(base_path: Path) -> dict[str, Found]:
    """Every video with embeddings below `<…>/rgb`, by name, in the order of its path.

    Hidden files are passed over: extraction writes to such names before it renames.
    Raises InputError for a folder that is missing, empty or not called rgb, a file without crop, or a name twice.
    """
    if base_path.name != IMAGE_FOLDER:
        raise InputError(f"{base_path}: the folder of image embeddings must be called {IMAGE_FOLDER}")
    if not base_path.is_dir():
        raise InputError(f"{base_path}: no such folder; extract the image embeddings first, or give --base_path")
    videos: dict[str, Found] = {}
    folders: dict[str, Path] = {}
    for path in sorted(base_path.rglob("*.npy")):
        if any(part.startswith(".") for part in path.relative_to(base_path).parts):
            continue
        name, crop = split_crop(path.stem)
        if crop is None:
            raise InputError(f"{path}: no crop in this name; expected <video>__<crop>.npy")
        if folders.setdefault(name, path.parent) != path.parent:
            raise InputError(f"{path}: {name} lies in {folders[name]} too, and a name must mean one video")
        relative = path.relative_to(base_path.parent).as_posix()
        if videos.setdefault(name, Found(name)).crops.setdefault(crop, relative) != relative:
            raise InputError(f"{path}: crop {crop} of {name} is there twice")
    if not videos:
        raise InputError(f"{base_path}: holds no <video>__<crop>.npy")
    return videos


@dataclass
class Split:
    """Which videos with embeddings train and which test, and what did not fit."""

    train: list[Found]
    test: list[Found]
    unlisted: list[str]  # embeddings that neither list names
    missing_train: list[str]  # listed without embeddings
    missing_test: list[str]
    unmatched: list[str]  # rows known to match no video
    moved: list[str]  # videos that the lists given have on the other side, known to be the release's


def split_videos(
    videos: Mapping[str, Found], dataset: Dataset, files: Annotations, train_list: Path | None, test_list: Path
) -> Split:
    """Join lists and embeddings by name; train_list None leaves training to the unlisted.

    Raises InputError where a list cannot be read or a video stands in both.
    """
    by_key: dict[str, Found] = {}
    for video in videos.values():
        if by_key.setdefault(dataset.key(video.name), video) is not video:
            raise InputError(f"{video.name} and {by_key[dataset.key(video.name)].name} mean one video; remove one")
    for whole, parts in dataset.parts.items():
        # a list that names a video in parts means the video, unless a part has embeddings of its own
        by_key.update({part: by_key[whole] for part in parts if whole in by_key and part not in by_key})
    listed = {path: read_names(path, videos) for path in (test_list, train_list) if path}
    unmatched = [name for name in listed[test_list] if name in files.unmatched and name not in videos]
    test_names = [name for name in listed[test_list] if name not in unmatched]
    train_names = listed[train_list] if train_list else []
    to_train, to_test = ({dataset.key(name) for name in names} for names in (files.to_train, files.to_test))
    moved = [name for name in test_names if dataset.key(name) in to_train]
    moved += [name for name in train_names if dataset.key(name) in to_test]
    # a move is made only where a list asks for it: the authors' own lists have these videos where they belong
    test_names, train_names = (
        [name for name in dict.fromkeys((*names, *(moved if names else ()))) if dataset.key(name) not in away]
        for names, away in ((test_names, to_train), (train_names, to_test))
    )
    test, missing_test = _join(test_names, by_key, dataset)
    train, missing_train = _join(train_names, by_key, dataset)
    both = {video.name for video in test} & {video.name for video in train}
    if both:
        raise InputError(f"{train_list}: {min(both)} is a training video here and a test video in {test_list}")
    named = {video.name for video in (*test, *train)}
    unlisted = [name for name in videos if name not in named]
    return Split(train, test, unlisted, missing_train, missing_test, unmatched, moved)


def _join(names: Sequence[str], by_key: Mapping[str, Found], dataset: Dataset) -> tuple[list[Found], list[str]]:
    found = {by_key[key].name: by_key[key] for name in names if (key := dataset.key(name)) in by_key}
    return list(found.values()), [name for name in names if dataset.key(name) not in by_key]


@dataclass(frozen=True)
class ListRequest:
    """What is asked of `make_lists`; None stands for the catalogue's file, below `list/<folder>/`."""

    dataset: Dataset
    split: str  # "official" or "released"
    base_path: Path  # <…>/rgb
    train_csv: Path
    test_csv: Path
    train_list: Path | None = None
    test_list: Path | None = None
    annotation_root: Path | None = None  # folder of the lists that the two above do not name
    train_crops: tuple[int, ...] | None = None  # None: all that exist
    test_crops: tuple[int, ...] = (5,)
    unlisted: str | None = None  # "train" or "report"; None: train where there is no training list
    allow_missing: bool = False


def split_files(dataset: Dataset, split: str) -> Annotations:
    """The catalogue's file names of a split; InputError names the known splits."""
    if split not in dataset.annotations:
        raise InputError(f"unknown split {split!r} of {dataset.name}; known are {', '.join(dataset.annotations)}")
    return dataset.annotations[split]


def make_lists(ask: ListRequest) -> list[str]:
    """Write train.csv, test.csv and, last, the note beside them; returns sentences that tell what came of it.

    Raises InputError, before anything is written, where a list or an embedding that is needed is missing.
    """
    files = split_files(ask.dataset, ask.split)
    base_path = Path(os.path.abspath(ask.base_path))  # not resolve: a link called rgb/ keeps its name
    test_list = ask.test_list or ask.dataset.annotation_file(files.test_list, ask.annotation_root)
    train_list = ask.train_list
    if train_list is None and files.train_list:
        train_list = ask.dataset.annotation_file(files.train_list, ask.annotation_root)
    if ask.unlisted == "train" and ask.train_list is None and train_list and not train_list.is_file():
        train_list = None  # whoever trains on everything that is not tested needs no training list
    videos = scan(base_path)
    for kind, path in (("train", train_list), ("test", test_list)):
        if path and not path.is_file():
            hint = f"list/README.md says whose it is; --{kind}_list names another, the release's {kind}.csv will do"
            raise InputError(f"{path}: no such list of {kind} videos; {hint}")
    split = split_videos(videos, ask.dataset, files, train_list, test_list)
    # without a training list the split's rule is the release's: what is not tested trains
    unlisted = ask.unlisted or ("train" if train_list is None else "report")
    if unlisted == "train":
        split.train.extend(videos[name] for name in split.unlisted)
    _check_test(split, ask, test_list)
    train = _rows(split.train, ask.dataset, ask.train_crops)
    test = _rows(split.test, ask.dataset, ask.test_crops)
    note: dict[str, object] = {
        "dataset": ask.dataset.name,
        "split": ask.split,
        "feature_root": str(base_path.parent.resolve()),
        "files": {
            kind: {"name": path.name, "sha256": sha256(path)} if path else None
            for kind, path in (("train_list", train_list), ("test_list", test_list))
        },
        "videos": {"train": len(split.train), "test": len(split.test)},
        "unlisted_rule": unlisted,
        "unlisted": split.unlisted,
        "missing": {"train": split.missing_train, "test": split.missing_test},
    }
    outcome = [(path, _write_rows(path, rows)) for path, rows in ((ask.train_csv, train), (ask.test_csv, test))]
    for folder in {ask.train_csv.parent: None, ask.test_csv.parent: None}:
        write_json(folder / SIDECAR, note)
    said = [f"{path}: {'written' if new else 'as before'}" for path, new in outcome]
    return [*_tell(split, ask, unlisted), *said]


def _check_test(split: Split, ask: ListRequest, test_list: Path) -> None:
    if split.missing_test and not ask.allow_missing:
        raise InputError(
            f"{test_list}: {len(split.missing_test)} test videos have no embeddings below {ask.base_path}"
            f" ({_some(split.missing_test)}); extract them, or take the rest with --allow_missing"
        )
    if not split.test:
        raise InputError(f"{test_list}: names no video that has embeddings below {ask.base_path}")


def _rows(videos: Sequence[Found], dataset: Dataset, crops: Sequence[int] | None) -> list[tuple[str, str]]:
    rows = []
    for video in videos:
        wanted = sorted(video.crops if crops is None else set(crops))
        lacking = [crop for crop in wanted if crop not in video.crops]
        if lacking:
            there = ", ".join(map(str, sorted(video.crops)))
            raise InputError(f"{video.name}: no embedding of crop {_some(lacking)}; there are crops {there}")
        rows.extend((video.crops[crop], dataset.label_of(video.crops[crop])) for crop in wanted)
    return rows


def _write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> bool:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label"), *rows])
    return write_whole(path, text.getvalue().encode())


def _some(names: Sequence[object], most: int = 5) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _tell(split: Split, ask: ListRequest, unlisted: str) -> list[str]:
    """One sentence for the sizes, and one for everything that did not fit."""
    expected = ask.dataset.videos.get(ask.split)
    beside = f" (catalogue: {expected[0]} and {expected[1]})" if expected else ""
    told = [
        f"{ask.dataset.title}, {ask.split} split: {len(split.train)} training and {len(split.test)} test videos{beside}"
    ]
    if split.unlisted:
        what = "taken for training" if unlisted == "train" else "taken for nothing"
        many = 5 if unlisted == "train" else 50
        told.append(f"{len(split.unlisted)} videos in no list, {what}: {_some(split.unlisted, many)}")
    if split.missing_train:
        told.append(f"{len(split.missing_train)} training videos without embeddings: {_some(split.missing_train)}")
    if split.missing_test:
        told.append(f"{len(split.missing_test)} test videos without embeddings, left out: {_some(split.missing_test)}")
    if split.moved:
        told.append(f"{len(split.moved)} videos change sides, as the {ask.split} split has them: {_some(split.moved)}")
    if split.unmatched:
        told.append(f"{len(split.unmatched)} rows of the test list known to match no video: {_some(split.unmatched)}")
    if not split.train:
        told.append("no training video: these lists are good for evaluation only")
    return told
