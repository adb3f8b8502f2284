"""`test.py --live` as a user runs it: lines of JSON on stdout, notes on stderr, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.own.answers import TrainedModel, answer_live
from extracting.video.live import LiveSnippet
from model import IEFVAD, save_checkpoint
from tests.conftest import ROOT
from tests.extracting.camera import Camera
from tests.extracting.helpers import write_video

WEIGHTS = ["--clip_ckpt", "untrained", "--event_ckpt", "untrained"]
KEYS = [
    "snippet", "time", "seconds", "score", "weight_image", "weight_event", "alarm", "frames_dropped", "reconnects",
    "delay",
]  # fmt: skip


def checkpoint(folder: Path, **options: str) -> Path:
    """Write an untrained network for the encoders of the demo."""
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=64, num_refinement_steps=1, **options)
    save_checkpoint(folder / "demo.pth", model, options={"dataset": "demo", **options}, seed=0)
    return folder / "demo.pth"


def test_a_file_is_scored_line_by_line(command, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", 36)
    flags = ["--ckpt_path", checkpoint(tmp_path), "--live", video, *WEIGHTS]
    code, out, err = command("test", *flags, "--threshold", "0")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [list(line) for line in lines] == [KEYS, KEYS]
    assert [line["snippet"] for line in lines] == [0, 1] and all(line["alarm"] for line in lines)
    assert [line["seconds"] for line in lines] == pytest.approx([0.64, 1.28], abs=0.2)
    assert all(abs(line["weight_image"] + line["weight_event"] - 1) < 1e-5 for line in lines)
    assert abs((datetime.fromisoformat(lines[0]["time"]) - datetime.now().astimezone()).total_seconds()) < 60
    assert "UNTRAINED" in err and "2 snippets · 0 frames dropped · 0 reconnects · delay median" in err


class Reconnected:
    """A live source of three snippets: a, b, and after a gap a again."""

    started = frames_dropped = reconnects = 0

    def __iter__(self) -> Iterator[LiveSnippet]:
        for number, seed in enumerate((0, 1, 0)):
            frames = np.random.default_rng(seed).integers(0, 64 << seed, (16, 256, 340, 3), np.uint8)
            yield LiveSnippet(number, frames, 0.0, number == 2)

    def __enter__(self) -> Reconnected:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_scoring_starts_anew_after_a_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = dict.fromkeys(("image", "event"), "untrained")
    trained = TrainedModel.open(checkpoint(tmp_path), {}, weights, None, torch.device("cpu"), sys.stderr)
    answer_live(trained, Reconnected())
    first, second, after_gap = (json.loads(line)["score"] for line in capsys.readouterr().out.splitlines())
    assert first == after_gap != second


@pytest.mark.parametrize(("options", "weights"), [
    ({"modality": "image"}, ["weight_image"]), ({"modality": "event"}, ["weight_event"]), ({"fusion": "concat"}, []),
])  # fmt: skip
def test_a_line_has_the_weights_of_its_streams(command, tmp_path: Path, options, weights) -> None:
    video = write_video(tmp_path / "a.avi", 16)
    code, out, err = command("test", "--ckpt_path", checkpoint(tmp_path, **options), "--live", video, *WEIGHTS)
    assert code == 0, err
    (line,) = map(json.loads, out.splitlines())
    assert [key for key in line if key.startswith("weight")] == weights and line["alarm"] == (line["score"] >= 0.5)


def test_wrong_use_is_one_sentence(command, tmp_path: Path) -> None:
    video, path = write_video(tmp_path / "a.avi", 9), checkpoint(tmp_path)
    for flags, sentence in {
        ("--live", tmp_path / "none.mp4"): "none.mp4: the file does not exist",
        ("--live", "98"): "camera 98 cannot be opened",
        ("--live", video): "a.avi: the video has 9 frames",
        ("--live", video, "--video", video): "--video and --live make different results",
        ("--live", video, "--ckpt_path", path, path): "--live takes one checkpoint",
    }.items():
        code, out, err = command("test", "--ckpt_path", path, *flags, *WEIGHTS)
        assert (code, out) == (2, "") and err.count("error: ") == 1 and sentence in err


def test_ctrl_c_ends_a_stream_with_a_summary(tmp_path: Path) -> None:
    camera = Camera(fps=50)
    camera.cut_after = 40
    flags = ["--ckpt_path", checkpoint(tmp_path, modality="event"), "--live", camera.url, *WEIGHTS]
    process = subprocess.Popen(
        [sys.executable, "test.py", *map(str, flags)], cwd=ROOT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]  # the stream is cut in between
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=30)
    finally:
        process.kill()
        camera.close()
    assert process.returncode == 0, err
    lines += [json.loads(line) for line in rest.splitlines()]
    assert all(b["snippet"] > a["snippet"] for a, b in pairwise(lines))
    assert lines[3]["reconnects"] >= 1 and lines[3]["frames_dropped"] >= 8
    assert "no further frame after 40 frames; next attempt in 0.5 seconds" in err and "connected again" in err
    assert f"{len(lines)} snippets · " in err and "Traceback" not in err and "secret" not in err
