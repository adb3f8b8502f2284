"""Pictures of the masking probes: weight change by dimension (Figure 3), metric and weight by share (Tables 6–9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vad import plotting
from vad.plotting import COLOUR, COLUMN, LINE, MARKER, PAGE, shade, styled


@styled
def draw_weight_change(
    change: Mapping[tuple[str, float], np.ndarray], path_without_suffix: Path, *, title: str, levels: int = 3
) -> list[Path]:
    """Change of ŵ_i in each dimension when one modality is masked, image above, event below (Figure 3).

    change: `vad.probes.Probes.weight_change`. levels: how many of the levels to draw, spread from lowest to highest.
    """
    modalities = [m for m in ("image", "event") if any(key[0] == m for key in change)]
    fig = Figure(figsize=(PAGE, 1.75 * len(modalities) + 0.5), layout="constrained")
    axes = fig.subplots(len(modalities), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, modality in zip(axes, modalities, strict=True):
        known = sorted(level for m, level in change if m == modality)
        chosen = [known[k] for k in np.unique(np.linspace(0, len(known) - 1, levels).round().astype(int))]
        # the strongest first, so that the weaker ones are drawn over it; light to dark with the level
        for rank, level in reversed(list(enumerate(chosen, 1))):
            delta = change[modality, level]
            share = rank / len(chosen)
            colour = shade(COLOUR[modality], share)
            # thin to thick as well: three shades of one grey are hard to tell
            width = (0.5 if len(delta) > 128 else 0.9) * (0.6 + share)
            ax.plot(np.arange(len(delta)), delta, color=colour, lw=width, zorder=4 - share, label=f"{100 * level:g} %")
        ax.axhline(0, color="0.2", lw=0.7, zorder=5)
        ax.set(ylabel=r"$\Delta\hat{w}_i$", title=f"{modality} masked", xlim=(0, len(delta) - 1))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], title="masked share", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("embedding dimension")
    fig.suptitle(title, fontsize=9)
    return plotting.save(fig, path_without_suffix)


@styled
def draw_probe_curves(probes: pd.DataFrame, path_without_suffix: Path, *, metric: str, title: str) -> list[Path]:
    """Metric and ŵ_i against the masked share, one line for each masked modality (Tables 6–9)."""
    clean = probes[probes.masked == "CLEAN"].iloc[0]
    fig = Figure(figsize=(PAGE, 2.3), layout="constrained")
    for ax, column, factor, name in zip(
        fig.subplots(1, 2), (metric, "w_image"), (100, 1), (f"{metric} (%)", r"mean $\hat{w}_i$"), strict=True
    ):
        for modality, masked in (("image", "IMG_NOISE"), ("event", "EV_NOISE")):
            rows = probes[probes.masked == masked].sort_values("level")
            ax.plot(
                [0, *(100 * rows.level)], [factor * clean[column], *(factor * rows[column])], color=COLOUR[modality],
                ls=LINE[modality], marker=MARKER[modality], ms=4, lw=1.4, clip_on=False, label=f"{modality} masked",
            )
        ax.set(xlabel="masked share (%)", ylabel=name)
        ax.set_xlim(left=0)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.legend()
    fig.suptitle(title, fontsize=9)
    return plotting.save(fig, path_without_suffix)


@styled
def draw_weight_fall(
    changes: Mapping[str, Mapping[float, Sequence[float]]], path_without_suffix: Path, *, title: str
) -> list[Path]:
    """Change of the masked modality's own weight against the masked share: mean ± std over runs, every run a dot.

    changes: masked modality → level → one change for each run. Below zero the weight leaves what is masked.
    """
    fig = Figure(figsize=(COLUMN + 0.6, 2.5), layout="constrained")
    ax = fig.subplots()
    ax.axhline(0, color="0.2", lw=0.7)
    for shift, modality in ((-0.6, "image"), (0.6, "event")):
        levels = sorted(changes[modality])
        rows = [np.asarray(changes[modality][level], float) for level in levels]
        x = 100 * np.asarray(levels) + shift
        spread = [row.std(ddof=1) if len(row) > 1 else 0.0 for row in rows]
        for place, row in zip(x, rows, strict=True):
            ax.plot(np.full(len(row), place), row, ".", ms=3.5, color=shade(COLOUR[modality], 0.4), mew=0, zorder=1)
        ax.errorbar(x, [row.mean() for row in rows], spread, color=COLOUR[modality], ls=LINE[modality],
                    marker=MARKER[modality], ms=4, lw=1.3, capsize=2.5, label=f"{modality} masked")  # fmt: skip
    ax.set(xlabel="masked share (%)", ylabel=r"$\Delta\hat{w}$ of the masked modality")
    ax.legend()
    ax.set_title(title)
    return plotting.save(fig, path_without_suffix)
