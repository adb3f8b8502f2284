"""The documented commands of list/, run from the root and from inside list/, in a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# folder → (training videos, test videos with an anomalous one first), as folder/name, all in the tables
TREES = {
    "ucf": (
        ["Abuse/Abuse001_x264", "Normal/Normal_Videos001_x264"],
        ["Abuse/Abuse028_x264", "Normal/Normal_Videos_003_x264"],
    ),
    "xd": (
        ["Bad.Boys.1995__#00-26-51_00-27-53_label_B2-0-0", "A.Beautiful.Mind.2001__#00-01-45_00-02-50_label_A"],
        ["v=S-7rRLrxnVQ__#1_label_B4-0-0", "A.Beautiful.Mind.2001__#00-25-20_00-29-20_label_A"],
    ),
    "shang": (["vehicle/01_0014", "normal/01_002"], ["skateboard/01_0015", "normal/01_001"]),
    "msad": (["Assault/Assault_1", "Robbery/Robbery_10"], ["Assault/Assault_2", "Normal/MSAD_normal_testing_10"]),
}  # fmt: skip
SNIPPETS = {"ucf": 88, "xd": 190, "shang": 27, "msad": 14}  # of the anomalous test video, under both tail rules
ANOMALOUS = {"ucf": 75, "xd": 2585, "shang": 288, "msad": 181}  # its frames: 165-240, 0-1517 1970-3038, 86-374, 19-200


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Return a copy of the project, because the commands write to their own list/ by default."""
    root = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("rgb", "__pycache__")
    for package in ("list", "vad", "demo", "model"):
        shutil.copytree(ROOT / package, root / package, ignore=ignore)
    return root


def run(cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def embed(root: Path, videos: list[str], crops: tuple[int, ...], snippets: int) -> None:
    for video in videos:
        for crop in crops:
            path = root / "rgb" / f"{video}__{crop}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((snippets, 4), np.float16))


@pytest.mark.parametrize(
    ("folder", "inside"), [("ucf", True), ("ucf", False), ("xd", True), ("shang", True), ("msad", False)]
)
def test_documented_commands_make_lists_and_gt(project: Path, tmp_path: Path, folder: str, inside: bool) -> None:
    """The commands need only embeddings. The order of the test videos is that of the table."""
    train, test = TREES[folder]
    embed(tmp_path, train, (0, 5), 3)
    embed(tmp_path, test[:1], (5,), SNIPPETS[folder])
    normal_snippets = {"ucf": 176, "xd": 360, "shang": 47, "msad": 9}[folder]
    embed(tmp_path, test[1:], (5,), normal_snippets)
    cwd, scripts, out = (project / "list", "", "") if inside else (project, "list/", "list/")
    lists = f"{out}{folder}/rgb/vitl"
    command = [
        f"{scripts}{folder}_generate_file.py", "--base_path", str(tmp_path / "rgb"),
        "--train_save_path", f"{lists}/train.csv", "--test_save_path", f"{lists}/test.csv",
    ]  # fmt: skip
    refused = run(cwd, *command)
    assert refused.returncode == 2
    assert "test videos of" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    lists_run = run(cwd, *command, "--allow_missing")
    assert lists_run.returncode == 0, lists_run.stderr
    assert "2 training and 2 test videos (table: " in lists_run.stdout
    paths = ["--csv_path", f"{lists}/test.csv", "--save_path", f"{lists}/gt.npy"]
    gt = run(cwd, f"{scripts}{folder}_generate_gt.py", *paths)
    assert gt.returncode == 0, gt.stderr
    frames = 16 * (SNIPPETS[folder] + normal_snippets)
    assert f"2 videos, {frames:,} frames, {ANOMALOUS[folder]:,} anomalous" in gt.stdout
    output = project / "list" / folder / "rgb" / "vitl"
    rows = [row.split(",")[0] for row in (output / "train.csv").read_text().splitlines()[1:]]
    assert sorted(rows) == sorted(f"rgb/{video}__{crop}.npy" for video in train for crop in (0, 5))
    assert json.loads((output / "lists.json").read_text())["feature_root"] == str(tmp_path.resolve())
    assert len(np.load(output / "gt.npy")) == frames
    assert {file.name for file in output.iterdir()} == {"gt.json", "gt.npy", "lists.json", "test.csv", "train.csv"}


def test_ground_truth_has_the_split_of_the_lists(project: Path, tmp_path: Path) -> None:
    """The anomaly of Assault_2 starts at frame 19 in the official split, at 20 in the released one."""
    for video, snippets in (("Assault/Assault_1", 26), ("Assault/Assault_2", 14)):
        embed(tmp_path, [video], (5,), snippets)
    base = ["msad_generate_file.py", "--base_path", str(tmp_path / "rgb"), "--allow_missing"]
    assert "released split" in run(project / "list", *base, "--profile", "released").stdout
    summary = run(project / "list", "msad_generate_gt.py").stdout
    assert "(released split): 1 videos, 224 frames, 180 anomalous" in summary
    summary = run(project / "list", "msad_generate_gt.py", "--split", "official").stdout
    assert "(official split): 1 videos, 224 frames, 181 anomalous" in summary
    audit = run(project, "list/audit.py", "--dataset", "msad", "--json")
    report = json.loads(audit.stdout)
    assert (audit.returncode, report["split"], report["clean"]) == (1, "released", False)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["ucf_generate_file.py", "--base_path", "nothing/rgb"], "does not exist"),
        (["xd_generate_gt.py", "--csv_path", "nothing.csv"], "there is no such list"),
        (["generate_gt.py", "--dataset", "mine"], "unknown data set 'mine'"),
        (["shang_generate_file.py", "--test_crops", "11"], "crops are numbered 0 to 9"),
        (["audit.py", "--dataset", "xd", "--list_root", "nowhere"], "contains neither train.csv"),
    ],
)
def test_user_errors_print_one_line_and_exit_2(project: Path, command: list[str], message: str) -> None:
    done = run(project / "list", *command)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_importing_a_command_has_no_effect(project: Path) -> None:
    names = sorted(path.stem for path in (project / "list").glob("*generate*.py"))
    assert len(names) == 10
    done = run(project / "list", "-c", f"import audit, {', '.join(names)}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
