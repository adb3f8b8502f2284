"""The facts of the data sets: one frozen record each. The only place that knows one data set from another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from vad.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SNIPPET_FRAMES = 16  # one time step of every embedding and every score
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
    the split trains on every video that is not tested (the release's rule).

    What an interval (s, e) of any annotation means is the same everywhere: frames s … e − 1, counted from 0,
    cut at the last whole snippet. Masks say it frame by frame and are only cut.
    """

    train_list: str | None
    test_list: str
    annotation: str
    # rows of test_list that match no video, and are known to: they count as absent, not as missing
    unmatched: tuple[str, ...] = ()
    # videos of test_list that this split trains on: the list in circulation is the release's, which moved them
    to_train: tuple[str, ...] = ()


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
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # video → names of its parts in annotations

    @property
    def data_root(self) -> Path:
        """Folder in which rgb/ and the event embeddings are looked for when no flag says where they are."""
        return ROOT / "data" / self.folder

    @property
    def list_root(self) -> Path:
        """Folder of train.csv, test.csv and gt.npy."""
        return ROOT / "list" / self.folder / IMAGE_FOLDER / self.encoder

    @property
    def annotation_root(self) -> Path:
        """Folder where the annotation files of `annotations` are looked for."""
        return ROOT / "list" / self.folder

    def key(self, video: str) -> str:
        """What two spellings of one video's name have in common (`Abuse028`, `Abuse028_x264`): join by it."""
        # NFC: some file systems hand accented letters back in two pieces
        return unicodedata.normalize("NFC", video).removesuffix(self.name_suffix)

    def is_anomalous(self, label: str) -> bool:
        """Whether a video-level label (checked by `class_names`) is anything but the normal one."""
        return label != self.normal

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
            label = self.folder_labels.get(path.parent.name, path.parent.name)
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


def _same(*names: str) -> Mapping[str, str]:
    return MappingProxyType({name: name for name in names})


UCFCRIME = Dataset(
    name="ucfcrime",
    title="UCF-Crime",
    folder="ucf",
    classes=MappingProxyType({
        **_same("Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting"),
        "RoadAccidents": "RoadAccident",
        **_same("Robbery", "Stealing", "Shooting", "Shoplifting", "Vandalism"),
    }),
    normal="Normal",
    metric="AUC",
    folder_labels=MappingProxyType({
        "Training_Normal_Videos_Anomaly": "Normal",
        "Testing_Normal_Videos_Anomaly": "Normal",
        "Training-Normal-Videos-Part-1": "Normal",
        "Training-Normal-Videos-Part-2": "Normal",
        "Normal_Videos_event": "Normal",
    }),
    annotations=MappingProxyType({
        "official": Annotations(
            "Anomaly_Train.txt", "Anomaly_Test.txt", "Temporal_Anomaly_Annotation.txt"
        ),
        "released": Annotations(None, "ucf_annotations.txt", "ucf_annotations.txt"),
    }),
    videos=MappingProxyType({"official": (1610, 290), "released": (1610, 290)}),
    name_suffix="_x264",
)

XD = Dataset(
    name="xd",
    title="XD-Violence",
    folder="xd",
    classes=MappingProxyType({
        "B1": "Fighting",
        "B2": "Shooting",
        "B4": "Riot",
        "B5": "Abuse",
        "B6": "Car Accident",
        "G": "Explosion",
    }),
    normal="A",
    metric="AP",
    label_in_name=True,
    annotations=MappingProxyType({
        # the authors' lists of I3D features, five crops a video
        "official": Annotations("rgb.list", "rgb_test.list", "annotations.txt"),
        "released": Annotations(None, "xd_annotation.txt", "xd_annotation.txt"),
    }),
    videos=MappingProxyType({"official": (3954, 800), "released": (3988, 753)}),
    recipe=Recipe(batch_size=2, paired=False, scheduler_milestones=(2, 6, 10), print_steps=512),
    exceptions=MappingProxyType({
        "default": MappingProxyType({"lambda_reg": 0.01, "lambda_kl": 0.01}),
        "released": MappingProxyType({"lambda_reg": 0.01, "lambda_kl": 0.01, "kl_noise_model": "StudentT"}),
    }),
)

SHANG = Dataset(
    name="shang",
    title="ShanghaiTech",
    folder="shang",
    classes=MappingProxyType({
        "car": "Car",
        "chasing": "Chasing",
        "fall": "Fall",
        "fighting": "Fighting",
        "monocycle": "Monocycle",
        "robbery": "Robbery",
        "running": "Running",
        "skateboard": "Skateboard",
        "throwing_object": "Throwing_object",
        "vehicle": "Vehicle",
        "vaudeville": "Vaudeville",
        # in training videos alone
        "circuit": "Circuit",
        "hurdle": "Hurdle",
        "jumping": "Jumping",
        "step": "Step",
        "stoop": "Stoop",
    }),
    normal="normal",
    metric="AUC",
    event_folders=("event", "event_thr_10"),
    annotations=MappingProxyType({
        "official": Annotations("SH_Train.txt", "SH_Test.txt", "shang_annotations.txt"),
        "released": Annotations(
            None,
            "shang_annotations.txt",
            "shang_annotations.txt",
            unmatched=("04_0012_0", "04_0012_1", "05_0023_0", "05_0023_1", "05_0023_2", "05_0023_3"),
        ),
    }),
    parts=MappingProxyType({
        "04_0012": ("04_0012_0", "04_0012_1"),
        "05_0023": ("05_0023_0", "05_0023_1", "05_0023_2", "05_0023_3"),
    }),
    videos=MappingProxyType({"official": (238, 199), "released": (240, 197)}),
    recipe=Recipe(
        batch_size=8, lr=1e-4, max_epoch=20, scheduler_milestones=(8, 15), scheduler_rate=0.5, print_steps=512
    ),
)

MSAD = Dataset(
    name="msad",
    title="MSAD",
    folder="msad",
    classes=_same(
        "Assault",
        "Explosion",
        "Fighting",
        "Fire",
        "Object_falling",
        "People_falling",
        "Robbery",
        "Shooting",
        "Traffic_accident",
        "Vandalism",
        "Water_incident",
    ),
    normal="Normal",
    metric="AUC",
    annotations=MappingProxyType({
        "official": Annotations(
            "msad_train_list.txt", "msad_test_list.txt", "msad_annotations.txt", to_train=("Robbery_10",)
        ),
        "released": Annotations(None, "msad_test_list.txt", "msad_annotations.txt"),
    }),
    videos=MappingProxyType({"official": (480, 240), "released": (479, 241)}),
)

DEMO = Dataset(
    name="demo",
    title="Demo (drawn)",
    folder="demo",
    classes=MappingProxyType({
        "Intruder": "Intruder",  # a tiger at walking pace: only appearance shows it
        "Running": "Running",  # everyday people in panic: only motion shows it
        "Crash": "Crash",  # a speeding car, then fire: both show it
    }),
    normal="Normal",
    metric="AUC",
    annotations=MappingProxyType({
        split: Annotations("train_list.txt", "test_list.txt", "annotations.txt") for split in ("official", "released")
    }),
    videos=MappingProxyType({"official": (108, 54), "released": (108, 54)}),
    recipe=Recipe(batch_size=16, lr=1e-3, max_epoch=20, scheduler_milestones=(15,), print_steps=320),
    # a hundred short videos: with the paper's 0.1 attention learns them by heart, and tells videos instead of moments
    exceptions=MappingProxyType(dict.fromkeys(("default", "paper", "released"), MappingProxyType({"dropout": 0.8}))),
    encoder="tiny",
    window=64,
    drawn=True,
)

DATASETS: Mapping[str, Dataset] = MappingProxyType({d.name: d for d in (UCFCRIME, XD, SHANG, MSAD, DEMO)})


def dataset(name: str) -> Dataset:
    """Record of a data set by its --dataset name or its folder name (`ucf`); InputError names the known ones."""
    for record in DATASETS.values():
        if name in (record.name, record.folder):
            return record
    raise InputError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
