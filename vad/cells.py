"""How a number, its spread and its distance from a printed one become the text of a cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from vad.metrics import PERCENT, UNDEFINED
from vad.table import NAN, NONE

SPREAD_NOTE = "±: standard deviation over runs (n − 1)."


def metric_label(name: str) -> str:
    """A metric's or column's name as the tables print it."""
    if name in PERCENT:
        return f"{name} (%)"
    base, _, part = name.replace("w_image", "ŵ_i ").replace("w_event", "ŵ_e ").partition(" _")
    return f"{base}, {part} frames" if part else {"brier": "Brier", "kl": "KL"}.get(name, base.strip())


def value_cell(name: str, value: float) -> str:
    """A number of ours, given as a fraction: percent with two digits, or four digits for what is no percentage."""
    if math.isnan(value):
        return NAN
    return f"{100 * value:.2f}" if name in PERCENT else f"{value:.4f}"


def interval_cell(name: str, bounds: tuple[float, float] | None) -> str:
    """An interval of fractions as [low, high], in the unit of `value_cell`."""
    return NONE if bounds is None else f"[{', '.join(value_cell(name, bound) for bound in bounds)}]"


def paper_cell(name: str, printed: float) -> str:
    """A number of the paper, given as printed there, with the digits of `value_cell`."""
    return f"{printed:.2f}" if name in PERCENT else f"{printed:.4f}"


def difference_cell(name: str, value: float, printed: float | None) -> str:
    """Ours minus the paper's, in the unit both are printed in."""
    if printed is None or math.isnan(value):
        return NONE
    digits = 2 if name in PERCENT else 4
    # + 0.0 turns a rounded −0 into 0
    return f"{round(value * (100 if name in PERCENT else 1) - printed, digits) + 0.0:+.{digits}f}"


def spread_cell(mean: float | None, std: float | None) -> str:
    """mean ± std with two digits; the mean alone where there is no spread."""
    return NONE if mean is None else f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def mean_cell(values: Iterable[float]) -> str:
    """Mean of fractions in percent, ± the sample standard deviation where there is more than one run."""
    percent = [100 * value for value in values]
    if any(map(math.isnan, percent)):
        return NAN
    return spread_cell(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


def marked(cell: str, mark: str) -> str:
    """A cell with a mark beside its number; a cell without a number has none."""
    return cell if cell in (NAN, NONE) else cell + mark


def undefined_notes(metrics: Mapping[str, float]) -> list[str]:
    """Why each undefined number is undefined."""
    reasons = [UNDEFINED[name] for name, value in metrics.items() if math.isnan(value) and name in UNDEFINED]
    return [f"{NAN}: {reason}." for reason in dict.fromkeys(reasons)]
