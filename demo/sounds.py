"""The sound of the synthetic videos: a street, loud everyday noises, and anomalies that can be heard."""

from __future__ import annotations

import io
import wave

import numpy as np
import scipy.fft

from demo.actors import Visit
from demo.scene import WIDTH
from demo.script import FPS, SceneScript

RATE = 16_000  # samples per second
SILENT = 0.1  # part of the videos that have no sound


def record_sound(script: SceneScript, *, anomaly: bool = True) -> np.ndarray | None:
    """Return the sound (n,) int16 of a whole video, or None for a video without sound.

    Without `anomaly`, samples outside the intervals do not change.
    """
    rng = np.random.default_rng([*script.seed, 4])  # the pictures use other random numbers
    if rng.random() < SILENT and script.label != "Scream":  # nothing else shows a scream
        return None
    track = rng.uniform(0.005, 0.02) * _noise(rng, _samples(script.frames), 40, 8000)
    for visit in script.traffic:
        if visit.category == "car":
            _add_car(rng, track, visit, pitch=rng.uniform(45, 80))
    _add_everyday_noises(rng, track)
    wind, gain = _disturbances(rng, len(track))
    for s, e in script.intervals if anomaly and script.label == "Scream" else ():
        track[_samples(s) : _samples(e)] += rng.uniform(0.06, 0.24) * _scream(rng, _samples(e) - _samples(s))
    for visit in script.anomalies if anomaly else ():
        if visit.category == "wreck":
            _add_crash(rng, track, visit)
    return np.round(32767 * gain * np.clip(track + wind, -1, 1)).astype(np.int16)


def wav_file(sound: np.ndarray) -> bytes:
    """Return the content of a .wav file with this sound (n,) int16."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, RATE, len(sound), "NONE", None))
        file.writeframes(sound.astype("<i2").tobytes())
    return content.getvalue()


def _samples(frames: float) -> int:
    return round(frames * RATE / FPS)


def _noise(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    """Return pink noise (n,) between two frequencies in Hz, with standard deviation 1."""
    size = scipy.fft.next_fast_len(n, real=True)
    frequency = scipy.fft.rfftfreq(size, 1 / RATE)
    spectrum = scipy.fft.rfft(rng.standard_normal(size)) / np.sqrt(np.maximum(frequency, low))
    noise = scipy.fft.irfft(spectrum * ((low <= frequency) & (frequency < high)), size)[:n]
    return noise / noise.std()


def _tone(pitch: np.ndarray, harmonics: int) -> np.ndarray:
    """Return a tone (n,) of a pitch (n,) in Hz, with harmonics that fall as 1/k."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))


def _fade(n: int) -> np.ndarray:
    """Return an envelope (n,) that rises within 30 ms and falls within 30 ms."""
    ramp = np.arange(1, n + 1) / (0.03 * RATE)
    return np.minimum(1, np.minimum(ramp, ramp[::-1]))


def _seconds(rng: np.random.Generator, shortest: float, longest: float) -> int:
    return int(RATE * rng.uniform(shortest, longest))


def _add(track: np.ndarray, start: int, noise: np.ndarray) -> None:
    """Add a noise to the track from sample `start` on; its end may be cut."""
    part = track[start : start + len(noise)]
    part += noise[: len(part)]


def _add_car(rng: np.random.Generator, track: np.ndarray, visit: Visit, pitch: float) -> None:
    """Add the hum of a car while it is in the picture, louder near its centre."""
    first, last = max(0, visit.waypoints[0][0]), visit.waypoints[-1][0]
    start, end = _samples(first), min(_samples(last), len(track))
    if end <= start:
        return
    t = np.arange(start, end) * FPS / RATE
    column = np.interp(t, [point[0] for point in visit.waypoints], [point[1] for point in visit.waypoints])
    distance = (column - WIDTH / 2) / 80
    level = rng.uniform(0.03, 0.10) / (1 + distance**2) * ((column > 0) & (column < WIDTH))
    hum = _tone(np.full(end - start, pitch), 8) + 0.5 * _noise(rng, end - start, 60, 1000)
    track[start:end] += level * hum


def _add_everyday_noises(rng: np.random.Generator, track: np.ndarray) -> None:
    """Add horns, sirens, barking dogs and thuds: loud, and equally often in every class."""
    for start in rng.integers(0, len(track), rng.poisson(len(track) / RATE / 3)):
        noise = EVERYDAY[int(rng.integers(len(EVERYDAY)))](rng)
        _add(track, start, rng.uniform(0.05, 0.35) * noise)


def _horn(rng: np.random.Generator) -> np.ndarray:
    n, pitch = _seconds(rng, 0.3, 2), rng.uniform(330, 520)
    return 0.5 * _fade(n) * sum(_tone(np.full(n, interval * pitch), 8) for interval in (1, 1.26))


def _siren(rng: np.random.Generator) -> np.ndarray:
    n, pitch = _seconds(rng, 2, 4), rng.uniform(500, 800)
    high = np.arange(n) // (RATE // 2) % 2  # two notes in turn, half a second each
    return 0.7 * _fade(n) * _tone(pitch * (1 + 0.33 * high), 5)


def _barks(rng: np.random.Generator) -> np.ndarray:
    barks, pitch = np.zeros(_seconds(rng, 1, 3)), rng.uniform(400, 800)
    for start in range(0, len(barks), RATE // 3):
        n = _seconds(rng, 0.10, 0.18)
        glide = pitch * np.linspace(1.2, 0.7, n)
        _add(barks, start, _fade(n) * (_tone(glide, 5) + 0.3 * _noise(rng, n, 500, 5000)))
    return barks


def _thud(rng: np.random.Generator) -> np.ndarray:
    return _bang(rng, 30, 500)


EVERYDAY = (_horn, _siren, _barks, _thud)


def _bang(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Return a burst of noise that decays within a second."""
    n = RATE
    return _noise(rng, n, low, high) * np.exp(-np.arange(n) / _seconds(rng, 0.1, 0.2))


def _disturbances(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return wind (n,), so loud that it clips, and gain (n,), 0 where the microphone drops out."""
    wind, gain = np.zeros(n), np.ones(n)
    if rng.random() < 0.25:
        gust = _seconds(rng, 1, 3)
        _add(wind, int(rng.integers(n)), rng.uniform(0.3, 0.9) * _fade(gust) * _noise(rng, gust, 10, 120))
    if rng.random() < 0.25:
        start = int(rng.integers(n))
        gain[start : start + _seconds(rng, 0.3, 1.2)] = 0
    return wind, gain


def _scream(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return n samples of rough cries that glide up and down, with short pauses."""
    screams, start = np.zeros(n), 0
    while start < n:
        length = _seconds(rng, 0.5, 1.4)
        u, t = np.linspace(0, 1, length), np.arange(length) / RATE
        pitch = rng.uniform(1000, 1500) * (1 + rng.uniform(0.2, 0.6) * np.sin(np.pi * u))
        pitch *= 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(5, 9) * t)
        rough = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(50, 90) * t)
        _add(screams, start, _fade(length) * rough * _tone(pitch, 3))
        start += length + _seconds(rng, 0, 0.25)
    return screams


def _add_crash(rng: np.random.Generator, track: np.ndarray, visit: Visit) -> None:
    """Add a racing engine, the bang where the car stops, and a crackling fire until it is gone."""
    s, halt, e = (_samples(visit.waypoints[k][0]) for k in (0, 2, 4))
    level = rng.uniform(0.05, 0.2)
    track[s:halt] += 0.5 * level * _tone(np.linspace(120, 240, halt - s), 10)
    _add(track[:e], halt, 1.5 * level * _bang(rng, 50, 7000))
    crackle = _noise(rng, e - halt, 800, 7000) * (rng.random(e - halt) < 0.02)
    track[halt:e] += 2 * level * crackle
