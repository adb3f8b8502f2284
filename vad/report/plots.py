"""Draw the figures of results: score curves, classes, masking, sweeps and training.

In every figure image is blue and solid, event orange and dashed, sound purple and dotted, fusion dark green and
thick. They also differ in greyscale. Every `draw_…` function writes <path>.png and <path>.pdf, returns both paths
and leaves rcParams unchanged.
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

COLOUR = {
    "image": "#1f6fb4", "event": "#e8820c", "fusion": "#0b4a32", "audio": "#9b3fa5",
    "image+audio": "#5a57b0", "event+audio": "#b5484a", "image+event+audio": "#111111",
}  # fmt: skip
LINE = dict.fromkeys(COLOUR, "-") | {
    "event": (0, (4, 1.5)), "audio": (0, (1.2, 1.2)), "image+audio": (0, (6, 1.5)), "event+audio": (0, (3, 1, 1, 1)),
}  # fmt: skip
WIDTH = dict.fromkeys(COLOUR, 1.3) | {"fusion": 2.0, "image+event+audio": 2.0}
MARKER = {
    "image": "o", "event": "s", "fusion": "D", "audio": "^", "image+audio": "v", "event+audio": "P",
    "image+event+audio": "X",
}  # fmt: skip
HATCH = dict.fromkeys(COLOUR, "") | {"event": "////", "audio": "....", "image+audio": "xxxx", "event+audio": "++++"}
OTHER_COLOURS = ("C3", "C4", "C5", "C6", "C7", "C8")  # matplotlib's C0–C2 resemble image, event and fusion
GROUND_TRUTH = "#d9a3a3"
COLUMN, PAGE = 3.5, 7.0  # width in inches of one column and of the page
Videos = Mapping[str, Sequence[ScoredVideo]]  # modality → videos
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "figure.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "pdf.fonttype": 42,  # embeds fonts, so that the PDF's text can be selected
    "svg.hashsalt": "figure",  # makes the file's internal ids reproducible
}  # fmt: skip
styled = matplotlib.rc_context(STYLE)


def line_style(modality: str) -> dict[str, object]:
    """Return the colour and dash pattern of a modality's lines."""
    return {"color": COLOUR[modality], "ls": LINE[modality]}


def shade(colour: str, share: float) -> tuple[float, float, float]:
    """Return the colour mixed with white; share 0 is nearly white, 1 the pure colour."""
    mix = 0.25 + 0.75 * share
    return tuple(1 - mix * (1 - channel) for channel in matplotlib.colors.to_rgb(colour))


def save(fig: Figure, path: Path, suffixes: Sequence[str] = (".png", ".pdf"), about: str | None = None) -> list[Path]:
    """Write a figure atomically and reproducibly. about: description stored in an .svg file."""
    FigureCanvasAgg(fig)
    fig.draw_without_rendering()  # a legend outside the axes needs a second layout pass
    options = {
        ".png": {"dpi": 200},
        ".pdf": {"metadata": {"CreationDate": None}},
        ".svg": {"metadata": {"Date": None, "Description": about}},
    }
    paths = [path.with_name(path.name + suffix) for suffix in suffixes]  # with_suffix would cut a name at its dot
    for target, suffix in zip(paths, suffixes, strict=True):
        with atomic_write(target) as part:
            # the layout ignores the labels of polar axes; a tight box keeps them
            fig.savefig(part, format=suffix[1:], bbox_inches="tight", pad_inches=0.05, **options[suffix])
    return paths


def _in_order(modalities: Mapping[str, object]) -> list[str]:
    """Return the given modalities in the order of `MODALITIES`."""
    return [modality for modality in MODALITIES if modality in modalities]


# --- scores of one evaluation ------------------------------------------------------------------------


@styled
def draw_curves(videos: Videos, path: Path, *, title: str) -> list[Path]:
    """Draw the frame-level ROC and precision–recall curve of each modality, with chance level.

    videos: must contain both normal and anomalous frames.
    """
    fig = Figure(figsize=(PAGE, 3.9), layout="constrained")
    roc_axes, pr_axes = fig.subplots(1, 2)
    for modality in _in_order(videos):
        data, style = measure.samples(videos[modality]), {**line_style(modality), "lw": WIDTH[modality]}
        base = data.positive.sum() / data.frames.sum()
        roc_axes.plot(*measure.roc(data), **style, label=f"{modality}: AUC {100 * measure.roc_auc(data):.2f} %")
        # the area under the step function is the average precision
        label = f"{modality}: AP {100 * measure.average_precision(data):.2f} %"
        pr_axes.step(*measure.precision_recall(data), where="post", **style, label=label)
    roc_axes.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="chance")
    pr_axes.axhline(base, color="0.6", ls=":", lw=1, label=f"chance ({100 * base:.1f} % of frames)")
    roc_axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve")
    pr_axes.set(xlabel="recall", ylabel="precision", title="precision–recall curve")
    for ax in (roc_axes, pr_axes):
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        # a legend inside the axes would hide a curve
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, columnspacing=1.2)
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_reliability(videos: Videos, path: Path, *, title: str) -> list[Path]:
    """Draw a reliability diagram: the fraction of anomalous frames against the mean score of each bin.

    A perfectly calibrated score lies on the diagonal. The lower panel counts the frames of each bin on a log scale.
    """
    fig = Figure(figsize=(COLUMN + 0.3, 4.3), layout="constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    above.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="perfectly calibrated")
    highest = 5.0
    for modality in _in_order(videos):
        data = measure.samples(videos[modality])
        curve, style = measure.reliability(data), {**line_style(modality), "lw": WIDTH[modality]}
        label = f"{modality}: ECE {measure.calibration_error(data):.3f}"
        filled = curve[curve.frames > 0]
        dots = {"marker": MARKER[modality], "ms": 3.5, "clip_on": False, "zorder": 3}
        above.plot(filled.score, filled.observed, **style, **dots, label=label)
        # a logarithmic axis cannot show 0, so the step ends at the axis
        below.stairs(np.maximum(curve.frames, 0.5), np.linspace(0, 1, measure.BINS + 1), **style)
        highest = max(highest, float(curve.frames.max()))
    below.set(yscale="log", ylim=(0.8, 2 * highest), xlabel="anomaly score", ylabel="frames per bin")
    below.yaxis.set_major_locator(LogLocator(numticks=6))
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="fraction of anomalous frames", title=title)
    above.legend(loc="upper left")
    fig.align_ylabels([above, below])
    return save(fig, path)


# --- classes and modalities --------------------------------------------------------------------------


@styled
def draw_radar(values: Mapping[str, Mapping[str, float]], path: Path, *, metric: str, title: str) -> list[Path]:
    """Draw a radar chart of the metric of each class (Figure 2), or bars for fewer than three classes.

    values: modality → class → fraction, not empty; a missing or NaN value leaves a gap. The rim is 100 %. The
    centre is below the smallest value and is given in the title.
    """
    modalities = _in_order(values)
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
        style = {**line_style(modality), "lw": WIDTH[modality], "marker": MARKER[modality], "ms": 2.5, "clip_on": False}
        ax.plot(*closed, **style, label=modality)
        if modality == "fusion":
            ax.fill(*closed, color=COLOUR[modality], alpha=0.08, lw=0)
    _label_spokes(ax, names, angles, low)
    ax.set_title(f"{title}: {metric} (%), centre = {low:g}", pad=10)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return save(fig, path)


def _label_spokes(ax: PolarAxes, names: Sequence[str], angles: np.ndarray, low: float) -> None:
    """Put class names around the circle, clockwise from the top, and the scale between the first two spokes."""
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set(ylim=(low, 100), xticks=angles)
    ax.set_xticklabels([name.replace("_", "\n").replace(" ", "\n") for name in names])
    for label, x in zip(ax.get_xticklabels(), np.sin(angles), strict=True):
        label.set_horizontalalignment("center" if abs(x) < 0.1 else "left" if x > 0 else "right")
    ax.tick_params(axis="x", pad=1)
    ax.set_rlabel_position(np.degrees(angles[1]) / 2)
    ticks = np.arange(low + 20, 101, 20)
    halo = [withStroke(linewidth=2, foreground="white")]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=6.5, color="0.3", path_effects=halo)


@styled
def draw_modalities(
    results: Mapping[str, Mapping[str, Sequence[float]]], path: Path, *, title: str, ylabel: str = ""
) -> list[Path]:
    """Draw bars of each modality: mean ± standard deviation (n − 1) over seeds, one dot per run.

    results: metric → modality → one fraction per seed, NaN if undefined.
    """
    modalities = _in_order({m: row for row in results.values() for m in row})
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
    """Draw one bar with error bar, runs and mean value, or "n/a" if a run is undefined."""
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
    """Draw the change in ŵ_i of each embedding dimension when one modality is masked (Figure 3).

    change: (masked modality, masking ratio) → (D,). The lowest, middle and highest ratio are drawn.
    """
    modalities = _in_order({modality: None for modality, _ in change})
    fig = Figure(figsize=(PAGE, 1.75 * len(modalities) + 0.5), layout="constrained")
    axes = fig.subplots(len(modalities), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, modality in zip(axes, modalities, strict=True):
        levels = sorted(level for m, level in change if m == modality)
        chosen = [levels[k] for k in np.unique(np.linspace(0, len(levels) - 1, 3).round().astype(int))]
        # the highest ratio is drawn first, so that it hides nothing; darker and thicker lines mean higher ratios
        for rank, level in reversed(list(enumerate(chosen, 1))):
            delta, share = change[modality, level], rank / len(chosen)
            width = (0.5 if len(delta) > 128 else 0.9) * (0.6 + share)
            ax.plot(delta, color=shade(COLOUR[modality], share), lw=width, zorder=4 - share, label=f"{100 * level:g} %")
        ax.axhline(0, color="0.2", lw=0.7, zorder=5)
        ax.set(ylabel=r"change in $\hat{w}_i$", title=f"{modality} masked", xlim=(0, len(delta) - 1))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], title="masking ratio", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("embedding dimension")
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_masking_curves(response: pd.DataFrame, path: Path, *, metric: str, title: str) -> list[Path]:
    """Draw metric and mean ŵ of the first stream against the masking ratio, a line per masked modality (Tables 6–9)."""
    clean = response[response.masked == "CLEAN"].iloc[0]
    fig = Figure(figsize=(PAGE, 2.3), layout="constrained")
    weight = next(name for name in response if name.startswith("w_"))  # of the first stream
    panels = ((metric, 100, f"{metric} (%)"), (weight, 1, rf"fusion weight $\hat{{w}}_{weight[2]}$"))
    for ax, (column, factor, name) in zip(fig.subplots(1, 2), panels, strict=True):
        for modality, masked in (("image", "IMG_NOISE"), ("event", "EV_NOISE"), ("audio", "AU_NOISE")):
            rows = response[response.masked == masked].sort_values("level")
            if rows.empty:
                continue
            style = {**line_style(modality), "marker": MARKER[modality], "ms": 4, "lw": 1.4, "clip_on": False}
            x, y = [0, *(100 * rows.level)], [factor * clean[column], *(factor * rows[column])]
            ax.plot(x, y, **style, label=f"{modality} masked")
        ax.set(xlabel="masking ratio (%)", ylabel=name)
        ax.set_xlim(left=0)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.legend()
    fig.suptitle(title)
    return save(fig, path)


@styled
def draw_weight_drop(changes: Mapping[tuple[str, float], Sequence[float]], path: Path, *, title: str) -> list[Path]:
    """Draw the change in the masked modality's weight against the masking ratio: mean ± std, one dot per run.

    changes: (masked modality, masking ratio) → one change per run; negative if the weight drops as expected.
    """
    fig = Figure(figsize=(COLUMN + 0.6, 2.5), layout="constrained")
    ax = fig.subplots()
    ax.axhline(0, color="0.2", lw=0.7)
    masked_streams = _in_order({modality: None for modality, _ in changes})
    for shift, modality in zip(np.linspace(-0.6, 0.6, len(masked_streams)), masked_streams, strict=True):
        levels = sorted(level for masked, level in changes if masked == modality)
        style = {**line_style(modality), "marker": MARKER[modality], "lw": 1.3, "label": f"{modality} masked"}
        _draw_means(ax, 100 * np.array(levels) + shift, [changes[modality, level] for level in levels], style)
    ax.set(xlabel="masking ratio (%)", ylabel=r"change in $\hat{w}$ of masked modality")
    ax.legend()
    ax.set_title(title)
    return save(fig, path)


# --- many runs and one run -----------------------------------------------------------------------------


@styled
def draw_sweep(
    runs: pd.DataFrame, path: Path, *, names: Sequence[str], title: str, paper: Mapping[str, Printed] | None = None
) -> list[Path]:
    """Draw a sweep, one panel per metric: mean ± standard deviation (n − 1) per value, one dot per run.

    runs: one row per run with the options in `names`, and AUC, AP, Ano-AUC as fractions. The first option is on
    the x axis; each value of the others is a line. paper: value → metric → (mean, std).
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
            colour = COLOUR.get(label, OTHER_COLOURS[number % len(OTHER_COLOURS)] if label else "0.15")
            style = {"color": colour, "marker": "osD^v"[number % 5], "lw": 0.8, "ls": "-" if ordered else "",
                     "label": label or None}  # fmt: skip
            _draw_means(ax, np.arange(len(values)) + 0.08 * number, groups, style, beside=0.16)
        _draw_paper(ax, [(paper or {}).get(value, {}).get(metric) for value in values])
        long = sum(map(len, values)) > 24
        ax.set(xlim=(-0.5, len(values) - 0.5), xlabel=names[0], ylabel=f"{metric} (%)")
        ax.set_xticks(range(len(values)), values, rotation=30 if long else 0, ha="right" if long else "center")
        ax.grid(axis="x", visible=False)
    counts = sorted(set(runs.groupby(list(names)).size()))
    number = "–".join(map(str, (counts[0], counts[-1])[: len(counts)]))
    over = "one run each" if counts == [1] else f"mean ± std over {number} runs, one dot per run"
    fig.suptitle(f"{title}: {over}")
    keys = {label: key for ax in fig.axes for key, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if keys:  # a legend inside the panels would hide data
        title = ", ".join(names[1:]) or None
        fig.legend(keys.values(), keys.keys(), title=title, loc="outside lower center", ncols=4)
    return save(fig, path)


def _swept_values(column: pd.Series) -> tuple[list[str], bool]:
    """Return the distinct values as text, sorted if they are numbers, and whether they are."""
    values = list(dict.fromkeys(column.astype(str)))
    ordered = bool(pd.to_numeric(column, errors="coerce").notna().all())
    return sorted(values, key=float) if ordered else values, ordered


def _draw_paper(ax: Axes, printed: Sequence[tuple[float | None, float | None] | None]) -> None:
    """Draw the paper's means (in percent) as hollow squares beside our means."""
    points = [(x, *pair) for x, pair in enumerate(printed) if pair and pair[0] is not None]
    for number, (x, mean, std) in enumerate(points):
        ax.errorbar(x - 0.16, mean, std, color="0.55", mfc="white", marker="s", ms=4, lw=1.0, ls="none", capsize=2.5,
                    label=None if number else "paper")  # fmt: skip


def _draw_means(
    ax: Axes, x: Sequence[float], groups: Sequence[Sequence[float]], style: Mapping[str, object], beside: float = 0.0
) -> None:
    """Draw mean ± standard deviation (n − 1) at each x, one dot per value, or "n/a" without values."""
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
    """Draw the loss with its terms, and the test-set metrics, over the training steps.

    log: one row per evaluation with `step`, `epoch`, `loss`, its terms `loss_…`, and the metrics as fractions.
    """
    fig = Figure(figsize=(PAGE, 2.4), layout="constrained")
    loss_axes, metric_axes = fig.subplots(1, 2, sharex=True)
    marker = "." if len(log) < 15 else ""  # many dots would hide the dash pattern
    loss_axes.plot(log.step, log.loss, color="0.1", lw=1.8, marker=marker, label="total loss")
    dashes = ("--", ":", "-.", (0, (6, 2)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
    for number, column in enumerate(name for name in log if name.startswith("loss_")):
        # the KL term of a stream has the stream's colour
        colour = COLOUR.get(column.rpartition("_")[2], OTHER_COLOURS[number % len(OTHER_COLOURS)])
        style = {"color": colour, "ls": dashes[number % len(dashes)], "lw": 1.2}
        label = column.removeprefix("loss_").replace("_", " ").replace("kl", "KL")
        loss_axes.plot(log.step, log[column], **style, marker=marker, label=label)
    metrics = [metric for metric in METRICS if metric in log]
    for column, style, grey in zip(metrics, ("-", "--", ":"), ("0", "0.4", "0.2"), strict=False):
        metric_axes.plot(log.step, 100 * log[column], color=grey, ls=style, marker=marker, lw=1.5, label=column)
    epochs = log.step[log.epoch.diff() > 0]
    loss_axes.set(ylabel="loss")
    metric_axes.set(ylabel="metric on the test set (%)")
    for ax in (loss_axes, metric_axes):
        for step in epochs:
            ax.axvline(step, color="0.85", lw=0.5, zorder=0)
        ax.set_xlabel("training step" + (" (grey lines: new epochs)" if len(epochs) else ""))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="x", visible=False)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # right of the axes, where it hides no line
    fig.suptitle(title)
    return save(fig, path)
