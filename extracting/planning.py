"""What a run would do and how long it would take, measured for a few seconds on this machine; writes nothing."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from extracting.decoders import Decoders
from extracting.embedder import Target
from extracting.frames import HEIGHT, WIDTH
from extracting.pipeline import Batches, default_batch_size
from extracting.run import FolderRun
from extracting.stream import Ended, Job, Snippet
from vad.catalog import SNIPPET_FRAMES, snippet_count

_PASSES = {"image": SNIPPET_FRAMES, "event": 1}  # of the encoder, a snippet and crop
_SECONDS = 2.0  # of each measurement, unless one batch takes longer


@dataclass
class Work:
    """What is to be done for one modality."""

    new: int = 0  # videos that are not there, or not with these crops
    again: int = 0  # videos that failed before
    finished: int = 0
    snippets: int = 0  # as far as containers promise frames
    passes: int = 0  # of the encoder
    bytes: int = 0  # of embeddings
    passes_per_second: float = 0.0  # measured


@dataclass
class Plan:
    """What a run would do."""

    work: dict[str, Work]  # modality → what
    frames: int = 0  # to decode, as promised
    silent: int = 0  # videos whose container promises nothing: their snippets are not counted
    unusable: list[tuple[Job, Ended]] = field(default_factory=list)  # videos seen to be no good
    frames_per_second: float = 0.0  # of one decoder process, measured
    event_bytes: int = 0  # of saved event maps, judged by those of the measured video
    seconds: float = 0.0


def make_plan(run: FolderRun, workers: int, batch_size: int | None) -> Plan:
    """Count what is left of a run, measure decoder and encoders, and put both together."""
    plan = Plan({target.modality: Work() for target in run.targets})
    usable = _ask_containers(run, plan, workers)
    for target in run.targets:
        _count(target, run, plan.work[target.modality], dict(usable))
    plan.silent = sum(promised is None for _, promised in usable)
    plan.frames = sum(promised or 0 for _, promised in usable)
    if not usable:
        return plan
    bytes_a_snippet = _measure_decoding(run, [job for job, _ in usable], plan)
    encoding = 0.0
    for target in run.targets:
        work = plan.work[target.modality]
        if work.passes:
            work.passes_per_second = _measure_encoding(target, run.crops, batch_size)
            encoding += work.passes / work.passes_per_second
        if target.save_events:
            plan.event_bytes = round(work.snippets * bytes_a_snippet)
    decoding = plan.frames / (plan.frames_per_second * min(workers, os.cpu_count() or 1))
    beside = any(target.encoder.device.type != "cpu" for target in run.targets)
    plan.seconds = max(decoding, encoding) if beside else decoding + encoding  # on a CPU they share its cores
    return plan


def _ask_containers(run: FolderRun, plan: Plan, workers: int) -> list[tuple[Job, int | None]]:
    """Jobs that open, each with the frames its container promises."""
    usable: list[tuple[Job, int | None]] = []
    plan.unusable = [(job, Ended(0, None, job.outcome, job.reason, usable=False)) for job in run.refused]
    with Decoders(run.todo, run.settings, run.crops, workers, kind="probe") as decoders:
        for job, item in tqdm(decoders, total=len(run.todo), desc="containers", unit="video", disable=not run.todo):
            if isinstance(item, Ended) and item.usable:
                usable.append((job, item.promised))
            elif isinstance(item, Ended):
                plan.unusable.append((job, item))
    return usable


def _count(target: Target, run: FolderRun, work: Work, promised: dict[Job, int | None]) -> None:
    work.finished = len(run.summary.before[target.modality])
    for job in (job for job in (*run.todo, *run.refused) if target.modality in job.modalities):
        record = target.manifest.records.get(job.name)
        failed_before = record is not None and record.bytes == job.size and not record.written
        work.again += failed_before
        work.new += not failed_before
        snippets = snippet_count(promised.get(job) or 0, run.settings.tail)
        work.snippets += snippets
        work.passes += snippets * len(run.crops) * _PASSES[target.modality]
        work.bytes += (128 + 4 * target.encoder.embed_dim * snippets) * len(run.crops) if snippets else 0


def _measure_decoding(run: FolderRun, jobs: Sequence[Job], plan: Plan) -> float:
    """Decode some of the videos for a moment; returns the compressed bytes of one event map."""
    modalities = tuple(target.modality for target in run.targets)
    sizes: list[int] = []
    frames, started = 0, time.perf_counter()
    some = [replace(job, modalities=modalities) for job in jobs[:: max(1, len(jobs) // 8)]]
    with Decoders(some, run.settings, run.crops, 1) as decoders:
        for job, item in decoders:
            if frames == 0:
                started = time.perf_counter()  # a process takes its time to start, once a run
            if not isinstance(item, Snippet):
                continue
            frames += SNIPPET_FRAMES * (item.modality == job.modalities[0])
            if item.counts is not None and len(sizes) < 16:
                sizes.append(len(zlib.compress(item.counts.tobytes(), 1)))
            if time.perf_counter() - started > _SECONDS:
                break
    plan.frames_per_second = max(frames, 1) / (time.perf_counter() - started)
    return float(np.mean(sizes)) if sizes else 0.0


def _measure_encoding(target: Target, crops: Sequence[int], batch_size: int | None) -> float:
    """Forward passes a second over made-up snippets, cropping included."""
    random = np.random.default_rng(0)
    if target.modality == "image":
        snippet = Snippet("image", random.integers(0, 256, (SNIPPET_FRAMES, HEIGHT, WIDTH, 3), np.uint8))
    else:
        counts = random.integers(0, 10, (1, HEIGHT, WIDTH), np.uint8)
        snippet = Snippet("event", counts, np.full(1, 10, np.float32), counts[0])
    size = batch_size or default_batch_size(target.encoder)
    batches = Batches(target.encoder, target.modality, crops[:1], size)
    a_batch = max(1, size // _PASSES[target.modality])
    taken: list[float] = []
    while sum(taken) < _SECONDS:
        started = time.perf_counter()
        for _ in range(a_batch):
            batches.add(snippet, lambda crop, row: None)
        batches.flush()
        taken.append(time.perf_counter() - started)
    # the first batch warms up, unless it is the only one
    return a_batch * _PASSES[target.modality] / float(np.median(taken[1:] or taken))


def tell(plan: Plan, targets: Sequence[Target], workers: int) -> list[str]:
    """The plan in sentences."""
    said = ["dry run: nothing is written"]
    for target in targets:
        work = plan.work[target.modality]
        said.append(
            f"{target.modality} → {target.folder}: {work.new} videos to make, {work.again} that failed before,"
            f" {work.finished} finished"
        )
        said.append(
            f"  {work.snippets:,} snippets · {work.passes:,} forward passes"
            f" · {readable_bytes(work.bytes + plan.event_bytes * target.save_events)} of files"
            + (f" · {work.passes_per_second:,.1f} forward passes/s measured" if work.passes else "")
        )
    if plan.silent:
        said.append(f"{plan.silent} videos do not say how many frames they hold; they are not in these numbers")
    if plan.frames_per_second:
        said.append(
            f"{plan.frames:,} frames promised · {plan.frames_per_second:,.0f} frames/s measured for one of {workers}"
            f" decoder processes · about {readable_time(plan.seconds)} on this machine as it is now"
        )
    return said


def readable_bytes(number: float) -> str:
    """A size in the unit that suits it."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def readable_time(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
