"""The loop: what is kept, what rolls back, and a stopped run that ends as an undisturbed one."""

from __future__ import annotations

import argparse
import signal
from dataclasses import replace

import pandas as pd
import pytest
import torch

from model import IEFVAD, Objective, read_checkpoint, save_checkpoint
from vad.benchmark import find_lists, open_test_set, trims
from vad.computing import Computing
from vad.data import TrainingBatches, TrainingWindows, find_samples
from vad.errors import InputError
from vad.lists import read_csv
from vad.metrics import evaluate
from vad.repeatable import fingerprint, seed_everything
from vad.run import Files, Run, Saving
from vad.run_state import resume
from vad.settings import add_dataset_flags, add_switch_flags, loss_fields, model_fields, resolve
from vad.stopping import Stopped
from vad.training import train


def settings_of(*flags: str):
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    add_switch_flags(parser, recipe=True)
    common = ["--dataset", "ucfcrime", "--batch_size", "4", "--lr", "0.003", "--num_refinement_steps", "1"]
    return resolve(parser.parse_args([*common, "--max_epoch", "4", *flags]))


def make_run(tiny, folder, *flags: str, seed: int = 0, evaluations=None) -> Run:
    settings = settings_of(*flags)
    settings = replace(settings, dataset=replace(settings.dataset, window=32))
    args = argparse.Namespace(
        feature_root=str(tiny.root), list_root=str(tiny.lists), train_list=None, test_list=None, gt_path=None
    )
    test = open_test_set(find_lists(args, settings), settings, "fusion")
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", settings.dataset), settings.dataset, tiny.root)
    seed_everything(seed)
    model = IEFVAD(embed_dim=width, **model_fields(settings))
    device = torch.device("cpu")
    scripted = iter(evaluations or ())
    return Run(
        model=model,
        objective=Objective(config=model.config, **loss_fields(settings)),
        batches=TrainingBatches(
            TrainingWindows(samples, window=32, nan="refuse", width=width), settings.recipe.batch_size, True, seed
        ),
        evaluate=lambda: (
            {"AUC": next(scripted)}
            if evaluations
            else evaluate(test.score(model, device, progress=None), settings.dataset)
        ),
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
        computing=Computing(device),
        trim=trims(settings),
        saving=Saving(steps=1),
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


def stop_at(run: Run, step: int) -> None:
    """Train until Ctrl-C arrives after `step` steps, within the next one or in the evaluation before it."""
    objective, evaluate_once = run.objective, run.evaluate

    def interrupted(work):
        if run.step == step:
            signal.raise_signal(signal.SIGINT)
        return work

    run.objective = lambda *given: interrupted(objective)(*given)
    run.evaluate = lambda: interrupted(evaluate_once)()
    with pytest.raises(Stopped):
        train(run)


# 3 batches of 2 + 2 an epoch, evaluated after the second and the third
SMALL = ("--batch_size", "2", "--print_steps", "8", "--max_epoch", "3", "--test_crops", "5")


@pytest.mark.parametrize("flags", [(), ("--profile", "released"), ("--rollback", "on", "--keep", "best")])
def test_a_run_stopped_at_any_step_ends_as_an_undisturbed_one(tiny, tmp_path, flags):
    whole = make_run(tiny, tmp_path / "whole", *SMALL, *flags)
    train(whole)
    for step in range(9):
        stopped = make_run(tiny, tmp_path / f"stopped{step}", *SMALL, *flags)
        stop_at(stopped, step)
        torch.rand(7)  # a new process has another random state
        again = make_run(tiny, tmp_path / f"stopped{step}", *SMALL, *flags)
        resume(again, read_checkpoint)
        # Ctrl-C lets a step finish; in an evaluation, which comes first after steps 2, 3, 5, 6, 8, it ends that at once
        assert again.step == (step if step in (2, 3, 5, 6, 8) else step + 1)
        train(again)
        assert_equal_ends(whole, again)


def test_training_learns_what_the_embeddings_tell(tiny, tmp_path):
    flags = ("--max_epoch", "30", "--batch_size", "6", "--scheduler_milestones", "1000", "--lambda_kl", "0.01")
    run = make_run(tiny, tmp_path, *flags)
    before = run.evaluate()["AUC"]
    after = train(run).metrics["AUC"]
    # the event signal is three standard deviations in four dimensions: easy, once anything is learnt at all
    assert after > 0.8 > before


def test_last_and_best_are_both_saved_under_their_names(tiny, tmp_path):
    run = make_run(tiny, tmp_path, evaluations=[0.6, 0.9, 0.7, 0.8])
    trained = train(run)
    assert trained.weights == "last" and trained.metrics == {"AUC": 0.8}
    last, best = read_checkpoint(run.files.last), read_checkpoint(run.files.best)
    assert (last["weights"], last["epoch"], last["metrics"]) == ("last", 4, {"AUC": 0.8})
    assert (best["weights"], best["epoch"], best["metrics"]) == ("best", 2, {"AUC": 0.9})
    assert not torch.equal(last["model"]["classifier.weight"], best["model"]["classifier.weight"])


def test_the_released_profile_rolls_back_to_the_best_at_each_epochs_end(tiny, tmp_path):
    run = make_run(tiny, tmp_path, "--profile", "released", evaluations=[0.6, 0.9, 0.7, 0.8])
    trained = train(run)
    assert trained.weights == "best" and trained.metrics == {"AUC": 0.9}
    last, best = read_checkpoint(run.files.last), read_checkpoint(run.files.best)
    assert last["weights"] == "best" and last["metrics"] == {"AUC": 0.9}
    for name, tensor in best["model"].items():
        assert torch.equal(tensor, last["model"][name])
    # the optimiser goes on: it counts every step, also those whose weights were dropped
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {run.step}


def test_an_equal_value_does_not_replace_an_earlier_best(tiny, tmp_path):
    run = make_run(tiny, tmp_path, evaluations=[0.9, 0.9, float("nan"), 0.2])
    train(run)
    assert read_checkpoint(run.files.best)["epoch"] == 1


def test_the_test_set_is_visited_every_print_steps_samples_and_at_each_epochs_end(tiny, tmp_path):
    run = make_run(tiny, tmp_path, "--batch_size", "2", "--print_steps", "8", "--max_epoch", "2")
    train(run)
    log = pd.read_csv(run.files.log)
    # three batches of 2 + 2 an epoch: eight samples are seen after the second, the epoch ends with the third
    assert log.step.tolist() == [2, 3, 5, 6]
    assert log.epoch.tolist() == [0, 1, 1, 2]
    assert {"lr", "loss", "loss_classification", "loss_kl_event", "AUC", "Ano-AUC"} <= set(log.columns)


def test_the_learning_rate_falls_at_its_milestones(tiny, tmp_path):
    run = make_run(tiny, tmp_path, "--scheduler_milestones", "1", "3", "--scheduler_rate", "0.5")
    train(run)
    assert pd.read_csv(run.files.log).lr.tolist() == pytest.approx([0.003, 0.0015, 0.0015, 0.00075])


def test_one_seed_gives_one_result_and_another_another(tiny, tmp_path):
    states = []
    for number, seed in enumerate((0, 0, 1)):
        run = make_run(tiny, tmp_path / str(number), "--max_epoch", "1", seed=seed)
        train(run)
        states.append(run.model.classifier.weight.detach().clone())
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--nu", "4"), r"run\.pth was trained with nu 8\.0, not 4\.0; give another --exp_name"),
        (("--lr", "0.1"), r"was trained with lr 0\.003, not 0\.1"),
        (("--profile", "paper", "--test_crops", "5"), "was trained with profile default, not paper"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(tiny, tmp_path, flags, sentence):
    run = make_run(tiny, tmp_path)
    train(run)
    other = make_run(tiny, tmp_path, *flags)
    with pytest.raises(InputError, match=sentence):
        resume(other, read_checkpoint)


def test_a_run_is_not_continued_on_other_data(tiny, tmp_path):
    run = make_run(tiny, tmp_path)
    train(run)
    path = tiny.path("rgb", "Normal000_x264", "Normal")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="was trained with data"):
        resume(make_run(tiny, tmp_path), read_checkpoint)


def test_a_loss_that_is_no_number_stops_with_step_and_videos(tiny, tmp_path):
    run = make_run(tiny, tmp_path)
    with torch.no_grad():
        run.model.classifier.bias.fill_(float("nan"))
    sentence = r"the loss is nan at step 1 \(epoch 1; videos \S+_x264, .*lower --lr; nothing was saved yet"
    with pytest.raises(InputError, match=sentence):
        train(run)
