"""Baselines beside every result: video labels, event counts, and a supervised classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from vad.data import TestVideo, Video, find_videos, load_embedding, read_list
from vad.datasets import EVENT_MAPS, SNIPPET_FRAMES
from vad.evaluation import Protocol, TestSet, preparation_commands
from vad.files import InputError
from vad.metrics import VIDEO_MEANS, average_precision, in_ano_auc, roc_auc, samples
from vad.options import MODALITIES
from vad.report.table import NAN, SPREAD_NOTE, Table, marked, mean_cell, metric_label
from vad.scoring import ScoredVideo

METRICS = tuple(VIDEO_MEANS)  # those for which baselines are computed
CELL = (16, 20)  # pixels of a cell of an event map (256, 340): 16 × 17 cells
LABELS, SUM, LARGEST = "label of the video", "events in the frame", f"events in the fullest {CELL[0]} × {CELL[1]} cell"
SUPERVISED = "logistic regression on snippet labels"
DEFINITIONS = {
    LABELS: "1 for every snippet of an abnormal video, 0 for the others: what telling videos apart alone gives.",
    SUM: "number of events of a snippet, without training.",
    LARGEST: "the same in the cell with the most events.",
    SUPERVISED: "trained with the anomalous frames of the training videos, which the method does not see.",
}


def baseline_table(tests: Sequence[TestSet], protocol: Protocol, runs: pd.DataFrame | None = None) -> Table:
    """Return the baselines on these test sets, below the trained models.

    Several test sets, such as those of random splits, become mean ± std. runs: see `runs_frame`; adds a row for
    each modality, and one with each score replaced by the mean score of its video.
    """
    # without a split per run, all test sets have the same videos
    tests = list({test.split if protocol.dataset.split_per_run else "": test for test in tests}.values())
    frames = {name: pd.DataFrame(rows) for name, rows in _by_baseline(tests).items()}
    rows, missing = [], []
    for modality in MODALITIES if runs is not None else ():
        group = runs[runs.modality == modality]
        if len(group):
            rows.append([modality, *(marked(mean_cell(group[m]), protocol.mark) for m in METRICS)])
            if VIDEO_MEANS["AUC"] in group:
                means = (marked(mean_cell(group[VIDEO_MEANS[m]]), protocol.mark) for m in METRICS)
                rows.append([f"  {modality}, mean of each video", *means])
        elif modality in ("image", "event"):
            missing.append(modality)
    rows += [[name, *(mean_cell(frame[m]) for m in METRICS)] for name, frame in frames.items()]
    notes = [f"{name}: {text}" for name, text in DEFINITIONS.items()]
    dataset = protocol.dataset
    if frames[SUM].isna().to_numpy().any():
        save = "" if dataset.synthetic else " --save_events"  # the demo's command always saves them
        commands = preparation_commands(dataset).split(";")[0] + save
        notes.append(f"{NAN}, events: there are no event maps. Make them: {commands}")
    if frames[SUPERVISED].isna().to_numpy().any():
        notes.append(f"{NAN}, {SUPERVISED}: the training videos or their anomalous frames are missing.")
    for modality in missing:
        notes.append(f"The single stream {modality} is missing: python main.py --dataset {dataset.flag_value} "
                     f"--modality {modality}")  # fmt: skip
    notes += [SPREAD_NOTE] if len(tests) > 1 or (runs is not None and len(runs) > 1) else []
    table = pd.DataFrame(rows, columns=["score", *map(metric_label, METRICS)])
    header = protocol.line(omit=("profile", "noise_model", "tail"))
    return Table(f"{dataset.title}: baselines", header, table, tuple(notes))


def _by_baseline(tests: Sequence[TestSet]) -> dict[str, list[dict[str, float]]]:
    """Return baseline → its metrics on each test set."""
    results = [baselines(test) for test in tests]
    return {name: [result[name] for result in results] for name in results[0]}


def baselines(test: TestSet) -> dict[str, dict[str, float]]:
    """Return baseline → AUC, AP and Ano-AUC as fractions, NaN where a baseline is not available.

    `LABELS`: each snippet has its video's label, 1 or 0, as if a model only told videos apart.
    `SUM`, `LARGEST`: untrained numbers of events, see `event_counts`.
    `SUPERVISED`: see `supervised`.
    """
    scores = {LABELS: [np.full(v.snippets, test.dataset.is_anomalous(v.label), np.float32) for v in test.videos]}
    counts = event_counts(test.videos)
    scores |= {SUM: [c[0] for c in counts], LARGEST: [c[1] for c in counts]} if counts else {}
    trained = supervised(test)
    scores |= {SUPERVISED: trained} if trained else {}
    undefined = dict.fromkeys(METRICS, math.nan)
    return {
        name: measure(test, scores[name]) if name in scores else undefined
        for name in (LABELS, SUM, LARGEST, SUPERVISED)
    }


def measure(test: TestSet, scores: Sequence[np.ndarray]) -> dict[str, float]:
    """Return AUC, AP and Ano-AUC of snippet scores (S,) of each test video."""
    videos = []
    for video, values in zip(test.videos, scores, strict=True):
        values = values[: len(video.frame_labels) // SNIPPET_FRAMES].astype(np.float32)
        videos.append(ScoredVideo(video.name, video.label, values, {}, {}, video.frame_labels))
    data = samples(videos)
    abnormal = samples(v for v in videos if in_ano_auc(v.label, test.dataset, test.options.ano_auc))
    return {"AUC": roc_auc(data), "AP": average_precision(data), "Ano-AUC": roc_auc(abnormal)}


def event_counts(videos: Sequence[TestVideo]) -> list[np.ndarray]:
    """Return sum and largest cell of each event map of each video, (2, S), or [] if a video has no maps.

    The maps are those of --save_events: events of the whole frame, before clamp and crop.
    Raises InputError for a damaged file, or one whose number of snippets is not the embedding's.
    """
    files = [maps_file(video.crops[0]) for video in videos]
    if not all(file is not None and file.is_file() for file in files):
        return []
    return [
        _count(file, video.snippets)
        for file, video in zip(tqdm(files, desc="counting events", unit="video", leave=False), videos, strict=True)
    ]


def maps_file(video: Video) -> Path | None:
    """Return the file of a video's event maps, beside its event embedding; None without that stream."""
    path = video.streams.get("event")
    return None if path is None else path.with_name(f"{path.name.rpartition('__')[0]}{EVENT_MAPS}")


def _count(file: Path, snippets: int) -> np.ndarray:
    try:
        with np.load(file) as content:
            maps = content["counts"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{file}: no readable event maps ({error}). Extract them again with --save_events.") from None
    if len(maps) != snippets:
        raise InputError(f"{file} has {len(maps)} event maps, but the embedding has {snippets} snippets. Extract both "
                         f"again with --save_events.")  # fmt: skip
    height, width = CELL
    cells = maps.reshape(snippets, maps.shape[1] // height, height, maps.shape[2] // width, width)
    cells = cells.sum((2, 4), dtype=np.int64)
    return np.stack([cells.sum((1, 2)), cells.max((1, 2))])


def supervised(test: TestSet) -> list[np.ndarray]:
    """Return scores (S,) of each test video by a classifier that saw snippet labels, or [] without them.

    It is a logistic regression on the standardised embeddings of a snippet's streams. It was trained on
    the training videos of the list, with the anomalous frames of annotations.csv.
    """
    dataset = test.dataset
    if not (test.train_list.is_file() and dataset.annotation_path.is_file()):
        return []
    try:  # an evaluation must not need the training videos
        rows = [row for row in read_list(test.train_list, dataset) if row.crop == test.options.test_crops[0]]
        known = [dataset.find(row.video) for row in rows]
        annotated = (v and (any(v.intervals.values()) or not dataset.is_anomalous(v.label)) for v in known)
        if not rows or not all(annotated):
            return []
        videos, _ = find_videos(rows, dataset, test.feature_root, test.options.modality)
    except InputError:
        return []
    x = np.concatenate([_embed(video, test.options.nan) for video in videos])
    y = np.concatenate([_snippet_labels(test, video) for video in videos])
    if y.all() or not y.any():
        return []
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x, y)
    return [model.predict_proba(_embed(video.crops[0], test.options.nan))[:, 1] for video in test.videos]


def _embed(video: Video, nan: str) -> np.ndarray:
    """Return the embeddings of all streams side by side, (S, 2 D) for two."""
    return np.concatenate([load_embedding(path, nan) for path in video.streams.values()], 1)


def _snippet_labels(test: TestSet, video: Video) -> np.ndarray:
    split = test.split or test.dataset.splits[0]
    labels = test.dataset.frame_labels(video.name, SNIPPET_FRAMES * video.snippets, split)
    return labels.reshape(-1, SNIPPET_FRAMES).mean(1) >= 0.5
