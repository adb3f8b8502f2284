"""Lists, embedding checks, training windows and their cache, and the order of batches."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vad import data
from vad.data import (
    Batch,
    ListRow,
    PairedBatches,
    Video,
    Windows,
    check_values,
    convert,
    data_fingerprint,
    embedding_header,
    event_path,
    feature_root_of,
    find_videos,
    group_crops,
    load_embedding,
    read_list,
    resolve_path,
    split_crop,
    train_window,
)
from vad.datasets import load_dataset
from vad.files import InputError

RELEASED_XD = "/media/Data1/xd_dataset/vitl/rgb/v=1RGb7knUKG0__#1_label_G-0-0__5.npy"
SIZES = (1, 5, 255, 256, 257, 300, 511, 512, 513, 1000)  # those of tests/golden/windows.npz
UCF = load_dataset("ucfcrime")
WIDTHS = {"image": 16, "event": 16}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def train_videos(tiny, modality: str = "fusion") -> list[Video]:
    return find_videos(read_list(tiny.lists / "train.csv", UCF), UCF, tiny.root, modality)[0]


# lists


def test_released_and_own_lists_are_read(tmp_path: Path) -> None:
    text = f'path,label\r\n{RELEASED_XD},G-0-0\r\n"rgb/a, b__0.npy",A\r\n\r\n'
    assert read_list(write(tmp_path / "test.csv", text), load_dataset("xd")) == [
        ListRow(RELEASED_XD, "G-0-0", "v=1RGb7knUKG0__#1_label_G-0-0", 5),
        ListRow("rgb/a, b__0.npy", "A", "a, b", 0),
    ]
    blanks = write(tmp_path / "blanks.csv", " path , label\n rgb/x__5.npy , Abuse \n")
    assert read_list(blanks, UCF) == [ListRow("rgb/x__5.npy", "Abuse", "x", 5)]
    folder_as_label = write(tmp_path / "ucf.csv", "label,path\nTesting_Normal_Videos_Anomaly,rgb/x__5.npy\n")
    assert read_list(folder_as_label, UCF) == [ListRow("rgb/x__5.npy", "Normal", "x", 5)]


@pytest.mark.parametrize(("text", "message"), [
    ("", "the header has no column path and label"),
    ("file,label\nrgb/x__5.npy,Abuse\n", "no column path"),
    ("path,label\n", "contains no video"),
    ("path,label\nrgb/x__5.npy,Abuse\nrgb/y__5.npy,Dancing\n", "row 3: unknown class 'Dancing'"),
    ("path,label\nrgb/x__5.npy\n", "row 2: 1 columns instead of 2"),
    ("path,label\nrgb/x.npy,Abuse\n", "row 2: 'rgb/x.npy' is not <video>__<crop>.npy"),
    ("path,label\nrgb/x__5.npy,Abuse\nrgb/Abuse/x__5.npy,Abuse\n", "row 3: crop 5 of x is already listed"),
    ("path,label\nrgb/x__5.npy,\n", "row 2: unknown class ''"),
    ("path,label\n\0", "not text"),
])  # fmt: skip
def test_invalid_list_error_names_file_and_row(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "test.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        read_list(path, UCF)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"none\.csv: there is no such list.*generate_file"):
        read_list(tmp_path / "none.csv", UCF)


PIECES = st.lists(
    st.sampled_from([
        "a", "Abuse", "Normal", "-1", "9", "\t", " ", "\n", "\r", "\r\n", '"', ",", "path,label", "rgb/x__5.npy",
        "\x0b", "\x1c", "\u2028", "\x85", "\ufeff", "{", "/",
    ]) | st.text(max_size=3),
    max_size=25,
).map("".join)  # fmt: skip


@QUICK
@given(content=PIECES.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60))
def test_arbitrary_list_is_read_or_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        path.write_bytes(b"path,label\n" + content)
        try:
            read_list(path, UCF)
        except InputError as error:
            assert "list.csv" in str(error) and len(str(error).splitlines()) == 1, str(error)


@given(st.text(min_size=1).filter(lambda name: "\n" not in name), st.integers(0, 9))
def test_crop_follows_the_last_two_underscores(name: str, crop: int) -> None:
    assert split_crop(f"{name}__{crop}") == (name, crop)


def test_split_crop_keeps_underscores_in_names() -> None:
    assert split_crop("a__b__5") == ("a__b", 5)
    assert split_crop("c__3") == ("c", 3)
    assert split_crop("a") == ("a", None)


def test_list_paths_resolve_below_the_feature_root(tmp_path: Path) -> None:
    root = Path("/root")
    assert resolve_path("rgb/Abuse/x__5.npy", root) == Path("/root/rgb/Abuse/x__5.npy")
    assert resolve_path("/media/rgb/vitl/rgb/Abuse/x__5.npy", root) == Path("/root/rgb/Abuse/x__5.npy")
    assert resolve_path(RELEASED_XD, root) == Path("/root/rgb/v=1RGb7knUKG0__#1_label_G-0-0__5.npy")
    assert resolve_path("/media/rgb/x__5.npy", None) == Path("/media/rgb/x__5.npy")
    with pytest.raises(InputError, match="Set --feature_root"):
        resolve_path("rgb/x__5.npy", None)
    with pytest.raises(InputError, match="no folder rgb/"):
        resolve_path("/media/image/x__5.npy", root)
    assert feature_root_of(tmp_path / "test.csv") is None
    write(tmp_path / "lists.json", '{"feature_root": "/data/ucf"}')
    assert feature_root_of(tmp_path / "test.csv") == Path("/data/ucf")


def test_event_folder_replaces_the_last_rgb(tmp_path: Path) -> None:
    image = tmp_path / "rgb" / "set" / "rgb" / "Abuse" / "rgb__5.npy"
    with pytest.raises(InputError, match="no folder event_thr_10 or event beside rgb/"):
        event_path(image, UCF.event_folders)
    (tmp_path / "rgb/set/event").mkdir(parents=True)
    assert event_path(image, UCF.event_folders) == tmp_path / "rgb/set/event/Abuse/rgb__5.npy"
    (tmp_path / "rgb/set/event_thr_10").mkdir()
    assert event_path(image, UCF.event_folders) == tmp_path / "rgb/set/event_thr_10/Abuse/rgb__5.npy"
    shang = load_dataset("shang")  # lists its event folders in the other order
    assert event_path(image, shang.event_folders) == tmp_path / "rgb/set/event/Abuse/rgb__5.npy"


@pytest.mark.parametrize(("name", "train", "test"), [
    ("ucfcrime", 1610, 290), ("xd", 3988, 753), ("shang", 240, 197), ("msad", 479, 241),
])  # fmt: skip
def test_unmodified_released_lists_are_read(realdata: Path, name: str, train: int, test: int) -> None:
    dataset = load_dataset(name)
    folder = realdata / "released_list" / dataset.folder
    rows = read_list(folder / "train.csv", dataset)
    assert (len(rows), len({row.video for row in rows})) == (10 * train, train)
    assert {row.crop for row in rows} == set(range(10))
    rows += read_list(folder / "test.csv", dataset)
    assert len(rows) == 10 * train + test
    assert [dataset.label_of(row.path) for row in rows] == [row.label for row in rows]
    assert resolve_path(rows[-1].path, Path("/x")).parts[:3] == ("/", "x", "rgb")


# embeddings


def test_videos_have_their_files_and_snippet_counts(tiny) -> None:
    videos, widths = find_videos(read_list(tiny.lists / "train.csv", UCF), UCF, tiny.root, "fusion")
    assert widths == WIDTHS and len(videos) == 12
    for video in videos:
        assert list(video.streams) == ["image", "event"]
        assert {len(np.load(path)) for path in video.streams.values()} == {video.snippets}
        assert video.anomalous == (video.label != "Normal")


@pytest.mark.parametrize(("modality", "other"), [("image", "event_thr_10"), ("event", "rgb")])
def test_single_stream_needs_no_file_of_the_other(tiny, modality: str, other: str) -> None:
    for path in (tiny.root / other).rglob("*.npy"):
        path.unlink()
    assert all(list(video.streams) == [modality] for video in train_videos(tiny, modality))


def damage_embedding(tiny, damage: str) -> None:
    """Damage the event embedding of Arson001."""
    path = tiny.path("event_thr_10", "Arson001_x264", "Arson")
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "no array":
        path.write_text("not an array")
    elif damage == "no folder":
        (tiny.root / "event_thr_10").rename(tiny.root / "elsewhere")
    else:
        x = np.load(path)
        np.save(path, {"other S": x[:-1], "other width": x[:, :8], "flat": x[0]}[damage])


@pytest.mark.parametrize(("damage", "message"), [
    ("missing", r"event_thr_10/Arson/Arson001_x264__5\.npy: no such embedding"),
    ("other S", r"Arson001_x264__5\.npy has \d+ snippets but .*rgb.* has \d+"),
    ("other width", r"Arson001_x264__5\.npy has width 8, but the files before it have 16"),
    ("truncated", r"Arson001_x264__5\.npy: truncated"),
    ("no array", r"Arson001_x264__5\.npy: not a \.npy embedding"),
    ("flat", r"Arson001_x264__5\.npy: shape \(16,\)"),
    ("no folder", r"no folder event_thr_10 or event beside rgb/"),
])  # fmt: skip
def test_invalid_embedding_is_detected_from_its_header(tiny, damage: str, message: str) -> None:
    damage_embedding(tiny, damage)
    with pytest.raises(InputError, match=message):
        train_videos(tiny)


def test_video_without_snippets_is_refused(tiny) -> None:
    for stream in ("rgb", "event_thr_10"):
        np.save(tiny.path(stream, "Arson001_x264", "Arson"), np.empty((0, 16), np.float32))
    assert embedding_header(tiny.path("rgb", "Arson001_x264", "Arson"))[0] == (0, 16)
    with pytest.raises(InputError, match=r"contains no snippet\. Remove Arson001_x264 from the list"):
        train_videos(tiny)


def test_nan_is_refused_by_name_or_replaced_by_zero(tiny) -> None:
    path = tiny.path("rgb", "Arson001_x264", "Arson")
    x = np.load(path)
    x[2] = np.nan
    np.save(path, x)
    message = r"Arson001_x264__5\.npy has NaN in 1 of its \d+ snippets.*--nan zero"
    with pytest.raises(InputError, match=message):
        load_embedding(path, "refuse")
    with pytest.raises(InputError, match=message):
        check_values(train_videos(tiny), "refuse", WIDTHS)
    zeroed = load_embedding(path, "zero")
    assert (zeroed[2] == 0).all() and np.array_equal(zeroed[3], x[3])
    check_values(train_videos(tiny), "zero", WIDTHS)


@pytest.mark.parametrize("nan", ["refuse", "zero"])
def test_infinite_values_are_always_refused(tmp_path: Path, nan: str) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, np.inf], [np.nan, 1]], np.float16))
    with pytest.raises(InputError, match=r"x\.npy has infinite values in 1 of its 2 snippets\. Extract it again"):
        load_embedding(tmp_path / "x.npy", nan)


def test_large_data_sets_are_not_read_in_advance(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load_embedding", lambda *_: pytest.fail("read"))
    videos = train_videos(tiny)
    monkeypatch.setattr(data, "MAX_CHECKED_BYTES", 4 * 16 * 2 * sum(v.snippets for v in videos) - 1)
    check_values(videos, "refuse", WIDTHS)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", "<i4"])
def test_every_number_type_is_loaded_as_float32(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2], [3, -4]], dtype))
    loaded = load_embedding(tmp_path / "x.npy", "refuse")
    assert loaded.dtype == np.float32 and loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, [[1, 2], [3, -4]])


def test_convert_equals_numpy_bit_for_bit() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    number = ~np.isnan(every)
    wide = convert(every, np.dtype(np.float32))
    np.testing.assert_array_equal(wide[number].view(np.uint32), every[number].astype(np.float32).view(np.uint32))
    assert np.isnan(wide[~number]).all()
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    numbers = bits[~np.isnan(bits)]
    with np.errstate(over="ignore"):
        expected = numbers.astype(np.float16)
    np.testing.assert_array_equal(convert(numbers, np.dtype(np.float16)).view(np.uint16), expected.view(np.uint16))


def test_unlisted_crops_get_the_folder_of_the_listed_crop() -> None:
    rows = [ListRow("rgb/b__5.npy", "Arson", "b", 5), ListRow("rgb/a__5.npy", "Normal", "a", 5),
            ListRow("other/a__0.npy", "Normal", "a", 0)]  # fmt: skip
    assert [(row.video, row.crop, row.path) for row in group_crops(rows, (0, 5))] == [
        ("b", 0, "rgb/b__0.npy"), ("b", 5, "rgb/b__5.npy"), ("a", 0, "other/a__0.npy"), ("a", 5, "rgb/a__5.npy"),
    ]  # fmt: skip


# windows


@pytest.mark.parametrize("S", SIZES)
def test_training_windows_equal_the_released_code(golden, S: int) -> None:
    case = golden("windows")
    expected, length = case[f"train/{S}"], int(case[f"trainlen/{S}"])
    window = train_window(case[f"in/{S}"], 256)
    assert len(window) == length == min(S, 256)
    np.testing.assert_array_equal(window, expected[:length])  # bit for bit
    assert not expected[length:].any()


def test_golden_file_contains_these_sizes(golden) -> None:
    assert {f"in/{S}" for S in SIZES} == {name for name in golden("windows").files if name.startswith("in/")}


def videos_of(folder: Path, arrays: list[np.ndarray]) -> list[Video]:
    """Save arrays as the image embeddings of v0, v1, …"""
    (folder / "rgb").mkdir(parents=True, exist_ok=True)
    videos = []
    for number, array in enumerate(arrays):
        path = folder / "rgb" / f"v{number}__5.npy"
        np.save(path, array)
        videos.append(Video(f"v{number}", "Normal", False, 5, {"image": path}, len(array), {"image": array.dtype}))
    return videos


def random_arrays(count: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((int(rng.integers(1, 40)), 4)).astype(np.float32) for _ in range(count)]


def open_windows(videos: list[Video], folder: Path, window: int = 24, nan: str = "refuse") -> Windows:
    return Windows(videos, window, nan, {"image": 4}, folder)


def cached_files(folder: Path) -> list[Path]:
    """Return every file of the cache, including temporary ones."""
    return sorted(folder.iterdir())


def test_cached_windows_equal_the_released_code(golden, tmp_path: Path) -> None:
    case = golden("windows")
    videos = videos_of(tmp_path, [case[f"in/{S}"] for S in SIZES])
    windows = Windows(videos, 256, "refuse", {"image": 3}, tmp_path / "windows")
    order = [3, 9, 0, 9, 5]
    batch = windows.__getitems__(order)
    np.testing.assert_array_equal(batch.streams["image"], [case[f"train/{SIZES[k]}"] for k in order])
    assert batch.lengths.tolist() == [int(case[f"trainlen/{SIZES[k]}"]) for k in order]
    (path,) = cached_files(tmp_path / "windows")
    assert np.load(path, allow_pickle=False).shape == (10, 256, 3)  # a plain array


def test_float16_is_kept_and_rounded_once(tmp_path: Path) -> None:
    long = np.random.default_rng(0).standard_normal((700, 4)).astype(np.float16)
    windows = Windows(videos_of(tmp_path, [long, long[:200]]), 256, "refuse", {"image": 4}, tmp_path / "windows")
    batch = windows.__getitems__([0, 1]).streams["image"].numpy()
    assert batch.dtype == np.float16
    exact = train_window(long.astype(np.float32), 256)  # means are computed in float32
    np.testing.assert_array_equal(batch[0], exact.astype(np.float16))
    np.testing.assert_array_equal(batch[1, :200], long[:200])
    mixed = videos_of(tmp_path / "mixed", [long, long.astype(np.float32)])
    assert Windows(mixed, 256, "refuse", {"image": 4}, None).dtypes == {"image": np.float32}  # one type for all videos


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("modality", ["fusion", "image", "event"])
def test_batches_with_and_without_cache_are_equal(tiny, modality: str, half: bool) -> None:
    if half:
        for path in tiny.root.rglob("*.npy"):
            np.save(path, np.load(path).astype(np.float16))
    videos = train_videos(tiny, modality)
    sampler = PairedBatches(videos, 2, True, seed=1)
    uncached, cached = (Windows(videos, 24, "refuse", WIDTHS, cache) for cache in (None, tiny.root / "windows"))
    assert not uncached.cached and list(cached.cached) == list(videos[0].streams)
    before = torch.get_rng_state()
    for indices in sampler:
        a, b = uncached.__getitems__(indices), cached.__getitems__(indices)
        assert a.names == b.names and torch.equal(a.lengths, b.lengths) and torch.equal(a.anomalous, b.anomalous)
        for name, x in a.streams.items():
            assert x.dtype == b.streams[name].dtype == (torch.float16 if half else torch.float32)
            assert torch.equal(x, b.streams[name])
    assert torch.equal(torch.get_rng_state(), before)  # the random state of dropout is unchanged


def test_cache_is_rebuilt_only_when_a_source_changes(tmp_path: Path, monkeypatch) -> None:
    arrays = random_arrays()
    videos, folder = videos_of(tmp_path, arrays), tmp_path / "windows"
    open_windows(videos, folder)
    built, real = [], data._write_windows
    monkeypatch.setattr(data, "_write_windows", lambda *args: (built.append(1), real(*args)))
    open_windows(videos, folder)
    assert not built
    # same size and restored modification time: only the bytes differ
    path = videos[2].streams["image"]
    times = os.stat(path)
    np.save(path, arrays[2] + 1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    window = open_windows(videos, folder).__getitems__([2]).streams["image"][0].numpy()
    expected = train_window(arrays[2] + 1, 24)
    np.testing.assert_array_equal(window[: len(expected)], expected)
    assert len(built) == len(cached_files(folder)) == 1  # the stale cache is deleted


def test_different_options_have_separate_caches(tmp_path: Path) -> None:
    arrays = random_arrays()
    arrays[3][0, 0] = np.nan
    videos, folder = videos_of(tmp_path, arrays), tmp_path / "windows"
    assert open_windows(videos, folder, nan="zero").__getitems__([3]).streams["image"][0, 0, 0] == 0
    with pytest.raises(InputError, match=r"v3__5\.npy has NaN in 1 of its"):
        open_windows(videos, folder)  # the zero-filled cache is not used
    open_windows(videos, folder, window=16, nan="zero")
    open_windows(videos[:2], folder)
    assert len(cached_files(folder)) == 3


def test_earlier_cache_is_reused_unless_it_replaced_nan(tmp_path: Path, monkeypatch) -> None:
    videos, folder = videos_of(tmp_path, random_arrays()), tmp_path / "windows"
    open_windows(videos, folder)
    index = np.zeros(len(videos), [("done", "?"), ("missing", "?"), ("sum", "<u8")])
    (path,) = cached_files(folder)
    for missing, built in ((False, 0), (True, 1)):
        index["missing"][2] = missing
        with path.with_name(f"{path.name}.index").open("wb") as file:
            np.save(file, index)
        calls, real = [], data._write_windows
        with monkeypatch.context() as patch:
            patch.setattr(data, "_write_windows", lambda *args, calls=calls, real=real: (calls.append(1), real(*args)))
            open_windows(videos, folder)
        assert len(calls) == built
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_moved_data_set_keeps_its_cache(tmp_path: Path, monkeypatch) -> None:
    videos = videos_of(tmp_path / "here", random_arrays())
    open_windows(videos, tmp_path / "here" / "windows")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = [replace(v, streams={"image": tmp_path / "there" / "rgb" / v.streams["image"].name}) for v in videos]
    monkeypatch.setattr(data, "_write_windows", lambda *_: pytest.fail("made again"))
    assert open_windows(moved, tmp_path / "there" / "windows").cached


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_damaged_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    videos, folder = videos_of(tmp_path, random_arrays()), tmp_path / "windows"
    open_windows(videos, folder)
    (path,) = cached_files(folder)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-1], "header": b"\0" * 64 + content[64:], "empty": b""}[damage])
    assert open_windows(videos, folder).cached
    assert path.read_bytes() == content


def test_interrupted_build_leaves_no_file(tmp_path: Path, monkeypatch) -> None:
    videos, folder = videos_of(tmp_path, random_arrays()), tmp_path / "windows"
    real = Windows.valid_steps

    def stop(self: Windows, index: int, stream: str) -> np.ndarray:
        if index == 4:
            raise KeyboardInterrupt
        return real(self, index, stream)

    monkeypatch.setattr(Windows, "valid_steps", stop)
    with pytest.raises(KeyboardInterrupt):
        open_windows(videos, folder)
    assert cached_files(folder) == []


@pytest.mark.parametrize("reason", ["no folder", "full disk"])
def test_training_continues_uncached_without_disk_space(tmp_path: Path, reason: str, monkeypatch, capsys) -> None:
    videos, folder = videos_of(tmp_path, random_arrays()), tmp_path / "file" / "windows"
    if reason == "no folder":
        (tmp_path / "file").write_text("no folder can be made here")
    else:
        error = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(data, "_write_windows", lambda *_: (_ for _ in ()).throw(error))
    windows = open_windows(videos, folder)
    assert not windows.cached and len(windows.__getitems__([0, 1]).names) == 2
    printed = capsys.readouterr().out
    assert f"{folder}: cannot write the window cache (N" in printed and "--cache_dir" in printed


# batches


def test_batches_are_half_normal_and_repeatable(tiny) -> None:
    videos = train_videos(tiny)
    sampler = PairedBatches(videos, 2, True, seed=3)
    windows = Windows(videos, 64, "refuse", WIDTHS, None)
    assert len(sampler) == 3 and sampler.videos == 4
    first = list(sampler)
    for batch in map(windows.__getitems__, first):
        assert isinstance(batch, Batch) and batch.anomalous.tolist() == [0, 0, 1, 1]
        assert [x.shape for x in batch.streams.values()] == [(4, 64, 16)] * 2
    assert sorted(k for indices in first for k in indices) == list(range(12))
    assert list(sampler) == first
    sampler.start = 2
    assert list(sampler) == first[2:]  # iteration can start at any step of an epoch
    sampler.epoch, sampler.start = 1, 0
    assert list(sampler) != first
    assert list(PairedBatches(videos, 2, True, seed=4)) != first
    assert list(PairedBatches(videos, 2, True, seed=-3)) != first


def test_processes_share_normal_and_anomalous_videos(tiny) -> None:
    videos = train_videos(tiny)
    whole = list(PairedBatches(videos, 3, True, seed=0))
    parts = [list(PairedBatches(videos, 3, True, 0, rank, world=2)) for rank in (0, 1)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(one + two)
        assert [len(one), len(two)] == [4, 2]  # of 3 normal and 3 anomalous: 2 + 2 and 1 + 1
        assert sum(videos[k].anomalous for k in two) == 1
    with pytest.raises(InputError, match="a batch of 3 cannot be shared by 4 processes"):
        PairedBatches(videos, 3, True, 0, 0, world=4)


def test_data_set_smaller_than_a_batch_gives_one_batch(tiny) -> None:
    videos = train_videos(tiny)
    sampler = PairedBatches(videos, 64, True, seed=0)
    assert sampler.videos == 12 and [len(indices) for indices in sampler] == [12]
    assert [len(indices) for indices in PairedBatches(videos, 5, False, seed=0)] == [5, 5]  # 2 are dropped


@pytest.mark.parametrize("label", ["normal", "anomalous"])
def test_training_list_with_one_label_is_refused(tiny, label: str) -> None:
    videos = [video for video in train_videos(tiny) if video.anomalous == (label == "anomalous")]
    with pytest.raises(InputError, match=f"the training list contains {label} videos only"):
        PairedBatches(videos, 4, True, seed=0)


def test_worker_process_returns_the_error_message(tiny) -> None:
    path = tiny.path("rgb", "Arson001_x264", "Arson")
    np.save(path, np.full_like(np.load(path), np.nan))
    videos = train_videos(tiny)
    sampler = PairedBatches(videos, 6, True, seed=0)
    windows = Windows(videos, 64, "refuse", WIDTHS, None)
    (batch,) = DataLoader(windows, batch_sampler=sampler, num_workers=1, collate_fn=lambda batch: batch)
    assert isinstance(batch, InputError) and "Arson001_x264__5.npy has NaN" in str(batch)


def test_batch_is_truncated_to_its_longest_window() -> None:
    streams = {"image": torch.arange(24.0).reshape(2, 4, 3)}
    batch = Batch(streams, torch.tensor([1, 2]), torch.tensor([0.0, 1.0]), ("a", "b"))
    cut = batch.to(torch.device("cpu"), steps=2)
    assert torch.equal(cut.streams["image"], streams["image"][:, :2]) and cut.names == ("a", "b")
    assert batch.to(torch.device("cpu")).streams["image"].shape == (2, 4, 3)


def test_data_fingerprint_covers_lists_and_embeddings(tiny) -> None:
    files = [tiny.lists / name for name in ("train.csv", "test.csv", "gt.npy")]
    videos = train_videos(tiny)
    first = data_fingerprint(videos, files)
    assert data_fingerprint(train_videos(tiny), files) == first and len(first) == 16
    assert data_fingerprint(videos[1:], files) != first
    (tiny.lists / "test.csv").write_text("path,label\n")
    changed = data_fingerprint(videos, files)
    assert changed != first
    path = videos[5].streams["event"]
    np.save(path, np.load(path) + 1)
    assert data_fingerprint(videos, files) != changed
