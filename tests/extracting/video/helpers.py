"""Shared by the decoding tests: small videos, frame folders, and the frames of the golden arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from extracting.video.frames import Video


def write_video(
    path: Path, frames: int, seed: int = 0, codec: str = "MJPG", fps: float = 25
) -> Path:
    """Write a small real video file (64×48) with moving content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (64, 48))
    assert writer.isOpened()
    for picture in moving_pictures(frames, seed):
        writer.write(picture)
    writer.release()
    return path


def write_frames(folder: Path, names: list[str], seed: int = 0) -> Path:
    """Write a folder of frames with these names, in this order, with moving content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, moving_pictures(len(names), seed), strict=True):
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, picture)[1].tobytes())
    return folder


def moving_pictures(number: int, seed: int) -> list[np.ndarray]:
    """Return frames (48, 64, 3) that all differ."""
    still = np.random.RandomState(seed).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    return [np.roll(still, (t // 32, 2 * t), axis=(0, 1)) for t in range(number)]


def outcome_of(path: Path, tail: str = "whole") -> tuple[str, int, int | None]:
    """Return the outcome, decoded frames and declared frames of a video that has snippets."""
    video = Video(path, tail)
    for _ in video.snippets():
        pass
    return video.check_completeness()[0], video.frames, video.declared


def golden_frames(seed: int = 5) -> np.ndarray:
    """Return the 48 BGR frames (48, 120, 160, 3) of extraction.npz, see golden/README.md."""
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
