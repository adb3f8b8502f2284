"""Print tables of the docs from the options and a table of runs: options that differ, and other fusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from vad.datasets import load_dataset
from vad.experiments import read_runs
from vad.files import InputError, run_command
from vad.metrics import SPREAD_DIMENSIONS, SPREAD_SNIPPETS
from vad.options import PROFILES, Options, as_text, command_parser, option_fields, resolve
from vad.report.baselines import METRICS
from vad.report.table import NONE, mean_cell
from vad.report.tables import average_splits, paired_cells
from vad.statistics import compare_paired

ORDER = ("paper", "released", "default")
GROUPS = ("model", "loss", "training", "evaluation")  # of options that `make questions` varies
MEASURED = ("fusion", "noise_model", "epsilon", "kl_noise_model", "lambda_reg", "lambda_kl")  # equal in all profiles

WEIGHTS = {"w_image": "ŵ_i", SPREAD_SNIPPETS: "std over snippets", SPREAD_DIMENSIONS: "std over dimensions"}


def differences_table(runs: pd.DataFrame | None = None) -> str:
    """Return the Markdown table: option, meaning, value in each profile, effect on AUC in points.

    runs: rows of a runs.csv. The effect of a value is its AUC minus the default's, paired by seed:
    mean and 95 % interval, bold where the interval excludes 0.
    """
    effects = _effects(runs) if runs is not None else {}
    per_data_set = load_dataset(Options.dataset).training
    rows = [["option", "meaning", *ORDER, "effect on AUC (points)"]]
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
    return _markdown(rows)


def _effects(runs: pd.DataFrame) -> dict[str, str]:
    """Return option or profile → its cell, from runs that differ from the default in this option alone."""
    auc: dict[tuple[str, str], dict[int, float]] = {}
    for row, changed in zip(runs.to_dict("records"), changed_options(runs), strict=True):
        if row["modality"] != "fusion":
            continue
        if row["profile"] != "default":
            key = (row["profile"], row["profile"])
        elif len(changed) <= 1:
            key = (changed[0], row[changed[0]]) if changed else ("", "")
        else:
            continue
        auc.setdefault(key, {})[int(row["seed"])] = float(row["AUC"])
    cells: dict[str, list[str]] = {}
    for (name, value), own in auc.items():
        if name and (text := _difference(auc["", ""], own)):
            cells.setdefault(name, []).append(text if name == value else f"`{value}` {text}")
    return {name: "; ".join(texts) for name, texts in cells.items()}


def changed_options(runs: pd.DataFrame) -> list[list[str]]:
    """Return for each run the options of `GROUPS` in which it differs from the default of its data set."""
    names = [f.name for f in option_fields() if f.name in runs and f.metadata["group"] in GROUPS]
    base = resolve({"dataset": runs["dataset"].iloc[0]})
    defaults = {name: as_text(getattr(base, name)) for name in names}
    return [[name for name in names if row[name] != defaults[name]] for row in runs.to_dict("records")]


def _difference(base: Mapping[int, float], own: Mapping[int, float]) -> str:
    """Return the mean paired difference and its interval, bold where the interval excludes 0; "" without a pair."""
    paired = compare_paired(base, own)
    text = " ".join(paired_cells(paired)[:2]) if paired else ""
    return f"**{text}**" if paired and paired.low * paired.high > 0 else text


def fusion_tables(runs: pd.DataFrame) -> str:
    """Return two Markdown tables: other fusions against inverse variance, and its weights for each λ_kl.

    runs: rows of a runs.csv; those that differ from the default in other options are left out. Runs are paired
    by seed, or by split where each run has its own.
    """
    dataset = load_dataset(runs["dataset"].iloc[0])
    swept = {"fusion", "lambda_kl"}
    chosen = [set(changed) <= swept for changed in changed_options(runs)]
    runs = runs[pd.Series(chosen, runs.index) & (runs.modality == "fusion") & (runs.profile == "default")]
    numbers = [*METRICS, *WEIGHTS, "parameters"]
    frame = runs[["fusion", "lambda_kl"]].assign(
        seed=runs["seed"].astype(int), **{name: pd.to_numeric(runs[name]) for name in numbers}
    )
    if dataset.split_per_run:
        frame = average_splits(frame, runs["split"])
    groups = dict(list(frame.groupby(["fusion", "lambda_kl"])))
    default = resolve({"dataset": dataset.flag_value})
    lambda_kl = as_text(default.lambda_kl)
    base = groups.get((default.fusion, lambda_kl))
    if base is None:
        raise InputError("these runs contain no run with default options. Train them with make questions.")
    others = [f for f, kl in groups if kl == lambda_kl and f != default.fusion]
    fusions = [["fusion", "runs", "parameters (millions)", *METRICS, *(f"Δ {m} [95 % interval]" for m in METRICS)]]
    for name in (default.fusion, *others):
        group = groups[name, lambda_kl]
        gains = [NONE if group is base else _difference(_by_seed(base, m), _by_seed(group, m)) for m in METRICS]
        millions = f"{group['parameters'].max() / 1e6:.2f}"
        fusions.append([name, str(len(group)), millions, *(mean_cell(group[m]) for m in METRICS), *gains])
    weights = [["λ_kl", *WEIGHTS.values(), "AUC", *(f"{m} − equal weights" for m in METRICS)]]
    for name, kl in sorted(groups, key=lambda key: -float(key[1])):
        if name == default.fusion:
            group, equal = groups[name, kl], groups.get(("equal", kl))
            gains = [NONE if equal is None else _difference(_by_seed(equal, m), _by_seed(group, m)) for m in METRICS]
            means = (f"{group[w].mean():.3f}" for w in WEIGHTS)
            weights.append([f"{float(kl):g}", *means, mean_cell(group["AUC"]), *gains])
    return f"{_markdown(fusions)}\n\n{_markdown(weights)}"


def _by_seed(group: pd.DataFrame, metric: str) -> dict[int, float]:
    return group.set_index("seed")[metric].to_dict()


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the table of options, with effects where a table of runs is given, or the tables of fusions."""
    example = "python -m vad.report.differences checkpoints/questions/demo_runs.csv"
    parser = command_parser(__doc__, example, prog="python -m vad.report.differences", usage="[RUNS] [--fusions]")
    parser.add_argument("runs", nargs="?", type=Path, metavar="RUNS", help="runs.csv of `make questions`")
    parser.add_argument("--fusions", action="store_true", help="the tables of docs/verification.md instead")
    flags = parser.parse_args()
    if flags.fusions and not flags.runs:
        raise InputError("--fusions needs a table of runs. Give the runs.csv of make questions.")
    runs = read_runs(flags.runs) if flags.runs else None
    print(fusion_tables(runs) if flags.fusions else differences_table(runs))


if __name__ == "__main__":
    run_command(main)
