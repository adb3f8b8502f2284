"""Audit: clean data give no finding, each error gives its own, and the errors of the released lists are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vad.datasets import load_dataset
from vad.files import InputError
from vad.prepare.audit import Audit, Check, audit

LABELS = {"n1": "Normal", "c1": "Crash", "n2": "Normal", "c2": "Crash"}
TABLE = """video,label,official,released,intervals
n1,Normal,train,train,
c1,Crash,train,test,
n2,Normal,test,test,
c2,Crash,test,train,10-20
"""


@pytest.fixture
def clean(street):
    """Return a data set without errors: two training videos (crops 0, 5) and two test videos (crop 5)."""
    street.write("annotations.csv", TABLE)
    for number, (name, label) in enumerate(LABELS.items()):
        for stream in ("rgb", "event_thr_10"):
            crops = (0, 5) if number < 2 else (5,)
            street.embed(f"{label}/{name}", *crops, snippets=3 + number, stream=stream)
        street.write(f"videos/{label}/{name}.mp4", "")
    street.make_lists()
    street.make_gt()
    return street


def run(street, split: str = "official", **changes: object) -> Audit:
    return audit(street.dataset, split, **changes)


def checks(report: Audit) -> dict[str, Check]:
    return {check.check.strip(): check for check in report.checks}


def findings(report: Audit) -> dict[str, tuple[str, ...]]:
    return {check.check.strip(): check.examples for check in report.findings}


def test_clean_data_passes_every_check(clean) -> None:
    report = run(clean)
    assert not report.findings, str(report)
    assert not [check for check in report.checks if check.found == "not checked"]
    result = checks(report)
    assert (result["training videos"].found, result["training videos"].expected) == (2, 2)
    assert result["embedding dimension D"].found == 8
    assert (result["ground-truth frames"].found, result["ground-truth frames"].expected) == (176, 176)
    assert result["anomalous frames, Crash"].found == 10  # frames 10-19 of c2
    assert str(report).endswith("no findings")
    assert json.loads(report.as_json())["clean"] is True


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def save(street, stream: str, name: str, array: np.ndarray) -> None:
    np.save(street.root / stream / f"{name}.npy", array)


ONES = np.ones((3, 8), np.float32)
ERRORS: dict[str, tuple[Callable, dict[str, str]]] = {
    "test video trained on": (
        lambda s: append(s.lists / "train.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"videos in both lists": "c2", "official test videos used for training": "c2", "training videos": "",
         "training, Crash": "", "training videos with missing crops": "c2: 0"},
    ),
    "training video tested on": (
        lambda s: append(s.lists / "test.csv", "rgb/Crash/c1__5.npy,Crash\n"),
        {"videos in both lists": "c1", "official training videos used for testing": "c1", "test videos": "",
         "test, Crash": "", "ground-truth frames": ""},
    ),
    "video in neither": (
        lambda s: edit(s.lists / "train.csv", "rgb/Crash/c1__0.npy,Crash\nrgb/Crash/c1__5.npy,Crash\n", ""),
        {"official training videos in neither list": "c1", "embedded videos in neither list": "c1",
         "video files in neither list": "c1", "training videos": "", "training, Crash": ""},
    ),
    "unknown class": (
        lambda s: edit(s.lists / "test.csv", ",Crash", ",Picnic"),
        {"rows with an unknown class": "test.csv, row 3: 'Picnic'", "test, Crash": "", "test, ?": ""},
    ),
    "another label": (
        lambda s: edit(s.lists / "test.csv", ",Crash", ",Running"),
        {"rows whose label contradicts their path": "test.csv, row 3: Running in Crash", "test, Crash": "",
         "test, Running": ""},
    ),
    "row cut short": (
        lambda s: edit(s.lists / "test.csv", "c2__5.npy,Crash", "c2__5.npy"),
        {"unreadable rows": "test.csv, row 3: 1 columns instead of 2", "test videos": "", "test, Crash": "",
         "official test videos in neither list": "c2", "embedded videos in neither list": "c2",
         "video files in neither list": "c2", "ground-truth frames": ""},
    ),
    "row twice": (
        lambda s: append(s.lists / "test.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"duplicate rows": "test.csv, row 4: crop 5 of c2"},
    ),
    "image missing": (
        lambda s: (s.root / "rgb/Crash/c1__0.npy").unlink(),
        {"missing image files (of 6)": "rgb/Crash/c1__0.npy"},
    ),
    "no events at all": (
        lambda s: (s.root / "event_thr_10").rename(s.root / "ev"),
        {"missing event files (of 6)": "event_thr_10/n1__0.npy"},
    ),
    "cut short": (
        lambda s: (s.root / "rgb/Crash/c2__5.npy").write_bytes((s.root / "rgb/Crash/c2__5.npy").read_bytes()[:-1]),
        {"unreadable image files": "rgb/Crash/c2__5.npy: truncated"},
    ),
    "event of another S": (
        lambda s: save(s, "event_thr_10", "Crash/c2__5", np.ones((5, 8))),
        {"streams with different S": "rgb/Crash/c2__5.npy: 6 and 5"},
    ),
    "crop of another S": (
        lambda s: [save(s, folder, "Normal/n1__0", np.ones((9, 8))) for folder in ("rgb", "event_thr_10")],
        {"videos whose crops differ in S": "n1"},
    ),
    "no snippet": (
        lambda s: [save(s, folder, "Crash/c1__0", ONES[:0]) for folder in ("rgb", "event_thr_10")],
        {"embeddings without snippets": "rgb/Crash/c1__0.npy", "videos whose crops differ in S": "c1"},
    ),
    "another width": (
        lambda s: save(s, "rgb", "Normal/n1__0", np.ones((3, 9))),
        {"files with another D": "rgb/Normal/n1__0.npy: 9"},
    ),
    "NaN": (
        lambda s: save(s, "rgb", "Normal/n1__0", ONES * np.nan),
        {"files with NaN or infinite values": "rgb/Normal/n1__0.npy"},
    ),
    "infinite in half precision": (
        lambda s: save(s, "event_thr_10", "Normal/n1__5", (ONES * np.inf).astype(np.float16)),
        {"files with NaN or infinite values": "event_thr_10/Normal/n1__5.npy"},
    ),
    "crop missing": (
        lambda s: edit(s.lists / "train.csv", "rgb/Crash/c1__0.npy,Crash\n", ""),
        {"training videos with missing crops": "c1: 0"},
    ),
    "gt cut": (
        lambda s: save(s, "lists", "gt", np.load(s.lists / "gt.npy")[:-16]),
        {"ground-truth frames": ""},
    ),
    "another table": (
        lambda s: edit(s.root / "annotations.csv", "10-20", "10-21"),
        {"videos whose frame labels differ from the table": "c2: 1 frames"},
    ),
    "video not in the table": (
        lambda s: edit(s.root / "annotations.csv", "n2,Normal,test,test,\n", ""),
        {"test videos without annotation in the table": "n2", "test videos": "", "test, normal": ""},
    ),
    "video file away": (
        lambda s: (s.root / "videos/Crash/c2.mp4").unlink(),
        {"listed videos without a video file": "c2"},
    ),
    "video not embedded": (
        lambda s: (s.root / "videos/Crash/c9.mp4").touch(),
        {"video files in neither list": "c9", "video files without embeddings": "c9"},
    ),
    "tail rules mixed": (
        lambda s: s.write("rgb/manifest.jsonl", "\n".join(
            json.dumps({"video": f"{name}.mp4", "crops": [5], "settings": {"tail": tail}})
            for name, tail in (("n1", "whole"), ("c1", "released"))
        )),
        {"tail rule of the embeddings": ""},
    ),
    "a name twice in the tree": (
        lambda s: s.embed("Running/c1"),
        {"folder of image embeddings": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_gives_its_own_findings(clean, error: str) -> None:
    make_error, expected = ERRORS[error]
    make_error(clean)
    result = findings(run(clean))
    assert set(result) == set(expected)
    for check, example in expected.items():
        assert not example or any(text.replace(f"{clean.root}/", "").startswith(example) for text in result[check])


def test_recordings_count_as_videos_and_event_maps_do_not(clean) -> None:
    (clean.root / "videos/Crash/c2.mp4").rename(clean.root / "videos/Crash/c2.h5")
    (clean.root / "videos/Crash/c2__events.npz").touch()
    assert not run(clean).findings


def test_other_split_reports_videos_that_change_sides(clean) -> None:
    clean_lists = {path: path.read_text() for path in (clean.lists / "train.csv", clean.lists / "test.csv")}
    for path, text in clean_lists.items():
        path.write_text(text.replace("c1", "x").replace("c2", "c1").replace("x", "c2"))
    result = checks(run(clean, "released"))
    assert result["official test videos used for training"].examples == ("c2",)
    assert result["official test videos used for training"].note == "the released split trains on them"
    assert result["official training videos used for testing"].note == "the released split tests on them"
    assert not result["training, Crash"].finding


def test_labels_of_shifted_ground_truth_are_findings(clean) -> None:
    truth = clean.lists / "gt.npy"
    truth.with_suffix(".json").unlink()
    np.save(truth, np.roll(np.load(truth), -80))  # the ten anomalous frames of c2 move to n2
    result = findings(run(clean))
    assert result["normal videos with anomalous frames"] == ("n2",)
    assert result["anomalous videos without anomalous frames"] == ("c2",)


def test_ground_truth_is_checked_by_its_metadata(clean) -> None:
    for folder in ("rgb", "event_thr_10"):
        (clean.root / folder).rename(clean.root / f"no_{folder}")
    report = run(clean)
    assert not report.findings
    assert checks(report)["ground-truth frames"].found == 176
    assert checks(report)["embeddings"].found == "not checked"
    (clean.lists / "gt.json").unlink()
    assert checks(run(clean))["ground-truth frames"].found == "not checked"


def test_large_embeddings_need_all_values_to_be_read(clean, monkeypatch) -> None:
    save(clean, "rgb", "Normal/n1__0", ONES * np.nan)
    check = "files with NaN or infinite values"
    monkeypatch.setattr("vad.prepare.audit.MAX_BYTES", 100)
    assert checks(run(clean))[check].found == "not checked"
    assert checks(run(clean, all_values=True))[check].found == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"list_root": "nowhere"}, "contains neither train.csv nor test.csv"),
        ({"feature_root": "videos"}, "has no folder rgb/"),
        ({"video_root": "nowhere"}, "does not exist"),
        ({"video_root": "rgb"}, "contains no videos"),
    ],
)
def test_folder_without_expected_files_is_refused(clean, changes: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(clean, **{name: clean.root / folder for name, folder in changes.items()})


def test_unknown_split_and_missing_lists_are_refused(street) -> None:
    with pytest.raises(InputError, match="Give --list_root"):
        run(street)
    street.embed("Crash/c1")
    with pytest.raises(InputError, match="unknown split 'ours'"):
        run(street, "ours")


# findings of the released lists against the official split: check → number
RELEASED = {
    "ucf": {},
    "xd": {
        "training videos": 3988, "training, normal (A)": 2036, "training, several": 290, "test videos": 753,
        "test, several": 0, "official test videos used for training": 47,
        "official training videos in neither list": 13,
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


@pytest.mark.parametrize("folder", RELEASED)
def test_released_lists_have_known_findings(realdata: Path, tmp_path: Path, folder: str) -> None:
    dataset, lists = load_dataset(folder), realdata / "released_list" / folder
    result = {check.check.strip(): check for check in audit(dataset, "official", list_root=lists).findings}
    assert {name: check.found for name, check in result.items()} == RELEASED[folder]
    if folder == "msad":
        assert result["official training videos used for testing"].examples == ("Robbery_10",)
    released = audit(dataset, "released", list_root=lists)
    sides = {check: n for check, n in RELEASED[folder].items() if check.startswith("official")}
    assert {check.check.strip(): check.found for check in released.findings} == sides
