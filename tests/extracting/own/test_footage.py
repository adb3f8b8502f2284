"""The second pass: times, pictures, event maps, and H.264 copies that agree with the video frame by frame."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from extracting.own.footage import ShownScores, annotate, view
from extracting.video.config import Config
from extracting.video.frames import Video
from tests.extracting.helpers import events_of, write_video

av = pytest.importorskip("av", reason='needs pip install ".[report]"')
CENTRE = Config(crops=(5,))


def shown(snippets: int, threshold: float = 0.5) -> ShownScores:
    values = np.linspace(0.1, 0.9, snippets)
    return ShownScores(values, values >= threshold, threshold)


def greys(path: Path) -> list[float]:
    """Return the mean grey value of each frame."""
    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


def test_event_maps_and_times_are_those_of_the_extraction(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 40)
    footage = view(path, {0, 1}, shown(2), CENTRE)
    snippets = list(Video(path).snippets())
    previous = [frame.astype(np.float64) @ [0.1140, 0.5870, 0.2989] for frame in snippets[1]]
    expected = sum(1 * (np.abs(b - a) > CENTRE.event_threshold) for a, b in pairwise(previous))
    assert (footage.event_maps[1] != expected).mean() < 1e-4  # rounding at the threshold
    rate = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)
    assert footage.times == pytest.approx([0, 16 / rate, 32 / rate], abs=1e-3)
    assert footage.pictures[1].shape[2] == 3 and footage.note == ""


def variable_rate_video(path: Path) -> list[float]:
    """Write 48 frames whose distances grow from 1/30 to 1/10 second; return their times."""
    times = np.cumsum(np.linspace(1 / 30, 1 / 10, 48)) - 1 / 30
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * k, np.uint8), format="bgr24")
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return times.tolist()


def test_times_follow_a_variable_frame_rate(tmp_path: Path) -> None:
    times = variable_rate_video(tmp_path / "phone.mp4")
    footage = view(tmp_path / "phone.mp4", {}, shown(3), CENTRE, preview=tmp_path / "copy.mp4")
    assert footage.times[:3] == pytest.approx([times[0], times[16], times[32]], abs=2e-3)
    assert footage.times[3] == pytest.approx(times[47], abs=0.1)  # the end of the last frame is not stored
    with av.open(str(tmp_path / "copy.mp4")) as container:
        copied = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert copied == pytest.approx(times, abs=2e-3)
    assert greys(tmp_path / "copy.mp4") == pytest.approx(greys(tmp_path / "phone.mp4"), abs=3)


def test_folder_of_frames_has_the_given_rate(tmp_path: Path) -> None:
    for number in range(32):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), np.full((48, 64, 3), 5 * number, np.uint8))
    footage = view(tmp_path, {1}, shown(2), Config(crops=(5,), fps=10), preview=tmp_path / "copy.mp4")
    assert footage.times == pytest.approx([0, 1.6, 3.2])
    assert footage.pictures[1].mean() == pytest.approx(5 * 24, abs=1)  # the middle frame of snippet 1
    assert len(greys(tmp_path / "copy.mp4")) == 32


def test_copies_appear_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.avi", 40)

    def fail(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr("extracting.own.footage.annotate", fail)
    with pytest.raises(KeyboardInterrupt):
        view(path, {}, shown(2), CENTRE, preview=tmp_path / "p.mp4", annotated=tmp_path / "a.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["a.avi"]


def test_annotation_shows_score_threshold_and_event() -> None:
    frame = np.full((180, 320, 3), 128, np.uint8)
    scores = ShownScores(np.array([0.25, 0.75]), np.array([False, True]), 0.5)
    calm, alarm = annotate(frame, scores, 0), annotate(frame, scores, 1)
    assert (frame == 128).all()  # the frame itself is not drawn on
    bar = calm[178]
    assert (bar[200:300] == bar[300]).all() and (bar[60:79] != bar[300]).any()  # filled to a quarter, 80 pixels
    assert (bar[159:162] == 255).all(1).any()  # the threshold
    assert (alarm[3, 100] == (50, 50, 230)).all() and (calm[3, 100] == 128).all()  # red border inside an event
    assert (calm[20:150, 20:300] == 128).all()


def test_recording_gives_event_maps_without_pictures(tmp_path: Path) -> None:
    events = events_of(write_video(tmp_path / "a.avi", 40), 10)
    microseconds = np.rint(events["n"] * 1e6 / 30).astype(np.int64)
    np.savez(tmp_path / "camera.npz", x=events["x"], y=events["y"], t=microseconds, width=340, height=256)
    footage = view(tmp_path / "camera.npz", {1}, shown(2), Config(crops=(5,), fps=30), preview=tmp_path / "p.mp4")
    assert footage.pictures == {} and footage.event_maps[1].shape == (256, 340)
    assert footage.times == pytest.approx([0, 16 / 30, 32 / 30]) and not (tmp_path / "p.mp4").exists()
