"""Embed videos: one loop over decoder processes and encoders, and a resumable run over a folder."""

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
from extracting.job.files import RESUME, EmbeddingFile, embedding_path
from extracting.job.manifest import FINE, Manifest, Record, differences
from extracting.video.config import Config, Job
from extracting.video.decode import DecodeResult
from extracting.video.process import Decoder
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError

ATTEMPTS = 2  # for a video whose decoder process crashes
MAX_NOT_FINITE = 3  # a run stops if this many first videos all have embeddings that are not finite


@dataclass(frozen=True)
class Output:
    """Output folder and encoder of one modality."""

    modality: str
    folder: Path
    settings: Mapping[str, Any]  # provenance recorded in the manifest
    hash: str  # fingerprint of the weights
    note: str  # description of the weights
    encoder: Encoder | None = None  # None if encoders run on other machines

    @classmethod
    def of(cls, modality: str, folder: Path, encoder: Encoder, config: Config) -> Output:
        """Return the output of an encoder in this process."""
        # another OpenCV version may decode the same file to different pixels
        settings = {**config.provenance(modality), "opencv": cv2.__version__, **encoder.provenance()}
        return cls(modality, folder, settings, encoder.hash, encoder.note, encoder)

    def record(self, job: Job, result: DecodeResult) -> Record:
        """Return the manifest record of a video, without its snippets and crops."""
        decoded = {name: getattr(result, name) for name in ("outcome", "reason", "frames", "declared", "fps")}
        settings = dict(self.settings)
        if not job.is_recording:
            settings.pop("recording_fps", None)  # affects recordings only
        if not job.path.is_dir():
            settings.pop("folder_fps", None)  # affects the sound of frame folders only
        if job.snippets is not None:
            settings["image_snippets"] = job.snippets  # sound of another S is removed
        provenance = {"settings": settings, "encoder": self.hash, "weights": self.note}
        return Record(job.video, job.name, job.size, **decoded, **provenance)


Result = tuple[Job, str, Record] | None  # job, modality, manifest record; None: one more snippet
Decoders = dict[Decoder, dict[str, EmbeddingFile]]  # decoder → files of its video, by modality


def run(jobs: Sequence[Job], outputs: Mapping[str, Output], config: Config) -> Generator[Result]:
    """Decode and embed videos. Yield a record per finished video and modality, and None per snippet.

    outputs: by modality, image before event. If a decoder process crashes, its video is decoded once more;
    after a second crash its outcome is `decoder_died`. No partial file is left under a final name.
    """
    waiting, decoders, files = deque(jobs), {}, []
    batches = {m: Batch(out.encoder, m, config.crops) for m, out in outputs.items()}
    try:
        while waiting or decoders:
            while waiting and len(decoders) < config.workers:
                opened = _open_files(waiting.popleft(), outputs, config, files)
                decoders[_start_decoder(opened, config)] = opened
            for decoder in wait(list(decoders)):
                message, *content = decoder.receive()
                if message in batches:
                    if decoder.receive_into(batches[message].slot()):
                        batches[message].add(decoders[decoder][message], *content)
                        if message == decoder.job.modalities[0]:
                            yield None
                        continue
                    message, content = "end", [decoder.exit_result()]
                retry = _end(decoder, message, content[0], decoders.pop(decoder))
                if retry:
                    waiting.appendleft(retry)
                elif config.strict and content[0].outcome != "ok":
                    _discard_unfinished(waiting, decoders)
                    break
            yield from finish(files, outputs, config)
        for batch in batches.values():
            batch.flush()
        yield from finish(files, outputs, config)
    finally:
        for decoder in decoders:
            decoder.close()
        for file in files:
            file.discard()


def _open_files(
    job: Job, outputs: Mapping[str, Output], config: Config, files: list[EmbeddingFile]
) -> dict[str, EmbeddingFile]:
    """Open a video's files. Each is added to `files` at once, so that it is removed after an error."""
    opened = {}
    for modality in job.modalities:
        out = outputs[modality]
        maps = config.save_events and modality == "event"
        files.append(EmbeddingFile(out.folder, job, modality, config.crops, out.encoder.embed_dim, maps))
        opened[modality] = files[-1]
    return opened


def _start_decoder(opened: Mapping[str, EmbeddingFile], config: Config) -> Decoder:
    (job,) = {file.job for file in opened.values()}
    return Decoder(job, config, opened["event"].maps_path if "event" in opened else None)


def _end(decoder: Decoder, message: str, content: Any, opened: Mapping[str, EmbeddingFile]) -> Job | None:
    """Handle a decoder's last message. Return its job if it is to be tried again, else None."""
    job = decoder.job
    decoder.close()
    if message == "stop":
        raise InputError(f"{content}. {RESUME}")
    if message == "bug":
        raise RuntimeError(f"the decoder process raised an exception for {job.path}:\n{content}")
    if content.outcome == "decoder_died":
        if job.attempt < ATTEMPTS:
            for file in opened.values():
                file.discard()
            return replace(job, attempt=job.attempt + 1)
        content = replace(content, reason=f"{content.reason}; {ATTEMPTS} attempts failed")
    for file in opened.values():
        file.result = content
    return None


def _discard_unfinished(waiting: deque[Job], decoders: Decoders) -> None:
    """Leave the videos that are not fully decoded to a later run."""
    waiting.clear()
    for decoder, opened in decoders.items():
        decoder.close()
        for file in opened.values():
            file.discard()
    decoders.clear()


def finish(files: list[EmbeddingFile], outputs: Mapping[str, Output], config: Config) -> Iterator[Result]:
    """Write complete files under their final names, yield their records, and remove them from `files`."""
    for file in [file for file in files if file.complete]:
        result = file.finish()
        record = outputs[file.modality].record(file.job, result)
        if record.embedded:
            record.snippets, record.crops = file.snippets, list(config.crops)
            record.events = file.maps_path is not None
        yield file.job, file.modality, record
    files[:] = [file for file in files if not file.discarded]


@dataclass
class Summary:
    """Records of a run by modality, and its speed."""

    done: dict[str, list[Record]]  # videos processed by this run, embedded or not
    before: dict[str, list[Record]]  # videos finished by earlier runs
    frames: int = 0  # decoded
    seconds: float = 0.0
    stopped: bool = False  # by --strict

    @property
    def problems(self) -> list[tuple[str, Record]]:
        """Return (modality, record) of every video that is not as it should be, including those finished earlier."""
        return [
            (modality, record)
            for records in (self.done, self.before)
            for modality, videos in records.items()
            for record in videos
            if record.outcome not in FINE
        ]


@dataclass
class ExtractionRun:
    """Resumable run over a folder of videos: finished videos are skipped, every other one is recorded.

    Raises InputError if a folder contains embeddings with another provenance, unless `overwrite` is set.
    """

    jobs: Sequence[Job]
    outputs: Mapping[str, Output]
    config: Config
    overwrite: bool = False
    todo: list[Job] = field(default_factory=list)  # to decode
    rejected: list[Job] = field(default_factory=list)  # unusable, without opening them

    def __post_init__(self) -> None:
        self.manifests = {m: Manifest(out.folder) for m, out in self.outputs.items()}
        self.summary = Summary({m: [] for m in self.outputs}, {m: [] for m in self.outputs})
        if not self.overwrite:
            for out in self.outputs.values():
                self._check_folder(out)
        for job in self.jobs:
            missing = [m for m in self.outputs if not self._finished_before(job, m)]
            if missing:
                (self.rejected if job.outcome else self.todo).append(replace(job, modalities=tuple(missing)))

    def _check_folder(self, out: Output) -> None:
        """Raise InputError if the folder contains embeddings of another or unknown provenance."""
        manifest = self.manifests[out.modality]
        provenance = {**out.settings, "encoder": out.hash}
        for record in manifest.records.values():
            before = {**record.settings, "encoder": record.encoder}
            for name in differences(before, provenance) if record.has_files else ():
                raise InputError(
                    f"{out.folder} contains embeddings made with {name} = {before[name]} ({record.name}), but this"
                    f" run uses {provenance[name]}. Choose another folder, or give --overwrite to replace them."
                )
        for job in () if manifest.exists else self.jobs:
            for path in (embedding_path(out.folder, job.name, crop) for crop in self.config.crops):
                if not job.outcome and path.exists():
                    raise InputError(
                        f"{path} exists, but no {manifest.path.name} records how it was made. Choose another"
                        " folder, or give --overwrite to replace it."
                    )

    def _finished_before(self, job: Job, modality: str) -> bool:
        manifest, events = self.manifests[modality], modality == "event" and self.config.save_events
        if job.outcome or self.overwrite or not manifest.finished(job, self.config.crops, events):
            return False
        self.summary.before[modality].append(manifest.records[job.name])
        return True

    def run(self, results: Generator[Result] | None = None) -> Summary:
        """Embed the remaining videos. After Ctrl-C only complete files remain, and the same call resumes.

        results: results of `todo` computed by other machines, or None to compute them in this process.
        """
        started = time.perf_counter()
        for manifest in self.manifests.values():
            manifest.create()
        for job in self.rejected:
            for modality in job.modalities:
                result = DecodeResult(job.outcome, job.reason)
                self._write_record(modality, self.outputs[modality].record(job, result))
        if not (self.config.strict and self.summary.problems):
            self._invalidate()
            self._embed(results or run(self.todo, self.outputs, self.config), started)
        self.summary.stopped = self.config.strict and bool(self.summary.problems)
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _invalidate(self) -> None:
        """Record that files to be overwritten are invalid, so that no run uses them after a kill."""
        for job in self.todo if self.overwrite else ():
            for modality in job.modalities:
                manifest, out = self.manifests[modality], self.outputs[modality]
                before = manifest.records.get(job.name)
                if before and before.has_files and not out.record(job, DecodeResult("ok")).same_provenance(before):
                    reason = "an --overwrite with other settings was stopped before this video was finished"
                    manifest.append(replace(before, outcome="unfinished", reason=reason))

    def _embed(self, results: Generator[Result], started: float) -> None:
        remaining = {job.video: len(job.modalities) for job in self.todo}
        bar = tqdm(
            total=len(remaining), unit="video", desc=" + ".join(self.outputs), miniters=0, mininterval=0.5,
            disable=not remaining,
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
                self._write_record(modality, record)
                remaining[job.video] -= 1
                bar.update(remaining[job.video] == 0)

    def _write_record(self, modality: str, record: Record) -> None:
        self.manifests[modality].write_record(record)
        done = self.summary.done[modality]
        done.append(record)
        if len(done) == MAX_NOT_FINITE and {record.outcome for record in done} == {"not_finite"}:
            raise InputError(
                f"the encoder ({self.outputs[modality].note}) returned NaN or infinite embeddings for every"
                " video. Check the weights; with --precision fp16, try bf16 or fp32."
            )
