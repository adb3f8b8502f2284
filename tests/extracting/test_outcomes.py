"""Videos that are no good: each has its outcome and sentence, the run goes on; a decoder that dies or hangs too."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from extracting.containers import bytes_missing
from extracting.decoders import Decoders
from extracting.embedder import Target
from extracting.frames import Video, VideoError
from extracting.manifest import OUTCOMES, Manifest, Record
from extracting.run import FolderRun
from extracting.stream import Again, Ended, Opened, Settings, Snippet
from extracting.videos import find_videos
from tests.extracting.fuzz import MUTATIONS, Sums, check, copies, plain_sums, run_over
from tests.extracting.helpers import write_video


def cut_promise(path: Path, frames: int, promised: int) -> Path:
    """An AVI whose header promises more frames than it holds."""
    write_video(path, frames)
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16  # dwTotalFrames of the main header
    assert int.from_bytes(data[at : at + 4], "little") == frames
    data[at : at + 4] = promised.to_bytes(4, "little")
    stream = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    data[stream : stream + 4] = promised.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def test_every_bad_video_has_its_outcome_and_sentence(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "A" / "good.avi", 40, seed=1)
    cut_promise(videos / "A" / "promises.avi", 40, 50)
    whole = write_video(tmp_path / "whole.avi", 60, seed=2).read_bytes()
    (videos / "A" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (videos / "A" / "stump.avi").write_bytes(whole[:3000])
    write_video(videos / "A" / "brief.avi", 15)
    (videos / "A" / "nothing.mp4").touch()
    (videos / "A" / "text.mp4").write_text("not a video\n")
    (videos / "A" / "loop.mp4").symlink_to("loop.mp4")
    (videos / "A" / "dangling.mkv").symlink_to("nowhere.mkv")
    write_video(videos / "A" / "twice.avi", 20)
    write_video(videos / "sub" / "A" / "twice.avi", 20)
    records = run_over(videos, out, workers=2, time_limit=60)
    found = {record.video: (record.outcome, record.reason) for record in records.values()}
    lines = [Record(**line) for line in map(json.loads, (out / "manifest.jsonl").open())]
    assert len(lines) == 11  # one for each file, the two that share a name too
    assert found["A/good.avi"] == ("ok", "")
    assert found["A/promises.avi"] == ("short", "the container promises 50 frames, 40 could be decoded")
    outcome, reason = found["A/cut.avi"]
    assert outcome == "truncated"
    assert "promises 60 frames" in reason
    assert f"at least {len(whole) - len(whole) // 2} bytes are missing" in reason
    assert found["A/stump.avi"][0] == "truncated"
    assert found["A/brief.avi"] == ("too_short", "has 15 frames, one snippet needs at least 16 frames")
    assert found["A/nothing.mp4"] == ("empty", "is empty (0 bytes); copy it again")
    assert found["A/text.mp4"][0] == "not_video"
    assert found["A/loop.mp4"] == ("unreadable", "cannot be read (Too many levels of symbolic links)")
    assert found["A/dangling.mkv"] == ("unreadable", "cannot be read (No such file or directory)")
    both = {line.video: line.reason for line in lines if line.outcome == "same_name"}
    assert both == {
        "A/twice.avi": "sub/A/twice.avi would write A/twice__0.npy too; rename one of them",
        "sub/A/twice.avi": "A/twice.avi would write A/twice__0.npy too; rename one of them",
    }
    assert sorted(path.stem for path in out.rglob("*.npy")) == ["cut__5", "good__5", "promises__5"]
    assert all(record.outcome in OUTCOMES for record in records.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_video_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20)
    path.chmod(0)
    with pytest.raises(VideoError, match="cannot be read \\(Permission denied\\)") as error:
        Video(path)
    assert error.value.outcome == "unreadable"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_names_of_every_kind_are_embedded_and_one_that_is_no_text_is_told(tmp_path: Path) -> None:
    """OpenCV ends the process at a name that is not UTF-8; the manifest keeps it, and is read as the same name."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    whole = write_video(tmp_path / "whole.avi", 20).read_bytes()
    names = ["cam1:0900.mp4", "100%d.avi", "new\nline.avi", "東京.avi", "-dash.avi", "a#b?c'\".avi", "a__5.avi"]
    videos.mkdir()
    for name in [*names, os.fsdecode(b"caf\xe9.avi")]:
        (videos / name).write_bytes(whole)
    records = run_over(videos, out, workers=1, time_limit=60)
    assert {name: records[name].outcome for name in names} == dict.fromkeys(names, "ok")
    told = records[os.fsdecode(b"caf\xe9.avi")]
    assert (told.outcome, told.reason) == ("unreadable", "its path holds bytes that are no UTF-8 text; rename it")
    assert len((out / "manifest.jsonl").read_bytes().splitlines()) == 8
    again = folder_run(videos, out)
    assert [job.name for job in again.todo] == [told.name]


def test_a_folder_given_relatively_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an encoder on another machine must: and "a:b.mp4" alone would be read as the address of protocol a."""
    monkeypatch.chdir(write_video(tmp_path / "v" / "a.avi", 16).parent)
    assert [(job.path, job.video) for job in find_videos(Path())] == [(tmp_path / "v" / "a.avi", "a.avi")]
    Path("cam1:0900.mp4").write_bytes(Path("a.avi").read_bytes())
    assert sum(1 for _ in Video("cam1:0900.mp4").snippets()) == 1


def test_linked_class_folders_are_searched_and_circles_are_not(tmp_path: Path) -> None:
    write_video(tmp_path / "elsewhere" / "a.avi", 16)
    videos = tmp_path / "videos"
    write_video(videos / "Arson" / "b.avi", 16)
    (videos / "Abuse").symlink_to(tmp_path / "elsewhere")
    (videos / "Arson" / "circle").symlink_to(videos)
    assert [job.name for job in find_videos(videos)] == ["Abuse/a", "Arson/b"]


def test_missing_bytes_are_told_from_the_container(tmp_path: Path) -> None:
    """MJPG in AVI states its length: whole it lacks nothing, cut it lacks what was cut (± the padding byte)."""
    data = write_video(tmp_path / "a.avi", 30).read_bytes()
    assert bytes_missing(tmp_path / "a.avi") == 0
    for cut in (2, 100, len(data) // 2):
        (tmp_path / "cut.avi").write_bytes(data[:-cut])
        assert abs(bytes_missing(tmp_path / "cut.avi") - cut) <= 1


def test_real_videos_lack_nothing_until_they_are_cut(realdata: Path, tmp_path: Path) -> None:
    for path in (p for p in (realdata / "videos").iterdir() if p.suffix in (".mp4", ".mkv", ".avi")):
        assert bytes_missing(path) == 0, path.name
        data = path.read_bytes()
        (tmp_path / "cut").write_bytes(data[: len(data) * 7 // 10])
        assert 0 < bytes_missing(tmp_path / "cut") <= len(data) - len(data) * 7 // 10, path.name


def test_damaged_copies_are_embedded_as_they_decode_or_reported(tmp_path: Path) -> None:
    """Fourteen copies, each mutation twice; `fuzz.py` does the same to hundreds of real ones."""
    sources = [write_video(tmp_path / f"{number}.avi", 40 + 16 * number, seed=number) for number in range(2)]
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    names = list(copies(sources, 14, folder, seed=0))
    records = run_over(folder, out, workers=1, time_limit=60)
    assert records.keys() == set(names)
    assert {name.split("-")[1].replace("_", " ") for name in names} == set(MUTATIONS)
    for record in records.values():
        check(folder, out, record)
    assert len({record.outcome for record in records.values()}) >= 3  # the damage was felt


def folder_run(videos: Path, out: Path, **options: object) -> FolderRun:
    return FolderRun(find_videos(videos), [Target("image", out, Sums(), Settings())], Settings(), (5,), **options)


def test_a_decoder_killed_once_is_replaced_and_its_video_made_whole(tmp_path: Path) -> None:
    job = find_videos(write_video(tmp_path / "v" / "a.avi", 400).parent)[0]
    job = type(job)(job.path, job.video, job.name, job.size, ("image",))
    items = []
    with Decoders([job], Settings(), (5,), 1) as decoders:
        for _, item in decoders:
            items.append(type(item))
            if len(items) == 3:  # opened and two snippets
                os.kill(decoders.pids[0], signal.SIGKILL)
    again = items.index(Again)
    assert items[again + 1 :] == [Opened, *[Snippet] * 25, Ended]


def test_a_decoder_killed_twice_is_an_outcome_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 400, seed=1)
    write_video(videos / "b.avi", 40, seed=2)
    walk, killed = Decoders.__iter__, []

    def killing(self: Decoders):
        for job, item in walk(self):
            if job.video == "a.avi" and isinstance(item, Opened):
                (process,) = [process for process in self._processes if process.job is job]
                os.kill(process.process.pid, signal.SIGKILL)
                killed.append(process.process.pid)
            yield job, item

    monkeypatch.setattr(Decoders, "__iter__", killing)
    summary = folder_run(videos, out, workers=1).run()
    assert len(killed) == 2
    records = Manifest(out).records
    assert records["a"].outcome == "decoder_died"
    assert records["a"].reason == "the decoder process died (signal 9, Killed), tried 2 times"
    assert records["b"].outcome == "ok"
    assert [path.name for path in out.rglob("*") if path.is_file()].count("a__5.npy") == 0
    assert not list(out.rglob(".unfinished"))
    assert [record.video for _, record in summary.odd] == ["a.avi"]


@pytest.mark.parametrize("after", ["stopped at once", "stopped in the middle"])
def test_a_decoder_that_hangs_is_ended_by_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """A stopped process (SIGSTOP) stands for one that hangs: it says nothing and decodes nothing."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 1600, seed=1)
    write_video(videos / "b.avi", 40, seed=2)
    walk = Decoders.__iter__

    def stopping(self: Decoders):
        for job, item in walk(self):
            if job.video == "a.avi" and isinstance(item, Opened if "once" in after else Snippet):
                (process,) = [process for process in self._processes if process.job is job]
                os.kill(process.process.pid, signal.SIGSTOP)
            yield job, item

    monkeypatch.setattr(Decoders, "__iter__", stopping)
    folder_run(videos, out, workers=1, time_limit=2).run()
    records = Manifest(out).records
    assert records["a"].outcome == "time_limit"
    assert records["a"].reason.startswith("no further snippet within 2 seconds after ")
    assert (records["b"].outcome, records["b"].snippets) == ("ok", 2)


def test_an_encoder_slower_than_the_limit_is_no_hanging_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = write_video(tmp_path / "v" / "a.avi", 160).parent
    images, naps = Sums.images, []

    def slow(self: Sums, frames: object) -> object:
        if not naps:
            naps.append(time.sleep(4))
        return images(self, frames)

    monkeypatch.setattr(Sums, "images", slow)
    folder_run(videos, tmp_path / "out", time_limit=2).run()
    assert Manifest(tmp_path / "out").records["a"].outcome == "ok"
    _, rows = plain_sums(videos / "a.avi")
    assert np.array_equal(np.load(tmp_path / "out" / "a__5.npy"), rows)


def test_strict_stops_at_the_first_bad_video_and_keeps_the_rest(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 32, seed=1)
    (videos / "b.mp4").write_text("no video")
    write_video(videos / "c.avi", 32, seed=2)
    first = folder_run(videos, out, workers=1, strict=True, batch_size=16).run()
    assert first.stopped
    assert sorted(path.name for path in out.glob("*.npy")) == ["a__5.npy"]
    assert {name: record.outcome for name, record in Manifest(out).records.items()} == {"a": "ok", "b": "not_video"}
    (videos / "b.mp4").unlink()
    second = folder_run(videos, out, workers=1, strict=True).run()
    assert (second.stopped, len(second.before["image"]), len(second.done["image"])) == (False, 1, 1)


def test_a_failure_leaves_what_was_made_of_the_same_file_before(tmp_path: Path) -> None:
    """Crop 5 is there; crop 0 fails because the file cannot be decoded this time; crop 5 stays, and counts."""
    out = tmp_path / "out"
    video = write_video(tmp_path / "v" / "a.avi", 32)
    folder_run(video.parent, out).run()
    target = Target("image", out, Sums(), Settings())
    (job,) = find_videos(video.parent)
    target.note(target.record(job, Ended(16, 32, "time_limit", "hangs", usable=False)))
    assert (out / "a__5.npy").is_file()
    assert Manifest(out).finished(job, (5,))
    changed = type(job)(job.path, job.video, job.name, job.size + 1)
    target.note(target.record(changed, Ended(0, None, "not_video", "no video", usable=False)))
    assert not (out / "a__5.npy").is_file()  # of a file that is no longer there


def test_mutations_are_drawn_from_a_seed(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", 20)
    drawn = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(random.random())
        folder.mkdir()
        names = list(copies([source], 7, folder, seed))
        drawn.append([(folder / name).read_bytes() for name in names])
    assert drawn[0] == drawn[1] != drawn[2]
