"""Evaluation: in batches against video by video; metrics and intervals from counts against frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from model import IEFVAD
from tests.benchmarks.timing import seconds
from tests.benchmarks.ucf_sized import DATASET, SPLIT, snippet_counts
from vad.data import STREAMS, TestVideo, Video
from vad.metrics import average_precision, evaluate, roc_auc, samples
from vad.scoring import Embeddings, ScoredVideo, score
from vad.statistics import RESAMPLES, draw_counts, resample

T, D = 256, 768
NETWORKS = {
    "masked": {"padding": "masked"},
    "attended": {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
}
PLAIN_RESAMPLES = 5  # the plain way would take minutes for all


def ucf_lengths() -> list[int]:
    """Snippets of UCF-Crime's test videos, sorted."""
    counts = snippet_counts()
    return sorted(counts[name] for name in DATASET.split_names(SPLIT, "test"))


def random_videos(folder: Path, lengths: list[int]) -> list[TestVideo]:
    """Test videos of random embeddings, a fifth of whose frames are anomalous."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(lengths):
        streams = {stream: folder / f"{stream}{number}__5.npy" for stream in STREAMS}
        for path in streams.values():
            np.save(path, rng.standard_normal((S, D), np.float32))
        dtypes = dict.fromkeys(STREAMS, np.dtype(np.float32))
        crop = Video(f"v{number}", "Abuse", True, 5, streams, S, dtypes)
        labels = np.repeat(rng.random(S) < 0.2, 16).astype(np.uint8)
        videos.append(TestVideo(crop.name, crop.label, (crop,), labels))
    return videos


@torch.no_grad()
def plain_scores(model: IEFVAD, videos: list[TestVideo]) -> list[np.ndarray]:
    """Scores (S,) video by video, its windows whole."""

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
    """Both kinds of padding on every sixth of the real lengths."""
    with tempfile.TemporaryDirectory() as folder:
        videos = random_videos(Path(folder), ucf_lengths()[2::6])
        S = sum(video.snippets for video in videos)
        for padding, network in NETWORKS.items():
            torch.manual_seed(0)
            model = IEFVAD(embed_dim=D, **network).eval()

            def ours(model: IEFVAD = model) -> list[ScoredVideo]:
                device = torch.device("cpu")  # embeddings are read anew, as in a first evaluation
                return score(model, videos, Embeddings("refuse"), window=T, device=device, progress=False)

            taken = seconds(ours, 3)
            plain = seconds(lambda model=model: plain_scores(model, videos), 3)
            pairs = zip(ours(), plain_scores(model, videos), strict=True)
            away = max(np.abs(scored.scores - expected).max() for scored, expected in pairs)
            print(f"scoring {len(videos)} videos of {S} snippets, padding {padding}: ours {taken:.2f} s, "
                  f"video by video × {plain / taken:.2f}, equal to {away:.0e}")  # fmt: skip


def random_scores() -> list[ScoredVideo]:
    """Random scores of UCF-Crime's size, one video in two anomalous in a fifth of its frames."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(ucf_lengths()):
        label = ("Normal", "Abuse")[number % 2]
        labels = np.zeros(16 * S, np.uint8)
        labels[5 * S : 7 * S + 3] = label != "Normal"
        weights, scores = (rng.random(S).astype(np.float32) for _ in range(2))
        streams = {"image": weights, "event": 1 - weights}
        videos.append(ScoredVideo(f"v{number}", label, scores, streams, np.zeros(D, np.float32), labels))
    return videos


def bench_metrics(videos: list[ScoredVideo]) -> None:
    """All numbers of an evaluation, and AUC and AP alone against scikit-learn on frames."""
    whole = seconds(lambda: evaluate(videos, DATASET))
    snippets = sum(len(video.scores) for video in videos)
    print(f"all metrics of {len(videos)} videos, {snippets} snippets: {1e3 * whole:.0f} ms "
          f"(target: below 300 ms)")  # fmt: skip
    truth = np.concatenate([video.frame_labels for video in videos])
    frames = np.concatenate([np.repeat(video.scores, 16) for video in videos])
    for name, ours, theirs in (
        ("AUC", roc_auc, roc_auc_score),
        ("AP", average_precision, average_precision_score),
    ):
        counted = seconds(lambda metric=ours: metric(samples(videos)))
        plain = seconds(lambda metric=theirs: metric(truth, frames), 3)
        away = abs(ours(samples(videos)) - theirs(truth, frames))
        print(f"  {name} from counts {1e3 * counted:.1f} ms, scikit-learn on {len(frames):,} frames "
              f"× {plain / counted:.1f}, equal to {away:.0e}")  # fmt: skip


def bench_bootstrap(videos: list[ScoredVideo]) -> None:
    """Six numbers of every resample, against the AUC of some resamples from their videos."""
    ours = seconds(lambda: resample(videos, DATASET), 3)
    times = draw_counts(len(videos))[:PLAIN_RESAMPLES].astype(int)

    def plain() -> list[float]:
        drawn = ([v for v, n in zip(videos, row, strict=True) for _ in range(n)] for row in times)
        return [roc_auc(samples(chosen)) for chosen in drawn]

    taken = seconds(plain, 3) * RESAMPLES / PLAIN_RESAMPLES
    away = np.abs(resample(videos, DATASET)["AUC"][:PLAIN_RESAMPLES] - plain()).max()
    print(f"bootstrap, {RESAMPLES} resamples, six metrics: {ours:.2f} s, AUC alone resample by resample "
          f"× {taken / ours:.1f}, equal to {away:.0e}")  # fmt: skip


def run() -> None:
    """Print the section."""
    bench_scoring()
    videos = random_scores()
    bench_metrics(videos)
    bench_bootstrap(videos)
