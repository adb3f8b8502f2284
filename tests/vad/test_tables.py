"""Tables: the cells are the computed numbers, the paper's stand beside the right ones, and the protocol above all."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from vad import tables
from vad.catalog import DEMO, UCFCRIME, XD, Dataset
from vad.method_table import method_table
from vad.paper import PAPER
from vad.protocol import Protocol
from vad.table import NAN, NONE, Table

RESULT = {"AUC": 0.88, "AP": 0.31416, "Ano-AUC": 0.7, "FAR@0.5": 0.0047, "Brier": 0.1205, "w_image": 0.4761}


def protocol(dataset: Dataset, weights: str = "last") -> Protocol:
    return Protocol(dataset, "default", "official", (5,), weights, "whole", videos=290)


def cells(table: Table, row: str) -> dict[str, str]:
    """One row by its first cell; a repeated column name gets the name before it."""
    found = next(line for line in table.rows if line[0] == row)
    names = [f"{table.columns[k - 1]} {c}" if c in ("diff.", "paper") else c for k, c in enumerate(table.columns)]
    return dict(zip(names, found, strict=True))


def test_results_stand_beside_all_three_of_the_papers_numbers() -> None:
    """UCF-Crime AUC: 88.67 ± 0.45 (Table 1), 89.13 (Table 2), 89.09 (Table 6)."""
    table = tables.results_table({**RESULT, "w_event": 0.52399999}, protocol(UCFCRIME))
    assert cells(table, "ŵ_e")["Table 6 diff."] == "+0.0000"  # no −0
    assert cells(table, "AUC (%)") == {
        "metric": "AUC (%)",
        "here": "88.00",
        "Table 1": "88.67 ± 0.45",
        "Table 1 diff.": "-0.67",
        "Table 2": "89.13",
        "Table 2 diff.": "-1.13",
        "Table 6": "89.09",
        "Table 6 diff.": "-1.09",
    }
    assert cells(table, "Ano-AUC (%)")["Table 1"] == "71.50 ± 1.02"
    assert cells(table, "Brier")["Table 6 diff."] == "+0.0000"
    assert cells(table, "ŵ_i")["Table 6 diff."] == "+0.0001"
    assert cells(table, "AP (%)")["here"] == "31.42"
    assert cells(table, "AP (%)")["Table 1"] == NONE  # the paper has no AP for UCF-Crime
    assert any("one run" in note for note in table.notes)


def test_one_modality_is_compared_with_its_own_column() -> None:
    table = tables.results_table(RESULT, protocol(UCFCRIME), modality="event")
    assert cells(table, "AUC (%)") == {
        "metric": "AUC (%)", "here": "88.00", "Table 2": "78.67", "Table 2 diff.": "+9.33"
    }


def test_gaussian_is_compared_with_the_gaussian_row() -> None:
    table = tables.results_table({"AP": 0.87}, replace(protocol(XD), noise_model="Gaussian"))
    assert table.columns == ("metric", "here", "Table 1", "diff.")
    assert cells(table, "AP (%)")["Table 1"] == "87.18 ± 0.55"


def test_a_data_set_without_paper_numbers_has_ours_alone() -> None:
    table = tables.results_table(RESULT, protocol(DEMO))
    assert table.columns == ("metric", "here")
    assert list(table.notes) == protocol(DEMO).notes() and "untrained encoder" in table.text()


def test_undefined_is_shown_with_its_reason() -> None:
    table = tables.results_table({**RESULT, "AUC": math.nan}, protocol(UCFCRIME))
    assert cells(table, "AUC (%)")["here"] == NAN
    assert cells(table, "AUC (%)")["Table 1 diff."] == NONE
    assert "one kind only" in table.text()


def test_protocol_says_what_was_selected_on_the_test_set() -> None:
    assert "selected on the test set" in tables.results_table(RESULT, protocol(UCFCRIME, "best")).text()
    last = protocol(UCFCRIME).line()
    assert "selected" not in last
    for part in ("UCF-Crime", "official split", "290 test videos", "profile default", "test crop 5", "last epoch",
                 "average_precision_score", "every whole snippet"):
        assert part in last
    assert "753" in tables.results_table({"AP": 0.5}, protocol(XD)).text()  # the splits differ there, and only there
    assert "released lists" not in tables.results_table(RESULT, protocol(UCFCRIME)).text()


def test_intervals_stand_beside_the_numbers_they_belong_to() -> None:
    table = tables.results_table(RESULT, protocol(DEMO), intervals={"AUC": (0.8, 0.95), "Brier": (0.1, 0.2)})
    assert table.columns == ("metric", "here", tables.INTERVAL)
    assert cells(table, "AUC (%)")[tables.INTERVAL] == "[80.00, 95.00]"
    assert cells(table, "Brier")[tables.INTERVAL] == "[0.1000, 0.2000]"
    assert cells(table, "AP (%)")[tables.INTERVAL] == NONE
    assert "1000 resamples" in table.text()


@pytest.mark.parametrize(("weights", "mark"), [("last", ""), ("given", ""), ("best", "†"), ("released", "†")])
def test_numbers_selected_on_the_test_set_say_so_beside_themselves(weights: str, mark: str) -> None:
    chosen = protocol(UCFCRIME, weights)
    made = [
        tables.results_table(RESULT, chosen),
        tables.class_table({"fusion": {"Abuse": 0.88}}, chosen),
        method_table({"StudentT": [{**RESULT, "AUC": 0.88}]}, chosen),
        tables.probe_table(frame(), chosen, axis="feature", seed=0),
    ]
    for table in made:
        assert any(cell in ("88.00" + mark, "90.00" + mark) for row in table.rows for cell in row), table.title
        assert ("†" in table.text()) == bool(mark)
        assert any("selected by their score on the test videos" in note for note in table.notes) == bool(mark)
        assert not any(row.endswith("†") or "†," in row for row in table.csv().split("\n") if row[:1] != "#")


def test_remarks_stand_below_every_table() -> None:
    """A checkpoint trained with another profile than asked for is not only told on the terminal."""
    odd = replace(protocol(UCFCRIME), remarks=("a.pth was trained with profile paper.",), runs=3)
    assert "3 runs" in odd.line()
    for table in (
        tables.results_table(RESULT, odd),
        tables.class_table({"fusion": {"Abuse": 0.88}}, odd),
        method_table({"StudentT": [RESULT]}, odd),
        tables.probe_table(frame(), odd, axis="feature", seed=0),
    ):
        assert "a.pth was trained with profile paper." in table.notes


def test_table_1_has_peers_the_papers_rows_and_ours_with_their_distance() -> None:
    """AUC 88.0 and 89.0: mean 88.50, standard deviation √0.5 = 0.71; 88.50 − 88.67 = −0.17."""
    runs = [{**RESULT, "AUC": 0.88, "Ano-AUC": 0.7}, {**RESULT, "AUC": 0.89, "Ano-AUC": 0.71}]
    table = method_table({"StudentT": runs}, protocol(UCFCRIME), {"StudentT": {"AUC": (0.8, 0.9)}})
    assert table.columns == ("method", "runs", "AUC (%)", "Ano-AUC (%)")
    assert table.rows[0] == ("Sultani et al.", NONE, "84.14", "63.29")
    assert ("STPrompt", NONE, "88.08", NONE) in table.rows
    assert table.rows[-5:] == (
        ("IEF-VAD (Gaussian), paper", "10", "88.11 ± 0.28", "70.48 ± 0.66"),
        ("IEF-VAD (Student-T), paper", "10", "88.67 ± 0.45", "71.50 ± 1.02"),
        ("IEF-VAD (Student-T), here", "2", "88.50 ± 0.71", "70.50 ± 0.71"),
        ("  here − paper", "", "-0.17", "-1.00"),
        ("  95 % interval", "", "[80.00, 90.00]", NONE),
    )
    assert "noise model" not in table.protocol  # the rows say it


def test_table_1_has_ano_auc_where_the_paper_has_none_and_either_noise_model() -> None:
    """XD-Violence, Gaussian: the paper has AP 87.18 and no Ano-AUC."""
    run = {"AP": 0.88, "Ano-AUC": 0.75}
    table = method_table({"Gaussian": [run], "StudentT": [run]}, protocol(XD))
    assert table.columns == ("method", "runs", "AP (%)", "Ano-AUC (%)")
    assert cells(table, "IEF-VAD (Gaussian), here") == {
        "method": "IEF-VAD (Gaussian), here", "runs": "1", "AP (%)": "88.00", "Ano-AUC (%)": "75.00"
    }  # fmt: skip
    assert [row for row in table.rows if row[0] == "  here − paper"] == [
        ("  here − paper", "", "+0.82", NONE), ("  here − paper", "", "+0.37", NONE)
    ]  # fmt: skip
    assert "MIST (I3D)" not in table.text()  # a peer of MSAD alone
    drawn = method_table({"StudentT": [{"AUC": 0.9, "Ano-AUC": 0.8}]}, protocol(DEMO))
    assert drawn.rows == (("IEF-VAD (Student-T), here", "1", "90.00", "80.00"),)


def test_class_table() -> None:
    classes = {"event": {"Abuse": 0.7, "Arson": 0.6}, "fusion": {"Arson": math.nan, "Abuse": 0.71}}
    overall = {"event": RESULT, "fusion": {**RESULT, "AUC": 0.9}}
    table = tables.class_table(classes, protocol(UCFCRIME), overall)
    assert table.columns == ("class", "event", "paper", "diff.", "fusion", "paper", "diff.")
    assert table.rows == (
        ("Abuse", "70.00", "70.09", "-0.09", "71.00", "70.74", "+0.26"),
        ("Arson", "60.00", "66.75", "-6.75", NAN, "72.68", NONE),
        ("all videos, AUC", "88.00", "78.67", "+9.33", "90.00", "89.13", "+0.87"),
        ("all videos, Ano-AUC", "70.00", "63.94", "+6.06", "70.00", "72.49", "-2.49"),
    )
    xd = tables.class_table({"fusion": {"Riot": 0.9}}, protocol(XD), {"fusion": RESULT})
    assert xd.rows[-1] == ("all videos, Ano-AUC", "70.00", NONE, NONE)  # for every data set
    assert any(NAN in note for note in table.notes)
    selected = tables.class_table(classes, protocol(UCFCRIME, "best"), overall, {"fusion": {"Abuse": 0.02}})
    assert [row[4] for row in selected.rows[:2]] == ["71.00 ± 2.00†", NAN]  # nothing to mark where no number is
    assert selected.notes[0].startswith("±: standard deviation over runs") and "±" not in " ".join(table.notes)
    drawn = tables.class_table({"image": {"Crash": 0.5}}, protocol(DEMO))
    assert drawn.columns == ("class", "image")
    assert drawn.rows == (("Crash", "50.00"),)


def frame() -> pd.DataFrame:
    columns = PAPER["table6"]["columns"]
    rows = [
        ["CLEAN", 0.0, 0.9, 0.1, *[0.5] * 7],
        ["IMG_NOISE", 0.3, 0.8, 0.2, *[0.25] * 7],
        ["IMG_NOISE", 0.4, *[0.5] * 9],
    ]
    return pd.DataFrame(rows, columns=columns)


def test_probe_table_has_the_papers_line_below_ours() -> None:
    table = tables.probe_table(frame(), protocol(UCFCRIME), axis="feature", seed=4)
    assert [row[:4] for row in table.rows] == [
        ("CLEAN", "0.00", "here", "90.00"),
        ("", "", "paper", "89.09"),
        ("", "", "diff.", "+0.91"),
        ("IMG_NOISE", "0.30", "here", "80.00"),
        ("", "", "paper", "86.57"),
        ("", "", "diff.", "-6.57"),
        ("IMG_NOISE", "0.40", "here", "50.00"),  # a level the paper does not have
    ]
    assert table.rows[4][4:6] == ("0.1238", "0.1445")
    assert table.rows[5][4:6] == ("+0.0762", "+0.1055")
    assert "mask seed 4" in table.protocol
    assert "Table 6" in table.title
    assert "feature dimensions set to 0" in table.protocol
    drawn = tables.probe_table(frame(), protocol(DEMO), axis="time", seed=0)
    assert len(drawn.rows) == 3
    assert "from" not in drawn.columns
    assert list(drawn.notes[1:]) == protocol(DEMO).notes()


@pytest.mark.parametrize("number", [6, 7, 8, 9])
def test_the_note_on_the_papers_probes_is_true(number: int) -> None:
    """In each of Tables 6–9 ŵ_i with half the image masked is above the clean one."""
    paper = PAPER[f"table{number}"]
    weight = {(row[0], row[1]): row[paper["columns"].index("w_image")] for row in paper["rows"]}
    assert weight["IMG_NOISE", 0.5] > weight["CLEAN", 0.0]
