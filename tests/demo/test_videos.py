"""The synthetic data set: counts, annotation table, complete video files, documented commands."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import demo
from demo import __main__ as command
from demo import videos as module
from demo.script import render, write_script
from demo.videos import (
    DATASET,
    RENDERING,
    SIZES,
    SyntheticVideo,
    dataset_in,
    plan_videos,
    render_videos,
    write_video,
)
from vad.files import ROOT, InputError


def decoded(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1])
    return np.array(frames)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the rendering, which takes long."""
    monkeypatch.setattr(module, "_render_all", lambda *_: None)


def test_half_of_each_split_is_normal():
    """Of 432 training and 108 test videos, half are normal and a sixth belongs to each of three classes."""
    videos = plan_videos(0, *SIZES["demo"])
    for split, number in (("train", 432), ("test", 108)):
        labels = [video.label for video in videos if video.split == split]
        assert len(labels) == number
        assert labels.count(DATASET.normal) == number // 2
        assert {labels.count(label) for label in DATASET.classes} == {number // 6}
    assert len({video.name for video in videos}) == len(videos)
    # existing embeddings and ground truth of users have this length
    assert sum(video.frames for video in videos) == 54_719


def test_annotation_rows_have_the_documented_format():
    normal = SyntheticVideo(0, "Normal_001", "Normal", "train", 200, ())
    crash = SyntheticVideo(1, "Crash_002", "Crash", "test", 400, ((5, 60), (90, 150)))
    assert normal.row == "Normal_001,,Normal,train,train,200,\n"
    assert crash.row == "Crash_002,,Crash,test,test,400,5-60 90-150\n"


def test_annotation_table_is_read_back_unchanged(tmp_path: Path, unrendered: None):
    render_videos(tmp_path, tmp_path / "annotations.csv", seed=4, train=5, test=4)
    dataset = replace(DATASET, annotations=str(tmp_path / "annotations.csv"))
    planned = plan_videos(4, 5, 4)
    assert [
        SyntheticVideo(k, v.name, v.label, v.splits["official"], v.frames, v.intervals[""])
        for k, v in enumerate(dataset.videos.values())
    ] == planned
    assert dataset.split_counts == {"official": (5, 4), "released": (5, 4)}


def test_only_missing_videos_are_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, table = tmp_path / "demo", tmp_path / "list" / "annotations.csv"
    # two processes here and one below: the number of processes must not matter
    render_videos(out, table, seed=4, train=2, test=2, workers=2)
    paths = {video.name: out / "videos" / video.file for video in plan_videos(4, 2, 2)}
    assert list(paths) == ["Normal_001", "Intruder_001", "Normal_002", "Intruder_002"]
    assert sorted(out.rglob("*.mp4")) == sorted(paths.values())
    before = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in paths.items()}
    paths["Normal_002"].unlink()  # as after an interruption
    render_videos(out, table, seed=4, train=2, test=2)
    assert "rendered 1, kept 3" in capsys.readouterr().out
    for name, path in paths.items():
        assert path.read_bytes() == before[name][1]
        assert (path.stat().st_mtime_ns == before[name][0]) == (name != "Normal_002")
    assert not (out / "unfinished").exists()


def test_decoded_video_matches_rendered_frames(tmp_path: Path):
    video = plan_videos(0, 2, 2)[1]
    write_video(video, 0, tmp_path)
    frames = decoded(tmp_path / "videos" / video.file)
    rendered = list(render(write_script(0, video.index, video.label)))
    assert len(frames) == len(rendered) == video.frames

    def distance(shift: int) -> np.ndarray:
        return np.array([cv2.norm(rendered[t], frames[t + shift]) for t in range(8, video.frames - 8)])

    # despite the lossy codec, decoded frame t is closest to rendered frame t
    assert (distance(0) < np.minimum(distance(-4), distance(4))).mean() > 0.95


def test_incomplete_video_is_refused_and_not_kept(tmp_path: Path):
    """A full disk is detected by the frame count, because the writer does not report it."""
    video = plan_videos(0, 2, 2)[1]
    with pytest.raises(InputError, match=f"{video.frames} of {video.frames + 1} frames were written"):
        write_video(replace(video, frames=video.frames + 1), 0, tmp_path)
    assert not (tmp_path / "videos" / video.file).exists()


def test_changed_settings_require_overwrite(tmp_path: Path, unrendered: None):
    render_videos(tmp_path, tmp_path / "a.csv", seed=0, train=2, test=2)
    old = tmp_path / "videos" / "Normal" / "Normal_001.mp4"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"seed 0")
    with pytest.raises(InputError, match="seed 0, not 1"):
        render_videos(tmp_path, tmp_path / "a.csv", seed=1, train=2, test=2)
    assert old.exists()
    render_videos(tmp_path, tmp_path / "a.csv", seed=1, train=2, test=2, overwrite=True)
    assert not old.exists()


def test_videos_of_earlier_versions_are_accepted(tmp_path: Path, unrendered: None):
    """The settings file of an earlier version of the code."""
    record = {"seed": 0, "train": 2, "test": 2, "drawing": RENDERING}
    (tmp_path / "demo.json").write_text(json.dumps(record, indent=1))
    old = tmp_path / "videos" / "Normal" / "Normal_001.mp4"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"kept")
    render_videos(tmp_path, tmp_path / "a.csv", seed=0, train=2, test=2)
    assert old.read_bytes() == b"kept"


def test_changed_rendering_requires_overwrite(tmp_path: Path, unrendered: None):
    (tmp_path / "demo.json").write_text('{"seed": 0, "train": 2, "test": 2, "drawing": "other"}')
    with pytest.raises(InputError, match=r"another version of this code\. Use --overwrite"):
        render_videos(tmp_path, tmp_path / "a.csv", seed=0, train=2, test=2)


def test_videos_of_the_user_are_not_deleted(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match="did not render"):
        render_videos(tmp_path, tmp_path / "a.csv", seed=0, train=2, test=2, overwrite=True)
    assert (tmp_path / "videos" / "mine.mp4").exists()


def test_too_few_videos_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        plan_videos(0, 1, 2)


def test_prepare_runs_the_documented_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    commands: list[list[str]] = []

    def run(line: list[str], cwd: Path, check: bool) -> SimpleNamespace:
        commands.append(line)
        assert cwd == ROOT
        return SimpleNamespace(returncode=2 if "generate_gt" in line[1] else 0)

    monkeypatch.setattr(demo, "render_videos", lambda *_, **__: None)
    monkeypatch.setattr(demo.subprocess, "run", run)
    with pytest.raises(InputError, match=r"generate_gt\.py --dataset demo` failed with exit code 2"):
        demo.prepare()
    assert commands == [[sys.executable, *line] for line in demo.commands(DATASET)]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "$ python -m demo.encoder --dataset demo"
    assert printed[1].startswith("$ python extracting/gen.py --dataset demo --modality both --crops 5 --save_events ")
    assert all((ROOT / line[0]).is_file() for line in demo.commands(DATASET)[1:])


def test_a_folder_gets_a_whole_data_set_of_its_own(tmp_path: Path):
    """Nothing of it lies in data/demo or list/demo, and main.py reads it as any data set in a folder."""
    assert dataset_in(None) is DATASET
    dataset = dataset_in(tmp_path / "new")
    root = tmp_path / "new"
    assert (dataset.data_root, dataset.video_root, dataset.list_root) == (root, root / "videos", root / "lists")
    assert dataset.annotation_path == root / "annotations.csv"
    assert (dataset.synthetic, dataset.classes, dataset.training) == (True, DATASET.classes, DATASET.training)
    for line in demo.commands(dataset):
        assert line[line.index("--dataset") + 1] == str(root / "dataset.toml") and "data/demo" not in " ".join(line)
    (root / "dataset.toml").write_text(dataset.path.read_text().replace("fps = 12", "fps = 6"))
    assert dataset_in(root).fps == 6  # an existing file is kept


def test_another_data_set_in_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "dataset.toml").write_text('name = "street"\nnormal = "Normal"\nclasses = ["Fall"]\n')
    with pytest.raises(InputError, match=r"describes another data set\. Choose another --folder"):
        demo.prepare(folder=tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "dataset.toml"]


def test_overwrite_reaches_encoder_and_extraction(monkeypatch: pytest.MonkeyPatch):
    """Lists and ground truth are always rewritten."""
    commands: list[list[str]] = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(demo, "render_videos", lambda *_, **__: None)
    monkeypatch.setattr(demo.subprocess, "run", lambda line, **_: commands.append(line) or done)
    demo.prepare(overwrite=True)
    assert ["--overwrite" in line for line in commands] == [True, True, False, False]


def test_interrupted_command_interrupts_prepare(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "render_videos", lambda *_, **__: None)
    monkeypatch.setattr(demo.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=130))
    with pytest.raises(KeyboardInterrupt):
        demo.prepare()


def test_flags_reach_prepare(monkeypatch: pytest.MonkeyPatch):
    arguments: dict[str, object] = {}
    monkeypatch.setattr(command, "prepare", arguments.update)
    monkeypatch.setattr(sys, "argv", ["demo", "--train", "3", "--test", "2", "--seed", "7", "--workers", "1"])
    command.main()
    given = {"seed": 7, "train": 3, "test": 2, "workers": 1}
    assert arguments == {"dataset": "demo", **given, "overwrite": False, "folder": None}


def test_annotation_table_records_its_command(tmp_path: Path, unrendered: None):
    render_videos(tmp_path, tmp_path / "annotations.csv", seed=7, train=3, test=2)
    lines = (tmp_path / "annotations.csv").read_text().splitlines()
    assert lines[:2] == [
        "# synthetic videos: python -m demo --seed 7 --train 3 --test 2",
        "video,alias,label,official,released,frames,intervals",
    ]
    assert len(lines) == 2 + 3 + 2
