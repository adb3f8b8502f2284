"""The manifest of a folder of embeddings: what became of every video, and how its files were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from extracting.event_files import event_map_path
from extracting.outputs import cannot_write, embedding_path
from extracting.stream import Job
from vad.catalog import MANIFEST
from vad.errors import InputError

# outcome of a video → what it means, in the order of the table that ends a run
OUTCOMES = {
    "ok": "written",
    "short": "written; the container promises more frames than it yields",
    "truncated": "the file ends before its container does; written if it gives a snippet",
    "no_frames": "opens and yields no frame",
    "too_short": "shorter than one snippet",
    "damaged": "decoding broke off with an error",
    "empty": "an empty file",
    "not_video": "does not open as a video",
    "unreadable": "cannot be read",
    "same_name": "another video would write the same files",
    "decoder_died": "the decoder process died, twice",
    "encoder_died": "the encoder process or its machine was lost, twice",
    "time_limit": "no new snippet within --time_limit seconds",
    "unfinished": "being made again; what is there counts no longer",
}


@dataclass
class Record:
    """One line of the manifest: what became of one video."""

    video: str  # path below --video_dir
    name: str  # [<Class>/]<video>, what its files are called after
    bytes: int  # size of the video file, by which a replaced video is noticed
    outcome: str = "failed"  # one of OUTCOMES
    reason: str = ""  # a sentence where the outcome is not "ok"
    frames: int = 0  # decoded
    promised: int | None = None  # by the container
    snippets: int = 0  # S
    crops: list[int] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)  # modality, tail, event switches, precision
    encoder: str = ""  # fingerprint of the weights
    weights: str = ""  # in words
    events: bool = False  # whether its event maps were saved too

    @property
    def written(self) -> bool:
        """Whether it has embeddings that count."""
        return bool(self.crops) and self.outcome != "unfinished"

    def made_like(self, before: Record) -> bool:
        """Whether an earlier record is of the same file under the same settings and weights."""
        return (self.bytes, self.settings, self.encoder) == (before.bytes, before.settings, before.encoder)

    def leaves(self, before: Record) -> bool:
        """Whether this is a failure that does not touch the files which an earlier record tells of.

        So it is with the same video failing for other crops, and with a name that a second video claims.
        """
        harmless = self.outcome == "same_name" or (self.outcome != "unfinished" and self.made_like(before))
        return not self.written and before.written and harmless


class Manifest:
    """`<save_dir>/manifest.jsonl`: a line is appended for every finished or failed video; its last line counts."""

    def __init__(self, folder: Path) -> None:
        """Read what is there. A line that a killed run left torn is as if it were not there."""
        self.path = folder / MANIFEST
        self.exists = self.path.is_file()
        self.records: dict[str, Record] = {}
        self.torn = 0
        try:
            lines = self.path.read_bytes().splitlines() if self.exists else []
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        for line in lines:
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                self.torn += bool(line.strip())
                continue
            self._keep(record)

    def append(self, record: Record) -> None:
        """Add a line in one write, so that a kill tears at most this line and several processes do not mix theirs."""
        self._keep(record)
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else "\n" + line
                # bytes of a file name that are no UTF-8 become JSON's own \udcXX, which is read as the same name
                file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _keep(self, record: Record) -> None:
        before = self.records.get(record.name)
        if before is None or not record.leaves(before):
            self.records[record.name] = record

    def create(self) -> None:
        """Make an empty manifest where there is none, which says that the folder's embeddings are ours."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise InputError(f"{self.path.parent}: cannot be written ({error.strerror}); give another folder") from None

    def finished(self, job: Job, crops: Sequence[int], events: bool = False) -> bool:
        """Whether a video has its files of these crops (and its event maps), all of them recorded and in place."""
        record, folder = self.records.get(job.name), self.path.parent
        return (
            record is not None
            and record.written
            and record.bytes == job.size
            and set(crops) <= set(record.crops)
            and (record.events or not events)
            and all(embedding_path(folder, job.name, crop).is_file() for crop in crops)
            and (not events or event_map_path(folder, job.name).is_file())
        )
