"""Print the table of docs/differences.md: options in which profiles differ, each with its measured effect."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vad.datasets import load_dataset
from vad.experiments import read_runs
from vad.files import run_command
from vad.options import PROFILES, Options, as_text, command_parser, option_fields, resolve
from vad.report.table import NONE
from vad.report.tables import paired_cells
from vad.statistics import compare_paired

ORDER = ("paper", "released", "default")
GROUPS = ("model", "loss", "training", "evaluation")  # of options that `make questions` varies
MEASURED = ("fusion", "noise_model", "epsilon", "kl_noise_model", "lambda_reg", "lambda_kl")  # equal in all profiles


def differences_table(runs: pd.DataFrame | None = None) -> str:
    """Return the Markdown table: option, meaning, value in each profile, effect on AUC in points.

    runs: rows of a runs.csv. The effect of a value is its AUC minus the default's, paired by seed:
    mean and 95 % interval, bold where the interval excludes 0.
    """
    effects = _effects(runs) if runs is not None else {}
    per_data_set = load_dataset(Options.dataset).training
    rows = [["option", "meaning", *ORDER, "effect on AUC (points)"], ["---"] * 6]
    differing = {name for values in PROFILES.values() for name in values}
    for f in (f for f in option_fields() if f.name in differing or f.name in MEASURED):
        values = [as_text(PROFILES[profile].get(f.name, f.default)) for profile in ORDER]
        if f.name in per_data_set:
            values[1:] = ["per data set"] * 2
        flag = f"`--{f.name}`" if f.metadata["flag"] else f"`--sweep {f.name}=…`"
        unmeasured = "trains nothing" if f.metadata["group"] in ("metrics", "masking") else "not measured"
        rows.append([flag, f.metadata["help"], *values, effects.get(f.name, unmeasured)])
    for profile in ORDER[:2]:
        row = [f"`--profile {profile}`", "every value of its column", NONE, NONE, NONE]
        rows.append([*row, effects.get(profile, "not measured")])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _effects(runs: pd.DataFrame) -> dict[str, str]:
    """Return option or profile → its cell, from runs that differ from the default in this option alone."""
    names = [f.name for f in option_fields() if f.name in runs and f.metadata["group"] in GROUPS]
    base = resolve({"dataset": runs["dataset"].iloc[0]})
    defaults = {name: as_text(getattr(base, name)) for name in names}
    auc: dict[tuple[str, str], dict[int, float]] = {}
    for row in runs[runs.modality == "fusion"].to_dict("records"):
        changed = [name for name in names if row[name] != defaults[name]]
        if row["profile"] != "default":
            key = (row["profile"], row["profile"])
        elif len(changed) <= 1:
            key = (changed[0], row[changed[0]]) if changed else ("", "")
        else:
            continue
        auc.setdefault(key, {})[int(row["seed"])] = float(row["AUC"])
    cells: dict[str, list[str]] = {}
    for (name, value), own in auc.items():
        paired = compare_paired(auc["", ""], own) if name else None
        if paired:
            text = " ".join(paired_cells(paired)[:2])
            text = f"**{text}**" if paired.low * paired.high > 0 else text
            cells.setdefault(name, []).append(text if name == value else f"`{value}` {text}")
    return {name: "; ".join(texts) for name, texts in cells.items()}


def main() -> None:
    """Print the table, with effects where a table of runs is given."""
    example = "python -m vad.report.differences checkpoints/questions/demo_runs.csv"
    parser = command_parser(__doc__, example, prog="python -m vad.report.differences", usage="[RUNS]")
    parser.add_argument("runs", nargs="?", type=Path, metavar="RUNS", help="runs.csv of `make questions`")
    flags = parser.parse_args()
    print(differences_table(read_runs(flags.runs) if flags.runs else None))


if __name__ == "__main__":
    run_command(main)
