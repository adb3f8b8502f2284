"""Tables of one evaluation beside the paper's numbers: results, classes (Table 2), masking probes (Tables 6–9)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import reduce

import pandas as pd

from vad.bootstrap import RESAMPLES, SEED
from vad.calibration import BINS
from vad.cells import (
    SPREAD_NOTE,
    difference_cell,
    interval_cell,
    marked,
    metric_label,
    paper_cell,
    undefined_notes,
    value_cell,
)
from vad.data import MODALITIES
from vad.metrics import PERCENT, UNDEFINED
from vad.paper import PAPER, paper_numbers, paper_probes
from vad.protocol import AXES, Protocol
from vad.table import NAN, NONE, Table

Intervals = Mapping[str, tuple[float, float]]  # metric → bounds, as fractions
INTERVAL = "95 % interval"
INTERVAL_NOTE = (
    f"{INTERVAL}: percentiles over {RESAMPLES} resamples of the test videos (seed {SEED}), without those in which the "
    "number is undefined."
)


def results_table(
    metrics: Mapping[str, float],
    protocol: Protocol,
    *,
    modality: str = "fusion",
    intervals: Intervals | None = None,
) -> Table:
    """Every number of one evaluation beside the paper's three numbers for it, as far as the paper has them.

    metrics: what `vad.metrics.evaluate` returns, and more. modality: what the model saw; "image" and "event" are
    compared with their own columns of Table 2. intervals: what `vad.bootstrap.intervals` returns, for a column.
    """
    expected = paper_numbers(protocol, modality)
    rows = []
    for name, value in metrics.items():
        cells = [metric_label(name), marked(value_cell(name, value), protocol.mark)]
        if intervals is not None:
            cells.append(interval_cell(name, intervals.get(name)))
        for numbers in expected.values():
            printed, spread = numbers.get(name, (None, None))
            cells += [
                NONE if printed is None else paper_cell(name, printed) + (f" ± {spread:.2f}" if spread else ""),
                difference_cell(name, value, printed),
            ]
        rows.append(tuple(cells))
    middle = [] if intervals is None else [INTERVAL]
    columns = ["metric", "here", *middle, *(cell for title in expected for cell in (title, "diff."))]
    notes = [*([] if intervals is None else [INTERVAL_NOTE]), *about_metrics(metrics), *undefined_notes(metrics)]
    notes += protocol.notes(beside_paper=bool(expected))
    if len(expected) > 1:
        single = " and ".join(title for title in expected if title != "Table 1")
        notes.insert(0, f"Table 1 is the paper's mean ± std of {PAPER['table1']['runs']} runs, {single} one run each. "
                        "A checkpoint is one run: expect the latter.")
    return Table(f"{protocol.dataset.title}, {modality}", protocol.line(), tuple(columns), tuple(rows), tuple(notes))


def about_metrics(metrics: Iterable[str]) -> list[str]:
    """What the names of less usual numbers mean."""
    notes = []
    if "ECE" in metrics:
        notes.append(f"ECE: expected calibration error over frames, {BINS} bins of equal width.")
    if any(name.startswith("per-video") for name in metrics):
        notes.append("Per-video AUC: inside each video that holds normal and anomalous frames.")
    return notes


def class_table(
    classes: Mapping[str, Mapping[str, float]],
    protocol: Protocol,
    overall: Mapping[str, Mapping[str, float]] | None = None,
    spread: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """Table 2: one row a class, for each modality that was evaluated its number, the paper's and the difference.

    classes: modality → what `vad.metrics.per_class` returns. overall: modality → what `vad.metrics.evaluate`
    returns, for the last rows. spread: modality → standard deviation over runs of the same names, where there are runs.
    """
    dataset = protocol.dataset
    printed = PAPER["table2"].get(dataset.name, {})
    modalities = [m for m in MODALITIES if m in classes]
    names = [name for name in dataset.classes.values() if any(name in classes[m] for m in modalities)]
    values = {name: {m: classes[m].get(name, math.nan) for m in modalities} for name in names}
    # the paper's own total first; Ano-AUC for every data set
    for total in dict.fromkeys((dataset.metric, "Ano-AUC")):
        if overall:
            values[total] = {m: overall[m][total] for m in modalities}
    rows = []
    for name, found in values.items():
        cells = [f"all videos, {name}" if name in PERCENT else name]
        paper = printed.get(name.replace("Ano-AUC", "Ano AUC"))
        for m in modalities:
            std = (spread or {}).get(m, {}).get(name, math.nan)
            plus_minus = "" if math.isnan(std) else f" ± {value_cell('AUC', std)}"
            cells.append(marked(value_cell("AUC", found[m]) + plus_minus, protocol.mark))
            if printed:
                number = None if paper is None else paper[MODALITIES.index(m)]
                cells += [NONE if number is None else f"{number:.2f}", difference_cell("AUC", found[m], number)]
        rows.append(tuple(cells))
    extra = ("paper", "diff.") if printed else ()
    columns = ("class", *(cell for m in modalities for cell in (m, *extra)))
    undefined = any(math.isnan(value) for found in values.values() for value in found.values())
    notes = [SPREAD_NOTE] if any((spread or {}).values()) else []
    notes += [f"{NAN}: {UNDEFINED[dataset.metric]}."] if undefined else []
    title = f"Table 2, {dataset.title}: {dataset.metric} (%) on the videos of each class"
    notes += protocol.notes(beside_paper=bool(printed))
    return Table(title, protocol.line(), columns, tuple(rows), tuple(notes))


def probe_table(probes: pd.DataFrame, protocol: Protocol, *, axis: str, seed: int) -> Table:
    """Tables 6–9: each condition as measured and, in the lines below, as the paper printed it and the difference.

    probes: `vad.probes.Probes.table`. The paper's lines are left out where it has none for this data set or level.
    """
    title, paper = paper_probes(protocol.dataset)
    rows = []
    for _, row in probes.iterrows():
        values = {name: float(row[name]) for name in probes.columns[2:]}
        numbers = [marked(value_cell(name, value), protocol.mark) for name, value in values.items()]
        rows.append((row["masked"], f"{row['level']:.2f}", *(["here"] if paper else []), *numbers))
        printed = paper.get((row["masked"], row["level"]))
        if printed:
            pairs = dict(zip(values, printed, strict=True))
            rows.append(("", "", "paper", *(paper_cell(name, number) for name, number in pairs.items())))
            rows.append(("", "", "diff.", *(difference_cell(name, values[name], pairs[name]) for name in pairs)))
    short = {", abnormal frames": " abn", ", normal frames": " norm"}
    labels = map(metric_label, probes.columns)
    names = [reduce(lambda name, pair: name.replace(*pair), short.items(), name) for name in labels]
    columns = (*names[:2], *(["from"] if paper else []), *names[2:])
    notes = ["EV_NOISE: event masked. IMG_NOISE: image masked. abn/norm: mean over abnormal / normal frames."]
    if paper:
        notes.append("The paper's own table has ŵ_i rise as the image is masked; its Section 4.2 says that it falls.")
    notes += protocol.notes(beside_paper=bool(paper))
    header = f"{protocol.line()} · {AXES[axis]} · mask seed {seed}"
    return Table(f"{title}, {protocol.dataset.title}: masking probes", header, columns, tuple(rows), tuple(notes))
