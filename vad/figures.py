"""Pictures of results, as PNG and PDF: timeline, radar, weight change, probes, training, ROC and PR, modalities.

Image is blue and solid, event orange and dashed, fusion dark green and thick, in every picture and apart in grey too.
Nothing here touches matplotlib's global backend or settings.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vad.catalog import SNIPPET_FRAMES
from vad.errors import InputError
from vad.files import write_whole
from vad.metrics import PERCENT, average_precision, precision_recall, roc, roc_auc, samples
from vad.scoring import ScoredVideo

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
})
styled = matplotlib.rc_context(STYLE)


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
    return _save(fig, path_without_suffix)


def _draw_strip(ax: Axes, thumbnails: Sequence[np.ndarray], end: float) -> None:
    """Thumbnails side by side; each covers the stretch of time it was taken from."""
    width = end / len(thumbnails)
    for number, picture in enumerate(thumbnails):
        ax.imshow(picture, extent=(number * width, (number + 0.97) * width, 0, 1), aspect="auto")
    ax.set(xlim=(0, end), ylim=(0, 1), yticks=[])
    ax.tick_params(bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)


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
    return _save(fig, path_without_suffix)


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
            colour = _shade(COLOUR[modality], share)
            ax.plot(np.arange(len(delta)), delta, color=colour, lw=0.7 if len(delta) > 128 else 1.2, zorder=4 - share,
                    label=f"{100 * level:g} %")
        ax.axhline(0, color="0.2", lw=0.7, zorder=5)
        ax.set(ylabel=r"$\Delta\hat{w}_i$", title=f"{modality} masked", xlim=(0, len(delta) - 1))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], title="masked share", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("embedding dimension")
    fig.suptitle(title, fontsize=9)
    return _save(fig, path_without_suffix)


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
    return _save(fig, path_without_suffix)


@styled
def draw_training(log: pd.DataFrame, path_without_suffix: Path, *, title: str) -> list[Path]:
    """Loss with its terms and the metrics along training.

    log: a row an evaluation with `step`, `loss`, any terms (`loss_…`), any of AUC, AP, Ano-AUC as fractions and,
    for the lines between epochs, `epoch`. InputError where step or loss is missing.
    """
    missing = {"step", "loss"} - set(log.columns)
    if missing:
        raise InputError(f"the training log has no column {', '.join(sorted(missing))}; its columns are "
                         f"{', '.join(map(str, log.columns))}")
    terms = [c for c in log.columns if str(c).startswith("loss_")]
    measured = [c for c in ("AUC", "AP", "Ano-AUC") if c in log.columns]
    fig = Figure(figsize=(PAGE, 2.4), layout="constrained")
    left, right = fig.subplots(1, 2, sharex=True)
    left.plot(log.step, log.loss, color="0.1", lw=1.8, label="total")
    # distinct in grey by their dashes; no modality is meant, so no modality's colour
    dashes = ("--", ":", "-.", (0, (6, 2)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
    for number, column in enumerate(terms):
        left.plot(log.step, log[column], color=f"C{number + 3}", ls=dashes[number % len(dashes)], lw=1.2,
                  label=str(column).removeprefix("loss_").replace("_", " "))
    left.set(ylabel="loss", xlabel="training step")
    marker = "." if len(log) < 15 else ""  # a dot for each evaluation, unless the dots would hide the dashes
    for column, style, grey in zip(measured, ("-", "--", ":"), ("0", "0.4", "0.2"), strict=False):
        right.plot(log.step, 100 * log[column], color=grey, ls=style, marker=marker, lw=1.5, label=column)
    right.set(ylabel="test set (%)", xlabel="training step")
    if not measured:
        right.set_title("no metric in the log")
    if "epoch" in log.columns:
        left.set_xlabel("training step (grey lines: epochs)")
        for step in log.step[log.epoch.diff() > 0]:
            for ax in (left, right):
                ax.axvline(step, color="0.85", lw=0.5, zorder=0)
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="x", visible=False)
        if ax.lines and ax.get_legend_handles_labels()[0]:
            ax.legend()
    fig.suptitle(title, fontsize=9)
    return _save(fig, path_without_suffix)


@styled
def draw_curves(
    videos: Mapping[str, Sequence[ScoredVideo]], path_without_suffix: Path, *, title: str
) -> list[Path]:
    """ROC and precision–recall curve over frames for each modality given, with the chance lines.

    videos: modality → scored videos. InputError where normal or anomalous frames are missing.
    """
    fig = Figure(figsize=(PAGE, 3.2), layout="constrained")
    left, right = fig.subplots(1, 2)
    base = 0.0
    for modality in (m for m in MODALITIES if m in videos):
        data = samples(videos[modality])
        if not data.positive.any() or not data.negative.any():
            raise InputError("ROC and precision–recall curves need normal and anomalous frames; one kind is missing")
        base = data.positive.sum() / (data.positive.sum() + data.negative.sum())
        look = {"color": COLOUR[modality], "ls": LINE[modality], "lw": WIDTH[modality]}
        left.plot(*roc(data), **look, label=f"{modality}: AUC {100 * roc_auc(data):.2f} %")
        # between two thresholds precision is the later one's: the area of these steps is the average precision
        label = f"{modality}: AP {100 * average_precision(data):.2f} %"
        right.step(*precision_recall(data), where="post", **look, label=label)
    left.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="chance")
    right.axhline(base, color="0.6", ls=":", lw=1, label=f"chance ({100 * base:.1f} % of frames)")
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision–recall")
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        ax.legend(loc="lower right" if ax is left else "best")
    fig.suptitle(title, fontsize=9)
    return _save(fig, path_without_suffix)


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
    return _save(fig, path_without_suffix)


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


def _shade(colour: str, share: float) -> tuple[float, float, float]:
    """The colour mixed with white: share 0 nearly white, 1 the colour itself."""
    mix = 0.25 + 0.75 * share
    return tuple(1 - mix * (1 - channel) for channel in matplotlib.colors.to_rgb(colour))


def _save(fig: Figure, path_without_suffix: Path) -> list[Path]:
    """Writes .png and .pdf, each whole or not at all; the same figure gives the same bytes."""
    FigureCanvasAgg(fig)
    paths = []
    for suffix, options in ((".png", {"dpi": 200}), (".pdf", {"metadata": {"CreationDate": None}})):
        stream = io.BytesIO()
        # tight: the layout does not count labels around a circle, and would cut them off
        fig.savefig(stream, format=suffix[1:], bbox_inches="tight", pad_inches=0.05, **options)
        paths.append(path_without_suffix.with_name(path_without_suffix.name + suffix))
        write_whole(paths[-1], stream.getvalue())
    return paths
