"""Resuming: a run that was stopped or killed ends as an undisturbed one, bit for bit."""

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
from tests.vad.runs import SMALL, assert_equal_ends, content_of, options_of, scripted, stopped_at
from vad.files import InputError
from vad.train import RunFiles, train_run

ROOT = Path(__file__).resolve().parent.parent.parent
RELEASED = {"profile": "released", "nan": "refuse"}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, (0, 1, 2, 3, 4, 5, 7, 8)), ({**RELEASED, "print_steps": 4}, (2, 4, 7)),
     ({"rollback": True, "keep": "best"}, (2, 6, 8))],
)  # fmt: skip
def test_a_run_stopped_at_any_step_ends_as_an_undisturbed_one(tiny, tmp_path, monkeypatch, changes, steps):
    changes = {**SMALL, **changes}
    whole = options_of(tiny, tmp_path / "whole", **changes)
    train_run(whole)
    for step in steps:
        options = options_of(tiny, tmp_path / f"stopped{step}", **changes)
        stopped_at(monkeypatch, options, step)
        torch.rand(7)  # a new process has another random state
        train_run(options)
        assert_equal_ends(whole, options)


def test_a_state_is_written_each_epoch_and_after_two_minutes(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    stopped_at(monkeypatch, options, 5)  # with no time between saves: also at the evaluation after step 5
    assert content_of(options)["step"] == 5
    assert content_of(options)["weights"] == "unfinished" and content_of(options)["epoch"] == 1
    other = options_of(tiny, tmp_path / "other", **SMALL)
    monkeypatch.setattr(vad.train, "SAVE_SECONDS", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(vad.train.RunLog, "record", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(other)
    assert not RunFiles.of(other).last.exists()


def test_a_best_that_is_newer_than_the_state_is_put_back(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    scripted(monkeypatch, 0.6, 0.7, 0.9)
    with pytest.raises(StopIteration):  # at the fourth evaluation, after step 6
        train_run(options)
    # the state is of step 3 (AUC 0.7), the best of step 5 (0.9), which no row of that state knows
    assert content_of(options, "best")["step"] == 5
    with monkeypatch.context() as patch:
        patch.setattr(vad.train, "train_step", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_run(options)
    best = content_of(options, "best")
    assert (best["step"], best["metrics"]) == (3, {"AUC": 0.7})
    assert len(RunFiles.of(options).log.read_text().splitlines()) == 3


def test_a_replaced_run_leaves_nothing_beside_anothers_best(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    train_run(options)
    stopped_at(monkeypatch, replace(options, seed=1, overwrite=True), 0)
    files = RunFiles.of(options)
    assert not any(path.exists() for path in (files.last, files.best, files.log))


def test_a_finished_run_is_reused_as_it_is(tiny, tmp_path, capsys):
    options = options_of(tiny, tmp_path, **SMALL)
    first = train_run(options).content
    before = RunFiles.of(options).last.read_bytes()
    assert "progress" not in content_of(options) and "optimizer" not in content_of(options)
    again = train_run(options).content
    assert "finished already, reused" in capsys.readouterr().out
    assert RunFiles.of(options).last.read_bytes() == before and again["metrics"] == first["metrics"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nu": 4.0}, r"run\.pth was trained with nu 8\.0, not 4\.0; give another --exp_name"),
        ({"lr": 0.1}, r"was trained with lr 0\.003, not 0\.1"),
        ({"profile": "paper"}, "was trained with temporal_update kalman, not paper"),
        ({"precision": "bf16"}, "was trained with precision fp32, not bf16"),
    ],
)
def test_a_run_is_not_resumed_with_other_options(tiny, tmp_path, changes, sentence):
    train_run(options_of(tiny, tmp_path, max_epoch=1))
    with pytest.raises(InputError, match=sentence):
        train_run(options_of(tiny, tmp_path, max_epoch=1, **changes))


@pytest.mark.parametrize("changes", [{"deterministic": True}, {"mask_axis": "time"}, {"ano_auc": "released"}])
def test_options_that_no_weight_depends_on_do_not_refuse_a_run(tiny, tmp_path, capsys, changes):
    train_run(options_of(tiny, tmp_path, max_epoch=1))
    try:
        train_run(options_of(tiny, tmp_path, max_epoch=1, **changes))
    finally:
        torch.use_deterministic_algorithms(False)
    assert "finished already, reused" in capsys.readouterr().out


def test_a_run_is_not_resumed_on_other_data(tiny, tmp_path):
    options = options_of(tiny, tmp_path, max_epoch=1)
    train_run(options)
    path = tiny.path("rgb", "Normal000_x264", "Normal")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="was trained with data"):
        train_run(options)


def earlier(content: dict, options) -> dict:
    """A checkpoint as the version before wrote it: settings in three parts, an identity in place of a fingerprint."""
    recorded = content.pop("options")
    training = ("batch_size", "paired", "lr", "max_epoch", "scheduler_milestones", "scheduler_rate", "print_steps")
    aside = ("dataset", "profile", "modality", "window", "evaluate_at", *training)
    settings = {
        "dataset": "ucfcrime", "dataset_file": None, "profile": "default", "window": 256, "typed": (),
        "switches": {name: value for name, value in recorded.items() if name not in aside},
        "recipe": {name: recorded[name] for name in training},
    }  # fmt: skip
    data = content.pop("fingerprint")["data"]
    identity = {**settings, "typed": None, "modality": "fusion", "seed": options.seed, "data": data}
    rows = [{**row, "metrics": ("AUC",)} for row in content["rows"]]
    content.pop("form")
    return {**content, "settings": settings, "identity": identity, "rows": rows, "training": None}


def test_a_finished_run_of_an_earlier_version_is_reused(tiny, tmp_path, capsys):
    options = options_of(tiny, tmp_path, max_epoch=1)
    train_run(options)
    torch.save(earlier(content_of(options), options), RunFiles.of(options).last)
    train_run(options)
    assert "finished already, reused" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"was trained with nu 8\.0, not 4\.0"):
        train_run(replace(options, nu=4.0))


def test_an_unfinished_run_of_an_earlier_version_is_refused(tiny, tmp_path):
    options = options_of(tiny, tmp_path, max_epoch=2)
    train_run(options)
    content = {**earlier(content_of(options), options), "epoch": 1, "training": {"steps": 0}}
    torch.save(content, RunFiles.of(options).last)
    with pytest.raises(InputError, match="unfinished run of an earlier version"):
        train_run(options)


def test_killed_runs_end_in_the_same_bits(tmp_path):
    """Three kill −9 at random instants; tests/tools/kill_training.py makes more of them."""
    script = ROOT / "tests" / "tools" / "kill_training.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "3", "--seed", "1", "--folder", tmp_path],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout.splitlines()[-1])
    assert tally["kills"] == 3 and tally["equal"] == tally["runs"] >= 1
