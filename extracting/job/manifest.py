"""Manifest of an embedding folder: the outcome and provenance of every video."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from extracting.job.files import cannot_write, embedding_path, event_map_path
from extracting.video.config import Job
from vad.datasets import MANIFEST
from vad.files import InputError

# outcome of a video → meaning, in the order of the table printed at the end of a run
OUTCOMES = {
    "ok": "embedded",
    "short": "embedded; the container declares more frames than can be decoded",
    "silent": "the video has no sound; its file is zero",
    "no_frames": "the file opens but contains no frames, or no events",
    "too_short": "shorter than one snippet",
    "damaged": "decoding stopped with an error, a frame of a folder is missing, or an event is invalid",
    "conversion_failed": "OpenCV returned frames that it could not convert",
    "not_finite": "an embedding contains NaN or infinite values",
    "empty": "an empty file",
    "not_video": "cannot be opened as a video or recording",
    "unreadable": "cannot be read, or the name is too long or not valid UTF-8",
    "same_name": "another video would write the same files",
    "decoder_died": "the decoder process crashed in every attempt",
    "time_limit": "no new snippet within --time_limit seconds",
    "other_length": "its frames do not give the number of snippets of its image embeddings",
    "unfinished": "an --overwrite with other settings was stopped; the files on disk are invalid",
}
EMBEDDED = ("ok", "short", "silent")
FINE = ("ok", "silent")  # nothing is wrong with the video


@dataclass
class Record:
    """One line of the manifest: the result for one video and modality."""

    video: str  # path relative to --video_dir
    name: str  # [<Class>/]<video>, the base name of its files
    bytes: int  # size of the video file, to detect that it was replaced
    outcome: str  # a key of OUTCOMES
    reason: str = ""  # explains any outcome but "ok", or is a note
    frames: int = 0  # decoded
    declared: int | None = None  # frame count stored in the container
    fps: float | None = None
    snippets: int = 0  # S
    crops: list[int | None] = field(default_factory=list)  # crops on disk; [None] for sound, which has none
    settings: Mapping[str, Any] = field(default_factory=dict)
    encoder: str = ""  # fingerprint of the weights
    weights: str = ""  # description of the weights
    events: bool = False  # whether its event maps are on disk

    @property
    def embedded(self) -> bool:
        """Return whether the video was embedded."""
        return self.outcome in EMBEDDED

    @property
    def has_files(self) -> bool:
        """Return whether there are valid files made with these settings."""
        return bool(self.crops) and self.outcome != "unfinished"

    def same_provenance(self, other: Record) -> bool:
        """Return whether both records have the same video file, settings and weights."""
        same = (self.bytes, self.encoder) == (other.bytes, other.encoder)
        return same and not differences(self.settings, other.settings)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that differ. A setting missing in an older record counts as equal."""
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


class Manifest:
    """`<save_dir>/manifest.jsonl`: one line per finished or failed video. The last line of a video is valid."""

    def __init__(self, folder: Path) -> None:
        """Read the existing manifest, if any. A line that a killed run left incomplete is ignored."""
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
        """Create an empty manifest if there is none. It marks the folder as written by an extraction."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def append(self, record: Record) -> None:
        """Append a line in a single write, so that several runs do not mix their lines."""
        self.records[record.name] = record
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                # bytes of a file name that are not UTF-8 become \udcXX in JSON, which is read back unchanged
                file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def write_record(self, record: Record) -> None:
        """Append a line and merge it with the files that an earlier run made of the video.

        Crops of the same video file, settings and weights are kept and added; others are removed.
        """
        before = self.records.get(record.name)
        if before is not None and before.has_files and record.same_provenance(before):
            record.crops = sorted({*before.crops, *record.crops})
            record.events = record.events or before.events
            record.snippets = record.snippets or before.snippets
        elif before is not None and record.outcome != "same_name":
            for crop in set(before.crops) - set(record.crops):
                embedding_path(self.folder, record.name, crop).unlink(missing_ok=True)
            if before.events and not record.events:
                event_map_path(self.folder, record.name).unlink(missing_ok=True)
        self.append(record)

    def finished(self, job: Job, crops: Sequence[int | None], events: bool) -> bool:
        """Return whether the files of these crops, and the event maps if needed, are recorded and on disk."""
        record = self.records.get(job.name)
        return (
            record is not None
            and record.embedded
            and record.bytes == job.size
            and job.snippets in (None, record.snippets)
            and set(crops) <= set(record.crops)
            and (record.events or not events)
            and all(embedding_path(self.folder, job.name, crop).is_file() for crop in crops)
            and (not events or event_map_path(self.folder, job.name).is_file())
        )


def _read(line: dict[str, Any]) -> Record:
    """Return the record in a line of this or an earlier version."""
    if "promised" in line:
        line["declared"] = line.pop("promised")
    if line["outcome"] == "truncated":  # an earlier name
        line["outcome"] = "short" if line["crops"] else "no_frames"
    known = {field.name for field in fields(Record)}
    return Record(**{name: value for name, value in line.items() if name in known})
