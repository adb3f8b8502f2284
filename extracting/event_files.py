"""Event maps on disk: the counts of a video, lossless and compressed, as one .npz that NumPy reads."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from extracting.frames import HEIGHT, WIDTH
from extracting.outputs import cannot_write, npy_header, part_path

# counts are mostly zero: level 1 takes a third of the time of level 6 for a few percent more room
_LEVEL = 1
_MEMBER = "counts.npy"


def event_map_path(folder: Path, name: str) -> Path:
    """Where the event maps of one video stand. name: [<Class>/]<video>."""
    return folder / f"{name}__events.npz"


class EventMapFile:
    """`<video>__events.npz`: `counts` (S, 256, 340) uint8, events a pixel before clamp and crop, 0 … 15.

    Written map by map under a temporary name and renamed by `commit`.
    """

    def __init__(self, folder: Path, name: str, expected: int) -> None:
        """expected: S if the container keeps its promise; where it does not, `commit` takes a second pass."""
        self._final = event_map_path(folder, name)
        self._part = part_path(folder, self._final)
        self._expected, self._rows = expected, 0
        self._zip: zipfile.ZipFile | None = None
        try:
            for path in (self._part, self._final):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._zip, self._member = _open(self._part, expected)
        except OSError as error:
            self.abandon()
            raise cannot_write(self._final, error) from None

    def append(self, counts: np.ndarray) -> None:
        """Add the counts (256, 340) of the next snippet."""
        try:
            self._member.write(np.ascontiguousarray(counts))
        except OSError as error:
            raise cannot_write(self._final, error) from None
        self._rows += 1

    def commit(self) -> None:
        """Complete the file and give it its final name."""
        try:
            self._close()
            if self._rows != self._expected:
                self._write_again()
            os.replace(self._part, self._final)
        except OSError as error:
            raise cannot_write(self._final, error) from None

    def abandon(self) -> None:
        """Close and remove what is unfinished; nothing if `commit` went through."""
        with contextlib.suppress(OSError, ValueError):
            self._close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._zip is not None:
            self._member.close()
            self._zip.close()
            self._zip = None

    def _write_again(self) -> None:
        """Copy into a file whose header has the right S: the header comes first and is compressed with the rest."""
        other = self._part.with_name(f"{self._part.name}-again")
        try:
            with zipfile.ZipFile(self._part) as old, old.open(_MEMBER) as source:
                source.read(len(npy_header("|u1", (0, HEIGHT, WIDTH))))
                archive, member = _open(other, self._rows)
                with archive, member:
                    shutil.copyfileobj(source, member, HEIGHT * WIDTH)
            os.replace(other, self._part)
        finally:
            other.unlink(missing_ok=True)


def _open(path: Path, rows: int) -> tuple[zipfile.ZipFile, IO[bytes]]:
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
    # the member carries no time of day, so that equal counts make equal files
    member = archive.open(_MEMBER, "w", force_zip64=True)
    member.write(npy_header("|u1", (rows, HEIGHT, WIDTH)))
    return archive, member
