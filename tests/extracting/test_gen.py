"""gen.py and what its flags add: both modalities from one pass, the test split, a dry run, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extracting import planning
from extracting.doors import extract
from extracting.encoder import Encoder
from extracting.flags import read_request
from extracting.manifest import Manifest
from extracting.videos import find_videos, pick_test_videos
from tests.extracting.helpers import BOTH, ROOT, command, contents, make, write_video
from vad.catalog import MSAD, SHANG
from vad.errors import InputError


def door(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str | Path) -> tuple[int, str]:
    """Exit code and output of gen.py, without a process of its own."""
    monkeypatch.setattr(planning, "_SECONDS", 0.05)
    monkeypatch.setattr(sys, "argv", ["gen.py", "--device", "cpu", *map(str, flags)])
    return extract(None), capsys.readouterr().out


def test_one_pass_writes_what_two_would(videos: Path, tmp_path: Path, encoders: dict[str, Encoder]) -> None:
    done = make(videos, tmp_path / "both", encoders)
    for modality in BOTH:
        make(videos, tmp_path / "apart", encoders, (modality,))
    both = contents(tmp_path / "both")
    assert len(both) == 12  # three videos, two modalities, two crops
    assert both == contents(tmp_path / "apart")
    assert done.summary.frames == 16 * 6  # decoded once, not twice


def test_a_video_finished_in_one_folder_is_decoded_for_the_other_alone(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder]
) -> None:
    make(videos, tmp_path / "out", encoders, ("image",))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npy")}
    (tmp_path / "out" / "image" / "d__0.npy").unlink()
    second = make(videos, tmp_path / "out", encoders)
    wanted = {job.name: job.modalities for job in second.todo}
    assert wanted == {"Abuse/a": ("event",), "Arson/c": ("event",), "d": BOTH}
    for path, stamp in before.items():
        assert path.name.startswith("d__") or path.stat().st_mtime_ns == stamp


def test_the_door_makes_both_and_tells_what_it_would_do(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "both", "--video_dir", videos]
    flags += ["--image_dir", tmp_path / "i", "--event_dir", tmp_path / "e", "--crops", "5"]
    code, said = door(monkeypatch, capsys, *flags, "--dry_run")
    assert code == 0
    assert not (tmp_path / "i").exists()
    assert not (tmp_path / "e").exists()
    # 50, 32 and 17 frames are 3 + 2 + 1 snippets; an image snippet takes 16 forward passes, an event map one
    assert "3 videos to make, 0 that failed before, 0 finished" in said
    assert "6 snippets · 96 forward passes · 1.9 KB of files" in said  # 6 rows of 64 float32, 3 headers
    assert "6 snippets · 6 forward passes" in said
    assert "99 frames promised" in said
    done = command("gen.py", *flags, "--save_events", cwd=ROOT / "extracting")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'i'}: 3 videos written, 0 were finished before" in done.stdout
    assert len(list((tmp_path / "e").rglob("*__events.npz"))) == 3
    records = [Manifest(tmp_path / folder).records["Abuse/a"] for folder in ("i", "e")]
    assert [record.settings["modality"] for record in records] == ["image", "event"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--modality", "both", "--save_dir", "x"], "give --image_dir and --event_dir"),
        (["--modality", "both", "--image_dir", "x"], "--event_dir is missing"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "./x"], "both x; files of one name"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "y"], "give its path as --event_ckpt"),
        (["--modality", "image", "--save_dir", "x", "--save_events"], "--save_events writes event maps"),
        (["--modality", "image", "--save_dir", "x", "--time_limit", "0"], "--time_limit 0.0: at least 1"),
        (["--modality", "image", "--save_dir", "x", "--test_list", "t"], "--split test; add that"),
        (["--modality", "image", "--save_dir", "x", "--crops", "11"], "crops are numbered 0 to 9"),
    ],
)
def test_flags_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], sentence: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["gen.py", "--dataset", "ucfcrime", "--video_dir", str(tmp_path), *flags])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_request(None, None)


def test_split_test_takes_the_test_videos(tmp_path: Path, realdata: Path) -> None:
    """MSAD's release lists 241 test videos; the official split gives Robbery_10 back to training."""
    names = ["Robbery_10", "Robbery_11", "MSAD_normal_testing_000", "Nobody_1"]
    listed = (realdata / "annotations" / "msad_test_list.txt").read_text()
    present = [name for name in names if name in listed]
    assert "Robbery_10" in present
    for name in names:
        write_video(tmp_path / "v" / "C" / f"{name}.avi", 16)
    jobs = find_videos(tmp_path / "v")
    own = realdata / "annotations" / "msad_test_list.txt"
    for split, number in (("released", 241), ("official", 240)):
        chosen, missing = pick_test_videos(jobs, MSAD, split, own)
        wanted = [name for name in present if split == "released" or name != "Robbery_10"]
        assert [job.path.stem for job in chosen] == sorted(wanted)
        assert len(chosen) + len(missing) == number


def test_split_test_without_a_list_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 16)
    with pytest.raises(InputError, match=r"--split test: .* is missing, which names ShanghaiTech's test videos"):
        pick_test_videos(find_videos(tmp_path), SHANG, "official", tmp_path / "none.txt")


def test_split_test_takes_crop_5_and_says_so(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.txt").write_text("Abuse/a.avi\nArson/gone.avi\n")
    flags = ["--dataset", "demo", "--modality", "image", "--video_dir", videos, "--save_dir", tmp_path / "out"]
    code, said = door(monkeypatch, capsys, *flags, "--split", "test", "--test_list", tmp_path / "test.txt")
    assert code == 1  # a test video is missing
    assert "--split test: 1 test videos (official split), crops 5; the evaluation needs no more" in said
    assert "1 videos of the test list are not below" in said
    assert "gone" in said
    assert [path.name for path in (tmp_path / "out").rglob("*.npy")] == ["a__5.npy"]


def test_ctrl_c_in_a_terminal_ends_a_command_with_130(videos: Path, tmp_path: Path) -> None:
    write_video(videos / "long.avi", 16 * 30)
    process = subprocess.Popen(
        [sys.executable, "extracting/gen.py", "--dataset", "demo", "--modality", "both", "--video_dir", str(videos),
         "--image_dir", str(tmp_path / "i"), "--event_dir", str(tmp_path / "e")],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (tmp_path / "i" / "manifest.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.rstrip().endswith("stopped: what was finished is kept; the same command continues from there")
    assert "Traceback" not in told
    assert not list(tmp_path.rglob(".unfinished"))
