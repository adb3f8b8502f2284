"""Data sets: classes and training values from dataset.toml, annotated videos from annotations.csv.

Built-in and custom data sets use the same two files, which docs/data.md describes.
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

DEFAULT_FPS = 30.0  # frames per second where neither a flag nor dataset.toml says
SNIPPET_FRAMES = 16  # frames per snippet: one time step of an embedding or score
IMAGE_FOLDER = "rgb"  # image embeddings below their root; lists below list/<folder>/
AUDIO_FOLDER = "audio"  # sound embeddings beside rgb/
TEXT_FILE = "text.pt"  # text tower of CLIP beside rgb/, for AVadCLIP
MANIFEST = "manifest.jsonl"  # written by the extraction into the embedding folder
EVENT_MAPS = "__events.npz"  # ending of the event maps, which the extraction may also write there
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg",
    ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts", ".vob",
])  # fmt: skip
FRAME_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"])
RECORDING_SUFFIXES = frozenset([".npz", ".h5", ".hdf5", ".aedat4"])  # of event cameras
SOURCE_SUFFIXES = VIDEO_SUFFIXES | RECORDING_SUFFIXES  # files that embeddings are made from
# first those of the paper
BUILT_IN = ("list/ucf", "list/xd", "list/shang", "list/msad", "list/ped2", "demo", "demo/demo_av")
SEVERAL = "several"  # class count of multi-label videos, which only XD-Violence has
SIDES = ("train", "test")

Intervals = tuple[tuple[int, int], ...]


class Training(TypedDict, total=False):
    """Values of [training] (Appendix F.2). `vad.options` documents them."""

    pca: int
    batch_size: int
    paired: bool
    lr: float
    max_epoch: int
    scheduler_milestones: tuple[int, ...]
    scheduler_rate: float
    print_steps: int


class Folders(TypedDict, total=False):
    """Values of [folders] of a custom data set, relative to its TOML file."""

    videos: str
    embeddings: str
    lists: str


@dataclass(frozen=True)
class AnnotatedVideo:
    """One row of annotations.csv.

    splits: split → "train", "test", or "" if the split omits the video. frames: length of the video.
    intervals: split → half-open, 0-based frame intervals. The key "" holds the column `intervals`;
    the key "released" holds the column `intervals_released`.
    """

    name: str
    alias: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    frames: int | None
    intervals: Mapping[str, Intervals]


@dataclass(frozen=True)
class Dataset:
    """One data set: the values of its dataset.toml and its annotated videos."""

    name: str  # value of --dataset
    normal: str  # label of normal videos
    classes: Mapping[str, str]  # anomaly label (or code) → class name in the paper
    title: str = ""  # name in the paper
    metric: Literal["AUC", "AP"] = "AUC"  # reported in Table 1; selects the "best" weights
    label_in_name: bool = False  # the video name contains the label (…_label_B1-0-0)
    folder_labels: Mapping[str, str] = field(default_factory=dict)  # folder name → label
    event_folders: tuple[str, ...] = ("event_thr_10", "event")  # beside rgb/; the first that exists is used
    encoder: str = "vitl"
    window: int = 256  # time steps T per window
    synthetic: bool = False  # rendered by the demo
    sound: bool = False  # the demo writes sound beside the videos
    split_per_run: bool = False  # the run with seed k has the k-th split and its own lists
    fps: float | None = None  # frame rate of the videos, for times without a video file; None: unknown
    annotations: str = "annotations.csv"  # path, relative to the TOML file
    folders: Folders = field(default_factory=dict)
    training: Training = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # profile → options
    path: Path = Path()  # of the TOML file
    custom: bool = True  # False for a built-in data set

    @property
    def flag_value(self) -> str:
        """Value of --dataset: the name, or the TOML path of a custom data set."""
        return str(self.path) if self.custom else self.name

    @property
    def folder(self) -> str:
        """Name of the folder below list/ and data/."""
        return self.name if self.custom else self.path.parent.name

    @property
    def data_root(self) -> Path:
        """Default folder of rgb/ and the event embeddings."""
        return self._beside("embeddings", ".") if self.custom else ROOT / "data" / self.folder

    @property
    def video_root(self) -> Path | None:
        """Folder of the videos. None for a built-in data set, except the demo."""
        if self.custom:
            return self._beside("videos", "videos")
        return self.data_root / "videos" if self.synthetic else None

    @property
    def list_root(self) -> Path:
        """Folder of train.csv, test.csv and gt.npy; see `lists_of`."""
        built_in = ROOT / "list" / self.folder / IMAGE_FOLDER / self.encoder.rpartition(":")[2]
        return self._beside("lists", "lists") if self.custom else built_in

    def lists_of(self, split: str) -> Path:
        """Return the folder of a split's lists: one folder for all splits, unless each run has its own."""
        return self.list_root / split if self.split_per_run else self.list_root

    @property
    def annotation_path(self) -> Path:
        """Path of the table annotations.csv."""
        return (self.path.parent / Path(self.annotations).expanduser()).resolve()

    def _beside(self, folder: str, default: str) -> Path:
        return self.path.parent / Path(self.folders.get(folder, default)).expanduser()

    @cached_property
    def videos(self) -> Mapping[str, AnnotatedVideo]:
        """Annotated videos by name, in the order of the table. Raises InputError for an invalid table."""
        return {video.name: video for video in _read_annotations(self)}

    @cached_property
    def _names(self) -> Mapping[str, str]:
        videos = self.videos.values() if self.annotation_path.is_file() else ()
        return {spelling: video.name for video in videos for spelling in (video.name, *video.alias)}

    def key(self, name: str) -> str:
        """Return the canonical name of a video, by which all files are joined.

        The folder and the video suffix are removed. An alias is replaced by the name in the table.
        """
        return self._names.get(video_name(name), video_name(name))

    def find(self, name: str) -> AnnotatedVideo | None:
        """Return the annotated video for a name or alias, or None if the table does not contain it."""
        return self.videos.get(self.key(name))

    def is_anomalous(self, label: str) -> bool:
        """Return whether a valid video-level label is anomalous."""
        return label != self.normal

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return the class names in the paper: none for normal, two for XD-Violence's B1-G-0.

        Raises InputError for an unknown label.
        """
        return tuple(self.classes[code] for code in self._codes(label))

    @property
    def prompts(self) -> tuple[str, ...]:
        """Texts of AVadCLIP's classes: normal, then the names of the classes in lower case."""
        return tuple(dict.fromkeys(map(as_prompt, ("normal", *self.classes.values()))))

    def class_key(self, label: str) -> str:
        """Return the key of a label in class counts: normal, its only class, or `SEVERAL`."""
        codes = self._codes(label)
        return SEVERAL if len(codes) > 1 else (*codes, self.normal)[0]

    def _codes(self, label: str) -> list[str]:
        if label == self.normal:
            return []
        codes = [c for c in label.split("-") if c != "0"] if self.label_in_name else [label]
        if not codes or not self.classes.keys() >= set(codes):
            known = ", ".join([self.normal, *self.classes])
            raise InputError(f"unknown class {label!r} for {self.name}. Its classes are {known}.")
        return codes

    def label_of(self, path: str | Path) -> str:
        """Return the label of a video or embedding file, from its folder or (`label_in_name`) its name."""
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
        """Names of the split columns, in the order of the table."""
        return tuple(next(iter(self.videos.values())).splits)

    def default_split(self, preferred: str) -> str:
        """Return the preferred split if the table has it, else its first split."""
        return preferred if preferred in self.splits else self.splits[0]

    def split_of_run(self, seed: int) -> str:
        """Return the split of the run with this seed, if `split_per_run`."""
        return self.splits[seed % len(self.splits)]

    def split_names(self, split: str, side: str) -> list[str]:
        """Return the names of a split's "train" or "test" videos. Raises InputError for an unknown split."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise InputError(f"unknown split {split!r} of {self.name}. Known splits: {known}.")
        return [video.name for video in self.videos.values() if video.splits[split] == side]

    @property
    def split_counts(self) -> dict[str, tuple[int, int]]:
        """Number of (training, test) videos by split."""
        names = {split: [self.split_names(split, side) for side in SIDES] for split in self.splits}
        return {split: (len(train), len(test)) for split, (train, test) in names.items()}

    def class_counts(self, split: str) -> dict[str, tuple[int, int]]:
        """Return the number of (training, test) videos by class, see `class_key`."""
        names = (self.split_names(split, side) for side in SIDES)
        train, test = (Counter(self.class_key(self.videos[n].label) for n in side) for side in names)
        keys = (self.normal, *self.classes, SEVERAL)
        return {key: (train[key], test[key]) for key in keys if train[key] + test[key]}

    def split_of(self, train: Iterable[str], test: Iterable[str]) -> tuple[str | None, list[str]]:
        """Return the split whose test videos are `test`, and the training videos that leak test videos.

        The split is None if no split matches or the table is missing. A training video leaks if it
        belongs to the official test set, or to `test` if the table has no official split.
        """
        if not self.annotation_path.is_file():
            return None, []
        test_names = {self.key(name) for name in test}
        tested = {split: set(self.split_names(split, "test")) for split in self.splits}
        split = next((split for split, names in tested.items() if names == test_names), None)
        return split, [n for n in train if self.key(n) in tested.get("official", test_names)]

    def intervals(self, video: str, split: str) -> Intervals:
        """Return the anomalous frames of a video as half-open, 0-based intervals.

        A column of the split, such as `intervals_released`, replaces the column `intervals`.
        Raises InputError for a video without a row and for an anomalous video without intervals.
        """
        row = self.find(video)
        if row is None:
            raise InputError(f"{self.annotation_path}: {video} has no row. Add one.")
        intervals = row.intervals.get(split, row.intervals.get("", ()))
        if not intervals and self.is_anomalous(row.label):
            advice = "Write the first frame and the last frame + 1, as in 30-90."
            raise InputError(f"{self.annotation_path}: {video} ({row.label}) has no interval. {advice}")
        return intervals

    def frame_labels(self, video: str, frames: int, split: str) -> np.ndarray:
        """Return the labels (frames,) uint8 of the first frames of a video, 1 for anomalous frames."""
        labels = np.zeros(frames, dtype=np.uint8)
        for start, end in self.intervals(video, split):
            labels[start:end] = 1
        return labels


def as_prompt(name: str) -> str:
    """Return the text that stands for a class name in CLIP: RoadAccidents and Road_Accidents become road accidents."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("_", " ")


def is_source(name: str) -> bool:
    """Return whether a file name is that of a video or recording. Hidden files and event maps are none."""
    suffix = Path(name).suffix.lower()
    return suffix in SOURCE_SUFFIXES and not name.startswith(".") and not name.endswith(EVENT_MAPS)


def video_name(text: str) -> str:
    """Return the name of a video or recording without folder and suffix."""
    # NFC: some file systems decompose accented letters
    name = re.split(r"[\\/]", unicodedata.normalize("NFC", text.strip()))[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in SOURCE_SUFFIXES else name


def _read_annotations(dataset: Dataset) -> list[AnnotatedVideo]:
    """Return the rows of annotations.csv. An InputError names the file and the line."""
    path = dataset.annotation_path
    rows = _read_rows(path)
    candidates = [c for c in next(iter(rows.values()), ()) if c not in ("video", "alias", "label")]
    splits = [c for c in candidates if any(row[c] in SIDES for row in rows.values())]
    if not splits:
        raise InputError(f"{path}: no column assigns the videos to train or test. Add one.")
    videos: list[AnnotatedVideo] = []
    seen: dict[str, int] = {}
    for line, row in rows.items():
        try:
            videos.append(_annotated_video(dataset, row, splits))
            for name in {videos[-1].name, *videos[-1].alias}:
                if seen.setdefault(name, line) != line:
                    raise InputError(f"{name} is also in line {seen[name]}. Remove one of them.")
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
    return videos


def _read_rows(path: Path) -> dict[int, dict[str, str]]:
    """Return line number → cells by column. A leading comment is skipped."""
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
        raise InputError(f"{path}, line {line}: {error}. Check the quotation marks.") from None
    if not {"video", "label"} <= set(columns) or len(set(columns)) < len(columns):
        names = ", ".join(columns)
        raise InputError(f"{path}: the columns are {names}. The columns video and label are required, each once.")
    for line, row in rows.items():
        if None in row:  # DictReader collects surplus cells under None
            advice = "Put a name with a comma in quotation marks."
            raise InputError(f"{path}, line {line}: more cells than columns. {advice}")
    return {line: {column: cell.strip() for column, cell in row.items()} for line, row in rows.items()}


def _annotated_video(dataset: Dataset, row: Mapping[str, str], splits: Iterable[str]) -> AnnotatedVideo:
    name, label = video_name(row["video"]), unicodedata.normalize("NFC", row["label"])
    if not name:
        raise InputError("the video has no name")
    dataset.class_names(label)
    sides = {split: row[split] for split in splits}
    for split, side in sides.items():
        if side not in (*SIDES, ""):
            raise InputError(f"{split} is {side!r}. It must be train, test or empty.")
    frames = row.get("frames", "")
    if not re.fullmatch(r"([1-9][0-9]{0,8})?", frames):
        raise InputError(f"frames is {frames!r}. It must be a number of frames or empty.")
    length = int(frames) if frames else None
    intervals = {
        column.removeprefix("intervals").removeprefix("_"): _parse_intervals(cell, length)
        for column, cell in row.items()
        if column == "intervals" or column.startswith("intervals_")
    }
    if label == dataset.normal and any(intervals.values()):
        raise InputError(f"{name} is labelled {label} but has anomalous frames. Correct the label or the intervals.")
    alias = tuple(map(video_name, row.get("alias", "").split()))
    return AnnotatedVideo(name, alias, label, sides, length, intervals)


def _parse_intervals(text: str, frames: int | None) -> Intervals:
    """Parse "30-90 120-150" into ((30, 90), (120, 150)). frames: length of the video, if known."""
    intervals = []
    for part in text.split():
        if not re.fullmatch(r"[0-9]{1,9}-[0-9]{1,9}", part):
            raise InputError(f"interval {part!r}: write the first frame and the last frame + 1, from 0, as in 30-90")
        start, end = map(int, part.split("-"))
        # start = end marks no frame; two intervals of the released data are empty like this
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
    """Return the names of the built-in data sets."""
    return tuple(dataset.name for dataset in _built_in())


def load_dataset(name: str) -> Dataset:
    """Return a data set by its name, its folder (`ucf`), or the path of a custom TOML file or its folder.

    Raises InputError for an unknown name and for an invalid file.
    """
    for dataset in _built_in():
        if name in (dataset.name, dataset.folder):
            return dataset
    path = Path(name).expanduser()
    path = path / "dataset.toml" if path.is_dir() else path
    if path.suffix.lower() != ".toml":
        known = ", ".join(dataset_names())
        raise InputError(f"unknown data set {name!r}. Known are {known}, and paths of .toml files.")
    return _read_dataset(path.absolute(), custom=True)


def _read_dataset(path: Path, custom: bool) -> Dataset:
    # NFC: labels are compared with folder names, see `label_of`
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
    """Return the fields of `Dataset` from a TOML table, with checked types."""
    classes = table.get("classes")
    if isinstance(classes, list):
        labels = _typed(classes, tuple[str, ...], "classes")
        if len(set(labels)) < len(labels):
            raise InputError("classes contains a label twice. Keep one.")
        table = {**table, "classes": {label: label for label in labels}}
    hints = {key: hint for key, hint in get_type_hints(Dataset).items() if key not in ("path", "custom")}
    for key in ("name", "normal", "classes"):
        if key not in table:
            raise InputError(f"{key} is missing. It must be {_describe_type(hints[key])}.")
    return {"title": table["name"], **_typed_table(table, hints)}


def _typed_table(table: Mapping[str, object], hints: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the values of a table converted to their type hints. Raises InputError for an unknown key."""
    for key in table:
        if key not in hints:
            raise InputError(f"unknown key {prefix + key!r}. Known keys: {', '.join(hints)}.")
    return {key: _typed(value, hints[key], prefix + key) for key, value in table.items()}


def _typed(value: object, hint: object, key: str) -> object:
    """Return a TOML value converted to its type hint. Lists become tuples. Numbers must be positive."""
    origin, inner = get_origin(hint), get_args(hint)
    if type(None) in inner:
        return _typed(value, inner[0], key)
    if isinstance(value, dict) and is_typeddict(hint):
        return _typed_table(value, get_type_hints(hint), f"{key}.")
    if isinstance(value, dict) and origin is Mapping:
        return {k: _typed(v, inner[1], f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list) and (origin is tuple or hint is object):
        return tuple(_typed(item, inner[0] if inner else object, key) for item in value)
    if hint is object or type(value) is hint in (str, bool) or (origin is Literal and value in inner):
        return value
    # not isinstance: Python counts True as an int, but it is no number of epochs
    if hint not in (int, float) or type(value) not in (int, hint):
        raise InputError(f"{key} is {value!r}. It must be {_describe_type(hint)}.")
    if not 0 < value < float("inf"):  # false for TOML's nan too
        raise InputError(f"{key} is {value}. It must be positive.")
    return value


def _describe_type(hint: object) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    names |= {tuple[str, ...]: "a list of names", tuple[int, ...]: "a list of whole numbers"}
    return names.get(hint, "a table")


def _check(dataset: Dataset) -> None:
    """Raise InputError for values of the right type that are invalid."""
    name, encoder, folders = dataset.name, dataset.encoder, dataset.event_folders
    labels = (dataset.normal, *dataset.classes)
    built_in = [n for other in _built_in() for n in (other.name, other.folder)] if dataset.custom else []
    unknown_labels = [x for x in dataset.folder_labels.values() if x not in labels]
    invalid_labels = [
        label
        for label in (*labels, *dataset.classes.values())
        if not label or label != label.strip() or not label.isprintable() or "/" in label
    ]
    invalid_name = not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".")
    invalid_folders = not folders or not all(re.fullmatch(r"\w[\w.-]*", folder) for folder in folders)
    invalid_encoder = not re.fullmatch(r"\w+|(open_clip|timm):[\w.-]+", encoder)
    for invalid, message in (
        (invalid_name, f"name is {name!r}. It names folders, so use letters, digits, - and _."),
        (name in built_in, f"name is {name!r}, a built-in data set. Choose another name."),
        (invalid_labels, f"the labels {invalid_labels} are no folder names. Remove / and outer blanks."),
        (not dataset.classes, "classes is empty. Name at least one class of anomaly."),
        (dataset.normal in dataset.classes, f"classes contains {dataset.normal!r}, which is normal. Remove it."),
        (unknown_labels, f"folder_labels contains {unknown_labels}, which classes does not. Use labels of classes."),
        (invalid_folders, f"event_folders is {list(folders)}. It must be a list of folder names."),
        (invalid_encoder, f"encoder is {encoder!r}. It must be vitl, open_clip:NAME, timm:NAME, or tiny (for tests)."),
    ):
        if invalid:
            raise InputError(message)
