"""Several processes that train one model: the same batch, the same gradients, one writer, one reason when one fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Tiny
from vad.catalog import UCFCRIME
from vad.data import TrainingBatches, TrainingWindows, find_samples
from vad.distributed import ALONE, Ranks, local_device
from vad.errors import InputError
from vad.lists import read_csv

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What share_training.py found; all its processes together, so that torch is imported once."""
    script = Path(__file__).with_name("share_training.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("shared")],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["2", "3", "released", "paper"])
def test_gradients_and_losses_are_those_of_one_process(found, case):
    # batches of 3 + 3 windows of 4 to 32 steps on two or three processes; float32 sums in another order
    assert found[f"gradients, {case}"] < 1e-5


def test_a_whole_run_goes_as_on_one_process_and_leaves_its_files_once(found):
    np.testing.assert_allclose(found["curve, two"], found["curve, one"], rtol=2e-3, atol=2e-3)
    assert found["files"] == ["run.csv", "run.pth", "run_best.pth"]


def test_ctrl_c_on_one_process_stops_all_at_one_step_and_another_number_continues(found):
    # asked for within the fourth step, agreed on in the fifth
    assert found["stopped"] == [130, 130] and found["stopped at"] == 5
    assert found["other N"] == [0, 0, 0]
    np.testing.assert_allclose(found["curve, other N"], found["curve, one"], rtol=2e-3, atol=2e-3)


def test_the_same_number_continues_bit_for_bit_with_dropout(found):
    assert found["equal"] is True


def test_a_loss_that_is_no_number_on_one_process_stops_all_and_names_its_video(found):
    assert found["nan"] == [2, 2]
    leader, other = found["nan said"]
    # the second process has the last of three normal and of three anomalous videos; its first window was spoilt
    assert re.search(r"the loss is nan at step 4 \(epoch 2; videos Normal\d+_x264\); .*run\.pth keeps step 3", leader)
    assert "error" not in other and found["nan kept"] == 3


def test_a_process_that_dies_ends_the_others_with_an_error(found):
    code, died = found["dead"]
    assert died == -9 and code == 1
    assert "closed" in found["dead said"] or "reset" in found["dead said"], found["dead said"]


def test_a_mistake_that_all_but_the_leader_meet_is_said_once(found):
    assert found["failed"] == [2, 2, 2]
    assert ["error: " in said for said in found["failed said"]] == [False, True, False]


def test_more_processes_than_videos_in_a_batch_are_refused(found):
    assert found["too many"] == [2, 2, 2, 2]
    assert "a batch of 3 cannot be shared by 4 processes" in found["too many said"]


@pytest.mark.parametrize(("size", "world"), [(4, 2), (3, 2), (5, 3), (1, 1)])
def test_parts_make_up_the_batches_of_one_process_with_both_sides_in_each(tiny: Tiny, size, world):
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", UCFCRIME), UCFCRIME, tiny.root)
    windows = TrainingWindows(samples, window=32, nan="refuse", width=width)
    whole = TrainingBatches(windows, size, True, 0)
    parts = [TrainingBatches(windows, size, True, 0, rank=rank, world=world) for rank in range(world)]
    assert [p.samples for p in parts] == [2 * size] * world
    for batch, *shares in zip(whole.order(1), *(p.order(1) for p in parts), strict=True):
        assert sorted(batch) == sorted(np.concatenate(shares))
        sides = [[samples[index].anomalous for index in share] for share in shares]
        assert all(any(side) and not all(side) for side in sides)
        assert max(map(len, shares)) - min(map(len, shares)) in (0, 2)  # one of each side
    late = [b.videos for b in whole.epoch(1, 1)]
    assert late == [b.videos for b in whole.epoch(1)][1:]


def test_alone_nothing_is_shared():
    assert ALONE.gather(3) == [3] and ALONE.merge(ALONE.share([1, 2])) == [1, 2] and ALONE.leads
    assert ALONE.divisors(torch.tensor([1, 2])) is None and ALONE.together(lambda: 7) == 7


def test_a_list_is_shared_and_merged_in_its_order():
    videos = list(range(7))
    parts = [Ranks(rank, 3).share(videos) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]

    class Gathering(Ranks):
        def gather(self, value):
            return parts

    assert Gathering(1, 3).merge(parts[1]) == videos


def test_more_processes_than_gpus_and_one_gpu_for_several_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"3 processes for 2 GPUs; give --nproc-per-node=2"):
        local_device("auto")
    with pytest.raises(InputError, match="--device cuda:1 is one GPU for several processes"):
        local_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device("cuda") == "cuda:1" and local_device("cpu") == "cpu"
