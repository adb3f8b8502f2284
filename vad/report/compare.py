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
# what must be equal for a difference to be one of the options that differ
CONDITIONS = ("dataset", "data", "weights", "split", "test_crops", "ano_auc", "nan", "torch", "code")
SHARED = ("dataset", "profile", "modality", "split", "test_crops", "weights")  # shown above the table
COLUMNS = ["metric", "a (%)", "b (%)", "b − a", "95 % interval", "p", "pairs"]


def compare_files(a: str, b: str) -> Table:
    """Whether the runs of b differ from those of a in AUC, AP and Ano-AUC.

    a, b: a table of runs, or `runs.csv:nu=2` for some of its runs; each must be runs of one kind.
    Raises InputError where it is not, where the file is no such table, and where no seed is shared.
    """
    whole = {"a": read_side(a), "b": read_side(b)}
    seeds = sorted(set(whole["a"].index) & set(whole["b"].index))
    left, right = (side.loc[seeds] for side in whole.values())
    rows, notes, tests = [], [], 0
    for metric in (m for m in METRICS if m in left and m in right):
        paired = compare_paired(left[metric].to_dict(), right[metric].to_dict())
        if paired is not None:
            means = (mean_cell(side[metric]) for side in (left, right))
            rows.append([metric, *means, *paired_cells(paired), str(paired.pairs)])
            notes.append(f"{metric} of b against a: {paired.describe()}.")
            tests += smallest_p(paired.pairs) < 1 - LEVEL
    if not rows:
        raise InputError(f"{a} and {b} share no seed; runs are paired by seed: train both with the same --runs")
    notes += [*multiple_tests_note(tests), f"{SPREAD_NOTE} {PAIRED_NOTE}"]
    for name, side in whole.items():
        if alone := sorted(set(side.index) - set(seeds)):
            notes.append(f"Left out, for only {name} has them: seeds {', '.join(map(str, alone))}.")
    shown = {name: (_shown(left, name), _shown(right, name)) for name in (*OPTIONS, *CONDITIONS, *SHARED)}
    differing = [n for n in OPTIONS if n in left and n in right and shown[n][0] != shown[n][1]]
    notes += _mismatches(shown, differing)
    what = "; ".join(f"{name} {' → '.join(shown[name])}" for name in differing)
    equal = [f"{n} {shown[n][0]}" for n in SHARED if n in left and shown[n][0] == shown[n][1]]
    header = SEPARATOR.join([f"a: {a}", f"b: {b}", f"differs: {what or 'no option'}", *equal])
    return Table("Two sets of runs, paired by seed", header, pd.DataFrame(rows, columns=COLUMNS), tuple(notes))


def read_side(text: str) -> pd.DataFrame:
    """The runs that `runs.csv` or `runs.csv:nu=2,mil=topk` names, by seed; metrics are numbers."""
    path, colon, chosen = text.rpartition(":")
    if not colon or "=" not in chosen:
        path, chosen = text, ""
    runs = read_runs(Path(path))
    if runs.empty:
        raise InputError(f"{path} holds no run; main.py --runs writes them there")
    options = [name for name in OPTIONS if name in runs]
    for part in filter(None, chosen.split(",")):
        given, _, value = part.partition("=")
        name = SHORT.get(given, given)
        if name not in options:
            raise InputError(f"{path} has no option {name!r}; it has {', '.join(options)}")
        known = ", ".join(runs[name].unique())
        runs = runs[[_same(other, value) for other in runs[name]]]
        if runs.empty:
            raise InputError(f"{path} has no run with {name} {value}; it has {known}")
    for name in options:
        if len(several := runs[name].unique()) > 1:
            choice = f"{text}{',' if chosen else ':'}{name}={several[0]}"
            raise InputError(f"{text} holds runs with {name} {', '.join(several)}; choose some: {choice}")
    try:
        metrics = {m: runs[m].replace("", "nan").astype(float) for m in METRICS if m in runs}
        runs = runs.assign(**metrics).set_index(runs["seed"].astype(int))
    except ValueError as error:
        raise InputError(f"{path}: a seed or a metric is no number ({error})") from None
    if not runs.index.is_unique:
        first, second = runs.loc[runs.index[runs.index.duplicated()][0], "run"].iloc[:2]
        raise InputError(f"{path}: runs {first} and {second} have the same options and seed; drop one")
    return runs


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _shown(runs: pd.DataFrame, name: str) -> str:
    """Every value of a column; "unknown" for one that is missing or empty."""
    return "/".join(sorted({value or "unknown" for value in runs.get(name, [""])}))


def _mismatches(shown: Mapping[str, tuple[str, str]], differing: Sequence[str]) -> list[str]:
    """Conditions that differ between the sets although nobody asked for it."""
    # the fingerprint is of the files that were read, and one stream reads half of them
    expected = {*differing, *(["data"] if "modality" in differing else [])}
    pairs = {name: shown[name] for name in CONDITIONS if name not in expected}
    return [f"Not under one condition: {n} is {a} in a, {b} in b." for n, (a, b) in pairs.items() if a != b]


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
