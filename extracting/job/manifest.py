"""The manifest of a folder of embeddings: what became of every video, and how its files were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from extracting.config import Job
from extracting.job.files import cannot_write, embedding_path, event_map_path
from vad.datasets import MANIFEST
from vad.files import InputError

# outcome of a video → what it means, in the order of the table that ends a run
OUTCOMES = {
    "ok": "embedded",
    "short": "embedded; the container declares more than could be decoded",
    "no_frames": "opens and gives no frame",
    "too_short": "shorter than one snippet",
    "damaged": "decoding broke off with an error, or a frame of a folder is missing",
    "conversion_failed": "this OpenCV hands out frames that it did not write",
    "not_finite": "an embedding holds NaN or infinite numbers",
    "empty": "an empty file",
    "not_video": "does not open as a video",
    "unreadable": "cannot be read, or its name is too long or no text",
    "same_name": "another video would write the same files",
    "decoder_died": "the decoder process died, twice",
    "time_limit": "no new snippet within --time_limit seconds",
    "unfinished": "being made again with other settings; what is there counts no longer",
}
EMBEDDED = ("ok", "short")


@dataclass
class Record:
    """One line of the manifest: what became of one video in one modality."""

    video: str  # path below --video_dir
    name: str  # [<Class>/]<video>, what its files are called after
    bytes: int  # size of the video file, by which a replaced video is noticed
    outcome: str  # one of OUTCOMES
    reason: str = ""  # a sentence where the outcome is not "ok"
    frames: int = 0  # decoded
    declared: int | None = None  # by the container
    fps: float | None = None
    snippets: int = 0  # S
    crops: list[int] = field(default_factory=list)  # those on disk
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoder: str = ""  # fingerprint of the weights
    weights: str = ""  # in words
    events: bool = False  # whether its event maps are on disk

    @property
    def embedded(self) -> bool:
        """Whether the video has embeddings."""
        return self.outcome in EMBEDDED

    @property
    def counts(self) -> bool:
        """Whether there are files made with these settings."""
        return bool(self.crops) and self.outcome != "unfinished"

    def made_like(self, other: Record) -> bool:
        """Whether both are of the same file under the same settings and weights."""
        same = (self.bytes, self.encoder) == (other.bytes, other.encoder)
        return same and not differences(self.settings, other.settings)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings of two records that differ. One that an older version did not record counts as equal."""
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


class Manifest:
    """`<save_dir>/manifest.jsonl`: a line for every finished or failed video; its last line counts."""

    def __init__(self, folder: Path) -> None:
        """Read what is there. A line that a killed run left torn is as if it were not there."""
        self.folder, self.path = folder, folder / MANIFEST
        self.records: dict[str, Record] = {}
        self.exists = self.path.is_file()
        try:
            lines = self.path.read_bytes().splitlines() if self.exists else []
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        for line in lines:
            try:
                record = _read(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue
            self.records[record.name] = record

    def create(self) -> None:
        """Make an empty manifest where there is none: the folder's embeddings are ours."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def append(self, record: Record) -> None:
        """Add a line in one write: a kill tears this line at most, and several runs do not mix theirs."""
        self.records[record.name] = record
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                # bytes of a file name that are no UTF-8 become JSON's own \udcXX, read as the same name
                file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def note(self, record: Record) -> None:
        """Add a line and settle what an earlier run left of the video.

        Crops made of the same file with the same settings stay and are counted; others are removed.
        """
        before = self.records.get(record.name)
        if before is not None and before.counts and record.made_like(before):
            record.crops = sorted({*before.crops, *record.crops})
            record.events = record.events or before.events
            record.snippets = record.snippets or before.snippets
        elif before is not None and record.outcome != "same_name":
            for crop in set(before.crops) - set(record.crops):
                embedding_path(self.folder, record.name, crop).unlink(missing_ok=True)
            if before.events and not record.events:
                event_map_path(self.folder, record.name).unlink(missing_ok=True)
        self.append(record)

    def finished(self, job: Job, crops: Sequence[int], events: bool) -> bool:
        """Whether a video has its files of these crops (and its event maps), recorded and in place."""
        record = self.records.get(job.name)
        return (
            record is not None
            and record.embedded
            and record.bytes == job.size
            and set(crops) <= set(record.crops)
            and (record.events or not events)
            and all(embedding_path(self.folder, job.name, crop).is_file() for crop in crops)
            and (not events or event_map_path(self.folder, job.name).is_file())
        )


def _read(line: dict[str, Any]) -> Record:
    """A record of this or an earlier version, whose names are translated."""
    if "promised" in line:
        line["declared"] = line.pop("promised")
    if line["outcome"] == "truncated":  # a file cut short
        line["outcome"] = "short" if line["crops"] else "no_frames"
    known = {field.name for field in fields(Record)}
    return Record(**{name: value for name, value in line.items() if name in known})
