"""Event-camera recordings (.npz, .h5, .hdf5, .aedat4): event counts per snippet, like those of a video."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from extracting.video.frames import BLOCK_SNIPPETS, HEIGHT, WIDTH, VideoError, check_content
from vad.datasets import SNIPPET_FRAMES

PART = 1 << 20  # events read at a time, except from .npz
SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND
ERRORS = (
    OSError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
Part = Mapping[str, np.ndarray]  # x, y and t of successive events; a dict or a structured array


class Recording:
    """One pass over an event-camera recording. Iterate `snippets()` once; `frames` is final after that.

    Time: frame n is the instant n / fps, rounded to a microsecond. An event after frame n − 1, and not after
    frame n, belongs to this pair of frames, like a change between two frames of a video. A snippet has the frames
    16k to 16k + 15 and counts the events of the 15 pairs inside it. An event between two snippets, after frame
    16k − 1 and not after frame 16k, is in neither. The last frame is the first one not before the last event.
    Frame 0 is at time 0. If the first event is more than a day later, as in AEDAT4, times are absolute, and frame 0
    is at the first event. Integer times are microseconds; floating-point times are seconds.

    Space: an event at (x, y) of a sensor with width × height pixels counts in column x · 340 // width and row
    y · 256 // height of the map. If a sensor has fewer than 340 columns, column c of the map is a copy of its
    column c · width // 340, so that none stays empty; the same holds for fewer than 256 rows.
    Both polarities count. Counts above 255 become 255.
    """

    def __init__(self, path: str | Path, tail: str, fps: float) -> None:
        """tail: see `frames.group_snippets`; fps: frames per second."""
        self.path, self._tail, self.fps = Path(path), tail, fps
        self.frames = 0
        self.declared = None  # recordings store no number of frames
        self._width = self._height = 0  # of the sensor
        self._note = ""
        self._events = 0  # read so far
        self._start = self._last = 0  # times of frame 0 and of the last event, which counts from frame 0

    def snippets(self) -> Iterator[np.ndarray]:
        """Yield the event counts (256, 340) uint8 of each whole snippet; each is a new array.

        Raises VideoError if the recording cannot be read, contains an invalid event, or has no whole snippet.
        """
        complete = 0
        counts = np.zeros(HEIGHT * WIDTH, np.int64)
        for part in self._parts():
            cells, times = self._cells(part), self._times(part["t"])
            self._events += len(times)
            while True:
                frames = self._frame_times(complete)
                first, last = np.searchsorted(times, frames[[0, -1]], side="right")
                counts += np.bincount(cells[first:last], minlength=counts.size)
                if self._last <= frames[-1]:
                    break  # the next part may continue this snippet
                yield self._map(counts)
                counts[:] = 0
                complete += 1
        if not self._events:
            raise VideoError(self.path, "no_frames", "the recording contains no events; record it again")
        in_snippet = int(np.searchsorted(self._frame_times(complete), self._last)) + 1
        self.frames = SNIPPET_FRAMES * complete + in_snippet
        dropped = self._tail == "released" and complete % BLOCK_SNIPPETS == 0
        if in_snippet == SNIPPET_FRAMES and not dropped:
            yield self._map(counts)
        elif not complete:
            needed = "at least 16" if self._tail == "whole" else "more than 16 (released tail rule)"
            reason = f"the recording lasts {self.frames} frames at --fps {self.fps:g}, but a snippet needs {needed}"
            raise VideoError(self.path, "too_short", reason)

    def check_completeness(self) -> tuple[str, str]:
        """Return "ok" and a note, which may be empty. The length of a complete recording is unknown."""
        return "ok", self._note

    def _frame_times(self, snippet: int) -> np.ndarray:
        """Return the times (16,) of a snippet's frames in microseconds."""
        frames = SNIPPET_FRAMES * snippet + np.arange(SNIPPET_FRAMES)
        return np.rint(frames * SECOND / self.fps).astype(np.int64)

    def _cells(self, part: Part) -> np.ndarray:
        """Return the position (n,) of each event in the flattened map (256, 340)."""
        x, y = part["x"], part["y"]
        outside = (x < 0) | (x >= self._width) | (y < 0) | (y >= self._height)
        if outside.any():
            n = int(outside.argmax())
            sensor = f"the sensor of {self._width}×{self._height} pixels"
            reason = f"event {self._events + n} at ({x[n]}, {y[n]}) is outside {sensor}; correct one of them"
            raise VideoError(self.path, "damaged", reason)
        rows = np.arange(self._height) * min(HEIGHT, self._height) // self._height
        columns = np.arange(self._width) * min(WIDTH, self._width) // self._width
        return (rows * WIDTH)[y] + columns[x]

    def _map(self, counts: np.ndarray) -> np.ndarray:
        """Return counts (256 · 340,) as a map (256, 340) uint8 in which a small sensor is enlarged."""
        rows = np.arange(HEIGHT) * min(HEIGHT, self._height) // HEIGHT
        columns = np.arange(WIDTH) * min(WIDTH, self._width) // WIDTH
        return np.minimum(counts, 255).astype(np.uint8).reshape(HEIGHT, WIDTH)[np.ix_(rows, columns)]

    def _times(self, times: np.ndarray) -> np.ndarray:
        """Return the times (n,) int64 of the next events in microseconds after frame 0."""
        if times.dtype.kind == "f":
            if not (np.abs(times) < np.iinfo(np.int64).max / SECOND).all():
                raise VideoError(self.path, "damaged", "t contains NaN or infinity; remove these events")
            times = np.rint(times * SECOND)
        times = times.astype(np.int64)
        if not self._events:
            self._start = int(times[0]) if times[0] > DAY else 0
        times -= self._start
        backwards = np.diff(times, prepend=self._last) < 0
        if backwards.any():
            n = self._events + int(backwards.argmax())
            reason = f"the time of event {n} is {'before that of the previous event' if n else 'negative'}"
            raise VideoError(self.path, "damaged", f"{reason}; sort the events, and count times from 0")
        self._last = int(times[-1])
        if self._last > DAY:
            reason = "t spans more than a day; give integers in microseconds, or floating-point seconds"
            raise VideoError(self.path, "damaged", reason)
        return times

    def _parts(self) -> Iterator[Part]:
        """Yield the events in parts, and set the sensor size before the first one."""
        check_content(self.path)
        readers = {".npz": self._read_npz, ".aedat4": self._read_aedat4}
        try:
            yield from readers.get(self.path.suffix.lower(), self._read_hdf5)()
        except VideoError:
            raise
        except ImportError as error:
            reason = f'the package {error.name} is missing; run: pip install ".[events]"'
            raise VideoError(self.path, "unreadable", reason) from None
        except ERRORS as error:
            advice = "copy the recording again"
            if "plugin" in str(error):  # files of Metavision are compressed by its own plugin of HDF5
                advice = "set HDF5_PLUGIN_PATH to the folder with the plugin of its compression"
            raise VideoError(self.path, "damaged", f"the events cannot be read ({error}); {advice}") from None

    def _read_npz(self) -> Iterator[Part]:
        if not zipfile.is_zipfile(self.path):
            raise ValueError("not a complete .npz file")
        with np.load(self.path, allow_pickle=False) as archive:
            yield from self._read_arrays({name: archive[name] for name in {"x", "y", "t"} & {*archive}}, archive)

    def _read_hdf5(self) -> Iterator[Part]:
        import h5py
        import hdf5plugin  # noqa: F401 (registers the compression of DSEC)

        with h5py.File(self.path) as file:
            events = file.get("events", file.get("CD/events"))  # a group of arrays (DSEC); a table (Metavision)
            if events is None:
                reason = "the file contains neither events/x, events/y and events/t nor CD/events; convert it"
                raise VideoError(self.path, "not_video", reason)
            yield from self._read_arrays(events, {**file.attrs, **events.attrs})

    def _read_aedat4(self) -> Iterator[Part]:
        import aedat

        decoder = aedat.Decoder(self.path)
        streams = {n: stream for n, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
        if not streams:
            raise VideoError(self.path, "not_video", "the file contains no stream of events; export one")
        number = min(streams)
        self._set_size(streams[number]["width"], streams[number]["height"])
        yield from (p["events"] for p in decoder if p["stream_id"] == number and len(p["events"]))

    def _read_arrays(self, events: Any, stored: Mapping[str, Any]) -> Iterator[Part]:
        """Yield the events of a table or of a mapping of arrays. stored: may contain the sensor size."""
        table = not isinstance(events, Mapping)
        names = (events.dtype.names or ()) if table else events
        for name in ("x", "y", "t"):
            if name not in names:
                raise VideoError(self.path, "not_video", f"the array {name} is missing; a recording has x, y and t")
            dtype = events.dtype[name] if table else events[name].dtype
            if dtype.kind not in ("iuf" if name == "t" else "iu"):
                reason = f"the array {name} contains {dtype}; x and y must be integers, t integers or floats"
                raise VideoError(self.path, "not_video", reason)
        shapes = [events.shape] if table else [events[name].shape for name in ("x", "y", "t")]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            reason = f"x, y and t have the shapes {', '.join(map(str, shapes))}; they must be equally long vectors"
            raise VideoError(self.path, "not_video", reason)
        steps = [slice(first, first + PART) for first in range(0, shapes[0][0], PART)]
        size = _stored_size(stored)
        if size is None and steps:
            positions = (events[step] if table else {n: events[n][step] for n in "xy"} for step in steps)
            size = np.max([(part["x"].max(), part["y"].max()) for part in positions], axis=0).astype(int) + 1
            self._note = f"the file stores no sensor size; its largest coordinates give {size[0]}×{size[1]} pixels"
        if steps:
            self._set_size(*size)
        for step in steps:
            yield events[step] if table else {name: events[name][step] for name in "xyt"}

    def _set_size(self, width: int, height: int) -> None:
        if not (0 < width <= 1 << 16 and 0 < height <= 1 << 16):
            reason = f"the sensor has {width}×{height} pixels; correct its size or the coordinates"
            raise VideoError(self.path, "damaged", reason)
        self._width, self._height = int(width), int(height)


def _stored_size(stored: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height: two entries of these names, or `geometry` "1280x720" as in Metavision."""
    if "width" in stored and "height" in stored:
        return int(stored["width"]), int(stored["height"])
    numbers = re.findall(r"\d+", str(stored.get("geometry", "")))
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None
