"""Masking tables: comparison with Tables 6–9 of the paper, and weight changes tested over several runs."""

from __future__ import annotations

import pandas as pd
import pytest

from vad.datasets import load_dataset
from vad.evaluation import Protocol
from vad.report.masking_tables import masking_runs_table, masking_table, weight_changes
from vad.report.paper import PAPER
from vad.report.table import Table


def protocol(dataset: str, **more: object) -> Protocol:
    return Protocol(load_dataset(dataset), "default", "official", (5,), "last", "whole", **more)


def response() -> pd.DataFrame:
    rows = [
        ["CLEAN", 0.0, 0.9, 0.1, *[0.5] * 7],
        ["IMG_NOISE", 0.3, 0.8, 0.2, *[0.25] * 7],
        ["IMG_NOISE", 0.4, *[0.5] * 9],
    ]
    return pd.DataFrame(rows, columns=PAPER["table6"]["columns"])


def test_masking_table_has_paper_rows_below_ours() -> None:
    """Table 6 prints AUC 89.09 unmasked and 86.57 with 30 % of the image masked, and no row for 40 %."""
    table = masking_table(response(), protocol("ucfcrime"), axis="feature", seed=4)
    lines = table.lines[1:]
    assert [line[:4] for line in lines] == [
        ["CLEAN", "0.00", "here", "90.00"],
        ["", "", "paper", "89.09"],
        ["", "", "diff.", "+0.91"],
        ["IMG_NOISE", "0.30", "here", "80.00"],
        ["", "", "paper", "86.57"],
        ["", "", "diff.", "-6.57"],
        ["IMG_NOISE", "0.40", "here", "50.00"],
    ]
    assert lines[4][4:6] == ["0.1238", "0.1445"]
    assert lines[5][4:6] == ["+0.0762", "+0.1055"]
    assert table.title == "Table 6, UCF-Crime: response to masking"
    assert "masking: feature dimensions set to 0" in table.protocol and "mask seed 4" in table.protocol
    assert any(note.startswith("KL: KL(unmasked ‖ masked prediction)") for note in table.notes)
    assert table.lines[0][-1] == "ŵ_e norm"


@pytest.mark.parametrize("axis", ["time", "window"])
def test_masking_table_without_paper_numbers_has_ours_only(axis: str) -> None:
    table = masking_table(response(), protocol("demo"), axis=axis, seed=0)
    assert len(table.lines) == 4 and "from" not in table.lines[0]
    assert not any("In the paper's table" in note for note in table.notes)
    assert list(table.notes[2:]) == protocol("demo").notes()


@pytest.mark.parametrize("number", [6, 7, 8, 9])
def test_paper_weight_rises_when_image_is_masked(number: int) -> None:
    """In each of Tables 6–9, ŵ_i is higher with half of the image masked than without masking."""
    paper = PAPER[f"table{number}"]
    weight = {(row[0], row[1]): row[paper["columns"].index("w_image")] for row in paper["rows"]}
    assert weight["IMG_NOISE", 0.5] > weight["CLEAN", 0.0]


def responses(runs: int) -> list[pd.DataFrame]:
    """Return runs with ŵ_i = 0.5 + run/100. ŵ_i gains 0.01 if the image is masked; ŵ_e loses 0.02 if the event is."""
    tables = []
    for run in range(runs):
        clean = 0.5 + run / 100
        rows = [("CLEAN", 0.0, clean), ("EV_NOISE", 0.5, clean + 0.02), ("IMG_NOISE", 0.5, clean + 0.01)]
        same = {"AUC": 0.9, "brier": 0.1, "kl": 0.0}
        tables.append(pd.DataFrame([
            {"masked": masked, "level": level, **same, "w_image": w, "w_event": 1 - w}
            for masked, level, w in rows
        ]))  # fmt: skip
    return tables


def table_of(runs: int) -> Table:
    return masking_runs_table(responses(runs), protocol("demo", runs=runs), axis="feature", seed=4)


def test_weight_change_is_that_of_masked_stream() -> None:
    """All six runs agree, so 2 of the 64 sign patterns are as extreme: p = 2/64 = 0.031."""
    table = table_of(6)
    lines = table.lines[1:]
    assert [line[:2] for line in lines] == [["CLEAN", "0.00"], ["EV_NOISE", "0.50"], ["IMG_NOISE", "0.50"]]
    assert lines[0][-3:] == ["-", "-", "-"]
    assert lines[1][-3:] == ["-0.0200", "6 of 6", "0.0312"]
    assert lines[2][-3:] == ["+0.0100", "0 of 6", "0.0312"]
    assert lines[0][2] == "90.00 ± 0.00"
    assert lines[0][5] == "0.5250 ± 0.0187"  # std of 0, 1, …, 5 hundredths with n − 1
    assert "With 50 % of the image stream masked, ŵ_i rises, although it should fall (+0.0100)." in table.notes
    assert "With 50 % of the event stream masked, ŵ_e falls, as expected (-0.0200)." in table.notes
    assert "±: standard deviation over runs (n − 1). p: sign-flip test of Δŵ over the runs." in table.notes
    assert any(note.startswith("2 tests, not corrected") for note in table.notes)
    assert "6 runs" in table.protocol and "mask seed 4" in table.protocol


def test_two_runs_are_too_few_for_a_test() -> None:
    """Two runs reach p = 0.5 at best, so no test is made and no note on multiple tests is printed."""
    notes = table_of(2).notes
    assert "With 50 % of the image stream masked, ŵ_i cannot be tested with only 2 runs (+0.0100)." in notes
    assert not any("not corrected" in note for note in notes)


def test_runs_that_disagree_show_no_significant_change() -> None:
    tables = responses(6)
    for number, table in enumerate(tables):
        table.loc[2, "w_image"] = table.loc[0, "w_image"] + (0.01 if number % 2 else -0.01)
    notes = masking_runs_table(tables, protocol("demo"), axis="feature", seed=0).notes
    assert any("ŵ_i does not change significantly" in note for note in notes)


def test_weight_changes_compare_each_run_with_itself() -> None:
    """Runs differ from each other by 0.01; masking changes each run by −0.02 (event) and 0.01 (image)."""
    changes = weight_changes(responses(3))
    assert changes["event", 0.5] == pytest.approx([-0.02] * 3)
    assert changes["image", 0.5] == pytest.approx([0.01] * 3)
