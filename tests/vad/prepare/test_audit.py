"""The audit: clean material gives no finding, each mistake its own, and the release's 47 + 2 + 1 are found."""

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
    """Two training videos with crops 0 and 5, two test videos with crop 5, of 3 to 6 snippets; no mistake."""
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


def test_clean_material_gives_no_finding_and_all_checks(clean) -> None:
    report = run(clean)
    assert not report.findings, str(report)
    assert not [check for check in report.checks if check.found == "not checked"]
    made = checks(report)
    assert (made["training videos"].found, made["training videos"].expected) == (2, 2)
    assert made["width of the embeddings"].found == 8
    assert (made["frames of the ground truth"].found, made["frames of the ground truth"].expected) == (176, 176)
    assert made["anomalous frames, Crash"].found == 10  # frames 10-19 of c2
    assert str(report).endswith("no finding")
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
MISTAKES: dict[str, tuple[Callable, dict[str, str]]] = {
    "test video trained on": (
        lambda s: append(s.lists / "train.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"videos in both lists": "c2", "official test videos used for training": "c2", "training videos": "",
         "training, Crash": "", "training videos that lack crops": "c2: 0"},
    ),
    "training video tested on": (
        lambda s: append(s.lists / "test.csv", "rgb/Crash/c1__5.npy,Crash\n"),
        {"videos in both lists": "c1", "official training videos used for testing": "c1", "test videos": "",
         "test, Crash": "", "frames of the ground truth": ""},
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
        {"rows that cannot be read": "test.csv, row 3: 1 columns instead of 2", "test videos": "", "test, Crash": "",
         "official test videos in neither list": "c2", "embedded videos in neither list": "c2",
         "video files in neither list": "c2", "frames of the ground truth": ""},
    ),
    "row twice": (
        lambda s: append(s.lists / "test.csv", "rgb/Crash/c2__5.npy,Crash\n"),
        {"rows that stand twice": "test.csv, row 4: crop 5 of c2"},
    ),
    "image missing": (
        lambda s: (s.root / "rgb/Crash/c1__0.npy").unlink(),
        {"image files missing, of 6": "rgb/Crash/c1__0.npy"},
    ),
    "no events at all": (
        lambda s: (s.root / "event_thr_10").rename(s.root / "ev"),
        {"event files missing, of 6": "event_thr_10/n1__0.npy"},
    ),
    "cut short": (
        lambda s: (s.root / "rgb/Crash/c2__5.npy").write_bytes((s.root / "rgb/Crash/c2__5.npy").read_bytes()[:-1]),
        {"image files that cannot be read": "rgb/Crash/c2__5.npy: truncated"},
    ),
    "event of another S": (
        lambda s: save(s, "event_thr_10", "Crash/c2__5", np.ones((5, 8))),
        {"image and event of different S": "rgb/Crash/c2__5.npy: 6 and 5"},
    ),
    "crop of another S": (
        lambda s: [save(s, folder, "Normal/n1__0", np.ones((9, 8))) for folder in ("rgb", "event_thr_10")],
        {"videos whose crops differ in S": "n1"},
    ),
    "no snippet": (
        lambda s: [save(s, folder, "Crash/c1__0", ONES[:0]) for folder in ("rgb", "event_thr_10")],
        {"embeddings without a snippet": "rgb/Crash/c1__0.npy", "videos whose crops differ in S": "c1"},
    ),
    "another width": (
        lambda s: save(s, "rgb", "Normal/n1__0", np.ones((3, 9))),
        {"files of another width": "rgb/Normal/n1__0.npy: 9"},
    ),
    "NaN": (
        lambda s: save(s, "rgb", "Normal/n1__0", ONES * np.nan),
        {"files with NaN or infinite numbers": "rgb/Normal/n1__0.npy"},
    ),
    "infinite in half precision": (
        lambda s: save(s, "event_thr_10", "Normal/n1__5", (ONES * np.inf).astype(np.float16)),
        {"files with NaN or infinite numbers": "event_thr_10/Normal/n1__5.npy"},
    ),
    "crop missing": (
        lambda s: edit(s.lists / "train.csv", "rgb/Crash/c1__0.npy,Crash\n", ""),
        {"training videos that lack crops": "c1: 0"},
    ),
    "gt cut": (
        lambda s: save(s, "lists", "gt", np.load(s.lists / "gt.npy")[:-16]),
        {"frames of the ground truth": ""},
    ),
    "another table": (
        lambda s: edit(s.root / "annotations.csv", "10-20", "10-21"),
        {"videos whose frames differ from the table": "c2: 1 frames"},
    ),
    "video not in the table": (
        lambda s: edit(s.root / "annotations.csv", "n2,Normal,test,test,\n", ""),
        {"test videos that the table does not annotate": "n2", "test videos": "", "test, normal": ""},
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
        {"tail rule of the extraction": ""},
    ),
    "a name twice in the tree": (
        lambda s: s.embed("Running/c1"),
        {"tree of image embeddings": ""},
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_its_own_finding(clean, mistake: str) -> None:
    spoil, expected = MISTAKES[mistake]
    spoil(clean)
    found = findings(run(clean))
    assert set(found) == set(expected)
    for check, example in expected.items():
        assert not example or any(text.replace(f"{clean.root}/", "").startswith(example) for text in found[check])


def test_another_split_names_who_changes_sides(clean) -> None:
    clean_lists = {path: path.read_text() for path in (clean.lists / "train.csv", clean.lists / "test.csv")}
    for path, text in clean_lists.items():
        path.write_text(text.replace("c1", "x").replace("c2", "c1").replace("x", "c2"))
    found = checks(run(clean, "released"))
    assert found["official test videos used for training"].examples == ("c2",)
    assert found["official test videos used for training"].note == "the released split trains on them"
    assert found["official training videos used for testing"].note == "the released split tests on them"
    assert not found["training, Crash"].finding


def test_labels_of_an_array_without_metadata(clean) -> None:
    truth = clean.lists / "gt.npy"
    truth.with_suffix(".json").unlink()
    np.save(truth, np.roll(np.load(truth), -80))  # the ten frames of c2, the second video, fall into n2
    found = findings(run(clean))
    assert found["normal videos with anomalous frames"] == ("n2",)
    assert found["anomalous videos without an anomalous frame"] == ("c2",)


def test_ground_truth_without_embeddings_goes_by_its_metadata(clean) -> None:
    for folder in ("rgb", "event_thr_10"):
        (clean.root / folder).rename(clean.root / f"no_{folder}")
    report = run(clean)
    assert not report.findings
    assert checks(report)["frames of the ground truth"].found == 176
    assert checks(report)["embeddings"].found == "not checked"
    (clean.lists / "gt.json").unlink()
    assert checks(run(clean))["frames of the ground truth"].found == "not checked"


def test_values_are_read_up_to_a_size_or_as_asked(clean, monkeypatch) -> None:
    save(clean, "rgb", "Normal/n1__0", ONES * np.nan)
    check = "files with NaN or infinite numbers"
    monkeypatch.setattr("vad.prepare.audit.MOST_BYTES", 100)
    assert checks(run(clean))[check].found == "not checked"
    assert checks(run(clean, all_values=True))[check].found == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"list_root": "nowhere"}, "holds no train.csv and no test.csv"),
        ({"feature_root": "videos"}, "no folder rgb/ in it"),
        ({"video_root": "nowhere"}, "no such folder"),
        ({"video_root": "rgb"}, "holds no video"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(clean, changes: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(clean, **{name: clean.root / folder for name, folder in changes.items()})


def test_unknown_splits_and_nothing_to_audit(street) -> None:
    with pytest.raises(InputError, match="give --list_root"):
        run(street)
    street.embed("Crash/c1")
    with pytest.raises(InputError, match="unknown split 'ours'"):
        run(street, "ours")


# what the lists of the release have against the split of the data sets' authors: check → number
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
def test_the_released_lists(realdata: Path, tmp_path: Path, folder: str) -> None:
    dataset, lists = load_dataset(folder), realdata / "released_list" / folder
    found = {check.check.strip(): check for check in audit(dataset, "official", list_root=lists).findings}
    assert {name: check.found for name, check in found.items()} == RELEASED[folder]
    if folder == "msad":
        assert found["official training videos used for testing"].examples == ("Robbery_10",)
    released = audit(dataset, "released", list_root=lists)
    sides = {check: n for check, n in RELEASED[folder].items() if check.startswith("official")}
    assert {check.check.strip(): check.found for check in released.findings} == sides
