"""Training runs on the tiny data set, for the tests of the loop, of resuming and of several processes."""

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

# 3 batches of 2 + 2 an epoch, evaluated after the second and the third
SMALL = {"batch_size": 2, "print_steps": 8, "max_epoch": 3}


def options_of(tiny: Tiny, folder: Path, **changes: object) -> Options:
    """Small values for the made-up UCF-Crime."""
    where = {"feature_root": str(tiny.root), "list_root": str(tiny.lists), "checkpoint_dir": str(folder)}
    small = {"batch_size": 4, "lr": 0.003, "num_refinement_steps": 1, "max_epoch": 4, "test_crops": (5,)}
    return resolve({"dataset": "ucfcrime", "exp_name": "run", "device": "cpu", **where, **small, **changes})


def content_of(options: Options, which: str = "last") -> dict[str, Any]:
    """What <exp_name>.pth or <exp_name>_best.pth holds."""
    return read_checkpoint(getattr(RunFiles.of(options), which))


def assert_equal_ends(one: Options, other: Options) -> None:
    """Log and both checkpoints of two finished runs are equal, bit for bit."""
    a, b = RunFiles.of(one), RunFiles.of(other)
    assert a.log.read_text() == b.log.read_text()
    for which in ("last", "best"):
        x, y = content_of(one, which), content_of(other, which)
        assert (x["step"], x["weights"], x["metrics"]) == (y["step"], y["weights"], y["metrics"])
        assert all(torch.equal(tensor, y["model"][name]) for name, tensor in x["model"].items())


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, deed: Callable[[], object]) -> None:
    """Do something in place of one training step."""
    plain = vad.train.train_step

    def disturbed(*given: Any) -> list[float]:
        if given[5] == step:
            deed()
        return plain(*given)

    monkeypatch.setattr(vad.train, "train_step", disturbed)


def scripted(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Evaluations that report these AUCs, one after the other."""
    left = iter(values)
    monkeypatch.setattr(vad.train, "evaluate", lambda *given: {"AUC": next(left)})


def interrupt() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def stopped_at(monkeypatch: pytest.MonkeyPatch, options: Options, step: int) -> None:
    """Train until Ctrl-C arrives in a step; the state is written at every evaluation."""
    with monkeypatch.context() as patch:
        patch.setattr(vad.train, "SAVE_SECONDS", 0)
        at_step(patch, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(options)
