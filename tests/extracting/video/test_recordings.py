"""Event-camera recordings: time, space, formats and invalid files."""

from __future__ import annotations

import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extracting.video import recordings
from extracting.video.events import EventCounter
from extracting.video.frames import Video, VideoError
from extracting.video.recordings import Recording
from tests.extracting.helpers import events_of
from tests.extracting.video.helpers import write_video

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def write_npz(path: Path, x: Any, y: Any, t: Any, size: tuple[int, int] | None = (340, 256), **arrays: Any) -> Path:
    """Write a recording. size: width and height of the sensor."""
    arrays |= {"width": size[0], "height": size[1]} if size else {}
    np.savez(path, x=x, y=y, t=t, p=np.ones(np.size(x), bool), **arrays)
    return path


def random_events(number: int, size: tuple[int, int] = (340, 256), seconds: float = 3.3) -> dict[str, np.ndarray]:
    """Return random events of all times up to `seconds`, in microseconds."""
    random = np.random.RandomState(number)
    x, y = (random.randint(0, side, number).astype(np.uint16) for side in size)
    return {"x": x, "y": y, "t": np.sort(random.randint(0, round(seconds * 1e6), number))}


def maps_of(path: Path, fps: float = 30, tail: str = "whole") -> np.ndarray:
    return np.stack(list(Recording(path, tail, fps).snippets()))


def totals(path: Path, fps: float = 10, tail: str = "whole") -> list[int]:
    """Return the number of events in each snippet."""
    return [int(counts.sum()) for counts in Recording(path, tail, fps).snippets()]


def failure(path: Path, fps: float = 30) -> tuple[str, str]:
    """Return the outcome and reason of a recording that cannot be embedded."""
    with pytest.raises(VideoError) as error:
        list(Recording(path, "whole", fps).snippets())
    assert "\n" not in error.value.reason
    return error.value.outcome, error.value.reason


# ---- Time ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the events of a video with 50 frames, from plain code, and its synthetic event maps."""
    path = write_video(tmp_path_factory.mktemp("video") / "v.avi", 50)
    events, count = events_of(path, 60), EventCounter().count
    assert {1, 16, 32, 49} < set(events["n"])  # changes at every boundary, and in the first and last frame
    return events, np.stack([count(snippet, 60) for snippet in Video(path).snippets()])


@pytest.mark.parametrize("fps", [25, 30, 29.97, 7])
@pytest.mark.parametrize("unit", ["rounded", "cut", "seconds", "between"])
def test_maps_of_a_video_and_of_its_events_are_equal(
    tmp_path: Path, video: tuple[dict[str, np.ndarray], np.ndarray], unit: str, fps: float
) -> None:
    """Times are those of a pair's second frame in integer microseconds or in seconds, or between both frames."""
    events, expected = video
    x, y, n = events["x"], events["y"], events["n"]
    if unit == "between":
        n = n - np.random.RandomState(0).uniform(0.01, 0.99, len(n))
        order = np.argsort(n)
        x, y, n = x[order], y[order], n[order]
    t = n / fps
    if unit in ("rounded", "cut"):
        t = np.rint(n * 1e6 / fps).astype(np.int64) if unit == "rounded" else (n * 1e6 / fps).astype(np.uint32)
    recording = Recording(write_npz(tmp_path / "a.npz", x, y, t), "whole", fps)
    assert np.array_equal(np.stack(list(recording.snippets())), expected)
    assert expected.shape == (3, 256, 340) and len(np.unique(expected)) > 5
    assert (recording.frames, recording.check_completeness()) == (50, ("ok", ""))


def test_maps_of_a_real_video_and_of_its_events_are_equal(tmp_path: Path, realdata: Path) -> None:
    path = realdata / "videos" / "RoadAccidents017_x264.mp4"
    events, video, count = events_of(path, 10), Video(path), EventCounter().count
    expected = np.stack([count(snippet, 10) for snippet in video.snippets()])
    file = write_npz(tmp_path / "a.npz", events["x"], events["y"], events["n"] / video.fps)
    recording = Recording(file, "whole", video.fps)
    assert np.array_equal(np.stack(list(recording.snippets())), expected)
    assert (len(expected), recording.frames) == (15, 243)


def test_boundary_events_are_in_the_earlier_pair(tmp_path: Path) -> None:
    """At 10 frames per second, snippet 0 has frames 0 to 15: it counts (0, 1.5] s; (1.5, 1.6] is between snippets."""
    t = [0, 1, 1_500_000, 1_500_001, 1_600_000, 1_600_001, 3_100_000, 3_100_001]
    for times in (np.array(t) / 1e6, np.array(t)):
        path = write_npz(tmp_path / "a.npz", np.arange(8), np.zeros(8, int), times)
        assert [np.flatnonzero(counts[0]).tolist() for counts in maps_of(path, 10)] == [[1, 2], [5, 6]]
    recording = Recording(path, "whole", 10)
    assert (len(list(recording.snippets())), recording.frames) == (2, 33)  # the last event is after frame 31


def test_seconds_are_rounded_to_microseconds(tmp_path: Path) -> None:
    """Events one microsecond after the last frame of a snippet. Seconds times 1e6, cut, would count 4 of them."""
    t = 1_600_000 * np.arange(200) + 1_500_001
    x = np.zeros(200, int)
    assert np.count_nonzero((t / 1e6 * 1e6).astype(int) < t) == 4
    assert totals(write_npz(tmp_path / "a.npz", x, x, t / 1e6)) == [0] * 200


@pytest.mark.parametrize(
    ("last", "whole", "released", "frames"),
    [(1_400_001, 1, 0, 16), (1_500_000, 1, 0, 16), (1_500_001, 1, 1, 17), (3_000_001, 2, 2, 32), (3_000_000, 1, 1, 31)],
)
def test_tail_rules_count_frames(tmp_path: Path, last: int, whole: int, released: int, frames: int) -> None:
    """As for videos: the released rule needs a 17th frame in a block of 32 snippets."""
    path = write_npz(tmp_path / "a.npz", [0, 0], [0, 0], np.array([1, last]))
    recording = Recording(path, "whole", 10)
    assert (len(list(recording.snippets())), recording.frames) == (whole, frames)
    if released:
        assert len(totals(path, tail="released")) == released
    else:
        with pytest.raises(VideoError, match=rf"lasts {frames} frames at --fps 10, but a snippet needs more than 16"):
            totals(path, tail="released")


def test_short_recording_is_reported(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", [0], [0], np.array([1_400_000]))
    assert failure(path, 10) == (
        "too_short",
        "the recording lasts 15 frames at --fps 10, but a snippet needs at least 16",
    )


def test_absolute_times_start_at_the_first_event(tmp_path: Path) -> None:
    """An hour without events is an hour of empty maps; Unix times are relative to the first event."""
    t = np.array([0, 1, 1_500_000, 1_600_001, 3_100_000])
    x = np.zeros(5, int)
    assert totals(write_npz(tmp_path / "unix.npz", x, x, 1_700_000_000_000_000 + t)) == [2, 2]
    late = totals(write_npz(tmp_path / "late.npz", x, x, 1600 * 1_000_000 + t))
    assert (len(late), sum(late), late[1000:]) == (1002, 4, [2, 2])


def test_pauses_give_empty_maps(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", [0, 0], [0, 0], np.array([1.0, 6.4 + 1.5]))
    assert totals(path) == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("part", [1, 7, 1000])
def test_maps_do_not_depend_on_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    path = write_npz(tmp_path / "a.npz", **random_events(500), size=None)
    expected = maps_of(path)
    monkeypatch.setattr(recordings, "PART", part)
    assert np.array_equal(maps_of(path), expected)


# ---- Space ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(680, 512), (1280, 720), (346, 260), (341, 257), (400, 200)])
def test_large_sensors_are_scaled_down(tmp_path: Path, size: tuple[int, int]) -> None:
    """Plain loop: column x · 340 // width and row y · 256 // height; no event is lost."""
    events = random_events(3000, size, 1.5)
    maps = maps_of(write_npz(tmp_path / "a.npz", **events, size=size))
    expected = np.zeros((min(256, size[1]), 340), int)
    for x, y, t in zip(events["x"].tolist(), events["y"].tolist(), events["t"].tolist(), strict=True):
        if 0 < t <= 500_000:  # frame 15 of 30 per second
            expected[y * 256 // size[1] if size[1] >= 256 else y, x * 340 // size[0]] += 1
    if size[1] < 256:
        expected = np.stack([expected[row * size[1] // 256] for row in range(256)])
    assert (maps[0] == expected).all()


@pytest.mark.parametrize("size", [(240, 180), (128, 128), (17, 3), (1, 1)])
def test_small_sensors_are_enlarged_without_gaps(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    t = np.full(len(x), 1000)
    t[-1] = 500_000
    maps = maps_of(write_npz(tmp_path / "a.npz", x, y, t, size=size))
    assert (maps == 1).all()
    path = write_npz(tmp_path / "b.npz", [0, width - 1], [0, height - 1], np.array([1, 500_000]), size=size)
    expected = [[(c * width // 340, r * height // 256) in ((0, 0), (width - 1, height - 1)) for c in range(340)]
                for r in range(256)]  # fmt: skip
    assert ((maps_of(path)[0] > 0) == np.array(expected)).all()


def test_counts_saturate_at_255(tmp_path: Path) -> None:
    """300 events at one pixel are not 300 − 256 = 44."""
    path = write_npz(tmp_path / "a.npz", np.zeros(300, int), np.zeros(300, int), np.linspace(0.1, 1.5, 300))
    assert maps_of(path, 10)[0, 0, 0] == 255


def test_missing_sensor_size_is_noted(tmp_path: Path) -> None:
    events = random_events(2000, (640, 480))
    recording = Recording(write_npz(tmp_path / "a.npz", **events, size=None), "whole", 30)
    maps = np.stack(list(recording.snippets()))
    width, height = int(events["x"].max()) + 1, int(events["y"].max()) + 1
    note = f"the file stores no sensor size; its largest coordinates give {width}×{height} pixels"
    assert recording.check_completeness() == ("ok", note)
    assert (maps == maps_of(write_npz(tmp_path / "b.npz", **events, size=(width, height)))).all()


# ---- Formats -------------------------------------------------------------------------------------


def write_dsec(path: Path, events: dict[str, np.ndarray], **attributes: object) -> Path:
    """Write the layout of DSEC with its compression, without a sensor size."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    plugin = pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    with h5py.File(path, "w") as file:
        for name, array in (*events.items(), ("p", events["x"] % 2)):
            file.create_dataset(f"events/{name}", data=array, chunks=(1000,), **plugin.Blosc(cname="zstd"))
        file["ms_to_idx"], file["t_offset"] = np.arange(3), 49_599_300_523
        file["events"].attrs.update(attributes)
    return path


def write_metavision(path: Path, events: dict[str, np.ndarray], **attributes: object) -> Path:
    """Write the layout of Metavision: one table."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    table = np.zeros(len(events["x"]), [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for name, array in events.items():
        table[name] = array
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=table, chunks=(1000,))
        file.attrs.update(attributes)
    return path


def test_hdf5_layouts_equal_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if read in parts. The size comes from the attributes, else from the largest coordinates."""
    events = random_events(4000, (640, 480))
    stored = maps_of(write_npz(tmp_path / "a.npz", **events, size=(1280, 720)))
    guessed = maps_of(write_npz(tmp_path / "b.npz", **events, size=None))
    assert not np.array_equal(stored, guessed)
    monkeypatch.setattr(recordings, "PART", 1500)
    for write in (write_dsec, write_metavision):
        assert np.array_equal(maps_of(write(tmp_path / "c.h5", events)), guessed)
        assert np.array_equal(maps_of(write(tmp_path / "c.HDF5", events, width=1280, height=720)), stored)
    assert np.array_equal(maps_of(write_metavision(tmp_path / "d.h5", events, geometry="1280x720")), stored)


@pytest.mark.parametrize("write", [write_dsec, write_metavision])
def test_hdf5_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable) -> None:
    """2 million events take at least 24 MB in memory; parts of 10,000 events take 2 MB with the counts."""
    path = write(tmp_path / "a.h5", random_events(2_000_000))
    monkeypatch.setattr(recordings, "PART", 10_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Recording(path, "whole", 30).snippets()) == 6
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_aedat4_equals_the_events_written(tmp_path: Path) -> None:
    """The file is from iniVation's own writer, see golden/README.md; its times are absolute."""
    pytest.importorskip("aedat", reason="aedat is not installed")
    random = np.random.RandomState(7)
    t, x, y = np.sort(random.randint(0, 1_200_000, 600)), random.randint(0, 346, 600), random.randint(0, 260, 600)
    expected = maps_of(write_npz(tmp_path / "a.npz", x, y, t - t[0], size=(346, 260)))
    maps = maps_of(GOLDEN / "events.aedat4")
    assert len(maps) == 2 and np.array_equal(maps, expected)


# ---- Invalid files -------------------------------------------------------------------------------

EMPTY = {name: np.zeros(0, int) for name in ("x", "y", "t")}
VALID = {"x": np.arange(5), "y": np.arange(5), "t": np.linspace(0, 1, 5)}


@pytest.mark.parametrize(
    ("change", "outcome", "reason"),
    [
        ({"t": np.array([0, 3, 2, 4, 5])}, "damaged", "the time of event 2 is before that of the previous event; sort"),
        ({"t": np.array([-1, 3, 4, 5, 6])}, "damaged", "the time of event 0 is negative; sort the events"),
        ({"t": np.array([0, 1, np.nan, 2, 3])}, "damaged", "t contains NaN or infinity"),
        ({"t": np.array([0, 1, 2, 3, np.inf])}, "damaged", "t contains NaN or infinity"),
        ({"t": np.array([0, 2**63 + 1, 1, 1, 1], np.uint64)}, "damaged", "the time of event 1 is before"),
        ({"t": np.linspace(0, 3e6, 5)}, "damaged", "t spans more than a day; give integers in microseconds, or"),
        ({"t": np.array(list("abcde"))}, "not_video", "the array t contains <U1; x and y must be integers"),
        ({"t": np.array([None] * 5)}, "damaged", "the events cannot be read (Object arrays cannot be loaded"),
        ({"t": np.arange(4)}, "not_video", "x, y and t have the shapes (5,), (5,), (4,); they must be equally long"),
        ({"t": np.array(4)}, "not_video", "x, y and t have the shapes (5,), (5,), (); they must be equally long"),
        ({n: np.zeros((5, 1), int) for n in "xyt"}, "not_video", "x, y and t have the shapes (5, 1), (5, 1), (5, 1)"),
        ({"t": None}, "not_video", "the array t is missing; a recording has x, y and t"),
        ({"x": None}, "not_video", "the array x is missing"),
        ({"x": np.arange(5.0)}, "not_video", "the array x contains float64; x and y must be integers"),
        ({"y": np.arange(5) > 2}, "not_video", "the array y contains bool"),
        ({"x": np.array([0, 1, 340, 3, 4])}, "damaged", "event 2 at (340, 2) is outside the sensor of 340×256 pixels"),
        ({"y": np.array([0, 1, 2, 3, -1])}, "damaged", "event 4 at (4, -1) is outside the sensor of 340×256 pixels"),
        ({"y": np.array([0, 1, 2, 256, 4])}, "damaged", "event 3 at (3, 256) is outside the sensor of 340×256"),
        ({"width": 0}, "damaged", "the sensor has 0×256 pixels; correct its size or the coordinates"),
        ({"width": None, "x": np.arange(5) + 70_000}, "damaged", "the sensor has 70005×5 pixels"),
        ({"width": None, "x": np.arange(5) - 1}, "damaged", "event 0 at (-1, 0) is outside the sensor of 4×5 pixels"),
        ({"width": "wide"}, "damaged", "the events cannot be read (invalid literal for int()"),
        ({"x": [], "y": [], "t": []}, "not_video", "the array x contains float64"),
        (EMPTY, "no_frames", "the recording contains no events; record it again"),
        ({"width": None, **EMPTY}, "no_frames", "the recording contains no events; record it again"),
    ],
)
def test_invalid_npz_is_reported(tmp_path: Path, change: dict, outcome: str, reason: str) -> None:
    arrays = {**VALID, "width": 340, "height": 256, **change}
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    found = failure(tmp_path / "a.npz")
    assert found[0] == outcome and found[1].startswith(reason), found


def test_npz_that_claims_too_many_events_is_reported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in VALID:
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": "<i8", "fortran_order": False, "shape": (10**15,)}
                np.lib.format.write_array_header_1_0(member, header)
    outcome, reason = failure(tmp_path / "a.npz")
    assert outcome == "damaged" and reason.startswith("the events cannot be read (Unable to allocate")


def test_array_that_is_no_archive_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    assert (
        failure(tmp_path / "a.npz")[1]
        == "the events cannot be read (not a complete .npz file); copy the recording again"
    )


def test_errors_name_the_event_of_a_later_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "PART", 2)
    path = write_npz(tmp_path / "a.npz", **{**VALID, "t": np.array([0, 5, 5, 6, 4])})
    assert failure(path)[1].startswith("the time of event 4 is before")
    path = write_npz(tmp_path / "a.npz", **{**VALID, "t": np.array([0, 5, 4, 6, 7])})
    assert failure(path)[1].startswith("the time of event 2 is before")
    path = write_npz(tmp_path / "a.npz", **{**VALID, "x": np.array([0, 5, 4, 400, 7])})
    assert failure(path)[1].startswith("event 3 at (400, 3)")


def sources(tmp_path: Path) -> list[Path]:
    """Return a recording of each format whose packages are installed."""
    events = random_events(20_000)
    np.savez_compressed(tmp_path / "b.npz", **events)
    files = [write_npz(tmp_path / "a.npz", **events), tmp_path / "b.npz"]
    for write in (write_dsec, write_metavision):
        try:
            files.append(write(tmp_path / f"{write.__name__}.h5", events))
        except pytest.skip.Exception:
            continue
    return [*files, GOLDEN / "events.aedat4"] if find_spec("aedat") else files


def test_truncated_and_foreign_files_are_reported(tmp_path: Path) -> None:
    for source in sources(tmp_path):
        data = source.read_bytes()
        path = tmp_path / f"cut{source.suffix}"
        for length in (1, 100, len(data) // 3, len(data) // 2, len(data) * 3 // 4):
            path.write_bytes(data[:length])
            outcome, reason = failure(path)
            assert outcome == "damaged", (source, length)
            assert reason.startswith("the events cannot be read (") and reason.endswith("copy the recording again")
        path.write_bytes(b"no recording" * 100)
        assert failure(path)[0] == "damaged"
        path.write_bytes(b"")
        assert failure(path) == ("empty", "the file is empty (0 bytes); copy it again")
        path.unlink()
        assert failure(path) == ("unreadable", "the file does not exist")


def test_overwritten_bytes_never_raise_another_error(tmp_path: Path) -> None:
    """20 copies of each format with 200 random bytes: a recording, or a VideoError."""
    random = np.random.RandomState(1)
    for source in sources(tmp_path):
        for _ in range(20):
            data = bytearray(source.read_bytes())
            at = random.randint(0, len(data) - 200)
            data[at : at + 200] = random.bytes(200)
            path = tmp_path / f"broken{source.suffix}"
            path.write_bytes(data)
            try:
                list(Recording(path, "whole", 30).snippets())
            except VideoError as error:
                assert error.reason


def test_other_hdf5_files_are_reported(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    path = tmp_path / "a.h5"
    layouts = {
        "other/x": ("not_video", "the file contains neither events/x, events/y and events/t nor CD/events; convert it"),
        "events/x": ("not_video", "the array y is missing; a recording has x, y and t"),
        "events": ("not_video", "the array x is missing"),
        "events/x/y": ("damaged", "the events cannot be read"),
    }
    for name, (outcome, reason) in layouts.items():
        with h5py.File(path, "w") as file:
            file[name] = np.arange(5)
        found = failure(path)
        assert found[0] == outcome and found[1].startswith(reason), found


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    """Blosc's number in the file is replaced by that of Metavision's compression, which is not on PyPI."""
    path = write_dsec(tmp_path / "a.h5", random_events(3000))
    data = path.read_bytes()
    blosc, metavision = (number.to_bytes(2, "little") for number in (32001, 0x8ECF))
    assert data.count(blosc) == 4  # x, y, t and p
    path.write_bytes(data.replace(blosc, metavision))
    outcome, reason = failure(path)
    assert outcome == "damaged"
    assert reason.endswith("; set HDF5_PLUGIN_PATH to the folder with the plugin of its compression")


@pytest.mark.parametrize(("suffix", "package"), [(".h5", "h5py"), (".hdf5", "h5py"), (".aedat4", "aedat")])
def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    outcome, reason = failure(path)
    assert outcome == "unreadable"
    assert reason == f'the package {package} is missing; run: pip install ".[events]"'
