"""A folder of frames is a video: same pixels, counts and outcomes; missing frames are reported."""

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
    """Names 000.png, 001.png, …"""
    return [f"{number:03d}{suffix}" for number in range(first, first + count)]


def failure(folder: Path) -> tuple[str, str]:
    """Outcome and reason of a folder without a snippet."""
    with pytest.raises(VideoError) as error:
        list(Video(folder).snippets())
    return error.value.outcome, error.value.reason


@pytest.mark.parametrize("suffix", sorted(FRAME_SUFFIXES))
def test_pixels_are_those_of_imread(tmp_path: Path, suffix: str) -> None:
    folder = write_frames(tmp_path / "v", numbered(32, suffix))
    read = [cv2.imread(str(folder / name)) for name in numbered(32, suffix)]
    expected = np.stack([cv2.resize(frame, (340, 256)) for frame in read])
    video = Video(folder, fps=10.0)
    snippets = list(video.snippets())
    assert (np.concatenate(snippets) == expected).all()
    assert (video.frames, video.declared, video.fps) == (32, 32, 10.0)
    assert video.verdict() == ("ok", "")


def test_order_is_by_number_and_9_comes_before_10(tmp_path: Path) -> None:
    names = [f"img_{number}.png" for number in range(1, 18)]
    folder = write_frames(tmp_path / "v", names)
    assert [path.name for path in frame_files(folder)] == names
    (snippet,) = Video(folder).snippets()
    expected = [cv2.resize(picture, (340, 256)) for picture in moving_pictures(16, 0)]
    assert (snippet == np.stack(expected)).all()


def test_mixed_sizes_suffixes_and_grey_frames(tmp_path: Path) -> None:
    """001.tif as in UCSD, 000.jpg as in ShanghaiTech; grey and 16-bit ones become 8-bit BGR."""
    names = [f"{t:03d}.{'JPG' if t % 2 else 'tif'}" for t in range(16)]
    folder = write_frames(tmp_path / "v", names)
    cv2.imwrite(str(folder / "002.tif"), np.full((90, 120), 1000, np.uint16))
    cv2.imwrite(str(folder / "003.JPG"), np.full((30, 40), 7, np.uint8))
    (snippet,) = Video(folder).snippets()
    assert (snippet[3] == 7).all()
    assert (snippet[2] == 1000 // 256).all()


def test_other_files_are_no_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(16))
    picture = (folder / "000.png").read_bytes()
    for name in ("._001.png", ".000.png", "cover.png", "003 (copy).png", "Thumbs.db", "l016.txt"):
        (folder / name).write_bytes(picture)
    assert [path.name for path in frame_files(folder)] == numbered(16)
    assert outcome_of(folder) == ("ok", 16, 16)


def test_a_gap_is_damage(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", [f"{number}.png" for number in range(1, 40)])
    (folder / "17.png").unlink()
    assert failure(folder) == ("damaged", "frame 17 is missing between 16.png and 18.png")


def test_two_frames_of_one_number_are_damage(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", [*numbered(20), "5.png"])
    assert failure(folder) == ("damaged", "005.png and 5.png have the same number")


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_frame_that_cannot_be_decoded_is_damage(tmp_path: Path, damage: str) -> None:
    """A JPEG that was cut too: `cv2.imread` would fill it up with grey."""
    folder = write_frames(tmp_path / "v", numbered(40, ".jpg"))
    broken = folder / "020.jpg"
    data = broken.read_bytes()
    broken.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"no image"}[damage])
    video, walked = Video(folder), 0
    with pytest.raises(VideoError) as error:
        for _ in video.snippets():
            walked += 1
    assert (walked, video.frames) == (1, 20)
    assert error.value.outcome == "damaged"
    assert error.value.reason == "020.jpg cannot be decoded; copy it again"


def test_nothing_of_an_image_decoder_reaches_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng complains about a file that was cut."""
    folder = write_frames(tmp_path / "v", numbered(20))
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:2000])
    assert failure(folder)[0] == "damaged"
    assert capfd.readouterr().err == ""


def test_a_frame_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(20))
    (folder / "019.png").unlink()
    (folder / "019.png").symlink_to("nowhere")
    assert failure(folder) == ("unreadable", "019.png cannot be read (No such file or directory)")


def test_folders_with_too_few_frames_or_none(tmp_path: Path) -> None:
    brief = write_frames(tmp_path / "brief", numbered(15))
    assert failure(brief) == ("too_short", "has 15 frames, one snippet needs at least 16 frames")
    (tmp_path / "none").mkdir()
    reason = "is a folder without frames, which are image files whose names end in a number"
    assert failure(tmp_path / "none") == ("not_video", reason)


def test_the_released_tail_rule_holds_for_folders(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", numbered(17))
    assert outcome_of(folder, "released") == ("ok", 17, 17)
    (folder / "016.png").unlink()
    with pytest.raises(VideoError, match="more than 16 "):
        outcome_of(folder, "released")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    """OpenCV never sees the paths of frames, so that any will do."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_frames(folder, [os.fsdecode(b"\xe9_%d.png" % number) for number in range(16)])
    assert is_frame_folder(folder)
    assert outcome_of(folder) == ("ok", 16, 16)


def test_which_folders_are_videos(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", ["001.TIF"])
    assert is_frame_folder(frames)
    classes = write_video(tmp_path / "Arson" / "a.avi", 1).parent
    (classes / "thumbnail1.jpg").touch()
    assert not is_frame_folder(classes)  # a folder of videos with a stray picture
    (tmp_path / "Fire").mkdir()
    assert not is_frame_folder(tmp_path / "Fire")
    (tmp_path / "Fire" / "cover.jpg").touch()
    (tmp_path / "Fire" / ".001.jpg").touch()
    assert not is_frame_folder(tmp_path / "Fire")
    (frames / ".trailer.mp4").touch()  # hidden, as of another system
    assert is_frame_folder(frames)


def test_ped2_frames_are_videos(realdata: Path) -> None:
    """UCSD Ped2, training 01: 120 grey JPEGs, 7 whole snippets."""
    folder = realdata / "ped2" / "training" / "frames" / "01"
    assert is_frame_folder(folder)
    video = Video(folder, fps=10)
    assert sum(1 for _ in video.snippets()) == 7
    assert (video.frames, video.verdict()) == (120, ("ok", ""))
