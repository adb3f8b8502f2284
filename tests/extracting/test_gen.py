"""gen.py and what its flags add: both modalities from one pass, event maps, the test split, a dry run, full disks."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting import decoders as decoders_module
from extracting import planning
from extracting.crops import crop_views
from extracting.decoders import Decoders
from extracting.doors import extract
from extracting.embedder import Embedder, Target
from extracting.encoder import Encoder, load_encoder
from extracting.event_files import EventMapFile, event_map_path
from extracting.events import count_events
from extracting.flags import read_request
from extracting.frames import Video
from extracting.manifest import Manifest
from extracting.outputs import part_path, sweep
from extracting.run import FolderRun
from extracting.stream import Ended, Settings, Snippet, stream
from extracting.videos import find_videos, pick_test_videos
from tests.extracting.helpers import ROOT, command, write_video
from vad.catalog import MSAD, SHANG
from vad.errors import InputError

BOTH = ("image", "event")


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return {name: load_encoder("untrained", name, tower="tiny", device="cpu") for name in BOTH}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos of 3, 2 and 1 snippets."""
    root = tmp_path / "videos"
    write_video(root / "Abuse" / "a.avi", 50, seed=1)
    write_video(root / "Arson" / "c.avi", 32, seed=2)
    write_video(root / "d.avi", 17, seed=3)
    return root


def make(
    videos: Path, out: Path, encoders: dict[str, Encoder], modalities: tuple[str, ...] = BOTH, **options: object
) -> FolderRun:
    """A run into out/image and out/event."""
    settings, events = options.pop("settings", Settings(event_threshold=3)), options.pop("save_events", False)
    targets = [Target(m, out / m, encoders[m], settings, save_events=events) for m in modalities]
    run = FolderRun(find_videos(videos), targets, settings, (0, 5), **options)
    run.run()
    return run


def door(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str | Path) -> tuple[int, str]:
    """Exit code and output of gen.py, without a process of its own."""
    monkeypatch.setattr(planning, "_SECONDS", 0.05)
    monkeypatch.setattr(sys, "argv", ["gen.py", "--device", "cpu", *map(str, flags)])
    return extract(None), capsys.readouterr().out


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.np?"))}


def test_one_pass_writes_what_two_would(videos: Path, tmp_path: Path, encoders: dict[str, Encoder]) -> None:
    done = make(videos, tmp_path / "both", encoders)
    for modality in BOTH:
        make(videos, tmp_path / "apart", encoders, (modality,))
    both = contents(tmp_path / "both")
    assert len(both) == 12  # three videos, two modalities, two crops
    assert both == contents(tmp_path / "apart")
    assert done.summary.frames == 16 * 6  # decoded once, not twice


def test_a_video_finished_in_one_folder_is_decoded_for_the_other_alone(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder]
) -> None:
    make(videos, tmp_path / "out", encoders, ("image",))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npy")}
    (tmp_path / "out" / "image" / "d__0.npy").unlink()
    second = make(videos, tmp_path / "out", encoders)
    wanted = {job.name: job.modalities for job in second.todo}
    assert wanted == {"Abuse/a": ("event",), "Arson/c": ("event",), "d": BOTH}
    for path, stamp in before.items():
        assert path.name.startswith("d__") or path.stat().st_mtime_ns == stamp


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


def test_the_door_makes_both_and_tells_what_it_would_do(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "demo", "--modality", "both", "--video_dir", videos]
    flags += ["--image_dir", tmp_path / "i", "--event_dir", tmp_path / "e", "--crops", "5"]
    code, said = door(monkeypatch, capsys, *flags, "--dry_run")
    assert code == 0
    assert not (tmp_path / "i").exists()
    assert not (tmp_path / "e").exists()
    # 50, 32 and 17 frames are 3 + 2 + 1 snippets; an image snippet takes 16 forward passes, an event map one
    assert "3 videos to make, 0 that failed before, 0 finished" in said
    assert "6 snippets · 96 forward passes · 1.9 KB of files" in said  # 6 rows of 64 float32, 3 headers
    assert "6 snippets · 6 forward passes" in said
    assert "99 frames promised" in said
    done = command("gen.py", *flags, "--save_events", cwd=ROOT / "extracting")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'i'}: 3 videos written, 0 were finished before" in done.stdout
    assert len(list((tmp_path / "e").rglob("*__events.npz"))) == 3
    records = [Manifest(tmp_path / folder).records["Abuse/a"] for folder in ("i", "e")]
    assert [record.settings["modality"] for record in records] == ["image", "event"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--modality", "both", "--save_dir", "x"], "give --image_dir and --event_dir"),
        (["--modality", "both", "--image_dir", "x"], "--event_dir is missing"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "./x"], "both x; files of one name"),
        (["--modality", "both", "--image_dir", "x", "--event_dir", "y"], "give its path as --event_ckpt"),
        (["--modality", "image", "--save_dir", "x", "--save_events"], "--save_events writes event maps"),
        (["--modality", "image", "--save_dir", "x", "--time_limit", "0"], "--time_limit 0.0: at least 1"),
        (["--modality", "image", "--save_dir", "x", "--test_list", "t"], "--split test; add that"),
        (["--modality", "image", "--save_dir", "x", "--crops", "11"], "crops are numbered 0 to 9"),
    ],
)
def test_flags_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], sentence: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["gen.py", "--dataset", "ucfcrime", "--video_dir", str(tmp_path), *flags])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_request(None, None)


def test_split_test_takes_the_test_videos(tmp_path: Path, realdata: Path) -> None:
    """MSAD's release lists 241 test videos; the official split gives Robbery_10 back to training."""
    names = ["Robbery_10", "Robbery_11", "MSAD_normal_testing_000", "Nobody_1"]
    listed = (realdata / "annotations" / "msad_test_list.txt").read_text()
    present = [name for name in names if name in listed]
    assert "Robbery_10" in present
    for name in names:
        write_video(tmp_path / "v" / "C" / f"{name}.avi", 16)
    jobs = find_videos(tmp_path / "v")
    own = realdata / "annotations" / "msad_test_list.txt"
    for split, number in (("released", 241), ("official", 240)):
        chosen, missing = pick_test_videos(jobs, MSAD, split, own)
        wanted = [name for name in present if split == "released" or name != "Robbery_10"]
        assert [job.path.stem for job in chosen] == sorted(wanted)
        assert len(chosen) + len(missing) == number


def test_split_test_without_a_list_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 16)
    with pytest.raises(InputError, match=r"--split test: .* is missing, which names ShanghaiTech's test videos"):
        pick_test_videos(find_videos(tmp_path), SHANG, "official", tmp_path / "none.txt")


def test_split_test_takes_crop_5_and_says_so(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.txt").write_text("Abuse/a.avi\nArson/gone.avi\n")
    flags = ["--dataset", "demo", "--modality", "image", "--video_dir", videos, "--save_dir", tmp_path / "out"]
    code, said = door(monkeypatch, capsys, *flags, "--split", "test", "--test_list", tmp_path / "test.txt")
    assert code == 1  # a test video is missing
    assert "--split test: 1 test videos (official split), crops 5; the evaluation needs no more" in said
    assert "1 videos of the test list are not below" in said
    assert "gone" in said
    assert [path.name for path in (tmp_path / "out").rglob("*.npy")] == ["a__5.npy"]


def test_a_full_disk_is_one_sentence_and_the_run_continues(
    tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files (EFBIG) stands for a full disk (ENOSPC): both are an OSError at a write."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 32, seed=1)
    write_video(videos / "b.avi", 16 * 40, seed=2)
    make(videos, tmp_path / "whole", encoders, ("event",))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    walk = Decoders.__iter__

    def limited(self: Decoders):
        for item in walk(self):  # the decoders have their memory, which counts as a file too
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))  # 40 rows of 64 float32 are 10,368 bytes
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Decoders, "__iter__", limited)
        try:
            with pytest.raises(InputError, match=r"b__\d\.npy: cannot be written \(File too large\); what was fin"):
                make(videos, out, encoders, ("event",), workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.rglob(".unfinished"))
    assert Manifest(out / "event").records.keys() == {"a"}
    stamp = (out / "event" / "a__5.npy").stat().st_mtime_ns
    make(videos, out, encoders, ("event",))
    assert (out / "event" / "a__5.npy").stat().st_mtime_ns == stamp
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_in_a_terminal_ends_a_command_with_130(videos: Path, tmp_path: Path) -> None:
    write_video(videos / "long.avi", 16 * 30)
    process = subprocess.Popen(
        [sys.executable, "extracting/gen.py", "--dataset", "demo", "--modality", "both", "--video_dir", str(videos),
         "--image_dir", str(tmp_path / "i"), "--event_dir", str(tmp_path / "e")],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (tmp_path / "i" / "manifest.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.rstrip().endswith("stopped: what was finished is kept; the same command continues from there")
    assert "Traceback" not in told
    assert not list(tmp_path.rglob(".unfinished"))


def test_files_of_killed_runs_are_swept_and_those_of_running_ones_are_not(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "image"
    out.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=pid: pid)
            part = part_path(out, out / "Abuse" / "a__5.npy")
            part.parent.mkdir(parents=True)
            part.write_bytes(b"half")
    elsewhere = out / ".unfinished" / "another-machine-7"
    elsewhere.mkdir()
    sweep(out)
    assert sorted(place.name for place in (out / ".unfinished").iterdir()) == sorted([elsewhere.name, part.parts[-3]])
    day = time.time() - 90000
    os.utime(elsewhere, (day, day))
    sweep(out)
    assert [place.name for place in (out / ".unfinished").iterdir()] == [part.parts[-3]]  # its process runs: ours


def test_decoders_that_do_not_start_end_the_run(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(7)")
    monkeypatch.setattr(decoders_module, "_PROGRAM", tmp_path / "broken.py")
    with pytest.raises(decoders_module.DecoderError, match=r"end before they are ready \(exit code 7\)"):
        make(videos, tmp_path / "out", encoders)
    assert (tmp_path / "out" / "image" / "manifest.jsonl").read_text() == ""
