"""Figures 4–6 of AVadCLIP: score curves of its networks over one another, and a map of class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vad.datasets import SNIPPET_FRAMES
from vad.report import plots
from vad.report.timelines import spans
from vad.scoring import ScoredVideo

STYLES = (("#111111", "-"), ("#1f6fb4", (0, (4, 1.5))), ("#e8820c", (0, (1.2, 1.2))), ("#0b4a32", (0, (6, 1.5))))


@plots.styled
def draw_class_map(
    scored: Mapping[str, ScoredVideo], classes: Sequence[str], path: Path, *, fps: float | None = None
) -> list[Path]:
    """Draw the scores of one video by each network, and below them the class probabilities of the first network.

    scored: network → the video with scores (S,) and class_scores (S, C). Thick lines are the classification branch,
    thin ones the alignment branch. fps: frames per second; the time axis is in seconds, or in frames without it.
    """
    first, scale = next(iter(scored.values())), 1 / fps if fps else 1.0
    edges = np.arange(len(first.scores) + 1) * SNIPPET_FRAMES * scale
    fig = Figure(figsize=(plots.PAGE, 2.0 + 0.2 * len(classes)), layout="constrained")
    curves, heat = fig.subplots(2, 1, sharex=True, height_ratios=(1.4, 0.2 * len(classes) + 0.2))
    fig.suptitle(f"{first.name} ({first.label})", fontsize=9, parse_math=False)
    for start, end in spans(first.frame_labels):
        curves.axvspan(start * scale, end * scale, color=plots.GROUND_TRUTH, alpha=0.55, lw=0)
        curves.patches[0].set_label("ground truth")
        for x in (start, end):
            heat.axvline(x * scale, color="white", lw=1, ls="--")
    for k, (name, video) in enumerate(scored.items()):
        colour, dash = STYLES[k % len(STYLES)]
        style = {"baseline": None, "color": colour, "ls": dash}
        curves.stairs(video.scores, edges, lw=1.6, label=name, **style)
        curves.stairs(1 - video.class_scores[:, 0], edges, lw=0.7, alpha=0.8, **style)
    curves.set(ylim=(-0.03, 1.03), ylabel="anomaly score\n(thin: alignment)")
    extent = (0, edges[-1], len(classes) - 0.5, -0.5)
    image = heat.imshow(first.class_scores.T, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="viridis")
    heat.set(yticks=range(len(classes)), xlabel="time (s)" if fps else "frame")
    heat.set_yticklabels(classes, parse_math=False)
    heat.grid(False)
    fig.colorbar(image, ax=heat, label="probability", pad=0.01)
    fig.legend(*curves.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return plots.save(fig, path)
