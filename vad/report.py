"""Results of evaluations as tables, pictures and files in figure/<exp_name>/."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from vad.benchmark import Checkpoint, TestSet
from vad.catalog import SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.figures_classes import draw_modalities, draw_radar
from vad.figures_curves import draw_curves
from vad.figures_probes import draw_probe_curves, draw_weight_change
from vad.figures_timeline import draw_timeline, intervals
from vad.files import write_json, write_whole
from vad.metrics import evaluate, per_class
from vad.paper import PAPER
from vad.probes import Probes
from vad.run_tables import compare_runs
from vad.scoring import ScoredVideo
from vad.table import Table
from vad.tables import class_table, method_table, probe_table, results_table

THUMBNAILS = 8


@dataclass(frozen=True)
class Result:
    """One checkpoint, its test set, and what it said about every video."""

    checkpoint: Checkpoint
    test: TestSet
    videos: list[ScoredVideo]

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of the evaluation, as fractions."""
        return evaluate(self.videos, self.test.settings.dataset, ano_auc=self.test.settings.profile.ano_auc)

    @property
    def classes(self) -> dict[str, float]:
        """The number of each class."""
        return per_class(self.videos, self.test.settings.dataset)


def report_results(
    results: Sequence[Result], folder: Path, *, timelines: int, video_dir: Path | None
) -> tuple[list[Table], list[Path]]:
    """Tables to print and pictures drawn for one checkpoint, or for several compared.

    Every table is also saved as text, Markdown and CSV; snippet scores, metrics and settings as CSV and JSON.
    """
    first = next((r for r in results if r.checkpoint.modality == "fusion"), results[0])
    dataset, protocol = first.test.settings.dataset, first.test.protocol(first.checkpoint.weights)
    by_modality = _by_modality(results)
    classes = {modality: _mean([r.classes for r in group]) for modality, group in by_modality.items()}
    overall = {modality: _mean([r.metrics for r in group]) for modality, group in by_modality.items()}
    if len(results) == 1:
        tables = [results_table(first.metrics, protocol, modality=first.checkpoint.modality)]
        if dataset.name in PAPER["table1"]["metric"] and first.checkpoint.modality == "fusion":
            tables.append(method_table(first.metrics, protocol))
    else:
        tables = [compare_runs([(_varying(r), r.metrics) for r in results], protocol)]
    tables.append(class_table(classes, protocol, overall))
    pictures = []
    title = f"{dataset.title}, {len(first.videos)} test videos"
    if len(results) > 1:
        shown = {m: {k: [r.metrics[m] for r in g] for k, g in by_modality.items()} for m in ("AUC", "Ano-AUC", "AP")}
        pictures += draw_modalities(shown, folder / "modalities", title=title)
    if any(classes.values()):
        pictures += draw_radar(classes, folder / "classes", metric=dataset.metric, title=title)
    one_each = {modality: group[0].videos for modality, group in by_modality.items()}
    truth = np.concatenate([video.frame_labels for video in first.videos])
    if truth.any() and not truth.all():  # otherwise there is no curve to draw, and the table says why
        which = title + (", first run of each" if len(results) > len(one_each) else "")
        pictures += draw_curves(one_each, folder / "curves", title=which)
    pictures += _draw_timelines(first, folder, timelines, video_dir)
    for name, table in zip(("results", *(["methods"] if len(tables) == 3 else []), "classes"), tables, strict=True):
        table.save(folder / name)
    _save_numbers(results, folder)
    return tables, pictures


def report_own_videos(videos: Sequence[ScoredVideo], files: Sequence[Path], folder: Path, threshold: float) -> Table:
    """One's own videos: where the score is above the threshold, in seconds; a timeline of each is drawn in `folder`."""
    rows = []
    for video, path in zip(videos, files, strict=True):
        thumbnails, fps = _thumbnails(path, len(video.frame_labels))
        draw_timeline(video, folder / f"timeline_{video.name}", fps=fps, thumbnails=thumbnails)
        above = intervals(video.scores > threshold)
        seconds = SNIPPET_FRAMES / fps if fps else SNIPPET_FRAMES
        spans = ", ".join(f"{s * seconds:.1f} – {e * seconds:.1f}" for s, e in above) or "none"
        rows.append((video.name, str(len(video.scores)), f"{video.scores.max():.3f}", spans))
    columns = ("video", "snippets", "highest score", f"{'seconds' if fps else 'frames'} above {threshold:g}")
    protocol = "no truth is known for these videos · scores of untuned thresholds are relative: look at the timelines"
    table = Table("Own videos", protocol, columns, tuple(rows))
    table.save(folder / "videos")
    return table


def report_probes(probes: Probes, checkpoint: Checkpoint, test: TestSet, folder: Path, *, seed: int) -> tuple:
    """The table of the masking probes (Tables 6–9) and its pictures (Figure 3 among them)."""
    dataset, axis = test.settings.dataset, test.settings.profile.mask_axis
    table = probe_table(probes.table, test.protocol(checkpoint.weights), axis=axis, seed=seed)
    what = {"feature": "feature dimensions", "time": "time steps"}[axis]
    title = f"{dataset.title}: a share of the {what} masked"
    pictures = [
        *draw_probe_curves(probes.table, folder / "probes", metric=dataset.metric, title=title),
        *draw_weight_change(probes.weight_change, folder / "weight_change", title=title),
    ]
    table.save(folder / "probes")
    note = {"checkpoint": _about(checkpoint), "mask_seed": seed, "rows": probes.table.to_dict("records")}
    write_json(folder / "probes.json", note)
    return table, pictures


def _by_modality(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.checkpoint.modality, []).append(result)
    return groups


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


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _draw_timelines(result: Result, folder: Path, count: int, video_dir: Path | None) -> list[Path]:
    """The anomalous videos with most anomalous frames, one of each label before a second of any."""
    anomalous = [v for v in result.videos if v.frame_labels.any()]
    anomalous.sort(key=lambda v: -int(v.frame_labels.sum()))
    turn = {v.name: sum(w.label == v.label for w in anomalous[:k]) for k, v in enumerate(anomalous)}
    chosen = sorted(anomalous, key=lambda v: turn[v.name])[:count]
    pictures, known_fps = [], result.test.settings.dataset.fps
    for video in tqdm(chosen, desc="timelines", unit="video", leave=False):
        thumbnails, fps = _thumbnails(_find_video(video.name, video_dir), len(video.frame_labels))
        path = folder / f"timeline_{video.name.replace('/', '_')}"
        pictures += draw_timeline(video, path, fps=fps or known_fps, thumbnails=thumbnails)
    return pictures


def _find_video(name: str, video_dir: Path | None) -> Path | None:
    if video_dir is None:
        return None
    files = (path for path in sorted(video_dir.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    return next((path for path in files if path.stem == name), None)


def _thumbnails(path: Path | None, frames: int) -> tuple[list[np.ndarray] | None, float | None]:
    """RGB frames from the middle of equal stretches of a video, and its frames a second; None without the video."""
    capture = cv2.VideoCapture(str(path)) if path else None
    if capture is None or not capture.isOpened():
        return None, None
    wanted = {int((k + 0.5) * frames / THUMBNAILS) for k in range(THUMBNAILS)}
    found = []
    for index in range(max(wanted) + 1):
        if not capture.grab():
            break
        if index in wanted:
            found.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return found if len(found) == len(wanted) else None, fps or None


def _save_numbers(results: Sequence[Result], folder: Path) -> None:
    """scores.csv: a row per checkpoint, video and snippet. results.json: metrics and settings of each checkpoint."""
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
    write_whole(folder / "scores.csv", stream.getvalue().encode())
    runs = [{**_about(r.checkpoint), "metrics": r.metrics, "classes": r.classes} for r in results]
    write_json(folder / "results.json", {"runs": runs})


def _about(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "checkpoint": checkpoint.path.name,
        "sha256": hashlib.sha256(checkpoint.path.read_bytes()).hexdigest(),
        "modality": checkpoint.modality,
        "seed": checkpoint.seed,
        "weights": checkpoint.weights,
        "settings": checkpoint.settings.as_dict(),
    }
