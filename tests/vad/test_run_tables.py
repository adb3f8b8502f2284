"""Tables of many runs: grouped over seeds, mean and spread by hand."""

from __future__ import annotations

import pytest

from vad.catalog import DEMO, Dataset
from vad.errors import InputError
from vad.protocol import Protocol
from vad.run_tables import compare_runs


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
