"""One more pass over a scored video: times, pictures and event maps of some snippets, and H.264 copies."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from extracting.video.config import Config
from extracting.video.events import EventCounter
from extracting.video.frames import HEIGHT, WIDTH, Video, snippet_times
from extracting.video.recordings import Recording
from vad.datasets import RECORDING_SUFFIXES, SNIPPET_FRAMES
from vad.files import InputError, atomic_write

PICTURE, PREVIEW = 320, 640  # largest widths in pixels
QUALITY = 23  # constant rate factor of x264, its default; higher is smaller
PREVIEW_QUALITY = 28
CLOCK = 90_000  # ticks per second of the copies' time stamps
RED, ORANGE, WHITE, DARK = (50, 50, 230), (30, 140, 240), (255, 255, 255), (40, 40, 40)  # BGR


@dataclass
class Footage:
    """What the answer to a video of S snippets shows of it."""

    times: np.ndarray  # (S + 1,) seconds: start of each snippet, and the end of the last
    pictures: dict[int, np.ndarray] = field(default_factory=dict)  # snippet → (h, w, 3) BGR uint8
    event_maps: dict[int, np.ndarray] = field(default_factory=dict)  # snippet → (256, 340) uint8 counts
    note: str = ""  # what of the video is missing


@dataclass(frozen=True)
class ShownScores:
    """Scores of the S snippets of a video, as a copy shows them."""

    values: np.ndarray  # (S,) in [0, 1]
    events: np.ndarray  # (S,) bool, whether the snippet is part of an event
    threshold: float


def view(
    path: Path, chosen: Collection[int], scores: ShownScores, config: Config,
    *, preview: Path | None = None, annotated: Path | None = None,
) -> Footage:  # fmt: skip
    """Read a video that was embedded with these settings once more; memory holds pictures of chosen snippets only.

    preview: file for a copy, at most `PREVIEW` pixels wide. annotated: file for a copy with the scores burnt in.
    A recording has no pictures and no copies.
    """
    count = len(scores.values)
    if path.suffix.lower() in RECORDING_SUFFIXES and not path.is_dir():
        return _view_recording(path, chosen, count, config)
    video, footage, seconds = Video(path, config.tail, config.fps), Footage(np.empty(0)), []
    counter, snippet = EventCounter(), np.empty((SNIPPET_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    with ExitStack() as stack:
        small = stack.enter_context(h264(preview, PREVIEW_QUALITY)) if preview else None
        large = stack.enter_context(h264(annotated, QUALITY)) if annotated else None
        frames = tqdm(video.timed_frames(), path.name, count * SNIPPET_FRAMES, leave=False, unit="frame")
        for number, (time, frame) in enumerate(frames):
            seconds.append(time)
            k, position = divmod(number, SNIPPET_FRAMES)
            if small:
                small.write(time, shrink(frame, PREVIEW))
            if k in chosen:
                snippet[position] = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
                if position == SNIPPET_FRAMES // 2:
                    footage.pictures[k] = shrink(frame, PICTURE).copy()
                if position == SNIPPET_FRAMES - 1:
                    footage.event_maps[k] = counter.count(snippet, config.event_threshold)
            if large:
                large.write(time, annotate(frame, scores, min(k, count - 1)))
    footage.note = video.check_completeness()[1]
    footage.times = snippet_times(seconds, count)
    return footage


def _view_recording(path: Path, chosen: Collection[int], count: int, config: Config) -> Footage:
    recording = Recording(path, config.tail, config.recording_fps)
    maps = {k: counts for k, counts in enumerate(recording.snippets()) if k in chosen}
    times = np.arange(count + 1) * SNIPPET_FRAMES / config.recording_fps
    return Footage(times, event_maps=maps, note=recording.check_completeness()[1])


def shrink(frame: np.ndarray, width: int) -> np.ndarray:
    """Return the frame at most `width` pixels wide, with its aspect ratio."""
    if frame.shape[1] <= width:
        return frame
    height = max(2, round(frame.shape[0] * width / frame.shape[1]))
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def annotate(frame: np.ndarray, scores: ShownScores, k: int) -> np.ndarray:
    """Return a copy of a frame of snippet k with a score bar, and with a red border inside an event."""
    frame, score, is_event = frame.copy(), float(scores.values[k]), bool(scores.events[k])
    height, width = frame.shape[:2]
    bar, line = max(10, height // 18), max(2, height // 120)
    top, tick = height - bar, round(scores.threshold * width)
    cv2.rectangle(frame, (0, top), (width, height), DARK, cv2.FILLED)
    cv2.rectangle(frame, (0, top), (round(score * width), height), RED if is_event else ORANGE, cv2.FILLED)
    cv2.line(frame, (tick, top), (tick, height), WHITE, line)
    scale = bar / 30
    place = (bar // 4, height - bar // 4)
    cv2.putText(frame, f"{score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, max(1, line // 2), cv2.LINE_AA)
    if is_event:
        cv2.rectangle(frame, (line, line), (width - 1 - line, top - line), RED, 2 * line)
    return frame


def import_av() -> Any:
    """Return the package av. Raises InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError('copies of a video need the package av. Run: pip install ".[report]"') from None
    return av


class H264Writer:
    """Writes frames with their times as H.264, which browsers and players show."""

    def __init__(self, path: Path, quality: int) -> None:
        self._av, self._quality, self._last, self._stream = import_av(), quality, -1, None
        # the index at the start of the file lets a browser seek before it has loaded the rest
        self._container = self._av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})

    def write(self, seconds: float, frame: np.ndarray) -> None:
        """Append a frame (height, width, 3) BGR uint8. An odd last row or column is cut off."""
        if self._stream is None:
            options = {"preset": "superfast", "crf": str(self._quality)}
            self._stream = self._container.add_stream("libx264", options=options)
            self._stream.height, self._stream.width = (size // 2 * 2 for size in frame.shape[:2])
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, CLOCK)
        pixels = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture = self._av.VideoFrame.from_ndarray(pixels, format="bgr24")
        self._last = max(round(seconds * CLOCK), self._last + 1)  # time stamps must rise
        picture.pts, picture.time_base = self._last, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


@contextmanager
def h264(path: Path, quality: int) -> Iterator[H264Writer]:
    """Yield a writer of a file that appears under its name when it is complete. quality: see `QUALITY`."""
    with atomic_write(path) as part:
        writer = H264Writer(part, quality)
        yield writer
        writer.close()
