"""What the extraction benches share: drawn videos, and one pass from video files through any encoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from extracting.decoders import Decoders
from extracting.pipeline import Batches
from extracting.stream import Job, Settings, Snippet

CROPS = tuple(range(10))
MODALITIES = ("image", "event")


def draw(path: Path, frames: int) -> Path:
    """A 320×240 video at 25 frames a second: noise that drifts, a rectangle that runs."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    random = np.random.RandomState(0)
    coarse = random.randint(0, 256, (24, 32, 3)).astype(np.uint8)
    scene = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    for t in range(frames):
        frame = np.roll(scene, t // 4, axis=1)
        left = (5 * t) % 260
        frame[90:150, left : left + 50] = (20, 200, 240)
        writer.write(frame)
    writer.release()
    return path


def pass_through(
    videos: list[Path],
    workers: int,
    encoders: dict[str, object],
    at_end: Callable[[list[int]], None] | None = None,
    *,
    crops: Sequence[int] = CROPS,
    batch_size: int = 256,
) -> tuple[int, float]:
    """Frames and seconds of one pass over videos, from the first snippet to the last embedding. encoders: by modality.

    at_end is told the decoder processes while they still run.
    """
    jobs = [Job(path, path.name, path.stem, path.stat().st_size, tuple(encoders)) for path in videos]
    batches = {name: Batches(encoder, name, crops, batch_size) for name, encoder in encoders.items()}
    frames, start = 0, None
    with Decoders(jobs, Settings(), crops, workers, modalities=tuple(encoders)) as decoders:
        for job, item in decoders:
            if isinstance(item, Snippet):
                start = start or time.perf_counter()
                batches[item.modality].add(item, lambda crop, row: None)
                frames += 16 * (item.modality == job.modalities[0])
        if at_end is not None:
            at_end(decoders.pids)
    for batch in batches.values():
        batch.flush()
    return frames, time.perf_counter() - start
