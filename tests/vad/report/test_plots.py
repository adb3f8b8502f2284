"""Figures: files are written atomically, and the drawn values are the given values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from vad.files import InputError
from vad.metrics import BINS, average_precision, calibration_error, reliability, samples
from vad.options import MODALITIES
from vad.report import plots
from vad.scoring import ScoredVideo

SPANS = ((10, 40), (64, 65), (300, 320))


def video(name: str = "Arson009", spans: tuple[tuple[int, int], ...] = SPANS) -> ScoredVideo:
    rng = np.random.default_rng(len(name))
    labels = np.zeros(320, np.uint8)
    for start, end in spans:
        labels[start:end] = 1
    weight = rng.uniform(0.45, 0.5, 20).astype(np.float32)
    weights = {"image": weight, "event": 1 - weight}
    return ScoredVideo(name, "Arson", rng.random(20).astype(np.float32), weights, {"image": weight[:8]}, labels)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Figure]:
    """Return a function that calls a draw_… function and returns the figure instead of writing it."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda fig, path: figures.append(fig) or [path])

    def call(draw: Callable[..., list[Path]], *arguments: object, **options: object) -> Figure:
        draw(*arguments, tmp_path / "x", **options)
        return figures[-1]

    return call


def legend(owner: object) -> list[str]:
    return [text.get_text() for text in owner.get_texts()]


RESPONSE = pd.DataFrame(
    [
        ("CLEAN", 0, 0.9, 0.5),
        ("EV_NOISE", 0.5, 0.85, 0.52),
        ("EV_NOISE", 0.1, 0.89, 0.51),
        ("IMG_NOISE", 0.1, 0.8, 0.45),
        ("IMG_NOISE", 0.5, 0.6, 0.4),
    ],
    columns=["masked", "level", "AUC", "w_image"],
)
LOG = pd.DataFrame(
    {"step": [1, 2, 3], "epoch": [0, 0, 1], "loss": [3, 2, 1], "loss_kl_event": [1, 1, 0], "AUC": [0.5, 0.6, 0.7]}
)
RADAR = {"fusion": {"a": 0.9, "b": 0.8, "c": 0.7}, "image": {"a": 0.6, "b": 0.35}}
CHANGE = {("image", 0.1): -np.arange(8.0), ("image", 0.5): -2 * np.arange(8.0), ("event", 0.1): np.ones(8)}
DROP = {("image", 0.1): [-0.1, -0.3], ("image", 0.5): [-0.4, -0.4], ("event", 0.1): [0.0, 0.2]}
RUNS = pd.DataFrame({
    "nu": ["10", "2", "10", "2"],
    "mil": ["topk", "topk", "segment", "segment"],
    "AUC": ["0.9", "0.8", "0.7", "n/a"],
})  # fmt: skip
EVERY = [
    (plots.draw_radar, RADAR, {"metric": "AUC", "title": "t"}),
    (plots.draw_weight_change, CHANGE, {"title": "t"}),
    (plots.draw_weight_drop, DROP, {"title": "t"}),
    (plots.draw_masking_curves, RESPONSE, {"metric": "AUC", "title": "t"}),
    (plots.draw_training, LOG, {"title": "t"}),
    (plots.draw_curves, {"fusion": [video()]}, {"title": "t"}),
    (plots.draw_reliability, {"fusion": [video()]}, {"title": "t"}),
    (plots.draw_modalities, {"AUC": {"image": [0.5, 0.6], "fusion": [0.9]}}, {"title": "t"}),
    (plots.draw_sweep, RUNS, {"names": ["nu", "mil"], "title": "t"}),
]


@pytest.mark.parametrize(("draw", "data", "options"), EVERY, ids=lambda v: getattr(v, "__name__", ""))
def test_files_are_complete_and_reproducible(
    draw: Callable[..., list[Path]], data: object, options: dict[str, object], tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    paths = draw(data, tmp_path / "sub" / "a.b", **options)
    assert [p.name for p in paths] == ["a.b.png", "a.b.pdf"]  # a dot in the name does not start a suffix
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["a.b.pdf", "a.b.png"]
    png, pdf = (p.read_bytes() for p in paths)
    assert png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF")
    assert draw(data, tmp_path / "again", **options)[1].read_bytes() == pdf
    assert dict(matplotlib.rcParams) == before


def test_unwritable_folder_raises_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write this file"):
        plots.draw_training(LOG, tmp_path / "file" / "training", title="t")


def test_radar_shows_every_class_in_percent(drawn: Callable[..., Figure]) -> None:
    ax = drawn(plots.draw_radar, RADAR, metric="AUC", title="t").axes[0]
    image, fusion = ax.lines  # image before fusion, in any order of the argument
    assert (image.get_label(), fusion.get_label()) == ("image", "fusion")
    assert fusion.get_ydata() == pytest.approx([90, 80, 70, 90])  # closed
    assert image.get_ydata() == pytest.approx([60, 35, np.nan, 60], nan_ok=True)
    assert ax.get_ylim() == (20, 100)  # the centre is below 35 and is given in the title
    assert "centre = 20" in ax.get_title()


def test_radar_of_two_classes_becomes_bars(drawn: Callable[..., Figure]) -> None:
    ax = drawn(plots.draw_radar, {"image": {"a": 0.5, "b": 0.25}}, metric="AP", title="t").axes[0]
    assert [bar.get_height() for bar in ax.patches] == [50, 25]
    assert ax.get_ylabel() == "AP (%)"


def test_weight_change_draws_image_above_event(drawn: Callable[..., Figure]) -> None:
    image, event = drawn(plots.draw_weight_change, CHANGE, title="t").axes
    assert (image.get_title(), event.get_title()) == ("image masked", "event masked")
    lines = {line.get_label(): line.get_ydata() for line in image.lines if line.get_label().endswith("%")}
    assert list(lines) == ["50 %", "10 %"]
    assert np.array_equal(lines["10 %"], CHANGE["image", 0.1])


def test_weight_change_draws_three_of_five_levels(drawn: Callable[..., Figure]) -> None:
    five = {("image", level): np.zeros(3) for level in (0.05, 0.1, 0.2, 0.3, 0.5)}
    ax = drawn(plots.draw_weight_change, five, title="t").axes[0]
    assert legend(ax.get_legend()) == ["5 %", "20 %", "50 %"]


def test_weight_drop_shows_mean_std_and_every_run(drawn: Callable[..., Figure]) -> None:
    ax = drawn(plots.draw_weight_drop, DROP, title="t").axes[0]
    image, event = ax.containers
    assert image.lines[0].get_ydata() == pytest.approx([-0.2, -0.4])
    # ± 0.1414: the standard deviation (n − 1) of −0.1 and −0.3
    assert image.lines[2][0].get_segments()[0][:, 1] == pytest.approx([-0.3414, -0.0586], abs=1e-4)
    assert event.lines[0].get_xdata() == pytest.approx([10.6])
    dots = sorted(y for line in ax.lines if line.get_marker() == "." for y in line.get_ydata())
    assert dots == [-0.4, -0.4, -0.3, -0.1, 0.0, 0.2]


def test_masking_curves_start_unmasked_and_sort_levels(drawn: Callable[..., Figure]) -> None:
    left, right = drawn(plots.draw_masking_curves, RESPONSE, metric="AUC", title="t").axes
    image, event = left.lines
    assert image.get_color() == plots.COLOUR["image"]
    assert list(image.get_xdata()) == [0, 10, 50]
    assert image.get_ydata() == pytest.approx([90, 80, 60])
    assert event.get_ydata() == pytest.approx([90, 89, 85])
    assert right.lines[1].get_ydata() == pytest.approx([0.5, 0.51, 0.52])


def test_training_figure_shows_losses_metrics_epochs(drawn: Callable[..., Figure]) -> None:
    left, right = drawn(plots.draw_training, LOG, title="t").axes
    assert legend(left.get_legend()) == ["total loss", "KL event"]
    assert left.lines[1].get_color() == plots.COLOUR["event"]  # a stream's term has the stream's colour
    assert list(left.lines[0].get_ydata()) == [3, 2, 1]
    assert right.lines[0].get_ydata() == pytest.approx([50, 60, 70])
    assert list(left.lines[-1].get_xdata()) == [3, 3]  # the only new epoch


def test_title_of_curves_does_not_overlap_panel_titles(tmp_path: Path) -> None:
    plots.draw_curves({"fusion": [video()]}, tmp_path / "x", title="Demo, 54 test videos, first run of each modality")
    written = (matplotlib.image.imread(tmp_path / "x.png")[:75, :, :3] < 0.5).any((1, 2))
    assert np.diff(written.astype(int)).tolist().count(1) == 2  # two text lines: the title and the panel titles


def test_curves_match_printed_auc_and_ap(drawn: Callable[..., Figure]) -> None:
    videos = [video(), video("Fire")]
    left, right = drawn(plots.draw_curves, {"fusion": videos}, title="t").axes
    x, y = left.lines[0].get_data()
    assert f"AUC {100 * np.trapezoid(y, x):.2f} %" in legend(left.get_legend())[0]
    # the area under the drawn steps (each value is held until the next x) is the average precision
    recall, precision = right.lines[0].get_data()
    assert right.lines[0].get_drawstyle() == "steps-post"
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(average_precision(samples(videos)))
    # 51 of each video's 320 frames are anomalous
    assert legend(right.get_legend())[-1] == f"chance ({100 * 51 / 320:.1f} % of frames)"


def test_reliability_diagram_shows_ece_and_frame_counts(drawn: Callable[..., Figure]) -> None:
    videos = {"fusion": [video()], "image": [video("Fire", ())]}
    diagram, histogram = drawn(plots.draw_reliability, videos, title="t").axes
    diagonal, image, fusion = diagram.lines
    assert list(diagonal.get_xdata()) == [0, 1]
    curve = reliability(samples(videos["fusion"]))
    filled = curve.frames > 0
    assert 0 < filled.sum() < BINS  # empty bins have no point
    assert np.array_equal(fusion.get_xdata(), curve.score[filled])
    assert np.array_equal(fusion.get_ydata(), curve.observed[filled])
    assert not image.get_ydata().any()  # a normal video
    errors = [f"{m}: ECE {calibration_error(samples(videos[m])):.3f}" for m in ("image", "fusion")]
    assert legend(diagram.get_legend()) == ["perfectly calibrated", *errors]
    counts = histogram.patches[1].get_data().values
    assert np.array_equal(counts[filled], curve.frames[filled]) and histogram.get_yscale() == "log"


def test_bars_show_mean_and_standard_deviation(drawn: Callable[..., Figure]) -> None:
    results = {"AUC": {"fusion": [0.9, 0.8, 0.7], "image": [0.5], "event": [float("nan"), 0.5]}}
    ax = drawn(plots.draw_modalities, results, title="t").axes[0]
    image, fusion = ax.patches
    assert (image.get_height(), fusion.get_height()) == pytest.approx((50, 80))
    assert image.get_x() < fusion.get_x()
    (spread,) = [c for c in ax.collections if len(c.get_segments())]
    assert spread.get_segments()[0][:, 1] == pytest.approx([70, 90])  # ± 10 with n − 1
    assert {t.get_text() for t in ax.texts} == {"50.0", "n/a", "80.0"}


def test_sweep_figure_sorts_values_and_marks_gaps(drawn: Callable[..., Figure]) -> None:
    fig = drawn(plots.draw_sweep, RUNS, names=["nu", "mil"], title="t")
    (ax,) = fig.axes  # AUC is the only metric of these runs
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "10"]
    topk, segment = ax.containers
    assert topk.lines[0].get_ydata() == pytest.approx([80, 90])
    assert segment.lines[0].get_ydata() == pytest.approx([np.nan, 70], nan_ok=True)
    assert [t.get_text() for t in ax.texts] == ["n/a"]
    assert legend(fig.legends[0]) == ["topk", "segment"]
    assert [line.lines[0].get_color() for line in (topk, segment)] == ["C3", "C4"]  # no modality's colour
    assert "one run each" in fig.get_suptitle()


def test_sweep_figure_shows_our_means_and_the_papers(drawn: Callable[..., Figure]) -> None:
    runs = pd.DataFrame({"nu": [4, 4, 8], "AUC": [0.7, 0.8, 0.9], "AP": [0.5, 0.5, 0.5]})
    paper = {"4": {"AP": (None, None)}, "8": {"AP": (60.0, 1.0)}}
    fig = drawn(plots.draw_sweep, runs, names=["nu"], title="UCF-Crime", paper=paper)
    auc, ap = fig.axes
    assert auc.containers[0].lines[0].get_ydata() == pytest.approx([75, 90])
    # ± 7.07: the standard deviation (n − 1) of 70 and 80
    assert auc.containers[0].lines[2][0].get_segments()[0][:, 1] == pytest.approx([67.93, 82.07], abs=0.01)
    assert ap.containers[1].lines[0].get_ydata() == pytest.approx([60])
    assert legend(fig.legends[0]) == ["paper"]
    assert fig.get_suptitle() == "UCF-Crime: mean ± std over 1–2 runs, one dot per run"


def test_modalities_differ_in_dashes_and_greyscale() -> None:
    grey = {m: np.dot(matplotlib.colors.to_rgb(c), (0.299, 0.587, 0.114)) for m, c in plots.COLOUR.items()}
    for m, n in combinations(plots.COLOUR, 2):
        assert abs(grey[m] - grey[n]) > 0.12 or plots.LINE[m] != plots.LINE[n], (m, n)
    assert np.diff(sorted(grey[m] for m in ("image", "event", "fusion"))).min() > 0.12
    assert len({*plots.LINE.values()}) >= 4 and plots.COLOUR.keys() == set(MODALITIES)
    assert plots.WIDTH["fusion"] > plots.WIDTH["image"]
