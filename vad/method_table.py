"""Table 1: the methods the paper compares, and our runs below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from vad.cells import (
    SPREAD_NOTE,
    difference_cell,
    interval_cell,
    marked,
    mean_cell,
    metric_label,
    spread_cell,
    undefined_notes,
)
from vad.paper import PAPER, paper_method
from vad.protocol import Protocol
from vad.table import NONE, Table
from vad.tables import INTERVAL, INTERVAL_NOTE, Intervals

Runs = Sequence[Mapping[str, float]]  # the metrics of each run


def method_table(
    runs: Mapping[str, Runs], protocol: Protocol, intervals: Mapping[str, Intervals] | None = None
) -> Table:
    """Table 1 of one data set: the peers as printed, the paper's two rows, then ours and how far they are off.

    runs: noise model → metrics of its runs, which become mean ± standard deviation (n − 1). intervals: noise model →
    what `vad.bootstrap.intervals` returns, for a row. A data set the paper does not have gets our rows alone.
    """
    dataset = protocol.dataset
    in_paper = dataset.name in PAPER["table1"]["metric"]
    measured = PAPER["table1"]["metric"].get(dataset.name, [dataset.metric])
    metrics = tuple(dict.fromkeys((*measured, "Ano-AUC")))
    rows = _printed_rows(dataset.name, metrics)
    for noise_model, several in runs.items():
        name = paper_method(noise_model)
        cells = [mean_cell([run[metric] for run in several]) for metric in metrics]
        rows.append((f"{name}, here", str(len(several)), *(marked(cell, protocol.mark) for cell in cells)))
        printed = dict(zip(measured, PAPER["table1"]["rows"][name].get(dataset.name, ()), strict=False))
        if printed:
            means = {metric: fmean(run[metric] for run in several) for metric in metrics}
            differences = (difference_cell(metric, means[metric], printed.get(metric)) for metric in metrics)
            rows.append(("  here − paper", "", *differences))
        if intervals:
            bounds = (interval_cell(metric, intervals[noise_model].get(metric)) for metric in metrics)
            rows.append((f"  {INTERVAL}", "", *bounds))
    notes = [SPREAD_NOTE] if in_paper or any(len(several) > 1 for several in runs.values()) else []
    notes += [INTERVAL_NOTE] if intervals else []
    notes += [note for several in runs.values() for run in several for note in undefined_notes(_only(run, metrics))]
    if in_paper and any(len(several) == 1 for several in runs.values()):
        notes.append("One run beside a mean of ten: a difference smaller than the paper's ± says nothing.")
    title = f"Table 1, {dataset.title}"
    columns = ("method", "runs", *map(metric_label, metrics))
    header = protocol.line(omit=("noise_model", "runs"))
    return Table(title, header, columns, tuple(rows), (*dict.fromkeys(notes), *protocol.notes(in_paper)))


def _printed_rows(name: str, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """The paper's rows for one data set, none where it has no column for it."""
    columns = PAPER["table1"]["metric"].get(name, ())
    rows = []
    for method, row in PAPER["table1"]["rows"].items():
        if name not in row:
            continue
        spreads = row.get(f"{name}_std", [None] * len(columns))
        printed = {m: spread_cell(*pair) for m, pair in zip(columns, zip(row[name], spreads, strict=True), strict=True)}
        runs = str(PAPER["table1"]["runs"]) if f"{name}_std" in row else NONE
        rows.append((f"{method}, paper" if runs != NONE else method, runs, *(printed.get(m, NONE) for m in metrics)))
    return rows


def _only(run: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: run[name] for name in names}
