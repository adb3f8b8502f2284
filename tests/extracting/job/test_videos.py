"""Finding the videos of a run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from extracting.job.videos import find_videos, pick_test_videos
from tests.extracting.helpers import write_video
from vad.datasets import load_dataset
from vad.files import InputError


def write_frames(folder: Path, number: int, suffix: str = ".jpg") -> Path:
    folder.mkdir(parents=True)
    for k in range(number):
        cv2.imwrite(str(folder / f"{k:03d}{suffix}"), np.full((24, 32, 3), k, np.uint8))
    return folder


def test_videos_and_frame_folders_are_found(tmp_path: Path) -> None:
    write_video(tmp_path / "Arson" / "b.avi", 16)
    write_frames(tmp_path / "Arson" / "01_001", 3)
    write_frames(tmp_path / "02.b", 2, ".tif")
    (tmp_path / "Arson" / "notes.txt").write_text("x")
    write_video(tmp_path / "Arson" / ".hidden.avi", 16)
    cv2.imwrite(str(tmp_path / "Arson" / "thumbnail.jpg"), np.zeros((8, 8, 3), np.uint8))
    jobs = find_videos(tmp_path)
    assert [(job.video, job.name) for job in jobs] == [
        ("02.b", "02.b"),
        ("Arson/01_001", "Arson/01_001"),
        ("Arson/b.avi", "Arson/b"),
    ]
    assert jobs[1].size == sum(path.stat().st_size for path in (tmp_path / "Arson" / "01_001").iterdir())


def test_relative_folder_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders on other machines have another working directory."""
    monkeypatch.chdir(write_video(tmp_path / "v" / "a.avi", 16).parent)
    assert [(job.path, job.video) for job in find_videos(Path())] == [(tmp_path / "v" / "a.avi", "a.avi")]


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    write_video(tmp_path / "elsewhere" / "a.avi", 16)
    videos = tmp_path / "videos"
    write_video(videos / "Arson" / "b.avi", 16)
    (videos / "Abuse").symlink_to(tmp_path / "elsewhere")
    (videos / "Arson" / "circle").symlink_to(videos)
    assert [job.name for job in find_videos(videos)] == ["Abuse/a", "Arson/b"]


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder does not exist"):
        find_videos(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no videos found"):
        find_videos(tmp_path / "empty")


def test_split_test_selects_the_test_videos(tmp_path: Path) -> None:
    """The released split tests Robbery_10, which the official split trains on. Aliases are one video."""
    names = ["Robbery_10", "Robbery_11", "MSAD_normal_testing_000", "Nobody_1"]
    for name in names:
        write_video(tmp_path / "v" / "C" / f"{name}.avi", 16)
    jobs, dataset = find_videos(tmp_path / "v"), load_dataset("msad")
    for split, number in (("released", 241), ("official", 240)):
        test_names = set(dataset.split_names(split, "test"))
        chosen, missing = pick_test_videos(jobs, dataset, split)
        expected = sorted(name for name in names if dataset.key(name) in test_names)
        assert [job.path.stem for job in chosen] == expected
        assert ("Robbery_10" in expected) == (split == "released") and len(chosen) + len(missing) == number


def test_folder_without_test_videos_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 16)
    jobs, dataset = find_videos(tmp_path), load_dataset("shang")
    with pytest.raises(InputError, match=r"--split test: none of the 1 videos is listed in .*annotations.csv"):
        pick_test_videos(jobs, dataset, "official")
    with pytest.raises(InputError, match=r"none.txt: there is no such list"):
        pick_test_videos(jobs, dataset, "official", tmp_path / "none.txt")


def test_ucsd_ped2_is_found_without_its_masks(tmp_path: Path) -> None:
    """The authors put masks beside the frames of the test videos, in Test001_gt."""
    write_frames(tmp_path / "Train" / "Train001", 3, ".tif")
    write_frames(tmp_path / "Test" / "Test001", 3, ".tif")
    write_frames(tmp_path / "Test" / "Test001_gt", 3, ".bmp")
    assert [job.name for job in find_videos(tmp_path)] == ["Test/Test001", "Train/Train001"]
