"""Answers for your own videos, which have no ground truth: scores, events, timeline, report page, index page."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vad.data import TestVideo, Video, embedding_header
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError, read_json, write_bytes, write_json
from vad.localisation import runs
from vad.report.plots import COLOUR
from vad.report.table import NONE, Table
from vad.report.timelines import THUMBNAILS, draw_timeline
from vad.scoring import ScoredVideo

HYSTERESIS = 0.8  # an event lasts while the score is at least this share of the threshold
UNTUNED = 0.5  # threshold of a checkpoint that records none
PEAKS = 12  # events whose peak is shown as a picture
LISTED = 5  # events of a video in the printed table
CLIP = "video.mp4"  # copy of the video beside its report
PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True)
class Threshold:
    """Score from which a snippet raises an alarm, and where the value comes from."""

    value: float
    source: str

    @property
    def low(self) -> float:
        """Score at which an event ends."""
        return HYSTERESIS * self.value


def choose_threshold(flag: float | None, content: Mapping[str, Any]) -> Threshold:
    """Return the threshold of --threshold, else of the checkpoint's content, else `UNTUNED`.

    Raises InputError for a flag outside [0, 1].
    """
    if flag is not None:
        if not 0 <= flag <= 1:
            raise InputError(f"--threshold {flag:g} is not a score. Give a number from 0 to 1.")
        return Threshold(flag, "--threshold")
    recorded = content.get("threshold")
    if recorded and math.isfinite(recorded["value"]):
        return Threshold(float(recorded["value"]), f"checkpoint: {recorded['source']}")
    return Threshold(UNTUNED, "not tuned: the checkpoint records no threshold")


def own_video(name: str, embeddings: Mapping[str, Mapping[int, Path]]) -> TestVideo:
    """Return your own video from its embeddings (stream → crop → file), cut to the length of the shortest."""
    headers = {s: {crop: embedding_header(path) for crop, path in files.items()} for s, files in embeddings.items()}
    snippets = min(shape[0] for by_crop in headers.values() for shape, _ in by_crop.values())
    crops = tuple(
        Video(name, "", False, crop, {s: files[crop] for s, files in embeddings.items()}, snippets,
              {s: by_crop[crop][1] for s, by_crop in headers.items()})
        for crop in next(iter(embeddings.values()))
    )  # fmt: skip
    return TestVideo(name, "", crops, np.zeros(SNIPPET_FRAMES * snippets, np.uint8))


def find_events(scores: np.ndarray, threshold: Threshold) -> list[tuple[int, int]]:
    """Return the half-open snippet ranges of events: runs of at least `low` that reach the threshold.

    Example with threshold 0.5: 0.1 0.45 0.6 0.45 0.2 0.45 → (1, 4). A run is one event even if the score falls below
    the threshold inside it, so there are at most as many events as runs at the threshold.
    """
    starts, ends = runs(scores >= threshold.low, np.zeros(len(scores), int))
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return [(start, end) for start, end in spans if scores[start:end].max() >= threshold.value]


def in_events(events: Sequence[tuple[int, int]], snippets: int) -> np.ndarray:
    """Return for each snippet whether it is part of an event, (S,) bool."""
    inside = np.zeros(snippets, bool)
    for start, end in events:
        inside[start:end] = True
    return inside


def shown_snippets(scores: np.ndarray, events: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the snippets in the middle of `THUMBNAILS` equal parts, and the peaks of the highest events."""
    even = [int((k + 0.5) * len(scores) / THUMBNAILS) for k in range(THUMBNAILS)]
    peaks = [start + int(scores[start:end].argmax()) for start, end in events]
    return even, sorted(peaks, key=lambda k: -scores[k])[:PEAKS]


def answer_of(
    video: ScoredVideo, times: np.ndarray, events: Sequence[tuple[int, int]], threshold: Threshold,
    made_from: Mapping[str, object], note: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Return the content of events.json. times: (S + 1,) seconds, see `write_answer`; events: snippet ranges."""
    listed = []
    for start, end in events:
        peak = start + int(video.scores[start:end].argmax())
        first, last, at = (round(float(times[k]), 3) for k in (start, end, peak))
        score = round(float(video.scores[peak]), 6)
        listed.append({"start": first, "end": last, "duration": round(last - first, 3), "peak": score, "peak_time": at})
    highest = int(video.scores.argmax())
    return {
        "video": video.name,
        "seconds": round(float(times[-1]), 3),
        "snippets": len(video.scores),
        "peak": round(float(video.scores[highest]), 6),
        "peak_time": round(float(times[highest]), 3),
        "threshold": {"value": threshold.value, "low": threshold.low, "source": threshold.source},
        "events": listed,
        "note": note,
        "made_from": dict(made_from),
    }


def finished_answer(folder: Path, made_from: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the content of events.json, which is written last, if it was made from the same inputs."""
    path = folder / "events.json"
    content = read_json(path, "list of events") if path.is_file() else {}
    return content if content.get("made_from") == made_from else None


def write_answer(
    folder: Path, video: ScoredVideo, answer: Mapping[str, Any], times: np.ndarray, events: Sequence[tuple[int, int]],
    pictures: Mapping[int, np.ndarray], event_maps: Mapping[int, np.ndarray], *, clip: Path | None, embed: bool,
) -> None:  # fmt: skip
    """Write scores.csv, timeline.png, report.html and events.json of one video.

    times: (S + 1,) seconds, start of each snippet and end of the last. pictures, event_maps: snippet → (h, w, 3) BGR
    or (256, 340) counts. clip: copy of the video for the page, which contains it if `embed`.
    """
    table = {"snippet": np.arange(len(video.scores)), "start": times[:-1], "end": times[1:], "score": video.scores}
    table |= {f"weight_{stream}": weight for stream, weight in video.weights.items()}
    stream = io.StringIO()
    pd.DataFrame(table).to_csv(stream, index=False, float_format="%.6f")
    write_bytes(folder / "scores.csv", stream.getvalue().encode())
    even, peaks = shown_snippets(video.scores, events)
    thumbnails = [cv2.cvtColor(pictures[k], cv2.COLOR_BGR2RGB) for k in even if k in pictures]
    rate = SNIPPET_FRAMES * len(video.scores) / float(times[-1] - times[0])
    draw_timeline(video, folder / "timeline", fps=rate, thumbnails=thumbnails, threshold=answer["threshold"]["value"])
    if not missing_packages():
        shown = sorted({*even, *peaks})
        page = {
            "answer": answer,
            "chart": {
                "times": [round(float(time), 3) for time in times],
                "scores": _numbers(video.scores),
                "weights": {stream: _numbers(weight) for stream, weight in _shown_weights(video).items()},
                "threshold": answer["threshold"]["value"],
                "events": answer["events"],
            },
            "moments": [
                {
                    "time": round(float(times[k]), 3),
                    "score": float(video.scores[k]),
                    "peak": k in peaks,
                    "picture": _picture(pictures.get(k)),
                    "events": _event_picture(event_maps.get(k), pictures.get(k)),
                }
                for k in shown
            ],
            "clip": (_data_uri("video/mp4", clip.read_bytes()) if embed else clip.name) if clip else "",
        }
        if clip and embed:
            clip.unlink()
        write_bytes(folder / "report.html", _render("report.html", page=page, plotly=_plotly()))
    write_json(folder / "events.json", dict(answer))


def write_index(
    path: Path, answers: Sequence[tuple[Mapping[str, Any], np.ndarray]], failed: Mapping[str, str]
) -> None:
    """Write a page of all videos by their highest score, with curves, and of those that failed with the reason.

    answers: content of events.json and (S,) scores of each video.
    """
    ranked = sorted(answers, key=lambda pair: (-pair[0]["peak"], pair[0]["video"]))
    rows = [{**answer, "curve": _curve(scores, answer["threshold"]["value"])} for answer, scores in ranked]
    write_bytes(path, _render("index.html", rows=rows, failed=failed))


def own_videos_table(answers: Sequence[Mapping[str, Any]], threshold: Threshold) -> Table:
    """Return the table of the first events of each video. events.json has all of them."""
    rows = []
    for answer in answers:
        more = f" and {len(answer['events']) - LISTED} more" if len(answer["events"]) > LISTED else ""
        events = ", ".join(f"{event['start']:.1f} – {event['end']:.1f}" for event in answer["events"][:LISTED])
        peak = f"{answer['peak']:.3f} at {answer['peak_time']:.1f} s"
        rows.append((answer["video"], f"{answer['seconds']:.1f}", peak, f"{events} s{more}" if events else NONE))
    frame = pd.DataFrame(rows, columns=["video", "seconds", "highest score", "events"])
    notes = (
        f"Event: run of snippets with at least {threshold.low:.3f} that reaches the threshold {threshold.value:.3f} "
        f"({threshold.source}).",
        *(f"{answer['video']}: {answer['note']}." for answer in answers if answer["note"]),
    )
    return Table("Your own videos", "no ground truth: check the events in the videos", frame, notes)


# pages


def missing_packages() -> str:
    """Return a sentence that names the command for the packages of the pages, or an empty string."""
    if all(importlib.util.find_spec(name) for name in ("av", "jinja2", "plotly")):
        return ""
    return 'report.html and index.html are not written. They need: pip install ".[report]"'


def _render(name: str, **values: object) -> bytes:
    import jinja2

    loader = jinja2.FileSystemLoader(PAGES)
    # autoescape: a file name with HTML in it must stay text
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # image before event
    environment.filters["clock"] = lambda seconds: f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    text = environment.get_template(name).render(colour=COLOUR, **values)
    return text.encode(errors="replace")  # a file name need not be valid UTF-8


@functools.cache
def _plotly() -> str:
    """Return the source of plotly.js with its licence line, 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _shown_weights(video: ScoredVideo) -> Mapping[str, np.ndarray]:
    """Return the weights unless they are trivial: those of a single stream, or of a fusion without weights."""
    trivial = any(np.isnan(weight).all() or (weight == 1).all() for weight in video.weights.values())
    return {} if trivial else video.weights


def _numbers(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _picture(image: np.ndarray | None) -> str:
    """Return an image (h, w, 3) BGR as a JPEG, in a data URI."""
    return "" if image is None else _data_uri("image/jpeg", cv2.imencode(".jpg", image)[1].tobytes())


def _event_picture(counts: np.ndarray | None, beside: np.ndarray | None) -> str:
    """Return an event map in a data URI, with the size of the picture beside it. Black: no event."""
    if counts is None:
        return ""
    size = (counts.shape[1], counts.shape[0]) if beside is None else (beside.shape[1], beside.shape[0])
    brightness = np.minimum(counts.astype(np.uint16) * 255 // (SNIPPET_FRAMES - 1), 255).astype(np.uint8)
    return _picture(cv2.resize(cv2.applyColorMap(brightness, cv2.COLORMAP_INFERNO), size))


def _curve(scores: np.ndarray, threshold: float) -> str:
    """Return a small picture of the score curve in a data URI."""
    with matplotlib.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "none"}):
        fig = Figure(figsize=(3, 0.45))
        ax = fig.add_axes((0, 0, 1, 1))
        ax.stairs(scores, baseline=0, fill=True, color="#4c9f7f")
        ax.axhline(threshold, color="#c0504d", lw=0.8, ls="--")
        ax.set(xlim=(0, len(scores)), ylim=(0, 1.02))
        ax.axis("off")
        stream = io.BytesIO()
        fig.savefig(stream, format="png", dpi=120, transparent=True)
    return _data_uri("image/png", stream.getvalue())
