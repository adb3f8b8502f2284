"""Frame folders are videos with the same pixels, counts and outcomes; missing frames are reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from extracting.video.frames import (
    FRAME_SUFFIXES,
    Video,
    VideoError,
    frame_files,
    is_frame_folder,
)
from tests.extracting.video.helpers import moving_pictures, outcome_of, write_frames, write_video


def numbered(count: int, suffix: str = ".png", first: int = 0) -> list[str]:
    """Return the names 000.png, 001.png, …"""
    return [f"{number:03d}{suffix}" for number in range(first, first + count)]


def failure(folder: Path) -> tuple[str, str]:
    """Return the outcome and reason of a folder that cannot be embedded."""
    with pytest.raises(VideoError) as error:
        list(Video(folder).snippets())
    return error.value.outcome, error.value.reason


@pytest.mark.parametrize("suffix", sorted(FRAME_SUFFIXES))
def test_pixels_equal_those_of_imread(tmp_path: Path, suffix: str) -> None:
    folder = write_frames(tmp_path / "v", numbered(32, suffix))
    frames = [cv2.imread(str(folder / name)) for name in numbered(32, suffix)]
    expected = np.stack([cv2.resize(frame, (340, 256)) for frame in frames])
    video = Video(folder, fps=10.0)
    snippets = list(video.snippets())
    assert (np.concatenate(snippets) == expected).all()
    assert (video.frames, video.declared, video.fps) == (32, 32, 10.0)
    assert video.check_completeness() == ("ok", "")


def test_frames_are_in_numeric_order(tmp_path: Path) -> None:
    names = [f"img_{number}.png" for number in range(1, 18)]
    folder = write_frames(tmp_path / "v", names)
    assert [path.name for path in frame_files(folder)] == names
    (snippet,) = Video(folder).snippets()
    expected = [cv2.resize(picture, (340, 256)) for picture in moving_pictures(16, 0)]
    assert (snippet == np.stack(expected)).all()


def test_frames_may_differ_in_size_suffix_and_depth(tmp_path: Path) -> None:
    """001.tif as in UCSD, 000.jpg as in ShanghaiTech. Grey and 16-bit frames become 8-bit BGR."""
    names = [f"{t:03d}.{'JPG' if t % 2 else 'tif'}" for t in range(16)]
    folder = write_frames(tmp_path / "v", names)
    cv2.imwrite(str(folder / "002.tif"), np.full((90, 120), 1000, np.uint16))
    cv2.imwrite(str(folder / "003.JPG"), np.full((30, 40), 7, np.uint8))
    (snippet,) = Video(folder).snippets()
    assert (snippet[3] == 7).all()
    assert (snippet[2] == 1000 // 256).all()


def test_other_files_are_not_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(16))
    picture = (folder / "000.png").read_bytes()
    for name in ("._001.png", ".000.png", "cover.png", "003 (copy).png", "Thumbs.db", "l016.txt"):
        (folder / name).write_bytes(picture)
    assert [path.name for path in frame_files(folder)] == numbered(16)
    assert outcome_of(folder) == ("ok", 16, 16)


def test_missing_frame_is_damage(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", [f"{number}.png" for number in range(1, 40)])
    (folder / "17.png").unlink()
    assert failure(folder) == ("damaged", "frame 17 is missing between 16.png and 18.png")


def test_duplicate_frame_number_is_damage(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", [*numbered(20), "5.png"])
    assert failure(folder) == ("damaged", "005.png and 5.png have the same frame number")


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_undecodable_frame_is_damage(tmp_path: Path, damage: str) -> None:
    """This includes a truncated JPEG, which `cv2.imread` would fill with grey."""
    folder = write_frames(tmp_path / "v", numbered(40, ".jpg"))
    path = folder / "020.jpg"
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"no image"}[damage])
    video, snippets = Video(folder), 0
    with pytest.raises(VideoError) as error:
        for _ in video.snippets():
            snippets += 1
    assert (snippets, video.frames) == (1, 20)
    assert error.value.outcome == "damaged"
    assert error.value.reason == "020.jpg cannot be decoded; copy it again"


def test_image_decoder_warnings_do_not_reach_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng prints a warning for a truncated file."""
    folder = write_frames(tmp_path / "v", numbered(20))
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:2000])
    assert failure(folder)[0] == "damaged"
    assert capfd.readouterr().err == ""


def test_unreadable_frame_is_reported(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(20))
    (folder / "019.png").unlink()
    (folder / "019.png").symlink_to("nowhere")
    assert failure(folder) == ("unreadable", "019.png cannot be read (No such file or directory)")


def test_short_and_empty_folders_are_reported(tmp_path: Path) -> None:
    brief = write_frames(tmp_path / "brief", numbered(15))
    assert failure(brief) == ("too_short", "the video has 15 frames, but a snippet needs at least 16")
    (tmp_path / "none").mkdir()
    reason = "the folder contains no frames (image files whose names end in a number)"
    assert failure(tmp_path / "none") == ("not_video", reason)


def test_released_tail_rule_applies_to_folders(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(17))
    assert outcome_of(folder, "released") == ("ok", 17, 17)
    (folder / "016.png").unlink()
    with pytest.raises(VideoError, match="more than 16 "):
        outcome_of(folder, "released")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    """OpenCV does not get the paths of frames, so any path works."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_frames(folder, [os.fsdecode(b"\xe9_%d.png" % number) for number in range(16)])
    assert is_frame_folder(folder)
    assert outcome_of(folder) == ("ok", 16, 16)


def test_frame_folders_are_recognised(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", ["001.TIF"])
    assert is_frame_folder(frames)
    classes = write_video(tmp_path / "Arson" / "a.avi", 1).parent
    (classes / "thumbnail1.jpg").touch()
    assert not is_frame_folder(classes)  # a folder of videos that also contains a picture
    (tmp_path / "Fire").mkdir()
    assert not is_frame_folder(tmp_path / "Fire")
    (tmp_path / "Fire" / "cover.jpg").touch()
    (tmp_path / "Fire" / ".001.jpg").touch()
    assert not is_frame_folder(tmp_path / "Fire")
    (frames / ".trailer.mp4").touch()  # a hidden file
    assert is_frame_folder(frames)


def test_ped2_folder_is_a_video(realdata: Path) -> None:
    """Training folder 01 of UCSD Ped2 has 120 grey JPEGs, so 7 whole snippets."""
    folder = realdata / "ped2" / "training" / "frames" / "01"
    assert is_frame_folder(folder)
    video = Video(folder, fps=10)
    assert sum(1 for _ in video.snippets()) == 7
    assert (video.frames, video.check_completeness()) == (120, ("ok", ""))
