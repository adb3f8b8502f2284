"""The four formats of a table: aligned text, Markdown, LaTeX, CSV; every file holds the same cells."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest

from vad.latex import latex_cell, latex_text
from vad.table import SUFFIXES, Table, render_all

TABLE = Table(
    "Table 1, UCF-Crime",
    "official split · 290 test videos · tail: 100 % of A_B",
    ("method", "AUC (%)", "95 % interval", "ŵ_i, abnormal frames"),
    (
        ("here", "88.00 ± 0.45", "[87.00, 89.00]", "0.4761"),
        ("a|b, Object_falling & Co.", "-0.67", "-", "n/a"),
        ("[1] {x}", "+1.00", "-", "-"),
    ),
    ("λ_kl > 0 is \\ not \"q\" ~ ^ #1 $.",),
)


def test_text_is_aligned() -> None:
    lines = TABLE.text().split("\n")
    rule = next(line for line in lines if set(line) == {"-"})
    body = lines[lines.index(rule) + 1 :][: len(TABLE.rows) + 3]
    assert {len(line) for line in body} == {len(rule)}  # the last column is a number: every line ends at its edge
    assert str(TABLE) == TABLE.text()


def test_files_hold_the_same_in_every_format(tmp_path: Path) -> None:
    paths = TABLE.save(tmp_path / "new" / "ucf")
    names = ["ucf.csv", "ucf.md", "ucf.tex", "ucf.txt"]
    assert sorted(p.name for p in paths) == names
    assert sorted(p.name for p in paths[0].parent.iterdir()) == names  # no temporary left
    found = {path.suffix: path.read_text(encoding="utf-8") for path in paths}
    for kind, suffix in SUFFIXES.items():
        assert found[suffix] == TABLE.render(kind).rstrip("\n") + "\n"
        assert found[suffix] == render_all([TABLE], kind) + "\n"
    assert "| a\\|b, Object_falling & Co. | -0.67 | - | n/a |" in found[".md"]
    assert TABLE.protocol in found[".md"] and TABLE.protocol in found[".csv"]
    read = pd.read_csv(io.StringIO(found[".csv"]), comment="#", dtype=str, keep_default_na=False)
    assert read.to_numpy().tolist() == [list(row) for row in TABLE.rows]


def test_a_name_with_the_sign_of_comments_survives_csv() -> None:
    """XD-Violence calls its videos v=…__#1_label_A; a reader that skips comments must not cut the row there."""
    table = Table("t", "p", ("video", "AUC (%)"), (("v=38GQ9L2meyE__#1_label_B6-0-0", "88.00†"), ("other", "-")))
    read = pd.read_csv(io.StringIO(table.csv()), comment="#", dtype=str, keep_default_na=False)
    assert read.to_numpy().tolist() == [["v=38GQ9L2meyE__#1_label_B6-0-0", "88.00"], ["other", "-"]]


def test_a_question_is_no_sentence_with_a_full_stop() -> None:
    latex = Table("do they?", "p", ("a",), (("1",),)).latex()
    assert r"\caption{do they? p.}" in latex


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("88.67 ± 0.45", r"$88.67 \pm 0.45$"),
        ("-0.67", "$-0.67$"),
        ("[87.00, 89.00]", "$[87.00, 89.00]$"),
        ("-", "--"),  # not a minus sign: no such number
        ("n/a", "n/a"),
        ("ŵ_i, abnormal frames", r"$\hat{w}_i$, abnormal frames"),
        ("λ_ref", r"$\lambda_{\mathrm{ref}}$"),
        ("Object_falling & 5 %", r"Object\_falling \& 5 \%"),
        ("[1]", "{}[1]"),
        ("a\\b", r"a\textbackslash{}b"),
        ("88.67 ± 0.45†", r"$88.67 \pm 0.45^{\dagger}$"),
        ("  here − paper", r"\quad here $-$ paper"),
    ],
)
def test_latex_cells(cell: str, expected: str) -> None:
    assert latex_cell(cell) == expected


def test_long_lines_are_wrapped_between_words_and_parts_only() -> None:
    wide = Table("t", "split · Ano-AUC: every video · " + "part " * 6 + "end", ("a",), (("  b",),), ("Ano-AUC " * 20,))
    lines = wide.text(width=40).split("\n")
    assert not any(line.endswith("Ano-") for line in lines)
    assert lines[1] == "split · Ano-AUC: every video ·"  # a part is never broken, and a dot ends its line
    assert "| &nbsp;&nbsp;b |" in wide.markdown()


def test_latex_leaves_no_special_character_bare() -> None:
    """ASCII, every brace and $ in pairs, as many & in each row as columns need, no special character unescaped."""
    latex = TABLE.latex()
    assert latex.isascii()
    bare = re.sub(r"\\[\\&%$#_{}]", "", latex)
    assert bare.count("$") % 2 == 0 and bare.count("{") == bare.count("}")
    rows = latex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    assert all(row.endswith(r"\\") for row in rows)
    assert not re.search(r"[#~]|(?<!\\)%(?!\n| \\usepackage)", bare)
    assert r"\begin{tabular}{@{}lrrr@{}}" in latex  # the numbers stand to the right


def test_latex_formulas_are_drawn_by_a_math_engine_nobody_here_wrote() -> None:
    """matplotlib's mathtext parses the same TeX subset and raises where a formula is broken."""
    from matplotlib.mathtext import MathTextParser

    from vad.latex import SYMBOLS

    formulas = {f for text in SYMBOLS for f in re.findall(r"\$[^$]+\$", latex_text(text)) if f != r"\$"}
    assert len(formulas) > 20
    for formula in [*formulas, latex_cell("88.67 ± 0.45"), latex_cell("[87.00, 89.00]")]:
        MathTextParser("path").parse(formula)
