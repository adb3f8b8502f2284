"""Tables and pictures of sweeps: the cells' means, the paper's numbers beside the right ones, what was selected."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import pytest

from vad import catalog
from vad.data import MODALITIES
from vad.figures_sweep import draw_sweep
from vad.protocol import Protocol
from vad.run_log import BEST
from vad.settings import add_dataset_flags, add_switch_flags
from vad.sweep_table import SweepResult, sweep_table
from vad.sweeps import cells, parse_sweeps

SEEDS = 3


def result_of(dataset: str, *sweeps: str, seeds: int = SEEDS) -> SweepResult:
    """Made-up runs: the k-th cell has an AUC and AP of 0.8 + k / 100 with the seeds 1/1000 apart."""
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, default="fusion")
    add_switch_flags(parser, recipe=True)
    parsed = parse_sweeps(sweeps)
    runs = []
    for number, cell in enumerate(cells(parser.parse_args(["--dataset", dataset]), parsed)):
        for seed in range(seeds):
            value = str(0.8 + number / 100 + seed / 1000)
            metrics = {"AUC": value, "AP": value, "Ano-AUC": "0.7", "weights": "last"}
            selected = {f"{BEST}{name}": "0.95" for name in ("AUC", "AP")}
            runs.append((cell, {"seed": str(seed), **metrics, **selected}))
    record = catalog.dataset(dataset)
    protocol = Protocol(record, "default", "official", (5,), "last", "whole", videos=9)
    return SweepResult(tuple(parsed), runs, protocol, planned=len(runs))


def column(result: SweepResult, name: str, after: str | None = None) -> list[str]:
    """Cells of a column; `after`: of the first one of that name to the right of another."""
    table = sweep_table(result)
    start = table.columns.index(after) if after else 0
    place = table.columns.index(name, start)
    return [row[place] for row in table.rows]


def test_a_row_a_value_with_mean_and_spread_over_seeds():
    """0.800, 0.801, 0.802: mean 80.10, standard deviation with n − 1 exactly 0.10."""
    result = result_of("demo", "nu=2,8")
    assert column(result, "nu") == ["2", "8"] and column(result, "runs") == ["3", "3"]
    assert column(result, "AUC (%)") == ["80.10 ± 0.10", "81.10 ± 0.10"]
    assert column(result, "AUC, selected on test") == ["95.00 ± 0.00†"] * 2
    # the same seeds differ by one point each: no spread, and 2 of the 8 sign patterns are as far from zero
    assert column(result, "Δ AUC") == ["-1.00", "-"] and column(result, "p") == ["0.25", "-"]
    assert column(result, "95 % interval") == ["[-1.00, -1.00]", "-"]
    table = sweep_table(result)
    assert "mean ± std over seeds 0…2" in table.protocol and "profile default" in table.protocol
    notes = " ".join(table.notes)
    assert "3 seeds cannot reach p < 0.05: the smallest possible is 0.25" in notes
    assert "95 % interval: Student's t of the paired differences; p: sign-flip test." in notes


def test_several_tests_are_said_to_be_several():
    """Four values, one of them in force: three tests. Six seeds can reach 2 / 64."""
    assert "3 tests stand here, none corrected for the others" in " ".join(
        sweep_table(result_of("demo", "nu=2,4,6,8", seeds=6)).notes
    )
    assert "tests stand here" not in " ".join(sweep_table(result_of("demo", "nu=2,8", seeds=6)).notes)


def test_one_run_each_has_no_spread_and_is_not_called_a_mean():
    assert sweep_table(result_of("demo", "nu=2,8", seeds=1)).protocol.endswith("one run each, seed 0")


@pytest.mark.parametrize(
    ("dataset", "sweep", "title", "metric", "paper", "difference"),
    [
        # by hand from the paper's Tables 3, 4, 5, 1 and 2; ours are 80.10, 81.10, …
        ("ucfcrime", "nu=2,3,8", "Table 3", "AUC (%)", ["87.98 ± 0.33", "-", "88.67 ± 0.45"], ["-7.88", "-", "-6.57"]),
        ("ucfcrime", "epsilon=1e-4,0.000001", "Table 3", "Ano-AUC (%)", ["71.06 ± 1.14", "71.45 ± 0.81"],
         ["-1.06", "-1.45"]),
        ("xd", "N=0,10", "Table 4", "AP (%)", ["86.01 ± 1.10", "87.63 ± 0.54"], ["-5.91", "-6.53"]),
        ("shang", "lambda_ref=0.5,0.9", "Table 4", "AUC (%)", ["97.98 ± 0.07", "97.92 ± 0.13"], ["-17.88", "-16.82"]),
        ("msad", "loss=cls,cls+reg,cls+reg+kl", "Table 5", "AUC (%)",
         ["92.39 ± 0.22", "91.65 ± 0.32", "92.90 ± 0.27"], ["-12.29", "-10.55", "-10.80"]),
        ("xd", "noise_model=Gaussian,StudentT", "Table 1", "AP (%)", ["87.18 ± 0.55", "87.63 ± 0.54"],
         ["-7.08", "-6.53"]),
        ("ucfcrime", "modality=event,fusion", "Table 2", "AUC (%)", ["78.67", "89.13"], ["+1.43", "-8.03"]),
    ],
)  # fmt: skip
def test_the_papers_numbers_stand_beside_their_values(dataset, sweep, title, metric, paper, difference):
    result = result_of(dataset, sweep)
    assert sweep_table(result).title.startswith(title)
    assert column(result, "paper", after=metric) == paper
    assert column(result, "diff.", after=metric) == difference


def test_no_numbers_of_the_paper_where_it_has_none():
    for result in (result_of("ucfcrime", "nu=2,8", "N=0,10"), result_of("demo", "nu=2,8"), result_of("xd", "mil=topk")):
        assert "paper" not in sweep_table(result).columns
        assert "Table" not in sweep_table(result).title
    assert sweep_table(result_of("ucfcrime", "nu=2,8", "N=0,10")).columns[:2] == ("nu", "N")


def test_seeds_alone_are_one_row_and_missing_runs_are_said():
    result = result_of("demo")
    table = sweep_table(SweepResult(result.names, result.runs[:2], result.protocol, planned=3))
    assert table.rows[0][:2] == ("2", "80.05 ± 0.07") and "Δ AUC" not in table.columns
    assert "1 of 3 runs failed and are not in this table." in table.notes
    assert "seeds 0, 1" in table.protocol


def test_the_papers_legend_stands_outside_the_panels(tmp_path: Path, monkeypatch):
    figures = []
    monkeypatch.setattr("vad.plotting.save", lambda figure, path: figures.append(figure) or [])
    draw_sweep(result_of("ucfcrime", "nu=2,8"), tmp_path / "sweep")
    draw_sweep(result_of("demo", "nu=2,8", seeds=1), tmp_path / "sweep")
    with_paper, without = figures
    assert [text.get_text() for text in with_paper.legends[0].get_texts()] == ["paper"] and not without.legends
    assert all(ax.get_legend() is None for ax in with_paper.axes)
    assert "±" in with_paper.get_suptitle() and without.get_suptitle().endswith("one run each")


@pytest.mark.parametrize("sweeps", [["nu=2,8"], ["modality=image,event,fusion"], ["nu=2,8", "mil=topk,segment"]])
def test_a_picture_for_values_words_and_grids(tmp_path: Path, sweeps):
    png, pdf = draw_sweep(result_of("ucfcrime", *sweeps), tmp_path / "sweep")
    assert pdf.read_bytes().startswith(b"%PDF")
    image = cv2.imread(str(png))
    assert image.shape[1] > 500 and 0 < (image < 128).mean() < 0.6  # neither blank nor black
