"""Pictures of classes and modalities: the radar of Figure 2, bars of image, event and fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from vad import plotting
from vad.errors import InputError
from vad.metrics import PERCENT
from vad.plotting import COLOUR, COLUMN, HATCH, LINE, MARKER, MODALITIES, WIDTH, styled


@styled
def draw_radar(
    values: Mapping[str, Mapping[str, float]], path_without_suffix: Path, *, metric: str, title: str
) -> list[Path]:
    """Numbers of each class around a circle (Figure 2).

    values: modality → class → fraction; a class that a modality lacks, or has as NaN, is a gap in its line.
    The rim is 100 %, the centre is printed on the scale and lies below the smallest number. One or two classes make
    no polygon and become bars. InputError where there is no class.
    """
    modalities = [m for m in MODALITIES if m in values]
    names = list(dict.fromkeys(name for m in modalities for name in values[m]))
    if not names:
        raise InputError("no class to draw: the test set holds no anomalous video")
    if len(names) < 3:
        bars = {name: {m: [values[m].get(name, np.nan)] for m in modalities} for name in names}
        return draw_modalities(bars, path_without_suffix, title=title, ylabel=f"{metric} (%)")
    table = np.array([[100 * values[m].get(name, np.nan) for name in names] for m in modalities])
    low = max(0.0, 20 * np.floor(np.nanmin(table) / 20 - 0.25)) if np.isfinite(table).any() else 0.0
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    fig = Figure(figsize=(COLUMN + 0.7, COLUMN + 0.5), layout="constrained")
    ax = fig.subplots(subplot_kw={"projection": "polar"})
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    for modality, row in zip(modalities, table, strict=True):
        closed = np.append(angles, 2 * np.pi), np.append(row, row[0])
        ax.plot(
            *closed, color=COLOUR[modality], ls=LINE[modality], lw=WIDTH[modality], marker=MARKER[modality], ms=2.5,
            label=modality, clip_on=False,
        )
        if modality == "fusion":
            ax.fill(*closed, color=COLOUR[modality], alpha=0.08, lw=0)
    ax.set(ylim=(low, 100), xticks=angles)
    ax.set_xticklabels([name.replace("_", "\n").replace(" ", "\n") for name in names])
    for label, angle in zip(ax.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    ax.tick_params(axis="x", pad=1)
    # the scale between two spokes, where no line's corner lies
    ax.set_rlabel_position(np.degrees(angles[1]) / 2)
    ticks = np.arange(low + 20, 101, 20)
    halo = [withStroke(linewidth=2, foreground="white")]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=6.5, color="0.3", path_effects=halo)
    ax.set_title(f"{title}: {metric} (%), centre = {low:g}", pad=10)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return plotting.save(fig, path_without_suffix)


@styled
def draw_modalities(
    results: Mapping[str, Mapping[str, Sequence[float]]], path_without_suffix: Path, *, title: str, ylabel: str = ""
) -> list[Path]:
    """Image, event and fusion as bars: mean over seeds, standard deviation (n − 1), every single run as a dot.

    results: metric → modality → one fraction for each seed; NaN where it is not defined.
    """
    modalities = [m for m in MODALITIES if any(m in row for row in results.values())]
    fig = Figure(figsize=(max(COLUMN, 1.0 + 1.15 * len(results)), 2.7), layout="constrained")
    ax = fig.subplots()
    wide = 0.8 / len(modalities)
    for place, row in enumerate(results.values()):
        for number, modality in ((k, m) for k, m in enumerate(modalities) if m in row):
            x = place + (number - (len(modalities) - 1) / 2) * wide
            _draw_bar(ax, x, wide, modality, 100 * np.asarray(row[modality], float))
    ax.set(xticks=range(len(results)), ylim=(0, 112), yticks=range(0, 101, 20), ylabel=ylabel)
    ax.set_xticklabels([f"{metric} (%)" if metric in PERCENT else metric for metric in results])
    ax.grid(axis="x", visible=False)
    keys = [Patch(facecolor=COLOUR[m], hatch=HATCH[m], edgecolor="white", lw=0, label=m) for m in modalities]
    fig.legend(handles=keys, loc="outside lower center", ncols=3)
    ax.set_title(title)
    return plotting.save(fig, path_without_suffix)


def _draw_bar(ax: Axes, x: float, wide: float, modality: str, percent: np.ndarray) -> None:
    """One bar with its spread, its runs and its mean in figures; the reason to see n/a instead is an undefined run."""
    if not np.isfinite(percent).all():
        ax.annotate("n/a", (x, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7)
        return
    spread = percent.std(ddof=1) if len(percent) > 1 else None
    ax.bar(
        x, percent.mean(), wide * 0.9, color=COLOUR[modality], hatch=HATCH[modality], edgecolor="white", lw=0,
        yerr=spread, capsize=2.5, error_kw={"lw": 1.1, "ecolor": "0.6"},
    )
    if len(percent) > 1:
        places = x + wide * 0.22 * np.linspace(-1, 1, len(percent))
        ax.plot(places, percent, ".", ms=4, color="white", mec="0.15", mew=0.5, zorder=4)
    top = max(percent.max(), percent.mean() + (spread or 0))
    ax.annotate(f"{percent.mean():.1f}", (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=7)
