"""Embeddings of single videos equal those of a run, and are reused only if nothing has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from extracting.own.videos import OwnVideo, embed_own_videos
from extracting.video.config import Config
from tests.extracting.helpers import BOTH, Sums, make, write_video
from vad.files import InputError

SUMS = dict.fromkeys(BOTH, Sums())
CENTRE = Config(crops=(5,))


def embed(paths: list[Path], folder: Path, config: Config = CENTRE) -> list[OwnVideo]:
    return embed_own_videos(paths, SUMS, folder, config)


def test_own_videos_are_embedded_as_in_a_run(videos: Path, tmp_path: Path) -> None:
    config = Config(crops=(0, 5), event_threshold=7, event_scaling="block")
    own = embed([videos / "Arson" / "c.avi", videos / "d.avi"], tmp_path / "own", config)
    assert [video.name for video in own] == ["c", "d"]
    make(videos, tmp_path / "run", crops=(0, 5), event_threshold=7, event_scaling="block")
    for video, name in zip(own, ("Arson/c", "d"), strict=True):
        for modality in BOTH:
            for crop in (0, 5):
                expected = np.load(tmp_path / "run" / modality / f"{name}__{crop}.npy")
                assert np.array_equal(np.load(video.embeddings[modality][crop]), expected)


def test_folder_stands_for_all_its_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "cams" / "one" / "a.avi", 20)
    write_video(tmp_path / "cams" / "b.avi", 20)
    own = embed([tmp_path / "cams"], tmp_path / "own")
    assert [video.name for video in own] == ["b", "one/a"]
    with pytest.raises(InputError, match="no videos found"):
        embed([tmp_path / "own" / "image"], tmp_path / "own")


def test_videos_of_the_same_name_are_distinguished(tmp_path: Path) -> None:
    """cam2/clip.avi must not get the embeddings of cam1/clip.avi or of an older version of itself."""
    one = write_video(tmp_path / "cam1" / "clip.avi", 20, seed=1)
    two = write_video(tmp_path / "cam2" / "clip.avi", 20, seed=2)
    first, second = (np.load(embed([path], tmp_path / "own")[0].embeddings["image"][5]) for path in (one, two))
    assert not np.array_equal(first, second)
    write_video(one, 20, seed=3)
    assert not np.array_equal(first, np.load(embed([one], tmp_path / "own")[0].embeddings["image"][5]))
    with pytest.raises(InputError, match="two videos are named clip"):
        embed([one, two], tmp_path / "own")


def test_embeddings_are_reused_for_the_same_weights(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", 20)
    (first,) = embed([video], tmp_path / "own")
    stamp = first.embeddings["image"][5].stat().st_mtime_ns
    assert embed([video], tmp_path / "own") == [first]
    assert first.embeddings["image"][5].stat().st_mtime_ns == stamp
    os.utime(video)  # a newer video, although its size is the same
    assert embed([video], tmp_path / "own")[0].embeddings != first.embeddings
    other = Sums()
    other.hash = "other weights"
    (again,) = embed_own_videos([video], {"image": other}, tmp_path / "own", CENTRE)
    assert again.embeddings["image"] != first.embeddings["image"]


def test_bad_video_costs_only_itself(tmp_path: Path) -> None:
    good, bad = write_video(tmp_path / "good.avi", 20), tmp_path / "bad.avi"
    bad.write_text("no video")
    dots = write_video(tmp_path / "...avi", 20)
    own = embed([bad, tmp_path / "none.avi", good, dots], tmp_path / "own")
    assert [bool(video.problem) for video in own] == [True, True, False, True]
    assert "cannot be opened as a video" in own[0].problem
    assert own[1].problem == "cannot be read (No such file or directory)"
    assert own[2].embeddings["event"][5].is_file()
    assert "only dots" in own[3].problem  # results would be written outside their folder
