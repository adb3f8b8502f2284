"""train.csv and test.csv: their videos and order, and input that is refused before anything is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from vad.data import feature_root_of, read_list
from vad.datasets import load_dataset
from vad.files import InputError
from vad.prepare.lists import make_lists, read_names, scan, video_key


def paths_of(path: Path) -> list[str]:
    return [row["path"] for row in csv.DictReader(path.read_text().splitlines())]


def embed_all(street) -> None:
    for name in ("Normal/n1", "Crash/c1", "Normal/n2", "Crash/c2"):
        street.embed(name, 0, 5)


def test_lists_have_the_videos_and_order_of_the_table(street) -> None:
    embed_all(street)
    street.embed("Crash/c9")
    street.embed("Crash/.hidden")  # left by a killed extraction
    summary = street.make_lists()
    assert (street.lists / "train.csv").read_bytes() == (
        b"path,label\nrgb/Normal/n1__0.npy,Normal\nrgb/Normal/n1__5.npy,Normal\n"
        b"rgb/Crash/c1__0.npy,Crash\nrgb/Crash/c1__5.npy,Crash\n"
    )
    assert paths_of(street.lists / "test.csv") == ["rgb/Normal/n2__5.npy", "rgb/Crash/c2__5.npy"]
    metadata = json.loads((street.lists / "lists.json").read_text())
    assert metadata["unlisted"] == ["c9"]
    assert metadata["missing"] == {"train": [], "test": []}
    assert (metadata["dataset"], metadata["split"]) == ("street", "official")
    assert metadata["files"]["train_list"]["name"] == "annotations.csv"
    assert len(metadata["files"]["train_list"]["sha256"]) == 64
    assert feature_root_of(street.lists / "test.csv") == street.root
    assert summary[0] == "street, official split: 2 training and 2 test videos (table: 2 and 2)"
    assert summary[1] == "1 embedded videos are in no list and not used: c9"
    assert [line.endswith("unchanged") for line in street.make_lists()[-2:]] == [True, True]


def test_test_video_without_embeddings_is_refused(street) -> None:
    for name in ("Normal/n1", "Crash/c1", "Normal/n2"):
        street.embed(name)
    with pytest.raises(InputError, match=r"1 of 2 test videos .*\(c2\).*--allow_missing"):
        street.make_lists()
    assert not street.lists.exists()
    assert "1 test videos without embeddings are left out: c2" in street.make_lists(allow_missing=True)


def test_mostly_missing_training_videos_are_refused(street) -> None:
    embed_all(street)
    street.make_lists()
    before = (street.lists / "train.csv").read_bytes()
    street.write("annotations.csv", (street.root / "annotations.csv").read_text()
                 + "n8,,Normal,train,,\nn9,,Normal,train,,\n")  # fmt: skip
    street.make_lists()  # two of four training videos are enough
    for name in ("Crash/c1__0", "Crash/c1__5"):
        (street.root / f"rgb/{name}.npy").unlink()
    with pytest.raises(InputError, match=r"3 of 4 training videos of street .*\(c1, n8, n9\)"):
        street.make_lists()
    assert (street.lists / "train.csv").read_bytes() == before
    for crop in (0, 5):
        (street.root / f"rgb/Normal/n1__{crop}.npy").unlink()
    summary = street.make_lists(allow_missing=True)
    assert "no training videos: these lists can be used for evaluation only" in summary


def test_given_lists_replace_the_split_of_the_table(street) -> None:
    embed_all(street)
    street.embed("Running/r 1")
    train = street.write("train.txt", "Crash/c1.mp4\nNormal_1\n")  # an alias
    test = street.write("test.csv", "path,label\n/x/rgb/r 1__0.npy,Running\n/x/rgb/r 1__5.npy,Running\nc2,Crash\n")
    summary = street.make_lists(train_list=train, test_list=test)
    assert [row.video for row in read_list(street.lists / "test.csv", street.dataset)] == ["r 1", "c2"]
    assert paths_of(street.lists / "train.csv")[::2] == ["rgb/Crash/c1__0.npy", "rgb/Normal/n1__0.npy"]
    assert "the test videos match no split of the table" in summary
    leaky = street.write("leaky.txt", "c1\nn2\n")
    test.write_text("c2\nn1\n")
    summary = street.make_lists(train_list=leaky, test_list=test)
    assert "1 training videos are test videos of the official split: n2" in summary
    with pytest.raises(InputError, match="c2 is both a training and a test video"):
        street.make_lists(train_list=test)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "names no video of street"),
        ("<!DOCTYPE html>\n<title>404: Not Found</title>\n", "names no video of street"),
        ("n1 c1 n2\n", r"line 1: names n1 and c1\. Write one video per line"),
        ("Crash/c1 Normal/n1\n", "line 1: names n1 and c1"),
        ("n1,c1\n", "line 1: names n1 and c1"),
        ("n1\nc1\nn1\n", "line 3: n1 is repeated"),
        ("n1\nCrash/\n", "line 2: 'Crash/' contains no video name"),
        ("n1\n\0", "not text"),
    ],
)
def test_invalid_list_is_refused(street, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_names(street.write("list.txt", text), street.dataset)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Crash/c1.mp4\r\nn1\r\n\r\n", ["c1", "n1"]),
        ("c1.mp4  Crash  1  2 -1 -1\nn1 Normal -1\n", ["c1", "n1"]),
        ("path,label\n/d/rgb/Crash/c1__0.npy,Crash\n/d/rgb/Crash/c1__1.npy,Crash\nn1__5.npy,x\n", ["c1", "n1"]),
        ("odd name\nn1\n", ["odd name", "n1"]),  # known by its embedding
        ("my clip.avi Crash 1 2\nn1\n", ["my clip", "n1"]),
        ("my clip.h5 Crash 1 2\nn1.aedat4\n", ["my clip", "n1"]),
    ],
)
def test_names_are_read_from_lists_of_any_form(street, text: str, names: list[str]) -> None:
    assert read_names(street.write("list.txt", text), street.dataset, {"odd name"}) == names


def test_feature_files_of_any_spelling_match_their_video(street) -> None:
    msad, ucf = load_dataset("msad"), load_dataset("ucf")
    assert video_key("/f/Assault_1_i3d__5.npy", msad) == "Assault_1"
    frontdoor = video_key("MSAD_normal_frontdoor1_i3d", msad)
    assert frontdoor == video_key("frontdoor1__0.npy", msad)
    assert frontdoor in msad.videos
    assert video_key("Abuse028__3", ucf) == "Abuse028_x264"
    assert video_key("unknown_i3d__5.npy", msad) == "unknown_i3d"  # unknown names are kept
    street.embed("Crash/c1_i3d")
    for name in ("Normal/n1", "Normal/n2", "Crash/c2"):
        street.embed(name)
    street.make_lists()
    assert paths_of(street.lists / "train.csv")[1] == "rgb/Crash/c1_i3d__5.npy"


def test_label_of_folder_must_agree_with_the_table(street) -> None:
    for name in ("n1", "c1", "n2", "c2"):
        street.embed(name)  # without class folder: labels come from the table
    street.make_lists()
    assert [row.label for row in read_list(street.lists / "train.csv", street.dataset)] == ["Normal", "Crash"]
    (street.root / "rgb/Normal").mkdir()
    (street.root / "rgb/c1__5.npy").rename(street.root / "rgb/Normal/c1__5.npy")
    with pytest.raises(InputError, match=r"Normal/c1__5.npy: c1 has label Crash in annotations.csv"):
        street.make_lists()


def test_invalid_embedding_folders_are_refused(street) -> None:
    root = street.root
    with pytest.raises(InputError, match="must be called rgb"):
        scan(root / "image", street.dataset)
    with pytest.raises(InputError, match="rgb does not exist"):
        scan(root / "rgb", street.dataset)
    (root / "rgb").mkdir()
    with pytest.raises(InputError, match=r"contains no file <video>__<crop>\.npy"):
        scan(root / "rgb", street.dataset)
    embed_all(street)
    with pytest.raises(InputError, match="n2 has no embedding of crop 3, only of 0, 5"):
        street.make_lists(test_crops=(3,))
    with pytest.raises(InputError, match="unknown split 'ours'"):
        make_lists(street.dataset, "ours", root / "rgb", root / "a.csv", root / "b.csv")
    street.embed("Normal/Normal_1")
    with pytest.raises(InputError, match=r"n1__0\.npy and rgb/Normal/Normal_1 are the same video"):
        street.make_lists()
    (root / "rgb/Normal/Normal_1__5.npy").unlink()
    street.embed("Crash/n1", 3)
    with pytest.raises(InputError, match=r"Normal/n1__0\.npy and rgb/Crash/n1 are the same video"):
        scan(root / "rgb", street.dataset)
    (root / "rgb/Crash/n1__3.npy").unlink()
    np.save(root / "rgb/a.npy", np.ones(3))
    with pytest.raises(InputError, match="the file name has no crop"):
        scan(root / "rgb", street.dataset)


@pytest.mark.parametrize(("folder", "released"), [("ucf", (1610, 290)), ("xd", (3988, 753)),
                                                  ("shang", (240, 197)), ("msad", (479, 241))])  # fmt: skip
def test_both_splits_are_made_from_released_embeddings(
    realdata: Path, tmp_path: Path, folder: str, released: tuple[int, int]
) -> None:
    """The released split equals the released lists. The official split lacks only 13 XD-Violence videos."""
    dataset = load_dataset(folder)
    released_names = {}
    for side in ("train", "test"):
        rows = [row for row in read_list(realdata / f"released_list/{folder}/{side}.csv", dataset) if row.crop == 5]
        released_names[side] = {row.video for row in rows}
        for row in rows:
            path = tmp_path / "rgb" / row.path.rpartition("/rgb/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for split in ("released", "official"):
        out = tmp_path / split
        summary = make_lists(dataset, split, tmp_path / "rgb", out / "train.csv", out / "test.csv")
        ours = {side: {row.video for row in read_list(out / f"{side}.csv", dataset)} for side in released_names}
        numbers = (len(ours["train"]), len(ours["test"]))
        if split == "released":
            assert ours == released_names
            assert numbers == released
        else:
            counts = dataset.split_counts[split]
            assert numbers == ((3941, 800) if folder == "xd" else counts)
            assert len(summary) == (4 if folder == "xd" else 3)  # sizes, two files, and the 13 missing videos
        assert not json.loads((out / "lists.json").read_text())["unlisted"]
