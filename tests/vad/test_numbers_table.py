"""Every number of groups of runs: mean and spread by hand, intervals where there is room."""

from __future__ import annotations

import math

import pytest

from vad.catalog import DEMO
from vad.numbers_table import numbers_table
from vad.protocol import Protocol
from vad.results import classes_of, mean_of, std_of
from vad.table import NAN, NONE
from vad.tables import INTERVAL, class_table

LAST = Protocol(DEMO, "default", "official", (5,), "last", "whole")


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
