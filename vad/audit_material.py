"""What an audit has to read: lists, the data set's own lists, folders of embeddings and videos, each only if there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vad.annotations import read_annotation, read_names
from vad.audit_report import Row, none_of
from vad.catalog import IMAGE_FOLDER, VIDEO_SUFFIXES, Dataset
from vad.errors import InputError
from vad.lists import Item, csv_rows, feature_root_of

LISTS = ("training", "test")


@dataclass(frozen=True)
class AuditRequest:
    """What to read; None stands for where the catalogue or the lists' own note says it is, if it is there."""

    dataset: Dataset
    split: str
    list_root: Path | None = None
    annotation_root: Path | None = None
    feature_root: Path | None = None
    video_root: Path | None = None
    gt_path: Path | None = None
    frame_counts: tuple[Path, ...] = ()  # see `frame_counts.read_counts`
    values: str = "auto"
    progress: bool = True


@dataclass
class Material:
    """What was there to read. Videos go by `dataset.key`."""

    items: dict[str, list[Item]] = field(default_factory=dict)  # "training", "test"; a list that is there
    official: dict[str, list[str]] = field(default_factory=dict)  # the same, of the data set's own lists
    moved: set[str] = field(default_factory=set)  # known official test videos
    returned: set[str] = field(default_factory=set)  # known official training videos
    sources: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def read_lists(ask: AuditRequest, root: Path, material: Material) -> None:
    """train.csv and test.csv, row by row: what is wrong with one is a finding.

    Raises InputError where --list_root holds neither, or a file is no such CSV.
    """
    if ask.list_root and not root.is_dir():
        raise InputError(f"--list_root {root}: no such folder; it is the one that holds train.csv and test.csv")
    broken: list[str] = []
    twice: list[str] = []
    unknown: list[str] = []
    contradicted: list[str] = []
    there = [(which, root / name) for which, name in zip(LISTS, ("train.csv", "test.csv"), strict=True)]
    for which, path in there:
        if not path.is_file():
            continue
        seen: set[tuple[str, int]] = set()
        rows = material.items.setdefault(which, [])
        for number, item in csv_rows(path, ask.dataset):
            where = f"{path.name}, row {number}"
            if isinstance(item, InputError):
                broken.append(f"{where}: {item}")
                continue
            if (item.video, item.crop) in seen:
                twice.append(f"{where}: crop {item.crop} of {item.video}")
                continue
            seen.add((item.video, item.crop))
            rows.append(item)
            _check_label(ask.dataset, item, where, unknown, contradicted)
        if not rows:
            del material.items[which]
            broken.append(f"{path.name}: holds no video")
    if ask.list_root and not any(path.is_file() for _, path in there):
        raise InputError(f"--list_root {root}: holds no train.csv and no test.csv")
    material.sources["lists"] = f"{root} ({', '.join(p.name for _, p in there if p.is_file()) or 'none'})"
    if any(path.is_file() for _, path in there):
        material.rows += [
            none_of("rows that cannot be read", broken),
            none_of("rows that stand twice", twice),
            none_of("rows with an unknown class", unknown),
            none_of("rows whose label contradicts their path", contradicted),
        ]


def _check_label(dataset: Dataset, item: Item, where: str, unknown: list[str], contradicted: list[str]) -> None:
    try:
        dataset.class_names(item.label)
    except InputError:
        unknown.append(f"{where}: {item.label!r}")
        return
    try:
        label = dataset.label_of(item.path)
    except InputError:
        return  # a path may say nothing about the class
    if label != item.label:
        contradicted.append(f"{where}: {item.label} in {label}")


def read_official(ask: AuditRequest, material: Material) -> None:
    """The data set's own lists, where they are, and what the catalogue knows of them; InputError as their readers."""
    dataset, files = ask.dataset, ask.dataset.annotations["official"]
    if ask.annotation_root and not ask.annotation_root.is_dir():
        raise InputError(f"--annotation_root {ask.annotation_root}: no such folder")
    material.moved |= {dataset.key(name) for name in files.to_test}
    material.returned |= {dataset.key(name) for name in files.to_train}
    read = []
    known = {item.video for rows in material.items.values() for item in rows}
    for which, name in zip(LISTS, (files.train_list, files.test_list), strict=True):
        path = dataset.annotation_file(name, ask.annotation_root) if name else None
        if path and path.is_file():
            listed = _whole(dataset, read_names(path, known))
            own = [key for key in listed if which == "training" or key not in material.returned]
            material.official[which] = own
            read.append(path.name)
    annotation = dataset.annotation_file(files.annotation, ask.annotation_root)
    if "test" not in material.official and annotation.exists():
        # an annotation names test videos alone, abnormal ones at least
        named = _whole(dataset, read_annotation(annotation, files.form).marks)
        material.moved |= set(named) - material.returned
        read.append(annotation.name)
    material.moved |= set(material.official.get("test", []))
    material.returned |= set(material.official.get("training", []))
    place = ask.annotation_root or dataset.annotation_root
    material.sources["official lists"] = f"{place} ({', '.join(read) or 'none'})"


def _whole(dataset: Dataset, names: Iterable[str]) -> list[str]:
    """Keys of the videos that names mean, each once; a part means its video."""
    wholes = {part: video for video, parts in dataset.parts.items() for part in parts}
    return list(dict.fromkeys(dataset.key(wholes.get(name, name)) for name in names))


def find_feature_root(ask: AuditRequest, list_root: Path, material: Material) -> Path | None:
    """The folder that holds rgb/, where there is one; InputError where --feature_root is none."""
    root = ask.feature_root or feature_root_of(list_root / "test.csv") or ask.dataset.data_root
    there = (root / IMAGE_FOLDER).is_dir()
    if ask.feature_root and not there:
        raise InputError(f"--feature_root {root}: no folder {IMAGE_FOLDER}/ in it")
    material.sources["embeddings"] = str(root) if there else "none; give --feature_root"
    return root if there else None


def video_names(ask: AuditRequest, material: Material) -> set[str]:
    """Names of the video files, without opening one; InputError where --video_root holds none."""
    root = ask.video_root or ask.dataset.video_root
    if ask.video_root and not ask.video_root.is_dir():
        raise InputError(f"--video_root {root}: no such folder")
    names: set[str] = set()
    if root and root.is_dir():
        names = {p.stem for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")}
        if ask.video_root and not names:
            raise InputError(f"--video_root {root}: holds no video")
    material.sources["videos"] = f"{root} ({len(names):,})" if names else "none; give --video_root"
    return names
