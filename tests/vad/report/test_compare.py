"""Comparison of two sets of runs: pairing by seed, selection by options, and differing conditions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vad.files import InputError
from vad.report import compare
from vad.report.compare import compare_files

BASE = {"dataset": "demo", "profile": "default", "modality": "fusion", "nu": "8.0", "mil": "topk", "keep": "last",
        "test_crops": "5", "split": "official", "data": "d1", "weights": "last"}  # fmt: skip


def write(path: Path, *groups: dict, seeds: int = 6, first: int = 0) -> str:
    """Write runs with AUC 0.8 + seed/1000, plus the group's `bonus`, which grows by 1 % per seed."""
    rows = [
        {
            "run": f"{number}_{seed}",
            **BASE,
            **{name: value for name, value in group.items() if name != "bonus"},
            "seed": seed,
            "AUC": 0.8 + seed / 1000 + group.get("bonus", 0) * (1 + seed / 100),
        }
        for number, group in enumerate(groups)
        for seed in range(first, first + seeds)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def test_comparison_reports_difference_interval_and_p(tmp_path: Path) -> None:
    """The differences −10.0, −10.1, … average −10.25. 2 of 64 sign patterns are as extreme."""
    a, b = write(tmp_path / "a.csv", {}), write(tmp_path / "b.csv", {"mil": "segment", "bonus": -0.1})
    table = compare_files(a, b)
    assert table.lines == [
        ["metric", "a (%)", "b (%)", "b − a", "95 % interval", "p", "pairs"],
        ["AUC", "80.25 ± 0.19", "70.00 ± 0.00", "-10.25", "[-10.45, -10.05]", "0.0312", "6"],
    ]
    assert "differing options: mil topk → segment" in table.protocol and "modality fusion" in table.protocol
    assert table.notes[0].startswith("AUC, b − a: -10.25 points") and table.notes[0].endswith(": lower.")
    assert "sign-flip test" in table.notes[1] and len(table.notes) == 2


def test_runs_of_a_file_are_selected_by_options(tmp_path: Path) -> None:
    """8 selects 8.0 too. N is the paper's name of num_refinement_steps."""
    groups = [{"num_refinement_steps": str(n), "nu": nu} for n in (0, 10) for nu in ("2.0", "8.0")]
    both = write(tmp_path / "both.csv", *groups)
    table = compare_files(f"{both}:N=0,nu=8", f"{both}:N=10,nu=8.0")
    assert "differing options: num_refinement_steps 0 → 10" in table.protocol
    assert table.lines[1][3:6] == ["+0.00", "[+0.00, +0.00]", "1"]


def test_multiple_tests_are_noted(tmp_path: Path) -> None:
    """AUC and Ano-AUC over six seeds are two tests. With five seeds neither can reach p < 0.05."""
    for seeds, noted in ((6, True), (5, False)):
        a = write(tmp_path / "a.csv", {"Ano-AUC": "0.5"}, seeds=seeds)
        b = write(tmp_path / "b.csv", {"Ano-AUC": "0.6", "mil": "segment"}, seeds=seeds)
        notes = " ".join(compare_files(a, b).notes)
        assert ("2 tests, not corrected" in notes) == noted


def test_differing_conditions_and_seeds_are_noted(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", {})
    b = write(tmp_path / "b.csv", {"nu": "2.0", "data": "d2", "weights": "best"}, first=2)
    notes = " ".join(compare_files(a, b).notes)
    assert "data is d1 in a and d2 in b" in notes and "weights is last in a and best in b" in notes
    assert "only a has are left out: 0, 1." in notes and "only b has are left out: 6, 7." in notes
    image = write(tmp_path / "image.csv", {"modality": "image", "data": "d3"})
    assert "data" not in " ".join(compare_files(a, image).notes)  # a single stream reads other files


def test_seeds_with_undefined_metric_are_not_paired(tmp_path: Path) -> None:
    """Three of six seeds have an AUC in both sets."""
    a = write(tmp_path / "a.csv", {})
    runs = pd.read_csv(a)
    runs.loc[:2, "AUC"] = None
    runs.to_csv(tmp_path / "b.csv", index=False)
    line = compare_files(a, str(tmp_path / "b.csv")).lines[1]
    assert line[2] == "n/a" and line[-1] == "3"


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ("a.csv:gamma=1", "a.csv", r"has no option 'gamma'\. It has profile, modality, .*nu"),
        ("a.csv:nu=3", "a.csv", r"has no run with nu 3\. It has 8\.0"),
        ("a.csv", "none.csv", "none.csv: there is no such table of runs"),
        ("a.csv", "other.csv", r"is not a table of runs \(no column run"),
        ("a.csv", "late.csv", "share no seed"),
        ("a.csv", "grid.csv", r"grid\.csv has runs with nu 2\.0, 4\.0\. Select one value: .*grid\.csv:nu=2\.0$"),
        ("a.csv", "grid.csv:mil=topk", r"Select one value: .*grid\.csv:mil=topk,nu=2\.0$"),
        ("a.csv", "twice.csv", "runs 0_0 and 1_0 have the same options and seed. Remove one"),
        ("a.csv", "empty.csv", "contains no runs"),
        ("a.csv", "words.csv", "a seed or a metric is not a number .*'high'"),
    ],
)
def test_invalid_sets_of_runs_are_refused(tmp_path: Path, a: str, b: str, sentence: str) -> None:
    write(tmp_path / "a.csv", {})
    write(tmp_path / "late.csv", {"nu": "2.0"}, first=50)
    write(tmp_path / "grid.csv", {"nu": "2.0"}, {"nu": "4.0"})
    write(tmp_path / "twice.csv", {}, {})
    runs = pd.read_csv(tmp_path / "a.csv", dtype=str)
    runs.iloc[:0].to_csv(tmp_path / "empty.csv", index=False)
    runs.assign(AUC="high").to_csv(tmp_path / "words.csv", index=False)
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match=sentence):
        compare_files(str(tmp_path / a), str(tmp_path / b))


def test_command_prints_the_chosen_format(tmp_path: Path, monkeypatch, capsys) -> None:
    a = write(tmp_path / "a.csv", {})
    monkeypatch.setattr("sys.argv", ["compare", a, a, "--format", "csv"])
    compare.main()
    assert capsys.readouterr().out.rstrip().endswith('AUC,80.25 ± 0.19,80.25 ± 0.19,+0.00,"[+0.00, +0.00]",1,6')
