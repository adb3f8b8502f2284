"""One's own data set: what a TOML file says arrives in the record, what it says wrongly is one sentence."""

from __future__ import annotations

import unicodedata
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import pytest

from vad.catalog import ROOT, dataset
from vad.errors import InputError
from vad.own_dataset import _TRAINING
from vad.record import Recipe
from vad.settings import resolve

SMALL = """
name = "street"
normal = "Normal"
classes = ["Fire", "Road accident"]
[annotation]
file = "annotations.txt"
"""
WHOLE = """
name = "street"
title = "Street videos"
normal = "quiet"
metric = "AP"
fps = 12.5
encoder = "tiny"
window = 64
name_suffix = "_cam"
event_folders = ["event"]
[classes]
Fire = "Fire"
"Road accident" = "Accident"
[folder_labels]
"Part 1" = "quiet"
[folders]
videos = "/data/videos"
embeddings = "e"
lists = "l/x"
annotations = "a"
[annotation]
file = "masks"
form = "masks"
train_list = "train.txt"
test_list = "test.txt"
[training]
batch_size = 4
paired = false
lr = 1e-3
max_epoch = 3
scheduler_milestones = [1, 2]
scheduler_rate = 0.5
print_steps = 100
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "street.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_small_file_gets_the_defaults(tmp_path: Path) -> None:
    record = dataset(str(_file(tmp_path, SMALL)))
    assert (record.name, record.title, record.metric, record.encoder, record.window) == (
        "street", "street", "AUC", "vitl", 256,
    )  # fmt: skip
    assert dict(record.classes) == {"Fire": "Fire", "Road accident": "Road accident"}
    assert record.recipe == Recipe()
    assert record.video_root == tmp_path / "videos"
    assert (record.data_root, record.list_root, record.annotation_root) == (tmp_path, tmp_path / "lists", tmp_path)
    for split in ("official", "released"):
        files = record.annotations[split]
        assert (files.train_list, files.test_list, files.annotation) == (None, "annotations.txt", "annotations.txt")


def test_a_whole_file_arrives_in_the_record(tmp_path: Path) -> None:
    record = dataset(str(_file(tmp_path, WHOLE)))
    assert (record.title, record.normal, record.metric, record.fps) == ("Street videos", "quiet", "AP", 12.5)
    assert (record.encoder, record.window, record.event_folders) == ("tiny", 64, ("event",))
    assert record.class_names("Road accident") == ("Accident",)
    assert record.label_of(tmp_path / "rgb" / "Part 1" / "x__5.npy") == "quiet"
    assert record.key("x_cam") == "x"
    assert record.video_root == Path("/data/videos")
    assert (record.data_root, record.list_root) == (tmp_path / "e", tmp_path / "l/x")
    assert record.annotation_file("masks") == tmp_path / "a" / "masks"
    files = record.annotations["official"]
    assert (files.train_list, files.test_list, files.annotation, files.form) == (
        "train.txt", "test.txt", "masks", "masks",
    )  # fmt: skip
    assert record.recipe == Recipe(4, False, 1e-3, 3, (1, 2), 0.5, 100)


def test_a_relative_path_means_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    assert dataset("street.toml") == dataset(str(tmp_path / "street.toml"))


def test_accents_in_two_pieces_mean_the_same_class(tmp_path: Path) -> None:
    pieces = unicodedata.normalize("NFD", "Überfall")
    record = dataset(str(_file(tmp_path, SMALL.replace("Fire", pieces))))
    assert record.label_of(f"rgb/{unicodedata.normalize('NFC', pieces)}/a__5.npy") == "Überfall"
    assert record.label_of(f"rgb/{pieces}/a__5.npy") == "Überfall"


def test_label_in_the_name_of_the_video(tmp_path: Path) -> None:
    text = SMALL.replace('"Road accident"', '"B2"').replace("normal", "label_in_name = true\nnormal")
    record = dataset(str(_file(tmp_path, text)))
    assert record.label_of("rgb/film__#1_label_Fire-B2-0__5.npy") == "Fire-B2-0"
    assert record.class_names("Fire-B2-0") == ("Fire", "B2")


def test_every_training_value_of_the_recipe_can_be_given() -> None:
    assert set(_TRAINING) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "street"', "", "name is missing"),
        ('name = "street"', 'name = "ucf"', "built-in data set"),
        ('name = "street"', 'name = "../street"', "letters, digits"),
        ('name = "street"', "name = 3", "name is 3; it must be text"),
        ('normal = "Normal"', "", "normal is missing"),
        ('normal = "Normal"', 'normal = "Fire"', "classes holds 'Fire', which is normal"),
        ('classes = ["Fire", "Road accident"]', "classes = []", "classes is empty"),
        ('"Fire", "Road', '"Fire", "Fire", "Road', "holds 'Fire' twice"),
        ('"Fire"', "3", "a label of classes is 3"),
        ('"Fire"', '"a/b"', "without / and without blanks"),
        ('"Fire"', '" Fire"', "without / and without blanks"),
        ('file = "annotations.txt"', "", r"file in \[annotation\] is missing"),
        ("[annotation]", "[annotations]", "unknown key 'annotations'; known are name,"),
        ('"annotations.txt"', '"annotations.txt"\nform = "xml"', r"form in \[annotation\] is 'xml'"),
        ('"annotations.txt"', '"annotations.txt"\nform = "pairs"', "does not name the normal test videos"),
        ('"annotations.txt"', '"annotations.txt"\n[training]\nlr = 0', r"lr in \[training\] is 0; it must be positive"),
        ('"annotations.txt"', '"annotations.txt"\n[training]\nlr = nan', "must be positive"),
        ('"annotations.txt"', '"annotations.txt"\n[training]\nmax_epoch = true', "must be a whole number"),
        ('"annotations.txt"', '"annotations.txt"\n[training]\nepochs = 3', r"unknown key 'epochs' in \[training\]"),
        ('"annotations.txt"', '"annotations.txt"\n[training]\nscheduler_milestones = ["4"]', "a list of epochs"),
        ('"annotations.txt"', '"annotations.txt"\n[folders]\nvideo = "v"', r"unknown key 'video' in \[folders\]"),
        ('"annotations.txt"', '"annotations.txt"\n[folder_labels]\np = "Picnic"', "no label of this data set"),
        ("normal =", 'metric = "F1"\nnormal =', "metric is 'F1'; known are AUC, AP"),
        ("normal =", "window = 0\nnormal =", "window is 0; it must be positive"),
        ("normal =", "event_folders = []\nnormal =", "event_folders is"),
        ("normal =", 'encoder = "../vit"\nnormal =', "encoder is"),
        ("normal =", 'encoder = "timm:a/b"\nnormal =', "encoder is"),
        ("normal =", "normal =\nnormal =", "not valid TOML"),
        ("[annotation]", "a = " + "[" * 5000 + "\n[annotation]", "not valid TOML"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in SMALL
    path = _file(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(InputError, match=says) as caught:
        dataset(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["vitl", "open_clip:ViT-B-16", "timm:tf_efficientnet_lite0"])
def test_any_image_tower_may_be_named(tmp_path: Path, encoder: str) -> None:
    path = _file(tmp_path, SMALL.replace("normal =", f'encoder = "{encoder}"\nnormal =', 1))
    assert dataset(str(path)).encoder == encoder


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such data set file"):
        dataset(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"known are ucfcrime, .*\.toml file"):
        dataset("avenue")


def test_settings_remember_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, WHOLE)
    flags = Namespace(dataset=str(path), ds=None, profile=None)
    settings = resolve(flags)
    assert settings.recipe.batch_size == 4
    saved = settings.as_dict()
    assert (saved["dataset"], saved["dataset_file"], saved["window"]) == ("street", str(path), 64)
    again = resolve(Namespace(dataset=None, ds=None, profile=None), saved)
    assert again.dataset == settings.dataset
    path.unlink()
    with pytest.raises(InputError, match="no such data set file"):
        resolve(Namespace(dataset=None, ds=None, profile=None), saved)
    with pytest.raises(InputError, match="name two data sets"):
        resolve(Namespace(dataset=str(_file(tmp_path, SMALL)), ds="ucf", profile=None))


def test_the_worked_example_of_the_readme_is_a_valid_file(tmp_path: Path) -> None:
    text = (ROOT / "list" / "README.md").read_text(encoding="utf-8")
    record = dataset(str(_file(tmp_path, text.split("```toml\n")[1].split("```")[0])))
    assert (record.name, record.encoder, record.fps) == ("street", "vitl", 30)
    assert record.annotations["official"].test_list == "test.txt"
