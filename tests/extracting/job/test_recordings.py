"""Runs over event-camera recordings: the embeddings of a video's events, files, resuming and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from extracting.clip.encoder import Encoder
from extracting.job.cli import extract
from extracting.job.manifest import Manifest
from extracting.job.videos import find_videos
from extracting.own.videos import embed_own_videos
from extracting.video.config import Config
from tests.extracting.helpers import BOTH, Sums, contents, events_of, make
from vad.files import InputError

EVENT = ("event",)


def write_recording(path: Path, video: Path, threshold: int = 3, fps: float = 25) -> Path:
    """Write the events of a video as a recording with times in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = events_of(video, threshold)
    np.savez(path, x=events["x"], y=events["y"], t=events["n"] / fps, p=events["x"] > 9, width=340, height=256)
    return path


@pytest.fixture
def recordings(videos: Path, tmp_path: Path) -> Path:
    """Recordings of the events of three videos, in the same class folders."""
    root = tmp_path / "recordings"
    for video in videos.rglob("*.avi"):
        write_recording(root / video.relative_to(videos).with_suffix(".npz"), video)
    return root


def test_embeddings_equal_those_of_the_video(
    videos: Path, recordings: Path, tmp_path: Path, tiny_encoders: dict[str, Encoder]
) -> None:
    """Embeddings and saved event maps have the same bytes, and the manifest records the frame rate."""
    for scaling in ("clamp", "block"):
        options = {"encoders": tiny_encoders, "modalities": EVENT, "save_events": True, "event_scaling": scaling}
        make(videos, tmp_path / scaling / "v", **options)
        make(recordings, tmp_path / scaling / "r", **options, fps=25)
        found = contents(tmp_path / scaling / "r")
        assert len(found) == 9  # two crops and the event maps of three recordings
        assert found == contents(tmp_path / scaling / "v")
    record = Manifest(tmp_path / "clamp" / "r" / "event").records["Abuse/a.b_x264"]
    assert (record.video, record.outcome, record.reason) == ("Abuse/a.b_x264.npz", "ok", "")
    assert (record.frames, record.declared, record.fps, record.snippets) == (50, None, 25, 3)
    assert record.settings["recording_fps"] == 25
    assert "recording_fps" not in Manifest(tmp_path / "clamp" / "v" / "event").records["d"].settings


def test_finished_recordings_are_kept_at_the_same_frame_rate(recordings: Path, tmp_path: Path) -> None:
    make(recordings, tmp_path / "out", modalities=EVENT)
    assert make(recordings, tmp_path / "out", modalities=EVENT, fps=30).todo == []  # the default
    with pytest.raises(InputError, match=r"made with recording_fps = 30\.0 .*this run uses 25"):
        make(recordings, tmp_path / "out", modalities=EVENT, fps=25)
    done = make(recordings, tmp_path / "out", modalities=EVENT, fps=25, crops=(5,), overwrite=True)
    assert len(done.summary.done["event"]) == 3
    assert Manifest(tmp_path / "out" / "event").records["d"].crops == [5]  # crop 0 was made at another rate


def test_frame_rate_of_videos_does_not_matter(videos: Path, tmp_path: Path) -> None:
    make(videos, tmp_path / "out", modalities=EVENT)
    assert make(videos, tmp_path / "out", modalities=EVENT, fps=12).todo == []


def test_invalid_recording_costs_only_itself(recordings: Path, tmp_path: Path) -> None:
    (recordings / "Arson" / "cut.npz").write_bytes((recordings / "d.npz").read_bytes()[:5000])
    np.savez(recordings / "Arson" / "none.npz", labels=np.zeros(3))
    (recordings / "Arson" / "zero.h5").touch()
    done = make(recordings, tmp_path / "out", modalities=EVENT, fps=25)
    outcomes = {record.name: record.outcome for record in done.summary.done["event"]}
    invalid = {"Arson/cut": "damaged", "Arson/none": "not_video", "Arson/zero": "empty"}
    assert outcomes == {**invalid, "Abuse/a.b_x264": "ok", "Arson/c": "ok", "d": "ok"}
    assert len(contents(tmp_path / "out")) == 6


def test_event_maps_on_disk_are_no_recordings(videos: Path, tmp_path: Path) -> None:
    make(videos, videos / "out", modalities=EVENT, save_events=True)
    assert len(list(videos.rglob("*.npz"))) == 3
    assert len(find_videos(videos)) == 3


def test_video_and_recording_of_one_name_are_refused(videos: Path, recordings: Path) -> None:
    """It would be unclear whether the events are synthetic."""
    (recordings / "d.npz").rename(videos / "d.npz")
    jobs = {job.video: job.outcome for job in find_videos(videos)}
    assert (jobs["d.avi"], jobs["d.npz"], jobs["Arson/c.avi"]) == ("same_name", "same_name", "")


def test_frame_folder_with_an_array_is_one_video(tmp_path: Path) -> None:
    """So is a frame folder that is named like a recording."""
    for name in ("a", "b.npz"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "001.jpg").touch()
    np.savez(tmp_path / "v" / "a" / "labels.npz", labels=np.zeros(3))
    jobs = {job.video: job.is_recording for job in find_videos(tmp_path / "v")}
    assert jobs == {"a": False, "b.npz": False}


@pytest.mark.parametrize("modality", ["image", "both"])
def test_images_of_recordings_are_refused(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    flags = ["--dataset", "demo", "--modality", modality, "--video_dir", str(recordings)]
    flags += ["--image_dir", str(tmp_path / "i"), "--event_dir", str(tmp_path / "e"), "--event_ckpt", "untrained"]
    monkeypatch.setattr(sys, "argv", ["gen.py", *flags])
    with pytest.raises(InputError, match=r"a\.b_x264\.npz is an event-camera recording and has no images\. Give --mod"):
        extract()
    assert not (tmp_path / "i").exists()


def test_own_recording_has_only_events(videos: Path, recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d\.npz is an event-camera recording and has no images"):
        embed_own_videos([recordings / "d.npz"], dict.fromkeys(BOTH, Sums()), tmp_path / "own", Config((5,)))
    (own,) = embed_own_videos([recordings / "d.npz"], {"event": Sums()}, tmp_path / "own", Config((5,)))
    assert own.is_recording and np.load(own.embeddings["event"][5]).shape == (1, 8)


def test_command_embeds_recordings_and_prints_notes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = events_of(videos / "d.avi", 10)
    (tmp_path / "r").mkdir()
    np.savez(tmp_path / "r" / "d.npz", x=events["x"], y=events["y"], t=events["n"] / 25)
    flags = ["--dataset", "demo", "--modality", "event", "--crops", "5", "--event_ckpt", "untrained", "--fps", "25"]
    for name, folder in (("v", videos), ("r", tmp_path / "r")):
        folders = ["--video_dir", str(folder), "--save_dir", str(tmp_path / name / "out")]
        monkeypatch.setattr(sys, "argv", ["gen.py", "--device", "cpu", *flags, *folders])
        assert extract() == 0
    note = "the file stores no sensor size; its largest coordinates give 340×256 pixels"
    assert f"1 videos have a note in the manifest; d.npz: {note}" in capsys.readouterr().out
    lines = (tmp_path / "r" / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [note]
    one, other = (np.load(tmp_path / name / "out" / "d__5.npy") for name in ("v", "r"))
    assert np.array_equal(one, other)
