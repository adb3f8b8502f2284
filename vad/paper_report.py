"""Tables 1 and 2 of the paper from our own runs, with Figure 2: `python test.py --table 1`, `--table 2`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vad.checkpoints import Checkpoint
from vad.errors import InputError
from vad.figures_classes import draw_radar
from vad.method_table import method_table
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
from vad.run_tables import numbers_table
from vad.table import Table
from vad.tables import class_table


def report_table(
    number: int, results: Sequence[Result], folder: Path, remarks: Sequence[str] = ()
) -> tuple[list[Table], list[Path]]:
    """The table of this number, and the pictures that belong to it; both are written to `folder` too.

    remarks: what is missing beside these results.
    """
    make = {1: _table1, 2: _table2}[number]
    tables, pictures = make(results, folder, remarks)
    for name, table in tables.items():
        table.save(folder / name)
    save_numbers(results, folder, f"table{number}_")  # Tables 1 and 2 may share a folder
    return list(tables.values()), pictures


def _table1(results: Sequence[Result], folder: Path, remarks: Sequence[str]) -> tuple[dict[str, Table], list[Path]]:
    """Gaussian and Student's t, as far as there are runs of either, beside every method; and what the paper omits."""
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


def check_runs(number: int | None, checkpoints: Sequence[Checkpoint]) -> None:
    """InputError, before anything is scored, where these checkpoints do not make the table of this number.

    They do not where one run is named twice, where runs that would become one mean differ in more than their seed,
    where Table 1 would be of single streams, or Table 2 of two noise models. None: no table of the paper, in which
    runs may differ.
    """
    _check_once(checkpoints)
    if number is None:
        return
    single = next((c for c in checkpoints if c.modality != "fusion"), None)
    if number == 1 and single:
        raise InputError(
            f"{single.path} is a model of {single.modality} alone; Table 1 is of fused models (--table 2 has the "
            f"single streams)"
        )
    if number == 2 and len({c.settings.profile.noise_model for c in checkpoints}) > 1:
        raise InputError("Table 2 is of one noise model, these checkpoints are of two; name those of one")
    groups: dict[tuple[str, str], list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        groups.setdefault((checkpoint.modality, checkpoint.settings.profile.noise_model), []).append(checkpoint)
    for group in groups.values():
        _check_alike(group)


def _check_once(checkpoints: Sequence[Checkpoint]) -> None:
    seen = {}
    for checkpoint in checkpoints:
        # a released checkpoint does not say its seed: two files are then two runs
        run = checkpoint.path.resolve() if checkpoint.seed is None else checkpoint.seed
        key = checkpoint.modality, run, checkpoint.settings.profile.name, str(_values(checkpoint))
        before = seen.setdefault(key, checkpoint)
        if before is not checkpoint:
            what = "one file" if checkpoint.seed is None else f"the run of seed {checkpoint.seed}"
            raise InputError(f"{before.path} and {checkpoint.path} are both {what}; name each run once")


def _check_alike(group: Sequence[Checkpoint]) -> None:
    first = group[0]
    for checkpoint in group:
        ours, theirs = _values(checkpoint), _values(first)
        odd = next((name for name in ours if ours[name] != theirs[name]), None)
        if odd:
            raise InputError(
                f"{first.path} has {odd} {theirs[odd]}, {checkpoint.path} {ours[odd]}: their mean would be of neither; "
                f"name runs that differ in their seed only"
            )


def _values(checkpoint: Checkpoint) -> dict[str, object]:
    settings = checkpoint.settings.as_dict()
    return {"weights": checkpoint.weights, **settings["switches"], **settings["recipe"]}
