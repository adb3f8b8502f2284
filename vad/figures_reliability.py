"""Reliability: how often a frame of a given score is anomalous, and how many frames have that score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vad import plotting
from vad.calibration import Reliability
from vad.plotting import COLOUR, COLUMN, LINE, MARKER, MODALITIES, WIDTH, styled


@styled
def draw_reliability(curves: Mapping[str, Reliability], path_without_suffix: Path, *, title: str) -> list[Path]:
    """Share of anomalous frames against the mean score of each bin, and below it the frames of each bin.

    curves: modality → reliability of its frames. The diagonal is a score that is its own frequency. Bins without
    frames have no point; the counts are on a logarithmic scale, because most frames have a low score.
    """
    fig = Figure(figsize=(COLUMN + 0.3, 4.3), layout="constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    above.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="calibrated")
    for modality in (m for m in MODALITIES if m in curves):
        curve = curves[modality]
        filled = curve.frames > 0
        look = {"color": COLOUR[modality], "ls": LINE[modality]}
        label = f"{modality}: ECE {curve.error:.3f}"
        above.plot(curve.score[filled], curve.observed[filled], **look, lw=WIDTH[modality], marker=MARKER[modality],
                   ms=3.5, label=label, clip_on=False, zorder=3)  # fmt: skip
        # an empty bin has no place on a logarithmic axis: its step ends at the axis
        below.stairs(np.maximum(curve.frames, 0.5), curve.edges, **look, lw=WIDTH[modality])
    most = max(float(curve.frames.max()) for curve in curves.values())
    below.set(yscale="log", ylim=(0.8, max(10.0, 2 * most)), xlabel="anomaly score", ylabel="frames in the bin")
    below.yaxis.set_major_locator(LogLocator(numticks=6))
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of anomalous frames", title=title)
    above.legend(loc="upper left")
    fig.align_ylabels([above, below])
    return plotting.save(fig, path_without_suffix)
