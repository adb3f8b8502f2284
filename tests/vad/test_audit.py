"""The audit: clean material gives no finding, each mistake gives its own, and the release's 47 + 2 + 1 are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vad.audit import AuditRequest, audit
from vad.audit_report import Audit, Row
from vad.catalog import DATASETS, DEMO, MSAD, SHANG, UCFCRIME, XD, Dataset
from vad.census import XD_MOVED
from vad.errors import InputError
from vad.splits import ListRequest, make_lists
from vad.truth import TruthRequest, make_ground_truth

# two training and two test videos of a data set without numbers in the catalogue, ten crops and one
MINE = replace(DEMO, name="mine", videos={}, class_videos={})
LABELS = {"n1": "Normal", "c1": "Crash", "n2": "Normal", "c2": "Crash"}


def _save(root: Path, folder: str, name: str, crop: int, array: np.ndarray) -> Path:
    path = root / folder / LABELS[name] / f"{name}__{crop}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.fixture
def ask(tmp_path: Path) -> AuditRequest:
    """Material without a mistake, in tmp_path."""
    for number, name in enumerate(LABELS):
        for crop in (0, 5) if number < 2 else (5,):
            for folder in ("rgb", "event_thr_10"):
                _save(tmp_path, folder, name, crop, np.ones((3 + number, 8), np.float16))
        video = tmp_path / "videos" / LABELS[name] / f"{name}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    (tmp_path / "train_list.txt").write_text("n1\nc1\n")
    (tmp_path / "test_list.txt").write_text("n2\nc2\n")
    (tmp_path / "annotations.txt").write_text("n2 Normal -1 -1\nc2 Crash 10 20\n")
    lists = tmp_path / "lists"
    made = ListRequest(MINE, "official", tmp_path / "rgb", lists / "train.csv", lists / "test.csv",
                       annotation_root=tmp_path)  # fmt: skip
    make_lists(made)
    make_ground_truth(TruthRequest(MINE, "official", lists / "test.csv", lists, annotation_root=tmp_path))
    return AuditRequest(
        MINE, "official", lists, annotation_root=tmp_path, video_root=tmp_path / "videos", progress=False
    )


def _rows(report: Audit) -> dict[str, Row]:
    return {row.check.strip(): row for row in report.rows}


def _found(report: Audit) -> dict[str, tuple[str, ...]]:
    return {row.check.strip(): row.examples for row in report.findings}


def test_clean_material_gives_no_finding_and_all_checks_are_made(ask: AuditRequest) -> None:
    report = audit(ask)
    assert not report.findings, str(report)
    assert not [row.check for row in report.rows if row.found == "not checked"]
    rows = _rows(report)
    assert (rows["training videos"].found, rows["training videos"].expected) == (2, 2)
    assert rows["width of the embeddings"].found == 8
    assert (rows["frames of the ground truth"].found, rows["anomalous frames, Crash"].found) == (16 * 11, 10)
    assert rows["frames: 2 test videos, whole tail"].found == 16 * 11
    assert str(report).endswith("no finding")
    assert json.loads(report.as_json())["clean"] is True


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


ONES = np.ones((3, 8), np.float32)
MISTAKES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "test video trained on": (
        lambda root: _append(root / "lists/train.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"videos in both lists": "c2", "official test videos used for training": "c2"},
    ),
    "training video tested on": (
        lambda root: _append(root / "lists/test.csv", "rgb/Crash/c1__5.npy,Crash\n"),
        {"videos in both lists": "c1", "official training videos used for testing": "c1"},
    ),
    "video in neither": (
        lambda root: _edit(root / "lists/train.csv", "rgb/Crash/c1__0.npy,Crash\nrgb/Crash/c1__5.npy,Crash\n", ""),
        {"official training videos in neither list": "c1", "embedded videos in neither list": "c1",
         "video files in neither list": "c1"},
    ),
    "unknown class": (
        lambda root: _edit(root / "lists/test.csv", ",Crash", ",Picnic"),
        {"rows with an unknown class": "test.csv, row 3: 'Picnic'"},
    ),
    "another label": (
        lambda root: _edit(root / "lists/test.csv", ",Crash", ",Running"),
        {"rows whose label contradicts their path": "test.csv, row 3: Running in Crash"},
    ),
    "row cut short": (
        lambda root: _edit(root / "lists/test.csv", "c2__5.npy,Crash", "c2__5.npy"),
        {"rows that cannot be read": "test.csv, row 3: 1 columns instead of 2", "test videos": ""},
    ),
    "row twice": (
        lambda root: _append(root / "lists/test.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"rows that stand twice": "test.csv, row 4: crop 5 of c2"},
    ),
    "image missing": (
        lambda root: (root / "rgb/Crash/c1__0.npy").unlink(),
        {"image files missing, of 6": "rgb/Crash/c1__0.npy"},
    ),
    "event missing": (
        lambda root: (root / "event_thr_10/Crash/c2__5.npy").unlink(),
        {"event files missing, of 6": "event_thr_10/Crash/c2__5.npy"},
    ),
    "no events at all": (
        lambda root: (root / "event_thr_10").rename(root / "ev"),
        {"event files missing, of 6": "rgb/Normal/n1__0.npy"},
    ),
    "cut short": (
        lambda root: (root / "rgb/Crash/c2__5.npy").write_bytes((root / "rgb/Crash/c2__5.npy").read_bytes()[:-1]),
        {"image files that cannot be read": "rgb/Crash/c2__5.npy: cut short"},
    ),
    "event of another S": (
        lambda root: _save(root, "event_thr_10", "c2", 5, np.ones((5, 8))),
        {"image and event of different S": "rgb/Crash/c2__5.npy: 6 and 5"},
    ),
    "crop of another S": (
        lambda root: [_save(root, folder, "n1", 0, np.ones((9, 8))) for folder in ("rgb", "event_thr_10")],
        {"videos whose crops differ in S": "n1"},
    ),
    "no snippet": (
        lambda root: [_save(root, folder, "c1", 0, ONES[:0]) for folder in ("rgb", "event_thr_10")],
        {"embeddings without a snippet": "rgb/Crash/c1__0.npy"},
    ),
    "another width": (
        lambda root: _save(root, "rgb", "n1", 0, np.ones((3, 9))),
        {"files of another width": "rgb/Normal/n1__0.npy: 9"},
    ),
    "NaN": (
        lambda root: _save(root, "rgb", "n1", 0, ONES * np.nan),
        {"files with NaN or infinite numbers": "rgb/Normal/n1__0.npy"},
    ),
    "infinite in half precision": (
        lambda root: _save(root, "event_thr_10", "n1", 5, (ONES * np.inf).astype(np.float16)),
        {"files with NaN or infinite numbers": "event_thr_10/Normal/n1__5.npy"},
    ),
    "crop missing": (
        lambda root: _edit(root / "lists/train.csv", "rgb/Crash/c1__0.npy,Crash\n", ""),
        {"training videos that lack crops": "c1: 0"},
    ),
    "gt cut": (
        lambda root: np.save(root / "lists/gt.npy", np.load(root / "lists/gt.npy")[:-16]),
        {"frames of the ground truth": ""},
    ),
    "gt of another annotation": (
        lambda root: _edit(root / "annotations.txt", "10 20", "10 21"),
        {"videos whose frames differ from the annotation": "c2: 1 frames"},
    ),
    "video not annotated": (
        lambda root: _edit(root / "annotations.txt", "n2 Normal -1 -1\n", ""),
        {"test videos the annotation lacks": "n2"},
    ),
    "video file away": (
        lambda root: (root / "videos/Crash/c2.mp4").unlink(),
        {"listed videos without a video file": "c2"},
    ),
    "video not embedded": (
        lambda root: (root / "videos/Crash/c9.mp4").touch(),
        {"video files in neither list": "c9", "video files without embeddings": "c9"},
    ),
    "tail rules mixed": (
        lambda root: (root / "rgb/manifest.jsonl").write_text(
            '{"video": "n1", "settings": {"tail": "whole"}}\n{"video": "c1", "settings": {"tail": "released"}}\n'
        ),
        {"tail rule of the extraction": ""},
    ),
    "a name twice in the tree": (
        lambda root: [(root / "rgb/Running").mkdir(), np.save(root / "rgb/Running/c1__5.npy", ONES)],
        {"tree of image embeddings": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_its_own_finding(ask: AuditRequest, tmp_path: Path, mistake: str) -> None:
    spoil, expected = MISTAKES[mistake]
    spoil(tmp_path)
    found = _found(audit(ask))
    for check, example in expected.items():
        assert check in found, found
        assert not example or any(text.replace(f"{tmp_path}/", "").startswith(example) for text in found[check])
    # what follows from the mistake may be found as well; what has nothing to do with it may not
    related = {
        "training videos", "test videos", "frames of the ground truth", "videos in both lists",
        "image files missing, of 6",
        "official test videos used for training", "official training videos used for testing",
        "official test videos in neither list", "embedded videos in neither list", "video files in neither list",
        "image and event of different S", "videos whose crops differ in S", "rows whose label contradicts their path",
        "training videos that lack crops", "embeddings without a snippet",
    }  # fmt: skip
    assert set(found) <= set(expected) | related


def test_normal_videos_with_and_abnormal_ones_without_anomalous_frames(ask: AuditRequest, tmp_path: Path) -> None:
    truth = tmp_path / "lists/gt.npy"
    truth.with_suffix(".json").unlink()  # a released array has no note
    np.save(truth, np.roll(np.load(truth), -80))  # the ten frames of c2, the second video, fall into n2
    found = _found(audit(ask))
    assert found["normal videos with anomalous frames"] == ("n2",)
    assert found["anomalous videos without an anomalous frame"] == ("c2",)


def test_ground_truth_without_embeddings_goes_by_its_note(ask: AuditRequest, tmp_path: Path) -> None:
    for folder in ("rgb", "event_thr_10"):
        (tmp_path / folder).rename(tmp_path / f"no_{folder}")
    report = audit(ask)
    rows = _rows(report)
    assert not report.findings
    assert (rows["frames of the ground truth"].found, rows["anomalous frames"].found) == (16 * 11, 10)
    assert rows["embeddings"].found == "not checked"
    (tmp_path / "lists/gt.json").unlink()
    rows = _rows(audit(ask))
    assert rows["frames of the ground truth"].found == 16 * 11
    assert rows["frames of each test video"].found == "not checked"


def test_values_are_read_up_to_a_size_or_as_asked(ask: AuditRequest, tmp_path: Path, monkeypatch) -> None:
    _save(tmp_path, "rgb", "n1", 0, ONES * np.nan)
    check = "files with NaN or infinite numbers"
    assert _rows(audit(replace(ask, values="none")))[check].found == "not checked"
    monkeypatch.setattr("vad.audit_files.MOST_BYTES", 100)
    assert _rows(audit(ask))[check].found == "not checked"
    assert _rows(audit(replace(ask, values="all")))[check].found == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"list_root": "nowhere"}, "--list_root .*no such folder"),
        ({"list_root": "rgb"}, "holds no train.csv and no test.csv"),
        ({"annotation_root": "nowhere"}, "--annotation_root .*no such folder"),
        ({"feature_root": "videos"}, "no folder rgb/ in it"),
        ({"video_root": "nowhere"}, "--video_root .*no such folder"),
        ({"video_root": "rgb"}, "holds no video"),
        ({"frame_counts": ("annotations.txt",)}, "not valid JSON"),
        ({"split": "ours"}, "unknown split"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(ask: AuditRequest, tmp_path: Path, changes: dict, says: str) -> None:
    where = {
        key: tuple(tmp_path / v for v in value) if isinstance(value, tuple) else tmp_path / value
        for key, value in changes.items()
        if key != "split"
    }
    with pytest.raises(InputError, match=says):
        audit(replace(ask, **{**changes, **where}))


def test_nothing_to_audit(tmp_path: Path) -> None:
    nothing = replace(MINE, roots={"lists": tmp_path, "annotations": tmp_path, "embeddings": tmp_path})
    with pytest.raises(InputError, match="give --list_root"):
        audit(AuditRequest(nothing, "official"))


# what the lists of the release have against the split of the data sets' authors: check → number
RELEASED = {
    "ucfcrime": {},
    "xd": {
        "training videos": 3988, "training, normal (A)": 2036, "training, several": 290,
        "test videos": 753, "test, several": 0, "official test videos used for training": 47,
    },
    "shang": {
        "training videos": 240, "training, Vehicle": 29, "training, Jumping": 4,
        "test videos": 197, "test, Vehicle": 18, "test, Jumping": 0, "official test videos used for training": 2,
    },
    "msad": {
        "training videos": 479, "training, Robbery": 14, "test videos": 241, "test, Robbery": 15,
        "official training videos used for testing": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("annotations", [True, False], ids=["with the official lists", "released lists alone"])
@pytest.mark.parametrize("name", RELEASED)
def test_the_released_lists(realdata: Path, tmp_path: Path, name: str, annotations: bool) -> None:
    dataset = DATASETS[name]
    lists = realdata / "released_list" / dataset.folder
    root = realdata / "annotations" if annotations else tmp_path
    report = audit(AuditRequest(dataset, "official", lists, annotation_root=root, progress=False))
    assert {row.check.strip(): row.found for row in report.findings} == RELEASED[name]
    released = audit(AuditRequest(dataset, "released", lists, annotation_root=root, progress=False))
    sides = {check: n for check, n in RELEASED[name].items() if check.startswith("official")}
    assert {row.check.strip(): row.found for row in released.findings} == sides


def test_the_moved_videos_are_those_of_the_official_lists(realdata: Path) -> None:
    rows = json.loads((realdata / "gt" / "xd_test_800.json").read_text())
    assert set(XD_MOVED) == {row["video"] for row in rows if not row["in_IEF_VAD_test_csv"]}
    assert len(XD_MOVED) == len(set(XD_MOVED)) == 47
    official = set((realdata / "annotations/shang_SH_Test.official.txt").read_text().split())
    released = (realdata / "released_list/shang/test.csv").read_text()
    assert {name for name in official if f"/{name}__5" not in released} == {"04_0012", "05_0023"}


@pytest.mark.parametrize("dataset", [UCFCRIME, XD, SHANG, MSAD], ids=lambda d: d.name)
@pytest.mark.parametrize("split", ["official", "released"])
def test_class_numbers_add_up_to_the_splits(dataset: Dataset, split: str) -> None:
    census = dataset.class_videos[split]
    assert tuple(map(sum, zip(*census.values(), strict=True))) == dataset.videos[split]
    assert set(census) <= {dataset.normal, *dataset.classes, "several"}


FRAMES = {
    # data set → (what tells lengths, {row: frames}); a range where only snippets are known
    "ucfcrime": (["ucf_test_290.json"], {
        "290 test videos, whole tail": 1_109_680,
        "290 test videos, released tail": "1,109,520 … 1,109,680",
    }),
    "xd": (["xd_test_800.json"], {
        "official split, 800 test videos, whole tail": 2_330_384,
        "official split, 800 test videos, released tail": "2,329,872 … 2,330,384",
        "released split, 753 test videos, whole tail": 2_241_312,
        "released split, 753 test videos, released tail": "2,240,848 … 2,241,312",
    }),
    "shang": (["shang_test_frame_mask.official.npz", "shang_test_197_frames.json"], {
        "official split, 199 test videos, whole tail": 140_704,
        "official split, 199 test videos, released tail": 140_688,
        "released split, 197 test videos, whole tail": 139_584,
        "released split, 197 test videos, released tail": 139_568,
    }),
    "msad": (["msad_test_241_frames.json"], {
        "official split, 240 test videos, whole tail": 56_336,
        "official split, 240 test videos, released tail": 56_336,
        "released split, 241 test videos, whole tail": 56_544,
        "released split, 241 test videos, released tail": 56_544,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_each_split_and_tail_rule(realdata: Path, tmp_path: Path, name: str) -> None:
    dataset, (files, expected) = DATASETS[name], FRAMES[name]
    counts = tuple(realdata / "gt" / file for file in files)
    lists = realdata / "released_list" / dataset.folder
    report = audit(AuditRequest(dataset, "official", lists, annotation_root=tmp_path, frame_counts=counts))
    rows = {row.check.removeprefix("frames: "): row for row in report.rows if row.check.startswith("frames: ")}
    assert {check: row.found for check, row in rows.items()} == expected
    unknown = {row.note for row in rows.values()}
    assert unknown == ({"120 videos of unknown length are not counted"} if name == "msad" else {""})
