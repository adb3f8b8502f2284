"""Continuing: a run that was stopped, killed or failed ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import read_checkpoint
from tests.vad.training_runs import SMALL, assert_equal_ends, continued, make_run, stop_at
from vad.errors import InputError, run_door
from vad.run import Saving
from vad.run_state import resume
from vad.stopping import Stopped, StopRequest
from vad.training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RELEASED = ("--profile", "released")


@pytest.mark.parametrize(
    ("flags", "steps"),
    [((), range(9)), (RELEASED, (1, 3, 5, 7)), (("--rollback", "on", "--keep", "best"), (2, 6, 8))],
)
def test_a_run_stopped_at_any_step_ends_as_an_undisturbed_one(tiny, tmp_path, flags, steps):
    whole = make_run(tiny, tmp_path / "whole", *SMALL, *flags)
    train(whole)
    for step in steps:
        stopped = make_run(tiny, tmp_path / f"stopped{step}", *SMALL, *flags)
        stop_at(stopped, step)
        again = continued(tiny, tmp_path / f"stopped{step}", *SMALL, *flags)
        # Ctrl-C lets a step finish; in an evaluation, which comes first after steps 2, 3, 5, 6, 8, it ends that at once
        assert again.step == (step if step in (2, 3, 5, 6, 8) else step + 1)
        train(again)
        assert_equal_ends(whole, again)


def test_a_stopped_run_says_where_it_is_and_with_what_exit_code(tiny, tmp_path, capsys):
    run = make_run(tiny, tmp_path, *SMALL)
    run.objective = lambda *given, judge=run.objective: (
        signal.raise_signal(signal.SIGINT) if run.step == 3 else None, judge(*given)
    )[1]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        run_door(lambda: train(run))
    assert ended.value.code == 130
    assert f"stopped: {run.files.last} holds step 4 (epoch 2); the same command continues" in capsys.readouterr().err
    state = read_checkpoint(run.files.last)
    assert (state["step"], state["epoch"], state["weights"], state["metrics"]) == (4, 1, "unfinished", {})


def test_a_second_ctrl_c_within_a_step_ends_at_once_and_saves_nothing_half_done(tiny, tmp_path):
    whole = make_run(tiny, tmp_path / "whole", *SMALL)
    train(whole)
    run = make_run(tiny, tmp_path / "hasty", *SMALL)
    update = run.optimizer.step

    def hasty():
        update()  # weights are those of the next step, the step's number is not
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    run.optimizer.step = hasty
    with pytest.raises(Stopped, match="holds step 4"):
        train(run)
    again = continued(tiny, tmp_path / "hasty", *SMALL)
    assert again.step == 4
    train(again)
    assert_equal_ends(whole, again)


def test_handlers_are_put_back_but_processes_that_stop_together_leave_undisturbed():
    before = signal.getsignal(signal.SIGINT)
    try:
        with StopRequest(patient=True):
            pass
        assert signal.getsignal(signal.SIGINT) is before
        with StopRequest(patient=True) as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert stop.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("steps", "kept"), [(0, 3), (2, 5), (4, 3)])
def test_the_state_is_written_every_so_many_steps_and_at_each_epochs_end(tiny, tmp_path, steps, kept):
    run = make_run(tiny, tmp_path, *SMALL, saving=Saving(steps=steps, minutes=0))
    run.objective = lambda *given, judge=run.objective: judge(*given) if run.step < 5 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(run)
    # the sixth step fails; an epoch has three, and steps are counted from the last time the state was written
    assert read_checkpoint(run.files.last)["step"] == kept


def test_a_best_that_is_newer_than_the_state_is_put_back(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL, evaluations=[0.6, 0.7, 0.9], saving=Saving(steps=0, minutes=0))
    run.objective = lambda *given, judge=run.objective: judge(*given) if run.step < 5 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(run)
    # the state is of step 3 (AUC 0.7), the best of step 5 (0.9), which no row of that state knows
    assert read_checkpoint(run.files.best)["step"] == 5
    again = continued(tiny, tmp_path, *SMALL)
    best = read_checkpoint(again.files.best)
    assert (best["step"], best["metrics"]) == (3, {"AUC": 0.7}) and len(again.log()) == 2
    state = read_checkpoint(again.files.last)
    assert all(torch.equal(tensor, state["model"][name]) for name, tensor in again.model.state_dict().items())
    assert all(torch.equal(tensor, again.best_state[name]) for name, tensor in best["model"].items())


def test_a_replaced_run_leaves_no_weights_beside_anothers_best(tiny, tmp_path):
    train(make_run(tiny, tmp_path, *SMALL))
    run = make_run(tiny, tmp_path, *SMALL, seed=1, saving=Saving(steps=0, minutes=0))
    run.objective = lambda *given, judge=run.objective: judge(*given) if run.step < 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(run)
    # the best on disk is of the second run, evaluated after step 2; the first one's last would pass for its company
    assert read_checkpoint(run.files.best)["seed"] == 1
    assert not run.files.last.exists()


def test_a_run_that_overwrites_does_not_send_back_to_the_command_that_starts_once_more(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)
    run.overwrites = True
    run.objective = lambda *given, judge=run.objective: (signal.raise_signal(signal.SIGINT), judge(*given))[1]
    with pytest.raises(Stopped, match=r"holds step 1 .*; the same command without --overwrite continues there$"):
        train(run)


def test_a_finished_run_holds_its_weights_and_not_what_continuing_needs(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)
    train(run)
    assert read_checkpoint(run.files.last)["training"] is None
    again = continued(tiny, tmp_path, *SMALL)
    assert again.finished and train(again).metrics == train(run).metrics


def test_a_state_without_its_place_in_the_epoch_is_refused(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)
    stop_at(run, 4)
    content = read_checkpoint(run.files.last)
    del content["training"]["steps"]
    content.pop("form")
    torch.save(content, run.files.last)
    with pytest.raises(InputError, match="unfinished run of an earlier version"):
        continued(tiny, tmp_path, *SMALL)


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL, "--max_epoch", "1")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, living = (tmp_path / f"run.pth.{number}.part" for number in (dead.pid, os.getppid()))
    for path in (left, living):
        path.write_bytes(b"half")
    train(run)
    assert not left.exists() and living.exists()


def test_another_precision_is_another_run_and_another_way_to_compute_is_not(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)
    run.identity = {**run.identity, "precision": "fp32"}
    stop_at(run, 4)
    other = make_run(tiny, tmp_path, *SMALL, computing=replace(run.computing, deterministic=True))
    other.identity = {**other.identity, "precision": "bf16"}
    with pytest.raises(InputError, match="was trained with precision fp32, not bf16"):
        resume(other, read_checkpoint)
    other.identity = run.identity
    resume(other, read_checkpoint)
    assert other.step == 5


def test_killed_runs_end_in_the_same_bits(tmp_path):
    """Three kill -9 at random instants, under the released roll-back; kill_training.py runs more of them."""
    script = Path(__file__).with_name("kill_training.py")
    done = subprocess.run(
        [sys.executable, script, "--kills", "3", "--seed", "1", "--folder", tmp_path],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout.splitlines()[-1])
    assert tally["kills"] == 3 and tally["equal"] == tally["runs"] >= 1
