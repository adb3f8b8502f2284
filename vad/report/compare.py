"""Compare two sets of runs, paired by seed: difference, 95 % interval and p value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from vad.experiments import SHORT, read_runs
from vad.files import InputError, run_command
from vad.options import command_parser, option_fields
from vad.report.paper import METRICS
from vad.report.table import SEPARATOR, SPREAD_NOTE, SUFFIXES, Table, mean_cell
from vad.report.tables import paired_cells
from vad.statistics import LEVEL, PAIRED_NOTE, compare_paired, multiple_tests_note, smallest_p

OPTIONS = tuple(f.name for f in option_fields() if f.name not in ("dataset", "seed"))
# must be equal, so that a difference can be attributed to the options
CONDITIONS = ("dataset", "data", "weights", "split", "test_crops", "ano_auc", "nan", "torch", "code")
SHARED = ("dataset", "profile", "modality", "split", "test_crops", "weights")  # printed above the table if equal
COLUMNS = ["metric", "a (%)", "b (%)", "b − a", "95 % interval", "p", "pairs"]


def compare_files(a: str, b: str) -> Table:
    """Return a table of the differences b − a in AUC, AP and Ano-AUC.

    a, b: a table of runs, or `runs.csv:nu=2` for some of its runs; within each, runs differ only in seed.
    Raises InputError if they do not, if a file is no table of runs, or if a and b share no seed.
    """
    sets = {"a": read_run_set(a), "b": read_run_set(b)}
    seeds = sorted(set(sets["a"].index) & set(sets["b"].index))
    runs_a, runs_b = (runs.loc[seeds] for runs in sets.values())
    rows, notes, tests = [], [], 0
    for metric in (m for m in METRICS if m in runs_a and m in runs_b):
        paired = compare_paired(runs_a[metric].to_dict(), runs_b[metric].to_dict())
        if paired is not None:
            means = (mean_cell(runs[metric]) for runs in (runs_a, runs_b))
            rows.append([metric, *means, *paired_cells(paired), str(paired.pairs)])
            notes.append(f"{metric}, b − a: {paired.describe()}.")
            tests += smallest_p(paired.pairs) < 1 - LEVEL
    if not rows:
        raise InputError(f"{a} and {b} share no seed, but runs are paired by seed. Train both with the same --runs.")
    notes += [*multiple_tests_note(tests), f"{SPREAD_NOTE} {PAIRED_NOTE}"]
    for name, runs in sets.items():
        if unpaired := sorted(set(runs.index) - set(seeds)):
            notes.append(f"Seeds that only {name} has are left out: {', '.join(map(str, unpaired))}.")
    values = {name: (_distinct(runs_a, name), _distinct(runs_b, name)) for name in (*OPTIONS, *CONDITIONS, *SHARED)}
    differing = [n for n in OPTIONS if n in runs_a and n in runs_b and values[n][0] != values[n][1]]
    notes += _mismatches(values, differing)
    changes = "; ".join(f"{name} {' → '.join(values[name])}" for name in differing)
    equal = [f"{n} {values[n][0]}" for n in SHARED if n in runs_a and values[n][0] == values[n][1]]
    header = SEPARATOR.join([f"a: {a}", f"b: {b}", f"differing options: {changes or 'none'}", *equal])
    return Table("Two sets of runs, paired by seed", header, pd.DataFrame(rows, columns=COLUMNS), tuple(notes))


def read_run_set(text: str) -> pd.DataFrame:
    """Return the runs of `runs.csv` or `runs.csv:nu=2,mil=topk`, indexed by seed, with numeric metrics."""
    path, colon, selection = text.rpartition(":")
    if not colon or "=" not in selection:
        path, selection = text, ""
    runs = read_runs(Path(path))
    if runs.empty:
        raise InputError(f"{path} contains no runs. Train some with main.py --runs.")
    options = [name for name in OPTIONS if name in runs]
    for part in filter(None, selection.split(",")):
        short_name, _, value = part.partition("=")
        name = SHORT.get(short_name, short_name)
        if name not in options:
            raise InputError(f"{path} has no option {name!r}. It has {', '.join(options)}.")
        available = ", ".join(runs[name].unique())
        runs = runs[[_same(cell, value) for cell in runs[name]]]
        if runs.empty:
            raise InputError(f"{path} has no run with {name} {value}. It has {available}.")
    for name in options:
        if len(values := runs[name].unique()) > 1:
            example = f"{text}{',' if selection else ':'}{name}={values[0]}"
            raise InputError(f"{text} has runs with {name} {', '.join(values)}. Select one value: {example}")
    try:
        metrics = {m: runs[m].replace("", "nan").astype(float) for m in METRICS if m in runs}
        runs = runs.assign(**metrics).set_index(runs["seed"].astype(int))
    except ValueError as error:
        raise InputError(f"{path}: a seed or a metric is not a number ({error}).") from None
    if not runs.index.is_unique:
        first, second = runs.loc[runs.index[runs.index.duplicated()][0], "run"].iloc[:2]
        raise InputError(f"{path}: runs {first} and {second} have the same options and seed. Remove one.")
    return runs


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _distinct(runs: pd.DataFrame, name: str) -> str:
    """Return the distinct values of a column, with "unknown" for missing and empty ones."""
    return "/".join(sorted({value or "unknown" for value in runs.get(name, [""])}))


def _mismatches(values: Mapping[str, tuple[str, str]], differing: Sequence[str]) -> list[str]:
    """Return a note on each condition that differs although no option explains it."""
    # the data fingerprint covers the files that were read, and a single stream reads only half of them
    expected = {*differing, *(["data"] if "modality" in differing else [])}
    pairs = {name: values[name] for name in CONDITIONS if name not in expected}
    return [f"The conditions differ: {n} is {a} in a and {b} in b." for n, (a, b) in pairs.items() if a != b]


def main() -> None:
    """Print the comparison of two tables of runs."""
    parser = command_parser(
        __doc__,
        "python -m vad.report.compare checkpoints/a_runs.csv checkpoints/b_runs.csv",
        "python -m vad.report.compare checkpoints/xd_runs.csv:mil=topk checkpoints/xd_runs.csv:mil=segment",
        prog="python -m vad.report.compare",
        usage="RUNS RUNS [options]",
    )
    parser.add_argument("a", metavar="RUNS", help="<exp_name>_runs.csv; RUNS.csv:nu=2 selects runs")
    parser.add_argument("b", metavar="RUNS", help="the same, with the same seeds")
    parser.add_argument("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
                        help=f"table as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    flags = parser.parse_args()
    print(compare_files(flags.a, flags.b).render(flags.format))


if __name__ == "__main__":
    run_command(main)
