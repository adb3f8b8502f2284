"""Every number of several groups of runs side by side: what the paper reports and what it leaves out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from vad.cells import interval_cell, marked, metric_label, undefined_notes, value_cell
from vad.protocol import Protocol
from vad.table import NAN, Table
from vad.tables import INTERVAL, INTERVAL_NOTE, Intervals, about_metrics


def numbers_table(
    groups: Mapping[str, Sequence[Mapping[str, float]]], intervals: Mapping[str, Intervals], protocol: Protocol
) -> Table:
    """A row a number, for each group its mean ± standard deviation (n − 1) over runs and its interval over videos.

    groups: what the runs have in common → metrics of each. intervals: the same → what `vad.bootstrap.intervals`
    returns for the mean over the runs; of three groups the last alone shows it, or no terminal would be wide enough.
    """
    names = list(next(iter(groups.values()))[0])
    shown = list(groups) if len(groups) < 3 else list(groups)[-1:]
    rows = []
    for name in names:
        cells = [metric_label(name)]
        for group, runs in groups.items():
            cells.append(marked(_spread(name, [run[name] for run in runs]), protocol.mark))
            cells += [interval_cell(name, intervals[group].get(name))] if group in shown else []
        rows.append(tuple(cells))
    columns = ["metric"]
    for group, runs in groups.items():
        columns += [f"{group} (n = {len(runs)})", *([INTERVAL] if group in shown else [])]
    undefined = [note for runs in groups.values() for run in runs for note in undefined_notes(run)]
    notes = [INTERVAL_NOTE, *about_metrics(names), *dict.fromkeys(undefined), *protocol.notes(beside_paper=False)]
    title = f"{protocol.dataset.title}: every number, mean ± std over runs"
    return Table(title, protocol.line(omit=("runs", "noise_model")), tuple(columns), tuple(rows), tuple(notes))


def _spread(name: str, values: Sequence[float]) -> str:
    if any(map(math.isnan, values)):
        return NAN
    mean = value_cell(name, statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {value_cell(name, statistics.stdev(values))}"
