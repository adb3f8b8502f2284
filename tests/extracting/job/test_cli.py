"""Extraction commands: printed output, written files and refused input."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from extracting.clip.encoder import Encoder
from extracting.clip.tower import load_tower
from extracting.job.cli import extract, parser, read_config
from extracting.job.manifest import Manifest
from tests.extracting.helpers import ROOT, command, hidden, write_video
from vad.datasets import load_dataset
from vad.files import InputError
from vad.options import parse_crops

UNTRAINED = ("--clip_ckpt", "untrained", "--event_ckpt", "untrained")


def gen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str | Path
) -> tuple[int, str]:
    """Run gen.py in this process and return its exit code and output."""
    monkeypatch.setattr(sys, "argv", ["gen.py", "--device", "cpu", *map(str, flags)])
    return extract(), capsys.readouterr().out


def test_gen_writes_what_its_dry_run_announces(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "both", "--video_dir", videos, "--crops", "5"]
    flags += ["--image_dir", tmp_path / "i", "--event_dir", tmp_path / "e"]
    code, output = gen(monkeypatch, capsys, *flags, "--dry_run")
    assert code == 0
    assert "dry run: no files are written" in output
    assert f"image → {tmp_path / 'i'}: 3 videos to embed, 0 to embed again, 0 finished" in output
    assert not (tmp_path / "i").exists()
    assert not (tmp_path / "e").exists()
    done = command("gen.py", *flags, *UNTRAINED, "--save_events", cwd=ROOT / "extracting")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'i'}: 3 videos written, 0 already finished" in done.stdout
    assert "UNTRAINED" in done.stdout
    assert len(list((tmp_path / "e").rglob("*__events.npz"))) == 3
    code, output = gen(monkeypatch, capsys, *flags, "--dry_run")
    assert f"event → {tmp_path / 'e'}: 0 videos to embed, 0 to embed again, 3 finished" in output


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--modality", "both", "--save_dir", "x"], "give --image_dir and --event_dir"),
        (["--modality", "both", "--image_dir", "x"], "--event_dir is missing"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "./x", *UNTRAINED], "both x. Give two"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "y"], "give it as --event_ckpt"),
        (["--modality", "image", "--save_dir", "x", "--save_events"], "--save_events writes event maps"),
        (["--modality", "image", "--save_dir", "x", "--time_limit", "0"], "--time_limit 0.0 must be at least 1"),
        (["--modality", "image", "--save_dir", "x", "--workers", "0"], "--workers 0 must be at least 1"),
        (["--modality", "image", "--save_dir", "x", "--fps", "0"], "--fps 0 must be above 0"),
        (["--modality", "image", "--save_dir", "x", "--crops", "11"], "crops are numbered 0 to 9"),
        (["--modality", "image", "--save_dir", "x", "--event_clamp", "0"], "--event_clamp 0"),
        (["--modality", "image", "--save_dir", "x", "--event_threshold", "300"], "--event_threshold 300"),
        (["--modality", "image", "--save_dir", "x", "--shard", "2/2"], "--shard 2/2 is not K/N"),
        (["--modality", "image", "--save_dir", "x", "--ray", "--device", "cpu"], "--device has no effect with --ray"),
    ],
)
def test_invalid_flags_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], sentence: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["gen.py", "--dataset", "ucfcrime", "--video_dir", str(tmp_path), *flags])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        extract()


def test_test_list_without_split_test_is_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--dataset", "ucfcrime", "--modality", "image", "--save_dir", str(tmp_path / "x")]
    flags += ["--video_dir", str(videos), "--test_list", "t"]
    monkeypatch.setattr(sys, "argv", ["gen.py", *flags])
    with pytest.raises(InputError, match="--test_list needs --split test"):
        extract()


def test_unsupported_opencv_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "__version__", "5.0.0")
    monkeypatch.setattr(sys, "argv", ["gen.py", "--dataset", "demo", "--modality", "image"])
    with pytest.raises(InputError, match=r'5\.0\.0.*Run: pip install "opencv-python-headless>=4\.10,<4\.13"'):
        extract()


def test_crop_lists_are_parsed() -> None:
    assert parse_crops("0..9") == tuple(range(10))
    assert parse_crops("5") == (5,)
    assert parse_crops("5, 0,5") == (0, 5)
    for invalid in ("10", "-1", "", "a", "0..12", "0..99999999999", "9..0", "1.5", "0,,1"):
        with pytest.raises(InputError, match=r"crops are numbered 0 to 9|the range is empty"):
            parse_crops(invalid)


def test_split_test_embeds_only_crop_5(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.txt").write_text("Abuse/a.b_x264.avi\nArson/gone.avi\n")
    table = 'name = "street"\nnormal = "Normal"\nclasses = ["Abuse", "Arson"]\nencoder = "tiny"\n'
    (tmp_path / "dataset.toml").write_text(table)
    (tmp_path / "annotations.csv").write_text("video,label,official,intervals\nc,Arson,test,0-9\n")
    flags = ["--dataset", tmp_path / "dataset.toml", "--modality", "image", "--clip_ckpt", "untrained"]
    flags += ["--video_dir", videos, "--save_dir", tmp_path / "out"]
    flags += ["--split", "test", "--test_list", tmp_path / "test.txt"]
    code, output = gen(monkeypatch, capsys, *flags)
    assert code == 1  # a test video is missing
    assert "--split test: 1 test videos (official split), crops 5, sufficient for evaluation" in output
    assert "1 test videos of the list were not found: gone" in output
    assert [path.name for path in (tmp_path / "out").rglob("*.npy")] == ["a.b_x264__5.npy"]


def test_shards_embed_every_video_once(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "image", "--video_dir", videos, "--save_dir", tmp_path / "out"]
    for shard, number in (("0/2", 2), ("1/2", 1)):
        code, output = gen(monkeypatch, capsys, *flags, "--shard", shard, "--crops", "5")
        assert code == 0
        assert f": {number} videos written, 0 already finished" in output
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 3


def test_failed_videos_are_reported_and_recorded(videos: Path, tmp_path: Path) -> None:
    (videos / "Arson" / "broken.mp4").write_bytes(b"not a video")
    write_video(videos / "Arson" / "short.avi", 10)
    out = tmp_path / "out"
    flags = ("--modality", "image", "--video_dir", videos, "--save_dir", out, "--crops", "5")
    done = command("extracting/gen.py", "--dataset", "demo", *flags)
    assert done.returncode == 1, done.stderr
    assert "3 videos written" in done.stdout
    assert "2 videos are not ok:" in done.stdout
    assert "not_video     Arson/broken.mp4  cannot be opened as a video" in done.stdout
    assert "too_short     Arson/short.avi   the video has 10 frames, but a snippet needs at least 16" in done.stdout
    assert len(list(out.rglob("*__5.npy"))) == 3
    outcomes = {line["name"]: line["outcome"] for line in map(json.loads, (out / "manifest.jsonl").open())}
    assert (outcomes["Arson/broken"], outcomes["Arson/short"]) == ("not_video", "too_short")


SCRIPTS = [f"{name}_gen_{suffix}.py" for name in ("ucf", "xd", "shang", "msad") for suffix in ("img", "event")]


@pytest.mark.parametrize("script", [*SCRIPTS, "msad_gen_image.py"])
def test_documented_scripts_print_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--save_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "extracting" / script), run_name="__main__")
    assert (stopped.value.code, (tmp_path / "out").exists()) == (2, False)
    error = capsys.readouterr().err
    assert error.startswith("error: --video_dir is missing. Give the folder of ")
    assert error.count("\n") == 1


def test_documented_script_runs_with_a_checkpoint(
    videos: Path, tmp_path: Path, tiny_encoders: dict[str, Encoder]
) -> None:
    weights = load_tower("tiny").network.state_dict()
    tensors = {f"encoder_k.{name}": value for name, value in weights.items()}
    torch.save({"checkpoint": tensors}, tmp_path / "event.pt")
    arguments = ("--video_dir", videos, "--save_dir", tmp_path / "event_thr_10", "--crops", "5")
    arguments += ("--profile", "released", "--clip_ckpt", tmp_path / "event.pt")
    done = command("ucf_gen_event.py", *arguments, "--event_threshold", "25", cwd=ROOT / "extracting")
    assert done.returncode == 0, done.stderr
    record = Manifest(tmp_path / "event_thr_10").records["Abuse/a.b_x264"]
    assert record.encoder == tiny_encoders["event"].hash
    # an explicit flag beats the profile, and the profile beats the default
    expected = {"tail": "released", "event_threshold": 25, "event_clamp": 16, "event_scaling": "block"}
    assert expected.items() <= record.settings.items()
    again = command("extracting/ucf_gen_event.py", *arguments)
    assert again.returncode == 2
    assert "made with event_threshold = 25" in again.stderr


def test_ctrl_c_exits_with_130(videos: Path, tmp_path: Path) -> None:
    write_video(videos / "long.avi", 16 * 60)
    process = subprocess.Popen(
        [sys.executable, "extracting/gen.py", "--dataset", "demo", "--modality", "both",
         "--video_dir", str(videos), "--image_dir", str(tmp_path / "i"), "--event_dir", str(tmp_path / "e")],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "i" / "manifest.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # to the whole process group, as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    expected = "Interrupted. Finished work is saved. Run the same command again to resume."
    assert error.rstrip().endswith(expected)
    assert "Traceback" not in error
    assert hidden(tmp_path / "i") == hidden(tmp_path / "e") == []


def test_frame_rate_is_the_data_sets_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    ped2 = load_dataset("ped2")
    for flags, expected in (([], ped2.fps), (["--fps", "25"], 25.0)):
        monkeypatch.setattr(sys, "argv", ["gen.py", "--dataset", "ped2", "--modality", "both", *flags])
        assert read_config(parser(None, None).parse_args(), ("image", "event"), ped2).fps == expected
