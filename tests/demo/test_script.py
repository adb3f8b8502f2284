"""Scene scripts: the same from the same seed, ground truth exact, no cue but the intended one."""

from __future__ import annotations

import hashlib
from itertools import islice

import cv2
import numpy as np
import pytest

from demo.script import FPS, SceneScript, render, write_script
from demo.videos import DATASET, RENDERING


def pixels(script: SceneScript, frames: int = 40) -> str:
    digest = hashlib.sha256()
    for frame in islice(render(script), frames):
        digest.update(frame.tobytes())
    return digest.hexdigest()


def test_same_seed_same_pixels():
    first = pixels(write_script(0, 5, "Crash"))
    write_script(0, 6, "Running")  # what is written in between must not matter
    assert pixels(write_script(0, 5, "Crash")) == first
    assert pixels(write_script(1, 5, "Crash")) != first
    assert pixels(write_script(0, 7, "Crash")) != first


@pytest.mark.skipif(not cv2.__version__.startswith("4.12."), reason="other versions may round other pixels")
def test_pixels_are_those_the_name_stands_for():
    """Where the pixels are meant to change, give `RENDERING` another value together with this hash."""
    digest = hashlib.sha256()
    for index, label in enumerate([DATASET.normal, *DATASET.classes]):
        for frame in islice(render(write_script(0, index, label)), 0, None, 10):
            digest.update(frame.tobytes())
    assert (RENDERING, digest.hexdigest()[:16]) == ("1f3509294fc9", "3ad2f0a2e601cc9b")


@pytest.mark.parametrize("index", [9, 31, 77])
@pytest.mark.parametrize("label", DATASET.classes)
def test_ground_truth_is_where_pixels_differ(label: str, index: int):
    """A video and the same video without its anomaly differ in every frame of its intervals, in no other."""
    script = write_script(0, index, label)
    pairs = zip(render(script), render(script, anomaly=False), strict=True)
    differs = [bool((a != b).any()) for a, b in pairs]
    labels = np.zeros(script.frames, bool)
    for start, end in script.intervals:
        labels[start:end] = True
    assert labels.any() and not labels.all()
    np.testing.assert_array_equal(differs, labels)


@pytest.mark.parametrize("label", [DATASET.normal, *DATASET.classes])
def test_lengths_and_anomalous_shares(label: str):
    """10 to 40 s; one or two intervals of 20–40 %, or 36 frames where that is longer, apart and in order."""
    for index in range(60):
        script = write_script(3, index, label)
        assert 10 * FPS <= script.frames <= 40 * FPS
        assert len(script.light) == len(script.noise) == len(script.sign) == script.frames
        if label == DATASET.normal:
            assert script.intervals == [] and script.anomalies == []
            continue
        covered = sum(end - start for start, end in script.intervals)
        assert len(script.intervals) in (1, 2)
        assert 0.15 * script.frames < covered <= 0.4 * script.frames
        ends = [0, *(edge for interval in script.intervals for edge in interval), script.frames]
        assert ends == sorted(ends)


def test_only_motion_shows_running():
    """The same people, in the same number, before and during it."""
    script = write_script(0, 9, "Running")
    assert script.anomalies == []
    runners = [pedestrian for pedestrian in script.pedestrians if pedestrian.runs]
    assert len(runners) >= 2
    (start, end, *_), runner = runners[0].runs[0], runners[0]
    step = {
        anomaly: np.mean(np.abs(np.diff([runner.at(t, anomaly)[0][0] for t in range(start, end)])))
        for anomaly in (False, True)
    }
    assert step[False] < 2 and step[True] > 6  # pixels a frame: a stroll, a run


def test_only_appearance_shows_the_tiger():
    """It takes the same ways at the same pace as the pony of every class."""
    pace: dict[str, list[float]] = {"pony": [], "tiger": []}
    for index in range(60):
        script = write_script(0, index, "Intruder")
        for visit in [*script.traffic, *script.anomalies]:
            if visit.kind in pace:
                (start, first, _), *_, (end, last, _) = visit.way
                pace[visit.kind].append(abs(last - first) / (end - start))
    assert min(len(values) for values in pace.values()) > 40
    assert np.mean(pace["tiger"]) == pytest.approx(np.mean(pace["pony"]), rel=0.15)
    assert max(pace["tiger"]) < 2  # pixels a frame


@pytest.mark.parametrize("kind", ["car", "pony"])
def test_everyday_visits_do_not_tell_the_class(kind: str):
    """Were there fewer beside one kind of anomaly, their absence would be a cue nobody meant."""
    visits = {
        label: np.mean([sum(v.kind == kind for v in write_script(0, i, label).traffic) for i in range(150)])
        for label in (DATASET.normal, *DATASET.classes)
    }
    assert list(visits.values()) == pytest.approx([visits[DATASET.normal]] * len(visits), rel=0.1)
