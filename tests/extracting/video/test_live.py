"""Live sources: snippets without gaps, counted losses, reconnects; over real HTTP on loopback."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from extracting.own.live import SnippetEncoder
from extracting.own.videos import embed_own_videos
from extracting.video import live
from extracting.video.config import Config
from extracting.video.live import LiveSnippet, LiveSource
from tests.extracting.camera import NUMBERS, Camera
from tests.extracting.helpers import BOTH, Sums, write_video
from vad.files import InputError


@pytest.fixture
def camera(monkeypatch) -> Iterator[Camera]:
    """Return a camera that is tried again after 20 milliseconds."""
    monkeypatch.setattr(live, "FIRST_WAIT", 0.02)
    camera = Camera()
    yield camera
    camera.close()


def numbers(snippet: LiveSnippet) -> np.ndarray:
    """Return the frame numbers modulo 110 of a snippet."""
    return (snippet.frames[:, 100, 100, 0].astype(int) - 8 + 1) // 2


def read(source: LiveSource, connections: int) -> list[LiveSnippet]:
    """Return the snippets up to the first one after so many connections."""
    snippets = []
    for snippet in source:
        snippets.append(snippet)
        if source.reconnects >= connections - 1 and snippet.after_gap:
            return snippets
        if time.monotonic() > source.started + 60 + connections:
            break
    raise AssertionError("the stream was not opened again")


# IEFVAD_CUTS=50 is the long run
def test_no_snippet_contains_a_gap(camera: Camera, capsys) -> None:
    cuts = int(os.environ.get("IEFVAD_CUTS", 4))
    camera.cut_after = 40  # 2 snippets and 8 frames
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with LiveSource(camera.url) as source:
        snippets = read(source, cuts + 1)
    assert len(snippets) == 2 * cuts + 1
    for snippet in snippets:
        n = numbers(snippet)
        assert ((n - n[0]) % NUMBERS == np.arange(16)).all()  # 16 consecutive frames
    assert [s.number for s in snippets] == list(range(2 * cuts + 1))
    assert [s.after_gap for s in snippets] == [k > 0 and k % 2 == 0 for k in range(2 * cuts + 1)]
    first, second, third = (numbers(s)[0] for s in snippets[:3])
    assert (second - first) % NUMBERS == 16 and (third - second) % NUMBERS >= 16 + 8 + 7
    assert source.reconnects == cuts and source.frames_dropped == 8 * cuts
    notes = capsys.readouterr().err
    assert notes.count("no further frame after 40 frames; next attempt in 0.02 seconds") >= cuts
    assert notes.count("connected again") == cuts and "secret" not in notes
    del source
    camera.close()
    time.sleep(0.1)
    assert threading.active_count() <= threads and len(os.listdir("/proc/self/fd")) <= descriptors + 2


def test_silent_stream_is_opened_again(camera: Camera, monkeypatch) -> None:
    assert live.TIMEOUT + 1 <= 5  # a reader notices a silent source within 5 seconds
    monkeypatch.setattr(live, "TIMEOUT", 1)
    camera.silent_after = 20
    with LiveSource(camera.url) as source:
        first, second = read(source, 2)
    assert 1 < second.arrived - first.arrived < 3
    assert second.after_gap and source.frames_dropped == 21 % 16


def test_stream_of_growing_pictures_is_opened_again(camera: Camera) -> None:
    """OpenCV would repeat the last small picture for ever."""
    camera.grow_after, camera.cut_after = 20, 10**9
    with LiveSource(camera.url) as source:
        _, second = read(source, 2)
    n = numbers(second)
    assert ((n - n[0]) % NUMBERS == np.arange(16)).all() and camera.connections == 2


def test_slow_consumer_loses_whole_oldest_snippets(camera: Camera) -> None:
    camera.interval = 1 / 400
    with LiveSource(camera.url) as source:
        snippets, delays = [], []
        for snippet in source:
            snippets.append(snippet)
            time.sleep(0.3)  # a snippet arrives every 0.04 s or a little more
            delays.append(time.monotonic() - snippet.arrived)
            if len(snippets) == 6:
                break
        dropped = source.frames_dropped
    for snippet in snippets:
        n = numbers(snippet)
        assert ((n - n[0]) % NUMBERS == np.arange(16)).all()
    gaps = np.diff([s.number for s in snippets])
    assert (gaps >= 1).all() and gaps.max() > 2
    # those dropped before the last snippet, and at most what 0.3 s bring after it
    assert 16 * (gaps - 1).sum() <= dropped <= 16 * ((gaps - 1).sum() + 10)
    assert max(delays[1:]) < 2 * 0.3 + 0.3  # two waiting snippets cannot become old
    assert not any(s.after_gap for s in snippets)


def test_a_gap_is_reported_although_its_snippet_is_dropped() -> None:
    source = LiveSource("http://127.0.0.1:1/")
    for number in range(4):
        source._put(np.zeros(0), after_gap=number == 1)
    source._ended = True
    assert [(s.number, s.after_gap) for s in source] == [(2, True), (3, False)]
    assert source.frames_dropped == 32


def test_damaged_pictures_do_not_end_the_run(camera: Camera) -> None:
    camera.corrupt, camera.cut_after = 0.0005, 100
    with LiveSource(camera.url) as source:
        snippets = list(itertools.islice(source, 12))
    assert [s.number for s in snippets] == sorted({s.number for s in snippets})
    assert all(s.frames.shape == (16, 256, 340, 3) for s in snippets)


def test_waits_double_up_to_half_a_minute(monkeypatch, capsys) -> None:
    class Waits:
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def wait(self, seconds: float) -> None:
            self.seconds.append(seconds)

        def is_set(self) -> bool:
            return len(self.seconds) == 9

        def set(self) -> None:
            pass

    source = LiveSource("rtsp://user:secret@127.0.0.1:1/")
    monkeypatch.setattr(source, "_open", lambda: cv2.VideoCapture())
    source._stop = waits = Waits()
    with source:
        assert list(source) == []
    assert waits.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    notes = capsys.readouterr().err.splitlines()
    assert notes[0] == "rtsp://127.0.0.1:1/: cannot be opened; next attempt in 0.5 seconds"
    assert len(notes) == 7 and "30 seconds" in notes[-1]  # one note for each longer wait


def test_file_is_delivered_at_its_frame_rate(tmp_path: Path) -> None:
    with LiveSource(str(write_video(tmp_path / "a.avi", 40))) as source:  # 25 frames per second
        arrived = [snippet.arrived - source.started for snippet in source]
    assert arrived == pytest.approx([0.64, 1.28], abs=0.15)
    assert source.frames_dropped == source.reconnects == 0


def test_embeddings_of_a_file_equal_those_of_extraction(tmp_path: Path, tiny_encoders) -> None:
    video = write_video(tmp_path / "a.avi", 40)
    for encoders in (tiny_encoders, dict.fromkeys(BOTH, Sums())):
        config = Config(crops=(5,))
        encode = SnippetEncoder(encoders, config)
        with LiveSource(str(video)) as source:
            rows = [encode(snippet.frames) for snippet in source]
        (own,) = embed_own_videos([video], encoders, tmp_path / "own", config)
        for name in BOTH:
            expected = torch.from_numpy(np.load(own.embeddings[name][5]))
            assert len(expected) == 2 and expected.std(0).max() > 0
            torch.testing.assert_close(torch.stack([row[name] for row in rows]), expected, rtol=1e-6, atol=1e-6)


def test_wrong_source_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no video")
    for source, sentence in {
        tmp_path / "none.mp4": "the file does not exist",
        tmp_path / "no.mp4": "cannot be opened as a video",
        tmp_path / "events.h5": "is an event-camera recording and has no frames",
        97: "camera 97 cannot be opened",
        "/dev/video97": "camera /dev/video97 cannot be opened",
    }.items():
        with pytest.raises(InputError, match=sentence):
            LiveSource(str(source))
    short = write_video(tmp_path / "short.avi", 9)
    with pytest.raises(InputError, match="the video has 9 frames, but a snippet needs at least 16"):  # noqa: SIM117
        with LiveSource(str(short)) as source:
            list(source)
