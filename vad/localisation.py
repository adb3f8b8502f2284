"""Localisation: events touched, recall, event F1 and delay at a given number of false alarms per hour.

Few (anomalous, normal) pairs of frames lie in one video, so the AUC over all videos hardly measures whether a
method finds the moment of an anomaly. Here a threshold turns scores into alarms, which are compared with events.
Frames are numbered through all videos: snippet k has the frames 16k … 16k + 15.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from vad.data import TestVideo
from vad.datasets import DEFAULT_FPS, SNIPPET_FRAMES, Dataset
from vad.metrics import samples
from vad.scoring import ScoredVideo
from vad.statistics import CHUNK, RESAMPLES, draw_counts, intervals

RATES = (0.1, 1, 10)  # false alarms per hour of normal video
OVERLAPS = (0.3, 0.5, 0.7)  # temporal IoU from which an alarm matches an event
COLUMNS = ("threshold", "events touched", "recall", *(f"F1@{overlap}" for overlap in OVERLAPS), "delay (s)")
# definitions printed below the table
LOCALISATION_NOTES = (
    "Alarm: run of consecutive snippets of a video with scores of at least the threshold.",
    "Event: run of consecutive anomalous frames. It is touched if an alarm covers one of its frames.",
    "Threshold: the lowest such that it and every higher one give at most the allowed alarms in normal test videos.",
    "Recall: share of anomalous frames with a score of at least the threshold.",
    "F1@x: 2 · matches / (alarms + events), all test videos; a match has a temporal IoU of at least x, and the "
    "matching is one-to-one with as many matches as possible.",
    "Delay: seconds from the start of an event to its first frame with an alarm, median over the touched events.",
)


@dataclass(frozen=True)
class Localisation:
    """Localisation metrics of one evaluation, named by `metric_key`. They are NaN where undefined."""

    metrics: Mapping[str, float]  # shares and F1 are fractions
    resampled: Mapping[str, np.ndarray]  # metric → (R,), of every bootstrap resample
    events: int
    hours: float  # of normal-labelled videos
    fps: float

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the metrics, see `vad.statistics.intervals`."""
        return intervals(self.resampled)


def metric_key(column: str, rate: float) -> str:
    """Return the name of a metric: a column of `COLUMNS` at a rate of `RATES`."""
    return f"{column} at {rate:g}/h"


def localisation(videos: Sequence[ScoredVideo], dataset: Dataset, *, resamples: int = RESAMPLES) -> Localisation:
    """Return the metrics of `COLUMNS` at every rate of `RATES`, and those of every bootstrap resample.

    The resamples are those of `vad.statistics.resample`; hours and thresholds are determined anew in each.
    All metrics are NaN without normal videos, all but the threshold without events, and the delay if no event is
    touched. F1 is the segmental F1 of Lea et al., CVPR 2017. Matches are one-to-one, as in the evaluation of
    ActivityNet and THUMOS, which match in the order of confidence; alarms at one threshold have no such order.
    """
    timeline, fps = Timeline.of(videos), dataset.fps or DEFAULT_FPS
    normal = np.array([not dataset.is_anomalous(video.label) for video in videos])
    counts = np.vstack([np.ones(len(videos)), draw_counts(len(videos), resamples)])  # row 0: every video once
    frames = np.array([len(video.frame_labels) for video in videos])
    hours = counts @ (normal * frames) / fps / 3600
    thresholds = lowest_thresholds(timeline, counts * normal, np.outer(hours, RATES))
    # many resamples have the same threshold
    compared = {threshold: timeline.compare(threshold) for threshold in np.unique(thresholds)}
    values = np.full((*thresholds.shape, len(COLUMNS)), math.nan)
    values[..., 0] = thresholds
    for (row, rate), threshold in np.ndenumerate(thresholds):
        table, delays = compared[threshold]
        touched, events, found, anomalous, alarms, *matches = counts[row] @ table
        if events:
            f1 = [2 * number / (alarms + events) for number in matches]
            drawn = np.repeat(delays, counts[row, timeline.event_owner].astype(int))
            delay = np.median(drawn[drawn >= 0]) / fps if touched else math.nan
            values[row, rate, 1:] = touched / events, found / anomalous, *f1, delay
    values[hours == 0] = math.nan
    columns = {metric_key(c, r): values[:, i, k] for i, r in enumerate(RATES) for k, c in enumerate(COLUMNS)}
    metrics = {name: float(column[0]) for name, column in columns.items()}
    resampled = {name: column[1:] for name, column in columns.items()}
    return Localisation(metrics, resampled, len(timeline.start), float(hours[0]), fps)


def alarm_threshold(videos: Sequence[ScoredVideo], dataset: Dataset, rate: float = 1.0) -> float:
    """Return the lowest threshold such that it and every higher one give at most `rate` false alarms per hour.

    Few hours of normal videos allow no alarm at all: the threshold is then just above their highest score.
    It is NaN without normal videos.
    """
    normal = [video for video in videos if not dataset.is_anomalous(video.label)]
    if not normal:
        return math.nan
    limit = np.array([[rate * normal_hours(videos, dataset)]])
    return float(lowest_thresholds(Timeline.of(normal), np.ones((1, len(normal))), limit)[0, 0])


def normal_hours(videos: Sequence[ScoredVideo | TestVideo], dataset: Dataset) -> float:
    """Return the duration of the normal videos in hours."""
    frames = sum(len(video.frame_labels) for video in videos if not dataset.is_anomalous(video.label))
    return frames / (dataset.fps or DEFAULT_FPS) / 3600


@dataclass(frozen=True)
class Timeline:
    """Scores of S snippets and the E events of V videos, all videos one after another."""

    scores: np.ndarray  # (S,) float32
    anomalous: np.ndarray  # (S,) anomalous frames of the snippet
    owner: np.ndarray  # (S,) index of the video
    start: np.ndarray  # (E,) first frame of the event
    end: np.ndarray  # (E,) last frame + 1
    videos: int

    @classmethod
    def of(cls, videos: Sequence[ScoredVideo]) -> Timeline:
        """Return the timeline of these videos. Raises InputError like `vad.metrics.samples`."""
        data = samples(videos)
        owner = np.repeat(np.arange(len(videos)), [len(video.scores) for video in videos])
        labels = np.concatenate([video.frame_labels for video in videos])
        events = runs(labels != 0, np.repeat(owner, SNIPPET_FRAMES))
        return cls(data.scores, data.positive, owner, *events, len(videos))

    @property
    def event_owner(self) -> np.ndarray:
        """Index of the video of each event, (E,)."""
        return self.owner[self.start // SNIPPET_FRAMES]

    def compare(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Compare the alarms of a threshold with the events.

        Returns sums by video, (V, 5 + overlaps): events touched, events, anomalous frames found, anomalous frames,
        alarms, matches at each of `OVERLAPS`. Also returns the delay of each event in frames, (E,), −1 if untouched.
        """
        active = self.scores >= threshold
        start, end = (SNIPPET_FRAMES * edge for edge in runs(active, self.owner))
        # the alarms first … stop − 1 share frames with the event
        first, stop = np.searchsorted(end, self.start, "right"), np.searchsorted(start, self.end, "left")
        touched = first < stop
        delays = np.where(touched, np.maximum(np.append(start, 0)[first] - self.start, 0), -1)
        event = np.repeat(np.arange(len(touched)), stop - first)
        alarm = np.concatenate([np.arange(0), *map(np.arange, first, stop)])
        shared = np.minimum(end[alarm], self.end[event]) - np.maximum(start[alarm], self.start[event])
        overlap = shared / ((end - start)[alarm] + (self.end - self.start)[event] - shared)
        matched = []
        for smallest in OVERLAPS:
            pairs = overlap >= smallest
            graph = csr_matrix((pairs[pairs], (event[pairs], alarm[pairs])), (len(touched), len(start)))
            matched.append(maximum_bipartite_matching(graph, perm_type="column") >= 0)
        parts = [
            (self.event_owner, touched),
            (self.event_owner, np.ones(len(touched))),
            (self.owner, self.anomalous * active),
            (self.owner, self.anomalous),
            (self.owner[start // SNIPPET_FRAMES], np.ones(len(start))),
            *((self.event_owner, match) for match in matched),
        ]
        return np.stack([np.bincount(owner, values, self.videos) for owner, values in parts], 1), delays


def runs(active: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return start and end (exclusive) of every run of True within one owner. active, owner: (n,)."""
    group = np.concatenate([[-1], np.where(active, owner, -1), [-1]])
    edges = np.flatnonzero(np.diff(group))
    return edges[group[edges + 1] >= 0], edges[group[edges] >= 0]


def lowest_thresholds(timeline: Timeline, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the lowest thresholds such that they and all higher ones give at most `limits` alarms.

    counts: how often each video is counted, (R, V). limits, result: (R, L). A limit never exceeded gives 0.
    """
    scores, owner = timeline.scores, timeline.owner
    previous = np.where(np.diff(owner, prepend=-1) == 0, np.roll(scores, 1), -np.inf)
    # each rise of the score begins an alarm at the thresholds above `previous`, up to `scores`
    rises = (scores > previous) & counts.any(0)[owner]
    levels = np.unique(-scores[rises])  # negated, because thresholds descend
    position = np.searchsorted(levels, -np.concatenate([scores[rises], previous[rises]]))
    change, owners = np.repeat([1.0, -1.0], rises.sum()), np.tile(owner[rises], 2)
    table = csr_matrix((change, (position, owners)), (len(levels) + 1, counts.shape[1]))
    thresholds = np.zeros(limits.shape)
    for start in range(0, len(counts), CHUNK):
        chunk = slice(start, start + CHUNK)
        alarms = (table @ counts[chunk].T).cumsum(0)
        for k, limit in enumerate(limits[chunk].T):
            excess = alarms > limit
            exceeded = excess.any(0)
            highest = -levels[excess.argmax(0)[exceeded]]
            thresholds[chunk, k][exceeded] = np.nextafter(highest, np.float32(np.inf))
    return thresholds
