"""The numbers the paper printed, and which of them a given evaluation is to be held against."""

from __future__ import annotations

import json
from pathlib import Path

from vad.catalog import Dataset
from vad.data import MODALITIES
from vad.protocol import Protocol

PAPER = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))


def paper_method(noise_model: str) -> str:
    """What Table 1 calls the model with this noise."""
    return f"IEF-VAD ({'Student-T' if noise_model == 'StudentT' else noise_model})"


def paper_numbers(protocol: Protocol, modality: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Title of each of the paper's tables that has this case → metric → (printed number, its std)."""
    name, found = protocol.dataset.name, {}
    if name not in PAPER["table1"]["metric"]:
        return {}
    row = PAPER["table1"]["rows"][paper_method(protocol.noise_model)]
    if modality == "fusion":
        pairs = zip(row[name], row[f"{name}_std"], strict=True)
        found["Table 1"] = dict(zip(PAPER["table1"]["metric"][name], pairs, strict=True))
    if protocol.noise_model != "StudentT":  # the other tables are of the Student's t model
        return found
    column = MODALITIES.index(modality)
    totals = {"AUC": "AUC", "AP": "AP", "Ano-AUC": "Ano AUC"}
    table2 = PAPER["table2"][name]
    found["Table 2"] = {ours: (table2[theirs][column], None) for ours, theirs in totals.items() if theirs in table2}
    if modality == "fusion":
        title, rows = paper_probes(protocol.dataset)
        names = ("AUC" if protocol.dataset.metric == "AUC" else "AP", "Brier", "kl", *PAPER["table6"]["columns"][5:])
        found[title] = {k: (v, None) for k, v in zip(names, rows["CLEAN", 0.0], strict=True)}
    return found


def paper_probes(dataset: Dataset) -> tuple[str, dict[tuple[str, float], list[float]]]:
    """Title of the probe table of this data set and its rows by (masked, level); no rows where the paper has none."""
    for number in (6, 7, 8, 9):
        table = PAPER[f"table{number}"]
        if table["dataset"] == dataset.name:
            return f"Table {number}", {(row[0], row[1]): row[2:] for row in table["rows"]}
    return "As Tables 6–9", {}
