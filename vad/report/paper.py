"""The numbers printed in the paper (paper_tables.json), and the choice of those that match a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vad.datasets import Dataset
from vad.evaluation import Protocol
from vad.experiments import SweepResult, short_name
from vad.options import MODALITIES

PAPER = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))
METRICS = ("AUC", "AP", "Ano-AUC")  # metrics for comparing runs
Printed = Mapping[str, tuple[float | None, float | None]]  # metric → (mean, std) as printed


def paper_method(noise_model: str) -> str:
    """Return the name of the model with this noise model in Table 1."""
    return f"IEF-VAD ({'Student-T' if noise_model == 'StudentT' else noise_model})"


def paper_methods(dataset: Dataset) -> dict[str, Printed]:
    """Return Table 1 of a data set: method → metric → (mean, std), or {} if the paper lacks the data set."""
    name, table = dataset.name, PAPER["table1"]
    methods = {}
    for method, row in table["rows"].items():
        if name in row:
            pairs = zip(row[name], row.get(f"{name}_std", [None] * len(row[name])), strict=True)
            methods[method] = dict(zip(table["metric"][name], pairs, strict=True))
    return methods


def paper_numbers(protocol: Protocol, modality: str) -> dict[str, Printed]:
    """Return table of the paper → its numbers for this case. All tables but Table 1 use Student's t only."""
    dataset, numbers = protocol.dataset, {}
    methods = paper_methods(dataset)
    if not methods or protocol.method:
        return {}
    if modality == "fusion":
        numbers["Table 1"] = methods.get(paper_method(protocol.noise_model), {})
    if protocol.noise_model != "StudentT":
        return numbers
    totals = {m: PAPER["table2"][dataset.name].get(m.replace("-", " ")) for m in METRICS}
    columns = {m: dict(zip(MODALITIES, row, strict=False)) for m, row in totals.items() if row}
    if modality in ("image", "event", "fusion"):
        numbers["Table 2"] = {m: (row[modality], None) for m, row in columns.items()}
    if modality == "fusion":
        title, rows = paper_masking(dataset)
        names = (dataset.metric, "Brier", "kl", *PAPER["table6"]["columns"][5:])
        numbers[title] = {name: (value, None) for name, value in zip(names, rows["CLEAN", 0.0], strict=True)}
    return numbers


def paper_masking(dataset: Dataset) -> tuple[str, dict[tuple[str, float], list[float]]]:
    """Return the title of a data set's masking table and its rows by (masked, level), or no rows without one."""
    for number in (6, 7, 8, 9):
        table = PAPER[f"table{number}"]
        if table["dataset"] == dataset.name:
            return f"Table {number}", {(masked, level): row for masked, level, *row in table["rows"]}
    return "As Tables 6–9", {}


def paper_sweep(result: SweepResult) -> tuple[str, dict[str, Printed]]:
    """Return the title of a sweep's table and the paper's numbers by swept value (Tables 3–5).

    Grids, and data sets and values that the paper lacks, have no numbers.
    """
    dataset, names = result.protocol.dataset, result.names
    title = f"{dataset.title}, " + (" × ".join(map(short_name, names)) if names else "runs")
    loss = PAPER["table5"].get(dataset.name)
    tables = {
        "Table 3": PAPER["table3"] if PAPER["table3"]["dataset"] == dataset.name else {},
        "Table 4": PAPER["table4"].get(dataset.name, {}),
        "Table 5": {"loss": {"values": PAPER["table5"]["columns"], **loss}} if loss else {},
    }
    number = next((n for n, table in tables.items() if len(names) == 1 and names[0] in table), None)
    if number is None:
        return title, {}
    table = tables[number][names[0]]
    values = [value if isinstance(value, str) else f"{value:g}" for value in table["values"]]
    printed = {value: {m: tuple(table[m][k]) for m in METRICS if m in table} for k, value in enumerate(values)}
    swept = set(result.runs[f"sweep {names[0]}"])
    return f"{number}, {title}", {value: row for value, row in printed.items() if value in swept}
