"""dataset.toml and annotations.csv: what is read, which mistakes are refused, and the built-in data sets."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import get_type_hints

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import snippet_count
from vad.datasets import (
    SNIPPET_FRAMES,
    Dataset,
    Training,
    dataset_names,
    load_dataset,
    video_name,
)
from vad.files import ROOT, InputError
from vad.options import option_fields

SMALL = """
name = "street"
normal = "Normal"
classes = ["Fire", "Road accident"]
"""
WHOLE = """
name = "street"
title = "Street videos"
normal = "quiet"
metric = "AP"
fps = 12.5
encoder = "tiny"
window = 64
event_folders = ["event"]
annotations = "a/table.csv"
[classes]
Fire = "Fire"
"Road accident" = "Accident"
[folder_labels]
"Part 1" = "quiet"
[folders]
videos = "/data/videos"
embeddings = "e"
lists = "l/x"
[training]
batch_size = 4
paired = false
lr = 1
max_epoch = 3
scheduler_milestones = [1, 2]
scheduler_rate = 0.5
print_steps = 100
[overrides.paper]
nu = 0
scheduler_milestones = [1]
"""
TABLE = """\
# origin
# and date
video,alias,label,fold1,fold2,source,frames,intervals,intervals_fold2
a.mp4,a_x264 A,Fire,train,test,web,100,10-20 30-30,11-20
b,,Road accident,test,,web,,0-7,0-7
n,,Normal,test,train,,,,
"""
NAMES = ("ucfcrime", "xd", "shang", "msad")


def write_files(folder: Path, text: str = SMALL, table: str | None = None) -> Path:
    path = folder / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    if table is not None:
        (folder / "annotations.csv").write_text(table, encoding="utf-8")
    return path


# --- dataset.toml ------------------------------------------------------------------------------------


def test_minimal_toml_gets_the_defaults(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_files(tmp_path)))
    assert (dataset.name, dataset.title, dataset.metric) == ("street", "street", "AUC")
    assert (dataset.encoder, dataset.window, dataset.fps) == ("vitl", 256, None)
    assert dataset.classes == {"Fire": "Fire", "Road accident": "Road accident"}
    assert (dataset.training, dataset.overrides, dataset.custom) == ({}, {}, True)
    assert (dataset.folder, dataset.flag_value) == ("street", str(tmp_path / "dataset.toml"))
    assert (dataset.data_root, dataset.video_root) == (tmp_path, tmp_path / "videos")
    assert dataset.list_root == tmp_path / "lists"
    assert dataset.annotation_path == tmp_path / "annotations.csv"


def test_full_toml_is_read(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_files(tmp_path, WHOLE)))
    assert (dataset.title, dataset.normal, dataset.metric) == ("Street videos", "quiet", "AP")
    assert (dataset.encoder, dataset.window, dataset.fps) == ("tiny", 64, 12.5)
    assert dataset.event_folders == ("event",)
    assert dataset.class_names("Road accident") == ("Accident",)
    assert dataset.label_of("rgb/Part 1/x__5.npy") == "quiet"
    assert (dataset.data_root, dataset.list_root) == (tmp_path / "e", tmp_path / "l/x")
    assert dataset.video_root == Path("/data/videos")
    assert dataset.annotation_path == tmp_path / "a/table.csv"
    assert dataset.training["scheduler_milestones"] == (1, 2)
    assert (dataset.training["lr"], dataset.training["paired"]) == (1, False)
    assert dataset.overrides == {"paper": {"nu": 0, "scheduler_milestones": (1,)}}


def test_relative_path_and_folder_load_the_same_data_set(tmp_path: Path, monkeypatch) -> None:
    whole = load_dataset(str(write_files(tmp_path)))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("dataset.toml") == load_dataset(".") == whole


def test_decomposed_accents_match_the_class(tmp_path: Path) -> None:
    pieces = unicodedata.normalize("NFD", "Überfall")
    dataset = load_dataset(str(write_files(tmp_path, SMALL.replace("Fire", pieces))))
    assert dataset.label_of("rgb/Überfall/a__5.npy") == "Überfall"
    assert dataset.label_of(f"rgb/{pieces}/a__5.npy") == "Überfall"


def test_label_is_read_from_the_video_name(tmp_path: Path) -> None:
    text = SMALL.replace('"Road accident"', '"B2"') + "label_in_name = true"
    dataset = load_dataset(str(write_files(tmp_path, text)))
    assert dataset.label_of("rgb/film__#1_label_Fire-B2-0__5.npy") == "Fire-B2-0"
    assert dataset.class_names("Fire-B2-0") == ("Fire", "B2")
    assert [dataset.class_key(x) for x in ("Normal", "B2-0-0", "B2-Fire")] == ["Normal", "B2", "several"]
    with pytest.raises(InputError, match=r"x__5\.npy: unknown class ''"):
        dataset.label_of("rgb/Fire/x__5.npy")


def test_training_values_are_options() -> None:
    assert set(get_type_hints(Training)) <= {option.name for option in option_fields("training")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "street"', "", "name is missing. It must be text"),
        ('name = "street"', 'name = "ucf"', "a built-in data set"),
        ('name = "street"', 'name = "../street"', "letters, digits"),
        ('name = "street"', "name = 3", "name is 3. It must be text"),
        ('normal = "Normal"', "", "normal is missing"),
        ('normal = "Normal"', 'normal = "Fire"', "classes contains 'Fire', which is normal"),
        ('["Fire", "Road accident"]', "[]", "classes is empty"),
        ('["Fire", "Road accident"]', '"Fire"', "classes is 'Fire'. It must be a table"),
        ('"Fire", "Road', '"Fire", "Fire", "Road', "classes contains a label twice"),
        ('"Fire"', "3", "classes is 3. It must be text"),
        ('"Fire"', '["Fire"]', "classes is .*It must be text"),
        ('"Fire"', '"a/b"', "Remove / and outer blanks"),
        ('"Fire"', '" Fire"', "Remove / and outer blanks"),
        ("name =", "video = 1\nname =", "unknown key 'video'. Known keys: name,"),
        ("name =", 'path = "x"\nname =', "unknown key 'path'"),
        ("name =", "training.lr = 0\nname =", "training.lr is 0. It must be positive"),
        ("name =", "training.lr = nan\nname =", "must be positive"),
        ("name =", "training.lr = inf\nname =", "must be positive"),
        ("name =", "training.max_epoch = true\nname =", "training.max_epoch is True. .*whole"),
        ("name =", "training.max_epoch = 1.5\nname =", "must be a whole number"),
        ("name =", "training.paired = 1\nname =", "must be true or false"),
        ("name =", "training.epochs = 3\nname =", "unknown key 'training.epochs'"),
        ("name =", 'training.scheduler_milestones = ["4"]\nname =', "must be a whole number"),
        ("name =", "training.scheduler_milestones = 4\nname =", "must be a list of whole numbers"),
        ("name =", "training = 4\nname =", "training is 4. It must be a table"),
        ("name =", 'folders.video = "v"\nname =', "unknown key 'folders.video'"),
        ("name =", 'folder_labels.p = "Picnic"\nname =', "folder_labels contains .'Picnic'., which classes does not"),
        ("name =", 'overrides.paper = "x"\nname =', "overrides.paper is 'x'.* a table"),
        ("name =", 'metric = "F1"\nname =', "metric is 'F1'. It must be AUC or AP"),
        ("name =", "window = 0\nname =", "window is 0. It must be positive"),
        ("name =", "event_folders = []\nname =", "event_folders is"),
        ("name =", "event_folders = [1]\nname =", "event_folders is 1. It must be text"),
        ("name =", 'encoder = "../vit"\nname =', "encoder is"),
        ("name =", 'encoder = "timm:a/b"\nname =', "encoder is"),
        ("name =", "name =\nname =", "not valid TOML"),
        ("name =", "a = " + "[" * 5000 + "\nname =", "not valid TOML"),
    ],
)
def test_invalid_toml_error_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    path = write_files(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["vitl", "open_clip:ViT-B-16", "timm:tf_efficientnet_lite0"])
def test_image_tower_is_accepted(tmp_path: Path, encoder: str) -> None:
    path = write_files(tmp_path, f'encoder = "{encoder}"' + SMALL)
    assert load_dataset(str(path)).encoder == encoder


def test_missing_file_and_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such data set file"):
        load_dataset(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"Known are ucfcrime, .*\.toml files"):
        load_dataset("avenue")


# --- annotations.csv ---------------------------------------------------------------------------------


def test_annotation_table_is_read(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_files(tmp_path, table=TABLE)))
    assert list(dataset.videos) == ["a", "b", "n"]
    video = dataset.find("A")
    assert (video.name, video.alias, video.label, video.frames) == ("a", ("a_x264", "A"), "Fire", 100)
    assert video.splits == {"fold1": "train", "fold2": "test"}  # source is no split
    assert video.intervals == {"": ((10, 20), (30, 30)), "fold2": ((11, 20),)}
    assert dataset.find("b").frames is None
    assert dataset.find("c") is None
    assert dataset.splits == ("fold1", "fold2")
    assert dataset.split_names("fold1", "test") == ["b", "n"]
    assert dataset.split_counts == {"fold1": (1, 2), "fold2": (1, 1)}  # fold2 omits b
    assert dataset.class_counts("fold2") == {"Normal": (1, 0), "Fire": (0, 1)}
    assert (dataset.default_split("fold2"), dataset.default_split("official")) == ("fold2", "fold1")
    with pytest.raises(InputError, match=r"unknown split 'official' of street\. Known splits: fold1, fold2"):
        dataset.split_names("official", "test")


def test_every_alias_maps_to_the_same_key(tmp_path: Path) -> None:
    path = write_files(tmp_path)
    spellings = ["a", "A", "a_x264", "Fire/a.mp4", "C:\\Fire\\a_x264.MP4", " a "]
    assert {load_dataset(str(path)).key(name) for name in spellings} != {"a"}  # no table yet
    write_files(tmp_path, table=TABLE)
    dataset = load_dataset(str(path))
    assert {dataset.key(name) for name in spellings} == {"a"}
    assert dataset.key("v.1__#2.x") == "v.1__#2.x"  # not in the table, and .x is no video suffix
    assert video_name(unicodedata.normalize("NFD", "é.avi")) == "é"
    assert video_name(".mp4") == ".mp4"
    assert {video_name(f"Fire/a{suffix}") for suffix in (".npz", ".h5", ".HDF5", ".aedat4")} == {"a"}


def test_split_selects_the_interval_column(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_files(tmp_path, table=TABLE)))
    assert dataset.intervals("A", "fold1") == ((10, 20), (30, 30))
    assert dataset.intervals("A", "fold2") == ((11, 20),)
    assert dataset.intervals("n", "fold1") == ()
    with pytest.raises(InputError, match=r"annotations\.csv: c has no row"):
        dataset.intervals("c", "fold1")
    write_files(tmp_path, table=TABLE.replace("0-7,0-7", ","))
    dataset = load_dataset(str(tmp_path))
    with pytest.raises(InputError, match=r"b \(Road accident\) has no interval"):
        dataset.frame_labels("b", 16, "fold1")


def test_interval_ends_are_half_open(tmp_path: Path) -> None:
    rows = "video,label,split,intervals\nv,Fire,test,0-1 15-17 30-40 7-7 99-120\n"
    labels = load_dataset(str(write_files(tmp_path, table=rows))).frame_labels("v", 32, "split")
    assert (labels.dtype, len(labels)) == (np.uint8, 32)
    assert np.flatnonzero(labels).tolist() == [0, 15, 16, 30, 31]  # s … e − 1, from 0, clipped to 16·S frames


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), min_size=1, max_size=5),
    st.integers(0, 5),
)
def test_frame_labels_match_the_definition(tmp_path_factory, starts: list[tuple[int, int]], snippets: int) -> None:
    intervals = [(start, start + length) for start, length in starts]
    text = " ".join(f"{s}-{e}" for s, e in intervals)
    folder = tmp_path_factory.mktemp("table")
    write_files(folder, table=f"video,label,split,intervals\nv,Fire,test,{text}\n")
    frames = SNIPPET_FRAMES * snippets
    expected = [int(any(s <= frame < e for s, e in intervals)) for frame in range(frames)]
    assert load_dataset(str(folder)).frame_labels("v", frames, "split").tolist() == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("video,alias", "clip,alias", "the columns are clip, alias, .*columns video and label are required"),
        ("source", "label", "columns video and label are required, each once"),
        ("Fire,train,test", "Picnic,train,test", "line 4: unknown class 'Picnic'"),
        ("a.mp4", "", "line 4: the video has no name"),
        ("b,,", "a,,", "line 5: a is also in line 4"),
        ("b,,", "b,A,", "line 5: A is also in line 4"),
        ("train,test,web", "train,Test,web", "line 4: fold2 is 'Test'. It must be train, test or"),
        ("web,100", "web,1e2", "line 4: frames is '1e2'"),
        ("web,100", "web,0", "line 4: frames is '0'"),
        ("web,100", "web,19", "line 4: interval '10-20' ends after the video's 19 frames"),
        ("10-20", "10-9", "line 4: interval '10-9' ends before it starts"),
        ("10-20", "10 20", "line 4: interval '10': write"),
        ("10-20", "-1-20", "line 4: interval '-1-20': write"),
        ("train,,,,", "train,,,0-4,", "line 6: n is labelled Normal but has anomalous frames"),
        ("train,,,,", "train,,,,,,", "line 6: more cells than columns"),
        ("b,,", '"b,,', "line 6: unexpected end of data. Check"),
    ],
)
def test_invalid_row_error_names_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    write_files(tmp_path, table=TABLE.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        _ = load_dataset(str(tmp_path)).videos
    assert str(caught.value).startswith(str(tmp_path / "annotations.csv"))
    assert "\n" not in str(caught.value)


def test_missing_empty_or_splitless_table_is_handled(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_files(tmp_path)))
    with pytest.raises(InputError, match="there is no such table of annotations"):
        dataset.split_names("official", "test")
    assert (dataset.key("x.mp4"), dataset.split_of(["a"], ["b"])) == ("x", (None, []))
    for table, message in (("", "the columns are"), ("video,label\na,Fire\n", "no column assigns")):
        with pytest.raises(InputError, match=message):
            _ = load_dataset(str(write_files(tmp_path, table=table))).videos


def test_blank_lines_and_spaces_are_ignored(tmp_path: Path) -> None:
    table = "video, label,split\r\n\r\n a , Fire , test \r\n\r\nb,Fire,tset\r\n"
    with pytest.raises(InputError, match="line 5: split is 'tset'"):
        _ = load_dataset(str(write_files(tmp_path, table=table))).videos
    write_files(tmp_path, table=table.replace("tset", "train"))
    assert load_dataset(str(tmp_path)).split_counts == {"split": (1, 1)}


def test_split_of_returns_split_and_leaked_videos(tmp_path: Path) -> None:
    folds = load_dataset(str(write_files(tmp_path, table=TABLE)))
    assert folds.split_of(["A"], ["b.mp4", "n"]) == ("fold1", [])  # a is tested in fold2 only
    assert folds.split_of(["A", "n"], ["n"]) == (None, ["n"])
    write_files(tmp_path, table=TABLE.replace("fold2", "official"))
    assert load_dataset(str(tmp_path)).split_of(["A"], ["b", "n"]) == ("fold1", ["A"])


# --- the built-in data sets --------------------------------------------------------------------------


def test_built_in_data_sets_load_by_name_and_folder() -> None:
    assert dataset_names() == (*NAMES, "ped2", "demo", "demo_av")
    assert load_dataset("ucf") is load_dataset("ucfcrime")
    dataset = load_dataset("ucf")
    assert (dataset.flag_value, dataset.folder, dataset.custom) == ("ucfcrime", "ucf", False)
    assert dataset.list_root.parts[-4:] == ("list", "ucf", "rgb", "vitl")
    assert (dataset.data_root.parts[-2:], dataset.video_root) == (("data", "ucf"), None)
    demo = load_dataset("demo")
    assert demo.video_root.parts[-3:] == ("data", "demo", "videos")  # the demo renders its videos
    assert demo.annotation_path == ROOT / "list" / "demo" / "annotations.csv"
    assert (demo.synthetic, demo.encoder, demo.overrides["paper"]) == (True, "tiny", {"visual_layers": 1})


@pytest.mark.parametrize(
    ("name", "official", "released"),
    [
        ("ucfcrime", (1610, 290), (1610, 290)),
        ("xd", (3954, 800), (3988, 753)),
        ("shang", (238, 199), (240, 197)),
        ("msad", (480, 240), (479, 241)),
    ],
)
def test_split_counts_equal_the_sum_of_class_counts(name: str, official: tuple, released: tuple) -> None:
    dataset = load_dataset(name)
    assert dataset.split_counts == {"official": official, "released": released}
    for split, counts in dataset.split_counts.items():
        assert tuple(map(sum, zip(*dataset.class_counts(split).values(), strict=True))) == counts


def test_class_counts_equal_the_literature() -> None:
    counts = {name: load_dataset(name).class_counts("official") for name in NAMES}
    assert (counts["ucfcrime"]["Normal"], counts["ucfcrime"]["Shooting"]) == ((800, 150), (27, 23))
    assert (counts["xd"]["A"], counts["xd"]["several"]) == ((2049, 300), (243, 47))
    assert (counts["shang"]["normal"], counts["shang"]["vehicle"]) == ((175, 155), (28, 19))
    assert (counts["msad"]["Normal"], counts["msad"]["Robbery"]) == ((360, 120), (15, 14))


def test_released_splits_differ_as_documented() -> None:
    def leaks_and_missing(name: str) -> tuple[list[str], set[str]]:
        dataset = load_dataset(name)
        lists = [dataset.split_names("released", side) for side in ("train", "test")]
        split, leaks = dataset.split_of(*lists)
        assert split == ("official" if name == "ucfcrime" else "released")  # UCF-Crime's two splits are equal
        return leaks, set(dataset.videos) - {video for names in lists for video in names}

    assert leaks_and_missing("ucfcrime") == ([], set())
    leaks, missing = leaks_and_missing("xd")
    assert (len(leaks), len(missing)) == (47, 13)  # 3,988 = 3,954 − 13 + 47
    assert all(load_dataset("xd").class_key(name.split("_label_")[1]) == "several" for name in leaks)
    assert {load_dataset("xd").find(name).label for name in missing} == {"A"}
    assert leaks_and_missing("shang") == (["04_0012", "05_0023"], set())
    assert leaks_and_missing("msad") == ([], set())
    assert load_dataset("msad").find("Robbery_10").splits == {"official": "train", "released": "test"}


def test_common_aliases_map_to_the_canonical_name() -> None:
    for name, spelling, video in (
        ("ucfcrime", "Abuse028", "Abuse028_x264"),
        ("shang", "04_0012_1", "04_0012"),
        ("msad", "MSAD_normal_frontdoor1", "frontdoor1"),
        ("msad", "perdestrian_street1", "pedestrian_street1"),
        ("msad", "MSAD_normal_pedestrian_street1", "pedestrian_street1"),
        ("msad", "testing_7", "MSAD_normal_testing_7"),
    ):
        assert load_dataset(name).key(spelling) == video


@pytest.mark.parametrize("split", ["official", "released"])
@pytest.mark.parametrize("name", NAMES)
def test_anomalous_test_videos_have_intervals(name: str, split: str) -> None:
    dataset = load_dataset(name)
    for video in dataset.split_names(split, "test"):
        dataset.intervals(video, split)  # raises if there is none


def test_frame_rates_are_those_of_the_videos(realdata: Path) -> None:
    """Four clips of UCF-Crime have its 30 frames per second."""
    files = sorted((realdata / "videos").glob("*_x264.mp4"))
    rates = [cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FPS) for file in files]
    assert rates == pytest.approx([load_dataset("ucfcrime").fps] * 4)


# --- published ground truth from the tables alone ----------------------------------------------------


def published_labels(realdata: Path, name: str) -> np.ndarray:
    return np.load(realdata / "gt" / f"{name}.npz")["gt"]


def labels_of(dataset: Dataset, split: str, snippets: dict[str, int]) -> np.ndarray:
    """Return the concatenated frame labels; snippets: video → S, in order."""
    parts = [dataset.frame_labels(v, SNIPPET_FRAMES * s, split) for v, s in snippets.items()]
    return np.concatenate(parts)


def chunks(realdata: Path, name: str) -> dict[str, int]:
    videos = json.loads((realdata / "gt" / f"{name}.json").read_text())
    return {video["video"]: video["chunks"] for video in videos}


@pytest.mark.parametrize(
    ("name", "lengths", "array", "frames", "anomalous", "whole"),
    [
        ("ucfcrime", "ucf_test_290", "ucf_gt_290.published", 1_109_680, 84_128, 1_109_824),
        ("xd", "xd_test_800", "xd_gt_800.published", 2_330_384, 537_805, 2_331_248),
    ],
)
def test_published_ground_truth_is_reproduced(
    realdata, name: str, lengths: str, array: str, frames: int, anomalous: int, whole: int
) -> None:
    dataset, published = load_dataset(name), chunks(realdata, lengths)
    labels = labels_of(dataset, "official", published)
    assert (len(labels), int(labels.sum())) == (frames, anomalous)
    assert np.array_equal(labels, published_labels(realdata, array))
    true_counts = {video: dataset.find(video).frames // SNIPPET_FRAMES for video in published}
    assert SNIPPET_FRAMES * sum(true_counts.values()) == whole  # with the true frame counts


def test_published_lengths_follow_from_frame_counts(realdata: Path) -> None:
    xd, published = load_dataset("xd"), chunks(realdata, "xd_test_800")
    assert {video: (xd.find(video).frames - 1) // SNIPPET_FRAMES for video in published} == published
    assert sum(xd.find(video).frames % SNIPPET_FRAMES == 0 for video in published) == 54
    ucf, published = load_dataset("ucf"), chunks(realdata, "ucf_test_290")
    comment = ucf.annotation_path.read_text().split("\nvideo,")[0]
    shorter = {video for video, count in published.items() if ucf.find(video).frames // SNIPPET_FRAMES == count + 1}
    assert len(shorter) == 9  # and eleven other multiples of 16 are not shorter
    assert all(video.removesuffix("_x264") in comment for video in shorter)
    assert all(ucf.find(video).frames % SNIPPET_FRAMES == 0 for video in shorter)
    others = published.keys() - shorter
    assert all(ucf.find(video).frames // SNIPPET_FRAMES == published[video] for video in others)


@pytest.mark.parametrize(("tail", "frames"), [("released", 139_568), ("whole", 139_584)])
def test_released_shanghaitech_ground_truth_is_reproduced(realdata: Path, tail: str, frames: int) -> None:
    dataset = load_dataset("shang")
    videos = json.loads((realdata / "gt" / "shang_test_197_frames.json").read_text())
    snippets = {v["video"]: snippet_count(dataset.find(v["video"]).frames, tail) for v in videos}
    labels = labels_of(dataset, "released", snippets)
    assert len(labels) == frames  # the published array follows the released tail rule
    assert (tail == "released") == np.array_equal(labels, published_labels(realdata, "shang_gt.released"))


def test_shanghaitech_masks_include_the_last_frame(realdata: Path) -> None:
    dataset = load_dataset("shang")
    masks = np.load(realdata / "gt" / "shang_test_frame_mask.official.npz")
    for name in masks.files:
        labels = dataset.frame_labels(name, len(masks[name]), "official")
        assert np.array_equal(labels, masks[name]), name
    tested = [set(dataset.split_names(s, "test")) for s in ("official", "released")]
    differ = [
        int((dataset.frame_labels(name, f, "official") != dataset.frame_labels(name, f, "released")).sum())
        for name in sorted(tested[0] & tested[1])
        if (f := SNIPPET_FRAMES * snippet_count(dataset.find(name).frames, "released"))
    ]
    assert (sum(differ), sum(map(bool, differ))) == (66, 37)  # released intervals end one frame early


def test_published_msad_ground_truth_is_reproduced(realdata: Path) -> None:
    """Only the total length of the 120 normal videos is known, so they form one block of zeros."""
    dataset = load_dataset("msad")
    videos = json.loads((realdata / "gt" / "msad_test_241_frames.json").read_text())
    names = {
        "official": (realdata / "annotations" / "msad_test_list.official.txt").read_text().split(),
        "released": [video["video"] for video in videos],
    }
    for split, array, normal, frames, anomalous in (
        ("official", "msad_gt_240.published", 87_584, 143_920, 33_160),
        ("released", "msad_gt.released", 87_600, 144_144, 33_248),
    ):
        parts, normal_block = [], np.zeros(normal, np.uint8)
        for video in map(dataset.find, names[split]):
            if dataset.is_anomalous(video.label):
                length = SNIPPET_FRAMES * snippet_count(video.frames, "released")
                parts.append(dataset.frame_labels(video.name, length, split))
            else:
                parts.append(normal_block)
                normal_block = normal_block[:0]  # all normal videos are one block
        labels = np.concatenate(parts)
        assert (len(labels), int(labels.sum())) == (frames, anomalous)
        assert np.array_equal(labels, published_labels(realdata, array))
