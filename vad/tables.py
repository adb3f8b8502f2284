"""Tables of results beside the paper's numbers: aligned text for the terminal, Markdown and CSV for files."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pandas as pd

from vad.catalog import Dataset
from vad.errors import InputError
from vad.files import write_whole
from vad.metrics import PERCENT, UNDEFINED

PAPER = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))
MODALITIES = ("image", "event", "fusion")
SEPARATOR = " · "
NONE, NAN = "-", "n/a"  # no such number in the paper; not defined on these videos
WEIGHTS = {
    "last": "weights of the last epoch",
    "best": "best weights, selected on the test set",
    "released": "released checkpoint, selected on the test set by its authors",
    "given": "weights as found in the file, which does not say how they were selected",
}
TAILS = {
    "whole": "every whole snippet",
    "released": "a last block of 16 frames or fewer dropped",
    "mixed": "not the same for all videos",
    "unknown": "not recorded",
}
ANO_AUC = {"abnormal": "abnormal videos only", "released": 'every video not labelled exactly "Normal"'}
AXES = {"feature": "a share of the feature dimensions set to 0", "time": "a share of the time steps × 0.01"}


@dataclass(frozen=True)
class Protocol:
    """Under what conditions a number was made; stands above every table."""

    dataset: Dataset
    profile: str
    split: str
    test_crops: tuple[int, ...]
    weights: str  # a key of WEIGHTS
    tail: str  # a key of TAILS
    ano_auc: str = "abnormal"  # a key of ANO_AUC
    noise_model: str = "StudentT"
    videos: int | None = None  # test videos that were scored

    def line(self, omit: Iterable[str] = ()) -> str:
        """The protocol in one line, without the fields in `omit` (they vary and stand in columns)."""
        parts = {
            "dataset": self.dataset.title,
            "split": f"{self.split} split",
            "videos": "" if self.videos is None else f"{self.videos} test videos",
            "profile": f"profile {self.profile}",
            "noise_model": f"noise model {self.noise_model}",
            "test_crops": f"test crop{'s' if len(self.test_crops) > 1 else ''} {', '.join(map(str, self.test_crops))}",
            "weights": WEIGHTS[self.weights],
            "AP": "AP is average_precision_score",
            "ano_auc": f"Ano-AUC: {ANO_AUC[self.ano_auc]}",
            "tail": f"tail: {TAILS[self.tail]}",
        }
        return SEPARATOR.join(part for name, part in parts.items() if part and name not in set(omit))

    def notes(self) -> list[str]:
        """What a reader must know before comparing with the paper."""
        if self.dataset.drawn:
            return ["Drawn videos, an untrained encoder: this shows that the machinery works, not how accurate it is."]
        counts = self.dataset.videos
        if counts["official"] == counts["released"]:
            return []
        (_, official), (_, released) = counts["official"], counts["released"]
        return [f"The official split has {official} test videos, the authors' released lists {released}: see --split."]


@dataclass(frozen=True)
class Table:
    """Cells as text, with what stands above and below them."""

    title: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self, width: int = 110) -> str:
        """Aligned columns for a terminal; only the lines around the table are wrapped at `width`."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        # words to the left, numbers to the right
        left = [not any(_is_number(row[k]) for row in self.rows) for k in range(len(widths))]
        body = [
            "  ".join(c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(line, widths, left, strict=True))
            for line in lines
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        # a no-break space keeps each part of the protocol on one line
        parts = (part.replace(" ", "\xa0") for part in self.protocol.split(SEPARATOR))
        head = [self.title, *(line.replace("\xa0", " ") for line in textwrap.wrap(SEPARATOR.join(parts), width))]
        foot = [line for note in self.notes for line in textwrap.wrap(note, width, subsequent_indent="  ")]
        return "\n".join(line.rstrip() for line in [*head, rule, body[0], rule, *body[1:], rule, *foot])

    __str__ = text

    def markdown(self) -> str:
        """The same as a Markdown table."""
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|" + "---|" * len(self.columns))
        return "\n".join([f"**{self.title}**", "", self.protocol, "", *lines, "", *(f"- {n}" for n in self.notes)])

    def csv(self) -> str:
        """The same as CSV; title, protocol and notes are lines that begin with `#`."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([self.columns, *self.rows])
        return "".join(f"# {line}\n" for line in (self.title, self.protocol, *self.notes)) + stream.getvalue()

    def save(self, path_without_suffix: Path) -> list[Path]:
        """Writes .txt, .md and .csv, each whole or not at all; returns their paths."""
        paths = []
        for suffix, content in ((".txt", self.text()), (".md", self.markdown()), (".csv", self.csv())):
            paths.append(path_without_suffix.with_name(path_without_suffix.name + suffix))
            write_whole(paths[-1], (content.rstrip("\n") + "\n").encode())
        return paths


def results_table(metrics: Mapping[str, float], protocol: Protocol, *, modality: str = "fusion") -> Table:
    """Every number of one evaluation beside the paper's three numbers for it, as far as the paper has them.

    metrics: what `vad.metrics.evaluate` returns. modality: what the model saw; "image" and "event" are compared with
    their own columns of Table 2.
    """
    expected = _paper_numbers(protocol, modality)
    rows = []
    for name, value in metrics.items():
        cells = [_label(name), _number(name, value)]
        for numbers in expected.values():
            printed, spread = numbers.get(name, (None, None))
            cells += [
                NONE if printed is None else _printed(name, printed) + (f" ± {spread:.2f}" if spread else ""),
                _difference(name, value, printed),
            ]
        rows.append(tuple(cells))
    columns = ["metric", "here", *(cell for title in expected for cell in (title, "diff."))]
    notes = _reasons(metrics)
    if expected or protocol.dataset.drawn:
        notes += protocol.notes()
    if len(expected) > 1:
        single = " and ".join(title for title in expected if title != "Table 1")
        notes.insert(0, f"Table 1 is the paper's mean ± std of {PAPER['table1']['runs']} runs, {single} one run each. "
                        "A checkpoint is one run: expect the latter.")
    return Table(f"{protocol.dataset.title}, {modality}", protocol.line(), tuple(columns), tuple(rows), tuple(notes))


def method_table(metrics: Mapping[str, float], protocol: Protocol) -> Table:
    """Table 1 for one of the paper's data sets, this evaluation as its last row; InputError for another data set."""
    name = protocol.dataset.name
    if name not in PAPER["table1"]["metric"]:
        raise InputError(f"Table 1 has no column for {name}; it has {', '.join(PAPER['table1']['metric'])}")
    columns = PAPER["table1"]["metric"][name]
    rows = []
    for method, row in PAPER["table1"]["rows"].items():
        if name in row:
            spreads = row.get(f"{name}_std", [None] * len(columns))
            pairs = zip(row[name], spreads, strict=True)
            rows.append((method, *(_spread(mean, std) for mean, std in pairs)))
    rows.append(("here", *(_number(metric, metrics[metric]) for metric in columns)))
    titles = ("method", *(f"{metric} (%)" for metric in columns))
    notes = (*_reasons({metric: metrics[metric] for metric in columns}), *protocol.notes())
    return Table(f"Table 1, {protocol.dataset.title}", protocol.line(), titles, tuple(rows), notes)


def class_table(
    classes: Mapping[str, Mapping[str, float]],
    protocol: Protocol,
    overall: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """Table 2: one row a class, for each modality that was evaluated its number, the paper's and the difference.

    classes: modality → what `vad.metrics.per_class` returns. overall: modality → what `vad.metrics.evaluate`
    returns, for the last rows.
    """
    dataset = protocol.dataset
    printed = PAPER["table2"].get(dataset.name, {})
    modalities = [m for m in MODALITIES if m in classes]
    names = [name for name in dataset.classes.values() if any(name in classes[m] for m in modalities)]
    values = {name: {m: classes[m].get(name, math.nan) for m in modalities} for name in names}
    for total in ("AUC", "Ano-AUC") if dataset.metric == "AUC" else ("AP",):
        if overall:
            values[total] = {m: overall[m][total] for m in modalities}
    rows = []
    for name, found in values.items():
        cells = [f"all videos, {name}" if name in PERCENT else name]
        paper = printed.get(name.replace("Ano-AUC", "Ano AUC"))
        for m in modalities:
            cells.append(_number("AUC", found[m]))
            if printed:
                number = None if paper is None else paper[MODALITIES.index(m)]
                cells += [NONE if number is None else f"{number:.2f}", _difference("AUC", found[m], number)]
        rows.append(tuple(cells))
    extra = ("paper", "diff.") if printed else ()
    columns = ("class", *(cell for m in modalities for cell in (m, *extra)))
    undefined = any(math.isnan(value) for found in values.values() for value in found.values())
    notes = [f"{NAN}: {UNDEFINED[dataset.metric]}."] if undefined else []
    title = f"Table 2, {dataset.title}: {dataset.metric} (%) on the videos of each class"
    return Table(title, protocol.line(), columns, tuple(rows), (*notes, *(protocol.notes() if printed else [])))


def probe_table(probes: pd.DataFrame, protocol: Protocol, *, axis: str, seed: int) -> Table:
    """Tables 6–9: each condition as measured and, in the line below, as the paper printed it.

    probes: `vad.probes.Probes.table`. The paper's line is left out where it has none for this data set or level.
    """
    title, paper = _paper_probes(protocol.dataset)
    rows = []
    for _, row in probes.iterrows():
        numbers = [_number(name, float(row[name])) for name in probes.columns[2:]]
        rows.append((row["masked"], f"{row['level']:.2f}", *(["here"] if paper else []), *numbers))
        printed = paper.get((row["masked"], row["level"]))
        if printed:
            cells = [_printed(name, number) for name, number in zip(probes.columns[2:], printed, strict=True)]
            rows.append(("", "", "paper", *cells))
    short = {", abnormal frames": " abn", ", normal frames": " norm"}
    names = [reduce(lambda name, pair: name.replace(*pair), short.items(), _label(name)) for name in probes.columns]
    columns = (*names[:2], *(["from"] if paper else []), *names[2:])
    notes = ["EV_NOISE: event masked. IMG_NOISE: image masked. abn/norm: mean over abnormal / normal frames."]
    if paper:
        notes.append("The paper's own table has ŵ_i rise as the image is masked; its Section 4.2 says that it falls.")
    header = f"{protocol.line()} · {AXES[axis]} · mask seed {seed}"
    return Table(f"{title}, {protocol.dataset.title}: masking probes", header, columns, tuple(rows), tuple(notes))


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
    for number, (settings, metrics) in enumerate(rows):
        key = (str(settings.get("modality", "fusion")), *(str(settings.get(k, NONE)) for k in varying))
        seed = settings.get("seed", f"run {number}")
        if seed in groups.setdefault(key, {}):
            raise InputError(f"two runs of {', '.join(key)} have seed {seed}; name each run once")
        groups[key][seed] = metrics
    order = {name: k for k, name in enumerate(MODALITIES)}
    keys = sorted(groups, key=lambda key: (key[1:], order.get(key[0], len(order))))
    shown = [m for m in ("AUC", "AP", "Ano-AUC") if all(m in metrics for _, metrics in rows)]
    cells = tuple(
        (*key, str(len(groups[key])), *(_mean(run[metric] for run in groups[key].values()) for metric in shown))
        for key in keys
    )
    columns = ("modality", *varying, "runs", *(_label(metric) for metric in shown))
    fusions = [key for key in keys if key[0] == "fusion"]
    notes = [note for key in fusions for note in _fusion_gains(groups, key, protocol.dataset.metric)]
    notes += protocol.notes() if protocol.dataset.drawn else []
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


def _paper_numbers(protocol: Protocol, modality: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Title of each of the paper's tables that has this case → metric → (printed number, its std)."""
    name, found = protocol.dataset.name, {}
    if name not in PAPER["table1"]["metric"]:
        return {}
    row = PAPER["table1"]["rows"][f"IEF-VAD ({'Student-T' if protocol.noise_model == 'StudentT' else 'Gaussian'})"]
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
        title, rows = _paper_probes(protocol.dataset)
        names = ("AUC" if protocol.dataset.metric == "AUC" else "AP", "Brier", "kl", *PAPER["table6"]["columns"][5:])
        found[title] = {k: (v, None) for k, v in zip(names, rows["CLEAN", 0.0], strict=True)}
    return found


def _paper_probes(dataset: Dataset) -> tuple[str, dict[tuple[str, float], list[float]]]:
    """Title of the probe table of this data set and its rows by (masked, level); no rows where the paper has none."""
    for number in (6, 7, 8, 9):
        table = PAPER[f"table{number}"]
        if table["dataset"] == dataset.name:
            return f"Table {number}", {(row[0], row[1]): row[2:] for row in table["rows"]}
    return "As Tables 6–9", {}


def _label(name: str) -> str:
    """A metric's or column's name as the tables print it."""
    if name in PERCENT:
        return f"{name} (%)"
    base, _, part = name.replace("w_image", "ŵ_i ").replace("w_event", "ŵ_e ").partition(" _")
    return f"{base}, {part} frames" if part else {"brier": "Brier", "kl": "KL"}.get(name, base.strip())


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return NAN
    return f"{100 * value:.2f}" if name in PERCENT else f"{value:.4f}"


def _printed(name: str, number: float) -> str:
    return f"{number:.2f}" if name in PERCENT else f"{number:.4f}"


def _difference(name: str, value: float, printed: float | None) -> str:
    """Ours minus the paper's, in the unit both are printed in."""
    if printed is None or math.isnan(value):
        return NONE
    digits = 2 if name in PERCENT else 4
    # + 0.0 turns a rounded −0 into 0
    return f"{round(value * (100 if name in PERCENT else 1) - printed, digits) + 0.0:+.{digits}f}"


def _spread(mean: float | None, std: float | None) -> str:
    return NONE if mean is None else f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def _mean(values: Iterable[float]) -> str:
    """Mean of fractions in percent, ± the sample standard deviation where there is more than one run."""
    percent = [100 * value for value in values]
    if any(map(math.isnan, percent)):
        return NAN
    return _spread(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


def _reasons(metrics: Mapping[str, float]) -> list[str]:
    """Why each undefined number is undefined."""
    reasons = [UNDEFINED[name] for name, value in metrics.items() if math.isnan(value) and name in UNDEFINED]
    return [f"{NAN}: {reason}." for reason in dict.fromkeys(reasons)]


def _is_number(cell: str) -> bool:
    return cell in (NONE, NAN) or cell.lstrip("+-")[:1].isdigit()
