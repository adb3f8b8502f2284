"""`test.py --video`: the same scores as the batch scripts, the checkpoint's encoder, and bad files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from extracting.clip.tower import load_tower
from model import read_checkpoint
from vad.report.own_videos import missing_packages

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = [f"{label}_{number}" for label in ("Normal", "Fall") for number in range(4)]


def write_video(path: Path, frames: int, seed: int) -> Path:
    """Write a video at 20 frames per second in which a square jumps about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (96, 64))
    rng = np.random.default_rng(seed)
    for _ in range(frames):
        frame = np.full((64, 96, 3), 80, np.uint8)
        x, y = rng.integers(0, (80, 48))
        frame[y : y + 16, x : x + 16] = rng.integers(0, 255, 3)
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of eight videos with embeddings, lists, and a model trained for one epoch."""
    root = tmp_path_factory.mktemp("street")
    (root / "dataset.toml").write_text(
        'name = "street"\nnormal = "Normal"\nencoder = "tiny"\nfps = 20\n[classes]\nFall = "Fall"\n'
        '[folders]\nvideos = "videos"\nembeddings = "."\nlists = "lists"\n'
    )
    rows = ["video,alias,label,official,released,frames,intervals"]
    for number, name in enumerate(NAMES):
        label, frames = name.split("_")[0], 40 + 8 * number
        write_video(root / "videos" / label / f"{name}.avi", frames, number)
        side, interval = ("train", "test")[number % 2], "16-32" if label == "Fall" else ""
        rows.append(f"{name},,{label},{side},{side},{frames},{interval}")
    (root / "annotations.csv").write_text("\n".join(rows) + "\n")
    data = ["--dataset", str(root / "dataset.toml")]
    for command in (
        ["extracting/gen.py", *data, "--modality", "both", "--crops", "5", "--video_dir", str(root / "videos"),
         "--image_dir", str(root / "rgb"), "--event_dir", str(root / "event_thr_10"), "--clip_ckpt", "untrained",
         "--event_ckpt", "untrained", "--event_threshold", "12"],
        ["list/generate_file.py", *data, "--base_path", str(root / "rgb")],
        ["list/generate_gt.py", *data],
        ["main.py", *data, "--max_epoch", "1", "--batch_size", "2", "--exp_name", "street",
         "--checkpoint_dir", str(root / "ck"), "--figure_dir", str(root / "figure")],
    ):  # fmt: skip
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return root


Scorer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def score(street: Path, command: Scorer, tmp_path: Path) -> Scorer:
    """Return a function that runs test.py on the checkpoint; results are in tmp_path / own_videos."""
    return lambda *flags: command("test", "--ckpt_path", street / "ck" / "street.pth", "--figure_dir", tmp_path, *flags)


def test_scores_are_those_of_the_batch_scripts(street: Path, score: Scorer, tmp_path: Path) -> None:
    code, _, err = score("--exp_name", "batch")
    assert code == 0, err
    batch = pd.read_csv(tmp_path / "batch" / "scores.csv")
    videos = [street / "videos" / "Normal" / "Normal_3.avi", street / "videos" / "Fall" / "Fall_1.avi"]
    code, out, err = score("--video", *videos)  # needs no --clip_ckpt: the checkpoint knows the encoder
    assert code == 0, err
    assert "UNTRAINED tiny tower" in out and batch.video.nunique() == 4
    for name in ("Normal_3", "Fall_1"):
        own, expected = pd.read_csv(tmp_path / "own_videos" / name / "scores.csv"), batch[batch.video == name]
        for column in ("score", "weight_image", "weight_event"):
            np.testing.assert_allclose(own[column], expected[column], atol=1e-6)
        np.testing.assert_allclose(own.start, np.arange(len(own)) * 0.8, atol=1e-6)  # 16 frames at 20 per second


def test_threshold_of_checkpoint_gives_one_false_alarm_per_hour(street: Path, score: Scorer, tmp_path: Path) -> None:
    content = read_checkpoint(street / "ck" / "street.pth")
    value, source = content["threshold"].values()
    assert "one false alarm per hour in 0.0016 hours of normal test videos" in source  # 48 + 64 frames at 20
    code, _, err = score("--exp_name", "batch")
    assert code == 0, err
    normal = pd.read_csv(tmp_path / "batch" / "scores.csv").query("label == 'Normal'").score
    assert value == pytest.approx(normal.max(), abs=1e-6)  # so few hours allow no alarm
    code, _, err = score("--video", street / "videos" / "Normal" / "Normal_1.avi")
    assert code == 0, err
    events = json.loads((tmp_path / "own_videos" / "Normal_1" / "events.json").read_text())
    assert events["threshold"]["value"] == value and events["events"] == []


def test_encoder_of_another_training_is_refused(street: Path, score: Scorer, command: Scorer, tmp_path: Path) -> None:
    tower = load_tower("tiny").network.state_dict()
    torch.save({name: 1.01 * weight for name, weight in tower.items()}, tmp_path / "other.pt")
    video = street / "videos" / "Fall" / "Fall_1.avi"
    code, _, err = score("--video", video, "--clip_ckpt", tmp_path / "other.pt")
    assert code == 2 and "was trained on image embeddings made with UNTRAINED tiny tower" in err
    assert "other.pt" in err and "Use the encoder of its training" in err


def test_missing_encoder_file_is_named(street: Path, command: Scorer, tmp_path: Path) -> None:
    content = torch.load(street / "ck" / "street.pth", weights_only=True)
    content["encoders"]["event"]["weights"] = "weights of lost.pt"
    torch.save(content, tmp_path / "a.pth")
    code, _, err = command("test", "--ckpt_path", tmp_path / "a.pth", "--video", street / "videos")
    assert code == 2 and "event embeddings made with weights of lost.pt" in err
    assert "Give its path with --event_ckpt" in err


def test_embeddings_of_another_encoder_are_refused(street: Path, score: Scorer) -> None:
    manifest = street / "event_thr_10" / "manifest.jsonl"
    before = manifest.read_text()
    records = [{**json.loads(line), "encoder": "0123456789abcdef"} for line in before.splitlines()]
    manifest.write_text("\n".join(map(json.dumps, records)))
    try:
        code, _, err = score()
    finally:
        manifest.write_text(before)
    assert code == 2 and "was trained on event embeddings made with" in err and "(hash 01234567)" in err


def test_bad_file_costs_only_itself(street: Path, score: Scorer, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    write_video(folder / "good.avi", 40, 1)
    write_video(folder / "<b>bold.avi", 40, 2)
    (folder / "bad.mp4").write_bytes(b"not a video")
    write_video(folder / "short.avi", 5, 3)
    code, out, err = score("--video", folder, "--threshold", "0")
    assert code == 1
    assert "bad.mp4: cannot be opened as a video" in err and "short.avi: the video has 5 frames" in err
    assert "good" in out and "0.0 – 1.6 s" in out
    results = tmp_path / "own_videos"
    assert (results / "good" / "events.json").is_file() and (results / "<b>bold" / "timeline.png").is_file()
    if not missing_packages():
        index = (results / "index.html").read_text()
        assert f"Open {results / 'index.html'}" in out
        assert "&lt;b&gt;bold" in index and "<b>bold" not in index and "bad: cannot be opened" in index
    code, _, err = score("--video", tmp_path / "none.mp4")
    assert code == 1 and "none.mp4: cannot be read (No such file or directory)" in err


def test_finished_videos_are_not_done_again(street: Path, score: Scorer, tmp_path: Path) -> None:
    video = street / "videos" / "Fall" / "Fall_1.avi"
    events = tmp_path / "own_videos" / "Fall_1" / "events.json"
    score("--video", video, "--threshold", "0.5")
    before = events.stat().st_mtime_ns
    code, out, _ = score("--video", video, "--threshold", "0.5")
    assert code == 0 and "Fall_1" in out and events.stat().st_mtime_ns == before
    score("--video", video, "--threshold", "0.4")
    assert json.loads(events.read_text())["threshold"]["value"] == 0.4


def test_other_formats_leave_standard_output_to_the_table(street: Path, score: Scorer) -> None:
    code, out, err = score("--video", street / "videos" / "Fall" / "Fall_1.avi", "--format", "csv")
    assert code == 0 and "UNTRAINED" in err and out.startswith("# Your own videos")


@pytest.mark.skipif(bool(missing_packages()), reason=missing_packages())
def test_annotated_copy_has_every_frame(street: Path, score: Scorer, tmp_path: Path) -> None:
    video, copy = street / "videos" / "Fall" / "Fall_1.avi", tmp_path / "annotated.mp4"
    code, _, err = score("--video", video, "--annotated", copy, "--threshold", "0")
    assert code == 0, err
    frames = [cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) for path in (video, copy)]
    assert frames[0] == frames[1] == 80
    frame = cv2.VideoCapture(str(copy)).read()[1]
    assert frame[3, 40, 2] > 180 and frame[3, 40, 0] < 110  # the red border of an event
    code, _, err = score("--video", street / "videos", "--annotated", copy)
    assert code == 2 and "--annotated writes one video, but --video names 8" in err


def test_missing_packages_are_named(
    street: Path, score: Scorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, _ = score("--video", street / "videos" / "Fall" / "Fall_1.avi")
    assert code == 0 and 'pip install ".[report]"' in out
    written = {path.name for path in (tmp_path / "own_videos" / "Fall_1").iterdir()}
    assert written == {"scores.csv", "events.json", "timeline.png", "timeline.pdf"}
