"""Tables of text cells: four output formats, and the formatting of numbers."""

from __future__ import annotations

import csv
import math
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from vad.evaluation import MARK
from vad.files import write_bytes
from vad.metrics import DEFINITIONS, MIXED, PERCENT, UNDEFINED

SUFFIXES = {"text": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv"}
SEPARATOR = " · "  # between the parts of the protocol line
NONE, NAN = "-", "n/a"  # no such number exists; undefined on these videos
DIGITS = {MIXED: 0, "delay (s)": 2}  # of metrics that are no fractions
SPREAD_NOTE = "±: standard deviation over runs (n − 1)."

_MATH = {
    "σ²_eff": r"\sigma^2_{\mathrm{eff}}", "Δŵ_i": r"\Delta\hat{w}_i", "Δŵ_e": r"\Delta\hat{w}_e",
    "λ_ref": r"\lambda_{\mathrm{ref}}", "λ_reg": r"\lambda_{\mathrm{reg}}",
    "λ_kl": r"\lambda_{\mathrm{kl}}", "λ_1": r"\lambda_1", "λ_2": r"\lambda_2",
    "L_cls": r"L_{\mathrm{cls}}", "L_kl": r"L_{\mathrm{kl}}", "L_reg": r"L_{\mathrm{reg}}",
    "ŵ_i": r"\hat{w}_i", "ŵ_e": r"\hat{w}_e", "ŵ": r"\hat{w}", "σ²": r"\sigma^2",
    "Δ": r"\Delta", "λ": r"\lambda", "ν": r"\nu", "ε": r"\varepsilon", "μ": r"\mu", "σ": r"\sigma",
    "±": r"\pm", "†": r"^{\dagger}", "·": r"\cdot", "×": r"\times", "−": "-", "≥": r"\geq",
    "≤": r"\leq", "→": r"\to", "∞": r"\infty", "<": "<", ">": ">",
}  # fmt: skip
# characters that must be escaped or replaced in LaTeX text
SYMBOLS: Mapping[str, str] = {
    **{text: f"${formula}$" for text, formula in _MATH.items()},
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "|": r"\textbar{}", "…": r"\ldots{}", "–": "--", "—": "---", "’": "'", '"': "''",
}  # fmt: skip
_SYMBOL = re.compile("|".join(re.escape(key) for key in sorted(SYMBOLS, key=len, reverse=True)))
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_NUMERIC = re.compile(rf"{_NUMBER}(?: ± {_NUMBER})?†?|\[{_NUMBER}, {_NUMBER}\]")


@dataclass(frozen=True, eq=False)
class Table:
    """A table of text cells with title, protocol line and notes."""

    title: str
    protocol: str
    frame: pd.DataFrame  # text cells; the column names are the header, the index is not printed
    notes: tuple[str, ...] = ()

    def render(self, form: str) -> str:
        """Return the table in one of the formats of `SUFFIXES`, each of which is a method below."""
        return getattr(self, form)()

    def save(self, path: Path) -> list[Path]:
        """Write <path>.txt, .md, .tex and .csv atomically and return their paths."""
        paths = [path.with_name(path.name + suffix) for suffix in SUFFIXES.values()]
        for form, target in zip(SUFFIXES, paths, strict=True):
            write_bytes(target, (self.render(form).rstrip("\n") + "\n").encode())
        return paths

    @property
    def lines(self) -> list[list[str]]:
        """Return the header and the rows."""
        return [list(self.frame.columns), *self.frame.to_numpy().tolist()]

    @property
    def numeric(self) -> list[bool]:
        """Return whether each column contains numbers, which are aligned right."""
        return [any(map(_is_number, column)) for column in self.frame.to_numpy().T]

    def text(self, width: int = 110) -> str:
        """Return the table for a terminal. Only protocol and notes are wrapped at `width`, not the rows."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        aligns = [">" if numeric else "<" for numeric in self.numeric]
        line = "  ".join(f"{{:{align}{w}}}" for align, w in zip(aligns, widths, strict=True))
        header, *rows = (line.format(*cells) for cells in self.lines)
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        # no-break spaces keep each part of the protocol, and the dot after it, on one line
        glued = self.protocol.replace(" ", "\xa0").replace("\xa0·\xa0", "\xa0· ")
        wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False)
        head = [self.title, *(line.replace("\xa0", " ") for line in wrap(glued))]
        foot = [line for note in self.notes for line in wrap(note, subsequent_indent="  ")]
        return "\n".join(line.rstrip() for line in [*head, rule, header, rule, *rows, rule, *foot])

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"| {' | '.join(map(_markdown_cell, line))} |" for line in self.lines]
        lines.insert(1, "|" + "---|" * self.frame.shape[1])
        notes = (f"- {note}" for note in self.notes)
        return "\n".join([f"**{self.title}**", "", self.protocol, "", *lines, "", *notes])

    def csv(self) -> str:
        """Return the table as CSV without †. Title, protocol and notes are comment lines starting with `#`."""
        comments = "".join(f"# {line}\n" for line in (self.title, self.protocol, *self.notes))
        # a reader that skips comments would cut unquoted names with a # (XD-Violence)
        hashes = any("#" in cell for line in self.lines for cell in line)
        frame = self.frame.map(lambda cell: cell.removesuffix(MARK))
        quoting = csv.QUOTE_ALL if hashes else csv.QUOTE_MINIMAL
        return comments + frame.to_csv(index=False, lineterminator="\n", quoting=quoting)

    def latex(self) -> str:
        """Return the table in LaTeX, for booktabs and graphicx, in ASCII if the cells allow it."""
        header, *rows = (" & ".join(map(latex_cell, line)) + r" \\" for line in self.lines)
        title = self.title + ("" if self.title.endswith("?") else ".")
        return "\n".join([
            "% \\usepackage{booktabs,graphicx}",
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{latex_text(title)} {latex_text(self.protocol)}.}}",
            r"\smallskip",
            # a table wider than the page is scaled down; a narrow one keeps its size
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{''.join('lr'[numeric] for numeric in self.numeric)}@{{}}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par\smallskip\footnotesize\raggedright {latex_text(note)}" for note in self.notes),
            r"\end{table}",
        ])


def render_all(tables: Iterable[Table], form: str) -> str:
    """Return several tables in one format, separated by an empty line."""
    return "\n\n".join(table.render(form).rstrip("\n") for table in tables)


def latex_text(text: str) -> str:
    """Return text for LaTeX, with special characters escaped and the paper's symbols in math mode."""
    return _SYMBOL.sub(lambda match: SYMBOLS[match.group()], text)


def latex_cell(cell: str) -> str:
    """Return a cell for LaTeX: a number with its sign and ± is one formula, anything else is text."""
    if cell == NONE:
        return "--"
    if _NUMERIC.fullmatch(cell):
        return "$" + cell.replace("±", r"\pm").replace("†", r"^{\dagger}") + "$"
    if cell.startswith("  "):  # an indented row name
        return r"\quad " + latex_cell(cell.strip())
    # \\ of the previous row would read a bracket or star that follows as its argument
    return ("{}" if cell[:1] in ("[", "*") else "") + latex_text(cell)


def _markdown_cell(cell: str) -> str:
    # Markdown drops leading spaces, which indent a row name
    return re.sub("^ +", lambda spaces: "&nbsp;" * len(spaces.group()), cell).replace("|", "\\|")


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, with or without sign and ±, or an interval [a, b]."""
    interval = cell.startswith("[") and cell.endswith("]")
    return cell in (NONE, NAN) or cell.lstrip("+-[" if interval else "+-")[:1].isdigit()


# cells: metrics are passed as fractions, the paper's numbers as printed


def metric_label(name: str) -> str:
    """Return the printed name of a metric or column."""
    if name in PERCENT:
        return f"{name} (%)"
    base, _, part = re.sub("^w_([a-z])[a-z]+", r"ŵ_\1 ", name).partition(" _")
    return f"{base}, {part} frames" if part else {"brier": "Brier", "kl": "KL"}.get(name, base.strip())


def _unit(name: str) -> tuple[int, int]:
    """Return factor and number of digits: percent with two digits, the fraction with four, or as in `DIGITS`."""
    return (100, 2) if name in PERCENT else (1, DIGITS.get(name, 4))


def value_cell(name: str, value: float) -> str:
    """Return the cell of a fraction, in the metric's unit."""
    return NAN if math.isnan(value) else paper_cell(name, value * _unit(name)[0])


def paper_cell(name: str, printed: float) -> str:
    """Return the cell of a number from the paper, with as many digits as `value_cell`."""
    return f"{printed:.{_unit(name)[1]}f}"


def difference_cell(name: str, value: float, printed: float | None) -> str:
    """Return the cell of a fraction minus the paper's number, in the metric's unit."""
    if printed is None or math.isnan(value):
        return NONE
    scale, digits = _unit(name)
    # + 0.0 turns −0 into 0
    return f"{round(value * scale - printed, digits) + 0.0:+.{digits}f}"


def interval_cell(name: str, bounds: tuple[float, float] | None) -> str:
    """Return the cell [low, high] of an interval of fractions, in the metric's unit."""
    return NONE if bounds is None else f"[{', '.join(value_cell(name, bound) for bound in bounds)}]"


def spread_cell(mean: float | None, std: float | None, name: str = "AUC") -> str:
    """Return the cell mean ± std of numbers in the metric's unit, or the mean if std is None."""
    digits = _unit(name)[1]
    return NONE if mean is None else f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def mean_cell(fractions: Iterable[float], name: str = "AUC") -> str:
    """Return the cell of the mean over runs, with ± sample standard deviation for more than one run."""
    scale, _ = _unit(name)
    values = [scale * value for value in fractions]
    if any(map(math.isnan, values)):
        return NAN
    std = statistics.stdev(values) if len(values) > 1 else None
    return spread_cell(statistics.fmean(values), std, name)


def marked(cell: str, mark: str) -> str:
    """Return the cell with a mark such as † appended, unless it contains no number."""
    return cell if cell in (NAN, NONE) else cell + mark


def definition_notes(names: Iterable[str]) -> list[str]:
    """Return the definitions of those metrics whose names do not explain themselves."""
    return list(dict.fromkeys(DEFINITIONS[name] for name in names if name in DEFINITIONS))


def undefined_notes(metrics: Mapping[str, float]) -> list[str]:
    """Return the reason for each undefined metric."""
    names = [name for name, value in metrics.items() if math.isnan(value) and name in UNDEFINED]
    return [f"{NAN}: {reason}." for reason in dict.fromkeys(UNDEFINED[name] for name in names)]
