"""A folder of videos → embedding files: decoding beside encoding, resumed where it stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import torch
from tqdm import tqdm

from extracting.decoders import Decoders
from extracting.embedder import Embedder, Target
from extracting.manifest import Record
from extracting.outputs import embedding_path, sweep
from extracting.share import Engine, Order
from extracting.stream import Ended, Job, Settings, Snippet
from vad.catalog import SNIPPET_FRAMES
from vad.errors import InputError

TIME_LIMIT = 120.0  # seconds without a new snippet


@dataclass
class Summary:
    """What a run did. A record counts once for each modality."""

    done: dict[str, list[Record]]  # modality → videos of this run, written or not
    before: dict[str, list[Record]]  # modality → videos that were finished before
    frames: int = 0  # decoded for embeddings
    seconds: float = 0.0
    stopped: bool = False  # by --strict

    @property
    def odd(self) -> list[tuple[str, Record]]:
        """(modality, record) of every video whose outcome is not "ok", also of those finished before."""
        both = [(m, r) for records in (self.done, self.before) for m, found in records.items() for r in found]
        return [(modality, record) for modality, record in both if record.outcome != "ok"]


def check_folder(target: Target, jobs: Sequence[Job], crops: Sequence[int]) -> None:
    """Raise InputError if a target's folder holds embeddings made otherwise than this run makes them."""
    manifest, folder = target.manifest, target.folder
    made_with = {**target.recorded, "encoder": target.encoder.hash}
    for record in manifest.records.values():
        if not record.written:
            continue
        before = {**record.settings, "encoder": record.encoder}
        for name in sorted(before.keys() | made_with.keys()):
            if before.get(name) != made_with.get(name):
                raise InputError(
                    f"{folder} holds embeddings made with {name} = {before.get(name)} ({record.name}), this run has"
                    f" {made_with.get(name)}; give another folder, or --overwrite to make them again"
                )
    if manifest.exists:
        return
    for job in jobs:
        for path in (embedding_path(folder, job.name, crop) for crop in crops):
            if path.exists():
                raise InputError(
                    f"{path} is there, but no {manifest.path.name} says how it was made; give another folder,"
                    " or --overwrite to replace it"
                )


class FolderRun:
    """One run over the videos of a folder, for one modality or both from one pass.

    `run()` makes for every target what is not finished there and returns a Summary.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        targets: Sequence[Target],
        settings: Settings,
        crops: Sequence[int],
        *,
        batch_size: int | None = None,
        workers: int = 2,
        time_limit: float = TIME_LIMIT,
        overwrite: bool = False,
        strict: bool = False,
        engine: Engine | None = None,
    ) -> None:
        """strict: stop at the first video that is not "ok". engine: encoders elsewhere; None: the targets' own, here.

        Raises InputError if a target's folder holds embeddings made otherwise, unless they are to be overwritten.
        """
        self.targets, self.settings, self.crops = targets, settings, crops
        self._batch_size, self._workers, self._time_limit, self._strict = batch_size, workers, time_limit, strict
        self._engine, self._overwrite = engine, overwrite
        self.summary = Summary({t.modality: [] for t in targets}, {t.modality: [] for t in targets})
        if not overwrite:
            for target in targets:
                check_folder(target, jobs, crops)
        self.todo: list[Job] = []  # to decode
        self.refused: list[Job] = []  # seen to be no good without opening
        for job in jobs:
            self._sort(job)

    def _sort(self, job: Job) -> None:
        missing = []
        for target in self.targets:
            if not job.outcome and not self._overwrite and target.finished(job, self.crops):
                self.summary.before[target.modality].append(target.manifest.records[job.name])
            else:
                missing.append(target.modality)
        if missing:
            (self.refused if job.outcome else self.todo).append(replace(job, modalities=tuple(missing)))

    def run(self) -> Summary:
        """Decode, encode, write. Ctrl-C leaves whole files only; the same call then continues."""
        cv2.setNumThreads(1)  # frames are small: OpenCV's own threads only cost
        threads = torch.get_num_threads()
        if all(t.encoder.embed_dim < 512 and t.encoder.device.type == "cpu" for t in self.targets):
            # its products are too short to share: two threads took twice one thread's processor time
            torch.set_num_threads(1)
        for target in self.targets:
            target.manifest.create()
            sweep(target.folder)
        started = time.perf_counter()
        try:
            self._refuse()
            if not self.summary.stopped:
                self._void()
                if self._engine is None:
                    self._embed(started)
                else:
                    self._embed_elsewhere(self._engine, started)
        finally:
            for target in self.targets:
                sweep(target.folder)  # Ctrl-C may come where a file is open that nobody knows of yet
            torch.set_num_threads(threads)
            self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _refuse(self) -> None:
        for job in self.refused:
            for target in self.targets:
                self._note(target, target.record(job, Ended(0, None, job.outcome, job.reason, usable=False)))

    def _void(self) -> None:
        """What --overwrite replaces counts no longer, so that a run that is killed continues without the flag."""
        for job in self.todo if self._overwrite else ():
            for target in self.targets:
                if target.modality in job.modalities:
                    target.void(job)

    def _embed(self, started: float) -> None:
        embedder = Embedder(self.targets, self.crops, self._batch_size)
        names = [target.modality for target in self.targets]
        limits = {"time_limit": self._time_limit, "modalities": names}
        decoders = Decoders(self.todo, self.settings, self.crops, self._workers, **limits)
        left = {job.video: len(job.modalities) for job in self.todo}
        bar = self._bar()
        try:
            with bar, decoders:
                for job, item in decoders:
                    embedder.receive(job, item)
                    if isinstance(item, Snippet) and item.modality == job.modalities[0]:
                        self.summary.frames += SNIPPET_FRAMES
                    self._tell(bar, started)
                    bar.update(self._finish(embedder, left))
                    if self.summary.stopped:
                        break
                embedder.flush()  # stopped or not: what is decoded to its end is kept
                bar.update(self._finish(embedder, left))
        finally:
            embedder.abandon()

    def _bar(self) -> tqdm:
        names = " + ".join(target.modality for target in self.targets)
        some = {"miniters": 0, "mininterval": 0.5, "disable": not self.todo}
        return tqdm(total=len(self.todo), unit="video", desc=names, **some)

    def _tell(self, bar: tqdm, started: float) -> None:
        rate = self.summary.frames / (time.perf_counter() - started)
        bar.set_postfix_str(f"{self.summary.frames} frames, {rate:.0f} frames/s", refresh=False)

    def _embed_elsewhere(self, engine: Engine, started: float) -> None:
        """The same by encoders in other processes: they write the files, the manifest is ours alone."""
        order = Order(
            [(t.modality, t.folder.absolute(), t.encoder.parts(), t.save_events) for t in self.targets],
            self.settings,
            self.crops,
            self._batch_size,
            self._workers,
            self._time_limit,
        )
        targets = {target.modality: target for target in self.targets}
        left = {job.video: len(job.modalities) for job in self.todo}
        with self._bar() as bar, contextlib.closing(engine(self.todo, order)) as results:
            for job, modality, result in results:
                record = targets[modality].record(job, result) if isinstance(result, Ended) else result
                self._note(targets[modality], record)
                left[job.video] -= 1
                if left[job.video] == 0:
                    self.summary.frames += SNIPPET_FRAMES * record.snippets
                    self._tell(bar, started)
                    bar.update()
                if self.summary.stopped:
                    break

    def _finish(self, embedder: Embedder, left: dict[str, int]) -> int:
        """Note the videos that are complete; returns how many are so for every modality."""
        finished = 0
        for target, record in embedder.complete():
            self._note(target, record)
            left[record.video] -= 1
            finished += left[record.video] == 0
        return finished

    def _note(self, target: Target, record: Record) -> None:
        target.note(record)
        self.summary.done[target.modality].append(record)
        self.summary.stopped |= self._strict and record.outcome != "ok"
