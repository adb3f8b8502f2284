"""Videos → embedding files: one loop over decoder processes and encoders, and the resumable run over it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from extracting.clip.batch import Batch
from extracting.clip.encoder import Encoder
from extracting.config import Config, Job
from extracting.job.files import EmbeddingFile, embedding_path
from extracting.job.manifest import Manifest, Record, differences
from extracting.video.decode import Ended
from extracting.video.process import Decoder
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError

ATTEMPTS = 2  # at a video whose decoder process dies
HOPELESS = 3  # videos in a row, from the first on, whose embeddings are not finite


@dataclass(frozen=True)
class Output:
    """Where the embeddings of one modality go, and what makes them."""

    modality: str
    folder: Path
    settings: Mapping[str, Any]  # as the manifest keeps them
    hash: str  # fingerprint of the weights
    note: str  # the weights in words
    encoder: Encoder | None = None  # None where encoders run on other machines

    @classmethod
    def of(cls, modality: str, folder: Path, encoder: Encoder, config: Config) -> Output:
        """The output of an encoder of this process."""
        # another OpenCV may decode other pixels from the same file
        settings = {**config.recorded(modality), "opencv": cv2.__version__, **encoder.recorded()}
        return cls(modality, folder, settings, encoder.hash, encoder.note, encoder)

    def record(self, job: Job, ended: Ended) -> Record:
        """The manifest's line on a video, without embeddings."""
        said = {name: getattr(ended, name) for name in ("outcome", "reason", "frames", "declared", "fps")}
        made = {"settings": self.settings, "encoder": self.hash, "weights": self.note}
        return Record(job.video, job.name, job.size, **said, **made)


Result = tuple[Job, str, Record] | None  # job, modality, line of the manifest; None: one more snippet
Decoders = dict[Decoder, dict[str, EmbeddingFile]]  # the files of a decoder's video, by modality


def run(jobs: Sequence[Job], outputs: Mapping[str, Output], config: Config) -> Generator[Result]:
    """Decode, embed and write videos; yields their records as files are complete, and None a snippet.

    outputs: by modality, image before event. A decoder process that dies takes nothing with it: its video
    is tried once more, then it is `decoder_died`. However this ends, no half file is left under its name.
    """
    waiting, decoders, files = deque(jobs), {}, []
    batches = {m: Batch(out.encoder, m, config.crops) for m, out in outputs.items()}
    try:
        while waiting or decoders:
            while waiting and len(decoders) < config.workers:
                opened = _open_files(waiting.popleft(), outputs, config, files)
                decoders[_start_decoder(opened, config)] = opened
            for decoder in wait(list(decoders)):
                kind, *rest = decoder.receive()
                if kind in batches:
                    if decoder.receive_into(batches[kind].slot()):
                        batches[kind].add(decoders[decoder][kind], *rest)
                        if kind == decoder.job.modalities[0]:
                            yield None
                        continue
                    kind, rest = "end", [decoder.died()]
                again = _end(decoder, kind, rest[0], decoders.pop(decoder))
                if again:
                    waiting.appendleft(again)
                elif config.strict and rest[0].outcome != "ok":
                    _give_up(waiting, decoders)
                    break
            yield from _finish(files, outputs, config)
        for batch in batches.values():
            batch.flush()
        yield from _finish(files, outputs, config)
    finally:
        for decoder in decoders:
            decoder.close()
        for file in files:
            file.drop()


def _open_files(
    job: Job, outputs: Mapping[str, Output], config: Config, files: list[EmbeddingFile]
) -> dict[str, EmbeddingFile]:
    """Open a video's files; they are in `files` from the moment that there is one to remove."""
    opened = {}
    for modality in job.modalities:
        out = outputs[modality]
        maps = config.save_events and modality == "event"
        files.append(EmbeddingFile(out.folder, job, modality, config.crops, out.encoder.embed_dim, maps))
        opened[modality] = files[-1]
    return opened


def _start_decoder(opened: Mapping[str, EmbeddingFile], config: Config) -> Decoder:
    (job,) = {file.job for file in opened.values()}
    return Decoder(job, config, opened["event"].maps if "event" in opened else None)


def _end(decoder: Decoder, kind: str, said: Any, opened: Mapping[str, EmbeddingFile]) -> Job | None:
    """Take a decoder's last word; returns its job where that is to be tried again."""
    job = decoder.job
    decoder.close()
    if kind == "stop":
        raise InputError(f"{said}; what was finished is kept, the same command continues")
    if kind == "bug":
        raise RuntimeError(f"the decoder process failed at {job.path}:\n{said}")
    if said.outcome == "decoder_died":
        if job.attempt < ATTEMPTS:
            for file in opened.values():
                file.drop()
            return replace(job, attempt=job.attempt + 1)
        said = replace(said, reason=f"{said.reason}, tried {ATTEMPTS} times")
    for file in opened.values():
        file.ended = said
    return None


def _give_up(waiting: deque[Job], decoders: Decoders) -> None:
    """Leave the videos that are not decoded to their end for another run."""
    waiting.clear()
    for decoder, opened in decoders.items():
        decoder.close()
        for file in opened.values():
            file.drop()
    decoders.clear()


def _finish(
    files: list[EmbeddingFile], outputs: Mapping[str, Output], config: Config
) -> Iterator[Result]:
    """Give complete files their names and yield their records; forget them and those dropped."""
    for file in [file for file in files if file.complete]:
        ended = file.finish()
        record = outputs[file.modality].record(file.job, ended)
        if record.embedded:
            record.snippets, record.crops = file.snippets, list(config.crops)
            record.events = file.maps is not None
        yield file.job, file.modality, record
    files[:] = [file for file in files if not file.dropped]


@dataclass
class Summary:
    """What a run did. A record counts once for each modality."""

    done: dict[str, list[Record]]  # by modality: videos of this run, embedded or not
    before: dict[str, list[Record]]  # by modality: videos that were finished before
    frames: int = 0  # decoded
    seconds: float = 0.0
    stopped: bool = False  # by --strict

    @property
    def problems(self) -> list[tuple[str, Record]]:
        """(modality, record) of every video that is not "ok", also of those finished before."""
        return [
            (modality, record)
            for records in (self.done, self.before)
            for modality, found in records.items()
            for record in found
            if record.outcome != "ok"
        ]


@dataclass
class ExtractionRun:
    """A folder of videos as one run: what is finished stays, the rest is made, every video is recorded.

    Raises InputError if a folder holds embeddings that were made otherwise, unless `overwrite`.
    """

    jobs: Sequence[Job]
    outputs: Mapping[str, Output]
    config: Config
    overwrite: bool = False
    todo: list[Job] = field(default_factory=list)  # to decode
    refused: list[Job] = field(default_factory=list)  # seen to be no good without opening

    def __post_init__(self) -> None:
        self.manifests = {m: Manifest(out.folder) for m, out in self.outputs.items()}
        self.summary = Summary({m: [] for m in self.outputs}, {m: [] for m in self.outputs})
        if not self.overwrite:
            for out in self.outputs.values():
                self._check_folder(out)
        for job in self.jobs:
            missing = [m for m in self.outputs if not self._finished_before(job, m)]
            if missing:
                (self.refused if job.outcome else self.todo).append(replace(job, modalities=tuple(missing)))

    def _check_folder(self, out: Output) -> None:
        """Raise InputError if an output's folder holds embeddings made otherwise than this run makes them."""
        manifest = self.manifests[out.modality]
        made_with = {**out.settings, "encoder": out.hash}
        for record in manifest.records.values():
            before = {**record.settings, "encoder": record.encoder}
            for name in differences(before, made_with) if record.counts else ():
                raise InputError(
                    f"{out.folder} holds embeddings made with {name} = {before[name]} ({record.name}), this"
                    f" run has {made_with[name]}; give another folder, or --overwrite to make them again"
                )
        for job in () if manifest.exists else self.jobs:
            for path in (embedding_path(out.folder, job.name, crop) for crop in self.config.crops):
                if not job.outcome and path.exists():
                    raise InputError(
                        f"{path} is there, but no {manifest.path.name} says how it was made; give another"
                        " folder, or --overwrite to replace it"
                    )

    def _finished_before(self, job: Job, modality: str) -> bool:
        manifest, events = self.manifests[modality], modality == "event" and self.config.save_events
        if job.outcome or self.overwrite or not manifest.finished(job, self.config.crops, events):
            return False
        self.summary.before[modality].append(manifest.records[job.name])
        return True

    def run(self, results: Generator[Result] | None = None) -> Summary:
        """Make what is missing. Ctrl-C leaves whole files only; the same call then continues.

        results: of the same jobs and outputs from another machine; None: made by this process.
        """
        started = time.perf_counter()
        for manifest in self.manifests.values():
            manifest.create()
        for job in self.refused:
            for modality in job.modalities:
                self._note(job, modality, self.outputs[modality].record(job, Ended(job.outcome, job.reason)))
        if not (self.config.strict and self.summary.problems):
            self._void()
            self._embed(results or run(self.todo, self.outputs, self.config), started)
        self.summary.stopped = self.config.strict and bool(self.summary.problems)
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _void(self) -> None:
        """Note that what --overwrite replaces counts no longer, so that a killed run continues without it."""
        for job in self.todo if self.overwrite else ():
            for modality in job.modalities:
                manifest, out = self.manifests[modality], self.outputs[modality]
                before = manifest.records.get(job.name)
                if before and before.counts and not out.record(job, Ended("ok")).made_like(before):
                    reason = "was about to be made again with other settings"
                    manifest.append(replace(before, outcome="unfinished", reason=reason))

    def _embed(self, results: Generator[Result], started: float) -> None:
        left = {job.video: len(job.modalities) for job in self.todo}
        bar = tqdm(
            total=len(left), unit="video", desc=" + ".join(self.outputs), miniters=0, mininterval=0.5,
            disable=not left,
        )  # fmt: skip
        with bar, contextlib.closing(results):
            for result in results:
                if result is None:
                    self.summary.frames += SNIPPET_FRAMES
                    rate = self.summary.frames / (time.perf_counter() - started)
                    bar.set_postfix_str(f"{self.summary.frames} frames, {rate:.0f} frames/s", refresh=False)
                    bar.update(0)
                    continue
                job, modality, record = result
                self._note(job, modality, record)
                left[job.video] -= 1
                bar.update(left[job.video] == 0)

    def _note(self, job: Job, modality: str, record: Record) -> None:
        self.manifests[modality].note(record)
        done = self.summary.done[modality]
        done.append(record)
        if len(done) == HOPELESS and {record.outcome for record in done} == {"not_finite"}:
            raise InputError(
                f"the encoder ({self.outputs[modality].note}) gives NaN or infinite embeddings for every"
                " video: are the weights damaged? With --precision fp16 try bf16 or fp32"
            )
