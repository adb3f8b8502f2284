"""Every form of annotation, the ends of intervals, and the published frame labels bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad.annotations import frame_labels, read_annotation, read_names, split_crop, video_name
from vad.catalog import DEMO, MSAD, SHANG, UCFCRIME, XD, snippet_count
from vad.errors import InputError
from vad.truth import label_videos


def _file(folder: Path, text: str, name: str = "annotation.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("class", "a_x264.mp4  Abuse  165  240  -1  -1  \nb Normal -1 -1\n", {"a_x264": ((165, 240),), "b": ()}),
        ("class", "01_001.avi normal -1 -1 -1\n01_002.avi car 1 2 5 9", {"01_001": (), "01_002": ((1, 2), (5, 9))}),
        ("class", "\ufeffmy clip.mp4 Car crash 3 4 -1 -1\r\n\r\n", {"my clip": ((3, 4),)}),
        ("class", "my clip\tCar crash\t3\t4\n0007 Abuse 1 2", {"my clip": ((3, 4),), "0007": ((1, 2),)}),
        ("class", "a.mp4  Zone 2  3  4\nb\tZone 2\t5\t6", {"a": ((3, 4),), "b": ((5, 6),)}),
        ("class", "my clip.avi Car crash  3  4\nb Fire  5  6 -1", {"my clip": ((3, 4),), "b": ((5, 6),)}),
        ("pairs", "v=x  0 15  20 30\n7\t1\t2", {"v=x": ((0, 15), (20, 30)), "7": ((1, 2),)}),
        ("pairs", "v=x__#1_label_G 0 15 20 30\ny_label_B1.mp4 7 9",
         {"v=x__#1_label_G": ((0, 15), (20, 30)), "y_label_B1": ((7, 9),)}),
        ("pairs", "007 10 20\n008.mp4 1 2 -1 -1", {"007": ((10, 20),), "008": ((1, 2),)}),
        ("table", "Fall_1 shop 426 55 426\nFire_2 road 90 1 30 40 90",
         {"Fall_1": ((55, 426),), "Fire_2": ((1, 30), (40, 90))}),
        ("table", "Fall_1 shop 426 -1 -1\n", {"Fall_1": ()}),
    ],
)
def test_text_forms(tmp_path: Path, form: str, text: str, expected: dict) -> None:
    path = _file(tmp_path, text)
    for asked in ("auto", form):
        annotation = read_annotation(path, asked)
        assert annotation.form == form
        assert dict(annotation.marks) == expected
    assert annotation.complete == (form == "class")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a Abuse 1 2\nb Abuse 1 2 3\nc Abuse 1 2", "line 2: .*without an end"),
        ("a Abuse 1 2\n\nb Abuse 9 2\n", "line 3: the interval 9 2 of b ends before"),
        ("a Abuse 1 2\nb Abuse 1 -7\n", "line 2: .*negative"),
        ("a Abuse 1 2\nb Abuse -1 -1 4 5\n", "line 2: .*goes on after the -1"),
        ("a Abuse 1 2\nb Abuse 1.5 2\n", "line 2: .*is not name, class and whole numbers"),
        ("a Abuse 1 2\nb c.mp4 Abuse 3 9x 20 30\n", "line 2: .*is not name, class and whole numbers"),
        ("a.mp4  Abuse  1  2\nb.mp4  Abuse  3  1.5  20  30\n", "line 2: .*is not name, class and whole numbers"),
        ("a Abuse 1 2\nb Abuse\n", "line 2: .*has no frame numbers"),
        ("a Abuse 1 2\nb 1\n", "line 2: .*no frame numbers"),
        ("a Abuse 1 2\na.mp4 Abuse 3 4\n", "line 2: a is annotated in line 1"),
        ("a shop 50 1 51\n", "line 1: the interval 1 51 of a ends after its 50 frames"),
        ("a shop 50 1 50\nb shop -1\n", "line 2: .*lacks the number of frames"),
        ("a Abuse 1 99999999999999999999\n", "line 1"),
    ],
)
def test_broken_text_names_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(InputError, match=says) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such annotation"):
        read_annotation(tmp_path / "nothing.txt")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 Abuse 1 2\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_annotation(tmp_path / "latin.txt")
    with pytest.raises(InputError, match="unknown annotation form"):
        read_annotation(tmp_path / "latin.txt", "xml")


def test_masks_are_taken_as_they_are(tmp_path: Path) -> None:
    mask = np.zeros(40, dtype=np.int64)
    mask[[3, 31, 39]] = 1
    folder = tmp_path / "masks"
    folder.mkdir()
    np.save(folder / "01_001.npy", mask)
    np.savez(tmp_path / "masks.npz", **{"01_001": mask})
    for source in (folder, tmp_path / "masks.npz"):
        annotation = read_annotation(source)
        assert annotation.form == "masks"
        labels = frame_labels(annotation.marks["01_001"], 2)
        assert labels.dtype == np.uint8
        assert np.flatnonzero(labels).tolist() == [3, 31]  # frame 39 lies behind the last whole snippet
    with pytest.raises(InputError, match="01_001: a mask of 40 frames for 3 snippets, which stand for 48"):
        label_videos(annotation, SHANG, [("01_001", "car", 3)])
    np.save(folder / "01_002.npy", np.arange(3))
    with pytest.raises(InputError, match="01_002 is no row of zeros and ones"):
        read_annotation(folder)
    np.save(folder / "01_002.npy", np.array([{}]))
    with pytest.raises(InputError, match="cannot read the frame masks"):
        read_annotation(folder)


def test_ends_of_an_interval() -> None:
    assert np.flatnonzero(frame_labels(((0, 1), (15, 17)), 2)).tolist() == [0, 15, 16]  # s … e − 1, from 0
    assert np.flatnonzero(frame_labels(((30, 40),), 2)).tolist() == [30, 31]  # cut at 16·S = 32
    assert not frame_labels(((32, 40), (7, 7)), 2).any()
    assert frame_labels((), 0).shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), max_size=5), st.integers(0, 5))
def test_frame_labels_against_the_definition(starts: list[tuple[int, int]], snippets: int) -> None:
    intervals = tuple((start, start + length) for start, length in starts)
    expected = [int(any(s <= frame <= e - 1 for s, e in intervals)) for frame in range(16 * snippets)]
    assert frame_labels(intervals, snippets).tolist() == expected


@pytest.mark.parametrize(
    ("frames", "whole", "released"),
    [
        (0, 0, 0),
        (16, 1, 0),
        (17, 1, 1),
        (77, 4, 4),
        (512, 32, 32),
        (528, 33, 32),  # sixteen frames left: the released rule drops them
        (529, 33, 33),
        (1040, 65, 64),
        (1105, 69, 69),
    ],
)
def test_snippet_count(frames: int, whole: int, released: int) -> None:
    assert snippet_count(frames, "whole") == whole
    assert snippet_count(frames, "released") == released
    with pytest.raises(InputError, match="unknown tail rule"):
        snippet_count(frames, "padded")


def test_names_of_videos() -> None:
    assert split_crop("v=1__#1_label_A__5") == ("v=1__#1_label_A", 5)  # the last __ counts
    assert split_crop("v=1__#1_label_A") == ("v=1__#1_label_A", None)
    assert video_name("Abuse/Abuse028_x264.mp4") == "Abuse028_x264"
    assert video_name("A.Beautiful.Mind.2001__#00-01-45_label_A") == "A.Beautiful.Mind.2001__#00-01-45_label_A"
    assert video_name("/features/RGB/x__#1_label_A__3.npy") == "x__#1_label_A"
    assert video_name("x__3.MP4") == "x__3"  # only an embedding ends in a crop


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Abuse/a_x264.mp4\r\nNormal/b_x264.mp4\r\n\r\n\r\n", ["a_x264", "b_x264"]),
        ("a Abuse\nb Normal\n", ["a", "b"]),
        ("a.mp4  Abuse  1  2 -1 -1\nmy clip.avi Car crash 1 2\n", ["a", "my clip"]),
        ("path,label\n/disk/rgb/Abuse/a__0.npy,Abuse\n/disk/rgb/Abuse/a__1.npy,Abuse\nb__5.npy,x\n", ["a", "b"]),
        ("odd name\nb\n", ["odd name", "b"]),  # known to exist
    ],
)
def test_name_lists(tmp_path: Path, text: str, names: list[str]) -> None:
    assert read_names(_file(tmp_path, text), {"odd name"}) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "names no video"),
        ("a\nb\na.mp4\n", "line 3: a stands in line 1"),
        ("a\nAbuse/\n", "line 2: .*no video name"),
    ],
)
def test_broken_name_lists(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_names(_file(tmp_path, text))


def test_who_may_be_missing_from_an_annotation(tmp_path: Path) -> None:
    pairs = read_annotation(_file(tmp_path, "a_label_B1-0-0 1 2\n"))
    labels = label_videos(pairs, XD, [("b_label_A", "A", 1), ("a_label_B1-0-0", "B1-0-0", 1)])
    assert [part.sum() for part in labels] == [0, 1]
    with pytest.raises(InputError, match=r"c_label_G-0-0 \(G-0-0\) is a test video and is not annotated"):
        label_videos(pairs, XD, [("c_label_G-0-0", "G-0-0", 1)])
    named = read_annotation(_file(tmp_path, "a Intruder 1 2\nb Normal 1 2\n"))
    with pytest.raises(InputError, match=r"c \(Normal\) is a test video and is not annotated"):
        label_videos(named, DEMO, [("a", "Intruder", 1), ("c", "Normal", 1)])
    with pytest.raises(InputError, match="b is labelled Normal, but has anomalous frames"):
        label_videos(named, DEMO, [("b", "Normal", 1)])


def test_names_are_joined_across_spellings(tmp_path: Path) -> None:
    short = read_annotation(_file(tmp_path, "Abuse028 Abuse 2 4\n"))
    assert label_videos(short, UCFCRIME, [("Abuse028_x264", "Abuse", 1)])[0].sum() == 2
    both = read_annotation(_file(tmp_path, "Abuse028 Abuse 2 4\nAbuse028_x264 Abuse 2 4\n"))
    with pytest.raises(InputError, match="two spellings"):
        label_videos(both, UCFCRIME, [("Abuse028_x264", "Abuse", 1)])
    parts = read_annotation(_file(tmp_path, "04_0012_0.avi vehicle 0 3 -1 -1\n04_0012_1.avi circuit 5 9 -1 -1\n"))
    assert np.flatnonzero(label_videos(parts, SHANG, [("04_0012", "vehicle", 1)])[0]).tolist() == [0, 1, 2, 5, 6, 7, 8]


def _published(realdata: Path, name: str) -> np.ndarray:
    return np.load(realdata / "gt" / f"{name}.npz", allow_pickle=False)["gt"]


def _counts(realdata: Path, name: str) -> list[dict]:
    return json.loads((realdata / "gt" / f"{name}.json").read_text())


@pytest.mark.parametrize("source", ["ucf_annotations.txt", "ucf_Temporal_Anomaly_Annotation.official.txt"])
def test_published_ucf_crime(realdata: Path, source: str) -> None:
    videos = [
        (row["video"], "Normal" if row["video"].startswith("Normal") else row["video"][:-8], row["chunks"])
        for row in _counts(realdata, "ucf_test_290")
    ]
    truth = np.concatenate(label_videos(read_annotation(realdata / "annotations" / source), UCFCRIME, videos))
    assert (len(videos), len(truth), int(truth.sum())) == (290, 1_109_680, 84_128)
    assert np.array_equal(truth, _published(realdata, "ucf_gt_290.published"))


def test_published_xd_violence(realdata: Path) -> None:
    videos = [(row["video"], XD.label_of(row["video"]), row["chunks"]) for row in _counts(realdata, "xd_test_800")]
    annotation = read_annotation(realdata / "annotations" / "xd_annotations.official.txt")
    assert (annotation.form, len(annotation.marks)) == ("pairs", 500)
    truth = np.concatenate(label_videos(annotation, XD, videos))
    assert (len(videos), len(truth), int(truth.sum())) == (800, 2_330_384, 537_805)
    assert np.array_equal(truth, _published(realdata, "xd_gt_800.published"))


def test_both_xd_annotations_agree(realdata: Path) -> None:
    official = read_annotation(realdata / "annotations" / "xd_annotations.official.txt")
    released = read_annotation(realdata / "annotations" / "xd_annotation.txt")
    named = [name for name in released.marks if name in official.marks]
    assert len(named) == 453  # 500 abnormal ones without the 47 of several labels
    assert all(np.array_equal(*(frame_labels(a.marks[name], 2000) for a in (official, released))) for name in named)


def test_released_shanghaitech_needs_the_released_tail(realdata: Path) -> None:
    rows = _counts(realdata, "shang_test_197_frames")
    annotation = read_annotation(realdata / "annotations" / "shang_annotations.txt")
    normal = {name for name, marks in annotation.marks.items() if not marks}

    def truth(tail: str) -> np.ndarray:
        labelled = [(row["video"], "normal" if row["video"] in normal else "car", row["frames"]) for row in rows]
        videos = [(name, label, snippet_count(frames, tail)) for name, label, frames in labelled]
        return np.concatenate(label_videos(annotation, SHANG, videos))

    released = truth("released")
    assert (len(rows), len(released), int(released.sum())) == (197, 139_568, 7_245)
    assert np.array_equal(released, _published(realdata, "shang_gt.released"))
    assert len(truth("whole")) == 139_584  # video 01_074, 1040 frames, keeps one snippet more


def test_shanghaitech_masks_count_the_last_frame(realdata: Path) -> None:
    masks = read_annotation(realdata / "gt" / "shang_test_frame_mask.official.npz")
    released = read_annotation(realdata / "annotations" / "shang_annotations.txt")
    different = [
        int((frame_labels(marks, len(marks) // 16) != frame_labels(released.marks[name], len(marks) // 16)).sum())
        for name, marks in masks.marks.items()
        if name in released.marks
    ]
    assert len(masks.marks) == 107
    assert (sum(different), sum(count > 0 for count in different)) == (66, 37)


@pytest.mark.parametrize("source", ["msad_annotations.txt", "msad_anomaly_annotation.official.txt"])
def test_released_msad_abnormal_videos(realdata: Path, source: str) -> None:
    rows = _counts(realdata, "msad_test_241_frames")
    unknown = [n for n, row in enumerate(rows) if row["frames"] is None]  # the normal videos, in one block
    assert unknown == list(range(unknown[0], unknown[0] + 120))
    annotation = read_annotation(realdata / "annotations" / source)
    published = _published(realdata, "msad_gt.released")
    before, after = (
        np.concatenate(
            label_videos(annotation, MSAD, [(r["video"], "Fire", snippet_count(r["frames"], "released")) for r in part])
        )
        for part in (rows[: unknown[0]], rows[unknown[-1] + 1 :])
    )
    assert len(rows) - len(unknown) == 121
    assert np.array_equal(before, published[: len(before)])
    assert np.array_equal(after, published[len(published) - len(after) :])
    assert len(published) - len(before) - len(after) == 16 * 5_475
    assert int(before.sum() + after.sum()) == int(published.sum()) == 33_248
