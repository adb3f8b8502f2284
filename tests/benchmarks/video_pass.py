"""Shared by the extraction benchmarks: synthetic videos, and one pass from videos to embedding files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from extracting.job.run import Output, run
from extracting.video.config import ALL_CROPS, Config, Job


class NoEncoder:
    """An encoder that returns zeros immediately, to time everything else."""

    device, embed_dim, batch_size, hash, note = torch.device("cpu"), 8, 256, "none", "none"

    def provenance(self) -> dict[str, Any]:
        """Return no settings."""
        return {}

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """Return zeros (n, C, 8)."""
        return torch.zeros(len(frames), len(crops), 8)

    def events(self, counts: Tensor, _: Tensor, crops: Sequence[int]) -> Tensor:
        """Return zeros (n, C, 8)."""
        return torch.zeros(len(counts), len(crops), 8)


def draw(path: Path, frames: int) -> Path:
    """Write a 320×240 video at 25 frames/s: a moving texture and a faster rectangle."""
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
    videos: Sequence[Path], workers: int, encoders: Mapping[str, Any], crops: Sequence[int] = ALL_CROPS
) -> tuple[int, float]:
    """Extract videos with one encoder per modality; return frames and seconds, process start included."""
    jobs = [Job(path, path.name, path.stem, path.stat().st_size, tuple(encoders)) for path in videos]
    config = Config(crops=tuple(crops), workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        outputs = {m: Output.of(m, Path(folder, m), e, config) for m, e in encoders.items()}
        started = time.perf_counter()
        frames = 16 * sum(result is None for result in run(jobs, outputs, config))
        return frames, time.perf_counter() - started
