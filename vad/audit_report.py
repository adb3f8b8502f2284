"""What an audit found: one row a check, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

NOTHING = "–"
SHOWN, WIDE = 3, 100  # examples in a row of the table, and characters of one; JSON has all


@dataclass(frozen=True)
class Row:
    """One check: how many were found, how many there should be, and whether that is a finding."""

    check: str
    found: int | str
    expected: int | str | None = None
    finding: bool = False
    note: str = ""
    examples: tuple[str, ...] = ()  # what the found ones are


def none_of(check: str, examples: Iterable[str], note: str = "") -> Row:
    """A row of things of which there should be none."""
    named = tuple(examples)
    return Row(check, len(named), 0, bool(named), note if named else "", named)


def not_checked(check: str, why: str) -> Row:
    """A row of a check for which something is not at hand; not a finding."""
    return Row(check, "not checked", None, False, why)


@dataclass
class Audit:
    """All rows of one data set under one split."""

    title: str
    dataset: str
    split: str
    sources: Mapping[str, str]  # what was read, or why it was not
    rows: list[Row] = field(default_factory=list)

    @property
    def findings(self) -> list[Row]:
        """The rows in which something is wrong."""
        return [row for row in self.rows if row.finding]

    def as_json(self) -> str:
        """The whole audit, every example included."""
        content = {
            "dataset": self.dataset,
            "split": self.split,
            "clean": not self.findings,
            "findings": len(self.findings),
            "sources": dict(self.sources),
            "checks": [asdict(row) for row in self.rows],
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        """The table: check, found, expected; an exclamation mark before what is a finding."""
        lines = [f"{self.title}, {self.split} split"]
        wide = max(map(len, self.sources), default=0)
        lines += [f"  {name:<{wide}}  {text}" for name, text in self.sources.items()]
        table = [("check", "found", "expected", "")]
        table += [
            (f"{'!' if row.finding else ' '} {row.check}", _number(row.found), _number(row.expected), _remark(row))
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in table) for column in range(3)]
        lines += ["", *(_line(line, widths) for line in table), ""]
        count = len(self.findings)
        lines.append("no finding" if not count else f"{count} finding{'s' if count > 1 else ''}, marked !")
        return "\n".join(lines)


def _number(value: int | str | None) -> str:
    return NOTHING if value is None else f"{value:,}" if isinstance(value, int) else value


def _remark(row: Row) -> str:
    named = ", ".join(text if len(text) <= WIDE else f"{text[: WIDE - 1]}…" for text in row.examples[:SHOWN])
    more = len(row.examples) - SHOWN
    return "; ".join(part for part in (row.note, named + (f" and {more:,} more" if more > 0 else "")) if part)


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    check, found, expected, remark = line
    return f"{check:<{widths[0]}}  {found:>{widths[1]}}  {expected:>{widths[2]}}  {remark}".rstrip()
