"""The only inference loop: test videos in, snippet scores and modality weights out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model import IEFVAD, IEFVADOutput
from vad.data import TestVideo, Video, load_embedding
from vad.datasets import SNIPPET_FRAMES

BATCH_WINDOWS = 32
KEPT_BYTES = 1 << 30  # embeddings that stay in memory between evaluations


@dataclass(frozen=True)
class ScoredVideo:
    """What the model says about one video of S snippets, beside its ground truth."""

    name: str
    label: str
    scores: np.ndarray  # (S,) float32, anomaly probability of each snippet
    weights: Mapping[str, np.ndarray]  # stream → (S,) float32, ŵ averaged over the D dimensions
    weight_image_by_dimension: np.ndarray  # (D,) float32, ŵ_i averaged over the S snippets
    frame_labels: np.ndarray  # (16·S,) uint8, 1 in anomalous frames


# (stream, embedding (S, D) float32, video name) → (S, D), applied before windows are cut
Transform = Callable[[str, np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class Window:
    """One window of one crop of a test video."""

    length: int  # valid steps
    video: int  # index
    crop: Video
    start: int  # first snippet


class Embeddings:
    """Embeddings of test videos, transformed; kept in memory once read, as far as they fit."""

    def __init__(self, nan: str) -> None:
        self.nan, self.free = nan, KEPT_BYTES
        self.kept: dict[object, np.ndarray] = {}

    def __call__(self, crop: Video, stream: str, transform: Transform | None = None) -> np.ndarray:
        """(S, D) float32 of one stream; the array is not to be written to."""
        path = crop.streams[stream]
        x = self.kept.get(path)
        if x is None:
            x = load_embedding(path, self.nan)[: crop.snippets]
            if x.nbytes <= self.free:
                self.kept[path] = x
                self.free -= x.nbytes
        return transform(stream, x, crop.name) if transform else x


@torch.no_grad()
def score(
    model: IEFVAD,
    videos: Sequence[TestVideo],
    embeddings: Embeddings,
    *,
    window: int,
    device: torch.device,
    transform: Transform | None = None,
    progress: bool = True,
) -> list[ScoredVideo]:
    """Score every video; windows of many videos share a batch, which changes no number beyond the last bits.

    Where padding is masked a batch is cut to its longest window, which is exact; where it is attended, windows
    have all T steps. Scores and weights of several crops are averaged. Raises InputError for an embedding that
    cannot be used.
    """
    sums = [np.zeros((3, video.snippets)) for video in videos]  # score, ŵ_i, ŵ_e
    by_dimension = [np.zeros(model.config.embed_dim) for _ in videos]
    training = model.training
    model.eval()
    bar = tqdm(total=len(videos), desc="scoring", unit="video", leave=False, disable=not progress)
    try:
        for group in _groups(_windows(videos, window)):
            steps = group[0].length if model.config.padding == "masked" else window
            names = group[0].crop.streams
            streams = {name: _stack(group, name, steps, embeddings, transform).to(device) for name in names}
            lengths = torch.tensor([at.length for at in group], device=device)
            output = model(streams.get("image"), streams.get("event"), lengths)
            steps_of, dimensions = _reduced(output, lengths)
            for at, row, dimension in zip(group, steps_of, dimensions, strict=True):
                sums[at.video][:, at.start : at.start + at.length] += row[:, : at.length]
                by_dimension[at.video] += dimension
                bar.update(at.length / (videos[at.video].snippets * len(videos[at.video].crops)))
    finally:
        model.train(training)
        bar.close()
    return [_scored(*parts) for parts in zip(videos, sums, by_dimension, strict=True)]


def _windows(videos: Sequence[TestVideo], window: int) -> list[Window]:
    """Every window of every crop, S cut into ⌈S/T⌉ of them, in the videos' order."""
    return [
        Window(min(window, crop.snippets - start), index, crop, start)
        for index, video in enumerate(videos)
        for crop in video.crops
        for start in range(0, crop.snippets, window)
    ]


def _groups(windows: Sequence[Window]) -> list[list[Window]]:
    """Batches of windows of like length, the longest first; none is padded by more than a third."""
    groups: list[list[Window]] = []
    for at in sorted(windows, key=lambda at: -at.length):
        if not groups or len(groups[-1]) == BATCH_WINDOWS or 4 * at.length < 3 * groups[-1][0].length:
            groups.append([])
        groups[-1].append(at)
    return groups


def _stack(
    group: Sequence[Window], stream: str, steps: int, embeddings: Embeddings, transform: Transform | None
) -> Tensor:
    """(B, T, D) of one stream, zeros beyond each window's length."""
    rows = [embeddings(at.crop, stream, transform)[at.start : at.start + at.length] for at in group]
    out = np.zeros((len(rows), steps, rows[0].shape[1]), np.float32)
    for at, row in zip(out, rows, strict=True):
        at[: len(row)] = row
    return torch.from_numpy(out)


def _reduced(output: IEFVADOutput, lengths: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Score, ŵ_i and ŵ_e of every step, (B, 3, T), and ŵ_i summed over valid steps, (B, D)."""
    # reduced on the device: the weights are as large as the embeddings
    image, event = output.weight_image.float(), output.weight_event.float()
    scores = torch.sigmoid(output.logits.float()).squeeze(-1)
    valid = torch.arange(scores.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    steps = torch.stack([scores, image.mean(2), event.mean(2)], 1)
    return steps.cpu().numpy(), (image * valid.unsqueeze(2)).sum(1).double().cpu().numpy()


def _scored(video: TestVideo, sums: np.ndarray, by_dimension: np.ndarray) -> ScoredVideo:
    means = (sums / len(video.crops)).astype(np.float32)[:, : len(video.frame_labels) // SNIPPET_FRAMES]
    dimensions = (by_dimension / len(video.crops) / video.snippets).astype(np.float32)
    weights = {"image": means[1], "event": means[2]}
    return ScoredVideo(video.name, video.label, means[0], weights, dimensions, video.frame_labels)
