"""Disturbed snippets of the demo, and the AUC of weights against them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from demo import disturbances
from demo.script import render, write_script
from vad.datasets import load_dataset
from vad.files import InputError, write_json
from vad.scoring import ScoredVideo


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Return a demo of 4 + 6 videos whose record is in a temporary folder; nothing is rendered."""
    class Elsewhere:
        data_root, name = tmp_path, "demo"

    monkeypatch.setattr(disturbances, "DATASET", Elsewhere)
    write_json(tmp_path / "demo.json", {"seed": 0, "train": 4, "test": 6})
    return tmp_path


def test_disturbed_frames_fire_many_more_pixels():
    """Frames that the script calls disturbed differ more from their predecessor, apart from the actors."""
    quiet, loud = [], []
    for index in range(20):
        script = write_script(0, index, "Normal")
        if not script.disturbed.any() or (script.sign != 1).any():
            continue
        frames = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY)[:40].astype(int) for f in render(script)]  # the sky
        for t in range(1, len(frames)):
            fired = (np.abs(frames[t] - frames[t - 1]) >= 10).mean()
            (loud if script.disturbed[t] and script.disturbed[t - 1] else quiet).append(fired)
        if len(loud) > 100:
            break
    assert np.median(loud) > 10 * np.mean(quiet) + 0.005


def test_snippets_follow_the_script(demo):
    masks = disturbances.disturbed_snippets()
    assert len(masks) == 6
    expected = [write_script(0, index, load_dataset("demo").normal).disturbed for index in (4, 6, 8)]
    for frames, (name, mask) in zip(expected, [m for m in masks.items() if m[0].startswith("Normal")], strict=True):
        plain = [frames[16 * s : 16 * s + 16].sum() >= 8 for s in range(len(frames) // 16)]
        assert mask.tolist() == plain, name


def test_weights_that_follow_disturbances_have_auc_one(demo):
    masks = disturbances.disturbed_snippets()
    assert any(mask.any() for mask in masks.values())
    for sign, expected in ((1, 1.0), (-1, 0.0)):
        videos = [
            ScoredVideo(name, "x", mask.astype("f"), {"image": 0.5 + sign * 0.1 * mask}, {}, np.empty(0))
            for name, mask in masks.items()
        ]
        assert disturbances.weight_auc(videos, masks) == expected


def test_missing_demo_is_named(demo):
    (demo / "demo.json").unlink()
    with pytest.raises(InputError, match="there is no demo"):
        disturbances.disturbed_snippets()
