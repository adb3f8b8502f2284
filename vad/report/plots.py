"""Figures of results: one style, curves, masking responses, classes, sweeps, training; each as PNG and PDF.

Image is blue and solid, event orange and dashed, fusion dark green and thick; they differ in grey print too.
Every `draw_…` writes <path>.png and <path>.pdf and returns their paths. The global matplotlib state is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from vad import metrics as measure
from vad.files import atomic_write
from vad.options import MODALITIES
from vad.report.paper import METRICS, Printed
from vad.scoring import ScoredVideo

COLOUR = {"image": "#1f6fb4", "event": "#e8820c", "fusion": "#0b4a32"}
LINE = {"image": "-", "event": (0, (4, 1.5)), "fusion": "-"}
WIDTH = {"image": 1.3, "event": 1.3, "fusion": 2.0}
MARKER = {"image": "o", "event": "s", "fusion": "D"}
HATCH = {"image": "", "event": "////", "fusion": ""}
GROUND_TRUTH = "#d9a3a3"
COLUMN, PAGE = 3.5, 7.0  # inches: one column, the whole page
Videos = Mapping[str, Sequence[ScoredVideo]]  # by modality
styled = matplotlib.rc_context({
    "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "figure.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "pdf.fonttype": 42,  # letters stay letters in the PDF
    "svg.hashsalt": "figure",  # the same names inside the file every time
})  # fmt: skip


def look(modality: str) -> dict[str, object]:
    """Colour and dashes of a modality's lines."""
    return {"color": COLOUR[modality], "ls": LINE[modality]}


def shade(colour: str, share: float) -> tuple[float, float, float]:
    """The colour mixed with white: share 0 nearly white, 1 the colour itself."""
    mix = 0.25 + 0.75 * share
    return tuple(1 - mix * (1 - channel) for channel in matplotlib.colors.to_rgb(colour))


def save(fig: Figure, path: Path, suffixes: Sequence[str] = (".png", ".pdf"), about: str | None = None) -> list[Path]:
    """Write a figure whole or not at all; the same figure gives the same bytes. about: kept inside an .svg."""
    FigureCanvasAgg(fig)
    fig.draw_without_rendering()  # a legend outside the axes finds its place in a second pass
    options = {
        ".png": {"dpi": 200},
        ".pdf": {"metadata": {"CreationDate": None}},
        ".svg": {"metadata": {"Date": None, "Description": about}},
    }
    paths = [path.with_name(path.name + suffix) for suffix in suffixes]  # a dot in the name is no suffix
    for target, suffix in zip(paths, suffixes, strict=True):
        with atomic_write(target) as part:
            # tight: the layout does not count labels around a circle and would cut them off
            fig.savefig(part, format=suffix[1:], bbox_inches="tight", pad_inches=0.05, **options[suffix])
    return paths


def _of(modalities: Mapping[str, object]) -> list[str]:
    """The modalities there are, image before event before fusion."""
    return [modality for modality in MODALITIES if modality in modalities]


# --- scores of one evaluation ------------------------------------------------------------------------


@styled
def draw_curves(videos: Videos, path: Path, *, title: str) -> list[Path]:
    """ROC and precision–recall curve over frames of each modality, with the lines of chance.

    videos: they hold normal and anomalous frames.
    """
    fig = Figure(figsize=(PAGE, 3.9), layout="constrained")
    left, right = fig.subplots(1, 2)
    for modality in _of(videos):
        data, style = measure.samples(videos[modality]), {**look(modality), "lw": WIDTH[modality]}
        base = data.positive.sum() / data.frames.sum()
        left.plot(*measure.roc(data), **style, label=f"{modality}: AUC {100 * measure.roc_auc(data):.2f} %")
        # steps: their area is the average precision
        label = f"{modality}: AP {100 * measure.average_precision(data):.2f} %"
        right.step(*measure.precision_recall(data), where="post", **style, label=label)
    left.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="chance")
    right.axhline(base, color="0.6", ls=":", lw=1, label=f"chance ({100 * base:.1f} % of frames)")
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision–recall")
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        # below the axes: inside it would hide a curve
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, columnspacing=1.2)
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_reliability(videos: Videos, path: Path, *, title: str) -> list[Path]:
    """Share of anomalous frames against the mean score of each bin; below it the frames of each bin.

    The diagonal is a calibrated score. Counts have a logarithmic scale: most frames have a low score.
    """
    fig = Figure(figsize=(COLUMN + 0.3, 4.3), layout="constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    above.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="calibrated")
    most = 5.0
    for modality in _of(videos):
        data = measure.samples(videos[modality])
        curve, style = measure.reliability(data), {**look(modality), "lw": WIDTH[modality]}
        label = f"{modality}: ECE {measure.calibration_error(data):.3f}"
        filled = curve[curve.frames > 0]
        dots = {"marker": MARKER[modality], "ms": 3.5, "clip_on": False, "zorder": 3}
        above.plot(filled.score, filled.observed, **style, **dots, label=label)
        # 0 has no place on a logarithmic axis: the step ends at the axis
        below.stairs(np.maximum(curve.frames, 0.5), np.linspace(0, 1, measure.BINS + 1), **style)
        most = max(most, float(curve.frames.max()))
    below.set(yscale="log", ylim=(0.8, 2 * most), xlabel="anomaly score", ylabel="frames in the bin")
    below.yaxis.set_major_locator(LogLocator(numticks=6))
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of anomalous frames", title=title)
    above.legend(loc="upper left")
    fig.align_ylabels([above, below])
    return save(fig, path)


# --- classes and modalities --------------------------------------------------------------------------


@styled
def draw_radar(values: Mapping[str, Mapping[str, float]], path: Path, *, metric: str, title: str) -> list[Path]:
    """The metric of each class around a circle (Figure 2); fewer than three classes become bars.

    values: modality → class → fraction, at least one; a missing or NaN value is a gap in the line. The rim is
    100 %; the centre lies below the smallest value, and the title names it.
    """
    modalities = _of(values)
    names = list(dict.fromkeys(name for m in modalities for name in values[m]))
    if len(names) < 3:
        bars = {name: {m: [values[m].get(name, np.nan)] for m in modalities} for name in names}
        return draw_modalities(bars, path, title=title, ylabel=f"{metric} (%)")
    table = np.array([[100 * values[m].get(name, np.nan) for name in names] for m in modalities])
    low = max(0.0, 20 * np.floor(np.nanmin(table) / 20 - 0.25)) if np.isfinite(table).any() else 0.0
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    fig = Figure(figsize=(COLUMN + 0.7, COLUMN + 0.5), layout="constrained")
    ax = fig.subplots(subplot_kw={"projection": "polar"})
    for modality, row in zip(modalities, table, strict=True):
        closed = np.append(angles, 2 * np.pi), np.append(row, row[0])
        style = {**look(modality), "lw": WIDTH[modality], "marker": MARKER[modality], "ms": 2.5, "clip_on": False}
        ax.plot(*closed, **style, label=modality)
        if modality == "fusion":
            ax.fill(*closed, color=COLOUR[modality], alpha=0.08, lw=0)
    _label_spokes(ax, names, angles, low)
    ax.set_title(f"{title}: {metric} (%), centre = {low:g}", pad=10)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return save(fig, path)


def _label_spokes(ax: PolarAxes, names: Sequence[str], angles: np.ndarray, low: float) -> None:
    """Class names outside the circle, clockwise from the top; the scale between the first two spokes."""
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set(ylim=(low, 100), xticks=angles)
    ax.set_xticklabels([name.replace("_", "\n").replace(" ", "\n") for name in names])
    for label, side in zip(ax.get_xticklabels(), np.sin(angles), strict=True):
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    ax.tick_params(axis="x", pad=1)
    ax.set_rlabel_position(np.degrees(angles[1]) / 2)
    ticks = np.arange(low + 20, 101, 20)
    halo = [withStroke(linewidth=2, foreground="white")]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=6.5, color="0.3", path_effects=halo)


@styled
def draw_modalities(
    results: Mapping[str, Mapping[str, Sequence[float]]], path: Path, *, title: str, ylabel: str = ""
) -> list[Path]:
    """Image, event and fusion as bars: mean over seeds ± standard deviation (n − 1), every run a dot.

    results: metric → modality → one fraction for each seed; NaN where it is not defined.
    """
    modalities = _of({m: row for row in results.values() for m in row})
    fig = Figure(figsize=(max(COLUMN, 1.0 + 1.15 * len(results)), 2.7), layout="constrained")
    ax = fig.subplots()
    width = 0.8 / len(modalities)
    for place, row in enumerate(results.values()):
        for number, modality in ((k, m) for k, m in enumerate(modalities) if m in row):
            x = place + (number - (len(modalities) - 1) / 2) * width
            _draw_bar(ax, x, width, modality, 100 * np.asarray(row[modality], float))
    ax.set(xticks=range(len(results)), ylim=(0, 112), yticks=range(0, 101, 20), ylabel=ylabel)
    ax.set_xticklabels([f"{metric} (%)" if metric in measure.PERCENT else metric for metric in results])
    ax.grid(axis="x", visible=False)
    keys = [Patch(facecolor=COLOUR[m], hatch=HATCH[m], edgecolor="white", lw=0, label=m) for m in modalities]
    fig.legend(handles=keys, loc="outside lower center", ncols=3)
    ax.set_title(title)
    return save(fig, path)


def _draw_bar(ax: Axes, x: float, width: float, modality: str, percent: np.ndarray) -> None:
    """One bar with its spread, its runs and its mean as text; n/a where a run is not defined."""
    if not np.isfinite(percent).all():
        ax.annotate("n/a", (x, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7)
        return
    spread = percent.std(ddof=1) if len(percent) > 1 else None
    ax.bar(
        x, percent.mean(), width * 0.9, color=COLOUR[modality], hatch=HATCH[modality], edgecolor="white", lw=0,
        yerr=spread, capsize=2.5, error_kw={"lw": 1.1, "ecolor": "0.6"},
    )  # fmt: skip
    if len(percent) > 1:
        places = x + width * 0.22 * np.linspace(-1, 1, len(percent))
        ax.plot(places, percent, ".", ms=4, color="white", mec="0.15", mew=0.5, zorder=4)
    top = max(percent.max(), percent.mean() + (spread or 0))
    ax.annotate(f"{percent.mean():.1f}", (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=7)


# --- masking ------------------------------------------------------------------------------------------


@styled
def draw_weight_change(change: Mapping[tuple[str, float], np.ndarray], path: Path, *, title: str) -> list[Path]:
    """Change of ŵ_i in each dimension where one modality is masked, image above event (Figure 3).

    change: (masked modality, share) → (D,). Three shares are drawn, spread from lowest to highest.
    """
    modalities = _of({modality: None for modality, _ in change})
    fig = Figure(figsize=(PAGE, 1.75 * len(modalities) + 0.5), layout="constrained")
    axes = fig.subplots(len(modalities), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, modality in zip(axes, modalities, strict=True):
        known = sorted(level for m, level in change if m == modality)
        chosen = [known[k] for k in np.unique(np.linspace(0, len(known) - 1, 3).round().astype(int))]
        # the strongest first, the weaker ones over it; light to dark and thin to thick with the level
        for rank, level in reversed(list(enumerate(chosen, 1))):
            delta, share = change[modality, level], rank / len(chosen)
            width = (0.5 if len(delta) > 128 else 0.9) * (0.6 + share)
            ax.plot(delta, color=shade(COLOUR[modality], share), lw=width, zorder=4 - share, label=f"{100 * level:g} %")
        ax.axhline(0, color="0.2", lw=0.7, zorder=5)
        ax.set(ylabel=r"$\Delta\hat{w}_i$", title=f"{modality} masked", xlim=(0, len(delta) - 1))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], title="masked share", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("embedding dimension")
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_probe_curves(probes: pd.DataFrame, path: Path, *, metric: str, title: str) -> list[Path]:
    """Metric and mean ŵ_i against the masked share, one line for each masked modality (Tables 6–9)."""
    clean = probes[probes.masked == "CLEAN"].iloc[0]
    fig = Figure(figsize=(PAGE, 2.3), layout="constrained")
    panels = ((metric, 100, f"{metric} (%)"), ("w_image", 1, r"mean $\hat{w}_i$"))
    for ax, (column, factor, name) in zip(fig.subplots(1, 2), panels, strict=True):
        for modality, masked in (("image", "IMG_NOISE"), ("event", "EV_NOISE")):
            rows = probes[probes.masked == masked].sort_values("level")
            style = {**look(modality), "marker": MARKER[modality], "ms": 4, "lw": 1.4, "clip_on": False}
            x, y = [0, *(100 * rows.level)], [factor * clean[column], *(factor * rows[column])]
            ax.plot(x, y, **style, label=f"{modality} masked")
        ax.set(xlabel="masked share (%)", ylabel=name)
        ax.set_xlim(left=0)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.legend()
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_weight_fall(changes: Mapping[tuple[str, float], Sequence[float]], path: Path, *, title: str) -> list[Path]:
    """Change of the masked modality's own weight against the masked share: mean ± std, every run a dot.

    changes: (masked modality, share) → one change for each run. Below zero the weight leaves what is masked.
    """
    fig = Figure(figsize=(COLUMN + 0.6, 2.5), layout="constrained")
    ax = fig.subplots()
    ax.axhline(0, color="0.2", lw=0.7)
    for shift, modality in ((-0.6, "image"), (0.6, "event")):
        levels = sorted(level for masked, level in changes if masked == modality)
        style = {**look(modality), "marker": MARKER[modality], "lw": 1.3, "label": f"{modality} masked"}
        _draw_means(ax, 100 * np.array(levels) + shift, [changes[modality, level] for level in levels], style)
    ax.set(xlabel="masked share (%)", ylabel=r"$\Delta\hat{w}$ of the masked modality")
    ax.legend()
    ax.set_title(title)
    return save(fig, path)


# --- many runs and one run -----------------------------------------------------------------------------


@styled
def draw_sweep(
    runs: pd.DataFrame, path: Path, *, names: Sequence[str], title: str, paper: Mapping[str, Printed] | None = None
) -> list[Path]:
    """One panel a metric: mean ± standard deviation (n − 1) for each value of a sweep, every run a dot.

    runs: a row a run with a column for each swept option of `names`, and AUC, AP, Ano-AUC as fractions.
    The first option is the x axis; each value of the others is a line. paper: value → metric → (mean, std).
    """
    runs = runs.assign(**{m: pd.to_numeric(runs[m], errors="coerce") for m in METRICS if m in runs})
    metrics = [m for m in METRICS if m in runs and runs[m].notna().any()]
    values, ordered = _swept_values(runs[names[0]])
    width = max(COLUMN, min(PAGE, 0.9 + len(metrics) * (0.9 + 0.28 * len(values))))
    fig = Figure(figsize=(width, 2.4), layout="constrained")
    lines = [("", runs)] if len(names) == 1 else list(runs.groupby(list(names[1:]), sort=False))
    for ax, metric in zip(np.ravel(fig.subplots(1, max(1, len(metrics)))), metrics, strict=False):
        for number, (key, rows) in enumerate(lines):
            groups = [100 * rows[metric][rows[names[0]].astype(str) == value].dropna() for value in values]
            label = ", ".join(map(str, key))
            colour = COLOUR.get(label, f"C{number}" if label else "0.15")
            style = {"color": colour, "marker": "osD^v"[number % 5], "lw": 0.8, "ls": "-" if ordered else "",
                     "label": label or None}  # fmt: skip
            _draw_means(ax, np.arange(len(values)) + 0.08 * number, groups, style, beside=0.16)
        _draw_paper(ax, [(paper or {}).get(value, {}).get(metric) for value in values])
        long = sum(map(len, values)) > 24
        ax.set(xlim=(-0.5, len(values) - 0.5), xlabel=names[0], title=f"{metric} (%)")
        ax.set_xticks(range(len(values)), values, rotation=30 if long else 0, ha="right" if long else "center")
        ax.grid(axis="x", visible=False)
    counts = sorted(set(runs.groupby(list(names)).size()))
    number = "–".join(map(str, (counts[0], counts[-1])[: len(counts)]))
    over = "one run each" if counts == [1] else f"mean ± std over {number} runs, every run a dot"
    fig.suptitle(f"{title}: {over}")
    keys = {label: key for ax in fig.axes for key, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if keys:  # outside the panels, where it hides nothing
        title = ", ".join(names[1:]) or None
        fig.legend(keys.values(), keys.keys(), title=title, loc="outside lower center", ncols=4)
    return save(fig, path)


def _swept_values(column: pd.Series) -> tuple[list[str], bool]:
    """The distinct values as text, and whether they are numbers, which are then sorted."""
    values = list(dict.fromkeys(column.astype(str)))
    ordered = bool(pd.to_numeric(column, errors="coerce").notna().all())
    return sorted(values, key=float) if ordered else values, ordered


def _draw_paper(ax: Axes, printed: Sequence[tuple[float | None, float | None] | None]) -> None:
    """The paper's means, in percent, as hollow squares beside ours."""
    known = [(x, *pair) for x, pair in enumerate(printed) if pair and pair[0] is not None]
    for number, (x, mean, std) in enumerate(known):
        ax.errorbar(x - 0.16, mean, std, color="0.55", mfc="white", marker="s", ms=4, lw=1.0, ls="none", capsize=2.5,
                    label=None if number else "paper")  # fmt: skip


def _draw_means(
    ax: Axes, x: Sequence[float], groups: Sequence[Sequence[float]], style: Mapping[str, object], beside: float = 0.0
) -> None:
    """Mean ± standard deviation (n − 1) of the values at each x, every value a dot; n/a where there is none."""
    rows = [np.asarray(group, float) for group in groups]
    for place, row in zip(x, rows, strict=True):
        colour = shade(matplotlib.colors.to_hex(style["color"]), 0.4)
        ax.plot(np.full(len(row), place + beside), row, ".", ms=3.5, color=colour, mew=0, zorder=1)
        if not len(row):
            ax.annotate("n/a", (place, 0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=7)
    means = [row.mean() if len(row) else np.nan for row in rows]
    spread = [row.std(ddof=1) if len(row) > 1 else 0.0 for row in rows]
    ax.errorbar(x, means, spread, ms=4, capsize=2.5, **style)


@styled
def draw_training(log: pd.DataFrame, path: Path, *, title: str) -> list[Path]:
    """Loss with its terms, and the metrics on the test set, along training.

    log: a row an evaluation with `step`, `epoch`, `loss`, terms (`loss_…`) and AUC, AP, Ano-AUC as fractions.
    """
    fig = Figure(figsize=(PAGE, 2.4), layout="constrained")
    left, right = fig.subplots(1, 2, sharex=True)
    marker = "." if len(log) < 15 else ""  # dots would hide the dashes of a long line
    left.plot(log.step, log.loss, color="0.1", lw=1.8, marker=marker, label="total")
    dashes = ("--", ":", "-.", (0, (6, 2)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
    for number, column in enumerate(name for name in log if name.startswith("loss_")):
        label, ls = column.removeprefix("loss_").replace("_", " "), dashes[number % len(dashes)]
        left.plot(log.step, log[column], color=f"C{number + 3}", ls=ls, lw=1.2, marker=marker, label=label)
    measured = [metric for metric in METRICS if metric in log]
    for column, style, grey in zip(measured, ("-", "--", ":"), ("0", "0.4", "0.2"), strict=False):
        right.plot(log.step, 100 * log[column], color=grey, ls=style, marker=marker, lw=1.5, label=column)
    epochs = log.step[log.epoch.diff() > 0]
    left.set(ylabel="loss")
    right.set(ylabel="test set (%)")
    for ax in (left, right):
        for step in epochs:
            ax.axvline(step, color="0.85", lw=0.5, zorder=0)
        ax.set_xlabel("training step" + (" (grey lines: epochs)" if len(epochs) else ""))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="x", visible=False)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the lines
    fig.suptitle(title)
    return save(fig, path)
