"""The only inference loop: videos in, snippet scores and modality weights out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from vad.data import Sample, TestVideo, load_embedding
from vad.windows import test_windows, window_lengths


@dataclass(frozen=True)
class ScoredVideo:
    """What the model says about one video of S snippets, beside what is true of it."""

    name: str
    label: str  # of the catalogue
    scores: np.ndarray  # (S,) float32, anomaly probability of each snippet
    weight_image: np.ndarray  # (S,) float32, ŵ_i averaged over the D dimensions
    weight_event: np.ndarray  # (S,) float32, ŵ_e
    weight_image_by_dimension: np.ndarray  # (D,) float32, ŵ_i averaged over the S snippets
    frame_labels: np.ndarray  # (16·S,) uint8, 1 in anomalous frames


# (modality, embedding (S, D) float32, video name) → (S, D), applied before windows are cut
Transform = Callable[[str, np.ndarray, str], np.ndarray]
BATCH_WINDOWS = 32


@torch.no_grad()
def score_videos(
    model: torch.nn.Module,
    videos: Sequence[TestVideo],
    *,
    window: int,
    nan: str,
    trim: bool,
    device: torch.device | str = "cpu",
    transform: Transform | None = None,
    progress: str | None = "scoring",
) -> list[ScoredVideo]:
    """Score every video; windows of many videos share a batch, which changes no number beyond the last bit.

    model: takes (image, event, lengths) and returns logits, weight_image and weight_event. nan: as in
    `load_embedding`. trim: cut a batch to its longest window, which is exact where padding is masked. Scores and
    weights of several crops are averaged. Raises InputError for an embedding that cannot be used.
    """
    was_training = model.training
    model.eval()
    collected = [_Collector(len(video.crops), video.snippets) for video in videos]
    pending: list[_Window] = []
    try:
        for index, video in enumerate(tqdm(videos, desc=progress, unit="video", leave=False, disable=progress is None)):
            for sample in video.crops:
                pending.extend(_windows(index, sample, window, nan, transform))
            while len(pending) >= BATCH_WINDOWS:
                _run(model, pending[:BATCH_WINDOWS], collected, trim, device)
                del pending[:BATCH_WINDOWS]
        if pending:
            _run(model, pending, collected, trim, device)
    finally:
        model.train(was_training)
    return [c.scored(video) for c, video in zip(collected, videos, strict=True)]


@dataclass(frozen=True)
class _Window:
    video: int  # index of the video it was cut from
    start: int  # first snippet
    length: int  # valid steps
    streams: tuple[np.ndarray | None, np.ndarray | None]  # image, event, (T, D)


class _Collector:
    """Sums over the crops of one video."""

    def __init__(self, crops: int, snippets: int) -> None:
        self.crops = crops
        self.scores, self.image, self.event = (np.zeros(snippets) for _ in range(3))
        self.by_dimension: np.ndarray | float = 0.0

    def add(self, at: _Window, scores: np.ndarray, image: np.ndarray, event: np.ndarray) -> None:
        """scores: (T,); image, event: (T, D) weights; only the first `at.length` steps count."""
        place = slice(at.start, at.start + at.length)
        self.scores[place] += scores[: at.length]
        self.image[place] += image[: at.length].mean(1)
        self.event[place] += event[: at.length].mean(1)
        self.by_dimension = self.by_dimension + image[: at.length].sum(0, dtype=np.float64)

    def scored(self, video: TestVideo) -> ScoredVideo:
        means = (x / self.crops for x in (self.scores, self.image, self.event, self.by_dimension / video.snippets))
        return ScoredVideo(video.name, video.label, *(m.astype(np.float32) for m in means), video.frame_labels)


def _windows(index: int, sample: Sample, window: int, nan: str, transform: Transform | None) -> list[_Window]:
    streams = []
    for modality, path in zip(("image", "event"), sample.paths, strict=True):
        if path is None:
            streams.append(None)
            continue
        embedding = load_embedding(path, nan)
        streams.append(test_windows(transform(modality, embedding, sample.video) if transform else embedding, window))
    lengths = window_lengths(sample.snippets, window)
    return [
        _Window(index, window * k, int(length), tuple(None if s is None else s[k] for s in streams))
        for k, length in enumerate(lengths)
        if length  # a window of padding alone scores nothing
    ]


def _run(
    model: torch.nn.Module, batch: list[_Window], collected: list[_Collector], trim: bool, device: torch.device | str
) -> None:
    steps = max(w.length for w in batch) if trim else None
    lengths = torch.tensor([w.length for w in batch], device=device)
    image, event = (
        None if batch[0].streams[k] is None
        else torch.from_numpy(np.stack([w.streams[k][:steps] for w in batch])).to(device)
        for k in (0, 1)
    )  # fmt: skip
    output = model(image, event, lengths)
    scores = torch.sigmoid(output.logits.float()).squeeze(-1).cpu().numpy()
    weights = [w.float().cpu().numpy() for w in (output.weight_image, output.weight_event)]
    for row, at in enumerate(batch):
        collected[at.video].add(at, scores[row], weights[0][row], weights[1][row])
