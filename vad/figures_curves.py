"""Curves over all frames: ROC and precision–recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vad import plotting
from vad.errors import InputError
from vad.metrics import average_precision, precision_recall, roc, roc_auc, samples
from vad.plotting import COLOUR, LINE, MODALITIES, PAGE, WIDTH, styled
from vad.scoring import ScoredVideo


@styled
def draw_curves(
    videos: Mapping[str, Sequence[ScoredVideo]], path_without_suffix: Path, *, title: str
) -> list[Path]:
    """ROC and precision–recall curve over frames for each modality given, with the chance lines.

    videos: modality → scored videos. InputError where normal or anomalous frames are missing.
    """
    fig = Figure(figsize=(PAGE, 3.9), layout="constrained")
    left, right = fig.subplots(1, 2)
    base = 0.0
    for modality in (m for m in MODALITIES if m in videos):
        data = samples(videos[modality])
        if not data.positive.any() or not data.negative.any():
            raise InputError("ROC and precision–recall curves need normal and anomalous frames; one kind is missing")
        base = data.positive.sum() / (data.positive.sum() + data.negative.sum())
        look = {"color": COLOUR[modality], "ls": LINE[modality], "lw": WIDTH[modality]}
        left.plot(*roc(data), **look, label=f"{modality}: AUC {100 * roc_auc(data):.2f} %")
        # between two thresholds precision is the later one's: the area of these steps is the average precision
        label = f"{modality}: AP {100 * average_precision(data):.2f} %"
        right.step(*precision_recall(data), where="post", **look, label=label)
    left.plot([0, 1], [0, 1], color="0.6", ls=":", lw=1, label="chance")
    right.axhline(base, color="0.6", ls=":", lw=1, label=f"chance ({100 * base:.1f} % of frames)")
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision–recall")
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        # below the axes: inside it would hide a curve or the line of chance
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, columnspacing=1.2)
    fig.suptitle(title, fontsize=9)
    return plotting.save(fig, path_without_suffix)
