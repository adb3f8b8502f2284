"""Snippets of a video file: the two tail rules, and a reason for every video without snippets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from extracting.video.frames import Video, VideoError, check_opencv, group_snippets
from extracting.video.log import DecoderLog
from tests.extracting.video.helpers import moving_pictures, outcome_of, write_video
from vad.files import InputError


def numbered(count: int) -> Iterator[np.ndarray]:
    """Yield frames in which every pixel is the frame number modulo 251."""
    return (np.full((8, 8, 3), t % 251, np.uint8) for t in range(count))


@pytest.mark.parametrize(
    ("frames", "whole", "released"),
    # released: blocks of 512 frames; a last, partial block counts only with more than 16 frames
    [
        (0, 0, 0),
        (15, 0, 0),
        (16, 1, 0),
        (17, 1, 1),
        (32, 2, 2),
        (511, 31, 31),
        (512, 32, 32),
        (513, 32, 32),
        (527, 32, 32),
        (528, 33, 32),
        (529, 33, 33),
        (1024, 64, 64),
        (1040, 65, 64),  # ShanghaiTech's 01_074
        (1041, 65, 65),
    ],
)
def test_tail_rules_give_the_expected_snippets(frames: int, whole: int, released: int) -> None:
    for tail, expected in (("whole", whole), ("released", released)):
        firsts = [int(snippet[0, 0, 0, 0]) for snippet in group_snippets(numbered(frames), tail)]
        assert firsts == [16 * k % 251 for k in range(expected)]  # in order, without duplicates


def test_snippets_are_not_overwritten_by_the_next() -> None:
    snippets = list(group_snippets(numbered(64), "released"))
    assert [snippet.shape for snippet in snippets] == [(16, 256, 340, 3)] * 4
    for k, snippet in enumerate(snippets):
        assert (snippet[:, 0, 0, 0] == np.arange(16 * k, 16 * k + 16)).all()


def test_unknown_tail_rule_is_refused() -> None:
    with pytest.raises(InputError, match="unknown tail rule 'none'"):
        next(group_snippets(numbered(16), "none"))


def test_frames_are_resized_by_opencv_bilinear(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20)
    capture = cv2.VideoCapture(str(path))
    expected = np.stack([cv2.resize(capture.read()[1], (340, 256)) for _ in range(16)])
    video = Video(path)
    (snippet,) = video.snippets()
    assert (snippet == expected).all()
    assert (video.frames, video.declared, video.fps) == (20, 20, 25.0)
    assert video.check_completeness() == ("ok", "")


def failure(path: Path, tail: str = "whole") -> tuple[str, str]:
    """Return the outcome and reason of a video that cannot be embedded."""
    with pytest.raises(VideoError) as error:
        list(Video(path, tail).snippets())
    assert str(error.value) == f"{path}: {error.value.reason}"
    return error.value.outcome, error.value.reason


def test_video_shorter_than_a_snippet_is_too_short(tmp_path: Path) -> None:
    brief = write_video(tmp_path / "brief.avi", 15)
    assert failure(brief) == ("too_short", "the video has 15 frames, but a snippet needs at least 16")
    exact = write_video(tmp_path / "exact.avi", 16)
    assert outcome_of(exact) == ("ok", 16, 16)
    reason = "the video has 16 frames, but a snippet needs more than 16 (released tail rule)"
    assert failure(exact, "released") == ("too_short", reason)


def test_files_that_are_not_videos_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "nothing.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "dangling.mkv").symlink_to("nowhere.mkv")
    # a PNG decodes as a video of one frame with a negative declared frame count
    (tmp_path / "png.mp4").write_bytes(cv2.imencode(".png", moving_pictures(1, 0)[0])[1].tobytes())
    reasons = {
        "none.mp4": ("unreadable", "the file does not exist"),
        "nothing.mp4": ("empty", "the file is empty (0 bytes); copy it again"),
        "text.mp4": ("not_video", "cannot be opened as a video; check that the file is a complete video"),
        "loop.mp4": ("unreadable", "cannot be read (Too many levels of symbolic links)"),
        "dangling.mkv": ("unreadable", "cannot be read (No such file or directory)"),
        "png.mp4": ("too_short", "the video has 1 frames, but a snippet needs at least 16"),
    }
    assert {name: failure(tmp_path / name) for name in reasons} == reasons


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_video_without_read_permission_is_unreadable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20)
    path.chmod(0)
    assert failure(path) == ("unreadable", "cannot be read (Permission denied)")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_unusual_file_names_are_read(tmp_path: Path) -> None:
    """OpenCV crashes if the name of a file or of a parent folder is not UTF-8."""
    whole = write_video(tmp_path / "whole.avi", 20).read_bytes()
    names = ["cam1:0900.mp4", "100%d.avi", "new\nline.avi", "東京.avi", "-dash.avi", "a#b?c'\".avi"]
    for name in names:
        (tmp_path / name).write_bytes(whole)
    assert [outcome_of(tmp_path / name)[0] for name in names] == ["ok"] * len(names)
    for name in (b"caf\xe9.avi", b"caf\xe9/a.avi"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole)
        reason = "the path is not valid UTF-8; rename the file or folder"
        assert failure(path) == ("unreadable", reason)


def test_relative_path_with_a_colon_is_not_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would read "a:b.mp4" as a URL with protocol a."""
    monkeypatch.chdir(write_video(tmp_path / "a.avi", 16).parent)
    Path("cam1:0900.mp4").write_bytes(Path("a.avi").read_bytes())
    assert outcome_of(Path("cam1:0900.mp4")) == ("ok", 16, 16)


def test_truncated_file_reports_its_declared_frames(tmp_path: Path) -> None:
    data = write_video(tmp_path / "whole.avi", 60).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 6])  # keeps about 10 of the 60 frames
    outcome, reason = failure(cut)
    assert outcome == "too_short"
    assert "of 60 declared frames can be decoded, but a snippet needs at least 16; copy the video again" in reason
    first, index = data.index(b"00dc") + 8, data.index(b"idx1")
    cut.write_bytes(data[:first] + bytes(index - first) + data[index:])  # no frame remains
    note = "although its container declares 60; copy it again or re-encode it to H.264"
    assert failure(cut) == ("no_frames", f"the file opens but contains no frames, {note}")


def test_unconverted_frame_is_conversion_failed(tmp_path: Path) -> None:
    """Frames grow after the 20th: OpenCV below 4.13 repeats the 20th and reports success."""
    small = moving_pictures(36, 0)
    sizes = [(64, 48)] * 20 + [(96, 64)] * 16
    pictures = [cv2.resize(picture, size) for picture, size in zip(small, sizes, strict=True)]
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    (tmp_path / "grows.mjpeg").write_bytes(b"".join(encoded))
    (tmp_path / "same.mjpeg").write_bytes(b"".join(encoded[:20]))
    assert outcome_of(tmp_path / "same.mjpeg") == ("ok", 20, None)
    outcome, reason = failure(tmp_path / "grows.mjpeg")
    assert outcome == "conversion_failed"
    assert reason.startswith(f"OpenCV {cv2.__version__} cannot convert frame 21, which")


def test_decoder_log_detects_failed_conversions(capfd: pytest.CaptureFixture[str]) -> None:
    log = DecoderLog()
    with log:
        os.write(2, b"[h264 @ 0x5581] error while decoding MB 3 4\n")
    assert not log.conversion_failed()
    with log:
        os.write(2, b"ab\n[swscaler @ 0x5582] Slice parameters 0, 360 are invalid\n")
    assert log.conversion_failed()
    assert not log.conversion_failed()  # since the last call
    with log:
        os.write(2, b"x")
    assert not log.conversion_failed()
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_decoder_warnings_do_not_reach_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """FFmpeg prints warnings for a zeroed block in the middle of a video."""
    path = write_video(tmp_path / "a.avi", 40, codec="mp4v")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    assert outcome_of(path)[1] < 40  # the damage has an effect
    assert capfd.readouterr().err == ""


def test_decoding_error_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV raises cv2.error, for example, if a frame does not fit into memory."""

    class Failing:
        def read(self, frame: np.ndarray | None) -> tuple[bool, np.ndarray]:
            raise cv2.error("no memory")

        def get(self, name: int) -> float:
            return 25.0

        def isOpened(self) -> bool:
            return True

        def release(self) -> None: ...

    path = write_video(tmp_path / "a.avi", 16)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Failing())
    outcome, reason = failure(path)
    assert outcome == "damaged"
    assert reason.startswith("decoding failed after 0 frames")


@pytest.mark.parametrize("version", ["4.9.0", "4.13.0", "4.14.0-dev", "5.0.0", "3.4.20"])
def test_unsupported_opencv_versions_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", version)
    with pytest.raises(InputError, match=f"OpenCV {version} .*different pixels.*>=4.10,<4.13"):
        check_opencv()


@pytest.mark.parametrize("version", ["4.10.0", "4.11.0-dev", "4.12.0", cv2.__version__])
def test_supported_opencv_versions_are_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", version)
    check_opencv()


def test_real_videos_have_the_expected_frame_counts(realdata: Path) -> None:
    # from the README.md of the real data; the MKV stores no frame count, and 78 is an estimate
    expected = {
        "intel_asl_again.mkv": ("ok", 77, 78),
        "mmaction2_part_0.mp4": ("ok", 32, 32),
        "mmaction2_test.avi": ("ok", 164, 164),
        "torchcodec_var_fps.mp4": ("ok", 300, 300),
        "RoadAccidents017_x264.mp4": ("ok", 243, 243),
    }
    assert {name: outcome_of(realdata / "videos" / name) for name in expected} == expected
    outcome, reason = failure(realdata / "videos" / "torchcodec_av1_undecodable.mkv")
    assert outcome == "no_frames"
    assert reason.startswith("the file opens but contains no frames, although its container declares 125")
    brief = failure(realdata / "videos" / "torchcodec_h265_10frames.mp4")
    assert brief == ("too_short", "the video has 10 frames, but a snippet needs at least 16")
