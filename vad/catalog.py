"""The facts of the data sets: one frozen record each. The only place that knows one data set from another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from vad.census import CLASS_VIDEOS, XD_MOVED
from vad.errors import InputError
from vad.own_dataset import TOML, read_dataset
from vad.record import (
    IMAGE_FOLDER,
    MANIFEST,
    ROOT,
    SNIPPET_FRAMES,
    VIDEO_SUFFIXES,
    Annotations,
    Dataset,
    Recipe,
    snippet_count,
)

__all__ = [
    "DATASETS", "IMAGE_FOLDER", "MANIFEST", "ROOT", "SNIPPET_FRAMES", "VIDEO_SUFFIXES",
    "Annotations", "Dataset", "Recipe", "dataset", "snippet_count",
]  # fmt: skip


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
    class_videos=CLASS_VIDEOS["ucfcrime"],
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
        "official": Annotations("rgb.list", "rgb_test.list", "annotations.txt", to_test=XD_MOVED),
        "released": Annotations(None, "xd_annotation.txt", "xd_annotation.txt"),
    }),
    videos=MappingProxyType({"official": (3954, 800), "released": (3988, 753)}),
    recipe=Recipe(batch_size=2, paired=False, scheduler_milestones=(2, 6, 10), print_steps=512),
    exceptions=MappingProxyType({
        "default": MappingProxyType({"lambda_reg": 0.01, "lambda_kl": 0.01}),
        "released": MappingProxyType({"lambda_reg": 0.01, "lambda_kl": 0.01, "kl_noise_model": "StudentT"}),
    }),
    class_videos=CLASS_VIDEOS["xd"],
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
        "official": Annotations(
            "SH_Train.txt", "SH_Test.txt", "shang_annotations.txt", to_test=("04_0012", "05_0023")
        ),
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
    class_videos=CLASS_VIDEOS["shang"],
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
    name_prefix="MSAD_normal_",  # its authors' name of frontdoor1 is MSAD_normal_frontdoor1
    misspelt=MappingProxyType({"perdestrian_street": "pedestrian_street"}),  # by the release
    class_videos=CLASS_VIDEOS["msad"],
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
    """Record of a data set by its --dataset name, its folder name (`ucf`) or the path of one's own TOML file.

    Raises InputError for another name, which names the known ones, and for a TOML file that cannot be used.
    """
    for record in DATASETS.values():
        if name in (record.name, record.folder):
            return record
    if name.lower().endswith(TOML):
        return read_dataset(Path(name), tuple({n for d in DATASETS.values() for n in (d.name, d.folder)}))
    raise InputError(f"unknown data set {name!r}; known are {', '.join(DATASETS)} and the path of a {TOML} file")
