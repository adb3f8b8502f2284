"""Precision, determinism, seeds, versions, and distributed training."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vad.train
from model import LossTerms
from tests.vad.runs import content_of, options_of
from vad.files import InputError
from vad.runtime import (
    Runtime,
    _local_device,
    code_version,
    command_line,
    make_deterministic,
    pick_device,
    seed_everything,
    seed_step,
    start,
    versions,
)
from vad.train import train_run

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = torch.device("cpu")


def first_step(monkeypatch, options) -> tuple[list[float], list[torch.Tensor]]:
    """Return losses and gradients of the first training step."""
    recorded, original = [], vad.train.train_step

    def record(model, *args):
        values = original(model, *args)
        recorded.append((values, [p.grad.clone() for p in model.parameters()]))
        return values

    with monkeypatch.context() as patch:
        patch.setattr(vad.train, "train_step", record)
        train_run(options)
    return recorded[0]


def test_bf16_changes_the_forward_pass_only_by_rounding(tiny, tmp_path, monkeypatch):
    changes = {"dropout": 0.0, "max_epoch": 1}
    exact_values, gradients = first_step(monkeypatch, options_of(tiny, tmp_path / "a", **changes))
    half = options_of(tiny, tmp_path / "b", precision="bf16", **changes)
    values, rounded_gradients = first_step(monkeypatch, half)
    # eight mantissa bits: a relative error of 2^-9 per rounding, about ten roundings
    assert exact_values[0] != values[0] and values[0] == pytest.approx(exact_values[0], rel=0.02)
    for gradient, rounded_gradient in zip(gradients, rounded_gradients, strict=True):
        assert rounded_gradient.dtype == torch.float32
        assert torch.linalg.norm(rounded_gradient - gradient) <= 0.05 * torch.linalg.norm(gradient) + 1e-4
    assert {tensor.dtype for tensor in content_of(half)["model"].values()} == {torch.float32}


def test_fused_optimiser_equals_the_plain_one(tiny, tmp_path, monkeypatch):
    states, adamw = [], torch.optim.AdamW
    for fused in (True, False):
        monkeypatch.setattr(torch.optim, "AdamW", lambda params, lr, fused, use=fused: adamw(params, lr=lr, fused=use))
        options = options_of(tiny, tmp_path / str(fused), dropout=0.0, max_epoch=1)
        train_run(options)
        states.append(content_of(options)["model"])
    assert all(torch.allclose(tensor, states[1][name], rtol=0, atol=1e-7) for name, tensor in states[0].items())


def test_step_seed_is_independent_of_earlier_draws():
    def draw(*seed: int) -> list[float]:
        seed_step(*seed)
        return torch.rand(4).tolist()

    first = draw(0, 5)
    torch.rand(100)
    assert draw(0, 5) == first
    others = [draw(*seed) for seed in ((0, 6), (1, 5), (5, 0), (0, 5, 1), (-1, 5))]
    assert first not in others and len({tuple(other) for other in others}) == len(others)


def test_seed_everything_seeds_every_generator():
    numbers = []
    for _ in range(2):
        seed_everything(3)
        numbers.append((torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()))
    assert numbers[0] == numbers[1]


def test_make_deterministic_selects_deterministic_kernels(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # monkeypatch restores the value after the test
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
def test_unusable_device_is_refused(name):
    with pytest.raises(InputError, match=rf"--device {name} cannot be used here \(.*\)\. Use auto, cpu or cuda"):
        pick_device(name)


def test_collective_methods_do_nothing_with_one_process(tiny, tmp_path):
    with start(options_of(tiny, tmp_path, precision="bf16")) as runtime:
        assert runtime.world == 1 and runtime.describe() == "cpu, bf16"
        model = torch.nn.Linear(2, 2)
        assert runtime.wrap(model) is model
        terms = LossTerms(*torch.arange(6.0))
        assert runtime.reweight(terms, torch.tensor([1, 2]), True) is terms
        assert runtime.gather(3) == [3] and runtime.merge(runtime.shard([1, 2])) == [1, 2]
        with runtime.main_process_first():
            assert runtime.is_main_process


def test_shard_and_merge_keep_the_order(monkeypatch):
    parts = [Runtime(CPU, rank, 3).shard(range(7)) for rank in range(3)]
    assert [list(part) for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]
    monkeypatch.setattr(Runtime, "gather", lambda self, value: parts)
    assert Runtime(CPU, 1, 3).merge(parts[1]) == list(range(7))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"3 processes for 2 GPUs\. Use --nproc-per-node=2"):
        _local_device("auto")
    with pytest.raises(InputError, match="--device cuda:1 is one GPU for several processes"):
        _local_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _local_device("cuda") == "cuda:1" and _local_device("cpu") == "cpu"


def test_checkpoint_records_command_and_versions(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/main.py", "--exp_name", "a b"])
    assert command_line() == "main.py --exp_name 'a b'"
    assert set(versions()) == {"code", "python", "torch", "numpy"} and code_version().startswith("1.")
    options = options_of(tiny, tmp_path, max_epoch=1)
    train_run(options)
    for which in ("last", "best"):
        content = content_of(options, which)
        assert content["command"] == "main.py --exp_name 'a b'" and content["versions"]["numpy"] == np.__version__
        assert content["computing"] == "cpu, fp32" and content["seed"] == 0


# several processes


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Results of share_training.py, which runs all cases in one launch to import torch once."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "share_training.py", tmp_path_factory.mktemp("shared")],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["2", "3", "released", "paper"])
def test_gradients_and_losses_equal_those_of_one_process(shared, case):
    # batches of 5 + 5 or 6 + 6 windows of 4 to 40 steps; float32 sums differ in their order
    assert shared[f"gradients, {case}"] < 1e-5


def test_whole_run_equals_that_of_one_process(shared):
    np.testing.assert_allclose(shared["curve, two"], shared["curve, one"], rtol=2e-3, atol=2e-3)
    assert shared["files"] == ["run.csv", "run.pth", "run_best.pth"]


def test_run_resumes_with_another_number_of_processes(shared):
    assert shared["resumed on 3"] == [0, 0, 0]
    np.testing.assert_allclose(shared["curve, resumed on 3"], shared["curve, one"], rtol=2e-3, atol=2e-3)


def test_resume_with_dropout_is_bitwise_equal(shared):
    assert 0 < shared["step at kill"] <= 3 and shared["equal"] is True


def test_nan_on_one_process_stops_all_and_names_its_video(shared):
    assert shared["nan"] == [2, 2]
    main, other = shared["nan, stderr"]
    # process 1 has the last of three normal and three anomalous videos; its first window contains NaN
    assert re.search(r"the loss is nan at step 4 \(videos Normal\d+_x264\)", main)
    assert "error" not in other and shared["nan, step"] == 2


def test_dead_process_ends_the_others_with_an_error(shared):
    code, died = shared["killed"]
    assert died == -9 and code == 1
    assert "closed" in shared["killed, stderr"] or "reset" in shared["killed, stderr"], shared["killed, stderr"]


def test_too_many_processes_for_a_batch_are_refused(shared):
    assert shared["too many"] == [2, 2, 2, 2]
    assert "a batch of 3 cannot be shared by 4 processes" in shared["too many, stderr"]
