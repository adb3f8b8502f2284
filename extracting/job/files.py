"""Write the embedding files, one per video and crop, each completely or not at all.

The embeddings of an unfinished video are kept in one hidden file in the same folder. Its name is fixed,
so the next run overwrites what a killed run left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from extracting.video.config import Job
from extracting.video.decode import DecodeResult
from vad.datasets import EVENT_MAPS
from vad.files import InputError

NAME_BYTES = 255 - len(EVENT_MAPS)  # longest video name without suffix, on common file systems
READ_SNIPPETS = 256
RESUME = "Finished embeddings are kept; run the same command again to resume."


def embedding_path(folder: Path, name: str, crop: int | None) -> Path:
    """Return the path of the embeddings (S, D) of one video and crop. name: [<Class>/]<video>."""
    return folder / (f"{name}.npy" if crop is None else f"{name}__{crop}.npy")


def event_map_path(folder: Path, name: str) -> Path:
    """Return the path of the event maps of one video: `counts` (S, 256, 340) uint8, not clamped or cropped."""
    return folder / f"{name}{EVENT_MAPS}"


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error for a file that cannot be written, such as on a full disk."""
    return InputError(f"{path}: cannot be written ({error.strerror or error}). {RESUME}")


class EmbeddingFile:
    """Collects the embeddings of one video and modality, then writes them under their final names."""

    def __init__(
        self,
        folder: Path,
        job: Job,
        modality: str,
        crops: Sequence[int | None],
        embed_dim: int,
        save_events: bool = False,
    ) -> None:
        """Lock and empty the hidden file. save_events: the decoder writes event maps to `maps_path`.

        Raises InputError if the folder is not writable or another run is embedding this video.
        """
        self.job, self.modality = job, modality
        self._folder, self._crops, self._embed_dim = folder, crops, embed_dim
        self.pending = 0  # snippets whose embeddings have not arrived yet
        self.snippets = 0  # S, so far
        self.result: DecodeResult | None = None  # set when the decoder has finished
        self._not_finite = ""
        video = folder / job.name
        self._part, self._crop, maps = (
            video.with_name(f".{video.name}.{suffix}") for suffix in ("part", "crop", "maps")
        )
        self.maps_path = maps if save_events else None
        # all temporary files; the decoder compresses the event maps into the last one
        self._hidden = self._part, self._crop, maps, maps.with_suffix(".npz")
        try:
            video.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self._part)
        except BlockingIOError:
            raise InputError(
                f"{video}: another run is writing the embeddings of this video. Wait for it to finish,"
                " or divide the videos between runs with --shard."
            ) from None
        except OSError as error:
            raise cannot_write(self._part, error) from None

    def append(self, rows: np.ndarray) -> None:
        """Add the embeddings (C, D) float32 of the next snippet."""
        self.pending -= 1
        if self.discarded:
            return  # the video was given up while the encoder was working on it
        if not np.isfinite(rows).all():
            self._not_finite = f"the embedding of snippet {self.snippets} contains NaN or infinite values"
        try:
            self._file.write(rows.astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise cannot_write(self._part, error) from None
        self.snippets += 1

    @property
    def complete(self) -> bool:
        """Return whether the file is ready for `finish`."""
        decoded = self.result is not None and not self.discarded
        return decoded and (self.pending == 0 or not self.result.usable)

    @property
    def discarded(self) -> bool:
        """Return whether the hidden file has been removed."""
        return self._file.closed

    def finish(self) -> DecodeResult:
        """Write the final files if the result is usable, remove the hidden ones, and return the result."""
        result = self.result
        if result.usable and self._not_finite:
            result = replace(result, outcome="not_finite", reason=self._not_finite)
        if result.usable:
            path = self._part
            try:
                self._file.flush()
                for c, crop in enumerate(self._crops):
                    path = embedding_path(self._folder, self.job.name, crop)
                    self._write_crop(c)
                    os.replace(self._crop, path)
                if self.maps_path:
                    path = event_map_path(self._folder, self.job.name)
                    os.replace(self.maps_path, path)
            except OSError as error:
                raise cannot_write(path, error) from None
        self.discard()
        return result

    def _write_crop(self, c: int) -> None:
        """Write crop number c of the embeddings (S, C, D) as an .npy file, in bounded memory."""
        shape = (len(self._crops), self._embed_dim)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.snippets, self._embed_dim)}
        self._file.seek(0)
        with self._crop.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            while block := self._file.read(READ_SNIPPETS * 4 * shape[0] * shape[1]):
                out.write(np.frombuffer(block, "<f4").reshape(-1, *shape)[:, c].tobytes())

    def discard(self) -> None:
        """Remove the hidden files. Embeddings that arrive later are ignored."""
        if self.discarded:
            return
        for path in self._hidden:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # closing flushes again, which fails on a full disk
            self._file.close()


def _open_locked(path: Path) -> BinaryIO:
    """Open a file empty with an exclusive lock. Raises BlockingIOError if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            os.ftruncate(descriptor, 0)
            return os.fdopen(descriptor, "w+b")
        os.close(descriptor)  # another run removed the file between open and lock
