"""Shared by the tests of sound: small videos with a sound track, written by PyAV, and .wav files."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from extracting.audio.segments import cut
from extracting.audio.tracks import read_track
from extracting.video.config import Job

FPS = 25
MILLISECOND = Fraction(1, 1000)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def clicks(seconds: float, at: Sequence[float], rate: int = 16_000) -> np.ndarray:
    """Return silence (n,) int16 with a burst of noise of 10 ms at some times."""
    samples = np.zeros(round(seconds * rate), np.int16)
    for time in at:
        burst = np.random.RandomState(0).randint(-20_000, 20_000, rate // 100)
        samples[round(time * rate) :][: len(burst)] = burst
    return samples


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """Write samples (n,) or (n, 2) int16 or uint8 with the standard library."""
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.ndim, samples.itemsize, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def write_media(
    path: Path,
    times: Sequence[float],
    *tracks: np.ndarray,
    rate: int = 16_000,
    start: float = 0.0,
    codec: str = "pcm_s16le",
    channels: int = 1,
    video: str = "mjpeg",
) -> Path:
    """Write a video with frames at these times, and tracks of mono int16 samples that begin at `start` seconds."""
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install .[sound]")
    path.parent.mkdir(parents=True, exist_ok=True)
    tick = Fraction(1, FPS) if path.suffix in (".avi", ".ts") else MILLISECOND  # they have a constant rate
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=FPS)
        pictures.width, pictures.height = 64, 48
        pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        pictures.codec_context.time_base = tick
        streams = [container.add_stream(codec, rate=rate, layout=LAYOUTS[channels]) for _ in tracks]
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        for stream, samples in zip(streams, tracks, strict=True):
            for first in range(0, len(samples), 1024):
                block = np.repeat(samples[first : first + 1024], channels)[None]
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout=LAYOUTS[channels])
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(start * rate) + first
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def steady(frames: int) -> list[float]:
    """Return the times of frames at 25 frames per second."""
    return [k / FPS for k in range(frames)]


def job_of(path: Path, snippets: int, tails: tuple[str, ...] = ("whole",)) -> Job:
    """Return the job of a video with S snippets."""
    return Job(path, path.name, path.stem, path.stat().st_size, snippets=snippets, tails=tails)


def segments_of(path: Path, snippets: int, fps: float | None = None) -> list[np.ndarray] | None:
    """Return the segments of a video with S snippets."""
    return cut(path, read_track(job_of(path, snippets), fps), snippets)


def heard(segments: Sequence[np.ndarray]) -> list[int]:
    """Return the snippets with at least 1 % of the largest energy."""
    energy = np.array([float(np.square(segment).sum()) for segment in segments])
    return np.flatnonzero(energy > energy.max() / 100).tolist()
