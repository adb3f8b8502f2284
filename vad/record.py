"""What is known of one data set: the frozen record that the catalogue and a user's own TOML file fill in alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vad.census import SEVERAL
from vad.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SNIPPET_FRAMES = 16  # one time step of every embedding and every score
FORMS = ("class", "pairs", "table", "masks")  # of annotations, see vad/annotations.py
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg",
    ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts", ".vob",
])  # fmt: skip
MANIFEST = "manifest.jsonl"  # extraction's record, in the folder of the embeddings
IMAGE_FOLDER = "rgb"  # of image embeddings below their root, and of lists below list/<folder>/


@dataclass(frozen=True)
class Recipe:
    """Training values of one data set (method of the release, paper Appendix F.2).

    batch_size counts videos of *each* side where normal and anomalous videos are paired, of both together
    where they are mixed. print_steps is the number of training samples between two evaluations.
    """

    batch_size: int = 64
    paired: bool = True
    lr: float = 2e-5
    max_epoch: int = 10
    scheduler_milestones: tuple[int, ...] = (4, 8)
    scheduler_rate: float = 0.1
    print_steps: int = 1280


@dataclass(frozen=True)
class Annotations:
    """File names, below `list/<folder>/`, from which lists and ground truth are made under one split.

    test_list may equal annotation where the annotation names every test video. train_list is None where
    the split trains on every video that is not tested (the release's rule). form: of the annotation, "auto"
    where its lines tell.

    What an interval (s, e) of any annotation means is the same everywhere: frames s … e − 1, counted from 0,
    cut at the last whole snippet. Masks say it frame by frame and are only cut.
    """

    train_list: str | None
    test_list: str
    annotation: str
    # rows of test_list that match no video, and are known to: they count as absent, not as missing
    unmatched: tuple[str, ...] = ()
    # videos that change sides where the lists given are the release's: of test_list, of train_list
    to_train: tuple[str, ...] = ()
    to_test: tuple[str, ...] = ()
    form: str = "auto"


@dataclass(frozen=True)
class Dataset:
    """What is known about one data set before any of its files is opened."""

    name: str  # as --dataset takes it
    title: str  # as the paper writes it
    folder: str  # below list/ and in the documented script names
    classes: Mapping[str, str]  # label (or label code) → name in the paper's tables; the normal label is not among them
    normal: str  # the label of normal videos
    metric: str  # "AUC" or "AP": what Table 1 reports and what "best" means
    annotations: Mapping[str, Annotations]  # split → files
    videos: Mapping[str, tuple[int, int]]  # split → number of (training, test) videos
    recipe: Recipe = Recipe()
    label_in_name: bool = False  # the label stands in the video's name (…_label_B1-0-0), not in its folder
    folder_labels: Mapping[str, str] = field(default_factory=dict)  # folder names that stand for a label
    event_folders: tuple[str, ...] = ("event_thr_10", "event")  # beside rgb/, first that exists
    exceptions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # profile → its values here
    encoder: str = "vitl"  # list/<folder>/rgb/<encoder>/
    window: int = 256  # time steps of one window
    drawn: bool = False  # made by vad/demo.py rather than downloaded
    name_suffix: str = ""  # end of every video's name that some lists leave out
    name_prefix: str = ""  # start of some videos' names that some lists leave out
    misspelt: Mapping[str, str] = field(default_factory=dict)  # parts of names in some lists → as in the others
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # video → names of its parts in annotations
    # split → class, see `class_key` → (training, test) videos
    class_videos: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    fps: float | None = None  # of every video, where their files are not at hand to tell
    roots: Mapping[str, Path] = field(default_factory=dict)  # videos, embeddings, lists, annotations of one's own data
    source: Path | None = None  # the TOML file of one's own data set

    @property
    def given(self) -> str:
        """What --dataset takes to mean this record: the name, or the path of one's own TOML file."""
        return str(self.source) if self.source else self.name

    @property
    def data_root(self) -> Path:
        """Folder in which rgb/ and the event embeddings are looked for when no flag says where they are."""
        return self.roots.get("embeddings", ROOT / "data" / self.folder)

    @property
    def video_root(self) -> Path | None:
        """Folder of the videos; None where only the user knows."""
        return self.roots.get("videos", self.data_root / "videos" if self.drawn else None)

    @property
    def list_root(self) -> Path:
        """Folder of train.csv, test.csv and gt.npy."""
        return self.roots.get("lists", ROOT / "list" / self.folder / IMAGE_FOLDER / self.encoder)

    @property
    def annotation_root(self) -> Path:
        """Folder where the annotation files of `annotations` are looked for."""
        return self.roots.get("annotations", ROOT / "list" / self.folder)

    def annotation_file(self, name: str, root: Path | None = None) -> Path:
        """Path of one of the files named in `annotations`, below `root` or `annotation_root`.

        Where one folder holds the files of several data sets they are found under the names they then have,
        `<folder>_<name>` and `….official.txt`. Where there is none, the path that should exist.
        """
        root = root or self.annotation_root
        plain = Path(name)
        official = f"{plain.stem}.official{plain.suffix}"
        names = (name, f"{self.folder}/{name}", f"{self.folder}_{name}", official, f"{self.folder}_{official}")
        return next((root / other for other in names if (root / other).exists()), root / name)

    def key(self, video: str) -> str:
        """What two spellings of one video's name have in common (`Abuse028`, `Abuse028_x264`): join by it."""
        # NFC: some file systems hand accented letters back in two pieces
        key = unicodedata.normalize("NFC", video).removesuffix(self.name_suffix).removeprefix(self.name_prefix)
        for wrong, right in self.misspelt.items():
            key = key.replace(wrong, right)
        return key

    def is_anomalous(self, label: str) -> bool:
        """Whether a video-level label (checked by `class_names`) is anything but the normal one."""
        return label != self.normal

    def class_key(self, label: str) -> str:
        """Under what a video of this label is counted: normal, its one class, or several.

        Raises InputError for a label this data set does not have.
        """
        names = self.class_names(label)
        if len(names) > 1:
            return SEVERAL
        return next((code for code in label.split("-") if code != "0"), label) if self.label_in_name else label

    def class_names(self, label: str) -> tuple[str, ...]:
        """Class names of a label as the paper writes them: none for normal, several for XD-Violence's B1-G-0.

        Raises InputError for a label this data set does not have.
        """
        if label == self.normal:
            return ()
        codes = [code for code in label.split("-") if code != "0"] if self.label_in_name else [label]
        unknown = [code for code in codes if code not in self.classes]
        if unknown or not codes:
            known = ", ".join([self.normal, *self.classes])
            raise InputError(f"unknown class {label!r} for {self.name}; its classes are {known}")
        return tuple(self.classes[code] for code in codes)

    def label_of(self, path: str | Path) -> str:
        """Label of a video or embedding path, from its folder or (XD-Violence) from its name."""
        path = Path(path)
        if self.label_in_name:
            found = re.search(r"_label_([A-Za-z0-9-]+)", path.name)
            label = found.group(1) if found else ""
        else:
            folder = unicodedata.normalize("NFC", path.parent.name)
            label = self.folder_labels.get(folder, folder)
        try:
            self.class_names(label)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return label


def snippet_count(frames: int, tail: str) -> int:
    """Number of whole snippets S that a video of `frames` frames gives under a tail rule.

    "whole": every whole snippet counts. "released": frames come in blocks of 512, and the last, partial block
    counts only if more than 16 frames are left. Raises InputError for another rule.
    """
    if tail == "whole":
        return frames // SNIPPET_FRAMES
    if tail == "released":
        blocks, left = divmod(frames, 512)
        return blocks * (512 // SNIPPET_FRAMES) + (left // SNIPPET_FRAMES if left > SNIPPET_FRAMES else 0)
    raise InputError(f"unknown tail rule {tail!r}; known are whole, released")
