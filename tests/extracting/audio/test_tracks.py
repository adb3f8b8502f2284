"""Sound of each snippet: presentation times, formats, .wav files, damaged files."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from extracting.audio.segments import SAMPLE_RATE
from extracting.audio.tracks import fits, read_container, read_track, require_av, to_mono
from extracting.job.manifest import OUTCOMES
from extracting.video.frames import VideoError, snippet_count
from tests.conftest import snippet_count as counted
from tests.extracting.audio.helpers import clicks, heard, job_of, segments_of, steady, write_media, write_wav
from tests.extracting.video.helpers import write_frames
from vad.files import InputError


def test_closed_form_of_the_tail_rules() -> None:
    for frames in range(1100):
        for tail in ("whole", "released"):
            assert snippet_count(frames, tail) == counted(frames, tail), (frames, tail)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "pcm_s16le"), (".mp4", "aac"), (".avi", "pcm_s16le")])
def test_click_is_heard_in_the_snippet_of_its_frame(
    rate: int, channels: int, suffix: str, codec: str, tmp_path: Path
) -> None:
    # snippet k lasts from 0.64 k to 0.64 (k + 1) seconds
    sound = clicks(2.56, at=[1.6], rate=rate)
    path = write_media(tmp_path / f"a{suffix}", steady(64), sound, rate=rate, codec=codec, channels=channels)
    segments = segments_of(path, 4)
    assert [len(segment) for segment in segments] == [0.64 * SAMPLE_RATE] * 4
    assert heard(segments) == [2]
    peak = np.abs(segments[2]).argmax() / SAMPLE_RATE
    assert peak == pytest.approx(0.325, abs=0.007)  # the click lasts 10 ms


def test_samples_of_a_track_are_exact(tmp_path: Path) -> None:
    sound = np.random.RandomState(1).randint(-(2**15), 2**15, 32_000).astype(np.int16)
    path = write_media(tmp_path / "a.mkv", steady(50), sound)
    segments = segments_of(path, 3)
    assert np.array_equal(np.concatenate(segments), sound[: 3 * 10_240].astype(np.float32) / 2**15)


def test_resampled_tone_keeps_its_frequency_and_level(tmp_path: Path) -> None:
    tone = (16_000 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)).astype(np.int16)
    (segment,) = segments_of(write_media(tmp_path / "a.mkv", steady(17), tone, rate=48_000), 1)
    inner = segment[500:-500]
    expected = 16_000 / 2**15 * np.sin(2 * np.pi * 1000 * np.arange(len(segment)) / SAMPLE_RATE)[500:-500]
    assert np.abs(inner - expected).max() < 2e-3


def test_late_track_is_heard_late(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", steady(64), clicks(1.0, at=[0.0]), start=1.0)
    segments = segments_of(path, 4)
    assert heard(segments) == [1]
    assert np.flatnonzero(segments[1])[0] == pytest.approx(0.36 * SAMPLE_RATE, abs=20)


def test_track_that_begins_before_the_video_is_cut(tmp_path: Path) -> None:
    times = [time + 1 for time in steady(64)]
    path = write_media(tmp_path / "a.mkv", times, clicks(3.0, at=[0.5, 1.3]))
    segments = segments_of(path, 4)
    # the second click comes 0.3 s after the first frame
    assert heard(segments) == [0]
    assert np.flatnonzero(segments[0])[0] == pytest.approx(0.3 * SAMPLE_RATE, abs=20)


def test_variable_frame_rate_gives_segments_of_other_lengths(tmp_path: Path) -> None:
    # 16 frames in 0.32 s, 16 in 1.6 s, 16 in 0.64 s
    times = [*np.arange(16) * 0.02, *0.32 + np.arange(16) * 0.1, *1.92 + np.arange(17) * 0.04]
    path = write_media(tmp_path / "a.mkv", times, clicks(3.0, at=[1.7]))
    segments = segments_of(path, 3)
    assert [len(segment) for segment in segments] == [5_120, 25_600, 10_240]
    assert heard(segments) == [1]


def test_sound_outside_the_track_is_zero(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(-9000, 9000, 24_000).astype(np.int16)
    short = segments_of(write_media(tmp_path / "short.mkv", steady(64), noise), 4)
    assert short[2][3_519] and not short[2][3_520:].any() and not short[3].any()
    long = segments_of(write_media(tmp_path / "long.mkv", steady(20), noise), 1)
    assert len(long) == 1 and len(long[0]) == 10_240 and long[0][-1]


def test_gap_in_a_track_is_zero(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    whole = write_media(tmp_path / "whole.mkv", steady(64), clicks(2.56, at=[0.3, 1.0, 2.0]))
    with av.open(str(whole)) as source, av.open(str(tmp_path / "gap.mkv"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            time = packet.pts and float(packet.pts * packet.time_base)
            if packet.dts is not None and not (packet.stream.type == "audio" and time and 0.7 < time < 1.5):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    # the click at 1 s is lost, and the one at 2 s stays where it was
    assert heard(segments_of(whole, 4)) == [0, 1, 3] and heard(segments_of(tmp_path / "gap.mkv", 4)) == [0, 3]


def test_first_of_several_tracks_is_read(tmp_path: Path) -> None:
    tracks = clicks(2.56, at=[0.1]), clicks(2.56, at=[2.0])
    assert heard(segments_of(write_media(tmp_path / "a.mkv", steady(64), *tracks), 4)) == [0]


def test_video_without_samples_has_no_sound(tmp_path: Path) -> None:
    assert segments_of(write_media(tmp_path / "none.mkv", steady(32)), 2) is None
    assert segments_of(write_media(tmp_path / "zero.mkv", steady(32), np.zeros(0, np.int16)), 2) is None
    assert segments_of(write_media(tmp_path / "mute.mkv", steady(32), np.zeros(9_000, np.int16)), 2) is None
    after = write_media(tmp_path / "after.mkv", steady(32), clicks(1.0, at=[0.5]), start=1.5)
    assert segments_of(after, 2) is None
    write_wav(tmp_path / "none.wav", np.zeros(0, np.int16))
    assert segments_of(tmp_path / "none.mkv", 2) is None


def test_wav_beside_a_video_replaces_its_track(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.b.mkv", steady(64), clicks(2.56, at=[0.1]))
    from_track = segments_of(path, 4)
    write_wav(tmp_path / "a.b.wav", clicks(2.56, at=[0.1]))
    assert np.array_equal(np.concatenate(segments_of(path, 4)), np.concatenate(from_track))
    write_wav(tmp_path / "a.b.wav", clicks(2.56, at=[2.0], rate=44_100), rate=44_100)
    assert heard(segments_of(path, 4)) == [3]


def test_wav_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job_of(write_media(tmp_path / f"{name}.mkv", steady(32)), 2) for name in ("a", "b")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    write_wav(tmp_path / "a.wav", clicks(1.28, at=[1.0]))
    require_av(jobs[:1])
    assert heard(segments_of(jobs[0].path, 2)) == [1]
    with pytest.raises(InputError, match=r'b.mkv: .* needs the package av. Run: pip install ".\[sound\]", or .* b.wav'):
        require_av(jobs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_stereo_wav_is_the_mean_of_its_channels(dtype: type, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "v", [f"{k}.png" for k in range(20)])
    middle, scale = (128, 128) if dtype == np.uint8 else (0, 2**15)
    samples = np.random.RandomState(0).randint(0, 127, (16_000, 2)).astype(dtype)
    write_wav(tmp_path / "v.wav", samples)
    (segment,) = segments_of(frames, 1, fps=25)
    expected = ((samples.astype(float) - middle) / scale).mean(1)[:10_240]
    np.testing.assert_allclose(segment, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8"])
def test_samples_of_every_type_have_the_same_range(dtype: str) -> None:
    kind = np.dtype(dtype)
    low, high = (-1.0, 1.0) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    samples = to_mono(np.array([[low, low], [high, high]], kind))
    assert samples.dtype == np.float32 and samples == pytest.approx([-1, 1], abs=0.01)


def test_frame_folder_needs_a_wav_and_a_frame_rate(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v.1", [f"{k}.png" for k in range(40)])
    with pytest.raises(VideoError, match=r"give v.1.wav beside it"):
        segments_of(folder, 2, fps=10)
    write_wav(tmp_path / "v.1.wav", clicks(4.0, at=[2.0]))
    with pytest.raises(VideoError, match="give --fps"):
        segments_of(folder, 2)
    segments = segments_of(folder, 2, fps=10)
    assert [len(segment) for segment in segments] == [25_600, 25_600] and heard(segments) == [1]


def test_pictures_decide_where_packets_do_not_give_s(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    whole = write_media(tmp_path / "whole.mkv", steady(32), clicks(1.28, at=[0.1]))
    path = tmp_path / "broken.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            stream = streams[packet.stream.index]
            if packet.stream.type == "video" and packet.pts * packet.time_base > 1.22:  # the last frame
                broken = av.Packet(b"no picture" * 9)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = stream
            target.mux(packet)
    assert len(read_container(path).seconds) == 32
    # OpenCV decodes 31 frames
    track = read_track(job_of(path, 1), None)
    assert len(track.seconds) == 31 and fits(job_of(path, 1), 31) and heard(segments_of(path, 1)) == [0]


def test_damaged_time_stamps_are_refused(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "a.mkv", [*steady(12), *(90_000 + time for time in steady(12))], clicks(1.0, at=[0.1])
    )
    with pytest.raises(VideoError, match="a snippet lasts 90000 seconds"):
        segments_of(path, 1)


def test_frames_at_one_time_hear_a_whole_window(tmp_path: Path) -> None:
    times = [*np.arange(16) * 0.001, *np.arange(0.016, 0.6, 0.04)]
    path = write_media(tmp_path / "a.mkv", [*times, 0.7, 0.8], clicks(1.0, at=[0.1]))
    assert len(segments_of(path, 2)[0]) == 512


def damaged(path: Path, kind: str, seed: int) -> None:
    """Cut a file, or replace some of its bytes."""
    data, random = bytearray(path.read_bytes()), np.random.RandomState(seed)
    if kind == "cut":
        data = data[: random.randint(1, len(data))]
    else:
        for _ in range(random.randint(1, 60)):
            data[random.randint(64 if kind == "body" else 0, len(data))] = random.randint(256)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["cut", "body", "any"])
@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "pcm_s16le"), (".mp4", "aac"), (".avi", "mp3"), (".ts", "mp2")])
def test_damaged_file_has_an_outcome(kind: str, suffix: str, codec: str, tmp_path: Path) -> None:
    video = "mpeg2video" if suffix == ".ts" else "mjpeg"
    sound = clicks(2.56, at=np.arange(0, 2.5, 0.05), rate=48_000)
    whole = write_media(tmp_path / f"whole{suffix}", steady(64), sound, rate=48_000, codec=codec, video=video)
    for seed in range(int(os.environ.get("FUZZ_COPIES", 12))):
        path = tmp_path / f"{seed}{suffix}"
        shutil.copy(whole, path)
        damaged(path, kind, seed)
        try:
            track = read_track(job_of(path, 4), None)
            if fits(job_of(path, 4), len(track.seconds)):
                segments = segments_of(path, 4)
                assert segments is None or len(segments) == 4
        except VideoError as error:
            assert error.outcome in OUTCOMES


@pytest.mark.parametrize("kind", ["cut", "body", "any"])
def test_damaged_wav_has_an_outcome(kind: str, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "v", [f"{k}.png" for k in range(20)])
    for seed in range(40):
        damaged(write_wav(tmp_path / "v.wav", clicks(1.0, at=[0.2])), kind, seed)
        try:
            segments_of(frames, 1, fps=20)
        except VideoError as error:
            assert error.outcome in OUTCOMES
    (tmp_path / "v.wav").write_bytes(b"")
    with pytest.raises(VideoError, match="the file is empty"):
        segments_of(frames, 1, fps=20)
