"""The arrays that extraction leaves behind, one a video and crop: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vad.errors import InputError

_HEADER_BYTES = 128
UNFINISHED = ".unfinished"  # below the folder of embeddings


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The .npy header of an array, padded to 128 bytes, so that it can be rewritten in place. kind: like "<f4"."""
    start = np.lib.format.magic(1, 0)
    room = _HEADER_BYTES - len(start) - 2
    fields = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    return start + room.to_bytes(2, "little") + fields.ljust(room - 1).encode("latin1") + b"\n"


def embedding_path(folder: Path, name: str, crop: int) -> Path:
    """Where the embeddings (S, D) of one video and crop stand. name: [<Class>/]<video>."""
    return folder / f"{name}__{crop}.npy"


def part_path(folder: Path, final: Path) -> Path:
    """Where a file below `folder` is written before it gets its final name: a place of this process's own.

    Two runs never write into one file, and what a killed run leaves lies in one place, however large the folder.
    """
    return folder / UNFINISHED / f"{socket.gethostname()}-{os.getpid()}" / final.relative_to(folder)


def sweep(folder: Path) -> None:
    """Remove the unfinished files of this process, and of others that no longer run.

    Whether a process of another machine runs is not known: its files go after a day without change.
    """
    for place in list((folder / UNFINISHED).glob("*")):
        machine, _, pid = place.name.rpartition("-")
        with contextlib.suppress(OSError):
            if machine == socket.gethostname() and pid.isdecimal():
                unused = int(pid) == os.getpid() or not _runs(int(pid))
            else:
                changed = max(path.stat().st_mtime for path in (place, *place.rglob("*")))
                unused = time.time() - changed > 86400
            if unused:
                shutil.rmtree(place)
    with contextlib.suppress(OSError):
        (folder / UNFINISHED).rmdir()  # if it is empty


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def cannot_write(path: Path, error: OSError) -> InputError:
    """The sentence for a file that could not be written: no room, no permission."""
    kept = "what was finished is kept, the same command continues from there"
    return InputError(f"{path}: cannot be written ({error.strerror}); {kept}")


class EmbeddingFiles:
    """The arrays of one video, written row by row under temporary names and renamed when all rows are there.

    A video's embeddings never lie in memory as a whole, and a file under its final name is always complete.
    """

    def __init__(self, folder: Path, name: str, crops: Sequence[int], width: int) -> None:
        """width: D. Raises InputError if the folder cannot be written."""
        self._width = width
        self._rows = dict.fromkeys(crops, 0)
        self._final = {crop: embedding_path(folder, name, crop) for crop in crops}
        self._temporary = {crop: part_path(folder, path) for crop, path in self._final.items()}
        self._open: dict[int, Any] = {}
        try:
            for crop, path in self._temporary.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._final[crop].parent.mkdir(parents=True, exist_ok=True)
                self._open[crop] = path.open("wb")
                self._open[crop].write(npy_header("<f4", (0, width)))
        except OSError as error:
            self.abandon()
            raise cannot_write(path, error) from None

    def append(self, crop: int, row: np.ndarray) -> None:
        """Add the embedding (D,) float32 of the crop's next snippet."""
        try:
            self._open[crop].write(row.astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise cannot_write(self._final[crop], error) from None
        self._rows[crop] += 1

    def commit(self) -> int:
        """Give the files their final names; returns S, which all crops share."""
        rows = set(self._rows.values())
        if len(rows) != 1:
            raise AssertionError(f"crops of one video with unequal numbers of snippets: {self._rows}")
        snippets = rows.pop()
        for crop, file in self._open.items():
            try:
                file.seek(0)
                file.write(npy_header("<f4", (snippets, self._width)))
                file.close()
                os.replace(self._temporary[crop], self._final[crop])
            except OSError as error:
                raise cannot_write(self._final[crop], error) from None
        self._open.clear()
        return snippets

    def abandon(self) -> None:
        """Close and remove what is unfinished; nothing if `commit` went through."""
        for crop, file in self._open.items():
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                self._temporary[crop].unlink(missing_ok=True)
        self._open.clear()
