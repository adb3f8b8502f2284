"""The tables of fusions and of their weights, from a made table of runs."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from vad.experiments import plan_runs, run_row
from vad.files import InputError
from vad.metrics import SPREAD_DIMENSIONS, SPREAD_SNIPPETS
from vad.report.differences import fusion_tables

AUC = {  # fusion, λ_kl → AUC of three seeds
    ("inverse_variance", "1"): (0.90, 0.91, 0.92),
    ("equal", "1"): (0.88, 0.90, 0.89),
    ("late", "1"): (0.80, 0.95, 0.90),
    ("inverse_variance", "0"): (0.70, 0.71, 0.75),
    ("equal", "0"): (0.70, 0.72, 0.74),
}


def made_runs(dataset: str = "demo") -> pd.DataFrame:
    """Return rows of runs.csv, made by the code that writes them."""
    rows = []
    for (fusion, kl), values in AUC.items():
        plan = plan_runs({"dataset": dataset}, [f"fusion={fusion}", f"lambda_kl={kl}"], len(values))
        for run, auc in zip(plan, values, strict=True):
            metrics = {"AUC": auc, "AP": auc - 0.1, "Ano-AUC": auc - 0.2, "w_image": 0.49}
            metrics |= {SPREAD_SNIPPETS: 0.01, SPREAD_DIMENSIONS: 0.04}
            content = {
                "options": {**run.options.recorded(), "dataset": dataset}, "config": {"modality": "fusion"},
                "seed": run.options.seed, "metrics": metrics, "rows": [{**metrics, "epoch": 1, "step": 1}],
                "parameters": 1_230_000, "weights": "last",
            }  # fmt: skip
            rows.append(run_row(run, content))
    return pd.DataFrame(rows).astype(str)


def test_fusions_are_paired_with_inverse_variance():
    # neither the order of the rows nor runs with other options matter
    other = made_runs().assign(mil="segment", AUC="0.1")
    runs = pd.concat([other, made_runs().sample(frac=1, random_state=0)])
    fusions, weights = fusion_tables(runs).split("\n\n")
    lines = [line.strip("| ").split(" | ") for line in fusions.splitlines()]
    assert [line[0] for line in lines[2:]] == ["inverse_variance", "equal", "late"]
    base, equal = lines[2], lines[3]
    assert base[1:4] == ["3", "1.23", "91.00 ± 1.00"] and base[6:] == ["-"] * 3
    gain = pd.Series(AUC["equal", "1"]) - pd.Series(AUC["inverse_variance", "1"])
    half = stats.t.ppf(0.975, 2) * gain.sem()
    low, high = 100 * (gain.mean() - half), 100 * (gain.mean() + half)
    assert equal[6].strip("*") == f"{100 * gain.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
    assert equal[6].startswith("**") == (low * high > 0)
    rows = [line.strip("| ").split(" | ") for line in weights.splitlines()][2:]
    assert [row[0] for row in rows] == ["1", "0"]  # descending λ_kl
    assert rows[0][1:4] == ["0.490", "0.010", "0.040"] and rows[0][5].startswith("+2.00 [")
    assert rows[1][5].startswith("+0.00 [")


def test_runs_without_the_base_are_refused():
    runs = made_runs()
    with pytest.raises(InputError, match="contain no run with default options"):
        fusion_tables(runs[runs.fusion != "inverse_variance"])


def test_seeds_of_a_split_count_once():
    """On UCSD Ped2 three runs are three splits; six runs of three splits would still be three pairs."""
    runs = made_runs("ped2")
    assert runs.split.unique().tolist() == ["split0", "split1", "split2"]
    assert fusion_tables(pd.concat([runs, runs.assign(seed="10", run=runs.run + "x")])).count("| 3 | 1.23 |") == 3
