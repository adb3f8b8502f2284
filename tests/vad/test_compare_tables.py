"""Two tables of runs: which cells are held against each other, what is left out, what is not under one condition."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vad.compare_tables import compare_files
from vad.errors import InputError
from vad.run_log import number, read_rows, write_rows

BASE = {"dataset": "demo", "profile": "default", "modality": "fusion", "nu": 8.0, "mil": "topk", "keep": "last",
        "test_crops": "5", "split": "official", "data": "d1", "weights": "last"}  # fmt: skip


def table(path: Path, cells: list[dict], seeds: int = 6, first: int = 0) -> str:
    """Runs with AUC 0.8 + seed/1000, plus the cell's `bonus`, which varies a little with the seed."""
    rows = []
    for cell in cells:
        settings = {**BASE, **{name: value for name, value in cell.items() if name != "bonus"}}
        for seed in range(first, first + seeds):
            auc = 0.8 + seed / 1000 + cell.get("bonus", 0) * (1 + seed / 100)
            name = f"{settings['modality']}_{settings['nu']}_{settings['mil']}_{seed}"
            rows.append({"run": name, **settings, "seed": seed, "AUC": auc})
    write_rows(path, rows)
    return str(path)


def test_two_sets_that_differ_in_one_setting(tmp_path):
    a, b = table(tmp_path / "a.csv", [{}]), table(tmp_path / "b.csv", [{"mil": "segment", "bonus": -0.1}])
    found = compare_files(a, b)
    assert found.columns == ("metric", "a (%)", "b (%)", "b − a", "95 % interval", "p", "pairs")
    # −10 points, growing by a tenth of a point a seed: −10.25 on average; 2 of 64 sign patterns are as far out
    assert found.rows == (("AUC", "80.25 ± 0.19", "70.00 ± 0.00", "-10.25", "[-10.45, -10.05]", "0.0312", "6"),)
    assert "differs: mil topk → segment" in found.protocol and "modality fusion" in found.protocol
    assert found.notes[0].endswith(": lower.") and "sign-flip test" in found.notes[1] and len(found.notes) == 2


def test_sweeps_are_compared_cell_by_cell_and_one_cell_with_all(tmp_path):
    swept = [{"nu": 2.0}, {"nu": 8.0}]
    a = table(tmp_path / "a.csv", swept)
    b = table(tmp_path / "b.csv", [{**cell, "mil": "segment", "bonus": 0.01} for cell in swept])
    assert [row[:2] for row in compare_files(a, b).rows] == [("nu 2.0", "AUC"), ("nu 8.0", "AUC")]
    both = table(tmp_path / "both.csv", [{"mil": "topk"}, {"mil": "segment", "bonus": 0.01}])
    assert [row[0] for row in compare_files(f"{both}:mil=segment", f"{both}:mil=topk").rows] == ["AUC"]
    single = compare_files(f"{a}:nu=8", a)
    assert single.rows[0][3:6] == ("+0.00", "[+0.00, +0.00]", "1")  # its equal is there: itself
    assert "Left out: 1 cells of b that the other has not." in single.notes


def test_one_cell_is_held_against_every_cell_of_a_sweep(tmp_path):
    a = table(tmp_path / "a.csv", [{}])
    b = table(tmp_path / "b.csv", [{"nu": 2.0, "bonus": 0.012}, {"nu": 4.0, "bonus": 0.024}])
    found = compare_files(a, b)
    assert [row[0] for row in found.rows] == ["nu 8.0 → nu 2.0", "nu 8.0 → nu 4.0"]
    assert [row[4] for row in found.rows] == ["+1.23", "+2.46"]
    assert found.notes[:2] == (
        "AUC of b is higher in 2, lower in 0 cells, and not told from a's in 0.",
        "2 tests stand here, none corrected for the others: where nothing differs, up to one in twenty still comes out "
        "with p < 0.05.",
    )


def test_other_data_other_weights_and_lone_seeds_are_said(tmp_path):
    a = table(tmp_path / "a.csv", [{}])
    b = table(tmp_path / "b.csv", [{"nu": 2.0, "data": "d2", "weights": "best"}], first=2)
    notes = " ".join(compare_files(a, b).notes)
    assert "data is d1 in a, d2 in b" in notes and "weights is last in a, best in b" in notes
    assert "only a has them: seeds 0, 1." in notes and "only b has them: seeds 6, 7." in notes
    image = table(tmp_path / "image.csv", [{"modality": "image", "data": "d3"}])
    assert "data" not in " ".join(compare_files(a, image).notes)  # one stream reads other files, as it must


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ("a.csv:gamma=1", "a.csv", "has no setting 'gamma'; it has profile, modality, .*nu"),
        ("a.csv:nu=3", "a.csv", "has no run with nu 3; it has 8.0"),
        ("a.csv", "none.csv", "none.csv: there is no such table of runs"),
        ("a.csv", "other.csv", "is no table of runs \\(no column run"),
        ("a.csv", "late.csv", "share no seed"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, a, b, sentence):
    table(tmp_path / "a.csv", [{}])
    table(tmp_path / "late.csv", [{"nu": 2.0}], first=50)
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match=sentence):
        compare_files(str(tmp_path / a), str(tmp_path / b))


def test_rows_that_several_sweeps_write_at_once_are_all_there(tmp_path):
    path = tmp_path / "runs.csv"
    table(path, [{}], seeds=1)
    row = read_rows(path)[0]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_rows(path, [{**row, "run": f"run {number}"}]), range(40)))
    assert {found["run"] for found in read_rows(path)} == {row["run"], *(f"run {number}" for number in range(40))}
    assert [other.name for other in tmp_path.iterdir()] == ["runs.csv"]


def test_a_run_that_is_there_is_replaced_and_the_others_stay(tmp_path):
    path = tmp_path / "runs.csv"
    table(path, [{}], seeds=2)
    write_rows(path, [{**read_rows(path)[1], "AUC": 0.123456789012345678, "seconds": 3.5}])
    rows = read_rows(path)
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert number(rows[0], "AUC") == 0.8 and number(rows[1], "AUC") == 0.123456789012345678  # exactly
    assert number(rows[0], "seconds") != number(rows[0], "seconds")  # no such number there: NaN
