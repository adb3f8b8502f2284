"""Training windows reduced once and kept on disk beside the embeddings, one file per stream, ready to be gathered."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.embeddings import convert, load_embedding, read_embedding, replace_nan
from vad.errors import InputError
from vad.windows import train_window

FOLDER = "windows"  # beside rgb/ and the event embeddings
FORMAT = 1  # part of the key: another way to reduce or to lay out is another cache
# of every row: whether it is written, whether its source had NaN, and a sum that tells damaged bytes
INDEX = np.dtype([("done", "?"), ("missing", "?"), ("sum", "<u8")])


@dataclass(frozen=True)
class Stream:
    """The embeddings of one modality that are to become windows, in the order of the rows."""

    modality: str
    paths: tuple[Path, ...]
    lengths: tuple[int, ...]  # valid steps of each window
    window: int  # T
    width: int  # D
    dtype: np.dtype  # of the windows: float16 where every source is, float32 otherwise
    nan: str  # as in `load_embedding`

    def reduce(self, row: int) -> tuple[np.ndarray, bool]:
        """Valid steps (L, D) of one window in the stream's type, and whether its source had NaN.

        Means are taken in float32. In float16 they are then rounded once, by at most 2⁻¹¹ of their size, as the source
        itself was; windows of videos no longer than T are the source's own bits. Raises InputError as `load_embedding`.
        """
        path = self.paths[row]
        embedding = read_embedding(path)
        missing = replace_nan(embedding, path, self.nan)
        window, length = train_window(embedding, self.window)
        if window.shape[1] != self.width or length != self.lengths[row]:
            raise InputError(f"{path} changed while it was read; give the same command again")
        return convert(window[:length], self.dtype), missing

    def names(self, folder: Path) -> list[str]:
        """Paths of the sources as seen from beside `folder`: a data set that moves as a whole keeps its cache."""
        return [os.path.relpath(path, folder.parent) for path in self.paths]

    def slot(self, folder: Path) -> str:
        """Hash of settings and names alone: a newer cache of the same slot replaces the older one."""
        return _hash((FORMAT, self.window, self.width, self.dtype.str, self.names(folder)), 8)

    def key(self, folder: Path) -> str:
        """Hash of all that the windows depend on: settings, and name, size and times of every source."""
        # the time of the last change of status cannot be set back, as that of the content can
        about = [(s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (path.stat() for path in self.paths)]
        return _hash((self.slot(folder), self.lengths, about), 16)


def _hash(content: object, digits: int) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:digits]


class Cache:
    """An open cache: rows are read with one system call each, and checked when they are first read."""

    def __init__(self, path: Path, stream: Stream) -> None:
        """Raises InputError for files that do not belong to `stream` or are cut short."""
        self.path, self.stream = path, stream
        rows, shape = len(stream.paths), (len(stream.paths), stream.window, stream.width)
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                found = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
            self._index = np.load(_index_path(path), allow_pickle=False)
            size = path.stat().st_size
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable cache of windows ({error})") from None
        whole = self._start + int(np.prod(shape)) * stream.dtype.itemsize
        if found != (shape, False, stream.dtype) or size != whole or self._index.shape != (rows,):
            raise InputError(f"{path}: not the cache of these windows, or cut short")
        if self._index.dtype != INDEX or not self._index["done"].all():
            raise InputError(f"{path}: its index is damaged")
        self._row_bytes = stream.window * stream.width * stream.dtype.itemsize
        self._checked = np.zeros(rows, bool)
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def refuse_missing(self) -> None:
        """Raise InputError, naming the file, where a source had NaN and NaN is to be refused."""
        if self.stream.nan == "refuse":
            for row in np.flatnonzero(self._index["missing"])[:1]:
                load_embedding(self.stream.paths[row], "refuse")

    def read(self, rows: Sequence[int], out: np.ndarray) -> None:
        """Fill out (B, T, D) with windows, zeros beyond each length. Raises InputError for a damaged row."""
        for row, window in zip(rows, out, strict=True):
            length = self.stream.lengths[row]
            valid = window[:length]
            self._read_row(row, memoryview(valid).cast("B"))
            window[length:] = 0
            if not self._checked[row]:
                if checksum(valid) != self._index["sum"][row]:
                    self._refuse(row)
                self._checked[row] = True

    def _read_row(self, row: int, target: memoryview) -> None:
        at, done = self._start + int(row) * self._row_bytes, 0
        while done < len(target):
            got = os.preadv(self._file, [target[done:]], at + done)
            if got == 0:
                self._refuse(row)
            done += got

    def _refuse(self, row: int) -> None:
        _remove(self.path)
        raise InputError(
            f"{self.path} was damaged (the window of {self.stream.paths[row]}) and has been removed; give the same "
            f"command again, it makes the file anew"
        )


def checksum(valid: np.ndarray) -> int:
    """64-bit sum of an array's bytes, taken as whole words and a rest: as fast as memory, and a lost page shows."""
    data = np.ascontiguousarray(valid).reshape(-1).view(np.uint8)
    whole = len(data) // 8 * 8
    rest = zlib.crc32(data[whole:].tobytes())
    return (int(data[:whole].view("<u8").sum(dtype=np.uint64)) + rest) % (1 << 64)


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
        slot = _slot(path)
        with _lock(folder / f".{slot}.lock") as end:
            found = _usable(path, stream)  # another run may have built it while this one waited
            if found is None:
                part = folder / f".{path.name}.{end}"
                _clear(folder.glob(f".{slot}_*"), f".{path.name}")  # begun for sources that have changed since
                _build(part, stream)
                if path != _path(stream, folder):
                    _remove(part)
                    raise InputError(f"embeddings below {folder.parent} changed while they were read; try again")
                os.replace(part, path)
                os.replace(_index_path(part), _index_path(path))  # last: a cache without its index does not count
                _clear(folder.glob(f"{slot}_*"), path.name)
                found = Cache(path, stream)
    found.refuse_missing()
    return found


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
    if not path.is_file() or not _index_path(path).is_file():
        return None
    try:
        return Cache(path, stream)
    except InputError:
        _remove(path)
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
            index = np.load(_index_path(part), mmap_mode="r+", allow_pickle=False)
            if index.shape == (rows,) and index.dtype == INDEX:
                return index
    except (OSError, ValueError):
        pass  # begin again below
    _remove(part)
    shape = (rows, stream.window, stream.width)
    with part.open("wb") as file:
        header = {"descr": stream.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * stream.dtype.itemsize)
    with _index_path(part).open("wb") as file:
        np.save(file, np.zeros(rows, INDEX), allow_pickle=False)
    return np.load(_index_path(part), mmap_mode="r+", allow_pickle=False)


def _index_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


def _remove(path: Path) -> None:
    for file in (_index_path(path), path):
        file.unlink(missing_ok=True)


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
