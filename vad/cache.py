"""Training windows reduced once and kept on disk beside the embeddings: built, continued, replaced, locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.cache_file import INDEX, Cache, Stream, checksum, index_path, remove
from vad.errors import InputError

FOLDER = "windows"  # beside rgb/ and the event embeddings


def open_cache(stream: Stream, folder: Path) -> Cache:
    """The cache of a stream in `folder`, built where it is missing, stale or damaged.

    Two runs may ask for it at once: one builds, the other waits. A stopped build continues. Raises InputError for an
    embedding that cannot be used, and OSError where `folder` cannot be written to or is full.
    """
    _settle(stream.paths)
    path = _path(stream, folder)
    found = _usable(path, stream)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f".{_slot(path)}.lock") as end:
            # another run may have built it while this one waited
            found = _usable(path, stream) or _make(path, path.with_name(f".{path.name}.{end}"), stream)
    found.refuse_missing()
    return found


def _make(path: Path, part: Path, stream: Stream) -> Cache:
    """Build a cache in `part`, give it its name, and remove those it takes the place of."""
    folder, slot = path.parent, _slot(path)
    _clear(folder.glob(f".{slot}_*"), f".{path.name}")  # begun for sources that have changed since
    _build(part, stream)
    if path != _path(stream, folder):
        remove(part)
        raise InputError(f"embeddings below {folder.parent} changed while they were read; try again")
    os.replace(part, path)
    os.replace(index_path(part), index_path(path))  # last: a cache without its index does not count
    _clear(folder.glob(f"{slot}_*"), path.name)
    return Cache(path, stream)


def _path(stream: Stream, folder: Path) -> Path:
    return folder / f"{stream.modality}_{stream.slot(folder)}_{stream.key(folder)}.npy"


def _slot(path: Path) -> str:
    return path.name.rpartition("_")[0]


def _clear(files: Iterable[Path], but: str) -> None:
    """Remove files, those aside whose names begin with `but`."""
    for file in files:
        if not file.name.startswith(but):
            file.unlink(missing_ok=True)


def _usable(path: Path, stream: Stream) -> Cache | None:
    if not path.is_file() or not index_path(path).is_file():
        return None
    try:
        return Cache(path, stream)
    except InputError:
        remove(path)
        return None


def _settle(paths: Sequence[Path]) -> None:
    """Wait out a file system's clock tick: a file changed twice within one has the times of the first change."""
    newest = max(path.stat().st_ctime for path in paths)
    time.sleep(min(0.05, max(0.0, newest + 0.05 - time.time())))


def _build(part: Path, stream: Stream) -> None:
    """Reduce every source into `part`, from where an earlier try stopped."""
    rows, row_bytes = len(stream.paths), stream.window * stream.width * stream.dtype.itemsize
    index = _open_part(part, stream)
    left = np.flatnonzero(~index["done"])
    needed = sum(stream.lengths[row] for row in left) * stream.width * stream.dtype.itemsize
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")
    print(f"{part.parent}: windows of {len(left)} {stream.modality} embeddings, made once ({needed / 1e9:.2f} GB)")
    start = part.stat().st_size - rows * row_bytes
    bar = tqdm(total=rows, initial=rows - len(left), desc=f"windows, {stream.modality}", unit="file", delay=1)
    with part.open("r+b", buffering=0) as file, bar:
        for row in left:
            valid, missing = stream.reduce(row)
            # not through a memory map: there a full disk ends the process instead of raising
            _write_at(file.fileno(), np.ascontiguousarray(valid), start + int(row) * row_bytes)
            index[row] = (True, missing, checksum(valid))
            bar.update()
    index.flush()


def _write_at(file: int, valid: np.ndarray, at: int) -> None:
    left = memoryview(valid).cast("B")
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done


def _open_part(part: Path, stream: Stream) -> np.memmap:
    """Index of an unfinished cache, with the file for its windows beside it; the zeros between rows take no room."""
    rows = len(stream.paths)
    try:
        if part.is_file():
            index = np.load(index_path(part), mmap_mode="r+", allow_pickle=False)
            if index.shape == (rows,) and index.dtype == INDEX:
                return index
    except (OSError, ValueError):
        pass  # begin again below
    remove(part)
    shape = (rows, stream.window, stream.width)
    with part.open("wb") as file:
        header = {"descr": stream.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * stream.dtype.itemsize)
    with index_path(part).open("wb") as file:
        np.save(file, np.zeros(rows, INDEX), allow_pickle=False)
    return np.load(index_path(part), mmap_mode="r+", allow_pickle=False)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[str]:
    """Hold the right to build; yields the end of the unfinished file's name.

    A lock of the operating system goes with its process, however that ends. Where the file system has none, every
    process builds a file of its own and the last to finish wins.
    """
    with path.open("w") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another run is making the windows in {path.parent}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            name = "part"
        except OSError:
            name = f"{os.getpid()}.part"
        yield name
