"""Appendix I: one video along the time axis, its frames, score, truth and modality weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vad import plotting
from vad.catalog import SNIPPET_FRAMES
from vad.plotting import COLOUR, LINE, PAGE, TRUTH, styled
from vad.scoring import ScoredVideo


def intervals(frame_labels: np.ndarray) -> list[tuple[int, int]]:
    """Anomalous intervals (s, e) of frames s … e − 1."""
    steps = np.diff(np.concatenate([[0], (np.asarray(frame_labels) != 0).astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(steps > 0).tolist(), np.flatnonzero(steps < 0).tolist(), strict=True))


@styled
def draw_timeline(
    video: ScoredVideo,
    path_without_suffix: Path,
    *,
    fps: float | None = None,
    thumbnails: Sequence[np.ndarray] | None = None,
) -> list[Path]:
    """Score, truth and modality weights along one video (Appendix I).

    fps: frames a second, for an axis in seconds; without it the axis counts frames. thumbnails: RGB images
    (H, W, 3) taken at even distances, shown above.
    """
    scale = 1 / fps if fps else 1.0
    edges = np.arange(len(video.scores) + 1) * SNIPPET_FRAMES * scale
    # a strip just high enough for undistorted thumbnails: width of one times its own shape
    strip = 0.85 * PAGE / len(thumbnails) * thumbnails[0].shape[0] / thumbnails[0].shape[1] if thumbnails else 0.0
    heights = [*([strip] if thumbnails else []), 1.3, 1.0]
    fig = Figure(figsize=(PAGE, sum(heights) + 0.9), layout="constrained")
    axes = fig.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    fig.suptitle(f"{video.name} ({video.label})", fontsize=9, parse_math=False)  # a name may hold a $
    if thumbnails:
        _draw_strip(axes[0], thumbnails, edges[-1])
    score, weights = axes[-2:]
    for number, (start, end) in enumerate(intervals(video.frame_labels)):
        for ax in (score, weights):
            label = "anomaly (truth)" if number == 0 and ax is score else None
            ax.axvspan(start * scale, end * scale, color=TRUTH, alpha=0.55, lw=0, label=label)
    score.stairs(video.scores, edges, color=COLOUR["fusion"], lw=1.4, label="anomaly score", baseline=None)
    score.set(ylim=(-0.03, 1.03), ylabel="anomaly score")
    for modality, sign, values in (("image", "i", video.weight_image), ("event", "e", video.weight_event)):
        weights.stairs(
            values, edges, color=COLOUR[modality], ls=LINE[modality], lw=1.3, baseline=None,
            label=rf"$\hat{{w}}_{sign}$ ({modality})",
        )
    # the two mirror each other around 1/2; the window must not make a thousandth look like a landslide
    reach = max(0.01, 1.15 * float(np.abs(np.concatenate([video.weight_image, video.weight_event]) - 0.5).max()))
    weights.set(ylim=(0.5 - reach, 0.5 + reach), ylabel="modality weight")
    weights.set(xlim=(0, edges[-1]), xlabel="time (s)" if fps else "frame")
    for ax in (score, weights):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    fig.align_ylabels([score, weights])
    return plotting.save(fig, path_without_suffix)


def _draw_strip(ax: Axes, thumbnails: Sequence[np.ndarray], end: float) -> None:
    """Thumbnails side by side; each covers the stretch of time it was taken from."""
    width = end / len(thumbnails)
    for number, picture in enumerate(thumbnails):
        ax.imshow(picture, extent=(number * width, (number + 0.97) * width, 0, 1), aspect="auto")
    ax.set(xlim=(0, end), ylim=(0, 1), yticks=[])
    ax.tick_params(bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)
