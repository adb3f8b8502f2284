"""The arrays that an extraction leaves behind, one a video and crop; each appears whole or not at all.

While a video is embedded its rows lie in one hidden file beside their place. The name of that file is
fixed, so that the next run overwrites what a killed one has left.
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

from extracting.config import Job
from extracting.video.decode import Ended
from vad.files import InputError

NAME_BYTES = 255 - len("__events.npz")  # of a video's name without its suffix, on common file systems
ROWS_A_READ = 256


def embedding_path(folder: Path, name: str, crop: int) -> Path:
    """Where the embeddings (S, D) of one video and crop stand. name: [<Class>/]<video>."""
    return folder / f"{name}__{crop}.npy"


def event_map_path(folder: Path, name: str) -> Path:
    """Where the event maps of one video stand: `counts` (S, 256, 340) uint8, before clamp and crop."""
    return folder / f"{name}__events.npz"


def cannot_write(path: Path, error: OSError) -> InputError:
    """The sentence for a file that cannot be written: no room, no permission."""
    kept = "what was finished is kept, the same command continues"
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {kept}")


class EmbeddingFile:
    """The embeddings of one video and modality between its first snippet and their final names."""

    def __init__(
        self,
        folder: Path,
        job: Job,
        modality: str,
        crops: Sequence[int],
        embed_dim: int,
        save_events: bool = False,
    ) -> None:
        """Lock and empty the hidden file. save_events: the decoder writes event maps to `maps`.

        Raises InputError if the folder cannot be written, or if another run is at this video.
        """
        self.job, self.modality = job, modality
        self._folder, self._crops, self._embed_dim = folder, crops, embed_dim
        self.owed = 0  # snippets whose embeddings are still to come
        self.snippets = 0  # S, so far
        self.ended: Ended | None = None  # the decoder's last word
        self._spoiled = ""
        video = folder / job.name
        self._part, self._crop, maps = (
            video.with_name(f".{video.name}.{kind}") for kind in ("part", "crop", "maps")
        )
        self.maps = maps if save_events else None
        # all that may be there before the end; the decoder packs event maps into the last
        self._hidden = self._part, self._crop, maps, maps.with_suffix(".npz")
        try:
            video.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(self._part)
        except BlockingIOError:
            raise InputError(
                f"{video}: another run is writing the embeddings of this video; wait for its end,"
                " or share the videos between runs with --shard"
            ) from None
        except OSError as error:
            raise cannot_write(self._part, error) from None

    def append(self, rows: np.ndarray) -> None:
        """Add the embeddings (C, D) float32 of the next snippet."""
        self.owed -= 1
        if self.dropped:
            return  # given up while the encoder was at work for it
        if not np.isfinite(rows).all():
            self._spoiled = f"snippet {self.snippets} has an embedding with NaN or infinite numbers"
        try:
            self._file.write(rows.astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise cannot_write(self._part, error) from None
        self.snippets += 1

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come, and `finish` was not called."""
        ended = self.ended is not None and not self.dropped
        return ended and (self.owed == 0 or not self.ended.usable)

    @property
    def dropped(self) -> bool:
        """Whether the hidden file is gone."""
        return self._file.closed

    def finish(self) -> Ended:
        """Give the files their final names, or remove them where the video is no good; say which."""
        ended = self.ended
        if ended.usable and self._spoiled:
            ended = replace(ended, outcome="not_finite", reason=self._spoiled)
        if ended.usable:
            path = self._part
            try:
                self._file.flush()
                for number, crop in enumerate(self._crops):
                    path = embedding_path(self._folder, self.job.name, crop)
                    self._write_crop(number)
                    os.replace(self._crop, path)
                if self.maps:
                    path = event_map_path(self._folder, self.job.name)
                    os.replace(self.maps, path)
            except OSError as error:
                raise cannot_write(path, error) from None
        self.drop()
        return ended

    def _write_crop(self, number: int) -> None:
        """Write one crop's column of the rows (S, C, D) as NumPy does, in bounded memory."""
        shape = (len(self._crops), self._embed_dim)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.snippets, self._embed_dim)}
        self._file.seek(0)
        with self._crop.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            while block := self._file.read(ROWS_A_READ * 4 * shape[0] * shape[1]):
                out.write(np.frombuffer(block, "<f4").reshape(-1, *shape)[:, number].tobytes())

    def drop(self) -> None:
        """Remove what is unfinished; embeddings that still come are ignored."""
        if self.dropped:
            return
        for path in self._hidden:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what was not written on a full disk is not written now
            self._file.close()


def _open_locked(path: Path) -> BinaryIO:
    """Open a file empty, for this process alone. Raises BlockingIOError where another one has it."""
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
        os.close(descriptor)  # its owner has finished and removed it between open and lock
