"""train.csv and test.csv from image embeddings and the table of a data set, joined by name."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vad.data import LISTS_METADATA, split_crop
from vad.datasets import IMAGE_FOLDER, SIDES, VIDEO_SUFFIXES, Dataset
from vad.files import InputError, read_text, sha256, write_bytes, write_json

_ENDINGS = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_FILE = re.compile(rf'.*?\.({_ENDINGS}|npy)(?=[\s,"]|$)', re.IGNORECASE)


@dataclass
class VideoEmbeddings:
    """The image embeddings of one video."""

    name: str
    crops: dict[int, str] = field(default_factory=dict)  # crop → path below the embedding root


def scan(base_path: Path) -> dict[str, VideoEmbeddings]:
    """Every video with embeddings below `<…>/rgb`, by name, in the order of its path.

    Hidden files are passed over: extraction writes to them before it renames. Raises InputError for a
    folder that is missing, empty or not called rgb, a file without crop, and a name in two folders.
    """
    if base_path.name != IMAGE_FOLDER:
        raise InputError(f"{base_path}: the folder of image embeddings must be called {IMAGE_FOLDER}")
    if not base_path.is_dir():
        raise InputError(f"{base_path}: no such folder; extract the embeddings first, or give --base_path")
    videos: dict[str, VideoEmbeddings] = {}
    folders: dict[str, Path] = {}
    for path in sorted(base_path.rglob("*.npy")):
        if any(part.startswith(".") for part in path.relative_to(base_path).parts):
            continue
        name, crop = split_crop(path.stem)
        if crop is None:
            raise InputError(f"{path}: no crop in this name; expected <video>__<crop>.npy")
        if folders.setdefault(name, path.parent) != path.parent:
            raise InputError(f"{path}: {name} is in {folders[name]} too; a name must mean one video")
        relative = path.relative_to(base_path.parent).as_posix()
        videos.setdefault(name, VideoEmbeddings(name)).crops[crop] = relative
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

    A line begins with a name, with or without folder, suffix and further columns. A list of embeddings,
    crop by crop, and the release's CSV are lists too. known: keys beside those of the table.
    Raises InputError for a list without a known video, a line twice, and two videos on one line.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(read_text(path, "list of videos").splitlines(), 1):
        text = line.strip()
        if not text or (number == 1 and text.lower().startswith("path,")):
            continue
        key, others = _names_of_line(text, dataset, known)
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


def _names_of_line(text: str, dataset: Dataset, known: Container[str]) -> tuple[str, list[str]]:
    """Key of the video that a line begins with, and keys of others that it names after it."""
    file, words = _FILE.match(text), re.split(r"[\s,;]+", text)
    likely = file[0] if file else words[0]
    for start in (text, likely, text.split(",")[0], re.split(r"\t|\s{2,}", text)[0], words[0]):
        key = video_key(start, dataset, known)
        if key in dataset.videos or key in known:
            rest = re.split(r"[\s,;]+", text.removeprefix(start))
            inside = [word for word in re.split(r"[\s,;]+", start) if "/" in word]
            others = {video_key(word, dataset, known) for word in (*rest, *inside) if not word.isdecimal()}
            return key, [k for k in others - {key} if k in dataset.videos or k in known]
    return video_key(likely, dataset), []


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
    embedded = _by_key(scan(base_path).values(), dataset)
    sources = {"train": train_list, "test": test_list}
    listed = _listed(dataset, split, sources, embedded)
    missing = {side: [key for key in keys if key not in embedded] for side, keys in listed.items()}
    if not allow_missing:
        _refuse_missing(dataset, listed, missing, base_path)
    videos = {side: [embedded[key] for key in keys if key in embedded] for side, keys in listed.items()}
    if not videos["test"]:
        raise InputError(f"{base_path}: no embedding of a test video of {dataset.title}")
    rows = {"train": _rows(videos["train"], dataset, train_crops), "test": _rows(videos["test"], dataset, test_crops)}
    named = {key for keys in listed.values() for key in keys}
    unlisted = [video.name for key, video in embedded.items() if key not in named]
    metadata: dict[str, object] = {
        "dataset": dataset.name,
        "split": split,
        "feature_root": str(base_path.parent.resolve()),
        "files": {f"{side}_list": _source(path, dataset) for side, path in sources.items()},
        "videos": {side: len(videos[side]) for side in SIDES},
        "unlisted": unlisted,
        "missing": missing,
    }
    said = _summary(dataset, split, videos, missing, unlisted)
    said += _given_lists(dataset, listed) if train_list or test_list else []
    for side, path in zip(SIDES, (train_csv, test_csv), strict=True):
        said.append(f"{path}: {'written' if write_bytes(path, _csv(rows[side])) else 'as before'}")
    for folder in {train_csv.parent, test_csv.parent}:
        write_json(folder / LISTS_METADATA, metadata)
    return said


def _listed(
    dataset: Dataset, split: str, sources: Mapping[str, Path | None], known: Container[str]
) -> dict[str, list[str]]:
    """Keys of the training and test videos, of a list that is given or of the table; InputError for one in both."""
    listed = {
        side: read_names(path, dataset, known) if path else dataset.split_names(split, side)
        for side, path in sources.items()
    }
    both = set(listed["train"]) & set(listed["test"])
    if both:
        where = sources["train"] or sources["test"] or dataset.annotation_path
        raise InputError(f"{where}: {min(both)} is a training video and a test video; keep one of them")
    return listed


def _by_key(videos: Iterable[VideoEmbeddings], dataset: Dataset) -> dict[str, VideoEmbeddings]:
    by_key: dict[str, VideoEmbeddings] = {}
    for video in videos:
        first = by_key.setdefault(video_key(video.name, dataset), video)
        if first is not video:
            raise InputError(f"{first.name} and {video.name} mean one video; remove the embeddings of one")
    return by_key


def _refuse_missing(
    dataset: Dataset, listed: Mapping[str, list[str]], missing: Mapping[str, list[str]], base_path: Path
) -> None:
    """InputError where too few of the listed videos have embeddings to make lists of."""
    advice = "extract them, give the folder that holds them, or leave them out with --allow_missing"
    if missing["test"]:
        raise InputError(
            f"{base_path}: {len(missing['test'])} of {len(listed['test'])} test videos of {dataset.title} "
            f"have no embeddings ({some(missing['test'])}); {advice}"
        )
    if 2 * len(missing["train"]) > len(listed["train"]):
        raise InputError(
            f"{base_path}: {len(missing['train'])} of {len(listed['train'])} training videos of "
            f"{dataset.title} have no embeddings ({some(missing['train'])}); {advice}"
        )


def _rows(
    videos: Sequence[VideoEmbeddings], dataset: Dataset, crops: Sequence[int] | None
) -> list[tuple[str, str]]:
    rows = []
    for video in videos:
        wanted = sorted(video.crops if crops is None else set(crops))
        lacking = [crop for crop in wanted if crop not in video.crops]
        if lacking:
            there = ", ".join(map(str, sorted(video.crops)))
            raise InputError(f"{video.name}: no embedding of crop {some(lacking)}; there are {there}")
        rows.extend((video.crops[crop], _label(video.crops[crop], dataset)) for crop in wanted)
    return rows


def _label(path: str, dataset: Dataset) -> str:
    """Label of an embedding, from its folder or name; of a video in no class folder, from the table."""
    annotated = dataset.find(video_key(Path(path).name, dataset))
    if annotated and len(Path(path).parts) == 2 and not dataset.label_in_name:
        return annotated.label
    label = dataset.label_of(path)
    if annotated and label != annotated.label:
        raise InputError(
            f"{path}: {annotated.name} is {annotated.label} in {dataset.annotation_path.name}; "
            f"move the file, or correct the table"
        )
    return label


def _csv(rows: Sequence[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label"), *rows])
    return text.getvalue().encode()


def _source(path: Path | None, dataset: Dataset) -> dict[str, str]:
    path = path or dataset.annotation_path
    return {"name": path.name, "sha256": sha256(path)}


def some(names: Sequence[object], most: int = 5) -> str:
    """The first of many names, and how many there are beside them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def _summary(
    dataset: Dataset,
    split: str,
    videos: Mapping[str, Sequence[VideoEmbeddings]],
    missing: Mapping[str, Sequence[str]],
    unlisted: Sequence[str],
) -> list[str]:
    """One sentence on the sizes, and one on each kind of video left out."""
    train, test = (len(videos[side]) for side in SIDES)
    counts = dataset.split_counts.get(split)
    table = f" (table: {counts[0]} and {counts[1]})" if counts else ""
    said = [f"{dataset.title}, {split} split: {train} training and {test} test videos{table}"]
    if unlisted:
        said.append(f"{len(unlisted)} videos in no list, taken for nothing: {some(unlisted, 50)}")
    for side, name in (("train", "training"), ("test", "test")):
        if missing[side]:
            names = some(missing[side])
            said.append(f"{len(missing[side])} {name} videos without embeddings, left out: {names}")
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
