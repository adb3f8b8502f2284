"""Tables of many runs: grouped over seeds, mean and spread by hand, intervals where there is room."""

from __future__ import annotations

import math

import pytest

from vad.catalog import DEMO, Dataset
from vad.errors import InputError
from vad.protocol import Protocol
from vad.results import classes_of, mean_of, std_of
from vad.run_tables import compare_runs, numbers_table
from vad.table import NAN, NONE
from vad.tables import INTERVAL, class_table

LAST = Protocol(DEMO, "default", "official", (5,), "last", "whole")


def protocol(dataset: Dataset) -> Protocol:
    return Protocol(dataset, "default", "official", (5,), "last", "whole", videos=290)


def runs(**extra: object) -> list[tuple[dict[str, object], dict[str, float]]]:
    values = {"fusion": (0.9, 0.8, 0.7), "image": (0.6, 0.85, 0.5), "event": (0.5, 0.5)}
    return [
        ({"modality": m, "seed": seed, "dataset": "demo", **extra}, {"AUC": value})
        for m, several in values.items()
        for seed, value in enumerate(several)
    ]


def test_compare_runs_groups_over_seeds() -> None:
    """0.9, 0.8, 0.7: mean 0.8, standard deviation with n − 1 exactly 0.1."""
    table = compare_runs(runs(), protocol(DEMO))
    assert table.columns == ("modality", "runs", "AUC (%)")
    assert table.rows == (
        ("image", "3", "65.00 ± 18.03"),
        ("event", "2", "50.00 ± 0.00"),
        ("fusion", "3", "80.00 ± 10.00"),
    )
    assert "fusion − image: AUC +15.00 points, higher in 2 of 3 seeds." in table.notes
    assert "fusion − event: AUC +35.00 points, higher in 2 of 2 seeds." in table.notes  # two seeds in common
    assert str(table) == table.text()


def test_compare_runs_keeps_settings_apart() -> None:
    table = compare_runs(runs(profile="default") + runs(profile="paper")[:1], protocol(DEMO))
    assert table.columns == ("modality", "profile", "runs", "AUC (%)")
    assert table.rows[-1] == ("fusion", "paper", "1", "90.00")  # one run has no spread
    assert "profile default" not in table.protocol  # it varies: the column says it
    with pytest.raises(InputError, match="two runs of image have seed 1"):
        compare_runs([*runs(), runs()[4]], protocol(DEMO))
    with pytest.raises(InputError, match="no run"):
        compare_runs([], protocol(DEMO))


def test_runs_selected_on_the_test_set_are_marked_and_the_others_are_not() -> None:
    rows = [({"modality": "fusion", "seed": 0, "weights": weights}, {"AUC": 0.9}) for weights in ("last", "best")]
    mixed = Protocol(DEMO, "default", "official", (5,), "mixed", "whole", remarks=("odd.",))
    table = compare_runs(rows, mixed)
    assert table.columns == ("modality", "weights", "runs", "AUC (%)")
    assert table.rows == (("fusion", "best", "1", "90.00†"), ("fusion", "last", "1", "90.00"))
    assert any("some of these weights were selected" in note for note in table.notes) and "odd." in table.notes


def test_mean_spread_and_interval_of_each_group() -> None:
    """0.9 and 0.8: 85.00 ± 7.07; 0.1 and 0.3 of a fraction: 0.2000 ± 0.1414."""
    groups = {"Gaussian": [{"AUC": 0.5, "ECE": 0.25}], "StudentT": [{"AUC": 0.9, "ECE": 0.1}, {"AUC": 0.8, "ECE": 0.3}]}
    table = numbers_table(groups, {"Gaussian": {}, "StudentT": {"AUC": (0.7, 0.95)}}, LAST)
    assert table.columns == ("metric", "Gaussian (n = 1)", INTERVAL, "StudentT (n = 2)", INTERVAL)
    assert table.rows == (
        ("AUC (%)", "50.00", NONE, "85.00 ± 7.07", "[70.00, 95.00]"),
        ("ECE", "0.2500", NONE, "0.2000 ± 0.1414", NONE),
    )
    assert any("15 bins" in note for note in table.notes)


def test_of_three_groups_the_last_shows_its_interval_and_undefined_is_said() -> None:
    groups = {name: [{"AUC": math.nan if name == "event" else 0.5}] for name in ("image", "event", "fusion")}
    table = numbers_table(groups, {"image": {}, "event": {}, "fusion": {"AUC": (0.4, 0.6)}}, LAST)
    assert table.columns == ("metric", "image (n = 1)", "event (n = 1)", "fusion (n = 1)", INTERVAL)
    assert table.rows == (("AUC (%)", "50.00", NAN, "50.00", "[40.00, 60.00]"),)
    assert any("one kind only" in note for note in table.notes)


def test_spread_over_runs_is_the_sample_deviation_and_one_run_has_none() -> None:
    rows = [{"a": 0.1, "b": 1.0}, {"a": 0.3, "b": math.nan}]
    assert mean_of(rows) == {"a": pytest.approx(0.2), "b": pytest.approx(math.nan, nan_ok=True)}
    assert std_of(rows)["a"] == pytest.approx(math.sqrt(0.02))
    assert std_of(rows[:1]) == {} and classes_of({}) == ({}, {}, {})
    table = class_table({"fusion": {"Crash": 0.5}}, LAST, None, {"fusion": {"Crash": 0.0123}})
    assert table.rows == (("Crash", "50.00 ± 1.23"),)
