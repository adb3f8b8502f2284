"""Tables: cells are the computed numbers, next to the paper's numbers for the same case."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vad.datasets import load_dataset
from vad.evaluation import Protocol
from vad.experiments import BEST, SweepResult, parse_sweeps, plan_runs
from vad.localisation import COLUMNS, RATES, Localisation, metric_key
from vad.report import tables
from vad.report.masking_tables import masking_table
from vad.report.paper import PAPER
from vad.report.table import NAN, NONE, Table

RESULT = {"AUC": 0.88, "AP": 0.31416, "Ano-AUC": 0.7, "FAR@0.5": 0.0047, "Brier": 0.1205, "w_image": 0.4761}


def protocol(dataset: str, weights: str = "last", **more: object) -> Protocol:
    return Protocol(load_dataset(dataset), "default", "official", (5,), weights, "whole", videos=290, **more)


def columns(table: Table) -> list[str]:
    return table.lines[0]


def cells(table: Table, row: str) -> dict[str, str]:
    """Return a row by its first cell; "paper" and "diff." get the preceding column's name as prefix."""
    names, *lines = table.lines
    names = [f"{names[k - 1]} {c}" if c in ("diff.", "paper") else c for k, c in enumerate(names)]
    return dict(zip(names, next(line for line in lines if line[0] == row), strict=True))


def runs(*several: dict[str, float], noise_model: str = "StudentT", weights: str = "last") -> pd.DataFrame:
    return pd.DataFrame([{"noise_model": noise_model, "weights": weights, **run} for run in several])


def test_paper_numbers_match_the_transcription() -> None:
    shared = Path(tables.__file__).parents[3] / "shared" / "paper_tables.json"
    if not shared.is_file():
        pytest.skip(f"no {shared} to compare with")
    assert json.loads(shared.read_text(encoding="utf-8")) == PAPER


# one evaluation


def test_results_table_has_all_three_paper_numbers() -> None:
    """UCF-Crime AUC: 88.67 ± 0.45 (Table 1), 89.13 (Table 2), 89.09 (Table 6)."""
    table = tables.results_table({**RESULT, "w_event": 0.52399999}, protocol("ucfcrime"))
    assert cells(table, "ŵ_e")["Table 6 diff."] == "+0.0000"  # not −0
    assert cells(table, "AUC (%)") == {
        "metric": "AUC (%)", "here": "88.00", "Table 1": "88.67 ± 0.45", "Table 1 diff.": "-0.67",
        "Table 2": "89.13", "Table 2 diff.": "-1.13", "Table 6": "89.09", "Table 6 diff.": "-1.09",
    }  # fmt: skip
    assert cells(table, "Ano-AUC (%)")["Table 1"] == "71.50 ± 1.02"
    assert cells(table, "Brier")["Table 6 diff."] == "+0.0000"
    assert cells(table, "ŵ_i")["Table 6 diff."] == "+0.0001"
    assert cells(table, "AP (%)")["here"] == "31.42"
    assert cells(table, "AP (%)")["Table 1"] == NONE  # the paper has no AP for UCF-Crime
    assert "Table 2 and Table 6 show one run" in table.notes[0]


def test_single_stream_is_compared_with_its_column() -> None:
    table = tables.results_table(RESULT, protocol("ucfcrime"), modality="event")
    assert list(cells(table, "AUC (%)").values()) == ["AUC (%)", "88.00", "78.67", "+9.33"]
    assert columns(table) == ["metric", "here", "Table 2", "diff."]


def test_gaussian_is_compared_with_the_gaussian_row() -> None:
    table = tables.results_table({"AP": 0.87}, protocol("xd", noise_model="Gaussian"))
    assert columns(table) == ["metric", "here", "Table 1", "diff."]
    assert cells(table, "AP (%)")["Table 1"] == "87.18 ± 0.55"


def test_results_table_without_paper_has_ours_only() -> None:
    table = tables.results_table({"AUC": 0.5}, protocol("demo"))
    assert columns(table) == ["metric", "here"]
    assert list(table.notes) == protocol("demo").notes() and "untrained encoder" in table.text()


def test_metric_definitions_are_in_the_notes() -> None:
    """FAR counts the frames of normal videos, not the normal frames of all videos."""
    notes = tables.results_table(RESULT, protocol("demo")).notes
    assert any(note.startswith("FAR@0.5: share of") and "normal-labelled videos" in note for note in notes)
    assert not any("ECE" in note for note in notes)  # not in this table


def localised(fps: float | None = 30.0, **missing: object) -> Localisation:
    """Return metrics that count up from 0.00 in steps of 0.01, with resamples 0.002 lower and higher."""
    names = [metric_key(column, rate) for rate in RATES for column in COLUMNS]
    values = {name: k / 100 for k, name in enumerate(names)}
    resampled = {name: np.array([value - 0.002, value + 0.002]) for name, value in values.items()}
    return replace(Localisation(values, resampled, 156, 5.998, fps or 30), **missing)


def test_localisation_table_has_rates_as_rows() -> None:
    """Events touched and recall are percentages. Of two resamples, the interval leaves out 2.5 % on each side."""
    table = tables.localisation_table(localised(), protocol("ucfcrime", weights="best"))
    assert columns(table) == ["false alarms", "threshold", "events touched (%)", "recall (%)", "F1@0.3", "F1@0.5",
                              "F1@0.7", "delay (s)"]  # fmt: skip
    first, interval, *_, last, _ = table.lines[1:]
    assert first == ["at most 0.1 per hour", "0.0000†", "1.00†", "2.00†", "0.0300†", "0.0400†", "0.0500†", "0.06†"]
    assert interval[2:4] == ["[0.81, 1.19]", "[1.81, 2.19]"] and len(table.lines) == 7
    assert last[:3] == ["at most 10 per hour", "0.1400†", "15.00†"]
    assert table.protocol.endswith(" · 156 events, 6 hours of normal videos at 30 frames per second")
    assert any(note.startswith("F1@x: 2 · matches / (alarms + events)") for note in table.notes)
    assert not any(note.startswith(NAN) for note in table.notes)


def test_localisation_table_names_an_assumed_frame_rate() -> None:
    unknown = replace(load_dataset("ucfcrime"), fps=None)
    table = tables.localisation_table(localised(None), replace(protocol("ucfcrime"), dataset=unknown))
    assert table.protocol.endswith("at 30 frames per second (assumed: dataset.toml has no fps)")


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({"hours": 0.0}, "there are no normal videos"),
        ({"events": 0}, "these videos contain no event"),
        ({}, "no event is touched"),
    ],
)
def test_undefined_localisation_has_its_reason(missing: dict[str, float], reason: str) -> None:
    values = {**localised().metrics, metric_key("delay (s)", 1): math.nan}
    table = tables.localisation_table(localised(metrics=values, **missing), protocol("ucfcrime"))
    assert cells(table, "at most 1 per hour")["delay (s)"] == NAN
    assert f"{NAN}: {reason}." in table.notes


def test_undefined_metric_is_shown_with_its_reason() -> None:
    table = tables.results_table({**RESULT, "AUC": math.nan}, protocol("ucfcrime"))
    assert cells(table, "AUC (%)")["here"] == NAN
    assert cells(table, "AUC (%)")["Table 1 diff."] == NONE
    assert "AUC needs normal and anomalous frames" in table.text()


def test_intervals_are_printed_next_to_their_metric() -> None:
    table = tables.results_table(
        RESULT, protocol("demo"), intervals={"AUC": (0.8, 0.95), "Brier": (0.1, 0.2)}
    )
    assert columns(table) == ["metric", "here", tables.INTERVAL]
    assert cells(table, "AUC (%)")[tables.INTERVAL] == "[80.00, 95.00]"
    assert cells(table, "Brier")[tables.INTERVAL] == "[0.1000, 0.2000]"
    assert cells(table, "AP (%)")[tables.INTERVAL] == NONE
    assert "1000 resamples" in table.text()


# every table


def every_table(chosen: Protocol) -> list[Table]:
    """Return one table of each kind, each with an AUC of 88.00."""
    response = pd.DataFrame([["CLEAN", 0.0, 0.88, *[0.1] * 8]], columns=PAPER["table6"]["columns"])
    seeds = runs(RESULT, weights=chosen.weights).assign(modality="fusion", seed=0)
    return [
        tables.results_table(RESULT, chosen),
        tables.class_table({"fusion": pd.DataFrame([{"Abuse": 0.88}])}, chosen),
        tables.method_table(seeds, chosen),
        tables.seeds_table(seeds, chosen),
        masking_table(response, chosen, axis="feature", seed=0),
    ]


@pytest.mark.parametrize(("weights", "mark"), [("last", ""), ("given", ""), ("best", "†"), ("released", "†")])
def test_numbers_selected_on_the_test_set_are_marked(weights: str, mark: str) -> None:
    for table in every_table(protocol("ucfcrime", weights)):
        assert any("88.00" + mark in line for line in table.lines), table.title
        assert ("†" in table.text()) == bool(mark)
        assert any("selected by their score on the test videos" in note for note in table.notes) == bool(mark)
        rows = [line for line in table.csv().splitlines() if not line.startswith("#")]
        assert "†" not in "".join(rows)


def test_every_table_has_protocol_and_footnotes() -> None:
    """A note about a checkpoint, such as its training profile, is in each table, not only on the terminal."""
    noted = protocol("ucfcrime", runs=3, footnotes=("a.pth was trained with profile paper.",))
    for table in every_table(noted):
        assert "a.pth was trained with profile paper." in table.notes
        for part in ("UCF-Crime", "official split", "290 test videos", "profile default", "test crop 5",
                     "last epoch", "average_precision_score", "every whole snippet"):  # fmt: skip
            assert part in table.protocol
    assert "3 runs" in noted.line()


def test_different_split_sizes_are_noted() -> None:
    assert "753" in tables.results_table({"AP": 0.5}, protocol("xd")).text()
    assert "released lists" not in tables.results_table(RESULT, protocol("ucfcrime")).text()


# Tables 1 and 2


def test_table_1_has_prior_methods_paper_rows_and_ours() -> None:
    """AUC 88.0 and 89.0: mean 88.50, standard deviation √0.5 = 0.71; 88.50 − 88.67 = −0.17."""
    two = runs({**RESULT, "AUC": 0.88, "Ano-AUC": 0.7}, {**RESULT, "AUC": 0.89, "Ano-AUC": 0.71})
    table = tables.method_table(two, protocol("ucfcrime"), {"StudentT": {"AUC": (0.8, 0.9)}})
    assert columns(table) == ["method", "runs", "AUC (%)", "Ano-AUC (%)"]
    assert table.lines[1] == ["Sultani et al.", NONE, "84.14", "63.29"]
    assert ["STPrompt", NONE, "88.08", NONE] in table.lines
    assert table.lines[-5:] == [
        ["IEF-VAD (Gaussian), paper", "10", "88.11 ± 0.28", "70.48 ± 0.66"],
        ["IEF-VAD (Student-T), paper", "10", "88.67 ± 0.45", "71.50 ± 1.02"],
        ["IEF-VAD (Student-T), here", "2", "88.50 ± 0.71", "70.50 ± 0.71"],
        ["  here − paper", "", "-0.17", "-1.00"],
        ["  95 % interval", "", "[80.00, 90.00]", NONE],
    ]
    assert "noise model" not in table.protocol  # the rows give it


def test_table_1_has_both_noise_models_and_ano_auc() -> None:
    """XD-Violence, Gaussian: the paper has AP 87.18 and no Ano-AUC; 88.00 − 87.18 = 0.82."""
    run = {"AP": 0.88, "Ano-AUC": 0.75}
    table = tables.method_table(pd.concat([runs(run, noise_model="Gaussian"), runs(run)]), protocol("xd"))
    assert columns(table) == ["method", "runs", "AP (%)", "Ano-AUC (%)"]
    assert ["IEF-VAD (Gaussian), here", "1", "88.00", "75.00"] in table.lines
    differences = [line for line in table.lines if line[0] == "  here − paper"]
    assert differences == [["  here − paper", "", "+0.82", NONE], ["  here − paper", "", "+0.37", NONE]]
    assert "MIST (I3D)" not in table.text()  # a method printed for MSAD only
    demo = tables.method_table(runs({"AUC": 0.9, "Ano-AUC": 0.8}), protocol("demo"))
    assert demo.lines[1:] == [["IEF-VAD (Student-T), here", "1", "90.00", "80.00"]]


def test_table_1_marks_weights_selected_on_test_set() -> None:
    both = pd.concat([runs(RESULT, noise_model="Gaussian", weights="best"), runs(RESULT)])
    table = tables.method_table(both, protocol("ucfcrime", "mixed"))
    assert cells(table, "IEF-VAD (Gaussian), here")["AUC (%)"] == "88.00†"
    assert cells(table, "IEF-VAD (Student-T), here")["AUC (%)"] == "88.00"
    assert any("some of these weights were selected" in note for note in table.notes)


def test_table_2_compares_each_stream_with_its_column() -> None:
    """Abuse: 70.09 for event, 70.74 for fusion in the paper; 0.7 − 0.7009 = −0.09 points."""
    frames = {
        "fusion": pd.DataFrame([{**RESULT, "AUC": 0.9, "Arson": math.nan, "Abuse": 0.71}]),
        "event": pd.DataFrame([{**RESULT, "Abuse": 0.7, "Arson": 0.6}]),
    }
    table = tables.class_table(frames, protocol("ucfcrime"))
    assert table.lines == [
        ["class", "event", "paper", "diff.", "fusion", "paper", "diff."],
        ["Abuse", "70.00", "70.09", "-0.09", "71.00", "70.74", "+0.26"],
        ["Arson", "60.00", "66.75", "-6.75", NAN, "72.68", NONE],
        ["all videos, AUC", "88.00", "78.67", "+9.33", "90.00", "89.13", "+0.87"],
        ["all videos, Ano-AUC", "70.00", "63.94", "+6.06", "70.00", "72.49", "-2.49"],
    ]
    assert any(note.startswith(NAN) for note in table.notes) and "±" not in " ".join(table.notes)
    xd = tables.class_table({"fusion": pd.DataFrame([{**RESULT, "Riot": 0.9}])}, protocol("xd"))
    assert xd.lines[-1] == ["all videos, Ano-AUC", "70.00", NONE, NONE]  # for every data set
    demo = tables.class_table({"image": pd.DataFrame([{"Crash": 0.5}])}, protocol("demo"))
    assert demo.lines == [["class", "image"], ["Crash", "50.00"]]


def test_table_2_of_several_runs_shows_mean_and_std() -> None:
    """0.69 and 0.73 have mean 71.00 and standard deviation (n − 1) √8 = 2.83. n/a has no †."""
    frame = pd.DataFrame([{"Abuse": 0.69, "Arson": 0.5}, {"Abuse": 0.73, "Arson": math.nan}])
    table = tables.class_table({"fusion": frame}, protocol("ucfcrime", "best"))
    assert [line[1] for line in table.lines[1:]] == ["71.00 ± 2.83†", NAN]
    assert table.notes[0].startswith("±: standard deviation over runs")


# seeds


def seeds(**options: str) -> pd.DataFrame:
    """Return runs of which fusion has 0.9, 0.8, 0.7: mean 0.8, standard deviation (n − 1) exactly 0.1."""
    values = {"fusion": (0.9, 0.8, 0.7), "image": (0.6, 0.85, 0.5), "event": (0.5, 0.5)}
    return pd.DataFrame([
        {"modality": m, "seed": seed, "weights": "last", **options, "AUC": value}
        for m, several in values.items()
        for seed, value in enumerate(several)
    ])  # fmt: skip


def test_seeds_table_compares_fusion_paired_by_seed() -> None:
    table = tables.seeds_table(seeds(), protocol("demo"))
    assert table.lines == [
        ["modality", "runs", "AUC (%)"],
        ["image", "3", "65.00 ± 18.03"],
        ["event", "2", "50.00 ± 0.00"],
        ["fusion", "3", "80.00 ± 10.00"],
    ]
    assert any(n.startswith("fusion − image, AUC: +15.00 points (95 % interval ") for n in table.notes)
    # they share two seeds
    assert any(n.startswith("fusion − event, AUC: +35.00 points") and "in 2 of 2 pairs" in n for n in table.notes)


def test_seeds_table_has_varying_options_as_columns() -> None:
    both = pd.concat([seeds(profile="default"), seeds(profile="paper")[:1]])
    table = tables.seeds_table(both, protocol("demo"))
    assert columns(table) == ["modality", "profile", "runs", "AUC (%)"]
    assert table.lines[-1] == ["fusion", "paper", "1", "90.00"]  # one run has no standard deviation
    assert "profile default" not in table.protocol  # it varies and has a column
    assert any(note.startswith("fusion − image (default), AUC: ") for note in table.notes)


def test_only_runs_selected_on_test_set_are_marked() -> None:
    two = pd.DataFrame([
        {"modality": "fusion", "seed": 0, "weights": weights, "AUC": 0.9} for weights in ("last", "best")
    ])  # fmt: skip
    table = tables.seeds_table(two, protocol("demo", "mixed"))
    assert table.lines[1:] == [["fusion", "best", "1", "90.00†"], ["fusion", "last", "1", "90.00"]]


def test_runs_of_unknown_seed_are_not_paired_in_notes() -> None:
    table = tables.seeds_table(seeds().assign(seed=None), protocol("demo"))
    assert not any("fusion − " in note for note in table.notes)


# sweeps


def result_of(dataset: str, *sweeps: str, seeds: int = 3) -> SweepResult:
    """Return runs whose k-th swept value has AUC and AP 0.8 + k/100 + seed/1000."""
    plan = plan_runs({"dataset": dataset}, sweeps, seeds)
    points = list(dict.fromkeys(tuple(run.values.values()) for run in plan))
    rows = []
    for run in plan:
        value = str(0.8 + points.index(tuple(run.values.values())) / 100 + run.options.seed / 1000)
        row = {"seed": str(run.options.seed), "weights": "last", "AUC": value, "AP": value, "Ano-AUC": "0.7"}
        swept = {f"sweep {name}": value for name, value in run.values.items()}
        rows.append({**row, f"{BEST}AUC": "0.95", f"{BEST}AP": "0.95", **swept})
    base = next((tuple(run.values.values()) for run in plan if run.is_base), None)
    names = tuple(parse_sweeps(sweeps))
    return SweepResult(
        names, pd.DataFrame(rows), base if names else None, protocol(dataset), len(plan), (), Path(), ()
    )


def column(result: SweepResult, name: str, after: str | None = None) -> list[str]:
    """Return the cells of a column, or with `after` of the first such column to the right of another."""
    names, *lines = tables.sweep_table(result).lines
    place = names.index(name, names.index(after) if after else 0)
    return [line[place] for line in lines]


def test_swept_value_has_mean_and_std_over_seeds() -> None:
    """0.800, 0.801 and 0.802 have mean 80.10 and standard deviation (n − 1) exactly 0.10."""
    result = result_of("demo", "nu=2,8")
    assert column(result, "nu") == ["2", "8"] and column(result, "runs") == ["3", "3"]
    assert column(result, "AUC (%)") == ["80.10 ± 0.10", "81.10 ± 0.10"]
    assert column(result, "AUC, selected on test") == ["95.00 ± 0.00†"] * 2
    # each seed differs by exactly one point: the interval is empty, and 2 of 8 sign patterns are as extreme
    assert column(result, "Δ AUC") == ["-1.00", "-"] and column(result, "p") == ["0.25", "-"]
    assert column(result, "95 % interval") == ["[-1.00, -1.00]", "-"]
    table = tables.sweep_table(result)
    assert "mean ± std over seeds 0…2" in table.protocol and "profile default" in table.protocol
    notes = " ".join(table.notes)
    assert "Δ: difference in points from the default, nu 8;" in notes
    assert "With 3 seeds, p cannot be below 0.25" in notes
    assert "95 % interval: Student's t of the paired differences; p: sign-flip test." in notes


def test_order_of_runs_does_not_change_the_pairing() -> None:
    result = result_of("demo", "nu=2,8")
    mixed = replace(result, runs=result.runs.iloc[[5, 0, 3, 4, 1, 2]])
    assert sorted(column(mixed, "Δ AUC")) == ["-", "-1.00"]


def test_multiple_tests_are_noted_below_a_sweep() -> None:
    """Four values, one of them the default, are three tests. Six seeds can reach p = 2/64."""
    notes = tables.sweep_table(result_of("demo", "nu=2,4,6,8", seeds=6)).notes
    assert "3 tests, not corrected for multiple comparisons" in " ".join(notes)
    notes = tables.sweep_table(result_of("demo", "nu=2,8", seeds=6)).notes
    assert "not corrected" not in " ".join(notes)


def test_sweep_with_one_seed_is_not_called_a_mean() -> None:
    table = tables.sweep_table(result_of("demo", "nu=2,8", seeds=1))
    assert table.protocol.endswith("one run each, seed 0")
    assert column(result_of("demo", "nu=2,8", seeds=1), "p") == [NAN, NONE]


@pytest.mark.parametrize(
    ("dataset", "sweep", "title", "metric", "paper", "difference"),
    [
        # copied from the paper's Tables 3, 4, 5; our means are 80.10, 81.10, …
        ("ucfcrime", "nu=2,3,8", "Table 3", "AUC (%)", ["87.98 ± 0.33", "-", "88.67 ± 0.45"],
         ["-7.88", "-", "-6.57"]),
        ("ucfcrime", "epsilon=1e-4,0.000001", "Table 3", "Ano-AUC (%)", ["71.06 ± 1.14", "71.45 ± 0.81"],
         ["-1.06", "-1.45"]),
        ("xd", "N=0,10", "Table 4", "AP (%)", ["86.01 ± 1.10", "87.63 ± 0.54"], ["-5.91", "-6.53"]),
        ("shang", "lambda_ref=0.5,0.9", "Table 4", "AUC (%)", ["97.98 ± 0.07", "97.92 ± 0.13"],
         ["-17.88", "-16.82"]),
        ("msad", "loss=cls,cls+reg,cls+reg+kl", "Table 5", "AUC (%)",
         ["92.39 ± 0.22", "91.65 ± 0.32", "92.90 ± 0.27"], ["-12.29", "-10.55", "-10.80"]),
    ],
)  # fmt: skip
def test_paper_numbers_are_next_to_their_swept_values(dataset, sweep, title, metric, paper, difference) -> None:
    result = result_of(dataset, sweep)
    assert tables.sweep_table(result).title.startswith(title)
    assert column(result, "paper", after=metric) == paper
    assert column(result, "diff.", after=metric) == difference


def test_sweeps_not_in_the_paper_have_no_paper_column() -> None:
    grid = result_of("ucfcrime", "nu=2,8", "N=0,10")
    for result in (grid, result_of("demo", "nu=2,8"), result_of("xd", "mil=topk")):
        table = tables.sweep_table(result)
        assert "paper" not in columns(table) and "Table" not in table.title
    assert columns(tables.sweep_table(grid))[:2] == ["nu", "N"]
    assert tables.sweep_table(grid).title == "UCF-Crime, nu × N"


def test_runs_without_sweep_are_one_row_failures_noted() -> None:
    result = result_of("demo")
    table = tables.sweep_table(replace(result, runs=result.runs[:2]))
    assert table.lines[1][:2] == ["2", "80.05 ± 0.07"] and "Δ AUC" not in columns(table)
    assert "1 of 3 runs failed and are missing from this table." in table.notes
    assert "seeds 0, 1" in table.protocol


def test_undefined_metric_gives_no_mean() -> None:
    result = result_of("demo", "nu=2,8")
    gap = result.runs.assign(AUC=["", *result.runs["AUC"][1:]])
    assert column(replace(result, runs=gap), "AUC (%)")[0] == NAN


def test_differing_weights_are_left_out_of_the_protocol() -> None:
    result = result_of("demo", "mil=topk,segment")
    assert "weights of the last epoch" in tables.sweep_table(result).protocol
    mixed = result.runs.assign(weights=["last", "best"] * 3)
    table = tables.sweep_table(replace(result, runs=mixed, differing=("weights",)))
    assert "weights of the last epoch" not in table.protocol
    assert column(replace(result, runs=mixed), "AUC (%)") == ["80.10 ± 0.10", "81.10 ± 0.10†"]


def test_runs_that_score_normal_snippets_higher_are_named() -> None:
    assert tables.collapse_notes([0.5, 0.8, float("nan")]) == []
    (note,) = tables.collapse_notes([0.49, 0.8, 0.2])
    assert "Ano-AUC is below 50 in 2 of 3 runs" in note
    runs = seeds().assign(**{"Ano-AUC": 0.4})
    assert any("is below 50 in 8 of 8 runs" in text for text in tables.seeds_table(runs, protocol("demo")).notes)
