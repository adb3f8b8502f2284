"""A training run as a picture: loss with its terms, and the metrics along the way."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vad import plotting
from vad.errors import InputError
from vad.plotting import PAGE, styled


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
    marker = "." if len(log) < 15 else ""  # a dot for each evaluation, unless the dots would hide the dashes
    left.plot(log.step, log.loss, color="0.1", lw=1.8, marker=marker, label="total")
    # distinct in grey by their dashes; no modality is meant, so no modality's colour
    dashes = ("--", ":", "-.", (0, (6, 2)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
    for number, column in enumerate(terms):
        left.plot(log.step, log[column], color=f"C{number + 3}", ls=dashes[number % len(dashes)], lw=1.2, marker=marker,
                  label=str(column).removeprefix("loss_").replace("_", " "))
    left.set(ylabel="loss", xlabel="training step")
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
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the lines, wherever they go next
    fig.suptitle(title, fontsize=9)
    return plotting.save(fig, path_without_suffix)
