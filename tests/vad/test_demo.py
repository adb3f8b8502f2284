"""The drawn data set: the same from the same seed, its truth exact, its files complete and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from vad import demo
from vad.catalog import DEMO
from vad.demo import Plan, draw_videos, plan_videos
from vad.demo_story import FPS, Story, draw, tell
from vad.errors import InputError


def pixels(story: Story, frames: int = 40) -> str:
    digest = hashlib.sha256()
    for _, frame in zip(range(frames), draw(story), strict=False):
        digest.update(frame.tobytes())
    return digest.hexdigest()


def decoded(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1])
    return np.array(frames)


def test_same_seed_same_pixels():
    here = pixels(tell(0, 5, "Crash"))
    tell(0, 6, "Running")  # nothing that is told in between may matter
    assert pixels(tell(0, 5, "Crash")) == here
    assert pixels(tell(1, 5, "Crash")) != here
    assert pixels(tell(0, 7, "Crash")) != here


@pytest.mark.parametrize("index", [9, 31, 77])
@pytest.mark.parametrize("label", DEMO.classes)
def test_truth_is_where_the_pixels_differ(label: str, index: int):
    """A video and the same video without its anomaly differ in every frame of its intervals, and in no other."""
    story = tell(0, index, label)
    differs = [bool((a != b).any()) for a, b in zip(draw(story), draw(story, anomaly=False), strict=True)]
    truth = np.zeros(story.frames, bool)
    for s, e in story.intervals:
        truth[s:e] = True
    assert truth.any() and not truth.all()
    np.testing.assert_array_equal(differs, truth)


@pytest.mark.parametrize("label", [DEMO.normal, *DEMO.classes])
def test_lengths_and_shares(label: str):
    for index in range(60):
        story = tell(3, index, label)
        assert 10 * FPS <= story.frames <= 40 * FPS
        assert len(story.light) == len(story.noise) == len(story.sign) == story.frames
        if label == DEMO.normal:
            assert story.intervals == [] and story.anomalies == []
            continue
        covered = sum(e - s for s, e in story.intervals)
        assert len(story.intervals) in (1, 2)
        assert 0.15 * story.frames < covered <= 0.4 * story.frames
        ends = [0, *(edge for interval in story.intervals for edge in interval), story.frames]
        assert ends == sorted(ends)


def test_running_and_walking_people_look_the_same():
    """Only motion shows running: the same people, in the same number, before and during it."""
    story = tell(0, 9, "Running")
    assert story.anomalies == []
    runners = [walker for walker in story.walkers if walker.rushes]
    assert len(runners) >= 2
    (s, e, *_), walker = runners[0].rushes[0], runners[0]
    step = {
        anomaly: np.mean([abs(walker.at(t + 1, anomaly)[0][0] - walker.at(t, anomaly)[0][0]) for t in range(s, e - 1)])
        for anomaly in (False, True)
    }
    assert step[False] < 2 and step[True] > 6  # pixels a frame: a stroll, a run


def test_intruder_walks_no_faster_than_the_pony():
    """Only appearance shows the tiger: it takes the same ways at the same pace as the pony everybody knows."""
    pace: dict[str, list[float]] = {"pony": [], "tiger": []}
    for index in range(60):
        story = tell(0, index, "Intruder")
        for visit in [*story.traffic, *story.anomalies]:
            if visit.kind in pace:
                (s, first, _), *_, (e, last, _) = visit.way
                pace[visit.kind].append(abs(last - first) / (e - s))
    assert min(len(values) for values in pace.values()) > 40
    assert np.mean(pace["tiger"]) == pytest.approx(np.mean(pace["pony"]), rel=0.15)
    assert max(pace["tiger"]) < 2  # pixels a frame


@pytest.mark.parametrize("kind", ["car", "pony"])
def test_everyday_visits_do_not_tell_the_class(kind: str):
    """Were there fewer of them beside one kind of anomaly, their absence would be a cue nobody meant to draw."""
    visits = {
        label: np.mean([sum(visit.kind == kind for visit in tell(0, i, label).traffic) for i in range(150)])
        for label in (DEMO.normal, *DEMO.classes)
    }
    assert list(visits.values()) == pytest.approx([visits[DEMO.normal]] * len(visits), rel=0.1)


def test_counts_of_the_catalogue():
    splits = plan_videos(0, *DEMO.videos["official"])
    for plans, expected in zip(splits, DEMO.videos["official"], strict=True):
        labels = [plan.label for plan in plans]
        assert len(labels) == expected
        assert labels.count(DEMO.normal) == expected // 2
        assert {labels.count(kind) for kind in DEMO.classes} == {expected // 6}
    plans = [plan for split in splits for plan in split]
    assert len({plan.name for plan in plans}) == len(plans)
    assert 20_000 < sum(plan.frames for plan in plans) < 32_000


def test_annotation_lines():
    assert Plan(0, "Normal_001", "Normal", 200, ()).annotation == "Normal_001 Normal -1 -1"
    assert Plan(1, "Crash_002", "Crash", 400, ((5, 60), (90, 150))).annotation == "Crash_002 Crash 5 60 90 150"


def test_files_are_written_kept_and_continued(tmp_path: Path):
    said: list[str] = []
    out, lists = tmp_path / "demo", tmp_path / "list"
    # two processes here, one below: they may not matter
    draw_videos(out, lists, seed=4, train=2, test=2, workers=2, say=said.append)
    plans = [plan for split in plan_videos(4, 2, 2) for plan in split]
    videos = {plan.name: out / "videos" / plan.file for plan in plans}
    assert sorted(out.rglob("*.mp4")) == sorted(videos.values())
    for plan in plans:
        assert len(decoded(videos[plan.name])) == plan.frames
    assert (lists / "train_list.txt").read_text().split() == ["Normal/Normal_001.mp4", "Intruder/Intruder_001.mp4"]
    assert (lists / "test_list.txt").read_text().split() == ["Normal/Normal_002.mp4", "Intruder/Intruder_002.mp4"]
    assert (lists / "annotations.txt").read_text().splitlines() == [plan.annotation for plan in plans[2:]]

    before = {name: (path.stat().st_mtime_ns, decoded(path)) for name, path in videos.items()}
    videos["Normal_002"].unlink()  # as if it had been stopped
    draw_videos(out, lists, seed=4, train=2, test=2, say=said.append)
    assert "drawn 1, 3 were there" in said[-2]
    for name, path in videos.items():
        np.testing.assert_array_equal(decoded(path), before[name][1])
        assert (path.stat().st_mtime_ns == before[name][0]) == (name != "Normal_002")
    assert not (out / "unfinished").exists()


def test_a_decoded_video_is_what_was_drawn(tmp_path: Path):
    plan = plan_videos(0, 2, 2)[0][1]
    demo.write_video(plan, 0, tmp_path)
    frames = decoded(tmp_path / "videos" / plan.file)
    drawn = list(draw(tell(0, plan.index, plan.label)))
    assert len(frames) == len(drawn) == plan.frames

    def distance(shift: int) -> np.ndarray:
        return np.array([cv2.norm(drawn[t], frames[t + shift]) for t in range(8, plan.frames - 8)])

    # frame t of the file is frame t of the drawing, as far as the codec's loss lets one tell
    assert (distance(0) < np.minimum(distance(-4), distance(4))).mean() > 0.95


def test_other_settings_need_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_draw_all", lambda *_: None)
    draw_videos(tmp_path, tmp_path / "list", seed=0, train=2, test=2)
    old = tmp_path / "videos" / "Normal" / "Normal_001.mp4"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"drawn from seed 0")
    with pytest.raises(InputError, match="seed 0, not 1"):
        draw_videos(tmp_path, tmp_path / "list", seed=1, train=2, test=2)
    assert old.exists()
    draw_videos(tmp_path, tmp_path / "list", seed=1, train=2, test=2, overwrite=True)
    assert not old.exists()


def test_foreign_videos_are_left_alone(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="not drawn here"):
        draw_videos(tmp_path, tmp_path / "list", train=2, test=2, overwrite=True)
    assert (tmp_path / "videos" / "mine.mp4").exists()


def test_too_few_videos():
    with pytest.raises(InputError, match="at least 2"):
        plan_videos(0, 1, 2)


def test_prepare_runs_the_documented_commands(monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def command(line: list[str], cwd: Path, check: bool) -> object:
        ran.append(line[1:])
        assert cwd == demo.ROOT
        return type("Done", (), {"returncode": 2 if "generate_gt" in line[1] else 0})()

    monkeypatch.setattr(demo, "draw_videos", lambda *_, **__: None)
    monkeypatch.setattr(demo.subprocess, "run", command)
    said: list[str] = []
    with pytest.raises(InputError, match=r"generate_gt\.py --dataset demo` ended with exit code 2"):
        demo.prepare(said.append)
    assert ran == [list(line) for line in demo.COMMANDS]
    assert said[0] == "$ python -m demo.encoder"
    assert said[1].startswith("$ python extracting/gen.py --dataset demo --modality both --crops 5 --clip_ckpt ")
    assert all((demo.ROOT / line[0]).is_file() for line in demo.COMMANDS[1:])
