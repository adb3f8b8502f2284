"""checkpoints/<exp_name>_runs.csv: a row a run with all its settings, its versions and all its numbers."""

from __future__ import annotations

import fcntl
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pandas as pd

from vad.catalog import Recipe
from vad.errors import InputError
from vad.files import read_text, write_whole
from vad.profile import Profile

BEST = "best on test "  # begins the columns of numbers that were selected on the test set
METRICS = ("AUC", "AP", "Ano-AUC")  # what runs are compared by
SETTINGS = tuple(field.name for field in (*fields(Profile), *fields(Recipe)) if field.name not in ("name", "recipe"))


def log_path(folder: Path, exp_name: str) -> Path:
    """Where the rows of all runs of an experiment stand."""
    return folder / f"{exp_name}_runs.csv"


def run_row(name: str, content: Mapping[str, object], metric: str, **extra: object) -> dict[str, object]:
    """One run as a flat row, from what its checkpoint says about itself; `extra` stands after its name.

    Metrics under their names are those of the weights kept (`weights`); those of the run's best evaluation by `metric`
    begin with `BEST`.
    """
    settings = content["settings"]
    best = max(content["rows"], key=lambda row: -math.inf if math.isnan(row[metric]) else row[metric])
    return {
        "run": name,
        **extra,
        "dataset": settings["dataset"],
        "profile": settings["profile"],
        "modality": content["config"]["modality"],
        "seed": content["seed"],
        **{k: _plain(v) for k, v in {**settings["switches"], **settings["recipe"]}.items()},
        **{k: content["identity"].get(k) for k in ("precision", "data")},
        **{k: _plain(v) for k, v in content.get("versions", {}).items()},
        **{k: content.get(k) for k in ("computing", "seconds", "command")},
        "weights": content["weights"],
        "epoch": content["epoch"],
        "step": content["step"],
        **content["metrics"],
        **{f"{BEST}{k}": best[k] for k in ("epoch", "step", *best["metrics"])},
    }


def settings_of(row: Mapping[str, str]) -> dict[str, str]:
    """What a row's run was trained with: profile, modality, every switch and training value."""
    return {name: row[name] for name in ("profile", "modality", *SETTINGS) if name in row}


def number(row: Mapping[str, str], name: str) -> float:
    """A metric of a row; NaN where it was not defined."""
    return float(row[name]) if row.get(name) else math.nan


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Put rows into the file, each in the place of an older one of the same run; the file is whole at any time.

    Several processes may do so at once: two sweeps of one experiment.
    """
    fresh = {row["run"]: row for row in rows}
    with _alone(path.parent):
        there = read_rows(path) if path.is_file() else []
        merged = {row["run"]: fresh.pop(row["run"], row) for row in there} | fresh
        write_whole(path, _text(merged.values()).encode())


def as_read(row: Mapping[str, object]) -> dict[str, str]:
    """A row as `read_rows` returns it, whatever another process has made of the file in between."""
    return pd.read_csv(io.StringIO(_text([row])), dtype=str, keep_default_na=False).to_dict("records")[0]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of such a file, every cell as its text. Raises InputError where it is no such file."""
    text = read_text(path, "table of runs")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is no table of runs ({str(error).strip()}); main.py --runs writes one") from None
    missing = [name for name in ("run", "dataset", "profile", "modality", "seed", "weights") if name not in table]
    if missing:
        raise InputError(f"{path} is no table of runs (no column {', '.join(missing)}); main.py --runs writes one")
    return table.to_dict("records")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of `_alone` with this folder; the system lets go of a killed one's hold."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: rows of two writers may then be lost, as ever
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _text(rows: Iterable[Mapping[str, object]]) -> str:
    stream = io.StringIO()
    pd.DataFrame(list(rows)).to_csv(stream, index=False)
    return stream.getvalue()


def _plain(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
