"""Tables 1 and 2 of the paper from our own runs, with Figure 2: `python test.py --table 1`, `--table 2`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vad.errors import InputError
from vad.figures_classes import draw_radar
from vad.method_table import method_table
from vad.numbers_table import numbers_table
from vad.results import (
    Result,
    by,
    by_modality,
    classes_of,
    count_of,
    mean_intervals,
    save_numbers,
    shared_protocol,
)
from vad.table import Table
from vad.tables import class_table

TABLES = (1, 2)


def report_table(
    number: int, results: Sequence[Result], folder: Path, remarks: Sequence[str] = ()
) -> tuple[list[Table], list[Path]]:
    """The table of this number, and the pictures that belong to it; both are written to `folder` too.

    remarks: what is missing beside these results. Raises InputError for results that do not make such a table.
    """
    for group in by(results, lambda r: f"{r.checkpoint.modality} {r.test.settings.profile.noise_model}").values():
        _check_alike(group)
    make = {1: _table1, 2: _table2}[number]
    tables, pictures = make(results, folder, remarks)
    for name, table in tables.items():
        table.save(folder / name)
    save_numbers(results, folder, f"table{number}_")  # Tables 1 and 2 may share a folder
    return list(tables.values()), pictures


def _table1(results: Sequence[Result], folder: Path, remarks: Sequence[str]) -> tuple[dict[str, Table], list[Path]]:
    """Gaussian and Student's t, as far as there are runs of either, beside every method; and what the paper omits."""
    single = next((r for r in results if r.checkpoint.modality != "fusion"), None)
    if single:
        raise InputError(
            f"{single.checkpoint.path} is a model of {single.checkpoint.modality} alone; Table 1 is of fused models "
            f"(--table 2 has the single streams)"
        )
    groups = by(results, lambda r: r.test.settings.profile.noise_model)
    ordered = {name: groups[name] for name in ("Gaussian", "StudentT") if name in groups}
    metrics = {name: [r.metrics for r in group] for name, group in ordered.items()}
    spread = {name: mean_intervals(group) for name, group in ordered.items()}
    protocol = shared_protocol(results, remarks=remarks)
    table = method_table(metrics, protocol, spread)
    return {"table1": table, "table1_numbers": numbers_table(metrics, spread, shared_protocol(results))}, []


def _table2(results: Sequence[Result], folder: Path, remarks: Sequence[str]) -> tuple[dict[str, Table], list[Path]]:
    """Class by class for each modality, mean over its runs, and the radar."""
    groups = by_modality(results)
    if len({r.test.settings.profile.noise_model for r in results}) > 1:
        raise InputError("Table 2 is of one noise model, these checkpoints are of two; name those of one")
    runs = count_of(groups)
    if runs is None:
        numbers = ", ".join(f"{modality} {len(group)}" for modality, group in groups.items())
        remarks = [*remarks, f"Runs behind each column: {numbers}."]
    protocol = shared_protocol(results, runs, remarks)
    classes, overall, spread = classes_of(groups)
    mean = f", mean of {runs} runs" if runs and runs > 1 else ""
    title = f"{protocol.dataset.title}, {protocol.videos} test videos{mean}"
    pictures = []
    if any(classes.values()):
        pictures = draw_radar(classes, folder / "figure2", metric=protocol.dataset.metric, title=title)
    return {"table2": class_table(classes, protocol, overall, spread)}, pictures


def _check_alike(group: Sequence[Result]) -> None:
    """InputError where runs that would become one mean differ in more than their seed, or one is named twice."""
    first, seen = group[0], {}
    for result in group:
        before = seen.setdefault((result.checkpoint.seed, result.checkpoint.weights), result)
        if before is not result and result.checkpoint.seed is not None:
            raise InputError(
                f"{before.checkpoint.path} and {result.checkpoint.path} are both the run of seed "
                f"{result.checkpoint.seed}; name each run once"
            )
        ours, theirs = _values(result), _values(first)
        odd = next((name for name in ours if ours[name] != theirs[name]), None)
        if odd:
            raise InputError(
                f"{first.checkpoint.path} has {odd} {theirs[odd]}, {result.checkpoint.path} {ours[odd]}: their mean "
                f"would be of neither; name runs that differ in their seed only"
            )


def _values(result: Result) -> dict[str, object]:
    settings = result.checkpoint.settings.as_dict()
    return {"weights": result.checkpoint.weights, **settings["switches"], **settings["recipe"]}
