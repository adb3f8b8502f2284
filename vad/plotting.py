"""The one look of all pictures: palette, dashes, sizes, and how a figure becomes PNG and PDF.

Image is blue and solid, event orange and dashed, fusion dark green and thick, in every picture and apart in grey too.
Nothing here touches matplotlib's global backend or settings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vad.files import write_whole

MODALITIES = ("image", "event", "fusion")
COLOUR = MappingProxyType({"image": "#1f6fb4", "event": "#e8820c", "fusion": "#0b4a32"})
LINE = MappingProxyType({"image": "-", "event": (0, (4, 1.5)), "fusion": "-"})
WIDTH = MappingProxyType({"image": 1.3, "event": 1.3, "fusion": 2.0})
MARKER = MappingProxyType({"image": "o", "event": "s", "fusion": "D"})
HATCH = MappingProxyType({"image": "", "event": "////", "fusion": ""})
TRUTH = "#d9a3a3"
COLUMN, PAGE = 3.5, 7.0  # inches: one column, the whole page
STYLE = MappingProxyType({
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters in the PDF
    "svg.hashsalt": "figure",  # names inside the file are the same every time
})
styled = matplotlib.rc_context(STYLE)


def shade(colour: str, share: float) -> tuple[float, float, float]:
    """The colour mixed with white: share 0 nearly white, 1 the colour itself."""
    mix = 0.25 + 0.75 * share
    return tuple(1 - mix * (1 - channel) for channel in matplotlib.colors.to_rgb(colour))


def save(
    fig: Figure, path_without_suffix: Path, suffixes: Sequence[str] = (".png", ".pdf"), *, about: str | None = None
) -> list[Path]:
    """Writes .png and .pdf, or the suffixes given, each whole or not at all; the same figure gives the same bytes.

    about: a description kept inside an .svg.
    """
    FigureCanvasAgg(fig)
    options = {
        ".png": {"dpi": 200},
        ".pdf": {"metadata": {"CreationDate": None}},
        ".svg": {"metadata": {"Date": None, "Description": about}},
    }
    paths = []
    for suffix in suffixes:
        stream = io.BytesIO()
        # tight: the layout does not count labels around a circle, and would cut them off
        fig.savefig(stream, format=suffix[1:], bbox_inches="tight", pad_inches=0.05, **options[suffix])
        paths.append(path_without_suffix.with_name(path_without_suffix.name + suffix))
        write_whole(paths[-1], stream.getvalue())
    return paths
