"""Tables 3–5: a row for each value of a sweep, mean ± std over seeds beside the paper's; the same for a grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vad.cells import difference_cell, marked, mean_cell, metric_label, spread_cell
from vad.comparison import CONFIDENCE, PAIRED_NOTE, Paired, about_many, compare_paired, smallest_p
from vad.data import MODALITIES
from vad.paper import PAPER
from vad.protocol import SELECTED, Protocol
from vad.run_log import BEST, METRICS, number
from vad.sweeps import Cell, shown
from vad.table import MARK, NAN, NONE, SEPARATOR, Table

Printed = Mapping[str, tuple[float, float | None]]  # metric → (mean, std) as the paper prints it, in percent


@dataclass(frozen=True)
class SweepResult:
    """Finished runs of a sweep, or of seeds alone (`names` empty)."""

    names: tuple[str, ...]  # of the sweeps
    runs: Sequence[tuple[Cell, Mapping[str, str]]]  # the cell and the row of `vad.run_log` of each
    protocol: Protocol
    planned: int  # runs asked for

    @property
    def groups(self) -> dict[tuple[str, ...], dict[int, Mapping[str, str]]]:
        """Values of the sweeps → seed → row, in the order of the grid."""
        found: dict[tuple[str, ...], dict[int, Mapping[str, str]]] = {}
        for cell, row in self.runs:
            found.setdefault(tuple(cell.labels.values()), {})[int(row["seed"])] = row
        return found

    @property
    def base(self) -> tuple[str, ...] | None:
        """The values that are in force without any sweep; None where they are not among the swept ones."""
        return next((tuple(cell.labels.values()) for cell, _ in self.runs if not cell.flags), None)

    def values(self, key: tuple[str, ...], metric: str) -> dict[int, float]:
        """Seed → metric of one cell, as fractions."""
        return {seed: number(row, metric) for seed, row in self.groups[key].items()}


def sweep_table(result: SweepResult) -> Table:
    """A row a cell: its runs, AUC, AP and Ano-AUC beside the paper's numbers, and the best on the test set, marked so.

    The last columns hold each cell against the one without a sweep, where that is among them: the difference of the
    data set's metric paired by seed, its 95 % interval and the p of the sign-flip test.
    """
    title, printed = paper_sweep(result)
    metrics = [m for m in METRICS if all(m in row for _, row in result.runs)]
    main, base = result.protocol.dataset.metric, result.base if result.names else None
    beside = [m for m in metrics if any(m in numbers for numbers in printed.values())]
    columns = [*map(shown, result.names), "runs"]
    for metric in metrics:
        columns += [metric_label(metric), *(("paper", "diff.") if metric in beside else ())]
    columns.append(f"{main}, selected on test")
    if base:
        columns += [f"Δ {main}", "95 % interval", "p"]
    rows = []
    for key, group in result.groups.items():
        cells = [*key, str(len(group))]
        for metric in metrics:
            values = list(result.values(key, metric).values())
            cells.append(marked(mean_cell(values), _mark(group.values())))
            if metric in beside:
                mean, std = printed.get(key, {}).get(metric, (None, None))
                cells += [spread_cell(mean, std), difference_cell(metric, math.fsum(values) / len(values), mean)]
        cells.append(marked(mean_cell(number(row, f"{BEST}{main}") for row in group.values()), MARK))
        if base:
            paired = compare_paired(result.values(base, main), result.values(key, main))
            cells += [NONE] * 3 if key == base or paired is None else paired_cells(paired)
        rows.append(tuple(cells))
    notes = [f"{MARK}: selected on the test set; the last such column is of each run's best evaluation there."]
    notes += [*_about_base(result, base), *_missing(result), *result.protocol.notes(bool(printed))]
    seeds = sorted({int(row["seed"]) for _, row in result.runs})
    over = f"mean ± std over seeds {_spans(seeds)}" if len(seeds) > 1 else f"one run each, seed {seeds[0]}"
    header = SEPARATOR.join([result.protocol.line(omit=_varying(result)), over])
    return Table(title, header, tuple(columns), tuple(rows), tuple(notes))


def paper_sweep(result: SweepResult) -> tuple[str, dict[tuple[str, ...], Printed]]:
    """The title, and the paper's numbers for the cells: Tables 3–5, Table 1 for noise models, 2 for modalities.

    No numbers for a grid, for another data set, or for values that the paper does not have.
    """
    dataset, names = result.protocol.dataset, result.names
    plain = f"{dataset.title}, " + (" × ".join(map(shown, names)) if names else "runs")
    if len(names) != 1:
        return plain, {}
    for title, by_value in _paper_tables(dataset.name, names[0]).items():
        found = {key: numbers for key in result.groups if (numbers := _lookup(by_value, key[0]))}
        return f"{title}, {plain}", found
    return plain, {}


def _paper_tables(dataset: str, name: str) -> dict[str, dict[object, Printed]]:
    """The one table of the paper that sweeps `name` on this data set: title → value → numbers."""
    sweeps = {"Table 3": PAPER["table3"]} if dataset == PAPER["table3"]["dataset"] else {}
    sweeps |= {"Table 4": PAPER["table4"][dataset]} if dataset in PAPER["table4"] else {}
    for title, table in sweeps.items():
        if name in table:
            return {title: _by_value(table[name]["values"], table[name])}
    if name == "loss" and dataset in PAPER["table5"]:
        return {"Table 5": _by_value(PAPER["table5"]["columns"], PAPER["table5"][dataset])}
    if name == "noise_model" and dataset in PAPER["table1"]["metric"]:
        rows, metrics = PAPER["table1"]["rows"], PAPER["table1"]["metric"][dataset]
        models = {"StudentT": rows["IEF-VAD (Student-T)"], "Gaussian": rows["IEF-VAD (Gaussian)"]}
        return {"Table 1": {
            model: dict(zip(metrics, zip(row[dataset], row[f"{dataset}_std"], strict=True), strict=True))
            for model, row in models.items()
        }}  # fmt: skip
    if name == "modality" and dataset in PAPER["table2"]:
        totals = {ours: PAPER["table2"][dataset].get(theirs) for ours, theirs in
                  {"AUC": "AUC", "AP": "AP", "Ano-AUC": "Ano AUC"}.items()}  # fmt: skip
        return {"Table 2 (one run each)": {
            modality: {metric: (row[column], None) for metric, row in totals.items() if row}
            for column, modality in enumerate(MODALITIES)
        }}  # fmt: skip
    return {}


def _by_value(values: Sequence[object], table: Mapping[str, Sequence[object]]) -> dict[object, Printed]:
    metrics = [name for name in METRICS if name in table]
    return {value: {m: tuple(table[m][k]) for m in metrics} for k, value in enumerate(values)}


def _lookup(by_value: Mapping[object, Printed], label: str) -> Printed | None:
    """The paper's numbers for a value as typed: 1e-4 and 0.0001 are one."""
    for value, numbers in by_value.items():
        same = float(label) == value if isinstance(value, int | float) and is_number(label) else label == value
        if same:
            return numbers
    return None


def paired_cells(paired: Paired) -> tuple[str, str, str]:
    """Mean difference in points, its interval, p; the last two are not defined for one pair."""
    # + 0.0 turns a rounded −0 into 0
    mean, low, high = (f"{round(100 * value, 2) + 0.0:+.2f}" for value in (paired.mean, paired.low, paired.high))
    return (mean, NAN, NAN) if paired.pairs == 1 else (mean, f"[{low}, {high}]", f"{paired.p:.3g}")


def _about_base(result: SweepResult, base: tuple[str, ...] | None) -> list[str]:
    """What the last columns mean, and what they cannot show."""
    if base is None:
        return []
    cell = ", ".join(f"{shown(name)} {value}" for name, value in zip(result.names, base, strict=True))
    pairs = max(len(group) for group in result.groups.values())
    note = f"Δ: points above {cell}, which is in force without a sweep; runs paired by seed. {PAIRED_NOTE}"
    if smallest_p(pairs) >= 1 - CONFIDENCE:
        few = "1 seed" if pairs == 1 else f"{pairs} seeds"
        return [f"{note} {few} cannot reach p < 0.05: the smallest possible is {smallest_p(pairs):.3g}."]
    return [note, *about_many(len(result.groups) - 1)]


def _mark(rows: Iterable[Mapping[str, str]]) -> str:
    """The mark of numbers whose weights were selected on the test set, where a run of these has such weights."""
    return MARK if any(row["weights"] in SELECTED for row in rows) else ""


def _varying(result: SweepResult) -> list[str]:
    """Parts of the protocol that are not the same in all cells: a swept profile changes more than its name."""
    parts = ("split", "test_crops", "ano_auc", "noise_model")
    values = {name: {getattr(cell.settings.profile, name) for cell, _ in result.runs} for name in parts}
    weights = ["weights"] if len({row["weights"] for _, row in result.runs}) > 1 else []
    return [*result.names, *(name for name in parts if len(values[name]) > 1), *weights]


def _missing(result: SweepResult) -> list[str]:
    missing = result.planned - len(result.runs)
    return [f"{missing} of {result.planned} runs failed and are not in this table."] if missing else []


def _spans(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}…{seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))


def is_number(text: str) -> bool:
    """Whether a swept value is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
