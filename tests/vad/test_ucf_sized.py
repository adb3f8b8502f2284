"""The made-up data set of UCF-Crime's size: its numbers, and that a small part of it is a data set like any other."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from vad import ucf_sized
from vad.catalog import UCFCRIME, dataset
from vad.data import TrainingWindows, find_samples, find_test_videos
from vad.errors import InputError
from vad.lists import read_csv


def test_it_has_the_sizes_of_ucf_crime():
    videos = ucf_sized.plan(0)
    train = [video for video in videos if not video.test]
    test = [video for video in videos if video.test]
    assert (len(train), len(test)) == UCFCRIME.videos["official"]
    assert len(train) * len(ucf_sized.TRAIN_CROPS) == 16_100
    # the published ground truth has 1,109,680 frames; 128 hours at 30 frames a second are 13,824,000
    assert 16 * sum(video.snippets for video in test) == 1_109_680
    assert 16 * sum(video.snippets for video in videos) == pytest.approx(13_824_000, rel=1e-3)
    assert Counter(video.label == "Normal" for video in train) == {True: 800, False: 810}
    assert Counter(video.label == "Normal" for video in test) == {True: 150, False: 140}
    assert set(UCFCRIME.classes) == {video.label for video in test} - {"Normal"}
    assert len({video.name for video in videos}) == 1900
    assert ucf_sized.plan(0) == videos != ucf_sized.plan(1)


@pytest.fixture
def few(monkeypatch):
    """Six videos of the set instead of 1900, three crops."""
    chosen = [video for video in ucf_sized.plan(0) if video.snippets < 300]
    some = [*chosen[:2], *chosen[-2:]]
    normal_test = next(video for video in chosen if video.test and video.label == "Normal")
    anomalous_train = next(video for video in chosen if not video.test and video.label != "Normal")
    videos = [*some[:2], anomalous_train, normal_test, *some[2:]]
    monkeypatch.setattr(ucf_sized, "plan", lambda seed: videos)
    monkeypatch.setattr(ucf_sized, "TRAIN_CROPS", (0, 5, 9))
    return videos


def test_what_is_made_is_found_by_the_doors_own_code(few, tmp_path):
    out = tmp_path / "made"
    ucf_sized.make(out, say=lambda _: None)
    record = dataset(str(out / "ucf_sized.toml"))
    samples, width = find_samples(read_csv(out / "lists" / "train.csv", record), record, out)
    videos, _ = find_test_videos(
        read_csv(out / "lists" / "test.csv", record), out / "lists" / "gt.npy", record, out, (5,)
    )
    assert width == 768 and len(samples) == 9 and len(videos) == 3
    assert all(sample.half == (True, True) for sample in samples)
    plans = {plan.name: plan for plan in few}
    for video in videos:
        plan = plans[video.name]
        expected = np.zeros(plan.snippets)
        if plan.anomalous:
            expected[slice(*plan.anomalous)] = 1
        np.testing.assert_array_equal(video.frame_labels, np.repeat(expected, 16))
        assert np.load(video.crops[0].paths[0]).all(1).all()  # test videos are whole
    long = max(samples, key=lambda sample: sample.snippets)
    assert os.stat(long.paths[0]).st_blocks * 512 < long.snippets * 768 * 2 / 2  # mostly a hole
    windows = TrainingWindows(samples, window=256, nan="refuse", width=width, cache=out / "windows")
    assert np.abs(windows.gather([0]).image.float().numpy()[0, :2]).mean() > 0.1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    ucf_sized.make(out, say=lambda _: None)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    with pytest.raises(InputError, match="another --seed"):
        ucf_sized.make(out, seed=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no ucf_sized\.toml"):
        ucf_sized.make(tmp_path)
