"""Timelines of test videos (Appendix I): frames, anomaly score, ground truth and fusion weights."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from vad.datasets import FRAME_SUFFIXES, SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.evaluation import Run, TestSet, shared_protocol
from vad.files import InputError
from vad.localisation import runs
from vad.metrics import roc_auc, samples
from vad.options import parse_modality
from vad.report import plots
from vad.report.table import NONE, Table, value_cell
from vad.scoring import ScoredVideo

THUMBNAILS = 8  # frames shown above a timeline
SELECTED = 6  # videos drawn if none is named


# choice of videos


def only_named(test: TestSet, names: Sequence[str]) -> TestSet:
    """Return the test set reduced to the named videos, in the order of the names, or unchanged without names.

    Raises InputError for an unknown name and suggests similar names.
    """
    key, titles = test.dataset.key, [video.name for video in test.videos]
    by_key = dict(zip(map(key, titles), test.videos, strict=True))
    for name in names:
        if key(name) not in by_key:
            near = difflib.get_close_matches(name, titles, n=3, cutoff=0.5)
            hint = f"Similar names: {', '.join(near)}." if near else f"The first is {titles[0]}."
            raise InputError(f"--timeline {name}: {test.dataset.title} has no test video of this name. {hint}")
    return replace(test, videos=[by_key[name] for name in dict.fromkeys(map(key, names))]) if names else test


def select_videos(videos: Sequence[ScoredVideo], count: int = SELECTED) -> list[ScoredVideo]:
    """Return the videos with the most anomalous frames, one of each label before a second of any label."""
    anomalous = [video for video in videos if video.frame_labels.any()]
    anomalous.sort(key=lambda video: -int(video.frame_labels.sum()))
    labels = [video.label for video in anomalous]
    turns = [labels[:k].count(label) for k, label in enumerate(labels)]
    return [anomalous[k] for k in np.argsort(turns, kind="stable")[:count]]


# figures


@plots.styled
def draw_timeline(
    video: ScoredVideo, path: Path, *, fps: float | None = None, thumbnails: Sequence[np.ndarray] = (),
    threshold: float | None = None,
) -> list[Path]:  # fmt: skip
    """Draw anomaly score, ground truth and fusion weights of one video (Appendix I) as <path>.png and .pdf.

    fps: frames per second; the time axis is in seconds, or in frames without it.
    thumbnails: evenly spaced RGB frames (H, W, 3), shown above the score. threshold: drawn as a dotted line.
    """
    scale = 1 / fps if fps else 1.0
    edges = np.arange(len(video.scores) + 1) * SNIPPET_FRAMES * scale
    heights = [1.3, 1.0]
    if len(thumbnails):  # the row height keeps the aspect ratio of the frames
        height, width = thumbnails[0].shape[:2]
        heights.insert(0, 0.85 * plots.PAGE / len(thumbnails) * height / width)
    fig = Figure(figsize=(plots.PAGE, sum(heights) + 0.9), layout="constrained")
    axes = fig.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    title = f"{video.name} ({video.label})" if video.label else video.name
    fig.suptitle(title, fontsize=9, parse_math=False)  # a name may contain $
    if len(thumbnails):
        _draw_thumbnails(axes[0], thumbnails, edges[-1])
    score, weights = axes[-2:]
    for start, end in spans(video.frame_labels):
        for ax in (score, weights):
            ax.axvspan(start * scale, end * scale, color=plots.GROUND_TRUTH, alpha=0.55, lw=0)
        score.patches[0].set_label("ground truth")
    modality = parse_modality("+".join(video.weights))
    score.stairs(video.scores, edges, baseline=None, color=plots.COLOUR[modality], lw=1.4, label="anomaly score")
    if threshold is not None:
        score.axhline(threshold, color="0.4", ls=":", lw=1, label="threshold")
    score.set(ylim=(-0.03, 1.03), ylabel="anomaly score")
    _draw_weights(weights, video.weights, edges)
    weights.set(xlim=(0, edges[-1]), xlabel="time (s)" if fps else "frame")
    for ax in (score, weights):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    fig.align_ylabels([score, weights])
    return plots.save(fig, path)


def _draw_weights(ax: Axes, weights: Mapping[str, np.ndarray], edges: np.ndarray) -> None:
    for stream, values in weights.items():
        label = rf"$\hat{{w}}_{stream[0]}$ ({stream})"
        ax.stairs(values, edges, baseline=None, lw=1.3, label=label, **plots.line_style(stream))
    if any(np.isnan(values).all() for values in weights.values()):
        ax.text(0.5, 0.5, "this fusion has no weights", ha="center", va="center", transform=ax.transAxes)
    # the weights lie around 1/K; a minimum range keeps tiny changes looking tiny
    middle = 1 / len(weights)
    reach = max(0.01, *(1.15 * float(np.abs(values - middle).max()) for values in weights.values()))
    ax.set(ylim=(middle - reach, middle + reach), ylabel="fusion weight")


def _draw_thumbnails(ax: Axes, thumbnails: Sequence[np.ndarray], end: float) -> None:
    """Draw the thumbnails side by side, each above the part of the video it comes from."""
    width = end / len(thumbnails)
    for number, picture in enumerate(thumbnails):
        ax.imshow(picture, extent=(number * width, (number + 0.97) * width, 0, 1), aspect="auto")
    ax.set(xlim=(0, end), ylim=(0, 1), yticks=[])
    ax.tick_params(bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def draw_timelines(
    videos: Sequence[ScoredVideo], folder: Path, video_dir: Path | None, fps: float | None
) -> list[Path]:
    """Draw timeline_<video>.png and .pdf of each video, with frames if `video_dir` contains the video.

    fps: frames per second of videos without a file.
    """
    files: dict[str, Path] = {}  # the first video file, or folder of frames, of each name
    for root, _, names in sorted(os.walk(video_dir, followlinks=True)) if video_dir else ():
        files.setdefault(Path(root).name, Path(root))
        files |= {Path(n).stem: Path(root, n) for n in sorted(names) if Path(n).suffix.lower() in VIDEO_SUFFIXES}
    pictures = []
    for video in tqdm(videos, desc="timelines", unit="video", leave=False):
        thumbnails, own_fps = read_thumbnails(files.get(video.name), len(video.frame_labels))
        path = folder / f"timeline_{video.name.replace('/', '_')}"
        pictures += draw_timeline(video, path, fps=own_fps or fps, thumbnails=thumbnails)
    return pictures


def read_thumbnails(path: Path | None, frames: int) -> tuple[list[np.ndarray], float | None]:
    """Return RGB frames from the middle of equal parts of a video or folder of frames, and its frame rate.

    The list is empty if the file is missing or too short. The rate is None if the file does not give it.
    """
    if path and path.is_dir():
        return _folder_thumbnails(path, frames), None
    capture = cv2.VideoCapture(str(path)) if path else None
    if capture is None or not capture.isOpened():
        return [], None
    indices = {int((k + 0.5) * frames / THUMBNAILS) for k in range(THUMBNAILS)}
    thumbnails = []
    for index in range(max(indices) + 1):
        if not capture.grab():
            break
        if index in indices:
            thumbnails.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return thumbnails if len(thumbnails) == len(indices) else [], fps or None


def _folder_thumbnails(folder: Path, frames: int) -> list[np.ndarray]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in FRAME_SUFFIXES]
    if len(files) < frames:
        return []
    files.sort(key=lambda file: (len(file.name), file.name))  # 9.jpg before 10.jpg
    pictures = [cv2.imread(str(files[int((k + 0.5) * frames / THUMBNAILS)])) for k in range(THUMBNAILS)]
    return [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for picture in pictures if picture is not None]


def spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the half-open intervals of nonzero elements: [0, 1, 1, 0] → [(1, 3)]."""
    starts, ends = runs(np.asarray(mask) != 0, np.zeros(len(mask), int))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


# reports


def report_timelines(
    run: Run, folder: Path, names: Sequence[str], video_dir: Path | None
) -> tuple[list[Table], list[Path]]:
    """Draw timelines of the named test videos, or of a selection, and return their table and figures."""
    run = replace(run, test=only_named(run.test, names))
    videos = run.videos if names else select_videos(run.videos)
    pictures = draw_timelines(videos, folder, video_dir, run.dataset.fps)
    rows = []
    for video in videos:
        anomalous = ", ".join(f"{start} – {end}" for start, end in spans(video.frame_labels)) or "none"
        inside = video.frame_labels.reshape(-1, SNIPPET_FRAMES).any(1)
        means = (f"{part.mean():.3f}" if len(part) else NONE for part in (video.scores[inside], video.scores[~inside]))
        rows.append((video.name, video.label, anomalous, value_cell("AUC", roc_auc(samples([video]))), *means))
    columns = ["video", "label", "anomalous frames", "AUC (%)", "score inside", "score outside"]
    notes = ["score inside / outside: mean anomaly score of snippets with / without anomalous frames."]
    if video_dir is None:
        notes.append("To show video frames, give the folder of the test videos with --video_dir.")
    protocol = shared_protocol([run])
    notes += protocol.notes(beside_paper=False)
    header, frame = protocol.line(omit=("videos", "ano_auc", "AP")), pd.DataFrame(rows, columns=columns)
    table = Table(f"Appendix I, {run.dataset.title}: timelines", header, frame, tuple(notes))
    table.save(folder / "timelines")
    return [table], pictures
