"""The commands end to end: a user's data set, the audit's exit codes, gt.npy without metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model import IEFVAD
from model.checkpoint import to_released_name

ROOT = Path(__file__).resolve().parent.parent
DATASET = """
name = "street"
normal = "Normal"
classes = ["Road accident", "Zone__2"]
encoder = "tiny"
window = 8
[folders]
embeddings = "made"
[training]
batch_size = 1
max_epoch = 1
print_steps = 4
"""
# name → (label, frames, anomalous frames); the first four are training videos
VIDEOS = {
    "a": ("Normal", 40, ""), "b 1": ("Road accident", 33, ""), "ü": ("Normal", 16, ""),
    "c__3": ("Zone__2", 50, ""), "g": ("Zone__2", 35, "30-35"), "e f": ("Road accident", 64, "3-20"),
    "d": ("Normal", 48, ""),
}  # fmt: skip


def run_script(cwd: Path, script: str, *flags: object) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process from another folder."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, str(ROOT / script), *map(str, flags)]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def output_of(cwd: Path, script: str, *flags: object) -> str:
    done = run_script(cwd, script, *flags)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Return a folder with street.toml, its videos and its annotations."""
    rng = np.random.default_rng(0)
    table = ["video,label,split,intervals"]
    for number, (name, (label, frames, intervals)) in enumerate(VIDEOS.items()):
        path = tmp_path / "videos" / label / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
        for _ in range(frames):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
        writer.release()
        table.append(f"{name},{label},{'train' if number < 4 else 'test'},{intervals}")
    (tmp_path / "annotations.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    (tmp_path / "street.toml").write_text(DATASET)
    return tmp_path


def test_every_command_accepts_a_users_data_set(street: Path, command: Callable, monkeypatch) -> None:
    data = ("--dataset", "street.toml")
    weights = ("--clip_ckpt", "untrained", "--event_ckpt", "untrained")
    extracted = output_of(street, "extracting/gen.py", *data, "--modality", "both", *weights, "--crops", "5")
    assert extracted.count("7 videos written") == 2
    assert "4 training and 3 test videos" in output_of(street, "list/generate_file.py", *data)
    # whole snippets: 2 of g, 4 of "e f", 3 of d; anomalous frames: 30, 31 of g and 3 … 19 of "e f"
    assert "3 videos, 144 frames, 19 anomalous" in output_of(street, "list/generate_gt.py", *data)
    lines = (street / "lists" / "test.csv").read_text().splitlines()[1:]
    listed = [line.split("/")[-1].split("__5")[0] for line in lines]
    starts, labels = {}, np.load(street / "lists" / "gt.npy")
    for name in listed:
        starts[name] = sum(VIDEOS[other][1] // 16 * 16 for other in starts)
    expected = {starts["g"] + 30, starts["g"] + 31, *range(starts["e f"] + 3, starts["e f"] + 20)}
    assert set(np.flatnonzero(labels)) == expected
    report = json.loads(output_of(street, "list/audit.py", *data, "--json"))
    assert report["clean"] is True
    monkeypatch.chdir(street)
    places = ("--figure_dir", street / "figure", "--device", "cpu")
    code, trained, err = command("main", *data, "--checkpoint_dir", street / "ck", *places)
    assert code == 0, err
    assert "data set street" in trained and "3 test videos" in trained and "split split" in trained
    for flags in (data, ()):  # the checkpoint stores its data set
        code, shown, err = command("test", *flags, "--ckpt_path", street / "ck/street.pth", *places)
        assert code == 0, err
        assert "Road accident" in shown and "3 test videos" in shown
    masked = command("test2", *data, "--ckpt_path", "ck/street.pth", *places, "--levels", 0.5)[1]
    assert "CLEAN" in masked
    written = {path.name for path in street.iterdir()}
    assert written == {"street.toml", "annotations.csv", "videos", "made", "lists", "ck", "figure"}


SCRIPTS = ["main", "test", "test2", "list/generate_file.py", "list/generate_gt.py", "list/audit.py",
           "extracting/gen.py"]  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_mistake_in_dataset_file_is_reported_in_one_line(
    tmp_path: Path, command: Callable, monkeypatch, name: str
) -> None:
    (tmp_path / "street.toml").write_text(DATASET.replace("window = 8", "window = 0"))
    save_released(tmp_path / "any.pth")
    required = {"test": ("--ckpt_path", "any.pth"), "extracting/gen.py": ("--modality", "both")}
    flags = ["--dataset", "street.toml", *required.get("test" if name == "test2" else name, ())]
    if "/" in name:
        done = run_script(tmp_path, name, *flags)
        code, err = done.returncode, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        code, _, err = command(name, *flags)
    assert code == 2
    assert err == f"error: {tmp_path / 'street.toml'}: window is 0. It must be positive.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"street.toml", "any.pth"}


def save_released(path: Path) -> None:
    """Save an untrained model in the authors' format: only weights, under their names."""
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_refinement_steps=1, temporal_update="none")
    torch.save({to_released_name(k): v for k, v in model.state_dict().items()}, path)


def test_audit_exit_codes_separate_findings_and_errors(tiny, tmp_path: Path) -> None:
    """Exit code 1: there are 12 training videos instead of 1610. Exit code 2: there are no lists."""
    data = ("--dataset", "ucf", "--feature_root", tiny.root)
    findings = run_script(tmp_path, "list/audit.py", *data, "--list_root", tiny.lists)
    assert findings.returncode == 1 and not findings.stderr
    assert "! training videos" in findings.stdout and findings.stdout.rstrip().endswith("marked with !")
    error = run_script(tmp_path, "list/audit.py", *data, "--list_root", tmp_path / "nowhere")
    assert (error.returncode, error.stdout) == (2, "")
    assert error.stderr.startswith("error: ") and len(error.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["main", "test", "test2"])
def test_ground_truth_without_metadata_is_checked_by_length(
    tiny, tmp_path: Path, command: Callable, name: str
) -> None:
    gt = tiny.lists / "gt.npy"
    assert not gt.with_suffix(".json").exists()  # like the released gt.npy
    save_released(tmp_path / "ucf.pth")
    flags = [*tiny.flags, "--figure_dir", tmp_path / "figure", "--device", "cpu"]
    quick = ["--max_epoch", 1, "--batch_size", 6, "--num_refinement_steps", 1]
    flags += {
        "main": [*quick, "--checkpoint_dir", tmp_path / "ck"],
        "test": ["--ckpt_path", tmp_path / "ucf.pth"],
        "test2": ["--ckpt_path", tmp_path / "ucf.pth", "--levels", 0.5],
    }[name]
    labels = np.load(gt)
    np.save(gt, labels[:-16])
    code, _, err = command(name, *flags)
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert f"{len(labels) - 16} frames, but the 8 test videos have {len(labels)}" in last
    assert not (tmp_path / "figure").exists() and not (tmp_path / "ck").exists()
    np.save(gt, labels)
    assert command(name, *flags)[0] == 0
