"""A table of text cells, and its four formats: aligned text, Markdown, LaTeX, CSV."""

from __future__ import annotations

import argparse
import csv
import io
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vad.files import write_whole
from vad.latex import latex_cell, latex_text

SUFFIXES = {"text": ".txt", "markdown": ".md", "latex": ".tex", "csv": ".csv"}
SEPARATOR = " · "
NONE, NAN = "-", "n/a"  # no such number in the paper; not defined on these videos
MARK = "†"  # beside a number of weights that were selected on the test set


@dataclass(frozen=True)
class Table:
    """Cells as text, with what stands above and below them."""

    title: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self, width: int = 110) -> str:
        """Aligned columns for a terminal; only the lines around the table are wrapped at `width`."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = [not self._is_numeric(k) for k in range(len(widths))]
        body = [
            "  ".join(c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(line, widths, left, strict=True))
            for line in lines
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        # no-break spaces keep each part of the protocol on one line, and the dot behind it
        glued = self.protocol.replace(" ", "\xa0").replace(SEPARATOR.replace(" ", "\xa0"), "\xa0· ")
        wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False)
        head = [self.title, *(line.replace("\xa0", " ") for line in wrap(glued))]
        foot = [line for note in self.notes for line in wrap(note, subsequent_indent="  ")]
        return "\n".join(line.rstrip() for line in [*head, rule, body[0], rule, *body[1:], rule, *foot])

    __str__ = text

    def markdown(self) -> str:
        """The same as a Markdown table."""
        cells = [[_markdown_cell(cell) for cell in row] for row in (self.columns, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|" + "---|" * len(self.columns))
        return "\n".join([f"**{self.title}**", "", self.protocol, "", *lines, "", *(f"- {n}" for n in self.notes)])

    def csv(self) -> str:
        """The same as CSV, numbers without marks; title, protocol and notes are lines that begin with `#`."""
        stream = io.StringIO()
        rows = [[cell.removesuffix(MARK) for cell in row] for row in self.rows]
        lines = [self.columns, *rows]
        # a reader told that # begins a comment would cut such a cell, unless it is quoted: XD-Violence has such names
        quoting = csv.QUOTE_ALL if any("#" in cell for line in lines for cell in line) else csv.QUOTE_MINIMAL
        csv.writer(stream, lineterminator="\n", quoting=quoting).writerows(lines)
        return "".join(f"# {line}\n" for line in (self.title, self.protocol, *self.notes)) + stream.getvalue()

    def latex(self) -> str:
        """The same as a LaTeX table; needs the packages booktabs and graphicx. Plain ASCII where the cells allow it."""
        kinds = "".join("r" if self._is_numeric(k) else "l" for k in range(len(self.columns)))
        header, *rows = (" & ".join(map(latex_cell, row)) + r" \\" for row in (self.columns, *self.rows))
        title = self.title + ("" if self.title.endswith("?") else ".")
        notes = [rf"\par\smallskip\footnotesize\raggedright {latex_text(note)}" for note in self.notes]
        return "\n".join([
            "% \\usepackage{booktabs,graphicx}",
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{latex_text(title)} {latex_text(self.protocol)}.}}",
            r"\smallskip",
            # a table broader than the page shrinks to it; a narrow one keeps its size
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            *notes,
            r"\end{table}",
        ])

    def render(self, kind: str) -> str:
        """The table in one of the formats of `SUFFIXES`."""
        return getattr(self, kind)()

    def save(self, path_without_suffix: Path) -> list[Path]:
        """Writes .txt, .md, .tex and .csv, each whole or not at all; returns their paths."""
        paths = []
        for kind, suffix in SUFFIXES.items():
            paths.append(path_without_suffix.with_name(path_without_suffix.name + suffix))
            write_whole(paths[-1], (self.render(kind).rstrip("\n") + "\n").encode())
        return paths

    def _is_numeric(self, column: int) -> bool:
        """Numbers stand to the right, words to the left."""
        return any(_is_number(row[column]) for row in self.rows)


def add_format_flag(parser: argparse.ArgumentParser) -> None:
    """--format: how tables are printed; files are written in every format."""
    text = "how tables are printed (default text); all four formats are saved"
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="text", help=text)


def render_all(tables: Iterable[Table], kind: str) -> str:
    """Several tables in one format, an empty line between them."""
    return "\n\n".join(table.render(kind).rstrip("\n") for table in tables)


def _markdown_cell(cell: str) -> str:
    """Bars escaped; spaces in front of an indented row name kept, which Markdown would drop."""
    name = cell.lstrip(" ")
    return "&nbsp;" * (len(cell) - len(name)) + name.replace("|", "\\|")


def _is_number(cell: str) -> bool:
    """A number, with or without sign and spread, or an interval [a, b]."""
    interval = cell.startswith("[") and cell.endswith("]")
    return cell in (NONE, NAN) or cell.lstrip("+-[" if interval else "+-")[:1].isdigit()
