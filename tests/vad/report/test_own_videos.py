"""Answers for your own videos: events with hysteresis, threshold, files, and names that contain HTML."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import IEFVAD
from vad.files import InputError
from vad.report.own_videos import (
    UNTUNED,
    Threshold,
    answer_of,
    choose_threshold,
    find_events,
    finished_answer,
    missing_packages,
    own_video,
    own_videos_table,
    shown_snippets,
    write_answer,
    write_index,
)
from vad.scoring import Embeddings, ScoredVideo, score

needs_pages = pytest.mark.skipif(bool(missing_packages()), reason=missing_packages())


def video(name: str, scores: list[float]) -> ScoredVideo:
    values = np.array(scores, np.float32)
    image = np.linspace(0.4, 0.45, len(values)).astype(np.float32)
    weights = {"image": image, "event": 1 - image}
    return ScoredVideo(name, "", values, weights, {"image": image[:2]}, np.zeros(16 * len(values)))


def answer(folder: Path, scored: ScoredVideo, threshold: Threshold, note: str = "", **more: Any) -> dict[str, Any]:
    """Write the answer to a video with half a second per snippet."""
    times = np.arange(len(scored.scores) + 1) / 2
    events = find_events(scored.scores, threshold)
    content = answer_of(scored, times, events, threshold, {"checkpoint": "a.pth"}, note)
    picture, counts = np.full((24, 32, 3), 90, np.uint8), np.full((256, 340), 3, np.uint8)
    chosen = {k for group in shown_snippets(scored.scores, events) for k in group}
    maps = dict.fromkeys(chosen, counts)
    options = {"clip": None, "embed": False, **more}
    write_answer(folder, scored, content, times, events, dict.fromkeys(chosen, picture), maps, **options)
    return content


@pytest.mark.parametrize(("scores", "expected"), [
    ([0.1, 0.45, 0.6, 0.45, 0.2, 0.45], [(1, 4)]),  # a run that stays below the threshold is no event
    ([0.6, 0.45, 0.6], [(0, 3)]),  # the score may fall below the threshold inside an event
    ([0.6, 0.39, 0.5], [(0, 1), (2, 3)]),
    ([0.4, 0.4], []),
    ([], []),
])  # fmt: skip
def test_events_use_hysteresis(scores: list[float], expected: list[tuple[int, int]]) -> None:
    assert find_events(np.array(scores), Threshold(0.5, "")) == expected


def test_threshold_comes_from_flag_then_checkpoint() -> None:
    content = {"threshold": {"value": 0.8, "source": "one false alarm per hour in 2 hours of normal test videos"}}
    assert choose_threshold(0.3, content) == Threshold(0.3, "--threshold")
    assert choose_threshold(None, content).value == 0.8
    assert "one false alarm per hour" in choose_threshold(None, content).source
    unknown = {"threshold": {"value": float("nan"), "source": "…"}}
    assert choose_threshold(None, {}).value == choose_threshold(None, unknown).value == UNTUNED
    with pytest.raises(InputError, match=r"--threshold 1\.5 is not a score"):
        choose_threshold(1.5, content)


def test_peaks_are_those_of_the_highest_events() -> None:
    scores = np.zeros(64)
    scores[[3, 10, 20]] = 0.7, 0.9, 0.8
    even, peaks = shown_snippets(scores, [(2, 5), (10, 11), (19, 22)])
    assert even == [4, 12, 20, 28, 36, 44, 52, 60] and peaks == [10, 20, 3]


def test_files_say_when_and_how_high(tmp_path: Path) -> None:
    scored = video("clip", [0.1, 0.6, 0.9, 0.1])
    threshold = Threshold(0.5, "--threshold")
    content = answer(tmp_path, scored, threshold)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [float(row["start"]) for row in rows] == [0, 0.5, 1, 1.5] and float(rows[3]["end"]) == 2
    assert [float(row["score"]) for row in rows] == pytest.approx(scored.scores, abs=1e-6)
    assert float(rows[1]["weight_image"]) + float(rows[1]["weight_event"]) == pytest.approx(1)
    stored = json.loads((tmp_path / "events.json").read_text())
    assert stored == content and stored["threshold"] == {"value": 0.5, "low": 0.4, "source": "--threshold"}
    assert stored["events"] == [{"start": 0.5, "end": 1.5, "duration": 1.0, "peak": 0.9, "peak_time": 1.0}]
    assert (tmp_path / "timeline.png").stat().st_size > 10_000
    assert finished_answer(tmp_path, {"checkpoint": "a.pth"}) == content
    assert finished_answer(tmp_path, {"checkpoint": "b.pth"}) is None
    table = own_videos_table([content], threshold)
    assert table.frame.to_numpy().tolist() == [["clip", "2.0", "0.900 at 1.0 s", "0.5 – 1.5 s"]]
    many = {**content, "events": content["events"] * 7}
    assert own_videos_table([many], threshold).frame.iloc[0, 3].endswith("0.5 – 1.5 s and 2 more")


@needs_pages
def test_index_ranks_videos_by_highest_score(tmp_path: Path) -> None:
    answers = []
    for name, scores in (("low", [0.1, 0.2]), ("cam/high", [0.9, 0.1]), ("middle", [0.5, 0.5])):
        scored = video(name, scores)
        answers.append((answer(tmp_path / name, scored, Threshold(0.5, "--threshold")), scored.scores))
    failed = {"broken": "the file is empty", "\udcff": "its name is not valid UTF-8"}
    write_index(tmp_path / "index.html", answers, failed)
    page = (tmp_path / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('<a href="')[1:]]
    assert links == ["cam/high/report.html", "middle/report.html", "low/report.html"]
    assert all((tmp_path / link).is_file() for link in links)
    assert "broken: the file is empty" in page and "?: its name is not valid UTF-8" in page
    assert page.count("data:image/png;base64,") == 3


@needs_pages
@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a'&amp;{{ 7 * 7 }}"])
def test_names_and_notes_with_html_stay_text(tmp_path: Path, name: str) -> None:
    scored = video(name, [0.9, 0.1])
    content = answer(tmp_path / "x", scored, Threshold(0.5, name), note=name)
    write_index(tmp_path / "index.html", [(content, scored.scores)], {name: name})
    for page in ((tmp_path / "x" / "report.html").read_text(), (tmp_path / "index.html").read_text()):
        assert name not in page.replace("a'&amp;amp;{{ 7 * 7 }}", "")
        assert "<script>alert" not in page and "<img src=x" not in page and "a'&amp;49" not in page


@needs_pages
def test_report_is_one_file_without_network(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"12345")
    answer(tmp_path, video("clip", [0.9, 0.1]), Threshold(0.5, ""), clip=tmp_path / "video.mp4", embed=True)
    page = (tmp_path / "report.html").read_text()
    assert "data:video/mp4;base64,MTIzNDU=" in page and not (tmp_path / "video.mp4").exists()
    body = page.replace(page[page.index("<script>") : page.index("</script>")], "")  # without plotly.js
    assert "http" not in body
    assert "MIT license" in page  # of plotly.js


@needs_pages
def test_long_videos_show_minutes_too(tmp_path: Path) -> None:
    answer(tmp_path, video("clip", [0.1] * 131 + [0.9] * 9), Threshold(0.5, ""))  # half a second per snippet
    assert "1:05 · peak 0.900" in (tmp_path / "report.html").read_text()
    answer(tmp_path, video("clip", [0.9, 0.1]), Threshold(0.5, ""))
    assert "0:00 · peak" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_own_video_is_cut_to_its_shorter_stream(tmp_path: Path, padding: str) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, padding=padding)
    longer, event = (np.random.default_rng(S).standard_normal((S, 16)).astype(np.float32) for S in (12, 9))
    for name, x in (("longer", longer), ("cut", longer[:9]), ("event", event)):
        np.save(tmp_path / f"{name}.npy", x)
    scored = []
    for name in ("longer.npy", "cut.npy"):
        own = own_video("x", {"image": {5: tmp_path / name}, "event": {5: tmp_path / "event.npy"}})
        assert own.snippets == 9 and not own.frame_labels.any() and len(own.frame_labels) == 9 * 16
        scored += score(model, [own], Embeddings("refuse"), window=16, device=torch.device("cpu"))
    # a snippet past the end would be attended like padding
    np.testing.assert_array_equal(scored[0].scores, scored[1].scores)


def test_crops_of_own_video_are_averaged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, modality="image")
    files = {crop: tmp_path / f"{crop}.npy" for crop in (0, 5)}
    for crop, path in files.items():
        np.save(path, np.random.default_rng(crop).standard_normal((6, 16)).astype(np.float32))

    def scores(crops: dict[int, Path]) -> np.ndarray:
        own = own_video("x", {"image": crops})
        return score(model, [own], Embeddings("refuse"), window=16, device=torch.device("cpu"))[0].scores

    single = [scores({crop: path}) for crop, path in files.items()]
    assert scores(files) == pytest.approx(np.mean(single, axis=0), abs=1e-6)
