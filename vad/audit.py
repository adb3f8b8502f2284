"""The audit of lists, embeddings, ground truth and videos: what does not fit, said before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vad.annotations import SUFFIXES, read_annotation, read_names
from vad.audit_files import Embeddings, audit_embeddings
from vad.audit_report import Audit, Row, none_of, not_checked
from vad.audit_truth import audit_frames, audit_truth
from vad.catalog import IMAGE_FOLDER, Dataset
from vad.errors import InputError
from vad.lists import Item, csv_rows, feature_root_of
from vad.splits import scan, split_files

LISTS = ("training", "test")
UNKNOWN = "?"  # stands for the class of a video whose label is not in the catalogue


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


def audit(ask: AuditRequest) -> Audit:
    """Read what is there and check it all.

    Raises InputError where a folder that was named does not hold what it should, a file cannot be read as what it
    is, or there is nothing to audit at all; what is merely wrong inside is a finding.
    """
    split_files(ask.dataset, ask.split)
    root = ask.list_root or ask.dataset.list_root
    material = Material()
    _read_lists(ask, root, material)
    _read_official(ask, material)
    feature_root = _feature_root(ask, root, material)
    videos = _video_names(ask, material)
    if not material.items and not material.official and feature_root is None and not videos:
        raise InputError(f"{root}: no train.csv or test.csv; give --list_root, or make them with list/generate_file.py")
    report = Audit(ask.dataset.title, ask.dataset.name, ask.split, material.sources, material.rows)
    report.rows += _counts(ask, material)
    report.rows += _membership(ask, material)
    report.rows += _neither(ask, material, feature_root, videos)
    embeddings = Embeddings()
    if material.items and feature_root:
        embeddings = audit_embeddings(material.items, ask.dataset, feature_root, ask.values, ask.progress)
    report.rows += embeddings.rows or [not_checked("embeddings", "no --feature_root with rgb/ in it")]
    test = material.items.get("test", [])
    gt_path = ask.gt_path or root / "gt.npy"
    report.rows += audit_truth(ask.dataset, ask.split, ask.annotation_root, gt_path, test, embeddings.snippets)
    names = {ask.dataset.key(item.video) for item in test} or set(material.official.get("test", []))
    report.rows += audit_frames(ask.dataset, names, embeddings, ask.frame_counts)
    return report


def _read_lists(ask: AuditRequest, root: Path, material: Material) -> None:
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


def _read_official(ask: AuditRequest, material: Material) -> None:
    """The data set's own lists, where they are, and what the catalogue knows of them."""
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


def _feature_root(ask: AuditRequest, list_root: Path, material: Material) -> Path | None:
    root = ask.feature_root or feature_root_of(list_root / "test.csv") or ask.dataset.data_root
    there = (root / IMAGE_FOLDER).is_dir()
    if ask.feature_root and not there:
        raise InputError(f"--feature_root {root}: no folder {IMAGE_FOLDER}/ in it")
    material.sources["embeddings"] = str(root) if there else "none; give --feature_root"
    return root if there else None


def _video_names(ask: AuditRequest, material: Material) -> set[str]:
    """Names of the video files, without opening one."""
    root = ask.video_root or ask.dataset.video_root
    if ask.video_root and not ask.video_root.is_dir():
        raise InputError(f"--video_root {root}: no such folder")
    names: set[str] = set()
    if root and root.is_dir():
        endings = {f".{suffix}" for suffix in SUFFIXES if suffix != "npy"}
        names = {p.stem for p in root.rglob("*") if p.suffix.lower() in endings and not p.name.startswith(".")}
        if ask.video_root and not names:
            raise InputError(f"--video_root {root}: holds no video")
    material.sources["videos"] = f"{root} ({len(names):,})" if names else "none; give --video_root"
    return names


def _counts(ask: AuditRequest, material: Material) -> list[Row]:
    """Videos of each list and class beside the catalogue's numbers, or the number in the data set's own list."""
    rows = []
    census = ask.dataset.class_videos.get(ask.split, {})
    for n, which in enumerate(LISTS):
        if which not in material.items:
            rows.append(not_checked(f"{which} videos", "no list"))
            continue
        expected = ask.dataset.videos[ask.split][n] if ask.split in ask.dataset.videos else None
        if expected is None and which in material.official:
            expected = len(material.official[which])
        labels = {item.video: item.label for item in material.items[which]}
        rows.append(_count(f"{which} videos", len(labels), expected))
        found = Counter(_class(ask.dataset, label) for label in labels.values())
        for name in dict.fromkeys([ask.dataset.normal, *ask.dataset.classes, *census, *sorted(found)]):
            there = census[name][n] if name in census else 0 if census else None
            if found[name] or there:
                rows.append(_count(f"  {which}, {_title(ask.dataset, name)}", found[name], there))
    return rows


def _class(dataset: Dataset, label: str) -> str:
    try:
        return dataset.class_key(label)
    except InputError:
        return UNKNOWN


def _title(dataset: Dataset, name: str) -> str:
    full = "normal" if name == dataset.normal else dataset.classes.get(name, name)
    return full if full.lower() == name.lower() else f"{full} ({name})"


def _count(check: str, found: int, expected: int | None) -> Row:
    if expected is None or found == expected:
        return Row(check, found, expected)
    more = found - expected
    return Row(check, found, expected, True, f"{more} too many" if more > 0 else f"{-more} missing")


def _membership(ask: AuditRequest, material: Material) -> list[Row]:
    """Who stands in both lists, and who stands on the other side of the data set's own split."""
    names = {
        which: {ask.dataset.key(item.video): item.video for item in rows} for which, rows in material.items.items()
    }
    train, test = names.get("training", {}), names.get("test", {})
    rows = []
    if len(names) == 2:
        rows.append(none_of("videos in both lists", [train[key] for key in train if key in test]))
    known = "the released split trains on them" if ask.split == "released" else ""
    if train:
        leaked = [train[key] for key in train if key in material.moved]
        rows.append(none_of("official test videos used for training", leaked, known))
    if test:
        # a video may be known from both sides only where the data set's lists contradict each other
        returned = [test[key] for key in test if key in material.returned and key not in material.moved]
        known = "the released split tests on them" if ask.split == "released" else ""
        rows.append(none_of("official training videos used for testing", returned, known))
    both = [n for n in material.official.get("training", []) if n in set(material.official.get("test", []))]
    if len(material.official) == 2:
        rows.append(none_of("videos in both of the data set's own lists", both))
    return rows


def _neither(ask: AuditRequest, material: Material, feature_root: Path | None, videos: set[str]) -> list[Row]:
    """Videos that exist, or that the data set lists, and that neither train.csv nor test.csv names."""
    if not material.items:
        return []
    key = ask.dataset.key
    listed = {key(item.video) for rows in material.items.values() for item in rows}
    rows = []
    for which, names in material.official.items():
        rows.append(none_of(f"official {which} videos in neither list", [n for n in names if n not in listed]))
    embedded: set[str] = set()
    if feature_root:
        try:
            found = scan(feature_root / IMAGE_FOLDER)
        except InputError as error:
            rows.append(Row("tree of image embeddings", "broken", None, True, str(error)))
        else:
            embedded = {key(name) for name in found}
            rows.append(none_of("embedded videos in neither list", [n for n in found if key(n) not in listed]))
    if videos:
        rows.append(none_of("video files in neither list", [n for n in sorted(videos) if key(n) not in listed]))
        there = {key(name) for name in videos}
        rows.append(none_of("listed videos without a video file", sorted(listed - there)))
        if embedded:
            rows.append(none_of("video files without embeddings", sorted(there - embedded)))
    return rows or [not_checked("videos in neither list", "no official list, embeddings or videos")]


