"""The actors of the synthetic videos: their appearance and motion, normal and anomalous."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from demo.scene import Colour, Point, darker, ellipse, limb, polygon, scale_at, shadow

_SKIN: tuple[Colour, ...] = ((150, 180, 225), (110, 145, 195), (70, 100, 150), (45, 65, 95))
_HAIR: tuple[Colour, ...] = ((30, 30, 35), (40, 60, 90), (70, 110, 150), (140, 140, 145))
_CLOTH: tuple[Colour, ...] = (
    *((120, 80, 50), (80, 110, 70), (95, 95, 105), (60, 60, 75)),
    *((170, 170, 165), (130, 100, 110), (90, 130, 150), (75, 55, 95)),
)
_PAINT: tuple[Colour, ...] = (
    *((150, 95, 50), (185, 185, 180), (70, 65, 65)),
    *((85, 110, 70), (70, 60, 140), (120, 120, 115)),
)


@dataclass(frozen=True)
class Appearance:
    """Colours and size of one person or car."""

    body: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    size: float  # relative to the average person or car


def random_appearance(rng: np.random.Generator, category: str) -> Appearance:
    """Return a random normal appearance of a "person" or a "car"."""
    body, trousers, skin, hair = (
        colours[int(rng.integers(len(colours)))]
        for colours in (_PAINT if category == "car" else _CLOTH, _CLOTH, _SKIN, _HAIR)
    )
    return Appearance(body, trousers, skin, hair, float(rng.uniform(0.9, 1.1)))


def person(frame: np.ndarray, look: Appearance, foot: Point, phase: float, heading: int) -> None:
    """Draw a person from the side. phase: of the gait, in radians; heading: +1 right, −1 left."""
    (x, y), h = foot, 56 * scale_at(foot[1]) * look.size
    xy = lambda u, v: (x + heading * u * h, y - v * h)  # noqa: E731
    swing = 0.13 * math.sin(phase)
    shadow(frame, (x + 0.1 * h, y), 0.24 * h, 0.055 * h)
    for side, colour in ((-1, darker(look.trousers)), (1, look.trousers)):
        lift = 0.05 * max(0.0, side * math.cos(phase))
        knee, heel = xy(0.6 * side * swing + 0.03, 0.24 + lift), xy(side * swing, 0.02 + lift)
        limb(frame, xy(0, 0.46), knee, 0.10 * h, colour)
        limb(frame, knee, heel, 0.085 * h, colour)
        ellipse(frame, xy(side * swing + 0.03, 0.01 + lift), 0.055 * h, 0.024 * h, (40, 40, 45))
    limb(frame, xy(0.015, 0.78), xy(0.9 * swing, 0.50), 0.07 * h, darker(look.body))
    polygon(frame, [xy(-0.11, 0.80), xy(0.11, 0.80), xy(0.09, 0.43), xy(-0.09, 0.43)], look.body)
    limb(frame, xy(0.015, 0.78), xy(-0.9 * swing, 0.50), 0.07 * h, darker(look.body, 0.9))
    ellipse(frame, xy(-0.9 * swing, 0.48), 0.035 * h, 0.035 * h, look.skin)
    ellipse(frame, xy(0.015, 0.90), 0.075 * h, 0.095 * h, look.hair)
    ellipse(frame, xy(0.035, 0.89), 0.060 * h, 0.075 * h, look.skin)


def car(frame: np.ndarray, look: Appearance, foot: Point, roll: float, heading: int) -> None:
    """Draw a car from the side, above `foot`, with its wheels turned by `roll` radians."""
    (x, y), s = foot, 30 * scale_at(foot[1]) * look.size
    glass: Colour = (110, 95, 80)
    xy = lambda u, v: (x + heading * u * s, y - v * s)  # noqa: E731
    shadow(frame, foot, 1.35 * s, 0.16 * s)
    polygon(frame, [xy(-0.85, 0.55), xy(-0.55, 1.02), xy(0.28, 1.02), xy(0.72, 0.55)], look.body)
    polygon(frame, [xy(-0.70, 0.57), xy(-0.48, 0.94), xy(-0.12, 0.94), xy(-0.12, 0.57)], glass)
    polygon(frame, [xy(-0.05, 0.57), xy(-0.05, 0.94), xy(0.24, 0.94), xy(0.58, 0.57)], glass)
    polygon(frame, [xy(-1.25, 0.18), xy(-1.22, 0.55), xy(1.15, 0.55), xy(1.28, 0.40), xy(1.28, 0.18)], look.body)
    polygon(frame, [xy(-1.25, 0.16), xy(-1.25, 0.25), xy(1.28, 0.25), xy(1.28, 0.16)], darker(look.body))
    ellipse(frame, xy(1.18, 0.42), 0.08 * s, 0.07 * s, (190, 235, 250))
    ellipse(frame, xy(-1.20, 0.44), 0.05 * s, 0.07 * s, (50, 50, 200))
    dx, dy = 0.11 * math.cos(roll), 0.11 * math.sin(roll)
    for u in (-0.75, 0.75):
        ellipse(frame, xy(u, 0.20), 0.24 * s, 0.24 * s, (35, 35, 35))
        ellipse(frame, xy(u, 0.20), 0.12 * s, 0.12 * s, (140, 140, 140))
        limb(frame, xy(u - dx, 0.20 - dy), xy(u + dx, 0.20 + dy), 1, (70, 70, 70))


# flank, far legs, belly, stripes; both coats are equally bright, so grey levels hardly differ
COATS: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "pony": ((140, 142, 150), (128, 130, 136), (165, 168, 172), (118, 122, 128)),  # normal
    "tiger": ((30, 120, 250), (25, 110, 235), (110, 165, 230), (20, 90, 215)),  # anomalous
}


def animal(frame: np.ndarray, coat: str, foot: Point, phase: float, heading: int) -> None:
    """Draw a four-legged animal as long as a car; "pony" and "tiger" differ only in their coats."""
    (x, y), s = foot, 50 * scale_at(foot[1])
    flank, shade, belly, stripe = COATS[coat]
    xy = lambda u, v: (x + heading * u * s, y - v * s)  # noqa: E731
    shadow(frame, foot, 1.0 * s, 0.12 * s)
    legs = ((-0.58, 2.2, shade), (0.50, 0.6, shade), (-0.48, 0.0, flank), (0.40, 3.4, flank))
    for u, offset, colour in legs:
        paw = u + 0.13 * math.sin(phase + offset)
        limb(frame, xy(u, 0.50), xy(paw, 0.06), 0.20 * s, colour)
        ellipse(frame, xy(paw + 0.04, 0.05), 0.14 * s, 0.07 * s, colour)
    limb(frame, xy(-0.75, 0.75), xy(-1.08, 0.62), 0.10 * s, flank)
    limb(frame, xy(-1.08, 0.62), xy(-1.18, 0.95 + 0.06 * math.sin(phase / 2)), 0.09 * s, shade)
    ellipse(frame, xy(-0.02, 0.62), 0.80 * s, 0.30 * s, flank)
    ellipse(frame, xy(0.0, 0.44), 0.55 * s, 0.12 * s, belly)
    for u in (-0.55, -0.30, -0.05, 0.20, 0.45):
        limb(frame, xy(u, 0.88 - 0.12 * abs(u)), xy(u + 0.06, 0.60), 0.06 * s, stripe)
    ellipse(frame, xy(0.84, 0.95), 0.08 * s, 0.10 * s, shade)
    ellipse(frame, xy(0.82, 0.76), 0.27 * s, 0.24 * s, flank)
    ellipse(frame, xy(0.99, 0.69), 0.13 * s, 0.11 * s, belly)
    ellipse(frame, xy(1.09, 0.72), 0.04 * s, 0.04 * s, (25, 35, 45))
    ellipse(frame, xy(0.88, 0.82), 0.035 * s, 0.045 * s, (25, 35, 45))


def fire(frame: np.ndarray, foot: Point, size: float, rng: np.random.Generator) -> None:
    """Draw flames and smoke `size` pixels wide; shapes from `rng` differ in every frame and flicker."""
    xy = lambda u, v: (foot[0] + u * size, foot[1] - v * size)  # noqa: E731
    for rise in (1.5, 1.2, 0.9):
        grey = int(rng.integers(45, 75))
        ellipse(frame, xy(rng.normal(0, 0.16), rise), 0.50 * size, 0.36 * size, (grey, grey, grey))
    flames = ((0.85, 0.55, (20, 80, 240)), (0.60, 0.38, (40, 160, 255)), (0.35, 0.22, (150, 235, 255)))
    for height, width, colour in flames:
        for u in (-0.35, 0.0, 0.35):
            tip = xy(u + rng.normal(0, 0.05), height * rng.uniform(0.6, 1.15))
            polygon(frame, [xy(u - width / 2, 0), xy(u + width / 2, 0), tip], colour)


STEP_LENGTH = 4.2  # pixels walked per radian of gait phase


@dataclass(frozen=True)
class Pedestrian:
    """A person who walks to and fro on the plaza and may start to run."""

    look: Appearance
    columns: tuple[float, float]  # where the walk turns round
    row: float
    speed: float  # pixels per frame
    start: float  # distance walked before frame 0, pixels
    runs: tuple[tuple[int, int, int, float, float], ...] = ()  # (s, e, turns, width, depth), see `_run`

    def pose(self, t: int, anomaly: bool) -> tuple[Point, float, int]:
        """Return foot, gait phase and heading at frame t; without `anomaly` the person never runs."""
        left, right = self.columns
        walked = self.start + self.speed * t
        offset = walked % (2 * (right - left))
        heading = 1 if offset < right - left else -1
        x, y = left + (offset if heading > 0 else 2 * (right - left) - offset), self.row
        phase = walked / STEP_LENGTH
        for s, e, turns, width, depth in self.runs if anomaly else ():
            if s <= t < e:
                dx, dy, heading, ran = _run((t - s + 1) / (e - s + 1), turns, width, depth)
                x, y, phase = x + dx, y + dy, phase + ran / STEP_LENGTH / 2
        return (x, y), phase, heading


def _run(u: float, turns: int, width: float, depth: float) -> tuple[float, float, int, float]:
    """Return a runner's offset (columns, rows), heading and distance after the fraction u of a run.

    A run starts and ends on the walking path, so no frame outside its interval changes.
    """
    quarter = 4 * turns * u
    wave = (quarter + 1) % 4 - 2  # sawtooth; 1 − |wave| is a triangle wave that starts at 0
    dx = width * (1 - abs(wave))
    heading = 1 if (quarter + 1) % 4 < 2 else -1
    dy = depth * math.sin(2 * math.pi * u)
    return dx, dy, heading if width > 0 else -heading, abs(width) * quarter


@dataclass(frozen=True)
class Visit:
    """An actor that crosses the scene along waypoints (frame, column, row)."""

    category: str  # "car", "wreck" or a key of `COATS`
    look: Appearance
    waypoints: tuple[tuple[int, float, float], ...]

    def pose(self, t: int) -> tuple[Point, float, int] | None:
        """Return foot, column (for gait or wheels) and heading at frame t, or None if out of the scene."""
        frames, columns, rows = zip(*self.waypoints, strict=True)
        if not frames[0] <= t < frames[-1]:
            return None
        x, y = float(np.interp(t, frames, columns)), float(np.interp(t, frames, rows))
        dx = float(np.interp(t + 1, frames, columns)) - x
        return (x, y), x, -1 if dx < 0 else 1
