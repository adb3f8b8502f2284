"""Results of AVadCLIP: both branches, detection of class segments, and class maps of test videos (Tables I and III)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vad.avadclip.detection import IOUS, DetectionMAP, class_segments, detection_map
from vad.avadclip.method import multi_hot
from vad.evaluation import Protocol, Run, save_results, shared_protocol
from vad.files import InputError
from vad.metrics import ALIGNMENT
from vad.report.avadclip.figures import draw_class_map
from vad.report.table import NONE, SPREAD_NOTE, Table, marked, mean_cell, metric_label
from vad.report.timelines import select_videos, spans

PAPER = json.loads((Path(__file__).parent / "paper.json").read_text(encoding="utf-8"))
METRICS = ("AUC", "AP", *ALIGNMENT.values(), "Ano-AUC")
AVERAGE = "mean"  # over the thresholds


def report_avadclip(
    runs: Sequence[Run], folder: Path, groups: Mapping[str, Sequence[Run]]
) -> tuple[list[Table], list[Path]]:
    """Return tables and figures of checkpoints, and save them in `folder`. groups: runs that differ in the seed."""
    first = runs[0]
    if other := next((run for run in runs if run.model.config.classes != first.model.config.classes), None):
        raise InputError(f"{first.path} and {other.path} were trained for different classes. Test them separately.")
    protocol = shared_protocol(runs, len(next(iter(groups.values()))) if len(groups) == 1 else None)
    detections = {name: [detection(run) for run in group] for name, group in groups.items()}
    tables = [_results(groups, protocol), *_detection(detections, protocol, runs[0])]
    for name, table in zip(("results", "detection", "detection_classes"), tables, strict=True):
        table.save(folder / name)
    save_results(runs, folder)
    pictures, curves = [], {name: {v.name: v for v in group[0].videos} for name, group in groups.items()}
    for video in select_videos(runs[0].videos):
        path = folder / f"class_map_{video.name.replace('/', '_')}"
        scored = {name: videos[video.name] for name, videos in curves.items()}
        pictures += draw_class_map(scored, runs[0].model.config.classes, path, fps=runs[0].dataset.fps)
    return tables, pictures


def paper_rows(number: int, protocol: Protocol) -> Mapping[str, Any]:
    """Return method → numbers of Table I (AP) or III (mAP) of the paper, or nothing for another data set."""
    table = PAPER[f"table{number}"]
    return table["rows"] if table["dataset"] == protocol.dataset.name else {}


def detection(run: Run) -> DetectionMAP:
    """Return average precisions of the class segments of a run's test videos (avadclip: mAP@IoU)."""
    videos, dataset = run.videos, run.dataset
    labels = multi_hot([video.label for video in videos], dataset, run.model.config.classes)
    intervals = [spans(video.frame_labels) for video in videos]
    frames = [len(video.frame_labels) for video in videos]
    return detection_map([video.class_scores for video in videos], class_segments(labels, intervals, frames))


def _results(groups: Mapping[str, Sequence[Run]], protocol: Protocol) -> Table:
    """Return the table of both branches, a row per network."""
    rows = []
    for name, group in groups.items():
        cells = (marked(mean_cell([run.metrics[metric] for run in group]), protocol.mark) for metric in METRICS)
        rows.append([name, str(len(group)), *cells])
    for name, value in paper_rows(1, protocol).items():
        rows.append([f"{name}, paper", NONE, NONE, f"{value:.2f}", NONE, f"{value:.2f}", NONE])
    notes = ["AUC, AP, Ano-AUC: classification branch. Alignment branch: 1 − p(normal)."]
    if paper_rows(1, protocol):
        notes.append("The paper prints one AP and does not say of which branch, so it stands in both columns.")
    notes += [SPREAD_NOTE] if any(len(group) > 1 for group in groups.values()) else []
    notes += protocol.notes(beside_paper=False)
    columns = ["network", "runs", *map(metric_label, METRICS)]
    title = f"{protocol.dataset.title}: AVadCLIP, both branches"
    return Table(title, protocol.line(omit=("method", "runs")), pd.DataFrame(rows, columns=columns), tuple(notes))


def _detection(
    detections: Mapping[str, Sequence[DetectionMAP]], protocol: Protocol, run: Run
) -> list[Table]:
    """Return the table of mAP by IoU, with and without the normal class, and that of each class."""
    rows = []
    for name, results in detections.items():
        for label, normal in (("all classes", True), ("without normal", False)):
            means = np.stack([result.mean(normal=normal) for result in results])  # (runs, I)
            columns = [*means.T, means.mean(1)]
            rows.append([name, label, *(marked(mean_cell(list(values)), protocol.mark) for values in columns)])
    for name, values in paper_rows(3, protocol).items():
        rows.append([f"{name}, paper", "all classes", *(f"{value:.2f}" for value in values)])
    several = sum(len(run.dataset.class_names(video.label)) > 1 for video in run.videos)
    notes = ["mAP@IoU: proposals are frames above max − 0.6 (max − min) of a class in a video. All classes: with whole "
             "normal videos as segments, as released. A class without any proposal makes it 0."]  # fmt: skip
    if several:
        notes.append(f"{several} videos have several classes. Each of their intervals counts for each class, because "
                     f"the annotations do not say which it shows.")  # fmt: skip
    heads = ["network", "mean over", *(f"mAP@{iou:g} (%)" for iou in IOUS), AVERAGE]
    header, title = protocol.line(omit=("method", "ano_auc", "AP")), protocol.dataset.title
    table = Table(f"{title}: detection of class segments", header, pd.DataFrame(rows, columns=heads), tuple(notes))
    by_class = []
    for k, name in enumerate(run.model.config.classes):
        cells = [mean_cell([result.ap[k].mean() for result in results]) for results in detections.values()]
        by_class.append([name, *(marked(cell, protocol.mark) for cell in cells)])
    frame = pd.DataFrame(by_class, columns=["class", *(f"{name} (%)" for name in detections)])
    text = f"{title}: AP of each class, mean over IoU {IOUS[0]:g} – {IOUS[-1]:g}"
    return [table, Table(text, header, frame, ())]
