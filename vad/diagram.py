"""Boxes, arrows and labels of a block diagram, placed by hand on one sheet."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from vad.plotting import shade

Point = tuple[float, float]
INK, PALE = "0.15", "0.45"


@dataclass(frozen=True)
class Box:
    """A box by its centre and size, in the units of the sheet."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        """Middle of the left edge."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        """Middle of the right edge."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        """Middle of the upper edge."""
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        """Middle of the lower edge."""
        return self.x, self.y - self.height / 2


class Sheet:
    """A drawing surface whose unit is the same in both directions."""

    def __init__(self, width: float, height: float, inches: float) -> None:
        """width, height: in units; inches: how wide the sheet is printed."""
        self.figure = Figure(figsize=(inches, inches * height / width))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def box(
        self,
        at: Box,
        text: str,
        *,
        colour: str = "0.4",
        size: float = 6.2,
        dashed: bool = False,
        fill: float | None = 0.12,
    ) -> Box:
        """A rounded box with a text, returned as given. fill: share of the colour in its face, None for white."""
        face = "white" if fill is None else shade(colour, (fill - 0.25) / 0.75)
        self.axes.add_patch(FancyBboxPatch(
            (at.x - at.width / 2 + 0.8, at.y - at.height / 2 + 0.8), at.width - 1.6, at.height - 1.6,
            boxstyle="round,pad=0.8", facecolor=face, edgecolor=colour, lw=0.9,
            ls=(0, (3, 1.6)) if dashed else "-", zorder=2.1 if fill is None else 2,
        ))  # fmt: skip
        self.text((at.x, at.y), text, size=size)
        return at

    def stack(self, at: Box, count: int, colour: str, *, inside: bool = False) -> None:
        """Edges of further cards behind a box: what is there several times. inside: the box stands in a filled one."""
        for k in reversed(range(1, min(count, 4))):
            self.axes.add_patch(FancyBboxPatch(
                (at.x - at.width / 2 + 0.8 + 0.9 * k, at.y - at.height / 2 + 0.8 + 0.9 * k),
                at.width - 1.6, at.height - 1.6, boxstyle="round,pad=0.8", facecolor="white", edgecolor=colour,
                lw=0.6, zorder=(2.05 if inside else 1.9) - 0.01 * k,
            ))  # fmt: skip

    def rectangle(self, corner: Point, width: float, height: float, **look: object) -> None:
        """A plain rectangle from its lower left corner."""
        self.axes.add_patch(Rectangle(corner, width, height, **look))

    def arrow(
        self,
        start: Point,
        end: Point,
        text: str = "",
        *,
        below: str = "",
        colour: str = INK,
        ls: object = "-",
        lw: float = 1.0,
        shift: Point = (0.0, 1.6),
    ) -> None:
        """A straight arrow with a text, `shift`ed from its middle, and another one below it."""
        self.axes.add_patch(FancyArrowPatch(
            start, end, arrowstyle="-|>,head_length=2.2,head_width=1.3", color=colour, lw=lw, ls=ls, shrinkA=0,
            shrinkB=0, mutation_scale=1.4, zorder=3, joinstyle="miter",
        ))  # fmt: skip
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.note((middle[0] + shift[0], middle[1] + shift[1]), text)
        self.note((middle[0] - 0.5, middle[1] - 1.6), below, size=4.6)

    def path(self, points: list[Point], *, colour: str = INK, ls: object = "-", lw: float = 1.0) -> None:
        """Straight pieces through the points, an arrow head at the last."""
        xs, ys = zip(*points[:-1], strict=True)
        self.axes.plot(xs, ys, color=colour, ls=ls, lw=lw, zorder=3, solid_joinstyle="miter")
        self.arrow(points[-2], points[-1], colour=colour, ls=ls, lw=lw)

    def text(
        self,
        at: Point,
        text: str,
        *,
        size: float = 6.2,
        colour: str = INK,
        weight: str = "normal",
        align: str = "center",
    ) -> None:
        """Text whose centre, or left or right end, is at the point."""
        look = {"fontsize": size, "color": colour, "fontweight": weight, "ha": align}
        self.axes.text(*at, text, **look, va="center", linespacing=1.25, zorder=5)

    def note(self, at: Point, text: str, *, size: float = 5.4, align: str = "center") -> None:
        """Small grey text beside what it is about."""
        self.text(at, text, size=size, colour=PALE, align=align)
