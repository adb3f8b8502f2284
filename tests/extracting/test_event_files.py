"""Event maps on their way through the engine: saved ones are the counts, scaled ones are the release's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.crops import crop_views
from extracting.decoders import Decoders
from extracting.embedder import Embedder, Target
from extracting.encoder import Encoder
from extracting.event_files import EventMapFile, event_map_path
from extracting.events import count_events
from extracting.frames import Video
from extracting.stream import Ended, Settings, Snippet, stream
from extracting.videos import find_videos
from tests.extracting.helpers import BOTH, make, write_video


@pytest.mark.parametrize("promised", [50, 0, 400])
def test_saved_event_maps_are_the_counts(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch, promised: int
) -> None:
    """Whatever the container promises: (3, 256, 340) counts before the clamp, equal to a direct count."""
    opened = Video.__init__

    def promising(self: Video, *arguments: object) -> None:
        opened(self, *arguments)
        self.promised = promised or None

    path = videos / "Abuse" / "a.avi"
    (job,) = [job for job in find_videos(videos) if job.path == path]
    job = type(job)(job.path, job.video, job.name, job.size, ("event",))
    settings = Settings(event_threshold=3, event_clamp=2)
    target = Target("event", tmp_path / "out", encoders["event"], settings, save_events=True)
    embedder = Embedder([target], (5,))
    monkeypatch.setattr(Video, "__init__", promising)
    for item in stream(job, settings, (5,)):
        embedder.receive(job, item)
    embedder.flush()
    ((_, record),) = embedder.complete()
    monkeypatch.undo()
    expected = np.stack([count_events(snippet, 3) for snippet in Video(path).snippets()])
    assert expected.max() > 2  # the clamp would show
    with np.load(event_map_path(tmp_path / "out", "Abuse/a"), allow_pickle=False) as file:
        assert file.files == ["counts"]
        assert file["counts"].dtype == np.uint8
        assert np.array_equal(file["counts"], expected)
    assert record.events
    assert len(list((tmp_path / "out" / "Abuse").iterdir())) == 2  # the maps and crop 5


def test_event_maps_are_part_of_finished(videos: Path, tmp_path: Path, encoders: dict[str, Encoder]) -> None:
    out = tmp_path / "out"
    make(videos, out, encoders)
    second = make(videos, out, encoders, save_events=True)
    assert {job.modalities for job in second.todo} == {("event",)}
    assert len(list(out.rglob("*__events.npz"))) == 3
    assert make(videos, out, encoders, save_events=True).todo == []
    assert make(videos, out, encoders).todo == []
    event_map_path(out / "event", "d").unlink()
    assert [job.name for job in make(videos, out, encoders, save_events=True).todo] == ["d"]


def test_an_unfinished_event_map_leaves_nothing(tmp_path: Path) -> None:
    maps = EventMapFile(tmp_path, "Class/v", 5)
    maps.append(np.zeros((256, 340), np.uint8))
    maps.abandon()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("batch_size", [16, 48, 200])
def test_block_scaling_and_tail_of_the_release_hold_whatever_the_batches(
    tmp_path: Path, encoders: dict[str, Encoder], batch_size: int
) -> None:
    """560 frames: blocks of 32 and 3 snippets; each crop is divided by its block's largest count."""
    settings = Settings(tail="released", event_threshold=3, event_clamp=16, event_scaling="block")
    path = write_video(tmp_path / "v" / "long.avi", 16 * 34 + 16, seed=4)
    counts = [count_events(snippet, 3) for snippet in Video(path, "released").snippets()]
    assert len(counts) == 35
    views = [crop_views(np.stack(counts[at : at + 32]), (0, 5)) for at in (0, 32)]
    expected = [[max(int(view.max()), 1) for view in block] for block in views]
    found = []
    (job,) = find_videos(path.parent)
    with Decoders([type(job)(job.path, job.video, job.name, job.size, BOTH)], settings, (0, 5), 1) as decoders:
        for _, item in decoders:
            if isinstance(item, Snippet) and item.modality == "event":
                found.append((item.divisors.tolist(), item.pixels[0].copy()))
    assert [divisors for divisors, _ in found] == [expected[0]] * 32 + [expected[1]] * 3
    assert all(np.array_equal(pixels, count) for (_, pixels), count in zip(found, counts, strict=True))
    make(path.parent, tmp_path / "out", encoders, ("event",), settings=settings, batch_size=batch_size)
    rows = np.load(tmp_path / "out" / "event" / "long__5.npy")
    maps = np.stack([crop_views(count[None], (5,))[0][0] for count in counts])
    by = torch.tensor([expected[k // 32][1] for k in range(35)], dtype=torch.float32)
    np.testing.assert_allclose(rows, encoders["event"].events(torch.from_numpy(maps), by).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["RoadAccidents017_x264.mp4", "mmaction2_test.avi"])
def test_decoder_processes_hand_over_what_the_release_computes(
    golden: Callable, realdata: Path, tmp_path: Path, name: str
) -> None:
    """Crops and event counts that have come through the ring, against the release's hashes of real videos."""
    arrays, crops = golden("real_extraction"), (0, 3, 5, 9)
    (tmp_path / name).symlink_to(realdata.resolve() / "videos" / name)
    (job,) = find_videos(tmp_path)
    digests = {(m, crop): hashlib.sha256() for m in BOTH for crop in crops}
    settings = Settings(tail="released", event_clamp=16, event_scaling="block")
    with Decoders([type(job)(job.path, job.video, job.name, job.size, BOTH)], settings, crops, 1) as decoders:
        for _, item in decoders:
            if isinstance(item, Snippet):
                pixels = item.pixels if item.modality == "event" else item.pixels[..., ::-1]
                for crop, view in zip(crops, crop_views(np.ascontiguousarray(pixels), crops), strict=True):
                    digests[item.modality, crop].update(np.ascontiguousarray(view))
            elif isinstance(item, Ended):
                assert item.frames == int(arrays[f"{name}/frames"])
    for crop in crops:
        assert digests["image", crop].hexdigest() == str(arrays[f"{name}/{crop}/rgb_sha256"])
        assert digests["event", crop].hexdigest() == str(arrays[f"{name}/{crop}/event_sha256"])
