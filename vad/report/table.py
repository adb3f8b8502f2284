"""A table of text cells, its four formats, and how numbers become cells."""

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
from vad.metrics import DEFINITIONS, PERCENT, UNDEFINED

SUFFIXES = {"text": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv"}
SEPARATOR = " · "  # between the parts of a protocol
NONE, NAN = "-", "n/a"  # no such number in the paper; not defined on these videos
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
# what LaTeX text does not take as it is
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
    """Cells as text, with what stands above and below them."""

    title: str
    protocol: str
    frame: pd.DataFrame  # of text; the column names are the header, the index is not printed
    notes: tuple[str, ...] = ()

    def render(self, form: str) -> str:
        """The table in one of the formats of `SUFFIXES`; the methods below bear their names."""
        return getattr(self, form)()

    def save(self, path: Path) -> list[Path]:
        """Write `path` + .txt, .md, .tex and .csv, each whole or not at all; returns these paths."""
        paths = [path.with_name(path.name + suffix) for suffix in SUFFIXES.values()]
        for form, target in zip(SUFFIXES, paths, strict=True):
            write_bytes(target, (self.render(form).rstrip("\n") + "\n").encode())
        return paths

    @property
    def lines(self) -> list[list[str]]:
        """The header and the rows."""
        return [list(self.frame.columns), *self.frame.to_numpy().tolist()]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers: they are aligned right, words left."""
        return [any(map(_is_number, column)) for column in self.frame.to_numpy().T]

    def text(self, width: int = 110) -> str:
        """Aligned columns for a terminal; only the lines around the table are wrapped at `width`."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        sides = [">" if right else "<" for right in self.numeric]
        line = "  ".join(f"{{:{side}{w}}}" for side, w in zip(sides, widths, strict=True))
        header, *rows = (line.format(*cells) for cells in self.lines)
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        # no-break spaces keep each part of the protocol on one line, and the dot behind it
        glued = self.protocol.replace(" ", "\xa0").replace("\xa0·\xa0", "\xa0· ")
        wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False)
        head = [self.title, *(line.replace("\xa0", " ") for line in wrap(glued))]
        foot = [line for note in self.notes for line in wrap(note, subsequent_indent="  ")]
        return "\n".join(line.rstrip() for line in [*head, rule, header, rule, *rows, rule, *foot])

    def markdown(self) -> str:
        """The table for Markdown."""
        lines = [f"| {' | '.join(map(_markdown_cell, line))} |" for line in self.lines]
        lines.insert(1, "|" + "---|" * self.frame.shape[1])
        notes = (f"- {note}" for note in self.notes)
        return "\n".join([f"**{self.title}**", "", self.protocol, "", *lines, "", *notes])

    def csv(self) -> str:
        """The table as CSV, without marks; title, protocol and notes are lines that begin with `#`."""
        comments = "".join(f"# {line}\n" for line in (self.title, self.protocol, *self.notes))
        # a reader that skips comments would cut names with a # (XD-Violence), unless they are quoted
        hashes = any("#" in cell for line in self.lines for cell in line)
        frame = self.frame.map(lambda cell: cell.removesuffix(MARK))
        quoting = csv.QUOTE_ALL if hashes else csv.QUOTE_MINIMAL
        return comments + frame.to_csv(index=False, lineterminator="\n", quoting=quoting)

    def latex(self) -> str:
        """The table for LaTeX with booktabs and graphicx; plain ASCII where the cells allow it."""
        header, *rows = (" & ".join(map(latex_cell, line)) + r" \\" for line in self.lines)
        title = self.title + ("" if self.title.endswith("?") else ".")
        return "\n".join([
            "% \\usepackage{booktabs,graphicx}",
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{latex_text(title)} {latex_text(self.protocol)}.}}",
            r"\smallskip",
            # a table broader than the page shrinks to it; a narrow one keeps its size
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{''.join('lr'[right] for right in self.numeric)}@{{}}}}",
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
    """Several tables in one format, an empty line between them."""
    return "\n\n".join(table.render(form).rstrip("\n") for table in tables)


def latex_text(text: str) -> str:
    """Running text for LaTeX: special characters escaped, the symbols of the paper in math mode."""
    return _SYMBOL.sub(lambda match: SYMBOLS[match.group()], text)


def latex_cell(cell: str) -> str:
    """A cell for LaTeX: a number with sign and spread is one formula, anything else is text."""
    if cell == NONE:
        return "--"
    if _NUMERIC.fullmatch(cell):
        return "$" + cell.replace("±", r"\pm").replace("†", r"^{\dagger}") + "$"
    if cell.startswith("  "):  # an indented row name
        return r"\quad " + latex_cell(cell.strip())
    # a first cell follows the \\ of the row before, which takes a bracket or star for its argument
    return ("{}" if cell[:1] in ("[", "*") else "") + latex_text(cell)


def _markdown_cell(cell: str) -> str:
    # Markdown would drop the spaces before an indented row name
    return re.sub("^ +", lambda spaces: "&nbsp;" * len(spaces.group()), cell).replace("|", "\\|")


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, with or without sign and spread, or an interval [a, b]."""
    interval = cell.startswith("[") and cell.endswith("]")
    return cell in (NONE, NAN) or cell.lstrip("+-[" if interval else "+-")[:1].isdigit()


# cells: a metric's value is a fraction, the paper's number is given as printed


def metric_label(name: str) -> str:
    """A metric's or column's name as the tables print it."""
    if name in PERCENT:
        return f"{name} (%)"
    base, _, part = name.replace("w_image", "ŵ_i ").replace("w_event", "ŵ_e ").partition(" _")
    return f"{base}, {part} frames" if part else {"brier": "Brier", "kl": "KL"}.get(name, base.strip())


def _unit(name: str) -> tuple[int, int]:
    """Factor and digits a fraction is printed with: percent with two, or as it is with four."""
    return (100, 2) if name in PERCENT else (1, 4)


def value_cell(name: str, value: float) -> str:
    """A fraction in the metric's unit."""
    return NAN if math.isnan(value) else paper_cell(name, value * _unit(name)[0])


def paper_cell(name: str, printed: float) -> str:
    """A number of the paper, with the digits of `value_cell`."""
    return f"{printed:.{_unit(name)[1]}f}"


def difference_cell(name: str, value: float, printed: float | None) -> str:
    """A fraction minus the paper's number, in the unit both are printed in."""
    if printed is None or math.isnan(value):
        return NONE
    scale, digits = _unit(name)
    # + 0.0 turns a rounded −0 into 0
    return f"{round(value * scale - printed, digits) + 0.0:+.{digits}f}"


def interval_cell(name: str, bounds: tuple[float, float] | None) -> str:
    """An interval of fractions as [low, high], in the unit of `value_cell`."""
    return NONE if bounds is None else f"[{', '.join(value_cell(name, bound) for bound in bounds)}]"


def spread_cell(mean: float | None, std: float | None, name: str = "AUC") -> str:
    """mean ± std in the metric's unit; the mean alone where there is no spread."""
    digits = _unit(name)[1]
    return NONE if mean is None else f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def mean_cell(fractions: Iterable[float], name: str = "AUC") -> str:
    """Mean in the metric's unit, ± the sample standard deviation of more than one run."""
    scale, _ = _unit(name)
    values = [scale * value for value in fractions]
    if any(map(math.isnan, values)):
        return NAN
    std = statistics.stdev(values) if len(values) > 1 else None
    return spread_cell(statistics.fmean(values), std, name)


def marked(cell: str, mark: str) -> str:
    """A cell with a mark beside its number; a cell without a number has none."""
    return cell if cell in (NAN, NONE) else cell + mark


def definition_notes(names: Iterable[str]) -> list[str]:
    """What the metrics with these names count, as far as the name does not say it."""
    return list(dict.fromkeys(DEFINITIONS[name] for name in names if name in DEFINITIONS))


def undefined_notes(metrics: Mapping[str, float]) -> list[str]:
    """Why each undefined metric is undefined."""
    names = [name for name, value in metrics.items() if math.isnan(value) and name in UNDEFINED]
    return [f"{NAN}: {reason}." for reason in dict.fromkeys(UNDEFINED[name] for name in names)]
