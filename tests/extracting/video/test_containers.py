"""Truncated videos are "short" and complete videos are not, for all containers."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from extracting.video.containers import expected_frames
from extracting.video.frames import Video, VideoError
from tests.extracting.video.helpers import outcome_of, write_video


def reason_of(path: Path) -> str:
    """Return the reason of a short video."""
    video = Video(path)
    for _ in video.snippets():
        pass
    outcome, reason = video.check_completeness()
    assert outcome == "short"
    return reason


def cut(path: Path, fraction: float = 0.7) -> Path:
    """Write a truncated copy of a file."""
    data = path.read_bytes()
    copy = path.with_stem(f"cut_{path.stem}")
    copy.write_bytes(data[: int(fraction * len(data))])
    return copy


def patch(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("rb+") as file:
        file.seek(at)
        file.write(data)


def test_avi_with_too_many_declared_frames_is_short(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 40)
    data = path.read_bytes()
    patch(path, data.index(b"strh") + 8 + 32, struct.pack("<I", 50))  # length in the stream header
    assert outcome_of(path) == ("short", 40, 50)
    reason = "only 40 of the 50 frames in the container can be decoded; copy the video again"
    assert reason_of(path) == reason


def test_truncated_avi_is_short(tmp_path: Path) -> None:
    outcome, frames, declared = outcome_of(cut(write_video(tmp_path / "a.avi", 60)))
    assert (outcome, declared) == ("short", 60)
    assert 30 < frames < 50


def test_avi_with_an_undecodable_frame_is_short(tmp_path: Path) -> None:
    """OpenCV skips the frame or stops there, so later frames would not match the ground truth."""
    path = write_video(tmp_path / "a.avi", 60)
    data = path.read_bytes()
    at = data.index(b"00dc", len(data) // 2)
    patch(path, at + 8, bytes(int.from_bytes(data[at + 4 : at + 8], "little")))
    outcome, frames, declared = outcome_of(path)
    assert (outcome, declared) == ("short", 60)
    assert 16 <= frames < 60


def test_avi_with_an_empty_chunk_is_complete(tmp_path: Path) -> None:
    """An empty chunk repeats the previous frame. It is counted but is not decoded."""
    path = write_video(tmp_path / "a.avi", 60)
    data = path.read_bytes()
    at = data.index(b"00dc", len(data) // 2)
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    # replace the chunk by an empty one and a filler, and change its index entry
    patch(path, at + 4, struct.pack("<I4sI", 0, b"JUNK", size - 8))
    index = data.rindex(b"idx1")
    entry = data.index(struct.pack("<II", at - data.index(b"movi"), size), index)
    patch(path, entry + 4, bytes(4))
    assert outcome_of(path) == ("ok", 59, 60)
    assert outcome_of(cut(path))[0] == "short"


def test_mp4_with_hidden_frames_is_complete(tmp_path: Path) -> None:
    """Cutting without re-encoding hides frames by an edit list: 100 are stored, the last 60 shown."""
    path = write_video(tmp_path / "a.mp4", 100, codec="mp4v")
    assert outcome_of(path) == ("ok", 100, 100)
    data = path.read_bytes()
    movie, media = (data.index(box) + 4 + 12 for box in (b"mvhd", b"mdhd"))
    seconds, units = (int.from_bytes(data[at : at + 4], "big") for at in (movie, media))
    # duration in time units of the movie, start in those of the track
    edit = struct.pack(">II", seconds * 60 // 25, units * 40 // 25)
    patch(path, data.index(b"elst") + 4 + 8, edit)
    assert outcome_of(path) == ("ok", 60, 100)
    assert expected_frames(path, 100) == (60, False)
    patch(path, media, bytes(8))  # a track without time units and duration
    assert expected_frames(path, 100) == (100, True)


def test_mp4_with_an_undecodable_frame_is_short(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, codec="mp4v")
    data = path.read_bytes()
    at = data.index(b"\x00\x00\x01\xb6", len(data) // 2)  # start code of an MPEG-4 frame
    patch(path, at, bytes(1500))
    outcome, frames, declared = outcome_of(path)
    assert (outcome, declared) == ("short", 60)
    assert 16 <= frames < 60


def set_duration(path: Path, seconds: float) -> None:
    """Change the duration in the header of a Matroska file."""
    at = path.read_bytes().index(bytes.fromhex("448988")) + 3
    patch(path, at, struct.pack(">d", 1000 * seconds))


def test_matroska_completeness_is_from_the_duration(tmp_path: Path) -> None:
    """Matroska stores no frame count. 60 frames last 2.4 s; audio longer by 0.9 s is tolerated."""
    path = write_video(tmp_path / "a.mkv", 60, codec="mp4v")
    assert outcome_of(path) == ("ok", 60, 60)
    assert outcome_of(cut(path))[0] == "ok"  # the missing 0.7 s of 2.4 s are less than one second
    set_duration(path, 3.28)
    assert outcome_of(path) == ("ok", 60, 82)  # 3.28 s x 25
    set_duration(path, 3.6)
    reason = "the frames end after 2.4 of 3.6 seconds"
    assert reason_of(path) == f"{reason}; copy the video again unless only its audio is longer"


def test_one_missing_snippet_is_tolerated(tmp_path: Path) -> None:
    """30 frames at 5 per second last 6 s; a snippet of 16 frames lasts 3.2 s."""
    path = write_video(tmp_path / "a.mkv", 30, codec="mp4v", fps=5)
    set_duration(path, 9.1)
    assert outcome_of(path)[0] == "ok"
    set_duration(path, 9.3)
    assert outcome_of(path)[0] == "short"


def test_two_missing_percent_are_tolerated(tmp_path: Path) -> None:
    """2,000 frames last 80 s; 2 % are 1.6 s, more than one second and one snippet."""
    path = write_video(tmp_path / "a.mkv", 2000, codec="mp4v")
    set_duration(path, 81.5)
    assert outcome_of(path)[0] == "ok"
    set_duration(path, 81.8)
    assert outcome_of(path)[0] == "short"


def test_damaged_headers_never_raise(tmp_path: Path) -> None:
    """Random bytes in headers and tables of an MP4 and an AVI, some of them truncated there."""
    rng = random.Random(0)
    mp4 = write_video(tmp_path / "a.mp4", 20, codec="mp4v").read_bytes()
    avi = write_video(tmp_path / "a.avi", 20).read_bytes()
    moov, index = mp4.index(b"moov"), avi.index(b"idx1")
    places = [(mp4, 0, 64), (mp4, moov, moov + 400), (avi, 0, 12), (avi, index, len(avi))]
    counts = set()
    for number in range(400):
        data, first, last = places[number % 4]
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 10, 100])):
            damaged[rng.randrange(first, last)] = rng.choice([0, 1, 255, rng.randrange(256)])
        path = tmp_path / "damaged"
        path.write_bytes(damaged[: rng.choice([len(data), rng.randrange(first + 1, last)])])
        frames, _ = expected_frames(path, 1000)
        assert 0 <= frames <= 1000
        counts.add(frames)
    assert len(counts) > 3  # the damage has an effect
    assert expected_frames(tmp_path / "gone", 20) == (20, True)


# ffmpeg options to encode 150 frames (6 s) and 6.5 s of audio, and the outcome after cutting to 70 %
AUDIO = ["-f", "lavfi", "-i", "sine=duration=6.5"]
CONTAINERS = {
    "mkv": (["-c:v", "mpeg4", "-c:a", "aac"], "short"),
    "webm": (["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"], "short"),
    "flv": (["-c:v", "flv1", "-c:a", "pcm_u8", "-ar", "44100"], "short"),
    "avi": (["-c:v", "mpeg4", "-c:a", "mp3"], "short"),
    "mp4": (["-c:v", "mpeg4", "-c:a", "aac", "-movflags", "+faststart"], "short"),
    "fragments.mp4": (
        ["-c:v", "mpeg4", "-c:a", "aac", "-movflags", "+empty_moov+frag_keyframe"],
        "ok",
    ),
    "mov": (["-c:v", "mpeg4", "-c:a", "aac"], "not_video"),  # its tables are at the end
    "wmv": (["-c:v", "wmv2", "-c:a", "wmav2"], "ok"),  # truncation cannot be detected
    "ts": (["-c:v", "mpeg4", "-c:a", "mp2"], "ok"),  # truncation cannot be detected
}


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg, or skip the test if it is not installed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


@pytest.mark.parametrize("container", CONTAINERS)
def test_videos_with_longer_audio_are_complete(tmp_path: Path, container: str) -> None:
    options, when_cut = CONTAINERS[container]
    path = tmp_path / f"a.{container}"
    frames_in = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=6"]
    ffmpeg(*frames_in, *AUDIO, *options, path)
    outcome, frames, _ = outcome_of(path)
    assert (outcome, frames) == ("ok", 150)
    try:
        outcome = outcome_of(cut(path))[0]
    except VideoError as error:
        outcome = error.outcome
    assert outcome == when_cut


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi", "ts"])
def test_variable_frame_rate_video_is_complete(tmp_path: Path, container: str) -> None:
    """After 3 of 12 s only every fifth frame is kept: 75 + 45 of 300 frames."""
    source = "testsrc2=size=160x120:rate=25:duration=12"
    select = "select='lt(n,75)+not(mod(n,5))'"
    path = tmp_path / f"a.{container}"
    ffmpeg("-f", "lavfi", "-i", source, "-vf", select, "-vsync", "vfr", "-c:v", "mpeg4", path)
    assert outcome_of(path)[:2] == ("ok", 120)


def test_videos_cut_by_ffmpeg_are_complete(tmp_path: Path) -> None:
    """-c copy starts at the previous key frame and hides the extra frames by an edit list."""
    whole = write_video(tmp_path / "whole.mp4", 150, codec="mp4v")
    path = tmp_path / "trimmed.mp4"
    ffmpeg("-ss", "1.1", "-i", whole, "-c", "copy", "-movflags", "+faststart", path)
    outcome, frames, declared = outcome_of(path)
    assert outcome == "ok"
    assert frames < (declared or 0)  # the edit list has an effect
    assert outcome_of(cut(path, 0.5))[0] == "short"


def test_real_videos_are_short_only_if_truncated(realdata: Path, tmp_path: Path) -> None:
    """Includes a variable frame rate and a Matroska file whose frame count is an estimate."""
    names = ["intel_asl_again.mkv", "mmaction2_test.avi", "torchcodec_var_fps.mp4"]
    names += ["mmaction2_demo.mp4", "HolmesVAU_car_accident.mp4"]
    for name in names:
        path = tmp_path / name
        shutil.copy(realdata / "videos" / name, path)
        assert outcome_of(path)[0] == "ok", name
        try:
            outcome = outcome_of(cut(path, 0.5))[0]
        except VideoError as error:
            outcome = error.outcome
        assert outcome in ("short", "not_video"), name
