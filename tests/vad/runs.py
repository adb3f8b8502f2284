"""Helpers for tests that train on the tiny data set: the loop, resume, and distributed training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vad.train
from model import read_checkpoint
from tests.conftest import Tiny
from vad.options import Options, resolve
from vad.train import RunFiles, train_run

# 3 batches of 2 + 2 videos per epoch, evaluated after the second and the third
SMALL = {"batch_size": 2, "print_steps": 8, "max_epoch": 3}


def options_of(tiny: Tiny, folder: Path, **changes: object) -> Options:
    """Return options of a short run on the tiny data set."""
    folders = {"feature_root": str(tiny.root), "list_root": str(tiny.lists), "checkpoint_dir": str(folder)}
    small = {"batch_size": 4, "lr": 0.003, "max_epoch": 4, "test_crops": (5,)}
    if changes.get("method") != "avadclip":
        small["num_refinement_steps"] = 1
    return resolve({"dataset": "ucfcrime", "exp_name": "run", "device": "cpu", **folders, **small, **changes})


def content_of(options: Options, which: str = "last") -> dict[str, Any]:
    """Read <exp_name>.pth or <exp_name>_best.pth."""
    return read_checkpoint(getattr(RunFiles.of(options), which))


def assert_equal_results(one: Options, other: Options) -> None:
    """Assert that log and checkpoints of two finished runs are bitwise equal."""
    a, b = RunFiles.of(one), RunFiles.of(other)
    assert a.log.read_text() == b.log.read_text()
    for which in ("last", "best"):
        x, y = content_of(one, which), content_of(other, which)
        assert (x["step"], x["weights"], x["metrics"]) == (y["step"], y["weights"], y["metrics"])
        assert all(torch.equal(tensor, y["model"][name]) for name, tensor in x["model"].items())


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], object]) -> None:
    """Run an action before one training step."""
    original = vad.train.train_step

    def patched(*args: Any) -> list[float]:
        if args[5] == step:
            action()
        return original(*args)

    monkeypatch.setattr(vad.train, "train_step", patched)


def set_aucs(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let successive evaluations return these AUCs."""
    aucs = iter(values)
    monkeypatch.setattr(vad.train, "evaluate", lambda *args: {"AUC": next(aucs)})


def interrupt() -> None:
    """Simulate Ctrl-C."""
    raise KeyboardInterrupt


def interrupt_run_at(monkeypatch: pytest.MonkeyPatch, options: Options, step: int) -> None:
    """Train until Ctrl-C before a step. The state is saved at every evaluation."""
    with monkeypatch.context() as patch:
        patch.setattr(vad.train, "SAVE_SECONDS", 0)
        at_step(patch, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(options)
