"""Exact resume: an interrupted or killed run ends bitwise equal to an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vad.train
from tests.vad.runs import SMALL, assert_equal_results, content_of, interrupt_run_at, options_of, set_aucs
from vad.files import InputError
from vad.train import RunFiles, train_run

ROOT = Path(__file__).resolve().parent.parent.parent
RELEASED = {"profile": "released", "nan": "refuse"}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, (0, 1, 2, 3, 4, 5, 7, 8)), ({**RELEASED, "print_steps": 4}, (2, 4, 7)),
     ({"rollback": True, "keep": "best"}, (2, 6, 8))],
)  # fmt: skip
def test_run_interrupted_at_any_step_ends_bitwise_equal(tiny, tmp_path, monkeypatch, changes, steps):
    changes = {**SMALL, **changes}
    whole = options_of(tiny, tmp_path / "whole", **changes)
    train_run(whole)
    for step in steps:
        options = options_of(tiny, tmp_path / f"interrupted{step}", **changes)
        interrupt_run_at(monkeypatch, options, step)
        torch.rand(7)  # a new process has another random state
        train_run(options)
        assert_equal_results(whole, options)


def test_state_is_saved_each_epoch_and_after_two_minutes(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    interrupt_run_at(monkeypatch, options, 5)  # SAVE_SECONDS = 0: also saved at the evaluation after step 5
    assert content_of(options)["step"] == 5
    assert content_of(options)["weights"] == "unfinished" and content_of(options)["epoch"] == 1
    other = options_of(tiny, tmp_path / "other", **SMALL)
    monkeypatch.setattr(vad.train, "SAVE_SECONDS", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(vad.train.RunLog, "record", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(other)
    assert not RunFiles.of(other).last.exists()


def test_best_newer_than_the_state_is_restored(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    set_aucs(monkeypatch, 0.6, 0.7, 0.9)
    with pytest.raises(StopIteration):  # at the fourth evaluation, after step 6
        train_run(options)
    # the state is from step 3 (AUC 0.7), the best from step 5 (0.9), which the state does not contain
    assert content_of(options, "best")["step"] == 5
    with monkeypatch.context() as patch:
        patch.setattr(vad.train, "train_step", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(options)
    best = content_of(options, "best")
    assert (best["step"], best["metrics"]) == (3, {"AUC": 0.7})
    assert len(RunFiles.of(options).log.read_text().splitlines()) == 3


def test_overwrite_deletes_all_files_of_the_old_run(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    train_run(options)
    interrupt_run_at(monkeypatch, replace(options, seed=1, overwrite=True), 0)
    files = RunFiles.of(options)
    assert not any(path.exists() for path in (files.last, files.best, files.log))


def test_finished_run_is_reused_unchanged(tiny, tmp_path, capsys):
    options = options_of(tiny, tmp_path, **SMALL)
    first = train_run(options).content
    before = RunFiles.of(options).last.read_bytes()
    assert "progress" not in content_of(options) and "optimizer" not in content_of(options)
    again = train_run(options).content
    assert "already finished, reused" in capsys.readouterr().out
    assert RunFiles.of(options).last.read_bytes() == before and again["metrics"] == first["metrics"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nu": 4.0}, r"run\.pth was trained with nu 8\.0, not 4\.0\. Set another --exp_name"),
        ({"lr": 0.1}, r"was trained with lr 0\.003, not 0\.1"),
        ({"profile": "paper"}, "was trained with temporal_update kalman, not paper"),
        ({"precision": "bf16"}, "was trained with precision fp32, not bf16"),
    ],
)
def test_run_with_other_options_is_not_resumed(tiny, tmp_path, changes, message):
    train_run(options_of(tiny, tmp_path, max_epoch=1))
    with pytest.raises(InputError, match=message):
        train_run(options_of(tiny, tmp_path, max_epoch=1, **changes))


@pytest.mark.parametrize("changes", [{"deterministic": True}, {"mask_axis": "time"}, {"ano_auc": "released"}])
def test_options_without_effect_on_weights_reuse_the_run(tiny, tmp_path, capsys, changes):
    train_run(options_of(tiny, tmp_path, max_epoch=1))
    try:
        train_run(options_of(tiny, tmp_path, max_epoch=1, **changes))
    finally:
        torch.use_deterministic_algorithms(False)
    assert "already finished, reused" in capsys.readouterr().out


def test_run_on_other_data_is_not_resumed(tiny, tmp_path):
    options = options_of(tiny, tmp_path, max_epoch=1)
    train_run(options)
    path = tiny.path("rgb", "Normal000_x264", "Normal")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="was trained with data"):
        train_run(options)


def earlier(content: dict, options) -> dict:
    """Return a checkpoint in the form of the previous version: `settings`, and `identity` for `fingerprint`."""
    recorded = content.pop("options")
    training = ("batch_size", "paired", "lr", "max_epoch", "scheduler_milestones", "scheduler_rate", "print_steps")
    excluded = ("dataset", "profile", "modality", "window", "evaluate_at", *training)
    settings = {
        "dataset": "ucfcrime", "dataset_file": None, "profile": "default", "window": 256, "typed": (),
        "switches": {name: value for name, value in recorded.items() if name not in excluded},
        "recipe": {name: recorded[name] for name in training},
    }  # fmt: skip
    data = content.pop("fingerprint")["data"]
    identity = {**settings, "typed": None, "modality": "fusion", "seed": options.seed, "data": data}
    rows = [{**row, "metrics": ("AUC",)} for row in content["rows"]]
    content.pop("form")
    return {**content, "settings": settings, "identity": identity, "rows": rows, "training": None}


def test_finished_run_of_an_earlier_version_is_reused(tiny, tmp_path, capsys):
    options = options_of(tiny, tmp_path, max_epoch=1)
    train_run(options)
    torch.save(earlier(content_of(options), options), RunFiles.of(options).last)
    train_run(options)
    assert "already finished, reused" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"was trained with nu 8\.0, not 4\.0"):
        train_run(replace(options, nu=4.0))


def test_unfinished_run_of_an_earlier_version_is_refused(tiny, tmp_path):
    options = options_of(tiny, tmp_path, max_epoch=2)
    train_run(options)
    content = {**earlier(content_of(options), options), "epoch": 1, "training": {"steps": 0}}
    torch.save(content, RunFiles.of(options).last)
    with pytest.raises(InputError, match="unfinished run of an earlier version"):
        train_run(options)


def test_killed_runs_end_bitwise_equal(tmp_path):
    """Kill a run three times at random instants. tests/tools/kill_training.py can do more."""
    script = ROOT / "tests" / "tools" / "kill_training.py"
    result = subprocess.run(
        [sys.executable, script, "--kills", "3", "--seed", "1", "--folder", tmp_path],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tally = json.loads(result.stdout.splitlines()[-1])
    assert tally["kills"] == 3 and tally["equal"] == tally["runs"] >= 1
