"""What evaluations found: every number of every checkpoint, grouped, averaged over runs, written to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vad.benchmark import TestSet
from vad.bootstrap import intervals, resample
from vad.calibration import calibration_error
from vad.catalog import SNIPPET_FRAMES
from vad.checkpoints import Checkpoint
from vad.data import MODALITIES
from vad.files import sha256, write_json, write_whole
from vad.metrics import evaluate, per_class, samples, video_aucs, video_spread
from vad.protocol import SELECTED, Protocol
from vad.scoring import ScoredVideo


@dataclass(frozen=True)
class Result:
    """One checkpoint, its test set, and what it said about every video."""

    checkpoint: Checkpoint
    test: TestSet
    videos: list[ScoredVideo]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every number of the evaluation, as fractions: the paper's, calibration, spread over videos, weights."""
        settings = self.test.settings
        found = evaluate(self.videos, settings.dataset, ano_auc=settings.profile.ano_auc)
        more = {"ECE": calibration_error(samples(self.videos)), **video_spread(self.videos)}
        weights = {name: found.pop(name) for name in list(found) if name.startswith("w_")}
        return {**found, **more, **weights}

    @cached_property
    def classes(self) -> dict[str, float]:
        """The number of each class."""
        return per_class(self.videos, self.test.settings.dataset)

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """The main numbers of every bootstrap resample."""
        settings = self.test.settings
        return resample(self.videos, settings.dataset, ano_auc=settings.profile.ano_auc)


def by(results: Sequence[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    """Results gathered by a key, in the order in which the keys appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def by_modality(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of each modality, image before event before fusion."""
    groups = by(results, lambda result: result.checkpoint.modality)
    return {modality: groups[modality] for modality in MODALITIES if modality in groups}


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every number over runs; NaN where one run has none."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def std_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Standard deviation (n − 1) of every number over runs; empty for one run, which has none."""
    return {name: float(np.std([row[name] for row in rows], ddof=1)) for name in rows[0]} if len(rows) > 1 else {}


def classes_of(groups: Mapping[str, Sequence[Result]]) -> tuple[dict, dict, dict]:
    """For `vad.tables.class_table`: numbers of the classes, of all videos, and the spread of both, by modality."""
    classes = {modality: mean_of([r.classes for r in group]) for modality, group in groups.items()}
    overall = {modality: mean_of([r.metrics for r in group]) for modality, group in groups.items()}
    spread = {modality: std_of([{**r.metrics, **r.classes} for r in group]) for modality, group in groups.items()}
    return classes, overall, spread


def count_of(groups: Mapping[str, Sequence[Result]]) -> int | None:
    """How many runs each group has; None where they are not equally many."""
    counts = {len(group) for group in groups.values()}
    return counts.pop() if len(counts) == 1 else None


def mean_intervals(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """Intervals over videos of the mean over runs: every run is resampled with the same videos."""
    rows = [result.resampled for result in results]
    return intervals({name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]})


def shared_protocol(results: Sequence[Result], runs: int | None = None, remarks: Sequence[str] = ()) -> Protocol:
    """The protocol of a table in which all these results stand, with what was noted when they were opened."""
    kinds = {result.checkpoint.weights for result in results}
    several = "mixed" if kinds & set(SELECTED) else "several"
    noted = dict.fromkeys(f"{note}." for result in results for note in result.checkpoint.notes)
    return results[0].test.protocol(kinds.pop() if len(kinds) == 1 else several, runs, (*noted, *remarks))


def save_numbers(results: Sequence[Result], folder: Path, prefix: str = "") -> None:
    """scores.csv: a row per checkpoint, video and snippet. results.json: metrics and settings of each checkpoint.

    prefix: in front of both names.
    """
    rows = [
        pd.DataFrame({
            "checkpoint": result.checkpoint.path.stem,
            "video": video.name,
            "label": video.label,
            "first_frame": SNIPPET_FRAMES * np.arange(len(video.scores)),
            "score": video.scores,
            "weight_image": video.weight_image,
            "weight_event": video.weight_event,
            "anomalous_frames": video.frame_labels.reshape(-1, SNIPPET_FRAMES).sum(1),
        })
        for result in results
        for video in result.videos
    ]
    stream = io.StringIO()
    pd.concat(rows).to_csv(stream, index=False, float_format="%.6g")
    write_whole(folder / f"{prefix}scores.csv", stream.getvalue().encode())
    runs = [
        {
            **about(r.checkpoint),
            "metrics": _json(r.metrics),
            "classes": _json(r.classes),
            "intervals_95": intervals(r.resampled),
            "video_auc": video_aucs(r.videos),
        }
        for r in results
    ]
    write_json(folder / f"{prefix}results.json", {"runs": runs})


def _json(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a number that is not defined is null."""
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}


def about(checkpoint: Checkpoint) -> dict[str, object]:
    """What a file of results says about the checkpoint behind it."""
    return {
        "checkpoint": checkpoint.path.name,
        "sha256": sha256(checkpoint.path),
        "modality": checkpoint.modality,
        "seed": checkpoint.seed,
        "weights": checkpoint.weights,
        "settings": checkpoint.settings.as_dict(),
    }
