"""A data set is a folder: dataset.toml with names and training values, annotations.csv with videos.

The built-in ones and one's own are read alike. list/README.md describes both files.
"""

from __future__ import annotations

import csv
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from vad.files import ROOT, InputError, read_text

SNIPPET_FRAMES = 16  # frames of one time step of every embedding and every score
IMAGE_FOLDER = "rgb"  # of image embeddings below their root, and of lists below list/<folder>/
MANIFEST = "manifest.jsonl"  # extraction's record, in the folder of the embeddings
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg",
    ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts", ".vob",
])  # fmt: skip
BUILT_IN = ("list/ucf", "list/xd", "list/shang", "list/msad", "demo")  # in the paper's order
SEVERAL = "several"  # classes of one video, in class counts; XD-Violence alone has such videos
SIDES = ("train", "test")

Intervals = tuple[tuple[int, int], ...]


class Training(TypedDict, total=False):
    """Values of [training] (paper Appendix F.2); `vad.options` says what each means."""

    batch_size: int
    paired: bool
    lr: float
    max_epoch: int
    scheduler_milestones: tuple[int, ...]
    scheduler_rate: float
    print_steps: int


class Folders(TypedDict, total=False):
    """Values of [folders] of one's own data set, relative to its file."""

    videos: str
    embeddings: str
    lists: str


@dataclass(frozen=True)
class AnnotatedVideo:
    """One row of annotations.csv.

    splits: split → "train", "test", or "" where the split leaves the video out. frames: its length.
    intervals: reading → half-open, 0-based frames. The reading "" is the column `intervals`;
    the column `intervals_released` is the reading "released".
    """

    name: str
    alias: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    frames: int | None
    intervals: Mapping[str, Intervals]


@dataclass(frozen=True)
class Dataset:
    """What is known about one data set: the keys of its dataset.toml, and its annotated videos."""

    name: str  # as --dataset takes it
    normal: str  # the label of normal videos
    classes: Mapping[str, str]  # label (or code) of an anomaly → name in the paper's tables
    title: str = ""  # as the paper writes it
    metric: Literal["AUC", "AP"] = "AUC"  # what Table 1 reports and what "best" means
    label_in_name: bool = False  # the label stands in the video's name (…_label_B1-0-0)
    folder_labels: Mapping[str, str] = field(default_factory=dict)  # folders that stand for a label
    event_folders: tuple[str, ...] = ("event_thr_10", "event")  # beside rgb/, first that exists
    encoder: str = "vitl"
    window: int = 256  # time steps of one window
    synthetic: bool = False  # rendered by the demo rather than filmed
    fps: float | None = None  # of every video, where the files are not at hand
    annotations: str = "annotations.csv"  # relative to the file
    folders: Folders = field(default_factory=dict)
    training: Training = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # profile → options
    path: Path = Path()  # of the TOML file
    custom: bool = True  # not one of the built-in ones

    @property
    def flag_value(self) -> str:
        """What --dataset takes to mean this data set: the name, or the path of one's own file."""
        return str(self.path) if self.custom else self.name

    @property
    def folder(self) -> str:
        """Folder below list/ and data/."""
        return self.name if self.custom else self.path.parent.name

    @property
    def data_root(self) -> Path:
        """Folder that holds rgb/ and the event embeddings, unless a flag names another."""
        return self._beside("embeddings", ".") if self.custom else ROOT / "data" / self.folder

    @property
    def video_root(self) -> Path | None:
        """Folder of the videos; None where only the user knows."""
        if self.custom:
            return self._beside("videos", "videos")
        return self.data_root / "videos" if self.synthetic else None

    @property
    def list_root(self) -> Path:
        """Folder of train.csv, test.csv and gt.npy."""
        built_in = ROOT / "list" / self.folder / IMAGE_FOLDER / self.encoder
        return self._beside("lists", "lists") if self.custom else built_in

    @property
    def annotation_path(self) -> Path:
        """Path of the table annotations.csv."""
        return (self.path.parent / Path(self.annotations).expanduser()).resolve()

    def _beside(self, folder: str, default: str) -> Path:
        return self.path.parent / Path(self.folders.get(folder, default)).expanduser()

    @cached_property
    def videos(self) -> Mapping[str, AnnotatedVideo]:
        """The annotated videos by name, in the table's order; InputError for a wrong table."""
        return {video.name: video for video in _read_annotations(self)}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        videos = self.videos.values() if self.annotation_path.is_file() else ()
        return {spelling: video.name for video in videos for spelling in (video.name, *video.alias)}

    def key(self, name: str) -> str:
        """The one spelling of a video's name; join by it.

        Folder and suffix of a video file are dropped, and an alias becomes the name in the table.
        """
        return self._names.get(video_name(name), video_name(name))

    def find(self, name: str) -> AnnotatedVideo | None:
        """The annotated video of any spelling of its name; None where the table lacks it."""
        return self.videos.get(self.key(name))

    def is_anomalous(self, label: str) -> bool:
        """Whether a video-level label (checked by `class_names`) is anything but the normal one."""
        return label != self.normal

    def class_names(self, label: str) -> tuple[str, ...]:
        """Class names of a label as the paper writes them.

        None for normal, several for XD-Violence's B1-G-0. Raises InputError for an unknown label.
        """
        return tuple(self.classes[code] for code in self._codes(label))

    def class_key(self, label: str) -> str:
        """Under what a video of this label is counted: normal, its one class, or `SEVERAL`."""
        codes = self._codes(label)
        return SEVERAL if len(codes) > 1 else (*codes, self.normal)[0]

    def _codes(self, label: str) -> list[str]:
        if label == self.normal:
            return []
        codes = [c for c in label.split("-") if c != "0"] if self.label_in_name else [label]
        if not codes or not self.classes.keys() >= set(codes):
            known = ", ".join([self.normal, *self.classes])
            raise InputError(f"unknown class {label!r} for {self.name}; its classes are {known}")
        return codes

    def label_of(self, path: str | Path) -> str:
        """Label of a video or embedding, from its folder or (`label_in_name`) from its name."""
        path = Path(path)
        if self.label_in_name:
            match = re.search(r"_label_([A-Za-z0-9-]+)", path.name)
            label = match.group(1) if match else ""
        else:
            folder = unicodedata.normalize("NFC", path.parent.name)
            label = self.folder_labels.get(folder, folder)
        try:
            self._codes(label)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return label

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the split columns, in the table's order."""
        return tuple(next(iter(self.videos.values())).splits)

    def default_split(self, preferred: str) -> str:
        """The split where no flag names one: the profile's, else the table's first."""
        return preferred if preferred in self.splits else self.splits[0]

    def split_names(self, split: str, side: str) -> list[str]:
        """Names of a split's "train" or "test" videos; InputError names the known splits."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"unknown split {split!r} of {self.name}; known are {known}")
        return [video.name for video in self.videos.values() if video.splits[split] == side]

    @property
    def split_counts(self) -> dict[str, tuple[int, int]]:
        """Split → number of (training, test) videos."""
        names = {split: [self.split_names(split, side) for side in SIDES] for split in self.splits}
        return {split: (len(train), len(test)) for split, (train, test) in names.items()}

    def class_counts(self, split: str) -> dict[str, tuple[int, int]]:
        """Class, see `class_key` → number of (training, test) videos under a split."""
        names = (self.split_names(split, side) for side in SIDES)
        train, test = (Counter(self.class_key(self.videos[n].label) for n in side) for side in names)
        keys = (self.normal, *self.classes, SEVERAL)
        return {key: (train[key], test[key]) for key in keys if train[key] + test[key]}

    def split_of(self, train: Iterable[str], test: Iterable[str]) -> tuple[str | None, list[str]]:
        """The split whose test videos are `test`, and the training videos that should be tested.

        None where the table has no such split, or there is no table. Training videos are compared
        with the official test videos; where no split is called official, with `test`.
        """
        if not self.annotation_path.is_file():
            return None, []
        given = {self.key(name) for name in test}
        tested = {split: set(self.split_names(split, "test")) for split in self.splits}
        split = next((split for split, names in tested.items() if names == given), None)
        return split, [n for n in train if self.key(n) in tested.get("official", given)]

    def intervals(self, video: str, split: str) -> Intervals:
        """Anomalous frames of a video as half-open, 0-based intervals, in the split's reading.

        Raises InputError for a video without a row, and an anomalous one without intervals.
        """
        row = self.find(video)
        if row is None:
            raise InputError(f"{self.annotation_path}: {video} has no row; add one")
        intervals = row.intervals.get(split, row.intervals.get("", ()))
        if not intervals and self.is_anomalous(row.label):
            what = f"{video} ({row.label}) has no interval; write first and last + 1, as in 30-90"
            raise InputError(f"{self.annotation_path}: {what}")
        return intervals

    def frame_labels(self, video: str, frames: int, split: str) -> np.ndarray:
        """Labels (frames,) uint8 of a video's first frames, 1 where anomalous."""
        labels = np.zeros(frames, dtype=np.uint8)
        for start, end in self.intervals(video, split):
            labels[start:end] = 1
        return labels


def video_name(text: str) -> str:
    """Name of a video without folder and video suffix."""
    # NFC: some file systems hand accented letters back in two pieces
    name = re.split(r"[\\/]", unicodedata.normalize("NFC", text.strip()))[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in VIDEO_SUFFIXES else name


def _read_annotations(dataset: Dataset) -> list[AnnotatedVideo]:
    """The rows of annotations.csv; InputError names file and line of a mistake."""
    path = dataset.annotation_path
    rows = _read_rows(path)
    candidates = [c for c in next(iter(rows.values()), ()) if c not in ("video", "alias", "label")]
    splits = [c for c in candidates if any(row[c] in SIDES for row in rows.values())]
    if not splits:
        raise InputError(f"{path}: no column says train or test of the videos; add one")
    videos: list[AnnotatedVideo] = []
    seen: dict[str, int] = {}
    for line, row in rows.items():
        try:
            videos.append(_annotated_video(dataset, row, splits))
            for name in {videos[-1].name, *videos[-1].alias}:
                if seen.setdefault(name, line) != line:
                    raise InputError(f"{name} stands in line {seen[name]} already; keep one")
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
    return videos


def _read_rows(path: Path) -> dict[int, dict[str, str]]:
    """Line → cells by column, below the comment that begins a table."""
    lines = read_text(path, "table of annotations").splitlines()
    start = next((n for n, line in enumerate(lines) if line and not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[start:], restval="", strict=True)
    rows = {}
    try:
        columns = reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
        for row in reader:
            rows[start + reader.line_num] = row
    except csv.Error as error:
        line = start + reader.reader.line_num
        raise InputError(f"{path}, line {line}: {error}; check quotation marks") from None
    if not {"video", "label"} <= set(columns) or len(set(columns)) < len(columns):
        shown = ", ".join(columns)
        raise InputError(f"{path}: the columns are {shown}; needed are video and label, each once")
    for line, row in rows.items():
        if None in row:  # csv collects what exceeds the columns here
            advice = "put a name with a comma in quotation marks"
            raise InputError(f"{path}, line {line}: more cells than columns; {advice}")
    return {line: {column: cell.strip() for column, cell in row.items()} for line, row in rows.items()}


def _annotated_video(dataset: Dataset, row: Mapping[str, str], splits: Iterable[str]) -> AnnotatedVideo:
    name, label = video_name(row["video"]), unicodedata.normalize("NFC", row["label"])
    if not name:
        raise InputError("the video has no name")
    dataset.class_names(label)
    sides = {split: row[split] for split in splits}
    for split, side in sides.items():
        if side not in (*SIDES, ""):
            raise InputError(f"{split} is {side!r}; it must be train, test or empty")
    frames = row.get("frames", "")
    if not re.fullmatch(r"([1-9][0-9]{0,8})?", frames):
        raise InputError(f"frames is {frames!r}; it must be a number of frames or empty")
    length = int(frames) if frames else None
    intervals = {
        column.removeprefix("intervals").removeprefix("_"): _parse_intervals(cell, length)
        for column, cell in row.items()
        if column == "intervals" or column.startswith("intervals_")
    }
    if label == dataset.normal and any(intervals.values()):
        raise InputError(f"{name} is labelled {label} and has anomalous frames; correct one")
    alias = tuple(map(video_name, row.get("alias", "").split()))
    return AnnotatedVideo(name, alias, label, sides, length, intervals)


def _parse_intervals(text: str, frames: int | None) -> Intervals:
    """ "30-90 120-150" → ((30, 90), (120, 150)); frames: the video's length, where known."""
    intervals = []
    for part in text.split():
        if not re.fullmatch(r"[0-9]{1,9}-[0-9]{1,9}", part):
            raise InputError(f"interval {part!r}; write first and last + 1, from 0, as in 30-90")
        start, end = map(int, part.split("-"))
        # start = end marks no frame; two of the release's intervals are like that
        if end < start:
            raise InputError(f"interval {part!r} ends before it starts")
        if frames and end > frames:
            raise InputError(f"interval {part!r} ends after the video's {frames} frames")
        intervals.append((start, end))
    return tuple(intervals)


@cache
def _built_in() -> tuple[Dataset, ...]:
    return tuple(_read_dataset(ROOT / folder / "dataset.toml", custom=False) for folder in BUILT_IN)


def dataset_names() -> tuple[str, ...]:
    """Names of the built-in data sets."""
    return tuple(dataset.name for dataset in _built_in())


def load_dataset(name: str) -> Dataset:
    """A data set by its name, its folder (`ucf`), or the path of one's own file or its folder.

    Raises InputError for another name, which names the known ones, and for a file with mistakes.
    """
    for dataset in _built_in():
        if name in (dataset.name, dataset.folder):
            return dataset
    path = Path(name).expanduser()
    path = path / "dataset.toml" if path.is_dir() else path
    if path.suffix.lower() != ".toml":
        known = ", ".join(dataset_names())
        raise InputError(f"unknown data set {name!r}; known are {known} and paths of .toml files")
    return _read_dataset(path.absolute(), custom=True)


def _read_dataset(path: Path, custom: bool) -> Dataset:
    # NFC: labels are compared with names of folders, see `label_of`
    text = unicodedata.normalize("NFC", read_text(path, "data set file"))
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this data set file is not valid TOML ({error})") from None
    try:
        dataset = Dataset(**_values(table), path=path, custom=custom)
        _check(dataset)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return dataset


def _values(table: dict[str, object]) -> dict[str, object]:
    """The fields of `Dataset` that a TOML table gives, checked by their types."""
    classes = table.get("classes")
    if isinstance(classes, list):
        labels = _typed(classes, tuple[str, ...], "classes")
        if len(set(labels)) < len(labels):
            raise InputError("classes holds a label twice; keep one")
        table = {**table, "classes": {label: label for label in labels}}
    hints = {key: kind for key, kind in get_type_hints(Dataset).items() if key not in ("path", "custom")}
    for needed in ("name", "normal", "classes"):
        if needed not in table:
            raise InputError(f"{needed} is missing; it must be {_in_words(hints[needed])}")
    return {"title": table["name"], **_typed_table(table, hints)}


def _typed_table(table: Mapping[str, object], hints: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The values of a table as type hints have them; InputError for an unknown key."""
    for key in table:
        if key not in hints:
            raise InputError(f"unknown key {prefix + key!r}; known are {', '.join(hints)}")
    return {key: _typed(value, hints[key], prefix + key) for key, value in table.items()}


def _typed(value: object, kind: object, key: str) -> object:
    """A value of TOML as a type hint has it: lists become tuples, numbers are positive."""
    origin, inner = get_origin(kind), get_args(kind)
    if type(None) in inner:
        return _typed(value, inner[0], key)
    if isinstance(value, dict) and is_typeddict(kind):
        return _typed_table(value, get_type_hints(kind), f"{key}.")
    if isinstance(value, dict) and origin is Mapping:
        return {k: _typed(v, inner[1], f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list) and (origin is tuple or kind is object):
        return tuple(_typed(item, inner[0] if inner else object, key) for item in value)
    if kind is object or type(value) is kind in (str, bool) or (origin is Literal and value in inner):
        return value
    # not isinstance: True is an int to Python, and not a number of epochs to anybody
    if kind not in (int, float) or type(value) not in (int, kind):
        raise InputError(f"{key} is {value!r}; it must be {_in_words(kind)}")
    if not 0 < value < float("inf"):  # false for TOML's nan too
        raise InputError(f"{key} is {value}; it must be positive")
    return value


def _in_words(kind: object) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    words |= {tuple[str, ...]: "a list of names", tuple[int, ...]: "a list of whole numbers"}
    return words.get(kind, "a table")


def _check(dataset: Dataset) -> None:
    """InputError for values of the right type that cannot be."""
    name, encoder, folders = dataset.name, dataset.encoder, dataset.event_folders
    labels = (dataset.normal, *dataset.classes)
    built_in = [n for other in _built_in() for n in (other.name, other.folder)] if dataset.custom else []
    no_label = [x for x in dataset.folder_labels.values() if x not in labels]
    no_folder = [
        label
        for label in (*labels, *dataset.classes.values())
        if not label or label != label.strip() or not label.isprintable() or "/" in label
    ]
    name_wrong = not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".")
    folders_wrong = not folders or not all(re.fullmatch(r"\w[\w.-]*", folder) for folder in folders)
    encoder_wrong = not re.fullmatch(r"\w+|(open_clip|timm):[\w.-]+", encoder)
    for wrong, says in (
        (name_wrong, f"name is {name!r}; it names folders, so use letters, digits, - and _"),
        (name in built_in, f"name is {name!r}, a built-in data set; choose another"),
        (no_folder, f"the labels {no_folder} name no folders; write them without / and outer blanks"),
        (not dataset.classes, "classes is empty; name at least one kind of anomaly"),
        (dataset.normal in dataset.classes, f"classes holds {dataset.normal!r}, which is normal; list anomalies alone"),
        (no_label, f"folder_labels holds {no_label}, which classes does not; name labels"),
        (folders_wrong, f"event_folders is {list(folders)}; it must be a list of folder names"),
        (encoder_wrong, f"encoder is {encoder!r}; it must be vitl, open_clip:NAME, timm:NAME, or tiny for trying"),
    ):
        if wrong:
            raise InputError(says)
