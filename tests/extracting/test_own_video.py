"""Embeddings of single videos equal those of a run, and are reused only if nothing has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from extracting.own_video import embed_own_videos
from tests.extracting.helpers import BOTH, Sums, make, write_video
from vad.files import InputError

SUMS = dict.fromkeys(BOTH, Sums())


def test_own_videos_are_embedded_as_in_a_run(videos: Path, tmp_path: Path) -> None:
    paths = [videos / "Arson" / "c.avi", videos / "d.avi"]
    files = embed_own_videos(paths, SUMS, tmp_path / "own")
    make(videos, tmp_path / "run", crops=(5,), event_threshold=10)
    for path, name in zip(files, ("Arson/c", "d"), strict=True):
        for modality in BOTH:
            expected = np.load(tmp_path / "run" / modality / f"{name}__5.npy")
            assert np.array_equal(np.load(path[modality]), expected)


def test_videos_of_the_same_name_are_distinguished(tmp_path: Path) -> None:
    """cam2/clip.avi must not get the embeddings of cam1/clip.avi or of an older version of itself."""
    one = write_video(tmp_path / "cam1" / "clip.avi", 20, seed=1)
    two = write_video(tmp_path / "cam2" / "clip.avi", 20, seed=2)
    first = np.load(embed_own_videos([one], SUMS, tmp_path / "own")[0]["image"])
    second = np.load(embed_own_videos([two], SUMS, tmp_path / "own")[0]["image"])
    assert not np.array_equal(first, second)
    write_video(one, 20, seed=3)
    third = np.load(embed_own_videos([one], SUMS, tmp_path / "own")[0]["image"])
    assert not np.array_equal(first, third)


def test_embeddings_are_reused_for_the_same_weights(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", 20)
    (paths,) = embed_own_videos([video], SUMS, tmp_path / "own")
    stamp = paths["image"].stat().st_mtime_ns
    assert embed_own_videos([video], SUMS, tmp_path / "own") == [paths]
    assert paths["image"].stat().st_mtime_ns == stamp
    other = Sums()
    other.hash = "other weights"
    assert embed_own_videos([video], {"image": other}, tmp_path / "own")[0]["image"] != paths["image"]


def test_bad_video_is_reported_after_the_others(tmp_path: Path) -> None:
    good, bad = write_video(tmp_path / "good.avi", 20), tmp_path / "bad.avi"
    bad.write_text("no video")
    with pytest.raises(InputError, match=r"bad\.avi: cannot be opened as a video"):
        embed_own_videos([bad, good], SUMS, tmp_path / "own")
    assert len(list((tmp_path / "own").rglob("good*.npy"))) == 2
    with pytest.raises(InputError, match=r"none\.avi: there is no such video"):
        embed_own_videos([tmp_path / "none.avi"], SUMS, tmp_path / "own")
    twin = write_video(tmp_path / "other" / "good.avi", 20)
    with pytest.raises(InputError, match="two videos are named good"):
        embed_own_videos([good, twin], SUMS, tmp_path / "own")
