"""Lists: rows and paths, the join of names and embeddings, both splits against the release's CSVs, gt.npy's checks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vad.catalog import DEMO, MSAD, SHANG, UCFCRIME, XD, Dataset
from vad.embeddings import embedding_shape
from vad.errors import InputError
from vad.lists import Item, event_path, feature_root_of, read_csv, resolve_path
from vad.splits import ListRequest, Split, make_lists, scan, split_files, split_videos
from vad.truth import TruthRequest, load_ground_truth, make_ground_truth

RELEASED_XD = "/media/Data1/xd_dataset/vitl/rgb/v=1RGb7knUKG0__#1_label_G-0-0__5.npy"


def _file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _embed(root: Path, name: str, crops: tuple[int, ...] = (5,), snippets: int = 2) -> None:
    for crop in crops:
        path = root / "rgb" / f"{name}__{crop}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones((snippets, 4), dtype=np.float16))


def test_read_csv(tmp_path: Path) -> None:
    path = _file(tmp_path / "test.csv", f'path,label\r\n{RELEASED_XD},G-0-0\r\n"rgb/a, b__0.npy",A\r\n\r\n')
    assert read_csv(path, XD) == [
        Item(RELEASED_XD, "G-0-0", "v=1RGb7knUKG0__#1_label_G-0-0", 5),
        Item("rgb/a, b__0.npy", "A", "a, b", 0),
    ]
    folder_as_label = _file(tmp_path / "ucf.csv", "label,path\nTesting_Normal_Videos_Anomaly,rgb/x__5.npy\n")
    assert read_csv(folder_as_label, UCFCRIME) == [Item("rgb/x__5.npy", "Normal", "x", 5)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column path and label"),
        ("file,label\nrgb/x__5.npy,Abuse\n", "no column path"),
        ("path,label\n", "holds no video"),
        ("path,label\nrgb/x__5.npy,Abuse\nrgb/y__5.npy,Dancing\n", "row 3: unknown class 'Dancing'"),
        ("path,label\nrgb/x__5.npy\n", "row 2: 1 columns instead of 2"),
        ("path,label\nrgb/x.npy,Abuse\n", "row 2: 'rgb/x.npy' is not <video>__<crop>.npy"),
        ("path,label\nrgb/x__5.npy,Abuse\nrgb/Abuse/x__5.npy,Abuse\n", "row 3: crop 5 of x stands in row 2"),
        ("path,label\nrgb/x__5.npy,\n", "row 2: unknown class ''"),
        ("path,label\n\0", "not text"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, says: str) -> None:
    path = _file(tmp_path / "test.csv", text)
    with pytest.raises(InputError, match=says) as caught:
        read_csv(path, UCFCRIME)
    assert str(path) in str(caught.value)


def test_missing_csv_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such list.*generate_file"):
        read_csv(tmp_path / "test.csv", UCFCRIME)


def test_resolve_path() -> None:
    assert resolve_path("rgb/Abuse/x__5.npy", "/root") == Path("/root/rgb/Abuse/x__5.npy")
    assert resolve_path("/media/rgb/vitl/rgb/Abuse/x__5.npy", "/root") == Path("/root/rgb/Abuse/x__5.npy")
    assert resolve_path(RELEASED_XD, "/root") == Path("/root/rgb/v=1RGb7knUKG0__#1_label_G-0-0__5.npy")
    assert resolve_path("/media/rgb/x__5.npy", None) == Path("/media/rgb/x__5.npy")
    with pytest.raises(InputError, match="give --feature_root"):
        resolve_path("rgb/x__5.npy", None)
    with pytest.raises(InputError, match="no folder rgb/"):
        resolve_path("/media/image/x__5.npy", "/root")


def test_event_path(tmp_path: Path) -> None:
    image = tmp_path / "rgb" / "set" / "rgb" / "Abuse" / "rgb__5.npy"
    with pytest.raises(InputError, match="no folder event_thr_10 or event beside rgb/"):
        event_path(image, UCFCRIME.event_folders)
    (tmp_path / "rgb" / "set" / "event").mkdir(parents=True)
    assert event_path(image, UCFCRIME.event_folders) == tmp_path / "rgb/set/event/Abuse/rgb__5.npy"
    (tmp_path / "rgb" / "set" / "event_thr_10").mkdir()
    assert event_path(image, UCFCRIME.event_folders) == tmp_path / "rgb/set/event_thr_10/Abuse/rgb__5.npy"
    assert event_path(image, SHANG.event_folders) == tmp_path / "rgb/set/event/Abuse/rgb__5.npy"


def _ask(tmp_path: Path, train: str | None, test: str, **changes: object) -> ListRequest:
    values: dict = {
        "dataset": DEMO,
        "split": "official",
        "base_path": tmp_path / "rgb",
        "train_csv": tmp_path / "out" / "train.csv",
        "test_csv": tmp_path / "out" / "test.csv",
        "train_list": _file(tmp_path / "train.txt", train) if train else None,
        "test_list": _file(tmp_path / "test.txt", test),
    }
    return ListRequest(**{**values, **changes})


def test_lists_are_joined_by_name_in_the_lists_order(tmp_path: Path) -> None:
    for name in ("Normal/n1", "Normal/n2", "Crash/c1", "Crash/c2", "Running/r 1"):
        _embed(tmp_path, name, (0, 5))
    _embed(tmp_path, "Crash/.hidden", (5,))  # what a killed extraction leaves
    said = make_lists(_ask(tmp_path, "n2\nc1\n", "Running/r 1.mp4\nc2.mp4\n"))
    assert (tmp_path / "out/train.csv").read_text().splitlines() == [
        "path,label",
        "rgb/Normal/n2__0.npy,Normal",
        "rgb/Normal/n2__5.npy,Normal",
        "rgb/Crash/c1__0.npy,Crash",
        "rgb/Crash/c1__5.npy,Crash",
    ]
    assert (tmp_path / "out/test.csv").read_text().splitlines() == [
        "path,label",
        "rgb/Running/r 1__5.npy,Running",
        "rgb/Crash/c2__5.npy,Crash",
    ]
    note = json.loads((tmp_path / "out/lists.json").read_text())
    assert note["videos"] == {"train": 2, "test": 2}
    assert note["unlisted"] == ["n1"]
    assert note["split"] == "official"
    assert len(note["files"]["train_list"]["sha256"]) == 64
    assert feature_root_of(tmp_path / "out/test.csv") == tmp_path
    assert any("1 videos in no list, taken for nothing: n1" in sentence for sentence in said)
    again = make_lists(_ask(tmp_path, "n2\nc1\n", "Running/r 1.mp4\nc2.mp4\n"))
    assert sum(sentence.endswith("as before") for sentence in again) == 2


def test_unlisted_and_missing_videos(tmp_path: Path) -> None:
    for name in ("Normal/n1", "Crash/c1", "Crash/c2"):
        _embed(tmp_path, name)
    ask = _ask(tmp_path, "n1\nn9\n", "c2\nc7\nc8\n")
    with pytest.raises(InputError, match=r"2 test videos have no embeddings .*\(c7, c8\).*--allow_missing"):
        make_lists(ask)
    assert not (tmp_path / "out").exists()
    said = make_lists(_ask(tmp_path, "n1\nn9\n", "c2\nc7\nc8\n", allow_missing=True, unlisted="train"))
    assert any("2 test videos without embeddings, left out: c7, c8" in sentence for sentence in said)
    assert any("1 training videos without embeddings: n9" in sentence for sentence in said)
    assert [item.video for item in read_csv(tmp_path / "out/train.csv", DEMO)] == ["n1", "c1"]
    with pytest.raises(InputError, match="names no video that has embeddings"):
        make_lists(_ask(tmp_path, "n1\n", "c7\n", allow_missing=True))
    with pytest.raises(InputError, match="n1 is a training video here and a test video"):
        make_lists(_ask(tmp_path, "n1\n", "n1\n"))
    with pytest.raises(InputError, match=r"c2: no embedding of crop 0; there are crops 5"):
        make_lists(_ask(tmp_path, "n1\n", "c2\n", test_crops=(0, 5)))
    with pytest.raises(InputError, match="unknown split"):
        make_lists(_ask(tmp_path, "n1\n", "c2\n", split="ours"))


def test_without_training_list_the_rest_trains(tmp_path: Path) -> None:
    for name in ("Abuse/a1_x264", "Abuse/a2_x264", "Normal/n1_x264"):
        _embed(tmp_path, name)
    make_lists(_ask(tmp_path, None, "a2 Abuse 1 2\n", dataset=UCFCRIME, split="released"))  # a2 means a2_x264
    assert [item.video for item in read_csv(tmp_path / "out/test.csv", UCFCRIME)] == ["a2_x264"]
    assert [item.video for item in read_csv(tmp_path / "out/train.csv", UCFCRIME)] == ["a1_x264", "n1_x264"]


def test_broken_trees(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be called rgb"):
        scan(tmp_path / "image")
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "rgb")
    (tmp_path / "rgb").mkdir()
    with pytest.raises(InputError, match=r"holds no <video>__<crop>\.npy"):
        scan(tmp_path / "rgb")
    _embed(tmp_path, "Dancing/d1")
    with pytest.raises(InputError, match=r"d1__5\.npy: unknown class 'Dancing'"):
        make_lists(_ask(tmp_path, "n1\n", "d1\n"))
    _embed(tmp_path, "Crash/d1", (3,))
    with pytest.raises(InputError, match=r"d1 lies in .*Crash too"):
        scan(tmp_path / "rgb")
    (tmp_path / "rgb" / "Crash" / "d1__3.npy").unlink()
    np.save(tmp_path / "rgb" / "a.npy", np.ones(3))
    with pytest.raises(InputError, match="no crop in this name"):
        scan(tmp_path / "rgb")


def _released(realdata: Path, dataset: Dataset, which: str) -> list[Item]:
    return read_csv(realdata / "released_list" / dataset.folder / f"{which}.csv", dataset)


@pytest.mark.parametrize(
    ("dataset", "train", "test"),
    [(UCFCRIME, 1610, 290), (XD, 3988, 753), (SHANG, 240, 197), (MSAD, 479, 241)],
    ids=lambda value: getattr(value, "name", None),
)
def test_released_lists_read_unchanged(realdata: Path, dataset: Dataset, train: int, test: int) -> None:
    rows = _released(realdata, dataset, "train")
    assert (len(rows), len({row.video for row in rows})) == (10 * train, train)
    assert {row.crop for row in rows} == set(range(10))
    rows += _released(realdata, dataset, "test")
    assert len(rows) == 10 * train + test
    assert [dataset.label_of(row.path) for row in rows] == [row.label for row in rows]
    assert resolve_path(rows[-1].path, "/x").parts[:3] == ("/", "x", "rgb")


def _everything(realdata: Path, dataset: Dataset, root: Path) -> tuple[set[str], set[str]]:
    """A tree with every video the release lists, crop 5 alone; returns the release's training and test videos."""
    sets = []
    for which in ("train", "test"):
        rows = [row for row in _released(realdata, dataset, which) if row.crop == 5]
        for row in rows:
            path = resolve_path(row.path, root)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        sets.append({row.video for row in rows})
    return sets[0], sets[1]


def _split(dataset: Dataset, split: str, root: Path, train: Path | None, test: Path) -> Split:
    return split_videos(scan(root / "rgb"), dataset, split_files(dataset, split), train, test)


@pytest.mark.parametrize(
    ("dataset", "test_list"),
    [
        (UCFCRIME, "ucf_annotations.txt"),
        (XD, "xd_annotation.txt"),
        (SHANG, "shang_annotations.txt"),
        (MSAD, "msad_test_list.txt"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_released_split(realdata: Path, tmp_path: Path, dataset: Dataset, test_list: str) -> None:
    train, test = _everything(realdata, dataset, tmp_path)
    split = _split(dataset, "released", tmp_path, None, realdata / "annotations" / test_list)
    assert {video.name for video in split.test} == test
    assert set(split.unlisted) == train  # the release's rule makes them the training videos
    assert not split.missing_test
    assert split.unmatched == list(split_files(dataset, "released").unmatched)


def test_official_ucf_crime_is_the_released_split(realdata: Path, tmp_path: Path) -> None:
    train, test = _everything(realdata, UCFCRIME, tmp_path)
    official = [realdata / "annotations" / f"ucf_Anomaly_{which}.official.txt" for which in ("Train", "Test")]
    split = _split(UCFCRIME, "official", tmp_path, *official)
    assert ({v.name for v in split.train}, {v.name for v in split.test}) == (train, test)
    assert not (split.unlisted or split.missing_train or split.missing_test)


def test_official_shanghaitech(realdata: Path, tmp_path: Path) -> None:
    train, test = _everything(realdata, SHANG, tmp_path)
    lists = realdata / "annotations"
    official = [lists / f"shang_SH_{which}.official.txt" for which in ("Train", "Test")]
    split = _split(SHANG, "official", tmp_path, *official)
    assert (len(split.train), len(split.test)) == SHANG.videos["official"]
    assert {v.name for v in split.test} - test == {"04_0012", "05_0023"} == train - {v.name for v in split.train}
    # the release's list names both in parts, which mean the video
    parts = _split(SHANG, "official", tmp_path, official[0], lists / "shang_test_list.txt")
    assert {v.name for v in parts.test} == {v.name for v in split.test}


def test_official_msad_moves_one_video_back(realdata: Path, tmp_path: Path) -> None:
    _everything(realdata, MSAD, tmp_path)
    released_train = realdata / "released_list" / "msad" / "train.csv"
    names = [row.video for row in _released(realdata, MSAD, "train") if row.crop == 5]
    train_list = _file(tmp_path / "train.txt", "\n".join([*names, "Robbery_10"]))
    test_list = realdata / "annotations" / "msad_test_list.txt"
    split = _split(MSAD, "official", tmp_path, train_list, test_list)
    assert (len(split.train), len(split.test)) == MSAD.videos["official"]
    assert not split.unlisted
    # the release's CSV does as a list: the catalogue knows which video it lacks
    released = _split(MSAD, "official", tmp_path, released_train, test_list)
    assert (len(released.train), len(released.test)) == (480, 240)
    assert (released.unlisted, released.moved) == ([], ["Robbery_10"])


def test_official_xd_violence(realdata: Path, tmp_path: Path) -> None:
    train, test = _everything(realdata, XD, tmp_path)
    names = [row["video"] for row in json.loads((realdata / "gt" / "xd_test_800.json").read_text())]
    # the authors' lists name the features of five crops
    test_list = _file(tmp_path / "test.list", "".join(f"/f/RGBTest/{n}__{c}.npy\n" for n in names for c in range(5)))
    kept = sorted(train - set(names))
    train_list = _file(tmp_path / "train.list", "".join(f"/f/RGB/{n}__{c}.npy\n" for n in kept for c in range(5)))
    split = _split(XD, "official", tmp_path, train_list, test_list)
    assert [video.name for video in split.test] == names
    moved = {video.name for video in split.test} - test
    assert len(moved) == 47
    assert moved <= train
    assert len(split.train) == 3941
    assert not (split.unlisted or split.missing_train or split.missing_test)


def test_embedding_shape(tmp_path: Path) -> None:
    path = tmp_path / "x__5.npy"
    with pytest.raises(InputError, match="no such embedding"):
        embedding_shape(path)
    np.save(path, np.ones((7, 3)))
    assert embedding_shape(path) == (7, 3)
    np.save(path, np.empty((0, 3)))
    assert embedding_shape(path) == (0, 3)
    np.save(path, np.ones(7))
    with pytest.raises(InputError, match=r"shape \(7,\)"):
        embedding_shape(path)
    np.save(path, np.ones((7, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut short"):
        embedding_shape(path)
    path.write_bytes(b"not numpy")
    with pytest.raises(InputError, match=r"not a .npy embedding"):
        embedding_shape(path)


def _truth(tmp_path: Path) -> TruthRequest:
    _embed(tmp_path, "Crash/c1", (0, 5), snippets=3)
    _embed(tmp_path, "Normal/n1", snippets=1)
    csv_path = _file(
        tmp_path / "test.csv",
        "path,label\nrgb/Crash/c1__5.npy,Crash\nrgb/Normal/n1__5.npy,Normal\nrgb/Crash/c1__0.npy,Crash\n",
    )
    annotation = _file(tmp_path / "annotations.txt", "n1 Normal -1 -1\nc1 Crash 10 20 40 90\n")
    _file(tmp_path / "rgb" / "manifest.jsonl", "".join(
        [f'{json.dumps({"video": name, "settings": {"tail": "whole"}})}\n' for name in ("c1", "n1")] + ['{"vid']
    ))
    return TruthRequest(DEMO, "official", csv_path, tmp_path / "gt", annotation, feature_root=tmp_path)


def test_make_and_load_ground_truth(tmp_path: Path) -> None:
    ask = _truth(tmp_path)
    make_ground_truth(ask)
    path = tmp_path / "gt" / "gt.npy"
    truth = np.load(path)
    assert truth.dtype == np.uint8
    assert np.flatnonzero(truth).tolist() == [*range(10, 20), *range(40, 48)]  # 48 frames of c1, then n1's 16
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["videos"] == [
        {"name": "c1", "frames": 48, "positive": 18},
        {"name": "n1", "frames": 16, "positive": 0},
    ]
    assert note["tail"] == "whole"
    assert (note["annotation"]["name"], note["annotation"]["form"]) == ("annotations.txt", "class")
    parts = load_ground_truth(path, [("c1", 3), ("n1", 1)])
    assert [len(part) for part in parts] == [48, 16]
    assert np.array_equal(np.concatenate(parts), truth)
    assert make_ground_truth(ask)[-1].endswith("as before")


def test_a_ground_truth_that_does_not_match_is_found(tmp_path: Path) -> None:
    make_ground_truth(_truth(tmp_path))
    path = tmp_path / "gt" / "gt.npy"
    cases = {
        "video 1 is c1 with 48 frames there, but n1 with 16 frames": [("n1", 1), ("c1", 3)],
        "video 2 is n1 with 16 frames there, but n1 with 32 frames": [("c1", 3), ("n1", 2)],
        "2 videos, but 1 in the test list, n1 first": [("c1", 3)],
        "2 videos, but 3 in the test list, n2 first": [("c1", 3), ("n1", 1), ("n2", 1)],
    }
    for says, videos in cases.items():
        with pytest.raises(InputError, match=says):
            load_ground_truth(path, videos)
    np.save(path, np.load(path)[::-1])
    with pytest.raises(InputError, match=r"not the array that gt.json was written for"):
        load_ground_truth(path, [("c1", 3), ("n1", 1)])
    path.with_suffix(".json").unlink()  # the release's has none: the length of the whole must do
    assert len(load_ground_truth(path, [("c1", 2), ("n1", 2)])) == 2
    with pytest.raises(InputError, match="64 frames, but the 2 test videos have 48"):
        load_ground_truth(path, [("c1", 2), ("n1", 1)])


def test_broken_ground_truth(tmp_path: Path) -> None:
    path = tmp_path / "gt.npy"
    with pytest.raises(InputError, match="no ground truth; make it with"):
        load_ground_truth(path, [("a", 1)])
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"not a .npy array"):
        load_ground_truth(path, [("a", 1)])
    np.save(path, np.full(16, 0.5))
    with pytest.raises(InputError, match="other values than 0 and 1"):
        load_ground_truth(path, [("a", 1)])
    np.save(path, np.zeros((1, 16)))
    with pytest.raises(InputError, match="not one number a frame"):
        load_ground_truth(path, [("a", 1)])
    np.save(path, np.zeros(16))
    _file(path.with_suffix(".json"), "{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_ground_truth(path, [("a", 1)])


def test_crops_of_different_length_and_empty_embeddings(tmp_path: Path) -> None:
    ask = _truth(tmp_path)
    _embed(tmp_path, "Crash/c1", (0,), snippets=2)
    with pytest.raises(InputError, match="2 snippets, but 3 in crop 5"):
        make_ground_truth(ask)
    _embed(tmp_path, "Crash/c1", (0,), snippets=0)
    with pytest.raises(InputError, match="holds no snippet"):
        make_ground_truth(ask)
    (tmp_path / "rgb/Crash/c1__0.npy").unlink()
    with pytest.raises(InputError, match="no such embedding"):
        make_ground_truth(ask)
    assert not (tmp_path / "gt").exists()
