"""The scene under a fixed camera: a street, a plaza, distractor objects and drawing primitives."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240
KERB = 156  # row where the road ends and the plaza begins
HEDGE = 227  # first row of the hedge in the foreground; actors enter and leave the plaza behind it
LANES = (124, 149)  # rows of the wheels: far lane (heading left) and near lane (heading right)
SIGN = (slice(34, 62), slice(112, 182))  # rows, columns of the neon sign that may flicker
Colour = tuple[int, int, int]  # B, G, R, OpenCV's order
Point = tuple[float, float]  # column, row, in pixels

_BITS = 4  # fractional bits of coordinates: motion in steps of 1/16 pixel looks smooth


def scale_at(y: float) -> float:
    """Return the scale of an object standing in row y: 1 at the kerb, larger nearer the camera."""
    return 1.0 + 0.005 * (min(y, HEIGHT) - KERB)


def darker(colour: Colour, factor: float = 0.75) -> Colour:
    """Return the colour multiplied by `factor`."""
    b, g, r = colour
    return int(factor * b), int(factor * g), int(factor * r)


def _fixed_point(points: Sequence[Point]) -> np.ndarray:
    return np.array([(round(x * 2**_BITS), round(y * 2**_BITS)) for x, y in points], np.int32)


def polygon(frame: np.ndarray, points: Sequence[Point], colour: Colour) -> None:
    """Fill a convex polygon."""
    cv2.fillConvexPoly(frame, _fixed_point(points), colour, cv2.LINE_AA, _BITS)


def ellipse(frame: np.ndarray, centre: Point, rx: float, ry: float, colour: Colour) -> None:
    """Fill an ellipse with semi-axes rx, ry in pixels."""
    middle, axes = _fixed_point([centre, (max(rx, 0.3), max(ry, 0.3))]).tolist()
    cv2.ellipse(frame, middle, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, _BITS)


def limb(frame: np.ndarray, start: Point, end: Point, width: float, colour: Colour) -> None:
    """Draw a thick line with round ends."""
    a, b = _fixed_point([start, end]).tolist()
    cv2.line(frame, a, b, colour, max(1, round(width)), cv2.LINE_AA, _BITS)


def shadow(frame: np.ndarray, centre: Point, rx: float, ry: float) -> None:
    """Darken the ground under an object."""
    x, y = centre
    left, right = max(0, int(x - rx) - 1), min(WIDTH, int(x + rx) + 2)
    top, bottom = max(0, int(y - ry) - 1), min(HEIGHT, int(y + ry) + 2)
    if left >= right or top >= bottom:
        return
    patch = frame[top:bottom, left:right]
    mask = np.zeros(patch.shape[:2], np.uint8)
    ellipse(mask, (x - left, y - top), rx, ry, (255, 255, 255))
    cv2.copyTo(cv2.convertScaleAbs(patch, alpha=0.72), mask, patch)


def street(rng: np.random.Generator) -> np.ndarray:
    """Draw the empty street, (240, 320, 3): sky, houses, pavement, road and plaza; `rng` picks the colours."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[:30] = np.linspace((225, 195, 165), (235, 220, 205), 30).astype(np.uint8)[:, None]
    # wider than the frame, because the last house may extend beyond it
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
    for row in (170, 187, 208):  # joints between paving stones, drawn towards one vanishing point
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
                glass = (150, 140, 120) if rng.random() < 0.7 else (130, 190, 215)  # lit window
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
    """Draw the hedge in the foreground, (rows, 320, 3), which hides everything behind it."""
    strip = np.full((HEIGHT - HEDGE, WIDTH, 3), (45, 85, 60), np.uint8)
    for x, y in zip(rng.integers(0, WIDTH, 260), rng.integers(1, HEIGHT - HEDGE, 260), strict=True):
        light = int(rng.integers(-18, 22))
        cv2.circle(strip, (int(x), int(y)), 2, (45 + light, 85 + light, 60 + light), -1)
    return strip


def distractor(frame: np.ndarray, shape: str, foot: Point, size: float) -> None:
    """Draw a static "tent", "container" or "balloon"; `size` is its height in pixels."""
    (x, y), s = foot, size * scale_at(foot[1])
    sand, blue, red = (95, 165, 225), (170, 120, 60), (60, 70, 215)
    xy = lambda u, v: (x + u * s, y - v * s)  # noqa: E731
    shadow(frame, xy(0.1, 0), 0.85 * s, 0.12 * s)
    if shape == "tent":
        polygon(frame, [xy(-0.85, 0), xy(0, 0.95), xy(0.85, 0)], sand)
        polygon(frame, [xy(-0.25, 0), xy(0, 0.95), xy(0.25, 0)], darker(sand, 0.7))
    elif shape == "container":
        polygon(frame, [xy(-0.9, 0), xy(-0.9, 0.7), xy(0.9, 0.7), xy(0.9, 0)], blue)
        for u in np.arange(-0.75, 0.9, 0.25):
            limb(frame, xy(u, 0.63), xy(u, 0.07), 0.05 * s, darker(blue, 0.7))
    else:
        limb(frame, xy(0, 0), xy(0, 0.5), 1, (60, 60, 60))
        ellipse(frame, xy(0, 0.85), 0.48 * s, 0.55 * s, red)
        ellipse(frame, xy(-0.15, 1.02), 0.12 * s, 0.15 * s, (190, 215, 245))
