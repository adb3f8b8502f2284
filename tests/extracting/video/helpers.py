"""What the tests of decoding share: small videos, folders of frames, the release's frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from extracting.video.frames import Video


def write_video(
    path: Path, frames: int, seed: int = 0, codec: str = "MJPG", fps: float = 25
) -> Path:
    """A small real video file (64×48) with something moving in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (64, 48))
    assert writer.isOpened()
    for picture in moving_pictures(frames, seed):
        writer.write(picture)
    writer.release()
    return path


def write_frames(folder: Path, names: list[str], seed: int = 0) -> Path:
    """A folder of frames of these names, in this order, with something moving in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, moving_pictures(len(names), seed), strict=True):
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, picture)[1].tobytes())
    return folder


def moving_pictures(number: int, seed: int) -> list[np.ndarray]:
    """Pictures (48, 64, 3) of which no two are equal."""
    still = np.random.RandomState(seed).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    return [np.roll(still, (t // 32, 2 * t), axis=(0, 1)) for t in range(number)]


def outcome_of(path: Path, tail: str = "whole") -> tuple[str, int, int | None]:
    """Outcome of a video that has snippets, its decoded frames and the declared ones."""
    video = Video(path, tail)
    for _ in video.snippets():
        pass
    return video.verdict()[0], video.frames, video.declared


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
