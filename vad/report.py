"""Results of evaluations as tables, pictures and files in figure/<exp_name>/."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from vad.benchmark import TestSet
from vad.calibration import reliability
from vad.checkpoints import Checkpoint
from vad.figures_classes import draw_modalities, draw_radar
from vad.figures_curves import draw_curves
from vad.figures_probes import draw_probe_curves, draw_weight_change
from vad.figures_reliability import draw_reliability
from vad.files import write_json
from vad.method_table import method_table
from vad.metrics import samples
from vad.paper import PAPER
from vad.probes import Probes
from vad.results import (
    Result,
    about,
    by_modality,
    classes_of,
    count_of,
    mean_intervals,
    save_numbers,
    shared_protocol,
)
from vad.run_tables import compare_runs, numbers_table
from vad.table import Table, render_all
from vad.tables import class_table, probe_table, results_table
from vad.timelines import draw_timelines, telling_videos


def report_results(
    results: Sequence[Result], folder: Path, *, timelines: int, video_dir: Path | None
) -> tuple[list[Table], list[Path]]:
    """Tables to print and pictures drawn for one checkpoint, or for several compared.

    Every table is also saved in all its formats; snippet scores, metrics and settings as CSV and JSON.
    """
    groups = by_modality(results)
    tables = _tables(results, groups)
    for name, table in tables.items():
        table.save(folder / name)
    pictures = _pictures(results, groups, folder)
    first = _first(results)
    fps = first.test.settings.dataset.fps
    pictures += draw_timelines(telling_videos(first.videos, timelines), folder, video_dir=video_dir, fps=fps)
    save_numbers(results, folder)
    return list(tables.values()), pictures


def _tables(results: Sequence[Result], groups: Mapping[str, Sequence[Result]]) -> dict[str, Table]:
    first, metrics = _first(results), {modality: [r.metrics for r in group] for modality, group in groups.items()}
    pooled = [f"Runs of different {name} are averaged here." for name in _differing(results)]
    protocol = shared_protocol(results, count_of(groups), pooled)
    spread = {modality: mean_intervals(group) for modality, group in groups.items()}
    if len(results) == 1:
        modality = first.checkpoint.modality
        tables = {"results": results_table(first.metrics, protocol, modality=modality, intervals=spread[modality])}
        if protocol.dataset.name in PAPER["table1"]["metric"] and modality == "fusion":
            noise_model = protocol.noise_model
            tables["methods"] = method_table({noise_model: [first.metrics]}, protocol, {noise_model: spread[modality]})
    else:
        tables = {"results": compare_runs([(_varying(r), r.metrics) for r in results], shared_protocol(results))}
        tables["numbers"] = numbers_table(metrics, spread, protocol)
    classes, overall, deviation = classes_of(groups)
    return {**tables, "classes": class_table(classes, protocol, overall, deviation)}


def _pictures(results: Sequence[Result], groups: Mapping[str, Sequence[Result]], folder: Path) -> list[Path]:
    first, classes, pictures = _first(results), classes_of(groups)[0], []
    dataset = first.test.settings.dataset
    title = f"{dataset.title}, {len(first.videos)} test videos"
    if len(results) > 1:
        shown = {m: {k: [r.metrics[m] for r in g] for k, g in groups.items()} for m in ("AUC", "Ano-AUC", "AP")}
        pictures += draw_modalities(shown, folder / "modalities", title=title)
    if any(classes.values()):
        pictures += draw_radar(classes, folder / "classes", metric=dataset.metric, title=title)
    one_each = {modality: group[0].videos for modality, group in groups.items()}
    which = title + (", first run of each" if len(results) > len(one_each) else "")
    truth = np.concatenate([video.frame_labels for video in first.videos])
    if truth.any() and not truth.all():  # otherwise there is no curve to draw, and the table says why
        pictures += draw_curves(one_each, folder / "curves", title=which)
    curves = {modality: reliability(samples(videos)) for modality, videos in one_each.items()}
    return pictures + draw_reliability(curves, folder / "reliability", title=which)


def report_probes(probes: Probes, checkpoint: Checkpoint, test: TestSet, folder: Path, *, seed: int) -> tuple:
    """The table of the masking probes (Tables 6–9) and its pictures (Figure 3 among them)."""
    dataset, axis = test.settings.dataset, test.settings.profile.mask_axis
    protocol = test.protocol(checkpoint.weights, 1, tuple(f"{note}." for note in checkpoint.notes))
    table = probe_table(probes.table, protocol, axis=axis, seed=seed)
    what = {"feature": "feature dimensions", "time": "time steps"}[axis]
    title = f"{dataset.title}: a share of the {what} masked"
    pictures = [
        *draw_probe_curves(probes.table, folder / "probes", metric=dataset.metric, title=title),
        *draw_weight_change(probes.weight_change, folder / "weight_change", title=title),
    ]
    table.save(folder / "probes")
    note = {"checkpoint": about(checkpoint), "mask_seed": seed, "rows": probes.table.to_dict("records")}
    write_json(folder / "probes.json", note)
    return table, pictures


def show(tables: Sequence[Table], pictures: Sequence[Path], folder: Path, kind: str) -> None:
    """Print tables in a format of `vad.table.SUFFIXES`, and where the files are.

    A format for machines or papers has standard output to itself: what is no table goes to standard error.
    """
    print(render_all(tables, kind))
    names = ", ".join(path.name for path in pictures if path.suffix == ".png")
    print("\npictures and tables" + (f": {names}" if names else ""), f"in {folder}", sep="\n", file=aside(kind))


def aside(kind: str) -> TextIO:
    """Where what is no table is printed, see `show`."""
    return sys.stdout if kind == "text" else sys.stderr


def _first(results: Sequence[Result]) -> Result:
    """The result that stands for all where one is shown: a fused one before a single stream."""
    return next((r for r in results if r.checkpoint.modality == "fusion"), results[0])


def _differing(results: Sequence[Result]) -> list[str]:
    """Names of settings beside modality and seed in which these runs differ."""
    rows = [_varying(result) for result in results]
    return [name for name in rows[0] if name not in ("modality", "seed") and len({str(row[name]) for row in rows}) > 1]


def _varying(result: Result) -> dict[str, object]:
    """What tells runs apart: modality, seed, weights, profile and every switch and training value."""
    settings = result.checkpoint.settings.as_dict()
    return {
        "modality": result.checkpoint.modality,
        **({} if result.checkpoint.seed is None else {"seed": result.checkpoint.seed}),
        "weights": result.checkpoint.weights,
        "profile": settings["profile"],
        **settings["switches"],
        **settings["recipe"],
    }
