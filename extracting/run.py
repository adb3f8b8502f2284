"""A folder of videos → embedding files: decoding beside encoding, resumed where it stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from extracting.decoders import Decoders, Ended, Job
from extracting.encoder import Encoder
from extracting.outputs import EmbeddingFiles, Manifest, Record, embedding_path
from extracting.pipeline import Batches, Settings, Snippet, default_batch_size
from vad.catalog import SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.errors import InputError


@dataclass
class Summary:
    """What a run did."""

    written: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    reused: int = 0  # videos that were finished before
    seconds: float = 0.0


def find_videos(folder: Path) -> list[Job]:
    """Videos below a folder, by name. A video's class is the folder it lies in, none if it lies at the top.

    Raises InputError for a missing folder, one without videos, or two videos that would share their output files.
    """
    if not folder.is_dir():
        raise InputError(f"--video_dir {folder}: no such folder")
    jobs: dict[str, Job] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        name = path.stem if path.parent == folder else f"{path.parent.name}/{path.stem}"
        if name in jobs:
            raise InputError(f"{jobs[name].path} and {path} would both be written to {name}__0.npy; rename one")
        jobs[name] = Job(path, path.relative_to(folder).as_posix(), name, path.stat().st_size)
    if not jobs:
        raise InputError(f"--video_dir {folder}: holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))})")
    return list(jobs.values())


def check_folder(manifest: Manifest, jobs: Sequence[Job], crops: Sequence[int], made_with: dict[str, Any]) -> None:
    """Raise InputError if the output folder holds embeddings made otherwise than this run makes them.

    made_with: the recorded settings and, under "encoder", the fingerprint of the weights.
    """
    folder = manifest.path.parent
    for record in manifest.records.values():
        if record.outcome == "failed":
            continue
        before = {**record.settings, "encoder": record.encoder}
        for name in sorted(before.keys() | made_with.keys()):
            if before.get(name) != made_with.get(name):
                raise InputError(
                    f"{folder} holds embeddings made with {name} = {before.get(name)} ({record.name}), this run has"
                    f" {made_with.get(name)}; give another --save_dir, or --overwrite to make them again"
                )
    if manifest.exists:
        return
    for job in jobs:
        for path in (embedding_path(folder, job.name, crop) for crop in crops):
            if path.exists():
                raise InputError(
                    f"{path} is there, but no {manifest.path.name} says how it was made; give another --save_dir,"
                    " or --overwrite to replace it"
                )


class VideoInFlight:
    """A video between its first snippet and its files: counts what was sent to the encoder and what came back."""

    def __init__(self, job: Job, files: EmbeddingFiles) -> None:
        self.job, self.files = job, files
        self.awaited = 0  # embeddings
        self.ended: Ended | None = None

    def take(self, crop: int, row: np.ndarray) -> None:
        """Sink of `Batches`: one embedding (D,) has come back."""
        self.files.append(crop, row)
        self.awaited -= 1

    @property
    def complete(self) -> bool:
        return self.ended is not None and self.awaited == 0


class FolderRun:
    """One run over a folder of videos. `run()` writes every video that is not finished and returns a Summary."""

    def __init__(
        self,
        jobs: Sequence[Job],
        save_dir: Path,
        modality: str,
        encoder: Encoder,
        settings: Settings,
        crops: Sequence[int],
        *,
        batch_size: int | None = None,
        workers: int = 2,
        overwrite: bool = False,
    ) -> None:
        """Raises InputError if save_dir holds embeddings made otherwise, unless they are to be overwritten."""
        self._save_dir, self._crops = save_dir, list(crops)
        self._encoder, self._modality, self._settings = encoder, modality, settings
        self._batches = Batches(encoder, modality, crops, batch_size or default_batch_size(encoder))
        self._workers = workers
        self.manifest = Manifest(save_dir)
        self._recorded = settings.recorded(modality, encoder.precision)
        if not overwrite:
            check_folder(self.manifest, jobs, crops, {**self._recorded, "encoder": encoder.hash})
        self.todo = [job for job in jobs if overwrite or not self.manifest.finished(job.name, job.size, crops)]
        self.summary = Summary(reused=len(jobs) - len(self.todo))
        self._in_flight: dict[str, VideoInFlight] = {}

    def run(self) -> Summary:
        """Decode, encode, write. Ctrl-C leaves whole files only; the same call then continues."""
        cv2.setNumThreads(1)  # frames are small and decoders run side by side: OpenCV's own threads only cost
        threads = torch.get_num_threads()
        if self._encoder.embed_dim < 512 and self._encoder.device.type == "cpu":
            # its products are too short to share: two threads took twice one thread's processor time
            torch.set_num_threads(1)
        self.manifest.create()
        started = time.perf_counter()
        decoders = Decoders(self.todo, self._modality, self._settings, self._crops, self._workers)
        some = {"miniters": 0, "mininterval": 0.5, "disable": not self.todo}
        bar = tqdm(total=len(self.todo), unit="video", desc=self._modality, **some)
        frames = 0
        try:
            with bar, decoders:
                for job, item in decoders:
                    self._receive(job, item)
                    frames += SNIPPET_FRAMES if isinstance(item, Snippet) else 0
                    rate = frames / (time.perf_counter() - started)
                    bar.set_postfix_str(f"{frames} frames, {rate:.0f} frames/s", refresh=False)
                    bar.update(self._finish_complete())
                self._batches.flush()
                bar.update(self._finish_complete())
        finally:
            torch.set_num_threads(threads)
            for video in self._in_flight.values():
                video.files.abandon()
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _receive(self, job: Job, item: Snippet | Ended) -> None:
        if job.name not in self._in_flight:
            files = EmbeddingFiles(self._save_dir, job.name, self._crops, self._encoder.embed_dim)
            self._in_flight[job.name] = VideoInFlight(job, files)
        video = self._in_flight[job.name]
        if isinstance(item, Ended):
            video.ended = item
        else:
            video.awaited += len(self._crops)
            self._batches.add(item, video.take)

    def _finish_complete(self) -> int:
        """Finish the videos whose embeddings are all back; returns how many."""
        complete = [video for video in self._in_flight.values() if video.complete]
        for video in complete:
            self._finish(video)
            del self._in_flight[video.job.name]
        return len(complete)

    def _finish(self, video: VideoInFlight) -> None:
        job, ended = video.job, video.ended
        record = Record(job.video, job.name, job.size, frames=ended.frames, promised=ended.promised)
        record.settings, record.encoder, record.weights = self._recorded, self._encoder.hash, self._encoder.note
        if ended.failure:
            video.files.abandon()
            record.reason = ended.failure
            self.summary.failed.append(record)
        else:
            record.snippets = video.files.commit()
            record.crops, record.outcome = self._crops, "ok"
            if ended.promised and ended.frames < ended.promised:
                record.outcome = "short"
                record.reason = f"the container promises {ended.promised} frames, {ended.frames} could be decoded"
            self.summary.written.append(record)
        self._settle_older_crops(record)
        self.manifest.append(record)

    def _settle_older_crops(self, record: Record) -> None:
        """Crops of an earlier run stay if they were made alike from the same file, else they are removed."""
        before = self.manifest.records.get(record.name)
        if before is None or before.outcome == "failed":
            return
        alike = before.bytes == record.bytes and before.encoder == record.encoder
        if alike and before.settings == record.settings and record.outcome != "failed":
            record.crops = sorted({*before.crops, *record.crops})
            return
        for crop in set(before.crops) - set(record.crops):
            embedding_path(self._save_dir, record.name, crop).unlink(missing_ok=True)
