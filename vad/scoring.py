"""Inference: compute snippet scores and modality weights of test videos, or of a stream as it comes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model import IEFVAD, IEFVADOutput
from model.avadclip import AVadCLIP, AVadCLIPOutput
from vad.data import TestVideo, Video, load_embedding
from vad.datasets import SNIPPET_FRAMES

BATCH_WINDOWS = 32
LIVE_WINDOW = 8  # snippets that causal scoring encodes; see tests/benchmarks/live.py
MAX_CACHED_BYTES = 1 << 30  # embeddings kept in memory between evaluations


@dataclass(frozen=True)
class ScoredVideo:
    """Scores and modality weights of one video of S snippets, with its ground truth."""

    name: str
    label: str
    scores: np.ndarray  # (S,) float32, anomaly probability of each snippet
    weights: Mapping[str, np.ndarray]  # stream → (S,) float32, ŵ averaged over the D dimensions
    by_dimension: Mapping[str, np.ndarray]  # stream → (D,) float32, ŵ averaged over the S snippets
    frame_labels: np.ndarray  # (16·S,) uint8, 1 for anomalous frames
    class_scores: np.ndarray | None = None  # (S, C) float32 probabilities of AVadCLIP's classes, the first normal


# (stream, embedding (S, D) float32, video name) → (S, D), applied before the split into windows
Transform = Callable[[str, np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class Window:
    """One window of one crop of a test video."""

    length: int  # valid steps
    video: int  # index of the video
    crop: Video
    start: int  # first snippet


class Embeddings:
    """Loader of test embeddings. It keeps up to `MAX_CACHED_BYTES` in memory."""

    def __init__(self, nan: str) -> None:
        self.nan, self.free_bytes = nan, MAX_CACHED_BYTES
        self.cache: dict[object, np.ndarray] = {}

    def __call__(self, crop: Video, stream: str, transform: Transform | None = None) -> np.ndarray:
        """Return the embedding (S, D) float32 of one stream. The array is shared: do not modify it."""
        path = crop.streams[stream]
        x = self.cache.get(path)
        if x is None:
            x = load_embedding(path, self.nan)[: crop.snippets]
            if x.nbytes <= self.free_bytes:
                self.cache[path] = x
                self.free_bytes -= x.nbytes
        return transform(stream, x, crop.name) if transform else x


@torch.no_grad()
def score(
    model: IEFVAD | AVadCLIP,
    videos: Sequence[TestVideo],
    embeddings: Embeddings,
    *,
    window: int,
    device: torch.device,
    transform: Transform | None = None,
    progress: bool = True,
) -> list[ScoredVideo]:
    """Score every video. Scores and weights of several crops are averaged.

    Windows of different videos share a batch, which changes results only by rounding. If padding is masked, a batch
    is truncated to its longest window, which is exact. If padding is attended, all windows have T steps.
    Raises InputError for an invalid embedding.
    """
    names = () if isinstance(model, AVadCLIP) else model.config.streams
    classes = len(getattr(model.config, "classes", ()))
    # score, then ŵ of each stream, or the classes of AVadCLIP
    sums = [np.zeros((1 + len(names) + classes, video.snippets)) for video in videos]
    by_dimension = [np.zeros((len(names), model.config.embed_dim if names else 0)) for _ in videos]
    training = model.training
    model.eval()
    bar = tqdm(total=len(videos), desc="scoring", unit="video", leave=False, disable=not progress)
    try:
        for batch in _batches(_windows(videos, window)):
            steps = batch[0].length if model.config.padding == "masked" else window
            given = batch[0].crop.streams
            streams = {name: _stack(batch, name, steps, embeddings, transform).to(device) for name in given}
            lengths = torch.tensor([w.length for w in batch], device=device)
            output = model(**streams, lengths=lengths)
            by_step, dimension_sums = _reduce(output, lengths)
            for w, row, dimensions in zip(batch, by_step, dimension_sums, strict=True):
                sums[w.video][:, w.start : w.start + w.length] += row[:, : w.length]
                by_dimension[w.video] += dimensions
                bar.update(w.length / (videos[w.video].snippets * len(videos[w.video].crops)))
    finally:
        model.train(training)
        bar.close()
    return [_scored_video(names, *parts) for parts in zip(videos, sums, by_dimension, strict=True)]


def _windows(videos: Sequence[TestVideo], window: int) -> list[Window]:
    """Return the ⌈S/T⌉ windows of every crop, in the order of the videos."""
    return [
        Window(min(window, crop.snippets - start), index, crop, start)
        for index, video in enumerate(videos)
        for crop in video.crops
        for start in range(0, crop.snippets, window)
    ]


def _batches(windows: Sequence[Window]) -> list[list[Window]]:
    """Return batches of windows of similar length, longest first. Padding adds at most a third to a window."""
    batches: list[list[Window]] = []
    for w in sorted(windows, key=lambda w: -w.length):
        if not batches or len(batches[-1]) == BATCH_WINDOWS or 4 * w.length < 3 * batches[-1][0].length:
            batches.append([])
        batches[-1].append(w)
    return batches


def _stack(
    batch: Sequence[Window], stream: str, steps: int, embeddings: Embeddings, transform: Transform | None
) -> Tensor:
    """Stack the windows of one stream to (B, T, D), padded with zeros."""
    rows = [embeddings(w.crop, stream, transform)[w.start : w.start + w.length] for w in batch]
    stacked = np.zeros((len(rows), steps, rows[0].shape[1]), np.float32)
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(stacked)


def _reduce(output: IEFVADOutput | AVadCLIPOutput, lengths: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return score and ŵ of every step, (B, 1 + K, T), and ŵ summed over valid steps, (B, K, D).

    AVadCLIP has no weights: score and class probabilities of every step, (B, 1 + C, T), and 0.
    """
    if isinstance(output, AVadCLIPOutput):
        parts = torch.cat([output.logits.sigmoid(), output.class_logits.softmax(2)], 2)
        return parts.transpose(1, 2).float().cpu().numpy(), np.zeros((len(lengths), 0, 0))
    # on the device, because the weights are as large as the embeddings
    weights = [weight.float() for weight in output.weights.values()]
    scores = torch.sigmoid(output.logits.float()).squeeze(-1)
    valid = torch.arange(scores.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    steps = torch.stack([scores, *(weight.mean(2) for weight in weights)], 1)
    by_dimension = torch.stack([(weight * valid.unsqueeze(2)).sum(1) for weight in weights], 1)
    return steps.cpu().numpy(), by_dimension.double().cpu().numpy()


def _scored_video(
    names: Sequence[str], video: TestVideo, sums: np.ndarray, by_dimension: np.ndarray
) -> ScoredVideo:
    means = (sums / len(video.crops)).astype(np.float32)[:, : len(video.frame_labels) // SNIPPET_FRAMES]
    dimensions = (by_dimension / len(video.crops) / video.snippets).astype(np.float32)
    weights, by_name = dict(zip(names, means[1:], strict=False)), dict(zip(names, dimensions, strict=False))
    classes = means[1 + len(names) :].T if len(means) > 1 + len(names) else None
    return ScoredVideo(video.name, video.label, means[0], weights, by_name, video.frame_labels, classes)


class CausalScore(NamedTuple):
    """Score of one snippet of a stream, from this snippet and those before it."""

    score: float  # anomaly probability
    weights: Mapping[str, float]  # stream → ŵ averaged over the D dimensions; NaN for a fusion without weights


class CausalScorer:
    """Scores a stream snippet by snippet, without its future and with constant work per snippet.

    The temporal encoders see the last `window` snippets. The newest observation updates the filter, whose state
    is carried on through the whole stream; `score` starts it anew in each window. With the temporal update
    "paper" (q = 0) its gain falls like 1/t, so the score of a long stream hardly moves.
    """

    def __init__(self, model: IEFVAD, window: int, device: torch.device) -> None:
        """Move the model to the device and to evaluation mode. window: in snippets, at least 1."""
        self._model, self._window, self._device = model.to(device).eval(), window, device
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next snippet is its first one."""
        self._recent: dict[str, deque[Tensor]] = defaultdict(lambda: deque(maxlen=self._window))
        self._state: tuple[Tensor, Tensor] | None = None  # s and P of Eq. 5

    @torch.no_grad()
    def __call__(self, embeddings: Mapping[str, Tensor]) -> CausalScore:
        """Return the score of the next snippet. embeddings: stream → (D,), on any device."""
        for name, x in embeddings.items():
            self._recent[name].append(x.to(self._device))
        steps = max(map(len, self._recent.values()))
        # padded like the last window of a video: masked, or attended to if the model was trained so
        padding = (0, 0, 0, self._window - steps)
        windows = {name: F.pad(torch.stack(tuple(rows)), padding)[None] for name, rows in self._recent.items()}
        lengths = torch.tensor([steps], device=self._device)
        observed = self._model.observe(**windows, lengths=lengths).fused
        # (1, D) each; for late fusion of K streams they are (K, D)
        mean, variance = observed.mean[:, steps - 1], observed.variance[:, steps - 1]
        self._state = self._model.temporal_update.step(self._state, mean, variance)
        state, _ = self._state
        logit = self._model.classify(self._model.refinement(state[:, None]))  # (1, 1, 1)
        weights = {name: w[:, steps - 1].float().mean().item() for name, w in observed.weights.items()}
        return CausalScore(torch.sigmoid(logit.float()).item(), weights)
