"""UCSD Ped2: its splits, and its lengths and anomalous frames against the published ones."""

from __future__ import annotations

import csv
import random

from vad.datasets import load_dataset

PED2 = load_dataset("ped2")


def test_splits_follow_their_recipe():
    """Each split trains on 6 of 12 abnormal and 4 of 16 normal videos, drawn as the table's comment says."""
    tests = [f"Test{k:03d}" for k in range(1, 13)]
    trains = [f"Train{k:03d}" for k in range(1, 17)]
    for k, split in enumerate(PED2.splits):
        drawn = {*random.Random(k).sample(tests, 6), *random.Random(k).sample(trains, 4)}
        assert set(PED2.split_names(split, "train")) == drawn
        assert set(PED2.split_names(split, "test")) == {*tests, *trains} - drawn
    assert PED2.splits == tuple(f"split{k}" for k in range(10))
    assert len({frozenset(PED2.split_names(split, "train")) for split in PED2.splits}) == 10


def test_lengths_and_intervals_are_the_published_ones(realdata):
    folder = realdata / "ped2"
    with (folder / "ranges.csv").open() as stream:
        ranges = {row["video"]: row for row in csv.DictReader(stream)}
    for name, video in PED2.videos.items():
        part = "testing" if name.startswith("Test") else "training"
        assert video.frames == len(list((folder / part / "frames" / name[-2:]).glob("*.jpg")))
        row = ranges.get(name)
        expected = ((int(row["first"]) - 1, int(row["last"])),) if row else ()
        assert PED2.intervals(name, "split0") == expected
    total = sum(PED2.frame_labels(name, v.frames, "split0").sum() for name, v in PED2.videos.items())
    assert total == 1648
