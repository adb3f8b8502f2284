"""The training loop: saved weights, rollback, evaluation schedule, and refused input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

import vad.train
from model import IEFVAD
from tests.vad.runs import SMALL, content_of, interrupt_run_at, options_of, set_aucs
from vad.data import PairedBatches, Windows, find_videos, read_list
from vad.datasets import load_dataset
from vad.files import InputError
from vad.train import RunFiles, evaluation_due, train_run


def videos_of(tiny):
    dataset = load_dataset("ucfcrime")
    return find_videos(read_list(tiny.lists / "train.csv", dataset), dataset, tiny.root, "fusion")[0]


def test_training_learns_separable_embeddings(tiny, tmp_path):
    options = options_of(tiny, tmp_path, max_epoch=30, batch_size=6, scheduler_milestones=(1000,), lambda_kl=0.01)
    # anomalies shift four event dimensions by three standard deviations, which is easy to learn
    assert train_run(options).content["metrics"]["AUC"] > 0.8


def test_last_and_best_weights_are_saved(tiny, tmp_path, monkeypatch):
    set_aucs(monkeypatch, 0.6, 0.9, 0.7, 0.8)
    options = options_of(tiny, tmp_path)
    content = train_run(options).content
    assert content["weights"] == "last" and content["metrics"] == {"AUC": 0.8}
    last, best = content_of(options), content_of(options, "best")
    assert (last["weights"], last["epoch"], last["metrics"]) == ("last", 4, {"AUC": 0.8})
    assert (best["weights"], best["epoch"], best["metrics"]) == ("best", 2, {"AUC": 0.9})
    assert not torch.equal(last["model"]["classifier.weight"], best["model"]["classifier.weight"])


def test_rollback_restores_the_best_after_each_epoch(tiny, tmp_path, monkeypatch):
    set_aucs(monkeypatch, 0.6, 0.9, 0.7, 0.8)
    options = options_of(tiny, tmp_path, rollback=True, keep="best")
    content = train_run(options).content
    assert content["weights"] == "best" and content["metrics"] == {"AUC": 0.9}
    last, best = content_of(options), content_of(options, "best")
    assert all(torch.equal(tensor, last["model"][name]) for name, tensor in best["model"].items())


def test_optimiser_is_not_rolled_back(tiny, tmp_path, monkeypatch):
    set_aucs(monkeypatch, 0.9, 0.6, 0.7, 0.8)
    options = options_of(tiny, tmp_path, rollback=True)
    interrupt_run_at(monkeypatch, options, 2)  # one batch per epoch: two epochs are finished
    state = content_of(options)["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {2}
    first = content_of(options, "best")
    assert all(torch.equal(tensor, first["model"][name]) for name, tensor in content_of(options)["model"].items())


def test_tie_does_not_replace_an_earlier_best(tiny, tmp_path, monkeypatch):
    set_aucs(monkeypatch, 0.9, 0.9, float("nan"), 0.2)
    options = options_of(tiny, tmp_path)
    train_run(options)
    assert content_of(options, "best")["epoch"] == 1


def test_evaluation_follows_print_steps_and_epoch_ends(tiny, tmp_path):
    options = options_of(tiny, tmp_path, batch_size=2, print_steps=8, max_epoch=2)
    train_run(options)
    log = pd.read_csv(RunFiles.of(options).log)
    # three batches of 2 + 2 per epoch: eight videos are seen after the second, the third ends the epoch
    assert log.step.tolist() == [2, 3, 5, 6]
    assert log.epoch.tolist() == [0, 1, 1, 2]
    assert {"lr", "loss", "loss_classification", "loss_kl_event", "AUC", "Ano-AUC"} <= set(log.columns)


class UCFCrimeBatches:
    """The number of batches on UCF-Crime: 800 normal videos × ten crops, 64 + 64 per batch."""

    videos = 128

    def __len__(self):
        return 125


def test_released_schedule_equals_the_released_code(tiny, tmp_path):
    options = options_of(tiny, tmp_path, profile="released", print_steps=1280)
    due = [step for step in range(1, 251) if evaluation_due(step, UCFCrimeBatches(), options)]
    # released code: at steps i > 0 of an epoch, from 0, for which i · 128 is a multiple of 1280
    expected = [i + 1 for i in range(125) if i > 0 and i * 128 % 1280 == 0]
    assert expected[:2] == [11, 21] and 125 not in expected
    assert due == [*expected, *(125 + step for step in expected)]
    default = dataclasses.replace(options, evaluate_at="epoch")
    assert [step for step in range(1, 126) if evaluation_due(step, UCFCrimeBatches(), default)][:2] == [10, 20]


def test_released_run_without_due_evaluation_is_saved(tiny, tmp_path):
    options = options_of(tiny, tmp_path, profile="released", batch_size=2, max_epoch=2, print_steps=1280, nan="refuse")
    content = train_run(options).content
    # the released code saves no checkpoint here; ours evaluates and saves the last weights
    assert [row["step"] for row in content["rows"]] == [6] and RunFiles.of(options).last.is_file()


def test_learning_rate_falls_at_the_milestones(tiny, tmp_path):
    options = options_of(tiny, tmp_path, scheduler_milestones=(1, 3), scheduler_rate=0.5)
    train_run(options)
    assert pd.read_csv(RunFiles.of(options).log).lr.tolist() == pytest.approx([0.003, 0.0015, 0.0015, 0.00075])


def test_result_depends_on_the_seed_alone(tiny, tmp_path):
    states = []
    for number, seed in enumerate((0, 0, 1, -1)):
        options = options_of(tiny, tmp_path / str(number), max_epoch=1, seed=seed)
        train_run(options)
        states.append(content_of(options)["model"]["classifier.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert not torch.equal(states[2], states[3])


def test_weights_with_and_without_cache_are_equal(tiny, tmp_path):
    states = []
    for number, cache in enumerate(("", "none", str(tmp_path / "elsewhere"))):
        options = options_of(tiny, tmp_path / str(number), max_epoch=1, cache_dir=cache)
        train_run(options)
        states.append(content_of(options)["model"])
    assert {path.name.split("_")[0] for path in (tiny.root / "windows").glob("*.npy")} == {"image", "event"}
    assert len(list((tmp_path / "elsewhere").glob("*.npy"))) == 2
    assert all(torch.equal(tensor, other[name]) for other in states[1:] for name, tensor in states[0].items())


def test_logged_losses_are_means_since_the_last_evaluation(tiny, tmp_path, monkeypatch):
    seen, original = [], vad.train.train_step
    monkeypatch.setattr(vad.train, "train_step", lambda *args: seen.append(original(*args)) or seen[-1])
    content = train_run(options_of(tiny, tmp_path, **SMALL)).content
    first, second = content["rows"][:2]
    assert first["loss"] == pytest.approx(np.mean([values[0] for values in seen[:2]]), abs=1e-12)
    assert second["loss"] == pytest.approx(seen[2][0], abs=1e-12)
    assert second["loss_kl_event"] == pytest.approx(seen[2][5], abs=1e-12)
    assert second["loss_kl_audio"] == seen[2][6] == 0


# refused input


def damage_output(monkeypatch, step: int, damage) -> None:
    """Damage the output of the network in one training step."""
    count, original = iter(range(1000)), IEFVAD.forward

    def forward(self, **streams):
        output = original(self, **streams)
        return damage(output) if self.training and next(count) == step else output

    monkeypatch.setattr(IEFVAD, "forward", forward)


def test_nan_loss_error_names_step_and_video(tiny, tmp_path, monkeypatch):
    options = options_of(tiny, tmp_path, **SMALL)
    videos = videos_of(tiny)
    sampler = PairedBatches(videos, 2, True, 0)
    sampler.epoch = 1
    name = videos[list(sampler)[1][1]].name  # the second video of the fifth batch

    def damage(output):
        output.logits.data[1] = float("nan")
        return output

    damage_output(monkeypatch, 4, damage)
    monkeypatch.setattr(vad.train, "SAVE_SECONDS", 0)
    with pytest.raises(InputError, match=rf"the loss is nan at step 5 \(videos {name}\)\. Check .*--lr"):
        train_run(options)
    state = content_of(options)
    assert state["step"] == 3 and all(tensor.isfinite().all() for tensor in state["model"].values())


def test_infinite_gradient_stops_the_run(tiny, tmp_path, monkeypatch):
    def damage(output):
        output.logits.register_hook(lambda gradient: gradient * float("inf"))
        return output

    damage_output(monkeypatch, 2, damage)
    with pytest.raises(InputError, match=r"the gradient is (nan|inf) \(the loss \d\.\d+\) at step 3 "):
        train_run(options_of(tiny, tmp_path, **SMALL))


def test_training_list_with_one_label_is_refused(tiny, tmp_path):
    path = tiny.lists / "train.csv"
    rows = [line for line in path.read_text().splitlines() if not line.endswith(("Arson", "Fighting"))]
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="contains normal videos only"):
        train_run(options_of(tiny, tmp_path))


@pytest.mark.parametrize("stream", ["image", "event"])
def test_infinite_embedding_is_refused_by_name(tiny, tmp_path, stream):
    path = tiny.path({"image": "rgb", "event": "event_thr_10"}[stream], "Arson001_x264", "Arson")
    x = np.load(path)
    x[1, 2] = np.inf
    np.save(path, x)
    for nan in ("refuse", "zero"):
        with pytest.raises(InputError, match=r"Arson001_x264__5\.npy has infinite values in 1 of its"):
            train_run(options_of(tiny, tmp_path, nan=nan))


# batches


@pytest.mark.parametrize(("size", "world"), [(4, 2), (3, 2), (5, 3), (1, 1)])
def test_shares_of_all_processes_form_the_whole_batch(tiny, size, world):
    videos = videos_of(tiny)
    whole = PairedBatches(videos, size, True, 0)
    parts = [PairedBatches(videos, size, True, 0, rank, world) for rank in range(world)]
    assert [part.videos for part in parts] == [2 * size] * world
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(index for share in shares for index in share)
        labels = [{videos[index].anomalous for index in share} for share in shares]
        assert labels == [{False, True}] * world
        assert max(map(len, shares)) - min(map(len, shares)) in (0, 2)  # one normal and one anomalous
    late = PairedBatches(videos, size, True, 0)
    late.start = 1
    assert list(late) == list(whole)[1:]


def test_more_processes_than_videos_in_a_batch_are_refused(tiny):
    with pytest.raises(InputError, match="a batch of 3 cannot be shared by 4 processes"):
        PairedBatches(videos_of(tiny), 3, True, 0, 0, 4)


def test_every_seed_has_a_different_order(tiny):
    orders = [str(list(PairedBatches(videos_of(tiny), 2, True, seed))) for seed in (-2, -1, 0, 1, 2)]
    assert len(set(orders)) == 5


def test_pin_memory_pins_every_tensor(tiny, monkeypatch):
    batch = Windows(videos_of(tiny), 32, "refuse", {"image": 16, "event": 16}, None).__getitems__([0, 3])
    locked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: locked.append(x.dtype) or x)
    same = pin_memory(batch)  # called by DataLoader
    assert locked == [torch.float32, torch.float32, torch.int64, torch.float32] and same.names == batch.names


def test_training_batch_is_truncated_to_its_longest_window(tiny, tmp_path, monkeypatch):
    shapes, original = [], IEFVAD.forward
    monkeypatch.setattr(IEFVAD, "forward",
                        lambda self, image, event, lengths: (
                            shapes.append((image.shape[1], int(lengths.max()))), original(self, image, event, lengths)
                        )[1])  # fmt: skip
    train_run(options_of(tiny, tmp_path, max_epoch=1))
    assert all(steps == longest for steps, longest in shapes)
