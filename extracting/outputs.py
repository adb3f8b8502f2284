"""What extraction leaves behind: one array a video and crop, and the manifest that says how they were made."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vad.catalog import MANIFEST
from vad.errors import InputError

_HEADER_BYTES = 128


def npy_header(rows: int, width: int) -> bytes:
    """The .npy header of a float32 array (rows, width), padded to 128 bytes, so that it can be rewritten in place."""
    start = np.lib.format.magic(1, 0)
    room = _HEADER_BYTES - len(start) - 2
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    return start + room.to_bytes(2, "little") + fields.ljust(room - 1).encode("latin1") + b"\n"


def embedding_path(folder: Path, name: str, crop: int) -> Path:
    """Where the embeddings (S, D) of one video and crop stand. name: [<Class>/]<video>."""
    return folder / f"{name}__{crop}.npy"


class EmbeddingFiles:
    """The arrays of one video, written row by row under temporary names and renamed when all rows are there.

    A video's embeddings never lie in memory as a whole, and a file under its final name is always complete.
    """

    def __init__(self, folder: Path, name: str, crops: Sequence[int], width: int) -> None:
        """width: D. Raises InputError if the folder cannot be written."""
        self._width = width
        self._rows = dict.fromkeys(crops, 0)
        self._final = {crop: embedding_path(folder, name, crop) for crop in crops}
        self._temporary = {crop: path.with_name(f".{path.name}.part") for crop, path in self._final.items()}
        self._open: dict[int, Any] = {}
        try:
            for crop, path in self._temporary.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open[crop] = path.open("wb")
                self._open[crop].write(npy_header(0, width))
        except OSError as error:
            self.abandon()
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None

    def append(self, crop: int, row: np.ndarray) -> None:
        """Add the embedding (D,) float32 of the crop's next snippet."""
        try:
            self._open[crop].write(row.astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise InputError(f"{self._temporary[crop]}: cannot be written ({error.strerror})") from None
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
                file.write(npy_header(snippets, self._width))
                file.close()
                os.replace(self._temporary[crop], self._final[crop])
            except OSError as error:
                raise InputError(f"{self._final[crop]}: cannot be written ({error.strerror})") from None
        self._open.clear()
        return snippets

    def abandon(self) -> None:
        """Close and remove what is unfinished; nothing if `commit` went through."""
        for crop, file in self._open.items():
            with contextlib.suppress(OSError):
                file.close()
                self._temporary[crop].unlink(missing_ok=True)
        self._open.clear()


@dataclass
class Record:
    """One line of the manifest: what became of one video."""

    video: str  # path below --video_dir
    name: str  # [<Class>/]<video>, what its files are called after
    bytes: int  # size of the video file, by which a replaced video is noticed
    outcome: str = "failed"  # "ok", "short" (written, but the container promised more frames), "failed"
    reason: str = ""  # a sentence where the outcome is not "ok"
    frames: int = 0  # decoded
    promised: int | None = None  # by the container
    snippets: int = 0  # S
    crops: list[int] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)  # modality, tail, event switches, precision
    encoder: str = ""  # fingerprint of the weights
    weights: str = ""  # in words


class Manifest:
    """`<save_dir>/manifest.jsonl`: a line is appended for every finished or failed video; its last line counts."""

    def __init__(self, folder: Path) -> None:
        """Read what is there. A line that a killed run left torn is as if it were not there."""
        self.path = folder / MANIFEST
        self.exists = self.path.is_file()
        self.records: dict[str, Record] = {}
        self.torn = 0
        lines = self.path.read_bytes().splitlines() if self.exists else []
        for line in lines:
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                self.torn += bool(line.strip())
                continue
            self.records[record.name] = record

    def append(self, record: Record) -> None:
        """Add a line in one write, so that a kill tears at most this line and several processes do not mix theirs."""
        self.records[record.name] = record
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        with self.path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())

    def create(self) -> None:
        """Make an empty manifest where there is none, which says that the folder's embeddings are ours."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise InputError(f"--save_dir {self.path.parent}: cannot be written ({error.strerror})") from None

    def finished(self, name: str, size: int, crops: Sequence[int]) -> bool:
        """Whether a video of this size has its files of these crops, all of them recorded and in place."""
        record = self.records.get(name)
        return (
            record is not None
            and record.outcome != "failed"
            and record.bytes == size
            and set(crops) <= set(record.crops)
            and all(embedding_path(self.path.parent, name, crop).is_file() for crop in crops)
        )
