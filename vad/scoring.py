"""The only inference loop: videos in, snippet scores and modality weights out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vad.embeddings import load_embedding
from vad.samples import Sample, TestVideo
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
Load = Callable[[Path, str], np.ndarray]  # as `load_embedding`
BATCH_WINDOWS = 32
# windows held back to be sorted by length, so that a batch is as short as its own: 200 MB at the paper's sizes
AHEAD_WINDOWS = 4 * BATCH_WINDOWS


@torch.no_grad()
def score_videos(
    model: torch.nn.Module,
    videos: Sequence[TestVideo],
    *,
    window: int,
    nan: str,
    padding: str,
    device: torch.device | str = "cpu",
    transform: Transform | None = None,
    progress: str | None = "scoring",
    load: Load = load_embedding,
) -> list[ScoredVideo]:
    """Score every video; windows of many videos share a batch, which changes no number beyond the last bits.

    model: takes (image, event, lengths, window) and returns logits, weight_image and weight_event. nan: as in
    `load_embedding`. padding: as the model was made, "masked" or "attended". Masked, a batch is cut to its longest
    window; attended, to one step of zeros more, which the model counts for all that were cut. Both are exact. Scores
    and weights of several crops are averaged. load: what reads the embeddings. Raises InputError for an embedding that
    cannot be used.
    """
    collected = [_Collector(len(video.crops), video.snippets) for video in videos]
    run = partial(_run, model, collected=collected, window=window, padding=padding, device=device)
    pending: list[_Window] = []
    was_training = model.training
    model.eval()
    try:
        for index, video in enumerate(tqdm(videos, desc=progress, unit="video", leave=False, disable=progress is None)):
            for sample in video.crops:
                pending.extend(_windows(index, sample, window, partial(load, nan=nan), transform))
                if len(pending) >= AHEAD_WINDOWS:
                    _run_all(run, pending)
        _run_all(run, pending)
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

    def add(
        self, at: _Window, scores: np.ndarray, image: np.ndarray, event: np.ndarray, by_dimension: np.ndarray
    ) -> None:
        """scores, image, event: (T,), of which the first `at.length` steps count; by_dimension: (D,) sum over them."""
        place = slice(at.start, at.start + at.length)
        self.scores[place] += scores[: at.length]
        self.image[place] += image[: at.length]
        self.event[place] += event[: at.length]
        self.by_dimension = self.by_dimension + by_dimension.astype(np.float64)

    def scored(self, video: TestVideo) -> ScoredVideo:
        means = (x / self.crops for x in (self.scores, self.image, self.event, self.by_dimension / video.snippets))
        return ScoredVideo(video.name, video.label, *(m.astype(np.float32) for m in means), video.frame_labels)


def _windows(
    index: int, sample: Sample, window: int, load: Callable[[Path], np.ndarray], transform: Transform | None
) -> list[_Window]:
    streams = []
    for modality, path in zip(("image", "event"), sample.paths, strict=True):
        if path is None:
            streams.append(None)
            continue
        embedding = load(path)[: sample.snippets]  # beyond them a window holds zeros, whatever the file goes on with
        streams.append(test_windows(transform(modality, embedding, sample.video) if transform else embedding, window))
    lengths = window_lengths(sample.snippets, window)
    return [
        _Window(index, window * k, int(length), tuple(None if s is None else s[k] for s in streams))
        for k, length in enumerate(lengths)
        if length  # a window of padding alone scores nothing
    ]


def _run_all(run: Callable[[list[_Window]], None], windows: list[_Window]) -> None:
    """Score windows in batches of like length, the longest first, and forget them."""
    windows.sort(key=lambda w: -w.length)
    batch: list[_Window] = []
    for at in windows:
        # none is padded by more than a third of its length
        if batch and (len(batch) == BATCH_WINDOWS or 4 * at.length < 3 * batch[0].length):
            run(batch)
            batch = []
        batch.append(at)
    if batch:
        run(batch)
    windows.clear()


def _run(
    model: torch.nn.Module,
    batch: list[_Window],
    *,
    collected: list[_Collector],
    window: int,
    padding: str,
    device: torch.device | str,
) -> None:
    longest = max(w.length for w in batch)
    steps = longest if padding == "masked" else min(longest + 1, window)
    lengths = torch.tensor([w.length for w in batch], device=device)
    image, event = (
        None if batch[0].streams[k] is None
        else torch.from_numpy(np.stack([w.streams[k][:steps] for w in batch])).to(device)
        for k in (0, 1)
    )  # fmt: skip
    output = model(image, event, lengths, window)
    valid = torch.arange(steps, device=device) < lengths.unsqueeze(1)
    # reduced where they are: the weights of a batch are as large as its embeddings
    weight_image, weight_event = output.weight_image.float(), output.weight_event.float()
    found = (
        torch.sigmoid(output.logits.float()).squeeze(-1),
        weight_image.mean(2),
        weight_event.mean(2),
        (weight_image * valid.unsqueeze(2)).sum(1),
    )
    for at, *values in zip(batch, *(x.cpu().numpy() for x in found), strict=True):
        collected[at.video].add(at, *values)
