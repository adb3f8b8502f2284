"""main.py --compare: two tables of runs held against each other, paired by seed, with one plain sentence a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vad.cells import SPREAD_NOTE, mean_cell
from vad.comparison import CONFIDENCE, PAIRED_NOTE, Paired, about_many, compare_paired, smallest_p
from vad.errors import InputError
from vad.run_log import METRICS, number, read_rows, settings_of
from vad.sweep_table import paired_cells
from vad.sweeps import SHORT
from vad.table import SEPARATOR, Table

Row = Mapping[str, str]
# what must be equal for a difference to be one of the runs; the settings compared are left out
CONDITIONS = ("dataset", "data", "weights", "split", "test_crops", "ano_auc", "nan", "torch", "code")


@dataclass(frozen=True)
class Side:
    """One of the two sets: what was asked for, and its runs."""

    name: str
    rows: Sequence[Row]

    def values(self, name: str) -> set[str]:
        """Every value of a column that these runs have."""
        return {row.get(name, "") for row in self.rows}


def compare_files(a: str, b: str) -> Table:
    """Whether the runs of b differ from those of a in AUC, AP and Ano-AUC.

    a, b: `runs.csv`, or `runs.csv:nu=2,mil=topk` for the runs with these settings alone. Files that hold sweeps are
    compared cell by cell; a single cell that has no equal is held against every cell of the other. Raises InputError
    for a file that is no table of runs, a name or value it does not have, and where no cell or seed is shared.
    """
    sides = _side(a), _side(b)
    compared = _compared(*sides)
    pairs, left_out = _matched(*(_cells(side, compared) for side in sides))
    # from here on only what is compared counts
    sides = tuple(
        Side(side.name, [row for pair in pairs for row in pair[k].values()]) for k, side in enumerate(sides, 1)
    )
    metrics = [m for m in METRICS if all(m in row for side in sides for row in side.rows)]
    rows, found = [], []
    for label, left, right in pairs:
        for metric in metrics:
            paired = compare_paired(_values(left, metric), _values(right, metric))
            if paired is not None:
                found.append((metric, paired))
                rows.append((label, metric, *_cells_of(left, right, metric, paired)))
    if not rows:
        raise InputError(f"{a} and {b} share no seed; runs are paired by seed: train both with the same --runs")
    notes = [*_conclusions(found, len(pairs)), *left_out, *_unpaired(pairs), *_mismatches(*sides, compared)]
    columns = ("cell", "metric", "a (%)", "b (%)", "b − a", "95 % interval", "p", "pairs")
    if not any(label for label, _, _ in pairs):
        columns, rows = columns[1:], [row[1:] for row in rows]
    what = [f"{name} {_shown(sides[0], name)} → {_shown(sides[1], name)}" for name in compared] or ["no setting"]
    names = (f"a: {sides[0].name}", f"b: {sides[1].name}", f"differs: {'; '.join(what)}")
    header = SEPARATOR.join([*names, *_shared(*sides)])
    return Table("Two sets of runs, paired by seed", header, columns, tuple(rows), tuple(notes))


def _conclusions(found: Sequence[tuple[str, Paired]], cells: int) -> list[str]:
    """A sentence for each metric; of several cells, how many say what."""
    telling = [paired for _, paired in found if smallest_p(paired.pairs) < 1 - CONFIDENCE]
    about = [*about_many(len(telling)), f"{SPREAD_NOTE} {PAIRED_NOTE}"]
    if cells == 1:
        return [*(f"{metric} of b against a: {paired.words()}." for metric, paired in found), *about]
    notes = []
    for metric in dict.fromkeys(metric for metric, _ in found):
        tests = [paired for name, paired in found if name == metric]
        higher, lower = (sum(p.differs and sign * p.mean > 0 for p in tests) for sign in (1, -1))
        rest = len(tests) - higher - lower
        notes.append(f"{metric} of b is higher in {higher}, lower in {lower} cells, and not told from a's in {rest}.")
    return [*notes, *about]


def _side(text: str) -> Side:
    path, colon, chosen = text.rpartition(":")
    if not colon or "=" not in chosen:
        path, chosen = text, ""
    wanted = {}
    for part in filter(None, chosen.split(",")):
        name, _, value = part.partition("=")
        wanted[SHORT.get(name, name)] = value
    rows = read_rows(Path(path))
    for name, value in wanted.items():
        known = list(settings_of(rows[0])) if rows else []
        if name not in known:
            raise InputError(f"{path} has no setting {name!r}; it has {', '.join(known)}")
        there = dict.fromkeys(row[name] for row in rows)
        rows = [row for row in rows if _same(row[name], value)]
        if not rows:
            raise InputError(f"{path} has no run with {name} {value}; it has {', '.join(there)}")
    if not rows:
        raise InputError(f"{path} holds no run; main.py --runs writes them there")
    return Side(text, rows)


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _compared(a: Side, b: Side) -> list[str]:
    """The settings that make the difference: those fixed in either set, at another value in each."""
    names = [name for name in settings_of(a.rows[0]) if name in settings_of(b.rows[0])]
    return [n for n in names if len(a.values(n)) == len(b.values(n)) == 1 and a.values(n) != b.values(n)]


def _cells(side: Side, compared: Sequence[str]) -> dict[tuple[tuple[str, str], ...], dict[int, Row]]:
    """Settings other than the compared ones → seed → run."""
    cells: dict[tuple[tuple[str, str], ...], dict[int, Row]] = {}
    for row in side.rows:
        key = tuple((name, value) for name, value in settings_of(row).items() if name not in compared)
        runs = cells.setdefault(key, {})
        if int(row["seed"]) in runs:
            other = runs[int(row["seed"])]["run"]
            raise InputError(f"{side.name}: runs {other} and {row['run']} have the same settings and seed; drop one")
        runs[int(row["seed"])] = row
    return cells


def _matched(a: dict, b: dict) -> tuple[list[tuple[str, dict[int, Row], dict[int, Row]]], list[str]]:
    """(label, runs of a, runs of b) of cells with equal settings, and what has no partner.

    Where no two are equal, a single cell is held against all of the other's.
    """
    keys = [(key, key) for key in a if key in b]
    if not keys and 1 in (len(a), len(b)):
        keys = [(left, right) for left in a for right in b]
    if not keys:
        raise InputError("the two tables share no cell: every run differs in a setting from every run of the other")
    counts = {"a": len(a) - len({left for left, _ in keys}), "b": len(b) - len({right for _, right in keys})}
    lone = [f"Left out: {count} cells of {side} that the other has not." for side, count in counts.items() if count]
    varying = {name for pair in keys for name, value in set(pair[0]) ^ set(pair[1])}
    varying |= {name for pair in keys for name, value in set(pair[0]) ^ set(keys[0][0])}
    found = []
    for left, right in keys:
        sides = [", ".join(f"{name} {value}" for name, value in key if name in varying) for key in (left, right)]
        found.append((sides[0] if sides[0] == sides[1] else " → ".join(sides), a[left], b[right]))
    return found, lone


def _values(runs: Mapping[int, Row], metric: str) -> dict[int, float]:
    return {seed: number(row, metric) for seed, row in runs.items()}


def _cells_of(left: Mapping[int, Row], right: Mapping[int, Row], metric: str, paired: Paired) -> tuple[str, ...]:
    seeds = sorted(left.keys() & right.keys())
    means = (mean_cell(number(runs[seed], metric) for seed in seeds) for runs in (left, right))
    return (*means, *paired_cells(paired), str(paired.pairs))


def _unpaired(pairs: Iterable[tuple[str, Mapping[int, Row], Mapping[int, Row]]]) -> list[str]:
    """Seeds that only one side has."""
    alone = {"a": set(), "b": set()}
    for _, left, right in pairs:
        alone["a"] |= left.keys() - right.keys()
        alone["b"] |= right.keys() - left.keys()
    return [
        f"Left out, for only {side} has them: seeds {', '.join(map(str, sorted(seeds)))}."
        for side, seeds in alone.items()
        if seeds
    ]


def _mismatches(a: Side, b: Side, compared: Sequence[str]) -> list[str]:
    """Conditions that differ between the sets although nobody asked for it."""
    notes = []
    for name in CONDITIONS:
        # the fingerprint is of the files that were read, and one stream reads half of them
        expected = name in compared or (name == "data" and "modality" in compared)
        if a.values(name) != b.values(name) and not expected:
            notes.append(f"Not under one condition: {name} is {_shown(a, name)} in a, {_shown(b, name)} in b.")
    return notes


def _shared(a: Side, b: Side) -> list[str]:
    """What holds for every run of both, of the conditions a reader asks for first."""
    names = ("dataset", "profile", "modality", "split", "test_crops", "weights")
    equal = [name for name in names if a.values(name) == b.values(name) and len(a.values(name)) == 1]
    return [f"{name} {_shown(a, name)}" for name in equal]


def _shown(side: Side, name: str) -> str:
    return "/".join(sorted(value or "unknown" for value in side.values(name)))
