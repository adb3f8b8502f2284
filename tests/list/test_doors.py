"""The documented commands of list/, as typed: from the root and from inside the folder, in a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = [16, 40]  # an anomalous interval in every anomalous test video here

# folder → (training videos, test videos as folder/name, files of the official split)
TREES = {
    "ucf": (
        ["Abuse/Abuse001_x264", "Normal/Normal_Videos001_x264"],
        ["Abuse/Abuse028_x264", "Normal/Normal_Videos_003_x264"],
        {
            "Anomaly_Train.txt": "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n",
            "Anomaly_Test.txt": "Abuse/Abuse028_x264.mp4\nTesting_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4\n",
            "Temporal_Anomaly_Annotation.txt": "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
            "Abuse028_x264.mp4  Abuse  16  40  -1  -1  \n",
        },
    ),
    "xd": (
        ["v=b__#1_label_A", "v=c__#1_label_B1-B2-0"],
        ["v=a__#1_label_G-0-0", "A.Film.2001__#00-01-45_label_A"],
        {
            "rgb.list": "".join(f"/f/v=b__#1_label_A__{c}.npy\n/f/v=c__#1_label_B1-B2-0__{c}.npy\n" for c in range(5)),
            "rgb_test.list": "".join(
                f"/f/v=a__#1_label_G-0-0__{c}.npy\n/f/A.Film.2001__#00-01-45_label_A__{c}.npy\n" for c in range(5)
            ),
            "annotations.txt": "v=a__#1_label_G-0-0.mp4 16 40\n",
        },
    ),
    "shang": (
        ["normal/01_002", "jumping/01_0014"],
        ["vehicle/04_0012", "normal/01_001"],
        {
            "SH_Train.txt": "01_002\n01_0014\n",
            "SH_Test.txt": "04_0012\n01_001",
            "shang_annotations.txt": "01_001.avi normal -1 -1\n"
            "04_0012_0.avi vehicle 16 20 -1 -1\n04_0012_1.avi circuit 20 40 -1 -1\n",
        },
    ),
    "msad": (
        ["Fire/Fire_1", "Robbery/Robbery_10"],
        ["Fire/Fire_2", "Normal/MSAD_normal_testing_1"],
        {
            "msad_train_list.txt": "Fire_1\nRobbery_10\n",
            "msad_test_list.txt": "Fire_2\nRobbery_10\nMSAD_normal_testing_1\n",
            "msad_annotations.txt": "Fire_2.mp4  mall  16  40  -1  -1  \nMSAD_normal_testing_1.mp4 Normal -1 -1\n",
        },
    ),
    "demo": (
        ["Crash/Crash_000", "Normal/Normal_000"],
        ["Crash/Crash_032", "Normal/Normal_032"],
        {
            "train_list.txt": "Crash/Crash_000.mp4\nNormal/Normal_000.mp4\n",
            "test_list.txt": "Crash/Crash_032.mp4\nNormal/Normal_032.mp4\n",
            "annotations.txt": "Crash_000 Crash 1 2\nCrash_032 Crash 16 40\nNormal_032 Normal -1 -1\n",
        },
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's list/ and vad/: the doors' defaults lie beside them, and tests write nowhere else."""
    for room in ("list", "vad"):
        (tmp_path / "project" / room).mkdir(parents=True)
        for file in (ROOT / room).glob("*.py"):
            shutil.copy(file, tmp_path / "project" / room)
    return tmp_path / "project"


def _embed(root: Path, videos: list[str], crops: tuple[int, ...]) -> None:
    for video in videos:
        for crop in crops:
            path = root / "rgb" / f"{video}__{crop}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((3, 4), dtype=np.float32))


def _fill(project: Path, folder: str, root: Path) -> tuple[list[str], list[str]]:
    train, test, files = TREES[folder]
    _embed(root, train, (0, 5))
    _embed(root, test, (5,))
    for name, text in files.items():
        path = project / "list" / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return train, test


def _run(cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("inside", [True, False], ids=["inside list", "from the root"])
@pytest.mark.parametrize("folder", ["ucf", "xd", "shang", "msad"])
def test_documented_commands(project: Path, tmp_path: Path, folder: str, inside: bool) -> None:
    root = tmp_path / "embeddings"
    train, test = _fill(project, folder, root)
    cwd, door, out = (project / "list", "", "") if inside else (project, "list/", "list/")
    lists = f"{out}{folder}/rgb/vitl"
    made = _run(
        cwd, f"{door}{folder}_generate_file.py", "--base_path", str(root / "rgb"),
        "--train_save_path", f"{lists}/train.csv", "--test_save_path", f"{lists}/test.csv",
    )
    assert made.returncode == 0, made.stderr
    assert "2 training and 2 test videos" in made.stdout
    truth = _run(
        cwd, f"{door}{folder}_generate_gt.py", "--csv_path", f"{lists}/test.csv", "--save_path", f"{lists}/gt.npy"
    )
    assert truth.returncode == 0, truth.stderr
    assert "2 videos, 96 frames, 24 anomalous" in truth.stdout
    there = project / "list" / folder / "rgb" / "vitl"
    rows = [row.split(",")[0] for row in (there / "train.csv").read_text().splitlines()[1:]]
    assert rows == [f"rgb/{video}__{crop}.npy" for video in train for crop in (0, 5)]
    rows = [row.split(",")[0] for row in (there / "test.csv").read_text().splitlines()[1:]]
    assert rows == [f"rgb/{video}__5.npy" for video in test]
    assert json.loads((there / "lists.json").read_text())["feature_root"] == str(root.resolve())
    expected = np.zeros(96, dtype=np.uint8)
    expected[slice(*SHORT)] = 1  # the anomalous video is the first of the list, not of the annotation
    assert np.array_equal(np.load(there / "gt.npy"), expected)
    assert sorted(file.name for file in there.iterdir()) == ["gt.json", "gt.npy", "lists.json", "test.csv", "train.csv"]


def test_demo_needs_no_flags(project: Path) -> None:
    _fill(project, "demo", project / "data" / "demo")
    for command in ("generate_file.py", "generate_gt.py"):
        done = _run(project, f"list/{command}", "--dataset", "demo")
        assert done.returncode == 0, done.stderr
    there = project / "list" / "demo" / "rgb" / "tiny"
    assert int(np.load(there / "gt.npy").sum()) == 24
    again = _run(project / "list", "generate_gt.py", "--dataset", "demo")
    assert "as before" in again.stdout


def test_released_split_is_remembered_by_the_ground_truth(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "embeddings"
    _fill(project, "ucf", root)
    released = project / "list" / "ucf" / "ucf_annotations.txt"
    released.write_text("Abuse028_x264.mp4  Abuse  0  5  -1  -1  \nNormal_Videos_003_x264.mp4  Normal  -1  -1  \n")
    base = ["ucf_generate_file.py", "--base_path", str(root / "rgb")]
    made = _run(project / "list", *base, "--profile", "released")
    assert made.returncode == 0, made.stderr
    assert "released split: 2 training and 2 test videos" in made.stdout
    truth = _run(project / "list", "ucf_generate_gt.py")
    assert "ucf_annotations.txt (class): 2 videos, 96 frames, 5 anomalous" in truth.stdout
    typed = _run(project / "list", "ucf_generate_gt.py", "--split", "official")
    assert "Temporal_Anomaly_Annotation.txt (class): 2 videos, 96 frames, 24 anomalous" in typed.stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["ucf_generate_file.py", "--base_path", "nothing/rgb"], "no such folder"),
        (["xd_generate_gt.py", "--csv_path", "nothing.csv"], "there is no such list"),
        (["generate_gt.py", "--dataset", "mine"], "unknown data set 'mine'"),
        (["shang_generate_gt.py", "--annotation_form", "xml"], "there is no such list"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(project: Path, command: list[str], says: str) -> None:
    done = _run(project / "list", *command)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not [path for path in (project / "list").iterdir() if path.is_dir() and path.name != "__pycache__"]


def test_a_broken_annotation_leaves_the_old_ground_truth(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "embeddings"
    _fill(project, "msad", root)
    assert _run(project / "list", "msad_generate_file.py", "--base_path", str(root / "rgb")).returncode == 0
    assert _run(project / "list", "msad_generate_gt.py").returncode == 0
    before = {file: file.read_bytes() for file in (project / "list/msad/rgb/vitl").iterdir()}
    (project / "list/msad/msad_annotations.txt").write_text("Fire_2.mp4  mall  40  16  -1  -1\n")
    done = _run(project / "list", "msad_generate_gt.py")
    assert done.returncode == 2
    assert "msad_annotations.txt, line 1: the interval 40 16 of Fire_2 ends before it starts" in done.stderr
    assert {file: file.read_bytes() for file in (project / "list/msad/rgb/vitl").iterdir()} == before


def test_importing_a_door_does_nothing(project: Path) -> None:
    doors = sorted(path.stem for path in (project / "list").glob("*.py"))
    assert len(doors) >= 10
    done = _run(project / "list", "-c", f"import {', '.join(doors)}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
