"""Benchmark evaluation: batched against per-video scoring, and metrics from counts against frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from model import IEFVAD, MODALITIES
from tests.benchmarks.timing import seconds
from tests.benchmarks.ucf_sized import DATASET, SPLIT, snippet_counts
from vad.data import TestVideo, Video
from vad.metrics import average_precision, evaluate, roc_auc, samples
from vad.scoring import Embeddings, ScoredVideo, score
from vad.statistics import RESAMPLES, draw_counts, resample

T, D = 256, 768
NETWORKS = {
    "masked": {"padding": "masked"},
    "attended": {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
}
PLAIN_RESAMPLES = 5  # all resamples would take minutes in the plain way


def ucf_lengths() -> list[int]:
    """Return the numbers of snippets of UCF-Crime's test videos, sorted."""
    counts = snippet_counts()
    return sorted(counts[name] for name in DATASET.split_names(SPLIT, "test"))


def random_videos(folder: Path, lengths: list[int]) -> list[TestVideo]:
    """Write random embeddings; return test videos in which a fifth of the frames is anomalous."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(lengths):
        streams = {stream: folder / f"{stream}{number}__5.npy" for stream in MODALITIES["fusion"]}
        for path in streams.values():
            np.save(path, rng.standard_normal((S, D), np.float32))
        dtypes = dict.fromkeys(MODALITIES["fusion"], np.dtype(np.float32))
        crop = Video(f"v{number}", "Abuse", True, 5, streams, S, dtypes)
        labels = np.repeat(rng.random(S) < 0.2, 16).astype(np.uint8)
        videos.append(TestVideo(crop.name, crop.label, (crop,), labels))
    return videos


@torch.no_grad()
def plain_scores(model: IEFVAD, videos: list[TestVideo]) -> list[np.ndarray]:
    """Return the scores (S,) of each video, computed video by video."""

    def windows(path: Path) -> Tensor:
        x = torch.from_numpy(np.load(path))
        return F.pad(x, (0, 0, 0, -len(x) % T)).view(-1, T, D)

    scores = []
    for video in videos:
        image, event = (windows(path) for path in video.crops[0].streams.values())
        lengths = (video.snippets - T * torch.arange(len(image))).clamp(max=T)
        logits = model(image, event, lengths).logits
        scores.append(torch.sigmoid(logits).flatten()[: video.snippets].numpy())
    return scores


def bench_scoring() -> None:
    """Time scoring with both padding modes, on every sixth video length of UCF-Crime."""
    with tempfile.TemporaryDirectory() as folder:
        videos = random_videos(Path(folder), ucf_lengths()[2::6])
        S = sum(video.snippets for video in videos)
        for padding, network in NETWORKS.items():
            torch.manual_seed(0)
            model = IEFVAD(embed_dim=D, **network).eval()

            def ours(model: IEFVAD = model) -> list[ScoredVideo]:
                device = torch.device("cpu")  # embeddings are read from disk, as in a first evaluation
                return score(model, videos, Embeddings("refuse"), window=T, device=device, progress=False)

            time_ours = seconds(ours, 3)
            plain = seconds(lambda model=model: plain_scores(model, videos), 3)
            pairs = zip(ours(), plain_scores(model, videos), strict=True)
            error = max(np.abs(scored.scores - expected).max() for scored, expected in pairs)
            print(f"scoring {len(videos)} videos of {S} snippets, padding {padding}: ours {time_ours:.2f} s, "
                  f"video by video × {plain / time_ours:.2f}, max. difference {error:.0e}")  # fmt: skip


def random_scores() -> list[ScoredVideo]:
    """Return random scores of UCF-Crime's size; every second video has a fifth of anomalous frames."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(ucf_lengths()):
        label = ("Normal", "Abuse")[number % 2]
        labels = np.zeros(16 * S, np.uint8)
        labels[5 * S : 7 * S + 3] = label != "Normal"
        weights, scores = (rng.random(S).astype(np.float32) for _ in range(2))
        streams = {"image": weights, "event": 1 - weights}
        videos.append(ScoredVideo(f"v{number}", label, scores, streams, {"image": np.zeros(D, np.float32)}, labels))
    return videos


def bench_metrics(videos: list[ScoredVideo]) -> None:
    """Time all metrics of an evaluation, and AUC and AP against scikit-learn on frames."""
    total = seconds(lambda: evaluate(videos, DATASET))
    snippets = sum(len(video.scores) for video in videos)
    print(f"all metrics of {len(videos)} videos, {snippets} snippets: {1e3 * total:.0f} ms "
          f"(target: below 300 ms)")  # fmt: skip
    labels = np.concatenate([video.frame_labels for video in videos])
    frames = np.concatenate([np.repeat(video.scores, 16) for video in videos])
    for name, ours, theirs in (
        ("AUC", roc_auc, roc_auc_score),
        ("AP", average_precision, average_precision_score),
    ):
        counted = seconds(lambda metric=ours: metric(samples(videos)))
        plain = seconds(lambda metric=theirs: metric(labels, frames), 3)
        error = abs(ours(samples(videos)) - theirs(labels, frames))
        print(f"  {name} from counts {1e3 * counted:.1f} ms, scikit-learn on {len(frames):,} frames "
              f"× {plain / counted:.1f}, difference {error:.0e}")  # fmt: skip


def bench_bootstrap(videos: list[ScoredVideo]) -> None:
    """Time six metrics of all resamples against the AUC of a few resamples computed one by one."""
    ours = seconds(lambda: resample(videos, DATASET), 3)
    times = draw_counts(len(videos))[:PLAIN_RESAMPLES].astype(int)

    def plain() -> list[float]:
        drawn = ([v for v, n in zip(videos, row, strict=True) for _ in range(n)] for row in times)
        return [roc_auc(samples(chosen)) for chosen in drawn]

    one_by_one = seconds(plain, 3) * RESAMPLES / PLAIN_RESAMPLES
    error = np.abs(resample(videos, DATASET)["AUC"][:PLAIN_RESAMPLES] - plain()).max()
    print(f"bootstrap, {RESAMPLES} resamples, six metrics: {ours:.2f} s, only AUC, one by one "
          f"× {one_by_one / ours:.1f}, max. difference {error:.0e}")  # fmt: skip


def run() -> None:
    """Run all benchmarks of this file."""
    bench_scoring()
    videos = random_scores()
    bench_metrics(videos)
    bench_bootstrap(videos)
