"""Lines of JSON for the snippets of a live source, and a summary at the end."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from vad.report.own.videos import Threshold
from vad.scoring import CausalScore


class Source(Protocol):
    """A live source that counts what it lost."""

    started: float  # time.monotonic(), seconds
    frames_dropped: int
    reconnects: int


class LiveReport:
    """Context of a live run: it prints one line a snippet to stdout, and a summary to stderr at its end.

    Ctrl-C ends the run and is no error.
    """

    def __init__(self, source: Source, modalities: Sequence[str], threshold: Threshold) -> None:
        """modalities: the streams of the model; threshold: score of an alarm."""
        self._source, self._modalities, self._threshold = source, modalities, threshold
        self._delays: list[float] = []

    def __enter__(self) -> LiveReport:
        print(f"threshold {self._threshold.value:.3f} ({self._threshold.source})", file=sys.stderr)
        return self

    def print_line(self, number: int, arrived: float, scored: CausalScore) -> None:
        """Print the line of a snippet. arrived: time.monotonic() of its last frame, in seconds.

        `time` and `seconds` (after the start) are those of the last frame, `delay` is from then until now. A fusion
        without weights has none in its lines.
        """
        delay = time.monotonic() - arrived
        self._delays.append(delay)
        weights = {f"weight_{name}": getattr(scored, f"weight_{name}") for name in self._modalities}
        line = {
            "snippet": number,
            "time": (datetime.now().astimezone() - timedelta(seconds=delay)).isoformat(timespec="milliseconds"),
            "seconds": round(arrived - self._source.started, 3),
            "score": round(scored.score, 6),
            **{name: round(weight, 6) for name, weight in weights.items() if not math.isnan(weight)},
            "alarm": scored.score >= self._threshold.value,
            "frames_dropped": self._source.frames_dropped,
            "reconnects": self._source.reconnects,
            "delay": round(delay, 3),
        }
        print(json.dumps(line), flush=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        source, delays = self._source, self._delays
        dropped, reconnects = source.frames_dropped, source.reconnects
        parts = [f"{len(delays)} snippets", f"{dropped} frames dropped", f"{reconnects} reconnects"]
        if delays:
            parts.append(f"delay median {statistics.median(delays):.2f} s, maximum {max(delays):.2f} s")
        print(" · ".join(parts), file=sys.stderr)
        return kind is not None and issubclass(kind, KeyboardInterrupt)
