"""The synthetic data set of UCF-Crime's size has the right counts and can be read."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.benchmarks.ucf_sized import CROPS, DATASET, SPLIT, make, snippet_counts
from vad.data import Windows, find_videos, read_list
from vad.evaluation import open_test_set
from vad.options import resolve


def test_counts_match_ucf_crime():
    counts = snippet_counts()
    train = [DATASET.videos[name] for name in DATASET.split_names(SPLIT, "train")]
    test = DATASET.split_names(SPLIT, "test")
    # Sultani et al.: 1900 videos, 1610 for training, of which 810 are anomalous
    assert len(counts) == 1900 and len(train) * len(CROPS["train"]) == 16_100
    assert sum(counts[name] for name in test) == 69_364
    # 128 hours at 30 frames/s are 13,824,000 frames
    assert 16 * sum(counts.values()) == pytest.approx(13_824_000, rel=1e-3)
    assert sum(DATASET.is_anomalous(video.label) for video in train) == 810
    assert snippet_counts() == counts != snippet_counts(seed=1)


def test_small_part_is_read_like_any_data_set(tmp_path):
    counts = snippet_counts()
    short = [video for video in DATASET.videos.values() if counts[video.name] < 300]
    groups = [
        [v for v in short if v.splits[SPLIT] == side and DATASET.is_anomalous(v.label) == anomalous]
        for side in ("train", "test")
        for anomalous in (False, True)
    ]
    make(tmp_path, [group[0] for group in groups], counts)
    lists = tmp_path / "lists"
    test = open_test_set(resolve({"list_root": str(lists)}), DATASET)
    rows = read_list(lists / "train.csv", DATASET)
    videos, widths = find_videos(rows, DATASET, tmp_path, "fusion")
    assert widths == test.widths == {"image": 768, "event": 768} and len(videos) == 20 and len(test.videos) == 2
    for video in test.videos:
        expected = DATASET.frame_labels(video.name, 16 * counts[video.name], SPLIT)
        np.testing.assert_array_equal(video.frame_labels, expected)
        assert np.load(video.crops[0].streams["image"]).any(1).all()  # test embeddings have no zeros
    long = max(videos, key=lambda video: video.snippets)
    allocated = os.stat(long.streams["image"]).st_blocks * 512
    assert allocated < long.snippets * 768 * 2 / 2  # the file is sparse
    windows = Windows(videos, 256, "refuse", widths, None)
    batch = windows.__getitems__([0])
    assert batch.streams["image"].dtype.itemsize == 2
    # the four random snippets are N(0, 1), with a mean absolute value of 0.80
    assert np.abs(batch.streams["image"].float().numpy()[0, :4]).mean() == pytest.approx(0.8, abs=0.05)


def test_second_call_writes_no_embeddings(tmp_path):
    counts = snippet_counts()
    videos = [DATASET.videos[DATASET.split_names(SPLIT, side)[0]] for side in ("train", "test")]
    make(tmp_path, videos, counts)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(before) == 2 * (10 + 1) + 1  # both modalities, and gt.npy
    make(tmp_path, videos, counts)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
