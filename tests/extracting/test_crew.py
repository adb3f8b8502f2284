"""Several encoder processes on one queue: the same bytes as one, whoever dies in between."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from extracting.crew import Crew
from extracting.embedder import Target
from extracting.encoder import load_encoder
from extracting.manifest import Manifest, Record
from extracting.run import FolderRun
from extracting.share import Feed, Order
from extracting.stream import Ended, Job, Settings
from extracting.videos import find_videos
from tests.extracting.helpers import command, write_video
from vad.errors import InputError

CROPS = (0, 5)


def make_videos(folder: Path, number: int = 7) -> Path:
    """Videos of one to four snippets in two classes."""
    for index in range(number):
        write_video(folder / ("Abuse", "Arson")[index % 2] / f"v{index}.avi", 20 + 16 * (index % 4), seed=index)
    return folder


def run(videos: Path, out: Path, engine: object = None, **options: object) -> FolderRun:
    targets = [
        Target(name, out / name, load_encoder("untrained", name, tower="tiny", device="cpu"), Settings())
        for name in ("image", "event")
    ]
    made = FolderRun(find_videos(videos), targets, Settings(), CROPS, workers=1, engine=engine, **options)
    made.run()
    return made


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.suffix == ".npy"}


class Killing(Crew):
    """A crew whose first process is killed once the run's first record has come."""

    def __call__(self, jobs: Sequence[Job], order: Order) -> Iterator[tuple[Job, str, Record | Ended]]:
        killed = False
        for result in super().__call__(jobs, order):
            if not killed:
                os.kill(min(self.pids.values()), signal.SIGKILL)
                killed = True
            yield result


def test_two_processes_with_one_killed_write_the_bytes_of_one(tmp_path: Path) -> None:
    """7 videos × 2 modalities × 2 crops = 28 files, 14 lines; nothing under a temporary name is left in the end."""
    videos = make_videos(tmp_path / "videos")
    alone = run(videos, tmp_path / "alone")
    crew = Killing(["cpu", "cpu"])
    together = run(videos, tmp_path / "crew", crew)
    assert contents(tmp_path / "crew") == contents(tmp_path / "alone")
    assert len(contents(tmp_path / "crew")) == 28
    assert [len(found) for found in together.summary.done.values()] == [7, 7]
    assert together.summary.odd == []
    assert together.summary.frames == alone.summary.frames > 0
    assert crew.pids == {}
    again = run(videos, tmp_path / "crew", Crew(["cpu", "cpu"]))
    assert again.todo == []
    lines = [path.read_text().splitlines() for path in tmp_path.glob("crew/*/manifest.jsonl")]
    assert [len(found) for found in lines] == [7, 7]


def test_bad_videos_and_bad_weights_are_told_as_by_one_process(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 2)
    (videos / "Abuse" / "broken.avi").write_bytes(b"no video")
    made = run(videos, tmp_path / "out", Crew(["cpu", "cpu"]))
    assert {(name, record.outcome) for name, record in made.summary.odd} == {
        ("image", "not_video"),
        ("event", "not_video"),
    }
    assert Manifest(tmp_path / "out" / "image").records["Abuse/broken"].outcome == "not_video"
    encoder = load_encoder("untrained", "image", tower="tiny", device="cpu")
    encoder.tower.proj.data[0, 0] = float("nan")
    target = Target("image", tmp_path / "nan", encoder, Settings())
    with pytest.raises(InputError, match="NaN or infinite embeddings"):
        FolderRun(find_videos(videos), [target], Settings(), CROPS, engine=Crew(["cpu"])).run()


def test_a_video_lost_twice_is_given_up_and_the_others_are_drawn_again_first() -> None:
    jobs = [Job(Path(name), name, name, 1, ("image", "event")) for name in "abcd"]
    feed = Feed(jobs)
    assert [feed.take(1).video, feed.take(2).video] == ["a", "b"]
    assert not feed.settle(1, "a", "image")
    assert feed.lose(1) == []
    first = feed.take(2)
    assert (first.video, first.modalities) == ("a", ("event",))  # its images are there
    assert feed.settle(2, "b", "image") is False
    assert feed.settle(2, "b", "event") is True
    assert [job.video for job in feed.lose(2)] == ["a"]
    assert (feed.waiting(), feed.take(3).video, feed.take(3).video, feed.take(3)) == (2, "c", "d", None)


def test_the_door_takes_several_devices_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 2)
    script = ("extracting/gen_img.py", "--dataset", "demo", "--video_dir", videos, "--save_dir", tmp_path / "out")
    told = command(*script, "--crops", "5", "--devices", "cpu,cpu", "--workers", "1")
    assert told.returncode == 0, told.stderr
    assert "cpu, cpu" in told.stdout
    assert len(contents(tmp_path / "out")) == 2
    for wrong, sentence in (
        (("--devices", "cpu,"), "write each GPU once"),
        (("--devices", "cpu,cpu", "--device", "cpu"), "leave out --device"),
        (("--address", "auto"), "add --engine ray"),
    ):
        told = command(*script, *wrong)
        assert told.returncode == 2
        assert sentence in told.stderr
