"""Snippets of a video: the two tail rules, and a sentence for every video that gives none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from extracting.frames import Video, VideoError, group_snippets
from tests.extracting.helpers import write_video
from vad.errors import InputError


def numbered(count: int):
    """Frames whose every pixel is the frame's number, modulo 251."""
    return (np.full((8, 8, 3), t % 251, np.uint8) for t in range(count))


@pytest.mark.parametrize(
    ("frames", "whole", "released"),
    # released: blocks of 512; of the last, partial block whole snippets only if more than 16 frames are left
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
def test_tail_rules(frames: int, whole: int, released: int) -> None:
    for tail, expected in (("whole", whole), ("released", released)):
        first_values = [int(snippet[0, 0, 0, 0]) for snippet in group_snippets(numbered(frames), tail)]
        assert first_values == [16 * k % 251 for k in range(expected)]  # consecutive, in order, none twice


def test_snippets_keep_their_values_after_the_next_one() -> None:
    snippets = list(group_snippets(numbered(64), "released"))
    assert [snippet.shape for snippet in snippets] == [(16, 256, 340, 3)] * 4
    for k, snippet in enumerate(snippets):
        assert (snippet[:, 0, 0, 0] == np.arange(16 * k, 16 * k + 16)).all()


def test_unknown_tail_rule_is_refused() -> None:
    with pytest.raises(InputError, match="unknown tail rule 'none'"):
        next(group_snippets(numbered(16), "none"))


def test_resize_is_opencvs_bilinear(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20)
    capture = cv2.VideoCapture(str(path))
    expected = np.stack([cv2.resize(capture.read()[1], (340, 256)) for _ in range(16)])
    video = Video(path)
    snippets = list(video.snippets())
    assert len(snippets) == 1
    assert (snippets[0] == expected).all()
    assert (video.frames, video.promised) == (20, 20)


def test_videos_without_a_snippet_each_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        Video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="does not open as a video"):
        Video(tmp_path / "text.mp4")
    short = write_video(tmp_path / "short.avi", 15)
    with pytest.raises(VideoError, match="has 15 frames, one snippet needs at least 16 frames"):
        list(Video(short).snippets())
    exact = write_video(tmp_path / "exact.avi", 16)
    assert len(list(Video(exact).snippets())) == 1
    with pytest.raises(VideoError, match=r"has 16 frames.*more than 16 frames \(released tail rule\)"):
        list(Video(exact, "released").snippets())


def test_real_videos_give_the_expected_counts(realdata: Path) -> None:
    # file: (promised, decoded, S) as README.md of the real data has them
    expected = {
        "intel_asl_again.mkv": (78, 77, 4),
        "mmaction2_part_0.mp4": (32, 32, 2),
        "mmaction2_test.avi": (164, 164, 10),
        "torchcodec_var_fps.mp4": (300, 300, 18),
        "RoadAccidents017_x264.mp4": (243, 243, 15),
    }
    for name, counts in expected.items():
        video = Video(realdata / "videos" / name)
        snippets = sum(1 for _ in video.snippets())
        assert (video.promised, video.frames, snippets) == counts, name
    with pytest.raises(VideoError, match="gives no frame although it promises 125"):
        list(Video(realdata / "videos" / "torchcodec_av1_undecodable.mkv").snippets())
    with pytest.raises(VideoError, match="has 10 frames"):
        list(Video(realdata / "videos" / "torchcodec_h265_10frames.mp4").snippets())
