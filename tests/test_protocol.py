"""The protocol through the commands: one's own data set, the audit's exit codes, gt.npy without metadata."""

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
OWN = """
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
# name → (label, frames, anomalous frames); the first four train
VIDEOS = {
    "a": ("Normal", 40, ""), "b 1": ("Road accident", 33, ""), "ü": ("Normal", 16, ""),
    "c__3": ("Zone__2", 50, ""), "g": ("Zone__2", 35, "30-35"), "e f": ("Road accident", 64, "3-20"),
    "d": ("Normal", 48, ""),
}  # fmt: skip


def run_script(cwd: Path, script: str, *flags: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, started from another folder."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, str(ROOT / script), *map(str, flags)]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def output_of(cwd: Path, script: str, *flags: object) -> str:
    done = run_script(cwd, script, *flags)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Folder of street.toml, its videos and its table."""
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
    (tmp_path / "street.toml").write_text(OWN)
    return tmp_path


def test_every_command_takes_ones_own_data_set(own: Path, command: Callable, monkeypatch) -> None:
    data = ("--dataset", "street.toml")
    weights = ("--clip_ckpt", "untrained", "--event_ckpt", "untrained")
    extracted = output_of(own, "extracting/gen.py", *data, "--modality", "both", *weights, "--crops", "5")
    assert extracted.count("7 videos written") == 2
    assert "4 training and 3 test videos" in output_of(own, "list/generate_file.py", *data)
    # whole snippets: 2 of g, 4 of e f, 3 of d; anomalous are 30, 31 of g and 3 … 19 of e f
    assert "3 videos, 144 frames, 19 anomalous" in output_of(own, "list/generate_gt.py", *data)
    listed = [line.split("/")[-1].split("__5")[0] for line in (own / "lists" / "test.csv").read_text().splitlines()[1:]]
    starts, labels = {}, np.load(own / "lists" / "gt.npy")
    for name in listed:
        starts[name] = sum(VIDEOS[other][1] // 16 * 16 for other in starts)
    expected = {starts["g"] + 30, starts["g"] + 31, *range(starts["e f"] + 3, starts["e f"] + 20)}
    assert set(np.flatnonzero(labels)) == expected
    report = json.loads(output_of(own, "list/audit.py", *data, "--json"))
    assert report["clean"] is True
    monkeypatch.chdir(own)
    places = ("--figure_dir", own / "figure", "--device", "cpu")
    code, trained, err = command("main", *data, "--checkpoint_dir", own / "ck", *places)
    assert code == 0, err
    assert "data set street" in trained and "3 test videos" in trained and "split split" in trained
    for flags in (data, ()):  # the checkpoint remembers whose it is
        code, shown, err = command("test", *flags, "--ckpt_path", own / "ck/street.pth", *places)
        assert code == 0, err
        assert "Road accident" in shown and "3 test videos" in shown
    masked = command("test2", *data, "--ckpt_path", "ck/street.pth", *places, "--levels", 0.5)[1]
    assert "CLEAN" in masked
    written = {path.name for path in own.iterdir()}
    assert written == {"street.toml", "annotations.csv", "videos", "made", "lists", "ck", "figure"}


SCRIPTS = ["main", "test", "test2", "list/generate_file.py", "list/generate_gt.py", "list/audit.py",
           "extracting/gen.py"]  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_mistake_in_the_data_set_file_is_one_sentence(
    tmp_path: Path, command: Callable, monkeypatch, name: str
) -> None:
    (tmp_path / "street.toml").write_text(OWN.replace("window = 8", "window = 0"))
    save_released(tmp_path / "any.pth")
    more = {"test": ("--ckpt_path", "any.pth"), "extracting/gen.py": ("--modality", "both")}
    flags = ["--dataset", "street.toml", *more.get("test" if name == "test2" else name, ())]
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
    """An untrained model as the authors' file holds one: weights alone, under their names."""
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_refinement_steps=1, temporal_update="none")
    torch.save({to_released_name(k): v for k, v in model.state_dict().items()}, path)


def test_the_audit_tells_clean_findings_and_mistakes_apart(tiny, tmp_path: Path) -> None:
    """1: twelve training videos are not UCF-Crime's 1610; 2: there is nothing to read."""
    data = ("--dataset", "ucf", "--feature_root", tiny.root)
    found = run_script(tmp_path, "list/audit.py", *data, "--list_root", tiny.lists)
    assert found.returncode == 1 and not found.stderr
    assert "! training videos" in found.stdout and found.stdout.rstrip().endswith("marked !")
    wrong = run_script(tmp_path, "list/audit.py", *data, "--list_root", tmp_path / "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ") and len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["main", "test", "test2"])
def test_ground_truth_without_metadata_is_checked_by_length(
    tiny, tmp_path: Path, command: Callable, name: str
) -> None:
    gt = tiny.lists / "gt.npy"
    assert not gt.with_suffix(".json").exists()  # as the release's
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
