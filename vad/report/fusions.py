"""Print the tables of docs/verification.md: is inverse variance worth it, and what do its weights do?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from vad.datasets import load_dataset
from vad.experiments import read_runs
from vad.files import InputError, run_command
from vad.metrics import SPREAD_DIMENSIONS, SPREAD_SNIPPETS
from vad.options import command_parser, parse_value, resolve
from vad.report.baselines import METRICS
from vad.report.table import NONE, mean_cell
from vad.report.tables import average_splits, paired_cells
from vad.statistics import compare_paired

BASE = "inverse_variance"
WEIGHTS = {"w_image": "ŵ_i", SPREAD_SNIPPETS: "std over snippets", SPREAD_DIMENSIONS: "std over dimensions"}


def fusion_tables(runs: pd.DataFrame) -> str:
    """Return two Markdown tables of a runs.csv with sweeps of `fusion`, and of `fusion` with `lambda_kl`.

    The first has one row per fusion, with differences from inverse variance. The second has one row per λ_kl of
    inverse variance, with its weights and the difference from equal weights. Runs are paired by seed, or by split.
    """
    dataset = load_dataset(runs["dataset"].iloc[0])
    numbers = [*METRICS, *WEIGHTS, "parameters"]
    runs = runs.assign(**{name: pd.to_numeric(runs[name]) for name in numbers}, seed=runs["seed"].astype(int))
    base = resolve({"dataset": dataset.flag_value})
    defaults = {name: getattr(base, name) for name in ("temporal_update", "noise_model", "mil", "padding")}
    chosen = runs[(runs.modality == "fusion") & (runs.profile == base.profile)]
    for name, value in defaults.items():
        chosen = chosen[chosen[name] == value]
    frame = chosen[["fusion", "lambda_kl", "seed", *numbers]]
    if dataset.split_per_run:
        frame = average_splits(frame, chosen["split"])
    groups = {(fusion, parse_value("lambda_kl", kl)): g for (fusion, kl), g in frame.groupby(["fusion", "lambda_kl"])}
    if (BASE, base.lambda_kl) not in groups:
        raise InputError("these runs do not contain inverse variance with the default λ_kl. Train it: make questions")
    return "\n\n".join("\n".join(f"| {' | '.join(cells)} |" for cells in rows) for rows in (
        list(_fusions(groups, base.lambda_kl)), list(_weights(groups)),
    ))  # fmt: skip


Groups = dict[tuple[str, object], pd.DataFrame]


def _fusions(groups: Groups, lambda_kl: object) -> Iterator[list[str]]:
    """Yield header and rows of the first table."""
    yield ["fusion", "runs", "parameters (millions)", *METRICS, *(f"Δ {m} [95 % interval]" for m in METRICS)]
    yield ["---"] * (3 + 2 * len(METRICS))
    base = groups[BASE, lambda_kl]
    order = {f: g for (f, kl), g in groups.items() if kl == lambda_kl}
    for fusion in [BASE, *(f for f in order if f != BASE)]:
        group = order[fusion]
        millions = f"{group['parameters'].max() / 1e6:.2f}"
        means = (mean_cell(group[m]) for m in METRICS)
        yield [fusion, str(len(group)), millions, *means, *(_difference(base, group, m) for m in METRICS)]


def _weights(groups: Groups) -> Iterator[list[str]]:
    """Yield header and rows of the second table."""
    yield ["λ_kl", *WEIGHTS.values(), "AUC", *(f"{m} − equal weights" for m in METRICS)]
    yield ["---"] * (2 + len(WEIGHTS) + len(METRICS))
    for (fusion, lambda_kl), group in sorted(groups.items(), key=lambda item: -float(item[0][1])):
        if fusion == BASE:
            weights = (f"{group[name].mean():.3f}" for name in WEIGHTS)
            equal = groups.get(("equal", lambda_kl))
            paired = [NONE] * len(METRICS) if equal is None else [_difference(equal, group, m) for m in METRICS]
            yield [f"{lambda_kl:g}", *weights, mean_cell(group["AUC"]), *paired]


def _difference(base: pd.DataFrame, group: pd.DataFrame, metric: str) -> str:
    """Return the paired difference and its interval, bold where the interval excludes 0."""
    if base is group:
        return NONE
    paired = compare_paired(_by_seed(base, metric), _by_seed(group, metric))
    text = " ".join(paired_cells(paired)[:2])
    return f"**{text}**" if paired and paired.low * paired.high > 0 else text


def _by_seed(group: pd.DataFrame, metric: str) -> dict[int, float]:
    return group.set_index("seed")[metric].to_dict()


def main() -> None:
    """Print the tables of a table of runs."""
    example = "python -m vad.report.fusions checkpoints/questions/demo_runs.csv"
    parser = command_parser(__doc__, example, prog="python -m vad.report.fusions", usage="RUNS")
    parser.add_argument("runs", type=Path, metavar="RUNS", help="runs.csv of `make questions`")
    print(fusion_tables(read_runs(parser.parse_args().runs)))


if __name__ == "__main__":
    run_command(main)
