"""Tables of results next to the paper's numbers: Tables 1–5, and mean ± std over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from vad.evaluation import MARK, SELECTED, Protocol
from vad.experiments import BEST, SweepResult, short_name
from vad.localisation import COLUMNS, LOCALISATION_NOTES, RATES, Localisation, metric_key
from vad.metrics import UNDEFINED, VIDEO_MEANS
from vad.options import MODALITIES, option_fields, streams_of
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
                 "leaving out those with an undefined metric.")  # fmt: skip
NOT_IN_PAPER = (None, None)  # mean and std of a number that the paper lacks
Intervals = Mapping[str, tuple[float, float]]  # metric → bounds, as fractions


# runs as a data frame


def varying_options(runs: pd.DataFrame) -> list[str]:
    """Return the options, and `weights`, that differ between runs, except modality and seed."""
    names = ["weights", *(f.name for f in option_fields() if f.name not in ("modality", "seed"))]
    return [name for name in names if name in runs and runs[name].nunique() > 1]


def average_splits(runs: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Return one row per set of options and split, with the mean metrics over the seeds of the split.

    splits: the split of each run. The number of the split replaces the seed, so later steps pair runs by split.
    """
    numbers = runs.select_dtypes("number").columns.drop("seed")
    by = [name for name in runs if name not in (*numbers, "seed")]
    runs = runs.assign(seed=pd.factorize(pd.Series(splits), sort=True)[0])
    return runs.groupby([*by, "seed"], sort=False, dropna=False)[list(numbers)].mean().reset_index()


def grouped(runs: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield the groups of runs with equal values of `by`, in order of appearance, or all runs without `by`."""
    return iter(runs.groupby(list(by), sort=False)) if by else iter([((), runs)])


def mean(values: Iterable[float]) -> float:
    """Return the mean, or NaN if a value is NaN."""
    return float(np.mean(list(values)))


def summarise(
    runs: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    paper: Mapping[tuple[str, ...], Printed] | None = None,
) -> pd.DataFrame:
    """Return one row per group of runs: values of `by`, number of runs, mean ± std (n − 1) of each metric.

    Means of weights selected on the test set get a †. paper: group → printed numbers, added with the difference
    to each metric that has any.
    """
    paper = paper or {}
    compared = {m for m in metrics if any(m in printed for printed in paper.values())}
    columns = [*by, "runs"]
    for metric in metrics:
        columns += [metric_label(metric), *(("paper", "diff.") if metric in compared else ())]
    rows = []
    for key, group in grouped(runs, by):
        mark = MARK if group.weights.isin(SELECTED).any() else ""
        cells = [*key, str(len(group))]
        for metric in metrics:
            cells.append(marked(mean_cell(group[metric]), mark))
            if metric in compared:
                printed, std = paper.get(key, {}).get(metric, NOT_IN_PAPER)
                cells += [spread_cell(printed, std), difference_cell(metric, mean(group[metric]), printed)]
        rows.append(cells)
    return pd.DataFrame(rows, columns=columns)


# one evaluation, methods, classes


def results_table(
    metrics: Mapping[str, float], protocol: Protocol, *, modality: str = "fusion", intervals: Intervals | None = None
) -> Table:
    """Return the table of all metrics of one evaluation, next to the paper's numbers.

    modality: "image" and "event" are compared with their columns of Table 2.
    intervals: adds a column; see `vad.statistics.intervals`.
    """
    expected = paper_numbers(protocol, modality)
    extra = [] if intervals is None else [INTERVAL]
    columns = ["metric", "here", *extra, *(cell for title in expected for cell in (title, "diff."))]
    rows = []
    for name, value in metrics.items():
        if name in VIDEO_MEANS.values():  # in the table of baselines
            continue
        cells = [metric_label(name), marked(value_cell(name, value), protocol.mark)]
        cells += [interval_cell(name, intervals.get(name)) for _ in extra]
        for numbers in expected.values():
            printed, std = numbers.get(name, NOT_IN_PAPER)
            cells += [spread_cell(printed, std, name), difference_cell(name, value, printed)]
        rows.append(cells)
    notes = [INTERVAL_NOTE for _ in extra]
    if len(expected) > 1:
        single = " and ".join(title for title in expected if title != "Table 1")
        notes.insert(0, f"The paper's Table 1 is the mean ± std of {PAPER['table1']['runs']} runs; {single} show "
                        f"one run. Compare a single checkpoint with the latter.")  # fmt: skip
    notes += [*definition_notes(metrics), *undefined_notes(metrics)]
    notes += collapse_notes([metrics.get("Ano-AUC", math.nan)])
    notes += protocol.notes(beside_paper=bool(expected))
    title = f"{protocol.dataset.title}, {modality}"
    return Table(title, protocol.line(), pd.DataFrame(rows, columns=columns), tuple(notes))


def method_table(
    runs: pd.DataFrame, protocol: Protocol, intervals: Mapping[str, Intervals] | None = None
) -> Table:
    """Return Table 1: the prior methods and the paper's two rows as printed, then our rows and differences.

    runs: see `runs_frame`. intervals: noise model → bounds, for a row with 95 % intervals.
    """
    dataset, paper = protocol.dataset, paper_methods(protocol.dataset)
    metrics = list(dict.fromkeys([*PAPER["table1"]["metric"].get(dataset.name, [dataset.metric]), "Ano-AUC"]))
    rows = []
    for method, printed in paper.items():
        several = any(std is not None for _, std in printed.values())
        name, count = (f"{method}, paper", str(PAPER["table1"]["runs"])) if several else (method, NONE)
        rows.append([name, count, *(spread_cell(*printed.get(metric, NOT_IN_PAPER)) for metric in metrics)])
    for noise_model, *cells in summarise(runs, ["noise_model"], metrics).to_numpy():
        method, group = paper_method(noise_model), runs[runs.noise_model == noise_model]
        rows.append([f"{method}, here", *cells])
        if printed := paper.get(method):
            cells = (difference_cell(m, mean(group[m]), printed.get(m, NOT_IN_PAPER)[0]) for m in metrics)
            rows.append(["  here − paper", "", *cells])
        if intervals:
            cells = (interval_cell(m, intervals[noise_model].get(m)) for m in metrics)
            rows.append([f"  {INTERVAL}", "", *cells])
    counts = runs.groupby("noise_model").size()
    notes = [SPREAD_NOTE] if paper or counts.max() > 1 else []
    notes += [INTERVAL_NOTE] if intervals else []
    notes += [note for row in runs[metrics].to_dict("records") for note in undefined_notes(row)]
    if paper and counts.min() == 1:
        notes.append("One run is compared with a mean of ten. A difference below the paper's ± is not meaningful.")
    notes = [*dict.fromkeys(notes), *protocol.notes(beside_paper=bool(paper))]
    frame = pd.DataFrame(rows, columns=["method", "runs", *map(metric_label, metrics)])
    return Table(f"Table 1, {dataset.title}", protocol.line(omit=("noise_model", "runs")), frame, tuple(notes))


def class_table(runs: Mapping[str, pd.DataFrame], protocol: Protocol) -> Table:
    """Return Table 2: one row per class; for each modality our mean ± std, the paper's number, the difference.

    runs: modality → one row per run with the metric of each class and of all videos, as fractions.
    """
    dataset, printed = protocol.dataset, PAPER["table2"].get(protocol.dataset.name, {})
    shown = {modality: runs[modality] for modality in MODALITIES if modality in runs}
    totals = (dataset.metric, "Ano-AUC")
    rows, undefined = [], False
    for name in dict.fromkeys([*dataset.classes.values(), *totals]):
        if not any(name in frame for frame in shown.values()):
            continue
        paper = dict(zip(MODALITIES, printed.get(name.replace("Ano-AUC", "Ano AUC"), ()), strict=False))
        cells = [f"all videos, {name}" if name in totals else name]
        for modality, frame in shown.items():
            values = frame.get(name, [math.nan])
            number = paper.get(modality)
            comparison = (spread_cell(number, None), difference_cell("AUC", mean(values), number))
            cells += [marked(mean_cell(values), protocol.mark), *(comparison if printed else ())]
            undefined |= math.isnan(mean(values))
        rows.append(cells)
    extra = ("paper", "diff.") if printed else ()
    columns = ["class", *(cell for modality in shown for cell in (modality, *extra))]
    notes = [SPREAD_NOTE] if any(len(frame) > 1 for frame in shown.values()) else []
    notes += [f"{NAN}: {UNDEFINED[dataset.metric]}."] if undefined else []
    notes += protocol.notes(beside_paper=bool(printed))
    title = f"Table 2, {dataset.title}: {dataset.metric} (%) of each class"
    return Table(title, protocol.line(), pd.DataFrame(rows, columns=columns), tuple(notes))


def localisation_table(result: Localisation, protocol: Protocol, *, modality: str = "fusion") -> Table:
    """Return the table of events and alarms of one run: numbers and intervals at each rate of false alarms."""
    rows = []
    for rate in RATES:
        names = {column: metric_key(column, rate) for column in COLUMNS}
        cells = [marked(value_cell(column, result.metrics[name]), protocol.mark) for column, name in names.items()]
        bounds = [interval_cell(column, result.intervals.get(name)) for column, name in names.items()]
        rows += [[f"at most {rate:g} per hour", *cells], [f"  {INTERVAL}", *bounds]]
    notes = [*LOCALISATION_NOTES, INTERVAL_NOTE]
    if any(map(math.isnan, result.metrics.values())):
        reason = "no event is touched" if result.events else "these videos contain no event"
        notes.append(f"{NAN}: {reason if result.hours else 'there are no normal videos'}.")
    amounts = f"{result.events} events, {result.hours:.3g} hours of normal videos at {result.fps:g} frames per second"
    assumed = "" if protocol.dataset.fps else " (assumed: dataset.toml has no fps)"
    title = f"{protocol.dataset.title}, {modality}: events and false alarms"
    frame = pd.DataFrame(rows, columns=["false alarms", *map(metric_label, COLUMNS)])
    notes += protocol.notes(beside_paper=False)
    return Table(title, protocol.line() + SEPARATOR + amounts + assumed, frame, tuple(notes))


# seeds and sweeps


def seeds_table(runs: pd.DataFrame, protocol: Protocol) -> Table:
    """Return a table with one row per set of runs that differ only in seed. Options that vary become columns.

    The notes compare each fusion with those of fewer of its streams, paired by seed.
    """
    varying = sorted(varying_options(runs))
    runs = runs.assign(modality=pd.Categorical(runs.modality, MODALITIES, ordered=True))
    runs = runs.sort_values([*varying, "modality"], kind="stable").astype({"modality": str})
    frame = summarise(runs, ["modality", *varying], [m for m in METRICS if m in runs])
    notes = (
        *_fusion_gains(runs, varying, protocol.dataset.metric), *collapse_notes(runs.get("Ano-AUC", ())),
        *protocol.notes(beside_paper=False),
    )  # fmt: skip
    title = f"{protocol.dataset.title}: mean ± std over {'splits' if protocol.dataset.split_per_run else 'seeds'}"
    return Table(title, protocol.line(omit=varying), frame, notes)


def _fusion_gains(runs: pd.DataFrame, varying: Sequence[str], metric: str) -> Iterator[str]:
    """Compare each fusion with those of fewer of its streams, paired by seed or split."""
    for key, group in grouped(runs.dropna(subset="seed"), varying):
        values = group.pivot(index="seed", columns="modality", values=metric)
        present = [m for m in MODALITIES if m in values]
        for fused, part in ((a, b) for a in present for b in present if streams_of(b) < streams_of(a)):
            paired = compare_paired(values[part].to_dict(), values[fused].to_dict())
            if paired:
                group_name = f" ({', '.join(key)})" if key else ""
                yield f"{fused} − {part}{group_name}, {metric}: {paired.describe()}."


def collapse_notes(values: Iterable[float]) -> list[str]:
    """Return a note if runs have an Ano-AUC below 50. values: Ano-AUC of each run, as a fraction."""
    values = list(values)
    collapsed = sum(value < 0.5 for value in values)
    if not collapsed:
        return []
    return [f"Warning: Ano-AUC is below 50 in {collapsed} of {len(values)} runs. Inside abnormal videos, they score "
            f"normal snippets higher. See docs/training.md, A run that does not learn."]  # fmt: skip


def sweep_runs(result: SweepResult) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs with swept options under their short names and numeric metrics, and these names."""
    names = {short_name(name): result.runs[f"sweep {name}"] for name in result.names}
    columns = [f"{prefix}{m}" for m in METRICS for prefix in ("", BEST)]
    numbers = {c: result.runs[c].replace("", "nan").astype(float) for c in columns if c in result.runs}
    seeds = {"seed": result.runs["seed"].astype(int)}
    runs = result.runs.assign(**names, **numbers, **seeds)
    if result.protocol.dataset.split_per_run:
        columns = ["modality", "weights", *names, "seed", *numbers]
        runs = average_splits(runs[list(dict.fromkeys(columns))], runs["split"])
    return runs, list(names)


def sweep_table(result: SweepResult) -> Table:
    """Return one of Tables 3–5: one row per swept value, next to the paper's numbers.

    One column, marked †, has the best evaluation on the test set. The last columns compare each value with the
    default value, if it was swept: difference paired by seed, 95 % interval, and p of the sign-flip test.
    """
    (runs, names), (title, printed) = sweep_runs(result), paper_sweep(result)
    metric = result.protocol.dataset.metric
    paper = {(value,): numbers for value, numbers in printed.items()}
    frame = summarise(runs, names, [m for m in METRICS if m in runs], paper)
    groups = dict(grouped(runs, names))
    best = [marked(mean_cell(group[f"{BEST}{metric}"]), MARK) for group in groups.values()]
    frame = frame.assign(**{f"{metric}, selected on test": best})
    notes = [f"{MARK}: selected on the test set. The column {metric}, selected on test, is each run's best evaluation."]
    if result.base:
        values = {key: group.set_index("seed")[metric].to_dict() for key, group in groups.items()}
        base = values[result.base]
        cells = [paired_cells(None if row is base else compare_paired(base, row)) for row in values.values()]
        for name, column in zip((f"Δ {metric}", INTERVAL, "p"), zip(*cells, strict=True), strict=True):
            frame[name] = column
        notes += _base_notes(names, result.base, values)
    if missing := result.planned - len(result.runs):
        notes.append(f"{missing} of {result.planned} runs failed and are missing from this table.")
    notes += [*collapse_notes(runs.get("Ano-AUC", ())), *result.protocol.notes(beside_paper=bool(printed))]
    seeds, several = sorted(set(runs["seed"])), "splits" if result.protocol.dataset.split_per_run else "seeds"
    header = result.protocol.line(omit=[*result.names, *result.differing]) + SEPARATOR
    header += f"mean ± std over {several} {_seed_range(seeds)}" if len(seeds) > 1 else f"one run each, seed {seeds[0]}"
    return Table(title, header, frame, tuple(notes))


def paired_cells(paired: PairedComparison | None) -> tuple[str, str, str]:
    """Return cells of the mean difference in points, its interval and p; one pair has no interval and no p."""
    if paired is None:
        return NONE, NONE, NONE
    # + 0.0 turns a rounded −0 into 0
    difference, *ends = (f"{round(100 * v, 2) + 0.0:+.2f}" for v in (paired.mean, paired.low, paired.high))
    return (difference, NAN, NAN) if paired.pairs == 1 else (difference, f"[{', '.join(ends)}]", f"{paired.p:.3g}")


def _base_notes(
    names: Sequence[str], base: tuple[str, ...], values: Mapping[tuple[str, ...], Mapping[int, float]]
) -> list[str]:
    """Return the notes on the last columns of a sweep table."""
    default = ", ".join(f"{name} {value}" for name, value in zip(names, base, strict=True))
    note = f"Δ: difference in points from the default, {default}; runs are paired by seed. {PAIRED_NOTE}"
    pairs = max(map(len, values.values()))
    if smallest_p(pairs) < 1 - LEVEL:
        return [note, *multiple_tests_note(len(values) - 1)]
    few = "1 seed" if pairs == 1 else f"{pairs} seeds"
    return [f"{note} With {few}, p cannot be below {smallest_p(pairs):.3g}, so nothing is significant at 0.05."]


def _seed_range(seeds: Sequence[int]) -> str:
    consecutive = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}…{seeds[-1]}" if consecutive and len(seeds) > 2 else ", ".join(map(str, seeds))
