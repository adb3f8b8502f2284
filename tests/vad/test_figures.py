"""Figures: files are written, and what is drawn is what was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vad import plotting
from vad.calibration import BINS, reliability
from vad.errors import InputError
from vad.figures_classes import draw_modalities, draw_radar
from vad.figures_curves import draw_curves
from vad.figures_probes import draw_probe_curves, draw_weight_change
from vad.figures_reliability import draw_reliability
from vad.figures_timeline import draw_timeline, intervals
from vad.figures_training import draw_training
from vad.metrics import average_precision, samples
from vad.scoring import ScoredVideo


def video(name: str = "Arson009", spans: tuple[tuple[int, int], ...] = ((10, 40), (64, 65), (300, 320))) -> ScoredVideo:
    rng = np.random.default_rng(len(name))
    frames = np.zeros(320, np.uint8)
    for start, end in spans:
        frames[start:end] = 1
    weight = rng.uniform(0.45, 0.5, 20).astype(np.float32)
    return ScoredVideo(name, "Arson", rng.random(20).astype(np.float32), weight, 1 - weight, weight[:8], frames)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Runs a draw_… function and returns the figure it was about to write."""
    kept: list[Figure] = []

    def keep(fig: Figure, path: Path) -> list[Path]:
        kept.append(fig)
        return [path]

    monkeypatch.setattr(plotting, "save", keep)

    def call(draw: Callable[..., list[Path]], *arguments: object, **options: object) -> Figure:
        draw(*arguments, tmp_path / "x", **options)
        return kept[-1]

    return call


def table() -> pd.DataFrame:
    rows = [("CLEAN", 0, 0.9, 0.5), ("EV_NOISE", 0.5, 0.85, 0.52), ("EV_NOISE", 0.1, 0.89, 0.51)]
    rows += [("IMG_NOISE", 0.1, 0.8, 0.45), ("IMG_NOISE", 0.5, 0.6, 0.4)]
    return pd.DataFrame(rows, columns=["masked", "level", "AUC", "w_image"])


LOG = pd.DataFrame(
    {"step": [1, 2, 3], "epoch": [0, 0, 1], "loss": [3, 2, 1], "loss_kl": [1, 1, 0], "AUC": [0.5, 0.6, 0.7]}
)
RADAR = {"fusion": {"a": 0.9, "b": 0.8, "c": 0.7}, "image": {"a": 0.6, "b": 0.35}}
CHANGE = {("image", 0.1): -np.arange(8.0), ("image", 0.5): -2 * np.arange(8.0), ("event", 0.1): np.ones(8)}
EVERY = [
    (draw_timeline, video(), {"fps": 30, "thumbnails": [np.zeros((24, 32, 3), np.uint8)] * 4}),
    (draw_radar, RADAR, {"metric": "AUC", "title": "t"}),
    (draw_weight_change, CHANGE, {"title": "t"}),
    (draw_probe_curves, table(), {"metric": "AUC", "title": "t"}),
    (draw_training, LOG, {"title": "t"}),
    (draw_curves, {"fusion": [video()]}, {"title": "t"}),
    (draw_reliability, {"fusion": reliability(samples([video()]))}, {"title": "t"}),
    (draw_modalities, {"AUC": {"image": [0.5, 0.6], "fusion": [0.9]}}, {"title": "t"}),
]


@pytest.mark.parametrize(("draw", "data", "options"), EVERY, ids=lambda v: getattr(v, "__name__", ""))
def test_png_and_pdf_are_written_whole_and_again_the_same(
    draw: Callable[..., list[Path]], data: object, options: dict[str, object], tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    paths = draw(data, tmp_path / "sub" / "a.b", **options)
    assert [p.name for p in paths] == ["a.b.png", "a.b.pdf"]  # a dot in the name is no suffix
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["a.b.pdf", "a.b.png"]
    png, pdf = (p.read_bytes() for p in paths)
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert draw(data, tmp_path / "again", **options)[1].read_bytes() == pdf
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("labels", "expected"), [
    ([], []),
    ([0, 0], []),
    ([1, 1], [(0, 2)]),
    ([0, 1, 0, 1, 1], [(1, 2), (3, 5)]),
])
def test_intervals(labels: list[int], expected: list[tuple[int, int]]) -> None:
    assert intervals(np.array(labels, np.uint8)) == expected


@pytest.mark.parametrize("fps", [None, 25.0])
def test_timeline_shades_each_interval_where_it_is(drawn: Callable[..., Figure], fps: float | None) -> None:
    scene = video()
    fig = drawn(draw_timeline, scene, fps=fps)
    score, weights = fig.axes
    for ax in (score, weights):
        spans = [p for p in ax.patches if isinstance(p, Rectangle)]
        assert [(p.get_x(), p.get_x() + p.get_width()) for p in spans] == [
            pytest.approx((s / (fps or 1), e / (fps or 1))) for s, e in ((10, 40), (64, 65), (300, 320))
        ]
    curves = [p for p in score.patches if not isinstance(p, Rectangle)]
    assert np.array_equal(curves[0].get_data().values, scene.scores)
    image, event = (p.get_data().values for p in weights.patches if not isinstance(p, Rectangle))
    assert np.array_equal(image, scene.weight_image)  # image before event
    assert np.array_equal(event, scene.weight_event)
    assert weights.get_xlim() == pytest.approx((0, 320 / (fps or 1)))
    assert weights.get_xlabel() == ("time (s)" if fps else "frame")


def test_timeline_of_a_normal_video_names_no_truth(drawn: Callable[..., Figure]) -> None:
    score = drawn(draw_timeline, video(spans=())).axes[0]
    assert [t.get_text() for t in score.get_legend().get_texts()] == ["anomaly score"]


def test_timeline_places_thumbnails_side_by_side(drawn: Callable[..., Figure]) -> None:
    pictures = [np.full((24, 32, 3), k, np.uint8) for k in range(4)]
    strip = drawn(draw_timeline, video(), thumbnails=pictures).axes[0]
    assert [image.get_array()[0, 0, 0] for image in strip.images] == [0, 1, 2, 3]
    assert [image.get_extent()[0] for image in strip.images] == [0, 80, 160, 240]


def test_radar_holds_every_class_in_percent(drawn: Callable[..., Figure]) -> None:
    ax = drawn(draw_radar, RADAR, metric="AUC", title="t").axes[0]
    image, fusion = ax.lines  # image before fusion whatever order the caller had
    assert (image.get_label(), fusion.get_label()) == ("image", "fusion")
    assert fusion.get_ydata() == pytest.approx([90, 80, 70, 90])  # closed
    assert image.get_ydata() == pytest.approx([60, 35, np.nan, 60], nan_ok=True)
    low, high = ax.get_ylim()
    assert (low, high) == (20, 100)  # 35 is inside, and the title says where the centre is
    assert "centre = 20" in ax.get_title()


def test_radar_of_two_classes_becomes_bars(drawn: Callable[..., Figure]) -> None:
    ax = drawn(draw_radar, {"image": {"a": 0.5, "b": 0.25}}, metric="AP", title="t").axes[0]
    assert [bar.get_height() for bar in ax.patches] == [50, 25]
    assert ax.get_ylabel() == "AP (%)"


def test_weight_change_has_image_above_and_the_levels_asked_for(drawn: Callable[..., Figure]) -> None:
    above, below = drawn(draw_weight_change, CHANGE, title="t").axes
    assert (above.get_title(), below.get_title()) == ("image masked", "event masked")
    lines = {line.get_label(): line.get_ydata() for line in above.lines if line.get_label().endswith("%")}
    assert list(lines) == ["50 %", "10 %"]
    assert np.array_equal(lines["10 %"], CHANGE["image", 0.1])
    five = {("image", level): np.zeros(3) for level in (0.05, 0.1, 0.2, 0.3, 0.5)}
    ax = drawn(draw_weight_change, five, title="t").axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["5 %", "20 %", "50 %"]


def test_probe_curves_begin_clean_and_run_by_level(drawn: Callable[..., Figure]) -> None:
    left, right = drawn(draw_probe_curves, table(), metric="AUC", title="t").axes
    image, event = left.lines
    assert image.get_color() == plotting.COLOUR["image"]
    assert list(image.get_xdata()) == [0, 10, 50]
    assert image.get_ydata() == pytest.approx([90, 80, 60])
    assert event.get_ydata() == pytest.approx([90, 89, 85])
    assert right.lines[1].get_ydata() == pytest.approx([0.5, 0.51, 0.52])


def test_training_curves(drawn: Callable[..., Figure]) -> None:
    left, right = drawn(draw_training, LOG, title="t").axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["total", "kl"]
    assert list(left.lines[0].get_ydata()) == [3, 2, 1]
    assert right.lines[0].get_ydata() == pytest.approx([50, 60, 70])
    assert list(left.lines[-1].get_xdata()) == [3, 3]  # the one change of epoch
    with pytest.raises(InputError, match="no column loss; its columns are step"):
        draw_training(LOG[["step"]], Path("x"), title="t")


def test_curves_are_those_of_the_printed_numbers(drawn: Callable[..., Figure]) -> None:
    videos = [video(), video("Fire")]
    left, right = drawn(draw_curves, {"fusion": videos}, title="t").axes
    x, y = left.lines[0].get_data()
    printed = left.get_legend().get_texts()[0].get_text()
    assert f"AUC {100 * np.trapezoid(y, x):.2f} %" in printed
    # the steps as drawn (each value held until the next x) enclose the average precision
    recall, precision = right.lines[0].get_data()
    assert right.lines[0].get_drawstyle() == "steps-post"
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(average_precision(samples(videos)))
    with pytest.raises(InputError, match="one kind is missing"):
        draw_curves({"fusion": [video(spans=())]}, Path("x"), title="t")


def test_reliability_draws_the_printed_error_and_the_counts(drawn: Callable[..., Figure]) -> None:
    curves = {"fusion": reliability(samples([video()])), "image": reliability(samples([video("Fire", ())]))}
    above, below = drawn(draw_reliability, curves, title="t").axes
    diagonal, image, fusion = above.lines
    assert list(diagonal.get_xdata()) == [0, 1]
    filled = curves["fusion"].frames > 0
    assert 0 < filled.sum() < BINS  # a bin without frames has no point
    assert np.array_equal(fusion.get_xdata(), curves["fusion"].score[filled])
    assert np.array_equal(fusion.get_ydata(), curves["fusion"].observed[filled])
    assert not image.get_ydata().any()  # a normal video
    labels = [t.get_text() for t in above.get_legend().get_texts()]
    assert labels == ["calibrated", *(f"{m}: ECE {curves[m].error:.3f}" for m in ("image", "fusion"))]
    counts = below.patches[1].get_data().values
    assert np.array_equal(counts[filled], curves["fusion"].frames[filled]) and below.get_yscale() == "log"


def test_bars_are_means_with_their_spread(drawn: Callable[..., Figure]) -> None:
    results = {"AUC": {"fusion": [0.9, 0.8, 0.7], "image": [0.5], "event": [float("nan"), 0.5]}}
    ax = drawn(draw_modalities, results, title="t").axes[0]
    image, fusion = ax.patches
    assert (image.get_height(), fusion.get_height()) == pytest.approx((50, 80))
    assert image.get_x() < fusion.get_x()
    (spread,) = [c for c in ax.collections if len(c.get_segments())]
    assert spread.get_segments()[0][:, 1] == pytest.approx([70, 90])
    assert {t.get_text() for t in ax.texts} == {"50.0", "n/a", "80.0"}


def test_modalities_differ_in_colour_dash_and_grey() -> None:
    greys = [np.dot(matplotlib.colors.to_rgb(plotting.COLOUR[m]), (0.299, 0.587, 0.114)) for m in plotting.MODALITIES]
    assert np.diff(sorted(greys)).min() > 0.12
    assert plotting.LINE["image"] != plotting.LINE["event"]
    assert plotting.WIDTH["fusion"] > plotting.WIDTH["image"]
