"""Appendix I: which videos are drawn as timelines, their frames, and one's own videos scored without a truth."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vad.benchmark import TestSet
from vad.catalog import SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.errors import InputError
from vad.figures_timeline import draw_timeline, intervals
from vad.metrics import roc_auc, samples
from vad.results import Result, shared_protocol
from vad.scoring import ScoredVideo
from vad.table import NAN, NONE, Table

THUMBNAILS = 8


def only_named(test: TestSet, names: Sequence[str]) -> TestSet:
    """The test set reduced to the videos of these names, in their order; all of it where there is no name.

    Raises InputError for a name that no test video has, with the nearest ones.
    """
    dataset = test.settings.dataset
    known = {dataset.key(video.name): video for video in test.videos}
    for name in names:
        if dataset.key(name) not in known:
            near = difflib.get_close_matches(name, [video.name for video in test.videos], n=3, cutoff=0.5)
            hint = f"close to it: {', '.join(near)}" if near else f"the first is {test.videos[0].name}"
            raise InputError(f"--timeline {name}: no test video of {dataset.title} has this name; {hint}")
    chosen = [known[key] for key in dict.fromkeys(map(dataset.key, names))]
    return replace(test, videos=chosen) if names else test


def telling_videos(videos: Sequence[ScoredVideo], count: int) -> list[ScoredVideo]:
    """The anomalous videos with most anomalous frames, one of each label before a second of any."""
    anomalous = [v for v in videos if v.frame_labels.any()]
    anomalous.sort(key=lambda v: -int(v.frame_labels.sum()))
    turn = {v.name: sum(w.label == v.label for w in anomalous[:k]) for k, v in enumerate(anomalous)}
    return sorted(anomalous, key=lambda v: turn[v.name])[:count]


def draw_timelines(
    videos: Sequence[ScoredVideo], folder: Path, *, video_dir: Path | None, fps: float | None = None
) -> list[Path]:
    """timeline_<video>.png and .pdf of each video, with its frames where `video_dir` holds the video's file.

    fps: frames a second where no file tells.
    """
    pictures, files = [], _video_files(video_dir)
    for video in tqdm(videos, desc="timelines", unit="video", leave=False):
        strip, own_fps = thumbnails(files.get(video.name), len(video.frame_labels))
        path = folder / f"timeline_{video.name.replace('/', '_')}"
        pictures += draw_timeline(video, path, fps=own_fps or fps, thumbnails=strip)
    return pictures


def report_timelines(
    result: Result, folder: Path, *, named: bool, count: int, video_dir: Path | None
) -> tuple[list[Table], list[Path]]:
    """Timelines of the named videos, or of the telling ones, and a table of what each shows."""
    videos = result.videos if named else telling_videos(result.videos, count)
    pictures = draw_timelines(videos, folder, video_dir=video_dir, fps=result.test.settings.dataset.fps)
    rows = []
    for video in videos:
        auc = roc_auc(samples([video]))
        spans = ", ".join(f"{start} – {end}" for start, end in intervals(video.frame_labels))
        inside = video.frame_labels.reshape(-1, SNIPPET_FRAMES).any(1)
        means = (_mean(part) for part in (video.scores[inside], video.scores[~inside]))
        rows.append((video.name, video.label, spans or "none", NAN if np.isnan(auc) else f"{100 * auc:.2f}", *means))
    columns = ("video", "label", "anomalous frames", "AUC (%)", "score inside", "score outside")
    notes = ["Score: mean over snippets with and without anomalous frames."]
    if video_dir is None:
        notes.append("No frames are shown: --video_dir is the folder of the test videos.")
    protocol = shared_protocol([result])
    title = f"Appendix I, {protocol.dataset.title}: timelines"
    header = protocol.line(omit=("videos", "ano_auc", "AP"))
    table = Table(title, header, columns, tuple(rows), (*notes, *protocol.notes(beside_paper=False)))
    table.save(folder / "timelines")
    return [table], pictures


def report_own_videos(videos: Sequence[ScoredVideo], files: Sequence[Path], folder: Path, threshold: float) -> Table:
    """One's own videos: where the score is above the threshold, in seconds; a timeline of each is drawn in `folder`."""
    rows = []
    for video, path in zip(videos, files, strict=True):
        strip, fps = thumbnails(path, len(video.frame_labels))
        draw_timeline(video, folder / f"timeline_{video.name}", fps=fps, thumbnails=strip)
        above = intervals(video.scores > threshold)
        seconds = SNIPPET_FRAMES / fps if fps else SNIPPET_FRAMES
        spans = ", ".join(f"{s * seconds:.1f} – {e * seconds:.1f}" for s, e in above) or "none"
        rows.append((video.name, str(len(video.scores)), f"{video.scores.max():.3f}", spans))
    columns = ("video", "snippets", "highest score", f"{'seconds' if fps else 'frames'} above {threshold:g}")
    protocol = "no truth is known for these videos · scores of untuned thresholds are relative: look at the timelines"
    table = Table("Own videos", protocol, columns, tuple(rows))
    table.save(folder / "videos")
    return table


def thumbnails(path: Path | None, frames: int) -> tuple[list[np.ndarray] | None, float | None]:
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


def _video_files(video_dir: Path | None) -> dict[str, Path]:
    """Name → file of every video below a folder, the first of a name."""
    found: dict[str, Path] = {}
    for path in sorted(video_dir.rglob("*")) if video_dir else ():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(path.stem, path)
    return found


def _mean(scores: np.ndarray) -> str:
    return f"{scores.mean():.3f}" if len(scores) else NONE
