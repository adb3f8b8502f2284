"""Tables of results beside the paper's numbers: Tables 1 – 5 and seeds; runs are rows of a frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from vad.evaluation import MARK, SELECTED, Protocol
from vad.experiments import BEST, SweepResult, short_name
from vad.metrics import UNDEFINED
from vad.options import MODALITIES, option_fields
from vad.report.paper import METRICS, PAPER, Printed, paper_method, paper_methods, paper_numbers, paper_sweep
from vad.report.table import (
    NAN,
    NONE,
    SEPARATOR,
    SPREAD_NOTE,
    Table,
    definition_notes,
    difference_cell,
    interval_cell,
    marked,
    mean_cell,
    metric_label,
    spread_cell,
    undefined_notes,
    value_cell,
)
from vad.statistics import (
    LEVEL,
    PAIRED_NOTE,
    RESAMPLES,
    SEED,
    PairedComparison,
    compare_paired,
    multiple_tests_note,
    smallest_p,
)

INTERVAL = "95 % interval"
INTERVAL_NOTE = (f"{INTERVAL}: percentiles over {RESAMPLES} resamples of the test videos (seed {SEED}), "
                 "without those in which the number is undefined.")  # fmt: skip
LACKING = (None, None)  # mean and spread of a number that the paper has not
Intervals = Mapping[str, tuple[float, float]]  # metric → bounds, as fractions


# runs as a frame


def varying_options(runs: pd.DataFrame) -> list[str]:
    """Options, and `weights`, that are not the same in all runs; modality and seed left out."""
    names = ["weights", *(f.name for f in option_fields() if f.name not in ("modality", "seed"))]
    return [name for name in names if name in runs and runs[name].nunique() > 1]


def grouped(runs: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Groups of equal values of `by` in the order in which they appear; all runs without `by`."""
    return iter(runs.groupby(list(by), sort=False)) if by else iter([((), runs)])


def mean(values: Iterable[float]) -> float:
    """The mean of some numbers; NaN where one of them is."""
    return float(np.mean(list(values)))


def summarise(
    runs: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    paper: Mapping[tuple[str, ...], Printed] | None = None,
) -> pd.DataFrame:
    """A row of cells for each group of runs: values of `by`, number of runs, mean ± std (n − 1).

    A mean of weights selected on the test set is marked. paper: group → its printed numbers, which stand beside
    the metrics that have any, with the difference.
    """
    paper = paper or {}
    beside = {m for m in metrics if any(m in printed for printed in paper.values())}
    columns = [*by, "runs"]
    for metric in metrics:
        columns += [metric_label(metric), *(("paper", "diff.") if metric in beside else ())]
    rows = []
    for key, group in grouped(runs, by):
        mark = MARK if group.weights.isin(SELECTED).any() else ""
        cells = [*key, str(len(group))]
        for metric in metrics:
            cells.append(marked(mean_cell(group[metric]), mark))
            if metric in beside:
                printed, std = paper.get(key, {}).get(metric, LACKING)
                cells += [spread_cell(printed, std), difference_cell(metric, mean(group[metric]), printed)]
        rows.append(cells)
    return pd.DataFrame(rows, columns=columns)


# one evaluation, methods, classes


def results_table(
    metrics: Mapping[str, float], protocol: Protocol, *, modality: str = "fusion", intervals: Intervals | None = None
) -> Table:
    """Every metric of one evaluation beside the paper's numbers for it, as far as it has them.

    modality: "image" and "event" are compared with their own columns of Table 2.
    intervals: what `vad.statistics.intervals` returns, for a column.
    """
    expected = paper_numbers(protocol, modality)
    middle = [] if intervals is None else [INTERVAL]
    columns = ["metric", "here", *middle, *(cell for title in expected for cell in (title, "diff."))]
    rows = []
    for name, value in metrics.items():
        cells = [metric_label(name), marked(value_cell(name, value), protocol.mark)]
        cells += [interval_cell(name, intervals.get(name)) for _ in middle]
        for numbers in expected.values():
            printed, std = numbers.get(name, LACKING)
            cells += [spread_cell(printed, std, name), difference_cell(name, value, printed)]
        rows.append(cells)
    notes = [INTERVAL_NOTE for _ in middle]
    if len(expected) > 1:
        single = " and ".join(title for title in expected if title != "Table 1")
        notes.insert(0, f"Table 1 is the paper's mean ± std of {PAPER['table1']['runs']} runs, {single} one run each. "
                        f"A checkpoint is one run: expect the latter.")  # fmt: skip
    notes += [*definition_notes(metrics), *undefined_notes(metrics), *protocol.notes(beside_paper=bool(expected))]
    title = f"{protocol.dataset.title}, {modality}"
    return Table(title, protocol.line(), pd.DataFrame(rows, columns=columns), tuple(notes))


def method_table(
    runs: pd.DataFrame, protocol: Protocol, intervals: Mapping[str, Intervals] | None = None
) -> Table:
    """Table 1: the peers as printed, the paper's two rows, then ours and their distance from it.

    runs: see `runs_frame`. intervals: noise model → bounds, for a row.
    """
    dataset, paper = protocol.dataset, paper_methods(protocol.dataset)
    metrics = list(dict.fromkeys([*PAPER["table1"]["metric"].get(dataset.name, [dataset.metric]), "Ano-AUC"]))
    rows = []
    for method, printed in paper.items():
        several = any(std is not None for _, std in printed.values())
        name, count = (f"{method}, paper", str(PAPER["table1"]["runs"])) if several else (method, NONE)
        rows.append([name, count, *(spread_cell(*printed.get(metric, LACKING)) for metric in metrics)])
    for noise_model, *cells in summarise(runs, ["noise_model"], metrics).to_numpy():
        method, group = paper_method(noise_model), runs[runs.noise_model == noise_model]
        rows.append([f"{method}, here", *cells])
        if printed := paper.get(method):
            cells = (difference_cell(m, mean(group[m]), printed.get(m, LACKING)[0]) for m in metrics)
            rows.append(["  here − paper", "", *cells])
        if intervals:
            cells = (interval_cell(m, intervals[noise_model].get(m)) for m in metrics)
            rows.append([f"  {INTERVAL}", "", *cells])
    counts = runs.groupby("noise_model").size()
    notes = [SPREAD_NOTE] if paper or counts.max() > 1 else []
    notes += [INTERVAL_NOTE] if intervals else []
    notes += [note for row in runs[metrics].to_dict("records") for note in undefined_notes(row)]
    if paper and counts.min() == 1:
        notes.append("One run beside a mean of ten: a difference smaller than the paper's ± says nothing.")
    notes = [*dict.fromkeys(notes), *protocol.notes(beside_paper=bool(paper))]
    frame = pd.DataFrame(rows, columns=["method", "runs", *map(metric_label, metrics)])
    return Table(f"Table 1, {dataset.title}", protocol.line(omit=("noise_model", "runs")), frame, tuple(notes))


def class_table(runs: Mapping[str, pd.DataFrame], protocol: Protocol) -> Table:
    """Table 2: a row a class; for each modality its mean ± std, the paper's number, the difference.

    runs: modality → a row a run with the classes and the metrics of all videos, as fractions.
    """
    dataset, printed = protocol.dataset, PAPER["table2"].get(protocol.dataset.name, {})
    shown = {modality: runs[modality] for modality in MODALITIES if modality in runs}
    totals = (dataset.metric, "Ano-AUC")
    rows, undefined = [], False
    for name in dict.fromkeys([*dataset.classes.values(), *totals]):
        if not any(name in frame for frame in shown.values()):
            continue
        paper = printed.get(name.replace("Ano-AUC", "Ano AUC"), [None] * len(MODALITIES))
        cells = [f"all videos, {name}" if name in totals else name]
        for modality, frame in shown.items():
            values = frame.get(name, [math.nan])
            number = paper[MODALITIES.index(modality)]
            beside = (spread_cell(number, None), difference_cell("AUC", mean(values), number))
            cells += [marked(mean_cell(values), protocol.mark), *(beside if printed else ())]
            undefined |= math.isnan(mean(values))
        rows.append(cells)
    extra = ("paper", "diff.") if printed else ()
    columns = ["class", *(cell for modality in shown for cell in (modality, *extra))]
    notes = [SPREAD_NOTE] if any(len(frame) > 1 for frame in shown.values()) else []
    notes += [f"{NAN}: {UNDEFINED[dataset.metric]}."] if undefined else []
    notes += protocol.notes(beside_paper=bool(printed))
    title = f"Table 2, {dataset.title}: {dataset.metric} (%) on the videos of each class"
    return Table(title, protocol.line(), pd.DataFrame(rows, columns=columns), tuple(notes))


# seeds and sweeps


def seeds_table(runs: pd.DataFrame, protocol: Protocol) -> Table:
    """Runs that differ in their seed only as one row; options that vary are columns.

    The notes compare fusion with either stream alone, seed by seed.
    """
    varying = sorted(varying_options(runs))
    runs = runs.assign(modality=pd.Categorical(runs.modality, MODALITIES, ordered=True))
    runs = runs.sort_values([*varying, "modality"], kind="stable").astype({"modality": str})
    frame = summarise(runs, ["modality", *varying], [m for m in METRICS if m in runs])
    notes = (*_fusion_gains(runs, varying, protocol.dataset.metric), *protocol.notes(beside_paper=False))
    title = f"{protocol.dataset.title}: mean ± std over seeds"
    return Table(title, protocol.line(omit=varying), frame, notes)


def _fusion_gains(runs: pd.DataFrame, varying: Sequence[str], metric: str) -> Iterator[str]:
    """Fusion against either stream alone: a mean can hide that one seed made it."""
    for key, group in grouped(runs.dropna(subset="seed"), varying):
        values = group.pivot(index="seed", columns="modality", values=metric)
        for other in (m for m in ("image", "event") if {m, "fusion"} <= set(values)):
            gains = (values["fusion"] - values[other]).dropna()
            if len(gains):
                where = f" ({', '.join(key)})" if key else ""
                higher = f"higher in {(gains > 0).sum()} of {len(gains)} seeds"
                yield f"fusion − {other}{where}: {metric} {100 * gains.mean():+.2f} points, {higher}."


def sweep_runs(result: SweepResult) -> tuple[pd.DataFrame, list[str]]:
    """The runs with each swept value under its short name and metrics as numbers; these names."""
    names = {short_name(name): result.runs[f"sweep {name}"] for name in result.names}
    columns = [f"{start}{m}" for m in METRICS for start in ("", BEST)]
    numbers = {c: result.runs[c].replace("", "nan").astype(float) for c in columns if c in result.runs}
    seeds = {"seed": result.runs["seed"].astype(int)}
    return result.runs.assign(**names, **numbers, **seeds), list(names)


def sweep_table(result: SweepResult) -> Table:
    """Tables 3–5: a row a swept value, beside the paper's, and the best on the test set, marked.

    The last columns compare each value with the one in force without a sweep, where that is among
    them: the difference paired by seed, its 95 % interval, and the p of the sign-flip test.
    """
    (runs, names), (title, printed) = sweep_runs(result), paper_sweep(result)
    metric = result.protocol.dataset.metric
    paper = {(value,): numbers for value, numbers in printed.items()}
    frame = summarise(runs, names, [m for m in METRICS if m in runs], paper)
    groups = dict(grouped(runs, names))
    best = [marked(mean_cell(group[f"{BEST}{metric}"]), MARK) for group in groups.values()]
    frame = frame.assign(**{f"{metric}, selected on test": best})
    notes = [f"{MARK}: selected on the test set; the last such column is of each run's best evaluation there."]
    if result.base:
        values = {key: group.set_index("seed")[metric].to_dict() for key, group in groups.items()}
        base = values[result.base]
        cells = [paired_cells(None if own is base else compare_paired(base, own)) for own in values.values()]
        for name, column in zip((f"Δ {metric}", INTERVAL, "p"), zip(*cells, strict=True), strict=True):
            frame[name] = column
        notes += _base_notes(names, result.base, values)
    if missing := result.planned - len(runs):
        notes.append(f"{missing} of {result.planned} runs failed and are not in this table.")
    notes += result.protocol.notes(beside_paper=bool(printed))
    seeds = sorted(set(runs["seed"]))
    header = result.protocol.line(omit=[*result.names, *result.differing]) + SEPARATOR
    header += f"mean ± std over seeds {_spans(seeds)}" if len(seeds) > 1 else f"one run each, seed {seeds[0]}"
    return Table(title, header, frame, tuple(notes))


def paired_cells(paired: PairedComparison | None) -> tuple[str, str, str]:
    """Mean difference in points, its interval, p; the last two are not defined for one pair."""
    if paired is None:
        return NONE, NONE, NONE
    # + 0.0 turns a rounded −0 into 0
    difference, *ends = (f"{round(100 * v, 2) + 0.0:+.2f}" for v in (paired.mean, paired.low, paired.high))
    return (difference, NAN, NAN) if paired.pairs == 1 else (difference, f"[{', '.join(ends)}]", f"{paired.p:.3g}")


def _base_notes(
    names: Sequence[str], base: tuple[str, ...], values: Mapping[tuple[str, ...], Mapping[int, float]]
) -> list[str]:
    """What the last columns of a sweep mean, and what they cannot show."""
    point = ", ".join(f"{name} {value}" for name, value in zip(names, base, strict=True))
    note = f"Δ: points above {point}, which is in force without a sweep; runs paired by seed. {PAIRED_NOTE}"
    pairs = max(map(len, values.values()))
    if smallest_p(pairs) < 1 - LEVEL:
        return [note, *multiple_tests_note(len(values) - 1)]
    few = "1 seed" if pairs == 1 else f"{pairs} seeds"
    return [f"{note} {few} cannot reach p < 0.05: the smallest possible is {smallest_p(pairs):.3g}."]


def _spans(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}…{seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))
