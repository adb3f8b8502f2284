"""Tables of many runs, mean ± std over seeds: kinds of runs below each other, or every number of a few side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from vad.cells import interval_cell, marked, mean_cell, metric_label, undefined_notes, value_cell
from vad.data import MODALITIES
from vad.errors import InputError
from vad.protocol import SELECTED, Protocol
from vad.table import MARK, NAN, NONE, Table
from vad.tables import INTERVAL, INTERVAL_NOTE, Intervals, about_metrics


def compare_runs(rows: Sequence[tuple[Mapping[str, object], Mapping[str, float]]], protocol: Protocol) -> Table:
    """Runs that differ in their seed only become one row: mean ± standard deviation (n − 1) and the number of runs.

    rows: (settings, metrics) of each run; settings hold `modality`, `seed` and whatever else tells the runs apart,
    which becomes a column where it varies. Raises InputError for two runs with the same settings and seed.
    """
    if not rows:
        raise InputError("no run to compare")
    varying = sorted({k for settings, _ in rows for k in settings} - {"modality", "seed"})
    varying = [k for k in varying if len({str(settings.get(k, NONE)) for settings, _ in rows}) > 1]
    groups: dict[tuple[str, ...], dict[object, Mapping[str, float]]] = {}
    marks: dict[tuple[str, ...], str] = {}  # beside numbers of weights that were selected on the test set
    for number, (settings, metrics) in enumerate(rows):
        key = (str(settings.get("modality", "fusion")), *(str(settings.get(k, NONE)) for k in varying))
        seed = settings.get("seed", f"run {number}")
        if seed in groups.setdefault(key, {}):
            raise InputError(f"two runs of {', '.join(key)} have seed {seed}; name each run once")
        groups[key][seed] = metrics
        marks[key] = MARK if settings.get("weights", protocol.weights) in SELECTED else ""
    order = {name: k for k, name in enumerate(MODALITIES)}
    keys = sorted(groups, key=lambda key: (key[1:], order.get(key[0], len(order))))
    shown = [m for m in ("AUC", "AP", "Ano-AUC") if all(m in metrics for _, metrics in rows)]
    cells = tuple(
        (*key, str(len(groups[key])),
         *(marked(mean_cell(run[metric] for run in groups[key].values()), marks[key]) for metric in shown))
        for key in keys
    )  # fmt: skip
    columns = ("modality", *varying, "runs", *(metric_label(metric) for metric in shown))
    fusions = [key for key in keys if key[0] == "fusion"]
    notes = [note for key in fusions for note in _fusion_gains(groups, key, protocol.dataset.metric)]
    notes += protocol.notes(beside_paper=False)
    title = f"{protocol.dataset.title}: mean ± std over seeds"
    return Table(title, protocol.line(omit=varying), columns, cells, tuple(notes))


def _fusion_gains(
    groups: Mapping[tuple[str, ...], Mapping[object, Mapping[str, float]]], key: tuple[str, ...], metric: str
) -> list[str]:
    """Fusion against either modality alone, seed by seed: a mean can hide that one seed made it."""
    notes = []
    for other in ("image", "event"):
        rival = groups.get((other, *key[1:]), {})
        gains = [groups[key][seed][metric] - rival[seed][metric] for seed in groups[key] if seed in rival]
        if gains:
            where = f" ({', '.join(key[1:])})" if key[1:] else ""
            higher = sum(gain > 0 for gain in gains)
            mean = f"{metric} {100 * statistics.fmean(gains):+.2f} points"
            notes.append(f"fusion − {other}{where}: {mean}, higher in {higher} of {len(gains)} seeds.")
    return notes


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
