"""Tables 6 – 9 and Figure 3: what masking a stream does to one run, or to several, mean ± std."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import pandas as pd

from vad.evaluation import Protocol, Run, shared_protocol
from vad.files import write_bytes, write_json
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
CONDITIONS_NOTE = "EV_NOISE: event masked. IMG_NOISE: image masked."
TITLES = {"feature": "feature dimensions", "time": "time steps", "window": "steps of every window"}


def report_masking(
    responses: Sequence[MaskingResponse], runs: Sequence[Run], folder: Path, seed: int
) -> tuple[list[Table], list[Path]]:
    """Table and pictures of one run's masking response, or of several runs as mean ± std.

    All is written to `folder` too. seed: of the masks. The runs have passed `check_masking_runs`.
    """
    protocol, axis = shared_protocol(runs, len(runs)), runs[0].options.mask_axis
    metric, title = protocol.dataset.metric, protocol.dataset.title
    first, tables = responses[0], [response.table for response in responses]
    if len(runs) == 1:
        table = masking_table(first.table, protocol, axis=axis, seed=seed)
        table.save(folder / "probes")
        rows = {"mask_seed": seed, "rows": first.table.to_dict("records")}
        write_json(folder / "probes.json", {"checkpoint": runs[0].record(), **rows})
        title = f"{title}: a share of the {TITLES[axis]} masked"
        pictures = plots.draw_probe_curves(first.table, folder / "probes", metric=metric, title=title)
        return [table], pictures + plots.draw_weight_change(
            first.weight_change, folder / "weight_change", title=title
        )
    table = masking_runs_table(tables, protocol, axis=axis, seed=seed)
    table.save(folder / "probe_runs_table")
    rows = [frame.assign(run_seed=run.seed) for frame, run in zip(tables, runs, strict=True)]
    write_bytes(folder / "probe_runs.csv", pd.concat(rows).to_csv(index=False).encode())
    title = f"{title}: weight of the modality that is masked, {len(runs)} runs"
    return [table], plots.draw_weight_fall(weight_changes(tables), folder / "probe_runs", title=title)


def masking_table(response: pd.DataFrame, protocol: Protocol, *, axis: str, seed: int) -> Table:
    """Tables 6–9: each condition as measured, then as printed in the paper, then the difference.

    response: `MaskingResponse.table`. Conditions the paper does not have stand alone.
    """
    title, paper = paper_masking(protocol.dataset)
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
    notes = [f"{CONDITIONS_NOTE} abn/norm: mean over abnormal / normal frames."]
    notes += definition_notes(response)
    if paper:
        notes.append("The paper's own table has ŵ_i rise as the image is masked; its Section 4.2 says that it falls.")
    notes += protocol.notes(beside_paper=bool(paper))
    title = f"{title}, {protocol.dataset.title}: masking probes"
    return Table(title, _header(protocol, axis, seed), pd.DataFrame(rows, columns=columns), tuple(notes))


def _header(protocol: Protocol, axis: str, seed: int) -> str:
    return SEPARATOR.join([protocol.line(), AXES[axis], f"mask seed {seed}"])


def weight_changes(responses: Sequence[pd.DataFrame]) -> dict[tuple[str, float], list[float]]:
    """(masked stream, level) → change of that stream's ŵ in each run, against the same run unmasked."""
    changes: dict[tuple[str, float], list[float]] = {}
    for table in responses:
        clean = table[table.masked == "CLEAN"].iloc[0]
        for row in table[table.masked != "CLEAN"].to_dict("records"):
            stream = STREAM[row["masked"]]
            changes.setdefault((stream, row["level"]), []).append(row[f"w_{stream}"] - clean[f"w_{stream}"])
    return changes


def masking_runs_table(responses: Sequence[pd.DataFrame], protocol: Protocol, *, axis: str, seed: int) -> Table:
    """A row a condition: mean ± std over runs, Δŵ of the masked stream, and in how many it fell.

    Δŵ is the weight of the *masked* stream minus the same run's without masking: down is right.
    """
    names = (protocol.dataset.metric, "brier", "kl", "w_image", "w_event")
    changes = {
        condition: compare_paired(dict.fromkeys(range(len(values)), 0.0), dict(enumerate(values)))
        for condition, values in weight_changes(responses).items()
    }
    rows = []
    for (masked, level), group in pd.concat(responses).groupby(["masked", "level"], sort=False):
        change, last = changes.get((STREAM.get(masked), level)), [NONE] * 3
        if change:
            p = NAN if change.pairs == 1 else f"{change.p:.3g}"
            last = [f"{change.mean:+.4f}", f"{change.lower} of {change.pairs}", p]
        cells = (marked(mean_cell(group[name], name), protocol.mark) for name in names)
        rows.append([masked, f"{level:.2f}", *cells, *last])
    columns = ["masked", "level", *map(metric_label, names), "Δŵ of the masked", "fell in", "p"]
    notes = [f"{CONDITIONS_NOTE} Δŵ: against the same run unmasked; down is right."]
    notes += [*definition_notes(names), f"{SPREAD_NOTE} p: sign-flip test of Δŵ over runs."]
    notes += [_verdict(changes, stream) for stream in ("image", "event")]
    if smallest_p(len(responses)) < 1 - LEVEL:
        notes += multiple_tests_note(len(changes))
    notes += protocol.notes(beside_paper=False)
    title = f"{protocol.dataset.title}: do the weights leave the modality that is masked?"
    return Table(title, _header(protocol, axis, seed), pd.DataFrame(rows, columns=columns), tuple(notes))


def _verdict(changes: Mapping[tuple[str, float], PairedComparison], stream: str) -> str:
    """One sentence for the strongest masking of a stream."""
    level = max(level for masked, level in changes if masked == stream)
    change = changes[stream, level]
    if smallest_p(change.pairs) >= 1 - LEVEL:
        result = f"cannot be judged from {change.pairs} runs"
    elif not change.differs:
        result = "is not significantly different from the unmasked one"
    else:
        result = "falls, as it should" if change.mean < 0 else "rises: the wrong way"
    return f"{stream} masked at {level:g}: {metric_label(f'w_{stream}')} {result} ({change.mean:+.4f})."
