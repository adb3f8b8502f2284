"""Snippets of videos, in whatever mix they come → embedding files and a manifest record a video.

This is the half of a run that does not know who hands out videos. A process that has its own jobs needs no more than

    embedder = Embedder(targets, crops)
    for item in stream(job, settings, crops):
        embedder.receive(job, item)
    embedder.flush()
    for target, record in embedder.complete():
        target.note(record)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from extracting.encoder import Encoder
from extracting.event_files import EventMapFile, event_map_path
from extracting.manifest import Manifest, Record
from extracting.outputs import EmbeddingFiles, embedding_path
from extracting.pipeline import Batches, default_batch_size
from extracting.stream import Again, Ended, Item, Job, Opened, Settings, Snippet
from vad.catalog import snippet_count


class Target:
    """One modality of a run: what embeds it, and the folder that its files and its manifest are in."""

    def __init__(
        self, modality: str, folder: Path, encoder: Encoder, settings: Settings, *, save_events: bool = False
    ) -> None:
        """save_events: write the event maps too, for modality "event"."""
        self.modality, self.folder, self.encoder = modality, folder, encoder
        self.save_events = save_events and modality == "event"
        self.tail = settings.tail
        self.recorded = settings.recorded(modality, encoder.precision)

    @cached_property
    def manifest(self) -> Manifest:
        """That of the folder, read at the first use: encoder processes have no need of it."""
        return Manifest(self.folder)

    def finished(self, job: Job, crops: Sequence[int]) -> bool:
        """Whether nothing is left to do for a video."""
        return self.manifest.finished(job, crops, self.save_events)

    def record(self, job: Job, ended: Ended) -> Record:
        """The manifest's line on a video without embeddings; `Embedder.complete` adds them."""
        return Record(
            job.video,
            job.name,
            job.size,
            outcome=ended.outcome,
            reason=ended.reason,
            frames=ended.frames,
            promised=ended.promised,
            settings=self.recorded,
            encoder=self.encoder.hash,
            weights=self.encoder.note,
        )

    def note(self, record: Record) -> None:
        """Settle what an earlier run left of the video, then add the record to the manifest.

        Crops of an earlier run stay if they were made alike from the same file, else they are removed.
        """
        before = self.manifest.records.get(record.name)
        if before is not None and not record.leaves(before):
            if before.written and record.written and record.made_like(before):
                record.crops = sorted({*before.crops, *record.crops})
                record.events = record.events or before.events
            else:
                for crop in set(before.crops) - set(record.crops):
                    embedding_path(self.folder, record.name, crop).unlink(missing_ok=True)
                if before.events and not record.events:
                    event_map_path(self.folder, record.name).unlink(missing_ok=True)
        self.manifest.append(record)


    def void(self, job: Job) -> None:
        """Note that what is there of a video, made otherwise, no longer counts.

        Else a later run with the old settings would take the mixture that a killed one leaves for finished.
        """
        before = self.manifest.records.get(job.name)
        if before is not None and before.written and not self.record(job, Ended(0, None)).made_like(before):
            reason = "was about to be made again with other settings"
            self.manifest.append(replace(before, outcome="unfinished", reason=reason))


class _Output:
    """One video's files of one modality, between its first snippet and their final names."""

    def __init__(self, job: Job, target: Target, crops: Sequence[int]) -> None:
        self.job, self.target, self.crops = job, target, list(crops)
        self.files: EmbeddingFiles | None = None
        self.maps: EventMapFile | None = None
        self.promised = 0  # frames, by the container
        self.awaited = 0  # embeddings that the encoder still owes
        self.ended: Ended | None = None
        self._dropped = False

    def expect(self, snippet: Snippet) -> None:
        """A snippet goes to the encoder: its embeddings are awaited, its event map is written."""
        if self.files is None:
            self.files = EmbeddingFiles(self.target.folder, self.job.name, self.crops, self.target.encoder.embed_dim)
            if self.target.save_events:
                expected = snippet_count(self.promised, self.target.tail)
                self.maps = EventMapFile(self.target.folder, self.job.name, expected)
        if self.maps is not None:
            self.maps.append(snippet.counts)
        self.awaited += len(self.crops)

    def take(self, crop: int, row: np.ndarray) -> None:
        """Sink of `Batches`: one embedding (D,) has come back."""
        if not self._dropped:
            self.files.append(crop, row)
            self.awaited -= 1

    @property
    def complete(self) -> bool:
        return self.ended is not None and (self.awaited == 0 or not self.ended.usable)

    def drop(self) -> None:
        """Remove what is unfinished; embeddings that still come back are ignored."""
        self._dropped = True
        for files in (self.files, self.maps):
            if files is not None:
                files.abandon()

    def finish(self) -> Record:
        """Give the files their names; returns the record."""
        record = self.target.record(self.job, self.ended)
        if not self.ended.usable:
            self.drop()
            return record
        if self.maps is not None:
            self.maps.commit()
            record.events = True
        record.snippets, record.crops = self.files.commit(), self.crops
        return record


class Embedder:
    """Sends snippets to the encoder of their modality, in batches that span crops, snippets and videos."""

    def __init__(self, targets: Sequence[Target], crops: Sequence[int], batch_size: int | None = None) -> None:
        """batch_size: forward passes at once; None: what suits each encoder."""
        self._targets = {target.modality: target for target in targets}
        self._crops = crops
        self._batches = {
            name: Batches(target.encoder, name, crops, batch_size or default_batch_size(target.encoder))
            for name, target in self._targets.items()
        }
        self._outputs: dict[tuple[str, str], _Output] = {}

    def receive(self, job: Job, item: Item) -> None:
        """Take the next item of a video's stream. What it holds is used before this returns."""
        if isinstance(item, Again):
            for modality in job.modalities:
                if output := self._outputs.pop((job.video, modality), None):
                    output.drop()
        elif isinstance(item, Opened):
            for modality in job.modalities:
                self._output(job, modality).promised = item.promised or 0
        elif isinstance(item, Ended):
            for modality in job.modalities:
                self._output(job, modality).ended = item
        else:
            output = self._output(job, item.modality)
            output.expect(item)
            self._batches[item.modality].add(item, output.take)

    def _output(self, job: Job, modality: str) -> _Output:
        key = (job.video, modality)
        if key not in self._outputs:
            self._outputs[key] = _Output(job, self._targets[modality], self._crops)
        return self._outputs[key]

    def flush(self) -> None:
        """Encode what waits for its batch to fill."""
        for batches in self._batches.values():
            batches.flush()

    def complete(self) -> Iterator[tuple[Target, Record]]:
        """Finish the videos whose embeddings are all there: files under final names, a record to note at once."""
        for key, output in list(self._outputs.items()):
            if output.complete:
                record = output.finish()
                del self._outputs[key]
                yield output.target, record

    def abandon(self) -> None:
        """Remove what is unfinished."""
        for output in self._outputs.values():
            output.drop()
        self._outputs.clear()
