"""Cut the sound of a video into one segment per snippet: what is heard while its 16 frames are shown."""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from extracting.audio.tracks import Piece, Track
from extracting.video.frames import VideoError, snippet_times

SAMPLE_RATE = 16_000  # of Wav2CLIP
MIN_SAMPLES = 512  # one Fourier window; a snippet of less than 32 ms hears what follows it
MAX_SECONDS = 60.0  # of a snippet; longer ones come from damaged time stamps


def cut(path: Path, track: Track, snippets: int) -> list[np.ndarray] | None:
    """Return the segments (n,) float32 of S snippets, 16 kHz mono, or None for a video without sound.

    A segment lasts from the first frame of its snippet to the first of the next one. Where there is no sound it
    is zero. Raises VideoError for damaged time stamps. path: for error messages.
    """
    times = snippet_times(track.seconds, snippets)
    longest = np.diff(times).max()
    if longest > MAX_SECONDS:
        reason = f"a snippet lasts {longest:.0f} seconds, so its time stamps are damaged; re-encode the video"
        raise VideoError(path, "damaged", reason)
    bounds = np.rint(times * SAMPLE_RATE).astype(int)
    waveform = np.zeros(bounds[-1] + MIN_SAMPLES, np.float32)
    for piece in track.pieces:
        place(waveform, piece)
    waveform[bounds[-1] :] = 0
    if not waveform.any():
        return None
    return [waveform[a : max(b, a + MIN_SAMPLES)] for a, b in pairwise(bounds)]


def place(waveform: np.ndarray, piece: Piece) -> None:
    """Resample a piece and write it into a waveform that begins with the video; what lies outside is cut off."""
    common = gcd(piece.rate, SAMPLE_RATE)
    samples = np.concatenate(piece.chunks)
    if piece.rate != SAMPLE_RATE:
        samples = resample_poly(samples, SAMPLE_RATE // common, piece.rate // common)
    start = round(piece.start * SAMPLE_RATE)
    samples = samples[max(0, -start) :]
    target = waveform[max(0, start) :][: len(samples)]
    target[:] = samples[: len(target)]
