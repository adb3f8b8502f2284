"""How the drawn actors move: people who stroll and may run, and things that pass through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vad.demo_actors import Look
from vad.demo_scene import Point

STEP_LENGTH = 4.2  # pixels walked per radian of the gait


@dataclass(frozen=True)
class Walker:
    """A person who strolls to and fro on the plaza all the time, and may break into running."""

    look: Look
    columns: tuple[float, float]  # where the stroll turns
    row: float
    speed: float  # pixels a frame
    start: float  # pixels of the stroll already walked at frame 0
    rushes: tuple[tuple[int, int, int, float, float], ...] = ()  # (s, e, turns, width, depth): see `_rush`

    def at(self, t: int, anomaly: bool) -> tuple[Point, float, int]:
        """Foot, phase of the gait and heading at frame t."""
        left, right = self.columns
        walked = self.start + self.speed * t
        there = walked % (2 * (right - left))
        heading = 1 if there < right - left else -1
        x, y = left + (there if heading > 0 else 2 * (right - left) - there), self.row
        phase = walked / STEP_LENGTH
        for s, e, turns, width, depth in self.rushes if anomaly else ():
            if s <= t < e:
                dx, dy, heading, ran = _rush((t - s + 1) / (e - s + 1), turns, width, depth)
                x, y, phase = x + dx, y + dy, phase + ran / STEP_LENGTH / 2
        return (x, y), phase, heading


def _rush(u: float, turns: int, width: float, depth: float) -> tuple[float, float, int, float]:
    """Way of a runner beside the stroll, at the share u of a rush: columns, rows, heading, pixels run so far.

    It starts and ends at the stroll, so that the truth is exact: outside the rush nothing differs.
    """
    quarter = 4 * turns * u
    wave = (quarter + 1) % 4 - 2  # −1 … 2 … : a triangle wave that begins at zero
    dx = width * (1 - abs(wave))
    heading = 1 if (quarter + 1) % 4 < 2 else -1
    return dx, depth * math.sin(2 * math.pi * u), heading if width > 0 else -heading, abs(width) * quarter


@dataclass(frozen=True)
class Visit:
    """Something that passes through along a line of way points (frame, column, row)."""

    kind: str  # "car", "wreck", or a coat of `COATS`
    look: Look
    way: tuple[tuple[int, float, float], ...]

    def at(self, t: int) -> tuple[Point, float, int] | None:
        """Foot, pixels travelled along the columns, and heading at frame t; None outside its time."""
        frames, columns, rows = zip(*self.way, strict=True)
        if not frames[0] <= t < frames[-1]:
            return None
        x, y = float(np.interp(t, frames, columns)), float(np.interp(t, frames, rows))
        ahead = float(np.interp(t + 1, frames, columns)) - x
        return (x, y), x, -1 if ahead < 0 else 1
