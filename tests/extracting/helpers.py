"""Shared by the extraction tests: small videos, a fake encoder, runs and commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from extracting.job.run import ExtractionRun, Output
from extracting.job.videos import find_videos
from extracting.video.config import Config
from extracting.video.crops import CROP_SIZE, crop_origin, is_mirrored

BOTH = ("image", "event")
ROOT = Path(__file__).resolve().parent.parent.parent


def write_video(path: Path, frames: int, seed: int = 0) -> Path:
    """Write a small real video file (MJPG in AVI, 64×48) with moving content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    still = np.random.RandomState(seed).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    for t in range(frames):
        writer.write(np.roll(still, 2 * t, axis=1))
    writer.release()
    return path


def events_of(video: Path, threshold: int) -> dict[str, np.ndarray]:
    """Return x, y and frame n of the changes between consecutive frames n − 1 and n of a video, at 340×256.

    Plain code: the first and the last frame of a snippet of 16 also form a pair with their neighbour outside it.
    """
    capture, grey = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        blue, green, red = np.moveaxis(cv2.resize(read[1], (340, 256)).astype(np.float32), 2, 0)
        grey.append((red * np.float32(0.2989) + green * np.float32(0.5870)) + blue * np.float32(0.1140))
    found = [np.nonzero(np.abs(grey[n] - grey[n - 1]) > threshold) for n in range(1, len(grey))]
    frames = np.repeat(np.arange(1, len(grey)), [len(y) for y, _ in found])
    return {"x": np.concatenate([x for _, x in found]), "y": np.concatenate([y for y, _ in found]), "n": frames}


class Sums:
    """Fake encoder: exact sums of the pixels in eight stripes, which differ between frames."""

    embed_dim = 8
    hash = "sums"
    note = "sums of pixels in eight stripes"
    device = torch.device("cpu")

    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size = batch_size

    def provenance(self) -> dict[str, Any]:
        return {"precision": "fp32"}

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """Map (n, 16, 256, 340, 3) uint8 to (n, C, 8): sums over stripes of 28 rows."""
        return self._stripes(frames.sum((1, 4), dtype=torch.int64), crops)

    def events(self, counts: Tensor, divisors: Tensor, crops: Sequence[int]) -> Tensor:
        """Map event counts (n, 256, 340) uint8 to (n, C, 8) in the same way; ignore the divisors."""
        return self._stripes(counts, crops)

    def _stripes(self, planes: Tensor, crops: Sequence[int]) -> Tensor:
        rows = []
        for crop in crops:
            top, left = crop_origin(crop)
            view = planes[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
            view = view.flip(2) if is_mirrored(crop) else view
            weights = torch.arange(1, CROP_SIZE + 1)  # a crop and its mirror image have different sums
            rows.append((view.long() * weights).reshape(len(view), 8, -1).sum(2))
        return torch.stack(rows, 1).float()


def outputs_of(
    out: Path, encoders: Mapping[str, Any], config: Config, modalities: Sequence[str] = BOTH
) -> dict[str, Output]:
    """Return outputs that write into out/image and out/event."""
    return {m: Output.of(m, out / m, encoders[m], config) for m in modalities}


def make(
    videos: Path,
    out: Path,
    encoders: Mapping[str, Any] | None = None,
    modalities: Sequence[str] = BOTH,
    overwrite: bool = False,
    **settings: Any,
) -> ExtractionRun:
    """Run into out/image and out/event. Defaults: crops 0 and 5, event threshold 3, `Sums`."""
    config = Config(**{"crops": (0, 5), "event_threshold": 3, "workers": 2, **settings})
    encoders = encoders or dict.fromkeys(BOTH, Sums())
    run = ExtractionRun(find_videos(videos), outputs_of(out, encoders, config, modalities), config, overwrite)
    run.run()
    return run


def command(script: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of extracting/ in its own process, without a GPU."""
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def contents(out: Path) -> dict[str, bytes]:
    """Return the bytes of every array below a folder, by name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.np?"))}


def hidden(out: Path) -> list[str]:
    """Return the names of hidden files, which exist only during a run."""
    return sorted(path.name for path in out.rglob(".*"))
