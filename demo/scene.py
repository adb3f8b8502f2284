"""The place under a fixed camera: a street with a plaza, odd objects, and what they are drawn with."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240
KERB = 156  # row where the road ends and the plaza begins
HEDGE = 227  # first row of the hedge in front: things enter and leave the plaza behind it
LANES = (124, 149)  # rows of the wheels: far lane, leftwards, and near lane, rightwards
SIGN = (slice(34, 62), slice(112, 182))  # rows, columns of the neon sign that may flicker
Colour = tuple[int, int, int]  # B, G, R, as OpenCV counts
Point = tuple[float, float]  # column, row, in pixels

_BITS = 4  # fractional bits of coordinates: things move by sixteenths of a pixel, without jumping


def scale_at(y: float) -> float:
    """Size of an object that stands in row y, relative to one at the kerb: the nearer, the larger."""
    return 1.0 + 0.005 * (min(y, HEIGHT) - KERB)


def darker(colour: Colour, share: float = 0.75) -> Colour:
    """The same colour with less light on it."""
    b, g, r = colour
    return int(share * b), int(share * g), int(share * r)


def _fixed(points: Sequence[Point]) -> np.ndarray:
    return np.array([(round(x * 2**_BITS), round(y * 2**_BITS)) for x, y in points], np.int32)


def polygon(frame: np.ndarray, points: Sequence[Point], colour: Colour) -> None:
    """Fill a convex polygon."""
    cv2.fillConvexPoly(frame, _fixed(points), colour, cv2.LINE_AA, _BITS)


def ellipse(frame: np.ndarray, centre: Point, rx: float, ry: float, colour: Colour) -> None:
    """Fill an ellipse with half axes rx, ry in pixels."""
    middle, axes = _fixed([centre, (max(rx, 0.3), max(ry, 0.3))]).tolist()
    cv2.ellipse(frame, middle, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, _BITS)


def limb(frame: np.ndarray, start: Point, end: Point, width: float, colour: Colour) -> None:
    """A thick line with round ends."""
    a, b = _fixed([start, end]).tolist()
    cv2.line(frame, a, b, colour, max(1, round(width)), cv2.LINE_AA, _BITS)


def shadow(frame: np.ndarray, centre: Point, rx: float, ry: float) -> None:
    """Darken the ground under a thing that stands there."""
    x, y = centre
    left, right = max(0, int(x - rx) - 1), min(WIDTH, int(x + rx) + 2)
    top, bottom = max(0, int(y - ry) - 1), min(HEIGHT, int(y + ry) + 2)
    if left >= right or top >= bottom:
        return
    patch = frame[top:bottom, left:right]
    mask = np.zeros(patch.shape[:2], np.uint8)
    ellipse(mask, (x - left, y - top), rx, ry, (255, 255, 255))
    cv2.copyTo(cv2.convertScaleAbs(patch, alpha=0.72), mask, patch)


def place(rng: np.random.Generator) -> np.ndarray:
    """The empty street, (240, 320, 3): sky, houses, far pavement, road, plaza; paint depends on `rng`."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:30] = np.linspace((225, 195, 165), (235, 220, 205), 30).astype(np.uint8)[:, None]
    # wider: the last house may stick out
    wide = cv2.copyMakeBorder(frame, 0, 0, 0, 100, cv2.BORDER_REPLICATE)
    _houses(wide, rng)
    frame[:] = wide[:, :WIDTH]
    frame[92:104] = (150, 155, 160)  # far pavement
    frame[104:KERB] = (92, 92, 94)  # road
    frame[KERB - 4 : KERB] = (175, 178, 180)
    for x in range(-10, WIDTH, 44):
        polygon(frame, [(x, 128), (x + 22, 128), (x + 21, 130), (x - 1, 130)], (190, 200, 205))
    plaza = np.linspace((138, 146, 152), (158, 166, 172), HEIGHT - KERB)
    frame[KERB:] = plaza.astype(np.uint8)[:, None]
    for row in (170, 187, 208):  # joints of the paving, which run to one vanishing point
        frame[row] = darker((150, 156, 162), 0.86)
    for x in range(-200, 540, 40):
        limb(frame, (160 + (x - 160) * 0.72, KERB), (x, HEIGHT), 1, (132, 138, 144))
    grain = cv2.GaussianBlur(rng.normal(0, 7, (HEIGHT, WIDTH, 1)).astype(np.float32), (0, 0), 0.8)
    return np.clip(frame + grain[..., None], 0, 255).astype(np.uint8)


def _houses(frame: np.ndarray, rng: np.random.Generator) -> None:
    paints: tuple[Colour, ...] = (
        *((120, 135, 160), (140, 150, 150), (125, 120, 125)),
        *((110, 130, 145), (150, 145, 135)),
    )
    x = 0
    while x < WIDTH:
        width, top = int(rng.integers(58, 92)), int(rng.integers(8, 24))
        paint = paints[int(rng.integers(len(paints)))]
        frame[top:92, x : x + width] = paint
        frame[top : top + 3, x : x + width] = darker(paint)
        for row in range(top + 9, 62, 18):
            for column in range(x + 7, x + width - 12, 17):
                glass = (150, 140, 120) if rng.random() < 0.7 else (130, 190, 215)  # a lamp is on
                frame[row : row + 11, column : column + 9] = glass
                frame[row : row + 11, column + 4] = darker(paint)
        frame[70:92, x + 5 : x + width - 5] = (75, 70, 65)  # a shop
        frame[66:71, x + 2 : x + width - 2] = darker(paints[int(rng.integers(len(paints)))], 0.6)
        frame[top:92, x + width - 1] = darker(paint, 0.6)
        x += width
    frame[SIGN] = (60, 45, 70)
    corner = (SIGN[1].start + 7, SIGN[0].stop - 8)
    cv2.putText(frame, "HOTEL", corner, cv2.FONT_HERSHEY_DUPLEX, 0.62, (180, 190, 235), 1)


def hedge(rng: np.random.Generator) -> np.ndarray:
    """The hedge in front, (rows, 320, 3), which hides everything behind it."""
    strip = np.full((HEIGHT - HEDGE, WIDTH, 3), (45, 85, 60), np.uint8)
    for x, y in zip(rng.integers(0, WIDTH, 260), rng.integers(1, HEIGHT - HEDGE, 260), strict=True):
        light = int(rng.integers(-18, 22))
        cv2.circle(strip, (int(x), int(y)), 2, (45 + light, 85 + light, 60 + light), -1)
    return strip


def odd_object(frame: np.ndarray, kind: str, foot: Point, size: float) -> None:
    """A "tent", a "container" or a "balloon" that stands still; `size` is its height in pixels."""
    (x, y), s = foot, size * scale_at(foot[1])
    sand, blue, red = (95, 165, 225), (170, 120, 60), (60, 70, 215)
    at = lambda u, v: (x + u * s, y - v * s)  # noqa: E731
    shadow(frame, at(0.1, 0), 0.85 * s, 0.12 * s)
    if kind == "tent":
        polygon(frame, [at(-0.85, 0), at(0, 0.95), at(0.85, 0)], sand)
        polygon(frame, [at(-0.25, 0), at(0, 0.95), at(0.25, 0)], darker(sand, 0.7))
    elif kind == "container":
        polygon(frame, [at(-0.9, 0), at(-0.9, 0.7), at(0.9, 0.7), at(0.9, 0)], blue)
        for u in np.arange(-0.75, 0.9, 0.25):
            limb(frame, at(u, 0.63), at(u, 0.07), 0.05 * s, darker(blue, 0.7))
    else:
        limb(frame, at(0, 0), at(0, 0.5), 1, (60, 60, 60))
        ellipse(frame, at(0, 0.85), 0.48 * s, 0.55 * s, red)
        ellipse(frame, at(-0.15, 1.02), 0.12 * s, 0.15 * s, (190, 215, 245))
