"""The loop: what is learnt, kept and rolled back, when it is judged, and what it refuses."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from model import read_checkpoint
from tests.vad.training_runs import SMALL, make_run
from vad.errors import InputError
from vad.run_state import resume
from vad.training import train


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


def spoiled(run, step: int, spoil) -> None:
    """Train; at a step, spoil what the network gives."""
    forward = run.forward
    run.forward = lambda *given: spoil(forward(*given)) if run.step == step else forward(*given)
    train(run)


def test_a_loss_that_is_no_number_names_step_and_videos_and_keeps_the_last_good_state(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)

    def spoil(output):
        output.logits[1] = float("nan")
        return output

    video = run.batches.data.samples[run.batches.order(1)[1][1]].video  # second of the fifth batch
    sentence = rf"the loss is nan at step 5 \(epoch 2; videos {video}\); look at .*--lr; \S+run\.pth keeps step 4"
    with pytest.raises(InputError, match=sentence):
        spoiled(run, 4, spoil)
    state = read_checkpoint(run.files.last)
    assert state["step"] == 4 and all(tensor.isfinite().all() for tensor in state["model"].values())
    assert all(tensor.isfinite().all() for tensor in run.model.state_dict().values())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(tiny, tmp_path):
    run = make_run(tiny, tmp_path, *SMALL)

    def spoil(output):
        output.logits.register_hook(lambda gradient: gradient * float("inf"))
        return output

    with pytest.raises(InputError, match=r"the gradient is (nan|inf) \(the loss 1\.\d+\) at step 3 .* keeps step 2"):
        spoiled(run, 2, spoil)
    assert all(tensor.isfinite().all() for tensor in run.model.state_dict().values())


def test_nothing_is_kept_where_the_first_step_fails(tiny, tmp_path):
    run = make_run(tiny, tmp_path)
    with torch.no_grad():
        run.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(InputError, match=r"the loss is nan at step 1 \(epoch 1; .*nothing was saved yet"):
        train(run)
    assert not run.files.last.exists()


def test_the_sum_of_the_losses_is_that_of_the_steps(tiny, tmp_path):
    run = make_run(tiny, tmp_path, "--max_epoch", "1")
    seen, judge = [], run.objective
    run.objective = lambda *given: seen.append(judge(*given)) or seen[-1]
    train(run)
    row = run.rows[-1]
    assert row["loss"] == pytest.approx(sum(terms.total.item() for terms in seen) / len(seen), abs=1e-7)
    assert row["loss_kl_event"] == pytest.approx(sum(terms.kl_event.item() for terms in seen) / len(seen), abs=1e-7)
