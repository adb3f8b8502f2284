"""How a run computes and what is recorded of it: precision, determinism, seeds, versions, curves."""

from __future__ import annotations

import argparse
import builtins
import os
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from model import read_checkpoint
from tests.vad.training_runs import CPU, SMALL, make_run
from vad.computing import Computing, add_computing_flags, start_computing
from vad.data import TrainingBatches, TrainingWindows
from vad.device import pick_device
from vad.errors import InputError
from vad.repeatable import code_version, command, make_deterministic, seed_everything, seed_step, versions
from vad.run import Saving
from vad.training import step, train
from vad.training_log import Curves


def flags(*typed: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_computing_flags(parser)
    return parser.parse_args(typed)


def first_step(run) -> tuple[dict[str, float], list[torch.Tensor]]:
    values, _ = step(run, next(iter(run.batches.epoch(0))))
    return values, [parameter.grad for parameter in run.model.parameters()]


def test_bf16_changes_the_forward_pass_only_and_by_its_rounding(tiny, tmp_path):
    plain, gradients = first_step(make_run(tiny, tmp_path, "--dropout", "0"))
    half = make_run(tiny, tmp_path, "--dropout", "0", computing=Computing(CPU.device, precision="bf16"))
    values, rounded = first_step(half)
    # eight bits of mantissa: a relative error of 2^-9 a number, of some ten roundings
    assert plain["total"] != values["total"] and values["total"] == pytest.approx(plain["total"], rel=0.02)
    for exact, near in zip(gradients, rounded, strict=True):
        assert near.dtype == torch.float32
        assert torch.linalg.norm(near - exact) <= 0.05 * torch.linalg.norm(exact) + 1e-4
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_the_fused_optimiser_agrees_with_the_plain_one_and_repeats_itself(tiny, tmp_path):
    ends = []
    for fused in (True, True, False):
        run = make_run(tiny, tmp_path / str(len(ends)), *SMALL, "--dropout", "0")
        assert run.optimizer.defaults["fused"] is True
        if not fused:
            run.optimizer = torch.optim.AdamW(run.model.parameters(), lr=run.settings.recipe.lr, fused=False)
        first_step(run)
        ends.append(run.model.state_dict())
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name])
        assert torch.allclose(tensor, ends[2][name], rtol=0, atol=1e-7), name


def test_a_step_draws_the_same_whatever_was_drawn_before_and_no_two_steps_alike():
    def draw(*which: int) -> list[float]:
        seed_step(*which)
        return torch.rand(4).tolist()

    first = draw(0, 5)
    torch.rand(100)
    assert draw(0, 5) == first
    others = [draw(*which) for which in ((0, 6), (1, 5), (5, 0), (0, 5, 1), (-1, 5))]
    assert first not in others and len({tuple(o) for o in others}) == len(others)


def test_a_seed_fixes_every_generator():
    drawn = []
    for _ in range(2):
        seed_everything(3)
        drawn.append((torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()))
    assert drawn[0] == drawn[1]


def test_deterministic_kernels_are_asked_for(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # what was there is put back after the test
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
        torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.parametrize("name", ["meta", "cuda:99", "gpu", "xpu:3"])
def test_a_device_that_cannot_compute_is_one_sentence(name):
    with pytest.raises(InputError, match=rf"--device {name} cannot be used here \(.*\); try auto, cpu or cuda"):
        pick_device(name)


def test_without_torchrun_a_run_is_alone():
    with start_computing(flags("--device", "cpu", "--precision", "bf16")) as computing:
        assert computing.ranks.world == 1 and computing.describe() == "cpu, bf16"
        model = torch.nn.Linear(2, 2)
        assert computing.prepare(model) is model


def test_memory_is_page_locked_for_a_run_on_a_gpu_only(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # there is one, and it is full: the run is on the CPU
    run = make_run(tiny, tmp_path, *SMALL)
    whole = [batch.videos for batch in run.batches.epoch(0)]
    run.batches.data = cached(run, tmp_path)
    assert [batch.videos for batch in run.batches.epoch(0)] == whole
    locked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: locked.append(x.dtype) or x)
    batch = next(iter(run.batches.epoch(0)))
    same = pin_memory(batch)  # what a DataLoader calls
    assert locked == [torch.float32, torch.float32, torch.int64, torch.float32] and same.videos == batch.videos


def cached(run, folder) -> TrainingWindows:
    """The windows of a run with a cache."""
    return TrainingWindows(run.batches.data.samples, window=32, nan="refuse", width=16, cache=folder / "windows")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (lambda: Saving(steps=-1), "--save_steps must be 0 .* got -1"),
        (lambda: Saving(minutes=float("nan")), "--save_minutes must be 0 .* got nan"),
    ],
)
def test_a_saving_interval_that_makes_no_sense_is_refused(typed, sentence):
    with pytest.raises(InputError, match=sentence):
        typed()


def test_workers_below_zero_are_refused_and_a_negative_seed_is_a_seed(tiny, tmp_path):
    data = make_run(tiny, tmp_path, *SMALL).batches.data
    with pytest.raises(InputError, match="--workers must be 0 or more; got -1"):
        TrainingBatches(data, 2, True, 0, workers=-1)
    orders = [str(TrainingBatches(data, 2, True, seed).order(0)) for seed in (-2, -1, 0, 1, 2)]
    assert len(set(orders)) == 5
    train(make_run(tiny, tmp_path / "negative", *SMALL, seed=-1))


def test_a_checkpoint_says_how_to_make_it_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/main.py", "--exp_name", "a b"])
    assert command() == "main.py --exp_name 'a b'"
    assert set(versions()) == {"code", "python", "torch", "numpy"} and versions()["torch"] == torch.__version__
    assert code_version().startswith("1.")


def test_the_state_holds_what_the_run_says_about_itself(tiny, tmp_path):
    run = make_run(tiny, tmp_path, "--max_epoch", "1")
    run.about = {"command": "main.py", "versions": versions()}
    train(run)
    for path in (run.files.last, run.files.best):
        content = read_checkpoint(path)
        assert content["command"] == "main.py" and content["versions"]["numpy"] == np.__version__
        assert content["computing"] == "cpu, fp32" and content["identity"]["seed"] == 0


def test_curves_are_drawn_while_a_run_trains_but_not_all_the_time(tiny, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    drawn = []

    def draw(log, place, title):
        clock.now += 2.0  # seconds that a picture takes
        drawn.append(len(log))

    monkeypatch.setattr("vad.training_log.draw_training", draw)
    monkeypatch.setattr("vad.training_log.time.monotonic", lambda: clock.now)
    curves, run = Curves(tmp_path, "a"), make_run(tiny, tmp_path, *SMALL, evaluations=[0.5] * 6)

    def show(run):
        curves(run)
        clock.now += 15.0  # seconds between evaluations

    run.show = show
    train(run)
    # two seconds may be spent in forty: at once, then 45 s later, after three more evaluations
    assert drawn == [1, 4]


def test_a_picture_of_the_curves_is_there_after_the_first_evaluation(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL, evaluations=[0.5] * 6)
    seen = []
    curves = Curves(tmp_path / "figure", "a")
    run.show = lambda run: (curves(run), seen.append((tmp_path / "figure" / "training.png").stat().st_size))
    train(run)
    assert len(seen) == 6 and seen[0] > 10_000


def test_tensorboard_is_one_sentence_where_it_is_not_installed(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] == "tensorboard":
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in [n for n in sys.modules if n.split(".")[0] == "tensorboard" or n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"--tensorboard needs .* `pip install tensorboard`"):
        Curves(tmp_path, "a", tensorboard=True)


def test_tensorboard_gets_every_row_once(tiny, tmp_path, monkeypatch):
    written, made = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

        close = flush

    monkeypatch.setattr(Curves, "_module", staticmethod(lambda: SimpleNamespace(SummaryWriter=Writer)))
    run = make_run(tiny, tmp_path, *SMALL, evaluations=[0.5] * 6)
    run.show = curves = Curves(tmp_path, "a", tensorboard=True)
    train(run)
    curves.close()
    assert made == [(str(tmp_path / "tensorboard"), 2)]
    for name in ("loss/total", "loss/kl_event", "test set/AUC", "learning rate"):
        assert [step for n, step in written if n == name] == [2, 3, 5, 6, 8, 9]
