"""Localisation: plain loops over frames on random videos, examples by hand, and a published score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from tests.vad.test_metrics import published, scored, snippets
from vad.datasets import load_dataset
from vad.files import InputError
from vad.localisation import (
    COLUMNS,
    OVERLAPS,
    RATES,
    Localisation,
    alarm_threshold,
    localisation,
    metric_key,
    normal_hours,
)
from vad.scoring import ScoredVideo
from vad.statistics import draw_counts

UCFCRIME = load_dataset("ucfcrime")
SLOW = replace(UCFCRIME, fps=0.1)  # 22.5 snippets are an hour, so that short videos allow some false alarms


def spans(values: Sequence[bool]) -> list[range]:
    """Return the positions of every run of True."""
    groups = (list(group) for _, group in groupby(range(len(values)), key=lambda k: bool(values[k])))
    return [range(group[0], group[-1] + 1) for group in groups if values[group[0]]]


def alarms_of(video: ScoredVideo, threshold: float) -> list[range]:
    """Return the frames of every alarm."""
    return spans([score >= threshold for score in video.scores for _ in range(16)])


def most_matches(events: list[range], alarms: list[range], smallest: float) -> int:
    """Return the largest number of one-to-one matches, by trying all of them."""
    if not events:
        return 0
    first, *others = events
    best = most_matches(others, alarms, smallest)
    for k, alarm in enumerate(alarms):
        shared = len(set(first) & set(alarm))
        if shared and shared / len(set(first) | set(alarm)) >= smallest:
            best = max(best, 1 + most_matches(others, alarms[:k] + alarms[k + 1 :], smallest))
    return best


def slow_threshold(normal: list[ScoredVideo], limit: float) -> float:
    """Return the lowest threshold, from above: the number of alarms changes just above a score."""
    scores = {score for video in normal for score in video.scores}
    candidates = {*scores, *(np.nextafter(score, np.float32(2)) for score in scores), np.float32(0)}
    lowest = math.inf
    for threshold in sorted(candidates, reverse=True):
        if sum(len(alarms_of(video, threshold)) for video in normal) > limit:
            break
        lowest = threshold
    return lowest


def slow_localisation(videos: list[ScoredVideo], fps: float) -> dict[str, float]:
    """Return every metric by its definition."""
    normal = [video for video in videos if video.label == "Normal"]
    hours, result = sum(len(video.frame_labels) for video in normal) / fps / 3600, {}
    for rate in RATES:
        values = dict.fromkeys(COLUMNS, math.nan)
        if normal:
            values["threshold"] = slow_threshold(normal, rate * hours)
            values |= slow_comparison(videos, values["threshold"], fps)
        result |= {metric_key(column, rate): value for column, value in values.items()}
    return result


def slow_comparison(videos: list[ScoredVideo], threshold: float, fps: float) -> dict[str, float]:
    touched = events = found = anomalous = alarms = 0
    matches, delays = dict.fromkeys(OVERLAPS, 0), []
    for video in videos:
        here, truth = alarms_of(video, threshold), spans(video.frame_labels)
        frames = {frame for alarm in here for frame in alarm}
        alarms, events = alarms + len(here), events + len(truth)
        for event in truth:
            hits = [frame for frame in event if frame in frames]
            found, anomalous, touched = found + len(hits), anomalous + len(event), touched + bool(hits)
            delays += [(hits[0] - event[0]) / fps] if hits else []
        for smallest in OVERLAPS:
            matches[smallest] += most_matches(truth, here, smallest)
    if not events:
        return {}
    return {
        "events touched": touched / events,
        "recall": found / anomalous,
        **{f"F1@{smallest}": 2 * number / (alarms + events) for smallest, number in matches.items()},
        "delay (s)": float(np.median(delays)) if delays else math.nan,
    }


def random_videos(seed: int) -> list[ScoredVideo]:
    """Return nine videos with up to 12 snippets, ties, and up to three events that may reach an end of the video."""
    rng, videos = np.random.default_rng(seed), []
    for number in range(9):
        length = int(rng.integers(1, 13))
        frames = np.zeros(16 * length, np.uint8)
        label = ("Normal", "Abuse", "Arson")[number % 3]
        for _ in range(int(rng.integers(1, 4)) if label != "Normal" else 0):
            start, end = np.sort(rng.integers(0, 16 * length + 1, 2))
            frames[start : end + 1] = 1
        scores = (rng.random(length) + frames.reshape(-1, 16).mean(1) * rng.random()).round(1) / 2
        videos.append(scored(f"v{number}", label, scores, frames))
    return videos


def check(result: dict[str, float], expected: dict[str, float]) -> None:
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("seed", range(40))
def test_metrics_equal_loops_over_frames(seed: int) -> None:
    videos = random_videos(seed)
    result = localisation(videos, SLOW, resamples=1)
    check(result.metrics, slow_localisation(videos, SLOW.fps))
    assert result.events == sum(len(spans(video.frame_labels)) for video in videos)
    assert result.hours == pytest.approx(sum(len(v.scores) for v in videos[::3]) / 22.5)


def test_resamples_equal_the_drawn_videos() -> None:
    """Each resample has its own hours and thresholds, and a video drawn twice counts twice."""
    videos = random_videos(3)
    result = localisation(videos, SLOW, resamples=60)  # more than one chunk
    for row, times in enumerate(draw_counts(9, 60).astype(int)):
        drawn = [video for video, n in zip(videos, times, strict=True) for _ in range(n)]
        check({name: values[row] for name, values in result.resampled.items()}, slow_localisation(drawn, SLOW.fps))


ONE_EVENT = scored("a", "Abuse", [0.2, 0.8, 0.9, 0.3], snippets([0, 1, 1, 0]))
QUIET = scored("n", "Normal", [0.1, 0.2, 0.1], snippets([0, 0, 0]))
CASES = {
    "no normal video": [ONE_EVENT],
    "no event": [QUIET, scored("m", "Normal", [0.4], snippets([0]))],
    "all scores equal": [replace(ONE_EVENT, scores=np.full(4, 0.5, np.float32)),
                         replace(QUIET, scores=np.full(3, 0.5, np.float32))],
    "all scores 0 or 1": [replace(ONE_EVENT, scores=np.float32([0, 1, 1, 0])),
                          replace(QUIET, scores=np.float32([0, 1, 0]))],
    "anomalous throughout": [scored("a", "Abuse", [0.3, 0.6], snippets([1, 1])), QUIET],
    # neither an event nor an alarm goes on in the next video
    "neighbours": [scored("a", "Abuse", [0.1, 0.9], snippets([0, 1])),
                   scored("b", "Arson", [0.9], snippets([1])), QUIET],
    # the first snippet begins an alarm, whatever the last one is
    "normal video first": [scored("m", "Normal", [0.5], snippets([0])),
                           scored("a", "Abuse", [0.4, 0.9], snippets([0, 1]))],
    "events of one frame": [scored("a", "Abuse", [0.9, 0.1, 0.9], np.arange(48) % 5 == 0), QUIET],
    "an alarm over two events": [scored("a", "Abuse", [0.9] * 5, snippets([1, 1, 0, 1, 1])), QUIET],
    "a video without snippets": [scored("a", "Abuse", [], snippets([])), ONE_EVENT, QUIET],
}  # fmt: skip


@pytest.mark.parametrize("videos", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("fps", [0.001, 0.02, 30])
@pytest.mark.filterwarnings("error")
def test_edge_cases_equal_loops_over_frames(videos: list[ScoredVideo], fps: float) -> None:
    result = localisation(videos, replace(UCFCRIME, fps=fps), resamples=5)
    check(result.metrics, slow_localisation(videos, fps))


def at(result: Localisation, rate: float) -> list[float]:
    return [result.metrics[metric_key(column, rate)] for column in COLUMNS]


def test_metrics_equal_values_worked_by_hand() -> None:
    """Half an hour of normal video allows 0, 0 and 5 alarms, so two thresholds lie just above the largest, 0.5.

    The event has frames 8 … 47, the alarm above 0.5 the frames 32 … 47: 16 of 40, after 24 frames.
    """
    labels = np.repeat([0, 1, 0], [8, 40, 16])
    event = scored("a", "Abuse", [0.1, 0.3, 0.7, 0.2], labels)
    normal = scored("n", "Normal", [0.1, 0.5] * 3, np.zeros(96))
    result = localisation([event, normal], replace(UCFCRIME, fps=96 / 1800))
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    delay = 24 / (96 / 1800)
    assert result.hours == pytest.approx(0.5) and result.events == 1
    for rate in (0.1, 1):
        assert at(result, rate) == pytest.approx([above, 1, 16 / 40, 2 / 2, 0, 0, delay])
    # three alarms in the normal video are allowed down to a threshold of 0, at which each video is one alarm
    assert at(result, 10) == pytest.approx([0, 1, 1, 2 / 3, 2 / 3, 0, 0])


def test_threshold_counts_every_higher_one() -> None:
    """At 0.3 the two alarms of 0.5 have merged into one, but a lower threshold must not skip the excess at 0.5."""
    normal = scored("n", "Normal", [0.5, 0.3, 0.5], np.zeros(48))
    result = localisation([normal, ONE_EVENT], replace(UCFCRIME, fps=48 / 3600))  # one hour
    assert result.metrics[metric_key("threshold", 1)] == np.nextafter(np.float32(0.5), np.float32(1))
    assert result.metrics[metric_key("threshold", 10)] == 0


def test_alarm_threshold_is_that_of_normal_videos_alone() -> None:
    zeros = snippets([0] * 12)
    normal = [scored(f"n{k}", "Normal", [0.1] * 10 + [peak, 0.1], zeros) for k, peak in enumerate((0.9, 0.7))]
    abnormal = scored("a", "Abuse", [0.95] * 12, zeros)
    assert normal_hours([*normal, abnormal], SLOW) == pytest.approx(24 / 22.5)  # one alarm is allowed
    threshold = alarm_threshold([*normal, abnormal], SLOW)
    assert threshold == pytest.approx(0.7) and threshold > np.float32(0.7)
    assert alarm_threshold([*normal, abnormal], SLOW, rate=2) < 0.7
    assert alarm_threshold(normal, UCFCRIME) == pytest.approx(0.9)  # a minute of video allows no alarm
    assert math.isnan(alarm_threshold([abnormal], SLOW))


def test_frame_rate_scales_hours_and_delay() -> None:
    """A data set without fps counts as 30 frames per second."""
    late = scored("a", "Abuse", [0.1, 0.9], snippets([1, 1]))
    unknown, fast = (localisation([late, QUIET], replace(UCFCRIME, fps=fps)) for fps in (None, 60))
    assert (unknown.fps, fast.fps) == (30, 60)
    assert unknown.hours == pytest.approx(48 / 30 / 3600) and fast.hours == pytest.approx(48 / 60 / 3600)
    assert at(unknown, 1)[-1] == pytest.approx(16 / 30) and at(fast, 1)[-1] == pytest.approx(16 / 60)


def test_invalid_labels_are_refused() -> None:
    with pytest.raises(InputError, match="short: 16 frame labels for 2 snippets"):
        localisation([scored("short", "Abuse", [0.1, 0.2], snippets([1]))], UCFCRIME)


def test_intervals_contain_the_metrics() -> None:
    result = localisation(random_videos(0), SLOW, resamples=200)
    assert set(result.intervals) == set(result.metrics)
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high, name


# events touched, recall, F1 and delay at 0.1, 1 and 10 false alarms an hour
PEL4VAD = {
    0.1: (0.2821, 0.1133, 0.1484, 0.0547, 0.0156, 13 / 30),
    1: (0.6218, 0.3552, 0.2500, 0.1173, 0.0510, 0),
    10: (0.8526, 0.6586, 0.2230, 0.1097, 0.0389, 0),
}


def test_published_score_touches_28_62_and_85_percent(realdata: Path) -> None:
    videos = published(realdata, "ucf_gt_290.published", "ucf_pel4vad_scores", "ucf_test_290")
    result = localisation(videos, UCFCRIME, resamples=2)
    assert (result.events, result.fps) == (156, 30) and result.hours == pytest.approx(6.0, abs=0.05)
    for rate, expected in PEL4VAD.items():
        assert at(result, rate)[1:] == pytest.approx(expected, abs=5e-5)
    # with events widened to whole snippets, an independent count found 0.07, 0.13, 0.13
    wide = [replace(v, frame_labels=np.repeat(v.frame_labels.reshape(-1, 16).max(1), 16)) for v in videos]
    f1 = [localisation(wide, UCFCRIME, resamples=1).metrics[metric_key("F1@0.5", rate)] for rate in RATES]
    assert np.round(f1, 2).tolist() == [0.07, 0.13, 0.13]
