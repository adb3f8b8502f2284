"""Tables: the four formats contain the same cells, and numbers are formatted as documented."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.mathtext import MathTextParser

from vad.report import table as cells
from vad.report.table import SUFFIXES, SYMBOLS, Table, latex_cell, latex_text, render_all

ROWS = [
    ["here", "88.00 ± 0.45", "[87.00, 89.00]", "0.4761"],
    ["a|b, Object_falling & Co.", "-0.67", "-", "n/a"],
    ["[1] {x}", "+1.00", "-", "-"],
]


def make(rows: list[list[str]], columns: list[str], protocol: str = "p", *notes: str, title: str = "t") -> Table:
    return Table(title, protocol, pd.DataFrame(rows, columns=columns), notes)


TABLE = make(
    ROWS,
    ["method", "AUC (%)", "95 % interval", "ŵ_i, abnormal frames"],
    "official split · 290 test videos · tail: 100 % of A_B",
    'λ_kl > 0 is \\ not "q" ~ ^ #1 $.',
    title="Table 1, UCF-Crime",
)


def test_text_format_aligns_columns() -> None:
    """Text is aligned left and numbers right, two spaces apart. Rules are as wide as the table."""
    small = make([["here", "8.00†"], ["  diff.", "-0.5"]], ["method", "AUC (%)"], "split · crop 5", "a note", title="T")
    assert small.text().split("\n") == [
        "T",
        "split · crop 5",
        "----------------",
        "method   AUC (%)",
        "----------------",
        "here       8.00†",
        "  diff.     -0.5",
        "----------------",
        "a note",
    ]
    lines = TABLE.text().split("\n")
    assert len({len(line) for line in lines[2:9]}) == 1  # the last column is numeric, so all lines end at its edge
    assert TABLE.text() == TABLE.render("text")


def test_duplicate_columns_and_empty_tables_are_printed() -> None:
    """Table 2 has the columns "paper" and "diff." for each modality."""
    assert make([], ["class", "paper", "paper"]).text().split("\n")[3] == "class  paper  paper"
    twice = make([["a", "1.0", "b"]], ["class", "paper", "paper"])
    assert twice.numeric == [False, True, False]
    assert "| a | 1.0 | b |" in twice.markdown()


def test_interval_is_numeric_and_citation_is_not() -> None:
    assert make([["[87.00, 89.00]", "[1] {x}"]], ["interval", "method"]).numeric == [True, False]


def test_saved_files_contain_the_rendered_formats(tmp_path: Path) -> None:
    paths = TABLE.save(tmp_path / "new" / "ucf.1")
    names = ["ucf.1.csv", "ucf.1.md", "ucf.1.tex", "ucf.1.txt"]
    assert sorted(p.name for p in paths) == names
    assert sorted(p.name for p in paths[0].parent.iterdir()) == names  # no temporary file is left
    contents = {path.suffix: path.read_text(encoding="utf-8") for path in paths}
    for form, suffix in SUFFIXES.items():
        assert contents[suffix] == TABLE.render(form).rstrip("\n") + "\n" == render_all([TABLE], form) + "\n"
    assert "| a\\|b, Object_falling & Co. | -0.67 | - | n/a |" in contents[".md"]
    assert TABLE.protocol in contents[".md"] and TABLE.protocol in contents[".csv"]
    read = pd.read_csv(io.StringIO(contents[".csv"]), comment="#", dtype=str, keep_default_na=False)
    assert read.to_numpy().tolist() == ROWS


def test_csv_quotes_names_with_a_comment_sign() -> None:
    """A reader that skips comments must not cut names like v=…__#1_label_A (XD-Violence). † is left out."""
    rows = [["v=38GQ9L2meyE__#1_label_B6-0-0", "88.00†"], ["other", "-"]]
    text = make(rows, ["video", "AUC (%)"]).csv()
    read = pd.read_csv(io.StringIO(text), comment="#", dtype=str, keep_default_na=False)
    assert read.to_numpy().tolist() == [[rows[0][0], "88.00"], rows[1]]


def test_tables_are_separated_by_an_empty_line() -> None:
    assert render_all([TABLE, TABLE], "csv").count("\n\n# Table 1") == 1


def test_long_lines_wrap_between_words_and_parts() -> None:
    wide = make([["  b"]], ["a"], "split · Ano-AUC: every video · " + "part " * 6 + "end", "Ano-AUC " * 20)
    lines = wide.text(width=40).split("\n")
    assert not any(line.endswith("Ano-") for line in lines)
    assert lines[1] == "split · Ano-AUC: every video ·"  # a part is never broken, and the line ends with the dot
    assert "| &nbsp;&nbsp;b |" in wide.markdown()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("88.67 ± 0.45", r"$88.67 \pm 0.45$"),
        ("88.67 ± 0.45†", r"$88.67 \pm 0.45^{\dagger}$"),
        ("-0.67", "$-0.67$"),
        ("[87.00, 89.00]", "$[87.00, 89.00]$"),
        ("-", "--"),  # a missing number, not a minus sign
        ("n/a", "n/a"),
        ("ŵ_i, abnormal frames", r"$\hat{w}_i$, abnormal frames"),
        ("λ_ref", r"$\lambda_{\mathrm{ref}}$"),
        ("Object_falling & 5 %", r"Object\_falling \& 5 \%"),
        ("[1]", "{}[1]"),
        ("a\\b", r"a\textbackslash{}b"),
        ("  here − paper", r"\quad here $-$ paper"),
    ],
)
def test_latex_cell_is_formula_or_escaped_text(cell: str, expected: str) -> None:
    assert latex_cell(cell) == expected


def test_latex_escapes_every_special_character() -> None:
    """The text is ASCII, braces and $ are paired, and each row has one & fewer than columns."""
    latex = TABLE.latex()
    assert latex.isascii()
    bare = re.sub(r"\\[\\&%$#_{}]", "", latex)
    assert bare.count("$") % 2 == 0 and bare.count("{") == bare.count("}")
    rows = latex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    assert all(row.endswith(r"\\") for row in rows)
    assert not re.search(r"[#~]|(?<!\\)%(?!\n| \\usepackage)", bare)
    assert r"\begin{tabular}{@{}lrrr@{}}" in latex  # numbers are aligned right
    assert r"\caption{Table 1, UCF-Crime. " in latex
    assert r"\caption{do they? p.}" in make([["1"]], ["a"], title="do they?").latex()


def test_latex_formulas_are_valid_for_mathtext() -> None:
    """matplotlib's mathtext parses this subset of TeX and raises for an invalid formula."""
    formulas = {f for text in SYMBOLS for f in re.findall(r"\$[^$]+\$", latex_text(text)) if f != r"\$"}
    assert len(formulas) > 20
    for formula in [*formulas, latex_cell("88.67 ± 0.45"), latex_cell("[87.00, 89.00]")]:
        MathTextParser("path").parse(formula)


def test_fractions_are_printed_in_the_metric_unit() -> None:
    """AUC is printed in percent with two digits, Brier as a fraction with four."""
    assert (cells.value_cell("AUC", 0.88671), cells.value_cell("Brier", 0.12345)) == ("88.67", "0.1235")
    assert (cells.paper_cell("AUC", 88.7), cells.paper_cell("kl", 0.01)) == ("88.70", "0.0100")
    assert cells.difference_cell("AUC", 0.8867, 88.0) == "+0.67"
    assert cells.difference_cell("AUC", 0.87999, 88.0) == "+0.00"  # not −0.00
    assert cells.difference_cell("Brier", 0.1, 0.12) == "-0.0200"
    assert cells.interval_cell("AUC", (0.87, 0.89)) == "[87.00, 89.00]"
    labels = [cells.metric_label(name) for name in ("AUC", "kl", "w_image", "w_event_normal", "ECE")]
    assert labels == ["AUC (%)", "KL", "ŵ_i", "ŵ_e, normal frames", "ECE"]


def test_mean_cell_has_std_for_more_than_one_run() -> None:
    """80 and 90 % have the standard deviation (n − 1) 7.07. One run has none."""
    assert cells.mean_cell([0.8, 0.9]) == "85.00 ± 7.07"
    assert cells.mean_cell([0.8]) == "80.00"
    assert cells.spread_cell(None, 1.0) == "-"


def test_missing_numbers_are_dashes_or_n_a() -> None:
    assert cells.value_cell("AUC", math.nan) == cells.mean_cell([0.8, math.nan]) == "n/a"
    assert cells.difference_cell("AUC", math.nan, 88.0) == cells.difference_cell("AUC", 0.5, None) == "-"
    assert cells.interval_cell("AUC", None) == "-"
    assert [cells.marked(cell, "†") for cell in ("88.00", "-", "n/a")] == ["88.00†", "-", "n/a"]


def test_notes_define_metrics_and_explain_undefined() -> None:
    """Each note occurs once, even if several metrics share it."""
    notes = cells.definition_notes(["AUC", "FAR@0.5", "kl", "per-video AUC, median", "videos with AUC below 0.5"])
    assert [note.partition(":")[0] for note in notes] == ["FAR@0.5", "KL", "Per-video AUC"]
    assert "normal-labelled videos" in notes[0] and "in nats" in notes[1]
    undefined = cells.undefined_notes({"AUC": 0.5, "AP": math.nan, "AP (trapezoid)": math.nan, "w_image": math.nan})
    assert undefined == ["n/a: AP needs anomalous frames, but these videos contain none."]
