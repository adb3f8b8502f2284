"""A live source: embeddings of one snippet at a time, and a line of JSON for each."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import torch
from torch import Tensor

from extracting.clip.encoder import Encoder
from extracting.video.config import Config
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import check_opencv
from extracting.video.live import LiveSource
from vad.report.own_videos import Threshold
from vad.scoring import CausalScore

MIRRORED_CENTRE = 5  # the crop used for evaluation


class SnippetEncoder:
    """Embeds one snippet at a time, with the mirrored centre crop.

    Event counts are divided by the clamp, although scaling "block" divides by the largest count in 32 snippets,
    which a live source does not know yet.
    """

    def __init__(self, encoders: Mapping[str, Encoder], config: Config) -> None:
        """encoders: modality → encoder."""
        check_opencv()
        self._encoders, self._threshold = encoders, config.event_threshold
        self._counter, self._crops = EventCounter(), (MIRRORED_CENTRE,)
        self._scaling = EventScaling(self._crops, config.event_clamp, "clamp")

    def __call__(self, frames: np.ndarray) -> dict[str, Tensor]:
        """Return modality → embedding (D,) float32 of a snippet (16, 256, 340, 3) BGR uint8."""
        embeddings = {}
        if "image" in self._encoders:
            rows = self._encoders["image"].images(torch.from_numpy(frames)[None], self._crops)
            embeddings["image"] = rows[0, 0]
        if "event" in self._encoders:
            ((clamped, divisors),) = self._scaling.add(self._counter.count(frames, self._threshold))
            maps = (torch.from_numpy(clamped)[None], torch.from_numpy(divisors)[None])
            embeddings["event"] = self._encoders["event"].events(*maps, self._crops)[0, 0]
        return embeddings


class LiveReport:
    """Context of a live run: it prints one line a snippet to stdout, and a summary to stderr at its end.

    Ctrl-C ends the run and is no error.
    """

    def __init__(self, source: LiveSource, modalities: Sequence[str], threshold: Threshold) -> None:
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
        weights = {f"weight_{name}": weight for name, weight in scored.weights.items()}
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
