"""What the extraction tests share: frames and weights rebuilt from their seeds, small videos, a command run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from extracting.embedder import Target
from extracting.encoder import Encoder
from extracting.run import FolderRun
from extracting.stream import Settings
from extracting.videos import find_videos

BOTH = ("image", "event")
ROOT = Path(__file__).resolve().parent.parent.parent


def golden_frames(seed: int = 5) -> np.ndarray:
    """The 48 BGR frames (48, 120, 160, 3) of extraction.npz, by the recipe of golden/README.md."""
    h, w = 120, 160
    y, x = np.mgrid[0:h, 0:w]
    base = np.stack([x * 255 // w, y * 255 // h, (x + y) % 256], -1)
    random = np.random.RandomState(seed)
    frames = []
    for t in range(48):
        frame = np.roll(base, 3 * t, axis=1) + random.randint(-12, 13, (h, w, 3))
        c = (5 * t) % (w - w // 5)
        frame[h // 4 : h // 2, c : c + w // 5] = (20, 200, 240)
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return np.stack(frames)


def golden_weights(arrays: np.lib.npyio.NpzFile) -> dict[str, Tensor]:
    """Weights of a clip_*.npz tower, by the recipe of golden/README.md."""
    config, shapes = json.loads(str(arrays["config"])), json.loads(str(arrays["shapes"]))
    random = np.random.RandomState(config["weight_seed"])
    weights = {}
    for name in sorted(shapes):
        x = random.standard_normal(shapes[name]).astype(np.float32)
        if x.ndim >= 2:
            x *= np.float32(0.7 / np.sqrt(np.prod(x.shape[1:])))
        else:
            x = 1 + np.float32(0.1) * x if name.endswith("weight") else np.float32(0.1) * x
        weights[name] = torch.from_numpy(x)
    return weights


def golden_inputs(arrays: np.lib.npyio.NpzFile) -> tuple[np.ndarray, np.ndarray]:
    """RGB images (n, 224, 224, 3) and clamped event counts (2, 224, 224) of a clip_*.npz."""
    config = json.loads(str(arrays["config"]))
    random = np.random.RandomState(config["input_seed"])
    images = random.randint(0, 256, (config["images"], 224, 224, 3)).astype(np.uint8)
    y, x = np.mgrid[:224, :224]
    images[1] = ((y + x) % 256)[..., None]
    counts = np.minimum(random.randint(0, 16, (2, 224, 224)), 10).astype(np.uint8)
    return images, counts


def write_video(path: Path, frames: int, seed: int = 0) -> Path:
    """A small real video file (MJPG in AVI, 64×48) with something moving in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    random = np.random.RandomState(seed)
    still = random.randint(0, 256, (48, 64, 3)).astype(np.uint8)
    for t in range(frames):
        writer.write(np.roll(still, 2 * t, axis=1))
    writer.release()
    return path


def command(script: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of extracting/ as a user would, without a network to fall back on."""
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def make(
    videos: Path, out: Path, encoders: dict[str, Encoder], modalities: tuple[str, ...] = BOTH, **options: object
) -> FolderRun:
    """A run into out/image and out/event."""
    settings, events = options.pop("settings", Settings(event_threshold=3)), options.pop("save_events", False)
    targets = [Target(m, out / m, encoders[m], settings, save_events=events) for m in modalities]
    run = FolderRun(find_videos(videos), targets, settings, (0, 5), **options)
    run.run()
    return run


def contents(out: Path) -> dict[str, bytes]:
    """Every array below a folder, by name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.np?"))}
