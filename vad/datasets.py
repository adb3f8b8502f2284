"""A data set is a folder: dataset.toml with names and training values, annotations.csv with its videos.

The built-in ones and one's own are read alike. list/README.md describes both files.
"""

from __future__ import annotations

import csv
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from vad.files import ROOT, InputError, read_text

SNIPPET_FRAMES = 16  # frames of one time step of every embedding and every score
IMAGE_FOLDER = "rgb"  # of image embeddings below their root, and of lists below list/<folder>/
MANIFEST = "manifest.jsonl"  # extraction's record, in the folder of the embeddings
VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mkv .mov .webm .m4v .mpg .mpeg .wmv .flv .3gp .ts .mts .m2ts .vob".split()
)
BUILT_IN = ("list/ucf", "list/xd", "list/shang", "list/msad", "demo")  # in the paper's order
SEVERAL = "several"  # classes of a video, in class counts; XD-Violence alone has such videos
SIDES = ("train", "test")
INTERVALS = "intervals"

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

    splits: split → "train", "test", or "" where the split leaves the video out. frames: its real length.
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
    own: bool = True  # not one of the built-in ones

    @property
    def given(self) -> str:
        """What --dataset takes to mean this data set: the name, or the path of one's own file."""
        return str(self.path) if self.own else self.name

    @property
    def folder(self) -> str:
        """Folder below list/ and data/."""
        return self.name if self.own else self.path.parent.name

    @property
    def data_root(self) -> Path:
        """Folder that holds rgb/ and the event embeddings, unless a flag names another."""
        return self._own_folder("embeddings", ".") if self.own else ROOT / "data" / self.folder

    @property
    def video_root(self) -> Path | None:
        """Folder of the videos; None where only the user knows."""
        if self.own:
            return self._own_folder("videos", "videos")
        return self.data_root / "videos" if self.synthetic else None

    @property
    def list_root(self) -> Path:
        """Folder of train.csv, test.csv and gt.npy."""
        if self.own:
            return self._own_folder("lists", "lists")
        return ROOT / "list" / self.folder / IMAGE_FOLDER / self.encoder

    @property
    def annotation_path(self) -> Path:
        """Path of the table annotations.csv."""
        return (self.path.parent / Path(self.annotations).expanduser()).resolve()

    def _own_folder(self, kind: str, default: str) -> Path:
        return self.path.parent / Path(self.folders.get(kind, default)).expanduser()

    @cached_property
    def videos(self) -> Mapping[str, AnnotatedVideo]:
        """The annotated videos by name, in the table's order; InputError for a table with mistakes."""
        return {video.name: video for video in _read_annotations(self)}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        videos = self.videos.values() if self.annotation_path.is_file() else ()
        return {spelling: video.name for video in videos for spelling in (video.name, *video.alias)}

    def key(self, name: str) -> str:
        """The one spelling of a video's name; join by it.

        Folder and suffix of a video file are dropped, and an alias becomes the name in the table.
        """
        name = video_name(name)
        return self._names.get(name, name)

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
        return SEVERAL if len(codes) > 1 else codes[0] if codes else label

    def _codes(self, label: str) -> list[str]:
        if label == self.normal:
            return []
        codes = [code for code in label.split("-") if code != "0"] if self.label_in_name else [label]
        if not codes or any(code not in self.classes for code in codes):
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
        self._check_split(split)
        return [video.name for video in self.videos.values() if video.splits[split] == side]

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"unknown split {split!r} of {self.name}; known are {known}")

    @property
    def split_counts(self) -> dict[str, tuple[int, int]]:
        """Split → number of (training, test) videos."""
        return {
            split: tuple(len(self.split_names(split, side)) for side in SIDES)
            for split in self.splits
        }

    def class_counts(self, split: str) -> dict[str, tuple[int, int]]:
        """Class, see `class_key` → number of (training, test) videos under a split."""
        train, test = (
            Counter(self.class_key(self.videos[name].label) for name in self.split_names(split, side))
            for side in SIDES
        )
        return {key: (train[key], test[key]) for key in (self.normal, *self.classes, SEVERAL)
                if train[key] + test[key]}  # fmt: skip

    def split_of(self, train: Iterable[str], test: Iterable[str]) -> tuple[str | None, list[str]]:
        """The split whose test videos are `test`, and the training videos that should only be tested.

        None where the table has no such split, or there is no table. Training videos are held against the
        official split; where there is none, against the split found.
        """
        if not self.annotation_path.is_file():
            return None, []
        tested = {self.key(name) for name in test}
        sides = {split: set(self.split_names(split, "test")) for split in self.splits}
        split = next((split for split, names in sides.items() if names == tested), None)
        reference = sides.get("official", sides.get(split, tested))
        return split, [name for name in train if self.key(name) in reference]

    def intervals(self, video: str, split: str) -> Intervals:
        """Anomalous frames of a video as half-open, 0-based intervals, in the split's reading.

        Raises InputError for a video that is not in the table, and for an anomalous one without intervals.
        """
        self._check_split(split)
        row = self.find(video)
        if row is None:
            raise InputError(f"{self.annotation_path}: {video} has no row; add one")
        intervals = row.intervals.get(split, row.intervals.get("", ()))
        if not intervals and self.is_anomalous(row.label):
            raise InputError(
                f"{self.annotation_path}: {video} ({row.label}) has no interval; write first and last + 1, as in 30-90"
            )
        return intervals

    def frame_labels(self, video: str, frames: int, split: str) -> np.ndarray:
        """Labels (frames,) uint8 of a video's first frames: 1 where anomalous; InputError as `intervals`."""
        labels = np.zeros(frames, dtype=np.uint8)
        for start, end in self.intervals(video, split):
            labels[start:end] = 1
        return labels


def video_name(text: str) -> str:
    """Name of a video without folder and video suffix, accents in one piece."""
    # NFC: some file systems hand accented letters back in two pieces
    name = unicodedata.normalize("NFC", text.strip()).rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in VIDEO_SUFFIXES else name


def snippet_count(frames: int, tail: str) -> int:
    """Number of whole snippets S that a video of `frames` frames gives under a tail rule.

    "whole": every whole snippet counts. "released": frames come in blocks of 512, and the last, partial
    block counts only if more than 16 frames are left. Raises InputError for another rule.
    """
    if tail == "whole":
        return frames // SNIPPET_FRAMES
    if tail == "released":
        blocks, left = divmod(frames, 512)
        rest = left // SNIPPET_FRAMES if left > SNIPPET_FRAMES else 0
        return blocks * (512 // SNIPPET_FRAMES) + rest
    raise InputError(f"unknown tail rule {tail!r}; known are whole, released")


# --- reading annotations.csv -------------------------------------------------------------------------


def _read_annotations(dataset: Dataset) -> list[AnnotatedVideo]:
    """The rows of a table; InputError names file and line of a mistake."""
    path = dataset.annotation_path
    lines = read_text(path, "table of annotations").splitlines()
    start = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[start:], restval="")
    columns = reader.fieldnames or []
    if not {"video", "label"} <= set(columns) or len(set(columns)) < len(columns):
        raise InputError(f"{path}: the columns are {', '.join(columns)}; video and label, each once, are needed")
    rows = list(reader)
    splits = [column for column in columns if column not in ("video", "alias", "label", "frames")
              and any(row[column] in SIDES for row in rows)]  # fmt: skip
    if not splits:
        raise InputError(f"{path}: no column says train or test of the videos; add one, for example official")
    videos: list[AnnotatedVideo] = []
    spellings: dict[str, int] = {}
    for line, row in enumerate(rows, start + 2):
        try:
            video = _annotated_video(dataset, row, splits)
            for name in dict.fromkeys((video.name, *video.alias)):
                if spellings.setdefault(name, line) != line:
                    raise InputError(f"{name} stands in line {spellings[name]} already; keep one")
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
        videos.append(video)
    return videos


def _annotated_video(dataset: Dataset, row: Mapping[str | None, str], splits: list[str]) -> AnnotatedVideo:
    if None in row:
        raise InputError("more cells than columns; put names with a comma in quotation marks")
    name = video_name(row["video"])
    if not name:
        raise InputError("the video has no name")
    label = unicodedata.normalize("NFC", row["label"])
    anomalous = bool(dataset.class_names(label))
    for split in splits:
        if row[split] not in (*SIDES, ""):
            raise InputError(f"{split} is {row[split]!r}; it must be train, test or empty")
    frames = row.get("frames", "")
    if frames and not (frames.isdecimal() and int(frames)):
        raise InputError(f"frames is {frames!r}; it must be a number of frames or empty")
    intervals = {
        column.removeprefix(INTERVALS).removeprefix("_"): _intervals(row[column], int(frames or 0))
        for column in row
        if column == INTERVALS or column.startswith(f"{INTERVALS}_")
    }
    if not anomalous and any(intervals.values()):
        raise InputError(f"{name} is labelled {label} and has anomalous frames; correct one of the two")
    alias = tuple(video_name(other) for other in row.get("alias", "").split())
    return AnnotatedVideo(
        name, alias, label, {split: row[split] for split in splits}, int(frames) if frames else None, intervals
    )


def _intervals(text: str, frames: int) -> Intervals:
    """"30-90 120-150" → ((30, 90), (120, 150)); frames: 0 where the video's length is not known."""
    intervals = []
    for part in text.split():
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", part)
        if not match:
            raise InputError(f"interval {part!r}; write first and last + 1, counted from 0, as in 30-90")
        start, end = int(match.group(1)), int(match.group(2))
        # start = end marks no frame; two of the release's intervals are like that
        if end < start:
            raise InputError(f"interval {part!r} ends before it starts")
        if frames and end > frames:
            raise InputError(f"interval {part!r} ends after the video's {frames} frames")
        intervals.append((start, end))
    return tuple(intervals)


# --- reading dataset.toml ----------------------------------------------------------------------------


def dataset_names() -> tuple[str, ...]:
    """Names of the built-in data sets."""
    return tuple(dataset.name for dataset in _built_in())


@lru_cache(maxsize=1)
def _built_in() -> tuple[Dataset, ...]:
    return tuple(_read_dataset(ROOT / folder / "dataset.toml", own=False) for folder in BUILT_IN)


def load_dataset(name: str) -> Dataset:
    """A data set by its name, its folder's name (`ucf`), or the path of one's own TOML file or its folder.

    Raises InputError for another name, which names the known ones, and for a file with mistakes.
    """
    for dataset in _built_in():
        if name in (dataset.name, dataset.folder):
            return dataset
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "dataset.toml"
    if path.suffix.lower() != ".toml":
        known = ", ".join(dataset_names())
        raise InputError(f"unknown data set {name!r}; known are {known} and the path of a .toml file")
    return _read_dataset(path.absolute(), own=True)


def _read_dataset(path: Path, own: bool) -> Dataset:
    try:
        table = tomllib.loads(read_text(path, "data set file"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this data set file is not valid TOML ({error})") from None
    hints = {name: kind for name, kind in get_type_hints(Dataset).items() if name not in ("path", "own")}
    needed = [f.name for f in fields(Dataset) if f.default is f.default_factory is MISSING]
    try:
        if isinstance(labels := table.get("classes"), list):
            table["classes"] = _named_by_themselves(labels)
        values = _typed_table(table, hints, "", needed)
        return _checked(Dataset(**{"title": values["name"], **values, "path": path, "own": own}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _typed_table(
    table: Mapping[str, object], hints: Mapping[str, object], where: str, needed: Iterable[str] = ()
) -> dict[str, object]:
    """The values of a table as their type hints have them; InputError for an unknown or missing key."""
    inside = f" in [{where}]" if where else ""
    for key in table:
        if key not in hints:
            raise InputError(f"unknown key {key!r}{inside}; known are {', '.join(hints)}")
    for key in needed:
        if key not in table:
            raise InputError(f"{key}{inside} is missing; it must be {_in_words(hints[key])}")
    return {key: _typed(value, hints[key], f"{key}{inside}", key) for key, value in table.items()}


def _typed(value: object, kind: object, where: str, key: str) -> object:
    """A value of TOML as a type hint has it: lists become tuples, numbers are positive."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind) and isinstance(value, dict):
        return _typed_table(value, get_type_hints(kind), key)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(item, inner[0], where, key) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {name: _typed(item, inner[1], f"{name} in [{key}]", name) for name, item in value.items()}
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{where} is {value!r}; known are {', '.join(inner)}")
        return value
    if kind is object or (kind in (str, bool) and isinstance(value, kind)):
        return tuple(value) if isinstance(value, list) else value
    # True is an int to Python, and not a number of epochs to anybody
    number = int if kind is int else (int, float) if float in (kind, *inner) else ()
    if isinstance(value, bool) or not isinstance(value, number):
        raise InputError(f"{where} is {value!r}; it must be {_in_words(kind)}")
    if not 0 < value < float("inf"):  # also false for TOML's nan
        raise InputError(f"{where} is {value}; it must be positive")
    return value


def _in_words(kind: object) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return "a list of whole numbers" if int in inner else "a list of names"
    words = {str: "text", bool: "true or false", int: "a whole number"}
    return "a number" if float in (kind, *inner) else words.get(kind, "a table")


def _named_by_themselves(labels: list[object]) -> dict[object, object]:
    for label in labels:
        _label(label, "a label of classes")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise InputError(f"classes holds {twice[0]!r} twice; keep one")
    return {label: label for label in labels}


def _label(value: object, where: str) -> str:
    """A label as folders and lists have it, accents in one piece."""
    text = value if isinstance(value, str) else ""
    if not text or text != text.strip() or not text.isprintable() or "/" in text:
        raise InputError(f"{where} is {value!r}; a label is a folder's name, without / and without blanks at its ends")
    return unicodedata.normalize("NFC", text)


def _checked(dataset: Dataset) -> Dataset:
    """The data set with labels in one spelling; InputError for values that cannot be."""
    name = dataset.name
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith("."):
        raise InputError(f"name is {name!r}; it names folders and files, so use letters, digits, - and _")
    if dataset.own and any(name in (other.name, other.folder) for other in _built_in()):
        raise InputError(f"name is {name!r}, which is a built-in data set; choose another")
    normal = _label(dataset.normal, "normal")
    classes = {
        _label(label, "a label of classes"): _label(named, f"the name of class {label!r}")
        for label, named in dataset.classes.items()
    }
    if not classes:
        raise InputError("classes is empty; name at least one kind of anomaly")
    if len(classes) < len(dataset.classes):
        raise InputError("classes holds one label in two spellings of its accents; keep one")
    if normal in classes:
        raise InputError(f"classes holds {normal!r}, which is normal; list the anomalous classes alone")
    folder_labels = {unicodedata.normalize("NFC", f): unicodedata.normalize("NFC", label)
                     for f, label in dataset.folder_labels.items()}  # fmt: skip
    for folder, label in folder_labels.items():
        if label not in (normal, *classes):
            raise InputError(f"folder_labels says {folder} = {label!r}, which is no label of this data set")
    folders = dataset.event_folders
    if not folders or not all(re.fullmatch(r"\w[\w.-]*", folder) for folder in folders):
        raise InputError(f"event_folders is {list(folders)!r}; it must be a list of folder names")
    if not re.fullmatch(r"\w+|(open_clip|timm):[\w.-]+", dataset.encoder):
        raise InputError(f"encoder is {dataset.encoder!r}; it must be vitl, open_clip:NAME, timm:NAME, or tiny for trying")
    return replace(dataset, normal=normal, classes=classes, folder_labels=folder_labels)
