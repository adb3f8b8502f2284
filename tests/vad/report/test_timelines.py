"""Timelines: choice of videos, and positions of anomalous intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from model import IEFVAD, save_checkpoint
from vad.evaluation import open_run
from vad.files import InputError
from vad.options import resolve
from vad.report import plots
from vad.report.timelines import (
    draw_timeline,
    draw_timelines,
    only_named,
    read_thumbnails,
    report_timelines,
    select_videos,
    spans,
)
from vad.scoring import ScoredVideo

SPANS = ((10, 40), (64, 65), (300, 320))


def video(
    name: str = "Arson009", marked: tuple[tuple[int, int], ...] = SPANS, label: str = "Arson", snippets: int = 20
) -> ScoredVideo:
    rng = np.random.default_rng(len(name))
    frames = np.zeros(16 * snippets, np.uint8)
    for start, end in marked:
        frames[start:end] = 1
    image = rng.uniform(0.45, 0.5, snippets).astype(np.float32)
    scores = rng.random(snippets).astype(np.float32)
    return ScoredVideo(name, label, scores, {"image": image, "event": 1 - image}, {"image": image[:8]}, frames)


def film(path: Path, frames: int = 70, fps: int = 20) -> Path:
    """Write a video whose frame k has the grey value 3·k modulo 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for k in range(frames):
        writer.write(np.full((48, 64, 3), 3 * k % 256, np.uint8))
    writer.release()
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Return a function that draws a timeline and returns the figure instead of writing it."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda fig, path: figures.append(fig) or [path])

    def call(scored: ScoredVideo, **options: object) -> Figure:
        draw_timeline(scored, tmp_path / "x", **options)
        return figures[-1]

    return call


@pytest.mark.parametrize(("mask", "expected"), [
    ([], []), ([0, 0], []), ([1, 1], [(0, 2)]), ([0, 1, 0, 1, 1], [(1, 2), (3, 5)]), ([False, True], [(1, 2)]),
])  # fmt: skip
def test_spans_are_half_open(mask: list[int], expected: list[tuple[int, int]]) -> None:
    assert spans(np.array(mask)) == expected


@pytest.mark.parametrize("fps", [None, 25.0])
def test_anomalous_intervals_are_shaded_in_both_panels(drawn: Callable[..., Figure], fps: float | None) -> None:
    scene = video()
    score_axes, weight_axes = drawn(scene, fps=fps).axes
    expected = [pytest.approx((s / (fps or 1), e / (fps or 1))) for s, e in SPANS]
    for ax in (score_axes, weight_axes):
        shaded = [p for p in ax.patches if isinstance(p, Rectangle)]
        assert [(p.get_x(), p.get_x() + p.get_width()) for p in shaded] == expected
    (curve,) = (p for p in score_axes.patches if not isinstance(p, Rectangle))
    assert np.array_equal(curve.get_data().values, scene.scores)
    image, event = (p for p in weight_axes.patches if not isinstance(p, Rectangle))
    assert np.array_equal(image.get_data().values, scene.weights["image"])  # image before event
    assert np.array_equal(event.get_data().values, scene.weights["event"])
    assert event.get_label() == r"$\hat{w}_e$ (event)"
    assert weight_axes.get_xlim() == pytest.approx((0, 320 / (fps or 1)))  # 20 snippets of 16 frames
    assert weight_axes.get_ylabel() == "fusion weight"
    assert weight_axes.get_xlabel() == ("time (s)" if fps else "frame")


def test_single_stream_score_has_colour_of_its_stream(drawn: Callable[..., Figure]) -> None:
    ones = np.ones(20, np.float32)
    for weights, modality in ((video().weights, "fusion"), ({"event": ones}, "event")):
        (curve,) = (p for p in drawn(replace(video(), weights=weights)).axes[0].patches if not isinstance(p, Rectangle))
        assert curve.get_edgecolor()[:3] == pytest.approx(to_rgb(plots.COLOUR[modality]))


def test_weights_of_three_streams_lie_around_a_third(drawn: Callable[..., Figure]) -> None:
    third = np.full(20, 1 / 3, np.float32)
    fig = drawn(replace(video(), weights={"image": third, "event": third, "audio": third}))
    score, weights = fig.axes[-2:]
    assert np.mean(weights.get_ylim()) == pytest.approx(1 / 3) and np.ptp(weights.get_ylim()) == pytest.approx(0.02)
    labels = [text.get_text() for text in weights.get_legend().get_texts()]
    assert [label.split("(")[1] for label in labels] == ["image)", "event)", "audio)"]
    (curve,) = (p for p in score.patches if not isinstance(p, Rectangle))
    assert curve.get_edgecolor()[:3] == pytest.approx(to_rgb(plots.COLOUR["image+event+audio"]))


def test_legend_names_ground_truth_at_most_once(drawn: Callable[..., Figure]) -> None:
    def legend(scored: ScoredVideo) -> list[str]:
        return [text.get_text() for text in drawn(scored).axes[0].get_legend().get_texts()]

    assert legend(video()) == ["ground truth", "anomaly score"]
    assert legend(video(marked=())) == ["anomaly score"]


def test_thumbnails_are_drawn_side_by_side(drawn: Callable[..., Figure]) -> None:
    pictures = [np.full((24, 32, 3), k, np.uint8) for k in range(4)]
    strip = drawn(video(), thumbnails=pictures).axes[0]
    assert [image.get_array()[0, 0, 0] for image in strip.images] == [0, 1, 2, 3]
    assert [image.get_extent()[0] for image in strip.images] == [0, 80, 160, 240]  # of 320 frames


def test_thumbnails_come_from_middles_of_equal_parts(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", frames=80)
    thumbnails, fps = read_thumbnails(path, 80)
    # the middles of eighths of 80 frames are 5, 15 … 75; the grey value is three times the frame number
    assert [round(float(picture.mean())) for picture in thumbnails] == pytest.approx(
        [15, 45, 75, 105, 135, 165, 195, 225], abs=3
    )
    assert fps == 20
    assert read_thumbnails(path, 200) == ([], 20)  # a truncated file gives no thumbnails
    assert read_thumbnails(tmp_path / "none.avi", 80) == read_thumbnails(None, 80) == ([], None)


def test_selection_takes_one_video_of_each_label_first() -> None:
    videos = [
        video("normal", marked=(), label="Normal"),
        video("a", marked=((0, 30),), label="Arson"),
        video("b", marked=((0, 20),), label="Arson"),
        video("c", marked=((0, 10),), label="Abuse"),
    ]
    assert [v.name for v in select_videos(videos)] == ["a", "c", "b"]
    assert [v.name for v in select_videos(videos, 2)] == ["a", "c"]


def test_timeline_files_are_named_and_reproducible(tmp_path: Path) -> None:
    film(tmp_path / "films" / "deep" / "Arson009.avi", frames=330)
    videos = [video(), video("v=$x$/1")]
    paths = draw_timelines(videos, tmp_path / "one", tmp_path / "films", 25.0)
    names = ["timeline_Arson009.png", "timeline_Arson009.pdf", "timeline_v=$x$_1.png", "timeline_v=$x$_1.pdf"]
    assert [path.name for path in paths] == names
    again = draw_timelines(videos, tmp_path / "two", tmp_path / "films", 25.0)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    with_frames, without = (cv2.imread(str(path)).shape[0] for path in paths[::2])
    assert with_frames > without  # a row of frames is drawn above the score


@pytest.fixture
def run(tiny, tmp_path):
    """Return an untrained checkpoint opened on the eight videos of the tiny data set."""
    torch.manual_seed(0)
    path = tmp_path / "a.pth"
    save_checkpoint(path, IEFVAD(embed_dim=16, num_refinement_steps=1), options=resolve({}).recorded(), seed=0)
    places = {"feature_root": str(tiny.root), "list_root": str(tiny.lists)}
    return open_run(path, places, torch.device("cpu"), {})


def test_named_videos_match_any_spelling(run) -> None:
    chosen = only_named(run.test, ["Fighting015_x264", "Arson013_x264.mp4", "Arson013_x264"])
    assert [v.name for v in chosen.videos] == ["Fighting015_x264", "Arson013_x264"]  # without duplicates
    assert only_named(run.test, []) is run.test
    with pytest.raises(InputError, match=r"Arson018: .* no test video of this name\. Similar names: Arson017_x"):
        only_named(run.test, ["Arson018"])
    with pytest.raises(InputError, match=r"of this name\. The first is Normal012_x264"):
        only_named(run.test, ["?"])


def test_timeline_report_has_table_and_figures(run, tmp_path: Path) -> None:
    (table,), pictures = report_timelines(run, tmp_path / "all", [], None)
    assert len(pictures) == 2 * 4 == len(list((tmp_path / "all").glob("timeline_*")))  # the four anomalous videos
    assert {suffix.suffix for suffix in (tmp_path / "all").glob("timelines.*")} == {".txt", ".md", ".tex", ".csv"}
    (table,), _ = report_timelines(run, tmp_path / "named", ["Arson013_x264", "Normal012_x264"], None)
    assert list(table.frame.columns) == [
        "video", "label", "anomalous frames", "AUC (%)", "score inside", "score outside",
    ]  # fmt: skip
    arson, normal = table.frame.to_numpy().tolist()
    test = next(v for v in run.test.videos if v.name == "Arson013_x264")
    ((start, end),) = spans(test.frame_labels)
    scores = next(v for v in run.videos if v.name == test.name).scores
    assert arson[2] == f"{start} – {end}"
    assert arson[4] == f"{scores[start // 16 : end // 16].mean():.3f}"  # the anomaly covers whole snippets
    assert normal[2:5] == ["none", "n/a", "-"]
    assert "--video_dir" in table.notes[1] and "profile default" in table.protocol


def test_thumbnails_come_from_frames_in_numeric_order(tmp_path: Path) -> None:
    """Frame 9 precedes frame 10 although the names are not padded; too few frames give none."""
    for number in range(16):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 6, 3), 10 * number, np.uint8))
    pictures, fps = read_thumbnails(tmp_path, 16)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [10 * (2 * k + 1) for k in range(8)] and fps is None
    assert read_thumbnails(tmp_path, 17) == ([], None)
