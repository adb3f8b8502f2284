"""Pictures of sweeps: mean and spread over seeds for each value with every run as a dot; a grid as a heat map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vad import plotting
from vad.plotting import COLOUR, COLUMN, MARKER, PAGE, styled
from vad.run_log import METRICS
from vad.sweep_table import SweepResult, is_number, paper_sweep
from vad.sweeps import shown

PLAIN = "0.15"  # no modality is meant: no modality's colour
PAPER_LOOK = {"color": "0.55", "mfc": "white", "marker": "s", "ms": 4, "lw": 1.0, "ls": "none", "capsize": 2.5}


@styled
def draw_sweep(result: SweepResult, path_without_suffix: Path) -> list[Path]:
    """One panel a metric for one sweep, with the paper's numbers where it has them; a heat map for a grid of two.

    Error bars are the standard deviation over seeds (n − 1). Three sweeps and more stand as one row of cells.
    """
    if len(result.names) == 2 and min(len({key[k] for key in result.groups}) for k in (0, 1)) > 1:
        return _draw_grid(result, path_without_suffix)
    metrics = [m for m in METRICS if any(np.isfinite(list(result.values(k, m).values())).any() for k in result.groups)]
    wide = max(COLUMN, min(PAGE, 0.9 + len(metrics) * (0.9 + 0.28 * len(result.groups))))
    fig = Figure(figsize=(wide, 2.4), layout="constrained")
    for ax, metric in zip(np.ravel(fig.subplots(1, max(1, len(metrics)))), metrics, strict=False):
        _draw_panel(ax, result, metric)
    dataset = result.protocol.dataset.title
    runs = {len(group) for group in result.groups.values()}
    of = f"{min(runs)}–{max(runs)}" if len(runs) > 1 else f"{max(runs)}"
    over = "one run each" if runs == {1} else f"mean ± std over {of} runs, every run a dot"
    fig.suptitle(f"{dataset}: {over}", fontsize=9)
    keys = {label: key for ax in fig.axes for key, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if keys:  # outside the panels, where it cannot be taken for a number
        fig.legend(keys.values(), keys.keys(), loc="outside lower center")
    return plotting.save(fig, path_without_suffix)


def _draw_panel(ax: Axes, result: SweepResult, metric: str) -> None:
    keys = list(result.groups)
    ordered = len(result.names) == 1 and all(is_number(key[0]) for key in keys)
    if ordered:
        keys.sort(key=lambda key: float(key[0]))
    _, printed = paper_sweep(result)
    for x, key in enumerate(keys):
        values = 100 * np.array(list(result.values(key, metric).values()))
        values = values[np.isfinite(values)]
        if not len(values):
            ax.annotate("n/a", (x, 0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=7)
            continue
        modality = key[result.names.index("modality")] if "modality" in result.names else None
        spread = values.std(ddof=1) if len(values) > 1 else None
        ax.plot(x + 0.16 + np.linspace(0, 0.1, len(values)), values, ".", ms=4, color="0.45", mew=0)
        ax.errorbar(x, values.mean(), spread, color=COLOUR.get(modality, PLAIN), marker=MARKER.get(modality, "o"),
                    ms=4, capsize=2.5, lw=1.2)  # fmt: skip
        if metric in printed.get(key, {}):
            mean, std = printed[key][metric]
            label = None if ax.get_legend_handles_labels()[0] else "paper"
            ax.errorbar(x - 0.16, mean, std, label=label, **PAPER_LOOK)
    if ordered:
        means = [100 * np.mean(list(result.values(key, metric).values())) for key in keys]
        ax.plot(range(len(keys)), means, color=PLAIN, lw=0.8, zorder=1)
    ax.set(xticks=range(len(keys)), xlim=(-0.5, len(keys) - 0.5), title=f"{metric} (%)")
    labels = [", ".join(key) for key in keys]
    long = sum(map(len, labels)) > 24
    ax.set_xticklabels(labels, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_xlabel(", ".join(map(shown, result.names)))
    ax.grid(axis="x", visible=False)


def _draw_grid(result: SweepResult, path_without_suffix: Path) -> list[Path]:
    """The dataset's own metric in every cell, mean ± std as text, light to dark as grey print keeps it."""
    metric = result.protocol.dataset.metric
    down, across = (list(dict.fromkeys(key[k] for key in result.groups)) for k in (0, 1))
    means, texts = np.full((len(down), len(across)), np.nan), {}
    for key in result.groups:
        values = 100 * np.array(list(result.values(key, metric).values()))
        place = down.index(key[0]), across.index(key[1])
        means[place] = values.mean()
        spread = f"\n± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        texts[place] = f"{values.mean():.1f}{spread}" if np.isfinite(values).all() else "n/a"
    size = (max(COLUMN, 1.2 + 0.62 * len(across)), 1.1 + 0.42 * len(down))
    fig = Figure(figsize=size, layout="constrained")
    ax = fig.subplots()
    image = ax.imshow(means, cmap="cividis", aspect="auto")
    finite = means[np.isfinite(means)]
    middle = (finite.min() + finite.max()) / 2 if len(finite) else 0.0
    for (row, column), text in texts.items():
        dark = means[row, column] < middle
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    ax.set(xticks=range(len(across)), yticks=range(len(down)))
    ax.set(xlabel=shown(result.names[1]), ylabel=shown(result.names[0]))
    ax.set_xticklabels(across)
    ax.set_yticklabels(down)
    ax.grid(False)
    fig.colorbar(image, label=f"{metric} (%)")
    ax.set_title(f"{result.protocol.dataset.title}: {metric}, mean ± std over seeds")
    return plotting.save(fig, path_without_suffix)
