"""A cache of training windows as it lies on disk: what it is made from, and reading it with every row checked."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vad.embeddings import convert, load_embedding, read_embedding, replace_nan
from vad.errors import InputError
from vad.windows import train_window

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
            self._index = np.load(index_path(path), allow_pickle=False)
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
        remove(self.path)
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


def index_path(path: Path) -> Path:
    """The file beside a cache that holds its index."""
    return path.with_name(f"{path.name}.index")


def remove(path: Path) -> None:
    """Remove a cache and its index, the index first: a cache without one does not count."""
    for file in (index_path(path), path):
        file.unlink(missing_ok=True)
