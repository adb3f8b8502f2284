"""Tables 6–9 and Figure 3: how one run, or the mean of several runs, responds to a masked modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import pandas as pd

from vad.evaluation import Protocol, Run, shared_protocol
from vad.files import write_bytes, write_json
from vad.options import STREAMS
from vad.report import plots
from vad.report.masking import AXES, MASKED, MaskingResponse
from vad.report.paper import paper_masking
from vad.report.table import (
    NAN,
    NONE,
    SEPARATOR,
    SPREAD_NOTE,
    Table,
    definition_notes,
    difference_cell,
    marked,
    mean_cell,
    metric_label,
    paper_cell,
    value_cell,
)
from vad.statistics import LEVEL, PairedComparison, compare_paired, multiple_tests_note, smallest_p

STREAM = {label: stream for stream, label in MASKED.items()}
TITLES = {"feature": "feature dimensions", "time": "time steps", "window": "time steps of each window"}


def report_masking(
    responses: Sequence[MaskingResponse], runs: Sequence[Run], folder: Path, seed: int
) -> tuple[list[Table], list[Path]]:
    """Return the table and figures of one run, or of several runs as mean ± std, and save them in `folder`.

    seed: seed of the masks. Call `check_masking_runs` on the runs first.
    """
    protocol, axis = shared_protocol(runs, len(runs)), runs[0].options.mask_axis
    metric, title = protocol.dataset.metric, protocol.dataset.title
    first, tables = responses[0], [response.table for response in responses]
    if len(runs) == 1:
        table = masking_table(first.table, protocol, axis=axis, seed=seed)
        table.save(folder / "probes")
        rows = {"mask_seed": seed, "rows": first.table.to_dict("records")}
        write_json(folder / "probes.json", {"checkpoint": runs[0].record(), **rows})
        title = f"{title}: response to masked {TITLES[axis]}"
        pictures = plots.draw_masking_curves(first.table, folder / "probes", metric=metric, title=title)
        return [table], pictures + plots.draw_weight_change(
            first.weight_change, folder / "weight_change", title=title
        )
    table = masking_runs_table(tables, protocol, axis=axis, seed=seed)
    table.save(folder / "probe_runs_table")
    rows = [frame.assign(run_seed=run.seed) for frame, run in zip(tables, runs, strict=True)]
    write_bytes(folder / "probe_runs.csv", pd.concat(rows).to_csv(index=False).encode())
    title = f"{title}: fusion weight of the masked modality, {len(runs)} runs"
    return [table], plots.draw_weight_drop(weight_changes(tables), folder / "probe_runs", title=title)


def masking_table(response: pd.DataFrame, protocol: Protocol, *, axis: str, seed: int) -> Table:
    """Return one of Tables 6–9: for each condition, our numbers, the paper's and the difference.

    response: `MaskingResponse.table`. Conditions that the paper lacks show our numbers only.
    """
    as_paper = {name for name in response if name.count("_") == 1} == {"w_image", "w_event"}
    title, paper = paper_masking(protocol.dataset) if as_paper else ("As Tables 6–9", {})
    rows = []
    for values in response.to_dict("records"):
        masked, level = values.pop("masked"), values.pop("level")
        numbers = (marked(value_cell(*pair), protocol.mark) for pair in values.items())
        rows.append([masked, f"{level:.2f}", *(["here"] if paper else []), *numbers])
        if (masked, level) in paper:
            printed = dict(zip(values, paper[masked, level], strict=True))
            differences = (difference_cell(n, value, printed[n]) for n, value in values.items())
            rows.append(["", "", "paper", *(paper_cell(*pair) for pair in printed.items())])
            rows.append(["", "", "diff.", *differences])
    short = {", abnormal frames": " abn", ", normal frames": " norm"}.items()
    labels = [reduce(lambda n, pair: n.replace(*pair), short, metric_label(c)) for c in response]
    columns = [*labels[:2], *(["from"] if paper else []), *labels[2:]]
    notes = [f"{_conditions_note(response)} abn / norm: mean over abnormal / normal frames."]
    notes += definition_notes(response)
    if paper:
        notes.append("In the paper's table ŵ_i rises when the image is masked; its Section 4.2 says that ŵ_i falls.")
    notes += protocol.notes(beside_paper=bool(paper))
    title = f"{title}, {protocol.dataset.title}: response to masking"
    return Table(title, _header(protocol, axis, seed), pd.DataFrame(rows, columns=columns), tuple(notes))


def _header(protocol: Protocol, axis: str, seed: int) -> str:
    return SEPARATOR.join([protocol.line(), AXES[axis], f"mask seed {seed}"])


def _conditions_note(response: pd.DataFrame) -> str:
    """Return a sentence about each kind of masked row."""
    masked = [label for label in ("IMG_NOISE", "EV_NOISE", "AU_NOISE") if label in set(response.masked)]
    note = " ".join(f"{label}: the {STREAM[label]} stream is masked." for label in masked)
    return f"{note} A stream masked as a whole counts as missing." if (response.level == 1).any() else note


def weight_changes(responses: Sequence[pd.DataFrame]) -> dict[tuple[str, float], list[float]]:
    """Return (masked stream, ratio) → change in that stream's ŵ from the same run's unmasked value, per run."""
    changes: dict[tuple[str, float], list[float]] = {}
    for table in responses:
        clean = table[table.masked == "CLEAN"].iloc[0]
        for row in table[table.masked != "CLEAN"].to_dict("records"):
            stream = STREAM[row["masked"]]
            changes.setdefault((stream, row["level"]), []).append(row[f"w_{stream}"] - clean[f"w_{stream}"])
    return changes


def masking_runs_table(responses: Sequence[pd.DataFrame], protocol: Protocol, *, axis: str, seed: int) -> Table:
    """Return a table with one row per condition: mean ± std over runs, and Δŵ of the masked stream.

    Δŵ is the masked stream's weight minus the same run's weight without masking. It should be negative.
    """
    weights = (name for name in responses[0] if name.startswith("w_") and name.count("_") == 1)
    names = (protocol.dataset.metric, "brier", "kl", *weights)
    changes = {
        condition: compare_paired(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)))
        for condition, values in weight_changes(responses).items()
    }
    rows = []
    for (masked, level), group in pd.concat(responses).groupby(["masked", "level"], sort=False):
        change, change_cells = changes.get((STREAM.get(masked), level)), [NONE] * 3
        if change:
            p = NAN if change.pairs == 1 else f"{change.p:.3g}"
            change_cells = [f"{change.mean:+.4f}", f"{change.lower} of {change.pairs}", p]
        cells = (marked(mean_cell(group[name], name), protocol.mark) for name in names)
        rows.append([masked, f"{level:.2f}", *cells, *change_cells])
    columns = ["masked", "level", *map(metric_label, names), "Δŵ of the masked", "fell in", "p"]
    notes = [f"{_conditions_note(responses[0])} Δŵ: change from the same run without masking; it should be negative."]
    notes += [*definition_notes(names), f"{SPREAD_NOTE} p: sign-flip test of Δŵ over the runs."]
    notes += [_conclusion(changes, stream) for stream in sorted({masked for masked, _ in changes}, key=STREAMS.index)]
    if smallest_p(len(responses)) < 1 - LEVEL:
        notes += multiple_tests_note(len(changes))
    notes += protocol.notes(beside_paper=False)
    title = f"{protocol.dataset.title}: does the fusion weight of a masked modality fall?"
    return Table(title, _header(protocol, axis, seed), pd.DataFrame(rows, columns=columns), tuple(notes))


def _conclusion(changes: Mapping[tuple[str, float], PairedComparison], stream: str) -> str:
    """Return one sentence about the weight of a stream at its highest masking ratio."""
    level = max(level for masked, level in changes if masked == stream)
    change = changes[stream, level]
    if smallest_p(change.pairs) >= 1 - LEVEL:
        result = f"cannot be tested with only {change.pairs} runs"
    elif not change.differs:
        result = "does not change significantly"
    else:
        result = "falls, as expected" if change.mean < 0 else "rises, although it should fall"
    weight = f"{metric_label(f'w_{stream}')} {result} ({change.mean:+.4f})"
    return f"With {100 * level:g} % of the {stream} stream masked, {weight}."
