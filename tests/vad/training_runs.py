"""Training runs on the tiny data set, for the tests of the loop, of continuing and of several processes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from model import IEFVAD, Objective, read_checkpoint, save_checkpoint
from tests.conftest import Tiny
from vad.benchmark import find_lists, open_test_set, trims
from vad.computing import Computing
from vad.data import TrainingBatches, TrainingWindows, find_samples
from vad.lists import read_csv
from vad.repeatable import fingerprint, seed_everything
from vad.run import Files, Run, Saving
from vad.run_state import resume
from vad.settings import Settings, add_dataset_flags, add_switch_flags, loss_fields, model_fields, resolve
from vad.stopping import Stopped
from vad.training import train

CPU = Computing(torch.device("cpu"))
EVERY_STEP = Saving(steps=1)
# 3 batches of 2 + 2 an epoch, evaluated after the second and the third
SMALL = ("--batch_size", "2", "--print_steps", "8", "--max_epoch", "3", "--test_crops", "5")


def settings_of(*flags: str) -> Settings:
    """Small values for the made-up UCF-Crime, the flags beating them."""
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    add_switch_flags(parser, recipe=True)
    common = ["--dataset", "ucfcrime", "--batch_size", "4", "--lr", "0.003", "--num_refinement_steps", "1"]
    return resolve(parser.parse_args([*common, "--max_epoch", "4", *flags]))


def make_run(
    tiny: Tiny,
    folder: Path,
    *flags: str,
    seed: int = 0,
    evaluations: Iterable[float] = (),
    computing: Computing = CPU,
    saving: Saving = EVERY_STEP,
) -> Run:
    """A run that has not begun; evaluations: AUCs to report instead of the model's own."""
    settings = settings_of(*flags)
    settings = replace(settings, dataset=replace(settings.dataset, window=32))
    args = argparse.Namespace(
        feature_root=str(tiny.root), list_root=str(tiny.lists), train_list=None, test_list=None, gt_path=None
    )
    test = open_test_set(find_lists(args, settings), settings, "fusion")
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", settings.dataset), settings.dataset, tiny.root)
    seed_everything(seed)
    model = IEFVAD(embed_dim=width, **model_fields(settings))
    scripted = iter(evaluations)
    return Run(
        model=model,
        objective=Objective(config=model.config, **loss_fields(settings)),
        batches=TrainingBatches(
            TrainingWindows(samples, window=32, nan="refuse", width=width),
            settings.recipe.batch_size,
            settings.recipe.paired,
            seed,
            rank=computing.ranks.rank,
            world=computing.ranks.world,
        ),
        evaluate=lambda: {"AUC": next(scripted)} if evaluations else test.judge(model, computing),
        save=save_checkpoint,
        settings=settings,
        identity={
            **settings.as_dict(),
            "typed": None,
            "seed": seed,
            "data": fingerprint(samples, [tiny.lists / "gt.npy"]),
        },
        files=Files.of(folder, "run"),
        seed=seed,
        computing=computing,
        trim=trims(settings),
        saving=saving,
    )


def assert_equal_ends(one: Run, other: Run) -> None:
    """Weights, log and the two checkpoints of two finished runs, bit for bit."""
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert one.files.log.read_text() == other.files.log.read_text()
    for which in ("last", "best"):
        a, b = (read_checkpoint(getattr(run.files, which)) for run in (one, other))
        assert (a["step"], a["weights"], a["metrics"]) == (b["step"], b["weights"], b["metrics"])
        assert all(torch.equal(tensor, b["model"][name]) for name, tensor in a["model"].items())


def continued(tiny: Tiny, folder: Path, *flags: str, **given: object) -> Run:
    """A run that takes up what is there, as a new process would."""
    torch.rand(7)  # which has another random state
    run = make_run(tiny, folder, *flags, **given)
    if run.files.last.is_file():
        resume(run, read_checkpoint)
    return run


def stop_at(run: Run, step: int) -> None:
    """Train until Ctrl-C arrives after `step` steps, within the next one or in the evaluation before it."""
    objective, evaluate_once = run.objective, run.evaluate

    def interrupted(work: Callable[..., object]) -> Callable[..., object]:
        if run.step == step:
            signal.raise_signal(signal.SIGINT)
        return work

    run.objective = lambda *given: interrupted(objective)(*given)
    run.evaluate = lambda: interrupted(evaluate_once)()
    with pytest.raises(Stopped):
        train(run)
