"""The protocol through the doors: one's own data set in all of them, the audit's exit codes, gt.npy without a note."""

from __future__ import annotations

import importlib.util
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
from vad.errors import run_door

ROOT = Path(__file__).resolve().parent.parent
OWN = """
name = "street"
normal = "Normal"
classes = ["Road accident", "Zone__2"]
encoder = "tiny"
window = 8
[folders]
embeddings = "made"
[annotation]
file = "annotations.txt"
train_list = "train.txt"
test_list = "test.txt"
[training]
batch_size = 1
max_epoch = 1
print_steps = 4
"""
# name → (label, frames); the first four train
VIDEOS = {
    "a": ("Normal", 40), "b 1": ("Road accident", 33), "ü": ("Normal", 16), "c__3": ("Zone__2", 50),
    "d": ("Normal", 48), "e f": ("Road accident", 64), "g": ("Zone__2", 35),
}  # fmt: skip


def _run(cwd: Path, door: str, *flags: object) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / door), *map(str, flags)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def door(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs a root door in this process, where torch is imported already; returns exit code, stdout and stderr."""

    def run(name: str, *flags: object) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f"protocol_{Path(name).stem}", ROOT / name)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_door(module.main, expected=(module.CheckpointError, module.ConfigError))
        return stopped.value.code, *capsys.readouterr()

    return run


def _good(cwd: Path, door: str, *flags: object) -> str:
    done = _run(cwd, door, *flags)
    assert done.returncode == 0, f"{door}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Folder of street.toml, its videos, lists and annotation."""
    rng = np.random.default_rng(0)
    for name, (label, frames) in VIDEOS.items():
        path = tmp_path / "videos" / label / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
        for _ in range(frames):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
        writer.release()
    names = [f"{label}/{name}.mp4\n" for name, (label, _) in VIDEOS.items()]
    (tmp_path / "train.txt").write_text("".join(names[:4]), encoding="utf-8")
    (tmp_path / "test.txt").write_text("".join(reversed(names[4:])), encoding="utf-8")
    annotation = "d.mp4\tNormal\t-1\t-1\ne f.mp4\tRoad accident\t3\t20\ng.mp4\tZone__2\t30\t40\n"
    (tmp_path / "annotations.txt").write_text(annotation)
    (tmp_path / "street.toml").write_text(OWN)
    return tmp_path


def test_every_door_takes_ones_own_data_set(own: Path, door, monkeypatch) -> None:
    data = ("--dataset", "street.toml")
    weights = ("--clip_ckpt", "untrained", "--event_ckpt", "untrained")
    extracted = _good(own, "extracting/gen.py", *data, "--modality", "both", *weights, "--crops", "5")
    assert extracted.count("7 videos written") == 2
    assert "4 training and 3 test videos" in _good(own, "list/generate_file.py", *data)
    assert "3 videos, 144 frames, 19 anomalous" in _good(own, "list/generate_gt.py", *data)
    # the order of the list: g (35 frames, two snippets), e f, d; an interval is cut at the last whole snippet
    truth = np.load(own / "lists" / "gt.npy")
    assert np.flatnonzero(truth).tolist() == [30, 31, *range(32 + 3, 32 + 20)]
    report = json.loads(_good(own, "list/audit.py", *data, "--json"))
    assert report["clean"] is True
    assert {"frames: 3 test videos, whole tail", "frames: 3 test videos, released tail"} <= {
        row["check"] for row in report["checks"]
    }
    places = ("--checkpoint_dir", own / "ck", "--figure_dir", own / "figure")
    monkeypatch.chdir(own)
    code, trained, said = door("main.py", *data, *places)
    assert code == 0, said
    assert "data set street" in trained and "4 training samples, 3 test videos, width 64" in trained
    for flags in (data, ()):  # the checkpoint remembers whose it is
        code, checked, _ = door("test.py", *flags, "--ckpt_path", own / "ck/street.pth", *places[2:], "--timelines", 0)
        assert code == 0 and "Road accident" in checked and "3 test videos" in checked
    assert "CLEAN" in door("test2.py", *data, "--ckpt_path", "ck/street.pth", *places[2:], "--levels", 0.5)[1]
    assert {path.name for path in own.iterdir()} == {
        "street.toml", "train.txt", "test.txt", "annotations.txt", "videos", "made", "lists", "ck", "figure",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["main.py", "test.py", "test2.py", "list/generate_file.py", "list/generate_gt.py", "list/audit.py",
             "extracting/gen.py"],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_sentence_at_every_door(tmp_path: Path, door, monkeypatch, name: str) -> None:
    (tmp_path / "street.toml").write_text(OWN.replace("window = 8", "window = 0"))
    torch.save({to_released_name(k): v for k, v in IEFVAD(embed_dim=16, temporal_update="none").state_dict().items()},
               tmp_path / "any.pth")  # fmt: skip
    needed = {"test.py": ("--ckpt_path", "any.pth"), "extracting/gen.py": ("--modality", "both")}
    needed["test2.py"] = needed["test.py"]
    flags = ["--dataset", "street.toml", *needed.get(name, ())]
    if "/" in name:
        done = _run(tmp_path, name, *flags)
        code, said = done.returncode, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        code, _, said = door(name, *flags)
    assert code == 2
    assert said == "error: street.toml: window is 0; it must be positive\n"
    assert {path.name for path in tmp_path.iterdir()} == {"street.toml", "any.pth"}


def test_the_audit_tells_clean_findings_and_mistakes_apart(tiny, tmp_path: Path) -> None:
    data = ("--dataset", "ucf", "--feature_root", tiny.root)
    found = _run(tmp_path, "list/audit.py", *data, "--list_root", tiny.lists)
    assert found.returncode == 1  # twelve training videos are not UCF-Crime's 1610
    assert "! training videos" in found.stdout and found.stdout.rstrip().endswith("marked !")
    assert not found.stderr
    wrong = _run(tmp_path, "list/audit.py", *data, "--list_root", tmp_path / "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: --list_root") and len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["main.py", "test.py", "test2.py"])
def test_a_ground_truth_without_a_note_is_checked_by_its_length(tiny, tmp_path: Path, door, name: str) -> None:
    gt = tiny.lists / "gt.npy"
    assert not gt.with_suffix(".json").exists()  # as the release's
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_refinement_steps=1, temporal_update="none")
    torch.save({to_released_name(k): v for k, v in model.state_dict().items()}, tmp_path / "ucf.pth")
    flags = [*tiny.flags, "--figure_dir", tmp_path / "figure"]
    if name == "main.py":
        flags += ["--max_epoch", 1, "--batch_size", 6, "--num_refinement_steps", 1, "--checkpoint_dir", tmp_path / "ck"]
    else:
        flags += ["--ckpt_path", tmp_path / "ucf.pth"]
        flags += ["--timelines", 0] if name == "test.py" else ["--levels", 0.5]
    truth = np.load(gt)
    np.save(gt, truth[:-16])
    code, _, said = door(name, *flags)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert f"{len(truth) - 16} frames, but the 8 test videos have {len(truth)}" in last
    assert not (tmp_path / "figure").exists() and not (tmp_path / "ck").exists()
    np.save(gt, truth)
    assert door(name, *flags)[0] == 0
