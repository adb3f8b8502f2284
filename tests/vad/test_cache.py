"""The cache of training windows: the same numbers, never stale or damaged ones, whatever else goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from vad import cache as module
from vad.cache import open_cache
from vad.cache_file import Stream, checksum
from vad.catalog import UCFCRIME
from vad.data import TrainingBatches, TrainingWindows, find_samples
from vad.errors import InputError
from vad.lists import read_csv
from vad.windows import train_window

SIZES = (1, 5, 255, 256, 257, 300, 511, 512, 513, 1000)


def stream_of(folder, arrays, **settings) -> Stream:
    """Arrays saved in a folder, as a stream of image embeddings."""
    (folder / "rgb").mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / "rgb" / f"v{number}__5.npy" for number in range(len(arrays)))
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    window = settings.get("window", 256)
    lengths = tuple(min(len(array), window) for array in arrays)
    width = arrays[0].shape[1]
    return Stream(**{
        "modality": "image", "paths": paths, "lengths": lengths, "window": window, "width": width,
        "dtype": np.dtype(np.float32), "nan": "refuse", **settings,
    })  # fmt: skip


def rows_of(cache, rows) -> np.ndarray:
    stream = cache.stream
    out = np.full((len(rows), stream.window, stream.width), 7, stream.dtype)  # what is not written must not stay
    cache.read(rows, out)
    return out


def random_arrays(count: int = 6, width: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((int(rng.integers(1, 40)), width)).astype(np.float32) for _ in range(count)]


def finished(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith("."))


def test_windows_from_the_cache_are_the_released_codes_bit_for_bit(golden, tmp_path):
    case = golden("windows")
    stream = stream_of(tmp_path, [case[f"in/{S}"] for S in SIZES])
    cache = open_cache(stream, tmp_path / "windows")
    order = [3, 9, 0, 9, 5]
    windows = rows_of(cache, order)
    for row, number in enumerate(order):
        np.testing.assert_array_equal(windows[row], case[f"train/{SIZES[number]}"])
        assert stream.lengths[number] == case[f"trainlen/{SIZES[number]}"]
    assert np.load(cache.path, mmap_mode="r", allow_pickle=False).shape == (10, 256, 3)  # a plain array for anybody


def test_float16_sources_keep_their_type_and_lose_no_more_than_one_rounding(tmp_path):
    long = np.random.default_rng(0).standard_normal((700, 4)).astype(np.float16)
    stream = stream_of(tmp_path, [long, long[:200]], dtype=np.dtype(np.float16))
    windows = rows_of(open_cache(stream, tmp_path / "windows"), [0, 1])
    exact, _ = train_window(long.astype(np.float32))
    np.testing.assert_array_equal(windows[0], exact.astype(np.float16))
    np.testing.assert_allclose(windows[0], exact, rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(windows[1, :200], long[:200])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("modality", ["fusion", "image", "event"])
def test_batches_with_and_without_cache_are_equal(tiny, modality, half):
    if half:
        for path in tiny.root.rglob("*.npy"):
            np.save(path, np.load(path).astype(np.float16))
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", UCFCRIME), UCFCRIME, tiny.root, modality)
    options = {"window": 24, "nan": "refuse", "width": width}
    plain = TrainingBatches(TrainingWindows(samples, **options), 2, True, seed=1)
    cached = TrainingBatches(TrainingWindows(samples, **options, cache=tiny.root / "windows"), 2, True, seed=1)
    assert cached.data.caches is not None
    for a, b in zip(plain.epoch(3), cached.epoch(3), strict=True):
        assert a.videos == b.videos
        for name in ("image", "event", "lengths", "anomalous"):
            left, right = getattr(a, name), getattr(b, name)
            assert (left is None) == (right is None)
            assert left is None or (left.dtype == right.dtype and torch.equal(left, right)), name
        kept = b.event if modality == "event" else b.image
        assert kept.dtype == (torch.float16 if half else torch.float32)


@pytest.mark.parametrize("cached", [False, True])
def test_loading_draws_no_random_number_that_dropout_would_use(tiny, cached):
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", UCFCRIME), UCFCRIME, tiny.root)
    windows = TrainingWindows(
        samples, window=24, nan="refuse", width=width, cache=tiny.root / "windows" if cached else None
    )
    before = torch.get_rng_state()
    list(TrainingBatches(windows, 2, True, seed=1).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_built_once_and_again_when_a_source_changes(tmp_path, monkeypatch, capsys):
    arrays = random_arrays()
    stream = stream_of(tmp_path, arrays)
    folder = tmp_path / "windows"
    open_cache(stream, folder)
    assert capsys.readouterr().out == f"{folder}: windows of 6 image embeddings, made once (0.00 GB)\n"
    built = []
    real = module._build
    monkeypatch.setattr(module, "_build", lambda part, stream: (built.append(part), real(part, stream)))
    open_cache(stream, folder)
    assert not built and capsys.readouterr().out == ""
    # the same size, and the old time of the content put back: only the bytes differ
    times = os.stat(stream.paths[2])
    np.save(stream.paths[2], arrays[2] + 1)
    os.utime(stream.paths[2], ns=(times.st_atime_ns, times.st_mtime_ns))
    again = open_cache(stream, folder)
    assert len(built) == 1
    np.testing.assert_array_equal(rows_of(again, [2])[0], train_window(arrays[2] + 1)[0])
    assert len(finished(folder)) == 1  # the stale one is gone


def test_another_window_or_list_has_a_cache_of_its_own(tmp_path):
    stream = stream_of(tmp_path, random_arrays())
    folder = tmp_path / "windows"
    open_cache(stream, folder)
    open_cache(replace(stream, window=16, lengths=tuple(min(n, 16) for n in stream.lengths)), folder)
    open_cache(replace(stream, paths=stream.paths[:3], lengths=stream.lengths[:3]), folder)
    assert len(finished(folder)) == 3


def test_a_data_set_moved_as_a_whole_keeps_its_cache(tmp_path, monkeypatch):
    stream = stream_of(tmp_path / "here", random_arrays())
    open_cache(stream, tmp_path / "here" / "windows")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = replace(stream, paths=tuple(tmp_path / "there" / "rgb" / path.name for path in stream.paths))
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("built again"))
    open_cache(moved, tmp_path / "there" / "windows")


@pytest.mark.parametrize("damage", ["cut", "longer", "index", "header", "no index"])
def test_a_file_that_is_not_whole_is_made_again(tmp_path, damage):
    stream = stream_of(tmp_path, random_arrays())
    folder = tmp_path / "windows"
    path = open_cache(stream, folder).path
    content, index = path.read_bytes(), path.with_name(f"{path.name}.index")
    if damage in ("cut", "longer"):
        path.write_bytes(content[:-1] if damage == "cut" else content + b"\0")
    elif damage == "header":
        path.write_bytes(b"\0" * 64 + content[64:])
    elif damage == "index":
        index.write_bytes(b"no array")
    else:
        index.unlink()
    cache = open_cache(stream, folder)
    assert cache.path.read_bytes() == content
    for row, source in enumerate(stream.paths):
        np.testing.assert_array_equal(rows_of(cache, [row])[0], train_window(np.load(source))[0])


def test_a_single_damaged_byte_is_found_and_the_next_run_is_well(tmp_path):
    stream = stream_of(tmp_path, random_arrays())
    folder = tmp_path / "windows"
    path = open_cache(stream, folder).path
    content = bytearray(path.read_bytes())
    content[-(256 * 4 * 4) + 3] ^= 1  # in the first step of the last row
    path.write_bytes(content)
    cache = open_cache(stream, folder)
    rows_of(cache, [0, 1])  # other rows are well
    with pytest.raises(InputError, match=r"was damaged \(the window of \S*v5__5\.npy\) and has been removed; give"):
        rows_of(cache, [0, 5])
    again = open_cache(stream, folder)
    np.testing.assert_array_equal(rows_of(again, [5])[0], train_window(np.load(stream.paths[5]))[0])


def test_the_checksum_sees_a_changed_byte_anywhere():
    for size in (1, 7, 8, 30, 64):
        data = np.arange(1, size + 1, dtype=np.uint8)
        for at in range(size):
            for other in (data[at] ^ 128, 0):
                changed = data.copy()
                changed[at] = other
                assert checksum(changed) != checksum(data)


def test_nan_is_refused_by_name_also_where_the_cache_was_made_with_zeros(tmp_path):
    arrays = random_arrays()
    arrays[3][0, 0] = np.nan
    stream = stream_of(tmp_path, arrays)
    folder = tmp_path / "windows"
    with pytest.raises(InputError, match=r"v3__5\.npy has NaN in 1 of its \d+ snippets.*--nan zero"):
        open_cache(stream, folder)
    cache = open_cache(replace(stream, nan="zero"), folder)
    assert rows_of(cache, [3])[0, 0, 0] == 0
    with pytest.raises(InputError, match=r"v3__5\.npy has NaN"):
        open_cache(stream, folder)


def test_a_stopped_build_goes_on_where_it_was(tmp_path, monkeypatch):
    arrays = random_arrays()
    stream = stream_of(tmp_path, arrays)
    reduced, real = [], Stream.reduce

    def reduce(self, row):
        if len(reduced) == 4 and row == 4:
            raise KeyboardInterrupt
        reduced.append(int(row))
        return real(self, row)

    monkeypatch.setattr(Stream, "reduce", reduce)
    with pytest.raises(KeyboardInterrupt):
        open_cache(stream, tmp_path / "windows")
    assert finished(tmp_path / "windows") == []
    reduced.append(-1)
    cache = open_cache(stream, tmp_path / "windows")
    assert reduced == [0, 1, 2, 3, -1, 4, 5]
    np.testing.assert_array_equal(rows_of(cache, range(6)), [train_window(array)[0] for array in arrays])
    assert not [path for path in (tmp_path / "windows").iterdir() if "part" in path.name]


def test_rows_begun_for_sources_that_changed_since_are_not_used(tmp_path, monkeypatch):
    arrays = random_arrays()
    stream = stream_of(tmp_path, arrays)
    real = Stream.reduce
    stop = {"at": 4}

    def reduce(self, row):
        if row == stop["at"]:
            raise KeyboardInterrupt
        return real(self, row)

    monkeypatch.setattr(Stream, "reduce", reduce)
    with pytest.raises(KeyboardInterrupt):
        open_cache(stream, tmp_path / "windows")
    np.save(stream.paths[1], arrays[1] * 2)
    stop["at"] = None
    cache = open_cache(stream, tmp_path / "windows")
    np.testing.assert_array_equal(rows_of(cache, [1])[0], train_window(arrays[1] * 2)[0])
    assert not [path for path in (tmp_path / "windows").iterdir() if "part" in path.name]


def test_a_source_that_changes_while_it_is_read_is_not_taken(tmp_path, monkeypatch):
    arrays = random_arrays()
    stream = stream_of(tmp_path, arrays)
    real = module._build

    def build(part, stream):
        real(part, stream)
        np.save(stream.paths[0], arrays[0] + 1)

    monkeypatch.setattr(module, "_build", build)
    with pytest.raises(InputError, match="changed while they were read"):
        open_cache(stream, tmp_path / "windows")
    assert finished(tmp_path / "windows") == []


def test_two_runs_at_once_build_it_once(tmp_path, monkeypatch, capsys):
    arrays = random_arrays(12)
    stream = stream_of(tmp_path, arrays)
    built, real = [], module._build

    def build(part, stream):
        built.append(part)
        time.sleep(0.3)  # long enough for the others to arrive
        real(part, stream)

    monkeypatch.setattr(module, "_build", build)
    caches = []
    threads = [
        threading.Thread(target=lambda: caches.append(open_cache(stream, tmp_path / "windows"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(caches) == 4
    assert "another run is making the windows" in capsys.readouterr().out
    for cache in caches:
        np.testing.assert_array_equal(rows_of(cache, range(12)), [train_window(array)[0] for array in arrays])


BUILDER = """
import os, pathlib, signal, sys, numpy as np
sys.path.insert(0, sys.argv[1])
from vad import cache
from vad.cache_file import Stream
folder, stop = pathlib.Path(sys.argv[2]), int(sys.argv[3])
write, written = cache._write_at, []
def write_and_die(file, valid, at):
    written.append(at)
    if len(written) == stop:
        write(file, valid[:10], at)  # killed in the middle of a row
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, valid, at)
cache._write_at = write_and_die
paths = tuple(sorted((folder / "rgb").glob("*.npy")))
cache.open_cache(Stream("image", paths, (20,) * 9, 20, 4, np.dtype(np.float32), "refuse"), folder / "windows")
"""


def test_a_build_that_was_killed_leaves_nothing_wrong_behind(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((50, 4)).astype(np.float32) for _ in range(9)]
    stream = stream_of(tmp_path, arrays, window=20)
    root = str(module.Path(module.__file__).resolve().parent.parent)
    for stop in (3, 4):  # the second try goes on after the two rows of the first
        killed = subprocess.run([sys.executable, "-c", BUILDER, root, str(tmp_path), str(stop)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert finished(tmp_path / "windows") == []
    index = np.load(next((tmp_path / "windows").glob(".*part.index")), allow_pickle=False)
    assert index["done"].tolist() == [True] * 5 + [False] * 4
    windows = rows_of(open_cache(stream, tmp_path / "windows"), range(9))
    np.testing.assert_array_equal(windows, [train_window(array, 20)[0] for array in arrays])


def test_where_it_cannot_be_written_the_run_goes_on_without_and_says_so(tiny, tmp_path, capsys):
    samples, width = find_samples(read_csv(tiny.lists / "train.csv", UCFCRIME), UCFCRIME, tiny.root)
    (tmp_path / "occupied").write_text("a file, so no folder can be made here")
    windows = TrainingWindows(samples, window=24, nan="refuse", width=width, cache=tmp_path / "occupied" / "windows")
    assert windows.caches is None
    said = " ".join(capsys.readouterr().out.split())
    assert "occupied/windows: windows cannot be kept here" in said and "--cache_dir names another place" in said
    assert len(list(TrainingBatches(windows, 2, True, seed=0).epoch(0))) == 3


def test_too_little_room_is_said_before_anything_is_read(tmp_path, monkeypatch):
    stream = stream_of(tmp_path, random_arrays())
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OSError, match=r"GB are needed and 0\.0 GB are free"):
        open_cache(stream, tmp_path / "windows")
