"""checkpoints/<exp_name>_runs.csv: a row a run with all its settings, its versions and all its numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
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
    """Put rows into the file, each in the place of an older one of the same run; the file is whole at any time."""
    there = read_rows(path) if path.is_file() else []
    fresh = {row["run"]: row for row in rows}
    merged = {row["run"]: fresh.pop(row["run"], row) for row in there} | fresh
    stream = io.StringIO()
    pd.DataFrame(list(merged.values())).to_csv(stream, index=False)
    write_whole(path, stream.getvalue().encode())


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


def _plain(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
