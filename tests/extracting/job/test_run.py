"""Runs over a folder: files, manifest, resuming, refusals, bad videos and failing decoders."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from extracting.clip.encoder import Encoder
from extracting.job import run as run_module
from extracting.job.files import EmbeddingFile, embedding_path, event_map_path
from extracting.job.manifest import Manifest, Record
from extracting.job.run import ExtractionRun, run
from extracting.job.videos import find_videos
from extracting.video import process
from extracting.video.config import Config
from extracting.video.decode import DecodeResult
from extracting.video.events import EventCounter
from extracting.video.frames import Video
from tests.extracting import child
from tests.extracting.helpers import (
    BOTH,
    ROOT,
    Sums,
    contents,
    hidden,
    make,
    outputs_of,
    write_video,
)
from tests.tools.fuzz import MUTATIONS, check, copies, plain_sums, run_over
from vad.files import InputError


def embedded(done: ExtractionRun, modality: str = "image") -> list[str]:
    return sorted(record.name for record in done.summary.done[modality] if record.embedded)


def reused(done: ExtractionRun, modality: str = "image") -> int:
    return len(done.summary.before[modality])


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*.np?")}


def outcomes(out: Path) -> dict[str, str]:
    return {name: record.outcome for name, record in Manifest(out).records.items()}


def test_files_and_manifest_of_both_modalities(
    videos: Path, tmp_path: Path, tiny_encoders: dict[str, Encoder]
) -> None:
    out = tmp_path / "out"
    done = make(videos, out, tiny_encoders, crops=(0, 5, 9))
    names = ("Abuse/a.b_x264", "Arson/c", "d")
    files = {f"{m}/{name}__{crop}.npy" for m in BOTH for name in names for crop in (0, 5, 9)}
    assert contents(out).keys() == files
    assert hidden(out) == []
    assert done.summary.frames == 16 * 6  # decoded once, not twice
    for modality in BOTH:
        lines = map(json.loads, (out / modality / "manifest.jsonl").read_text().splitlines())
        records = {line["name"]: line for line in lines}
        assert {name: records[name]["snippets"] for name in names} == dict(zip(names, (3, 2, 1), strict=True))
        line = records["Abuse/a.b_x264"]
        assert (line["video"], line["outcome"]) == ("Abuse/a.b_x264.avi", "ok")
        assert (line["frames"], line["declared"], line["fps"]) == (50, 50, 25)
        assert (line["crops"], line["encoder"]) == ([0, 5, 9], tiny_encoders[modality].hash)
        recorded = {"modality", "tail", "opencv", "precision", "pass_size", "device", "tower"}
        events = {"event_threshold", "event_clamp", "event_scaling"}
        assert line["settings"].keys() == recorded | (events if modality == "event" else set())
    stored = np.load(out / "image" / "Abuse" / "a.b_x264__5.npy", allow_pickle=False)
    assert (stored.shape, stored.dtype) == ((3, 64), np.float32)


def test_one_pass_writes_the_same_as_two(videos: Path, tmp_path: Path) -> None:
    make(videos, tmp_path / "both")
    for modality in BOTH:
        make(videos, tmp_path / "separate", modalities=(modality,))
    assert len(contents(tmp_path / "both")) == 12  # three videos, two modalities, two crops
    assert contents(tmp_path / "both") == contents(tmp_path / "separate")


def test_embeddings_equal_those_of_a_plain_decode(tmp_path: Path) -> None:
    """For batches of 1, 3 and 100 snippets, of two videos embedded in parallel."""
    for number in range(2):
        write_video(tmp_path / "v" / f"{number}.avi", 90 + 16 * number, seed=number)
    for size in (16, 48, 1600):
        make(tmp_path / "v", tmp_path / f"{size}", dict.fromkeys(BOTH, Sums(size)), crops=(5,))
        for number in range(2):
            _, rows = plain_sums(tmp_path / "v" / f"{number}.avi")
            assert np.array_equal(np.load(tmp_path / f"{size}" / "image" / f"{number}__5.npy"), rows)
    assert contents(tmp_path / "16") == contents(tmp_path / "48") == contents(tmp_path / "1600")


def test_missing_modality_of_a_finished_video_is_embedded(videos: Path, tmp_path: Path) -> None:
    make(videos, tmp_path / "out", modalities=("image",))
    before = stamps(tmp_path / "out")
    (tmp_path / "out" / "image" / "d__0.npy").unlink()
    second = make(videos, tmp_path / "out")
    modalities = {job.name: job.modalities for job in second.todo}
    assert modalities == {"Abuse/a.b_x264": ("event",), "Arson/c": ("event",), "d": BOTH}
    after = stamps(tmp_path / "out" / "image")
    assert all(after[name] == stamp for name, stamp in before.items() if not name.startswith("d__"))


def test_killed_run_is_resumed(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop after writing the second video's files but not its line; the first video is not touched."""
    out, append, finished = tmp_path / "out", Manifest.append, []

    def stop_at_the_second(self: Manifest, record: Record) -> None:
        if finished:
            raise KeyboardInterrupt
        append(self, record)
        finished.append(record.name)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "append", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            make(videos, out, modalities=("image",), workers=1)
    assert hidden(out) == []
    name = f"{Path(finished[0]).name}__5.npy"
    before = stamps(out)[name]
    second = make(videos, out, modalities=("image",))
    assert (reused(second), len(embedded(second))) == (1, 2)
    assert stamps(out)[name] == before
    assert make(videos, out, modalities=("image",)).todo == []


def test_ctrl_c_during_a_video_leaves_no_file(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddingFile, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(videos, tmp_path / "out", save_events=True)
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == ["manifest.jsonl"] * 2


def test_torn_lines_and_replaced_videos_are_redone(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(videos, out, modalities=("image",))
    manifest = out / "image" / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:2], lines[2][:40]]))  # as if killed while writing the third line
    assert reused(make(videos, out, modalities=("image",))) == 2
    assert outcomes(out / "image").keys() == {"Abuse/a.b_x264", "Arson/c", "d"}
    (out / "image" / "Arson" / "c__5.npy").unlink()
    write_video(videos / "d.avi", 40, seed=9)
    assert embedded(make(videos, out, modalities=("image",))) == ["Arson/c", "d"]
    assert np.load(out / "image" / "d__5.npy").shape == (2, 8)


def test_new_crops_are_added_to_existing_ones(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(videos, out, crops=(5,))
    assert reused(make(videos, out, crops=(0,))) == 0
    assert Manifest(out / "image").records["d"].crops == [0, 5]
    assert reused(make(videos, out, crops=(0, 5))) == 3


def test_replaced_video_loses_its_old_crops(videos: Path, tmp_path: Path) -> None:
    """Crop 0 belongs to the old file and must not remain next to crop 5 of the new one."""
    out = tmp_path / "out" / "image"
    make(videos, tmp_path / "out", crops=(0, 5))
    write_video(videos / "d.avi", 40, seed=9)
    make(videos, tmp_path / "out", crops=(5,))
    assert not (out / "d__0.npy").exists()
    assert Manifest(out).records["d"].crops == [5]


def test_changed_settings_are_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(videos, out)
    with pytest.raises(InputError, match=r"made with tail = whole .*this run uses released.*--overwrite"):
        make(videos, out, tail="released")
    other = Sums()
    other.hash = "0123"
    with pytest.raises(InputError, match="made with encoder = sums"):
        make(videos, out, dict.fromkeys(BOTH, other))
    # an event option does not affect image embeddings
    assert reused(make(videos, out, modalities=("image",), event_clamp=3)) == 3
    done = make(videos, out, tail="released", crops=(5,), overwrite=True)
    assert len(embedded(done)) == 3
    assert not (out / "image" / "d__0.npy").exists()  # made with other settings, and not made again
    assert Manifest(out / "image").records["d"].settings["tail"] == "released"


def test_other_opencv_version_is_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels may differ. A manifest without an OpenCV version is accepted."""
    make(videos, tmp_path / "out")
    monkeypatch.setattr(run_module.cv2, "__version__", "4.10.9")
    with pytest.raises(InputError, match=r"made with opencv = 4\.\d+\.\d+ .*this run uses 4\.10\.9"):
        make(videos, tmp_path / "out")
    for modality in BOTH:
        path = tmp_path / "out" / modality / "manifest.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            del line["settings"]["opencv"]
            line["promised"] = line.pop("declared")  # the name in earlier versions
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert make(videos, tmp_path / "out").todo == []


def test_stopped_overwrite_leaves_no_mixture(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after replacing one of a video's two crops: a run with either settings embeds it again."""
    out = tmp_path / "out"
    make(videos, out, modalities=("image",))
    replaced, replace = [], os.replace

    def stopped(source: Path, target: Path) -> None:
        if replaced:
            raise KeyboardInterrupt
        replaced.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            make(videos, out, modalities=("image",), tail="released", overwrite=True)
    assert set(outcomes(out / "image").values()) == {"unfinished"}
    back = shutil.copytree(out, tmp_path / "back")
    make(videos, tmp_path / "old", modalities=("image",))
    make(videos, tmp_path / "new", modalities=("image",), tail="released")
    for folder, expected, tail in ((out, "new", "released"), (back, "old", "whole")):
        done = make(videos, folder, modalities=("image",), tail=tail)
        assert (reused(done), len(embedded(done))) == (0, 3)
        assert contents(folder) == contents(tmp_path / expected)


def test_embeddings_without_a_manifest_are_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "image"
    out.mkdir(parents=True)
    np.save(out / "d__5.npy", np.zeros((7, 64)))
    with pytest.raises(InputError, match=r"d__5\.npy exists, but no manifest\.jsonl records how it was made"):
        make(videos, tmp_path / "out")
    assert np.load(out / "d__5.npy").shape == (7, 64)
    make(videos, tmp_path / "out", overwrite=True)
    assert np.load(out / "d__5.npy").shape == (1, 8)


def test_second_run_at_the_same_video_is_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = next(job for job in find_videos(videos) if job.name == "Arson/c")
    other = EmbeddingFile(out / "image", job, "image", (0, 5), 8)
    with pytest.raises(InputError, match=r"Arson/c: another run is writing the embeddings of this video"):
        make(videos, out)
    other.discard()
    make(videos, out)
    assert outcomes(out / "image") == dict.fromkeys(("Abuse/a.b_x264", "Arson/c", "d"), "ok")


def test_saved_event_maps_equal_the_event_counts(videos: Path, tmp_path: Path) -> None:
    """Counts (3, 256, 340) before the clamp of 2. A video without its event maps is not finished."""
    out = tmp_path / "out"
    make(videos, out, event_clamp=2)
    second = make(videos, out, event_clamp=2, save_events=True)
    assert {job.modalities for job in second.todo} == {("event",)}
    counter = EventCounter()
    frames = Video(videos / "Abuse" / "a.b_x264.avi").snippets()
    expected = np.stack([counter.count(snippet, 3) for snippet in frames])
    assert expected.max() > 2
    with np.load(event_map_path(out / "event", "Abuse/a.b_x264"), allow_pickle=False) as file:
        assert file.files == ["counts"]
        assert file["counts"].dtype == np.uint8
        assert np.array_equal(file["counts"], expected)
    assert make(videos, out, event_clamp=2, save_events=True).todo == []
    event_map_path(out / "event", "d").unlink()
    third = make(videos, out, event_clamp=2, save_events=True)
    assert [job.name for job in third.todo] == ["d"]


def test_files_equal_those_of_numpy_save(tmp_path: Path) -> None:
    (job,) = find_videos(write_video(tmp_path / "v" / "Class" / "a.avi", 16).parents[1])
    file = EmbeddingFile(tmp_path, job, "image", (0, 5), 3)
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    for row in rows:
        file.pending += 1
        file.append(row)
    assert not list((tmp_path / "Class").glob("*.npy"))  # no file has its final name before the end
    file.result = DecodeResult("ok")
    assert file.finish().usable
    for c, crop in enumerate((0, 5)):
        np.save(tmp_path / "numpy.npy", np.ascontiguousarray(rows[:, c]))
        written = embedding_path(tmp_path, "Class/a", crop).read_bytes()
        assert written == (tmp_path / "numpy.npy").read_bytes()


def test_run_resumes_after_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file size limit (EFBIG) simulates a full disk (ENOSPC)."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 32, seed=1)
    write_video(videos / "b.avi", 16 * 60, seed=2)
    make(videos, tmp_path / "whole", modalities=("event",))
    start, limits = run_module._start_decoder, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments: object) -> object:
        started = start(*arguments)  # limits this process, not the decoder
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))  # 60 rows of two crops take 3,840
        return started

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_start_decoder", limited)
        try:
            with pytest.raises(InputError, match=r"b.*cannot be written \(File too large\)\. Finished"):
                make(videos, out, modalities=("event",), workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert hidden(out) == []
    assert outcomes(out / "event") == {"a": "ok"}
    stamp = (out / "event" / "a__5.npy").stat().st_mtime_ns
    make(videos, out, modalities=("event",))
    assert (out / "event" / "a__5.npy").stat().st_mtime_ns == stamp
    assert contents(out) == contents(tmp_path / "whole")


def test_full_disk_while_writing_event_maps_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = write_video(tmp_path / "v" / "a.avi", 160).parent
    monkeypatch.setattr(process, "decode", child.limited)
    with pytest.raises(InputError, match=r"a\.maps: cannot be written \(File too large\)\. Finished"):
        make(videos, tmp_path / "out", modalities=("event",), save_events=True)
    assert hidden(tmp_path / "out") == []


def overdeclared_avi(path: Path, frames: int, declared: int) -> Path:
    """Write an AVI whose headers declare more frames than it contains."""
    data = bytearray(write_video(path, frames).read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):  # dwTotalFrames, dwLength
        data[at : at + 4] = declared.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def test_every_bad_video_has_an_outcome_and_a_reason(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "A" / "good.avi", 40, seed=1)
    overdeclared_avi(videos / "A" / "declares.avi", 40, 60)
    whole = write_video(tmp_path / "whole.avi", 60, seed=2).read_bytes()
    (videos / "A" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    write_video(videos / "A" / "brief.avi", 15)
    (videos / "A" / "nothing.mp4").touch()
    (videos / "A" / "text.mp4").write_text("not a video\n")
    (videos / "A" / "loop.mp4").symlink_to("loop.mp4")
    (videos / "A" / "dangling.mkv").symlink_to("nowhere.mkv")
    write_video(videos / "A" / "twice.avi", 20)
    write_video(videos / "sub" / "A" / "twice.avi", 20)
    long = "x" * 251 + ".avi"  # the longest legal name
    write_video(tmp_path / "long.avi", 20).rename(videos / "A" / long)
    records = run_over(videos, out, workers=2, time_limit=60)
    results = {record.video: (record.outcome, record.reason) for record in records.values()}
    lines = [Record(**line) for line in map(json.loads, (out / "image" / "manifest.jsonl").open())]
    assert len(lines) == 11  # one per file, including the two with the same name
    assert results["A/good.avi"] == ("ok", "")
    assert results["A/declares.avi"][0] == results["A/cut.avi"][0] == "short"
    assert results["A/brief.avi"] == ("too_short", "the video has 15 frames, but a snippet needs at least 16")
    assert results["A/nothing.mp4"][0] == "empty"
    assert results["A/text.mp4"][0] == "not_video"
    assert results["A/loop.mp4"] == ("unreadable", "cannot be read (Too many levels of symbolic links)")
    assert results["A/dangling.mkv"] == ("unreadable", "cannot be read (No such file or directory)")
    assert results[f"A/{long}"][0] == "unreadable" and "too long" in results[f"A/{long}"][1]
    reason = "would also write A/twice__0.npy; rename one of the videos"
    assert {line.video: line.reason for line in lines if line.outcome == "same_name"} == {
        "A/twice.avi": f"sub/A/twice.avi {reason}",
        "sub/A/twice.avi": f"A/twice.avi {reason}",
    }
    assert sorted(path.stem for path in out.rglob("*.npy")) == ["cut__5", "declares__5", "good__5"]


def test_videos_with_unusual_names_are_embedded(tmp_path: Path) -> None:
    """A name that is not UTF-8 is reported, since OpenCV crashes on it, and read back unchanged."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    whole = write_video(tmp_path / "whole.avi", 20).read_bytes()
    names = ["cam1:0900.mp4", "100%d.avi", "new\nline.avi", "東京.avi", "-dash.avi", "a#b?c'\".avi", "a__5.avi"]
    videos.mkdir()
    for name in [*names, os.fsdecode(b"caf\xe9.avi")]:
        (videos / name).write_bytes(whole)
    records = run_over(videos, out, workers=1, time_limit=60)
    assert {name: records[name].outcome for name in names} == dict.fromkeys(names, "ok")
    bad = records[os.fsdecode(b"caf\xe9.avi")]
    assert (bad.outcome, bad.reason) == ("unreadable", "the path is not valid UTF-8; rename the file or folder")
    assert len((out / "image" / "manifest.jsonl").read_bytes().splitlines()) == 8
    again = make(videos, out, modalities=("image",), crops=(5,))
    assert [job.name for job in again.todo] == [bad.name]


def test_damaged_copies_equal_a_plain_decode(tmp_path: Path) -> None:
    """Fourteen copies, two per mutation; `fuzz.py` does the same with hundreds of real videos."""
    sources = [write_video(tmp_path / f"{n}.avi", 40 + 16 * n, seed=n) for n in range(2)]
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    names = list(copies(sources, 14, folder, seed=0))
    records = run_over(folder, out, workers=1, time_limit=60)
    assert records.keys() == set(names)
    assert {name.split("-")[1].replace("_", " ") for name in names} == set(MUTATIONS)
    for record in records.values():
        check(folder, out, record)
    assert len({record.outcome for record in records.values()}) >= 3  # the damage has an effect


def test_mutations_are_reproducible_from_a_seed(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", 20)
    damaged = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = list(copies([source], 7, folder, seed))
        damaged.append([(folder / name).read_bytes() for name in names])
    assert damaged[0] == damaged[1] != damaged[2]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Video "a", at which decoders fail, and video "b"."""
    write_video(tmp_path / "v" / "a.avi", 160, seed=1)
    return write_video(tmp_path / "v" / "b.avi", 40, seed=2).parent


def test_video_is_complete_after_one_decoder_crash(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(pair, tmp_path / "undisturbed", save_events=True)
    monkeypatch.setattr(process, "decode", child.crash_once)
    make(pair, tmp_path / "out", save_events=True)
    assert outcomes(tmp_path / "out" / "image") == {"a": "ok", "b": "ok"}
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_two_decoder_crashes_give_decoder_died(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "decode", child.crash)
    done = make(pair, tmp_path / "out", modalities=("image",), workers=1)
    records = Manifest(tmp_path / "out" / "image").records
    assert records["a"].outcome == "decoder_died"
    assert records["a"].reason == "the decoder process crashed (signal 11, Segmentation fault); 2 attempts failed"
    assert (records["b"].outcome, records["b"].snippets) == ("ok", 2)
    assert [record.video for _, record in done.summary.problems] == ["a.avi"]
    assert contents(tmp_path / "out").keys() == {"image/b__0.npy", "image/b__5.npy"}
    assert hidden(tmp_path / "out") == []


def test_decoder_hanging_in_native_code_is_ended(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "decode", child.hang)
    started = time.monotonic()
    make(pair, tmp_path / "out", modalities=("image",), time_limit=2)
    assert time.monotonic() - started < 30  # without the limit it hangs for 60 seconds
    records = Manifest(tmp_path / "out" / "image").records
    assert records["a"].outcome == "time_limit"
    assert records["a"].reason == "no new snippet within 2 seconds after frame 16 (--time_limit)"
    assert (records["b"].outcome, records["b"].snippets) == ("ok", 2)


def test_slow_encoder_does_not_trigger_the_time_limit(pair: Path, tmp_path: Path) -> None:
    class Slow(Sums):
        delay = 4

        def images(self, *arguments: object) -> object:
            time.sleep(self.delay)
            self.delay = 0
            return super().images(*arguments)

    make(pair, tmp_path / "out", {"image": Slow()}, ("image",), time_limit=2)
    assert outcomes(tmp_path / "out" / "image") == {"a": "ok", "b": "ok"}


def test_bug_in_the_decoder_keeps_its_traceback(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "decode", child.fail)
    with pytest.raises(RuntimeError, match=r"exception for .*a\.avi:\n.*Traceback[\s\S]*ZeroDivisionError"):
        make(pair, tmp_path / "out")


def test_decoders_import_neither_torch_nor_the_script(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "decode", child.list_modules)
    make(pair, tmp_path / "out")
    modules = set((pair / "a.avi.modules").read_text().splitlines())
    assert "extracting.video.decode" in modules
    assert not modules & {"torch", "pytest", "sklearn", "pandas"}


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from extracting.video.config import Config
from extracting.own.videos import embed_own_videos
from tests.extracting.helpers import Sums
with open("imported", "a") as log:
    log.write("once\\n")
embed_own_videos([Path("v/a.avi"), Path("v/b.avi")], {{"image": Sums()}}, Path("own"), Config(crops=(5,)))
"""


def test_user_script_needs_no_main_guard(pair: Path, tmp_path: Path) -> None:
    """Decoder processes do not run the main script again."""
    (tmp_path / "script.py").write_text(SCRIPT.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "imported").read_text() == "once\n"
    assert len(list((tmp_path / "own").rglob("*.npy"))) == 2


def test_strict_stops_at_the_first_bad_video(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 32, seed=1)
    (videos / "b.mp4").write_text("no video")
    write_video(videos / "c.avi", 32, seed=2)
    first = make(videos, out, modalities=("image",), crops=(5,), workers=1, strict=True)
    assert first.summary.stopped
    assert contents(out).keys() == {"image/a__5.npy"}
    assert outcomes(out / "image") == {"a": "ok", "b": "not_video"}
    (videos / "b.mp4").unlink()
    second = make(videos, out, modalities=("image",), crops=(5,), workers=1, strict=True)
    assert (second.summary.stopped, reused(second), embedded(second)) == (False, 1, ["c"])


def test_failure_keeps_other_crops_of_the_same_file(tmp_path: Path) -> None:
    """If crop 0 fails, crop 5 is kept. If the video file has changed, all crops are removed."""
    out = tmp_path / "out" / "image"
    video = write_video(tmp_path / "v" / "a.avi", 32)
    done = make(video.parent, tmp_path / "out", modalities=("image",), crops=(5,))
    output, manifest = done.outputs["image"], Manifest(out)
    (job,) = find_videos(video.parent)
    manifest.write_record(output.record(job, DecodeResult("time_limit", "hangs", 16)))
    assert (out / "a__5.npy").is_file()
    assert Manifest(out).records["a"].crops == [5]
    changed = type(job)(job.path, job.video, job.name, job.size + 1)
    manifest.write_record(output.record(changed, DecodeResult("not_video", "no video")))
    assert not (out / "a__5.npy").is_file()


class NaNEncoder(Sums):
    """Returns NaN for all snippets, or only for those with a white pixel."""

    def __init__(self, only_white: bool) -> None:
        super().__init__()
        self._only_white = only_white

    def images(self, frames: object, crops: object) -> object:
        rows = super().images(frames, crops)
        rows[frames.amax((1, 2, 3, 4)) == 255 if self._only_white else slice(None)] = float("nan")
        return rows


def test_video_with_nan_embeddings_is_not_written(tmp_path: Path) -> None:
    for number, high in enumerate((200, 256, 200)):
        frames = tmp_path / "v" / f"{number}"
        frames.mkdir(parents=True)
        picture = np.full((48, 64, 3), high - 1, np.uint8)
        for k in range(16):
            run_module.cv2.imwrite(str(frames / f"{k:03d}.png"), picture)
    make(tmp_path / "v", tmp_path / "out", {"image": NaNEncoder(True)}, ("image",))
    assert outcomes(tmp_path / "out" / "image") == {"0": "ok", "1": "not_finite", "2": "ok"}
    assert not list((tmp_path / "out").rglob("1__*.npy"))


def test_nan_for_every_video_stops_the_run(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinite embeddings for every video"):
        make(videos, tmp_path / "out", {"image": NaNEncoder(False)}, ("image",))
    assert contents(tmp_path / "out") == {}


def test_frame_folder_is_embedded_like_a_video(tmp_path: Path) -> None:
    """The same pixels as PNG files and as a lossless video give the same embeddings and event maps."""
    random = np.random.RandomState(0)
    folder = tmp_path / "frames" / "Arson" / "01_001"
    folder.mkdir(parents=True)
    writer = run_module.cv2.VideoWriter(
        str(tmp_path / "01_001.avi"), run_module.cv2.VideoWriter_fourcc(*"FFV1"), 25, (64, 48)
    )
    for k in range(40):
        picture = random.randint(0, 256, (48, 64, 3)).astype(np.uint8)
        run_module.cv2.imwrite(str(folder / f"{k}.png"), picture)  # 9 before 10
        writer.write(picture)
    writer.release()
    (tmp_path / "file" / "Arson").mkdir(parents=True)
    (tmp_path / "01_001.avi").rename(tmp_path / "file" / "Arson" / "01_001.avi")
    for name in ("frames", "file"):
        make(tmp_path / name, tmp_path / "out" / name, save_events=True, fps=12.5)
    assert contents(tmp_path / "out" / "frames") == contents(tmp_path / "out" / "file")
    record = Manifest(tmp_path / "out" / "frames" / "image").records["Arson/01_001"]
    assert (record.frames, record.declared, record.fps, record.snippets) == (40, 40, 12.5, 2)


def test_run_yields_records_and_one_none_per_snippet(videos: Path, tmp_path: Path) -> None:
    """The loop without a manifest, as `own_video` uses it."""
    config = Config(crops=(5,))
    outputs = outputs_of(tmp_path / "out", dict.fromkeys(BOTH, Sums()), config)
    results = list(run(find_videos(videos), outputs, config))
    assert results.count(None) == 6
    records = [result for result in results if result is not None]
    assert {(job.name, modality) for job, modality, _ in records} == {
        (name, modality) for name in ("Abuse/a.b_x264", "Arson/c", "d") for modality in BOTH
    }
