"""Evaluation: batched and cut short against video by video; metrics from counts against frame by frame."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from model import IEFVAD
from tests.benches.timing import seconds
from vad.catalog import UCFCRIME
from vad.data import Sample, TestVideo
from vad.metrics import average_precision, evaluate, roc_auc, samples
from vad.scoring import ScoredVideo, score_videos
from vad.ucf_sized import LENGTHS
from vad.windows import test_windows, window_lengths

T, D = 256, 768
SWITCHES = {
    "masked": {"padding": "masked"},
    "attended": {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
}


def ucf_lengths() -> list[int]:
    """Snippets of UCF-Crime's test videos, sorted."""
    return sorted(length for kind in json.loads(LENGTHS.read_text()).values() for length in kind)


def made_videos(folder: Path, lengths: list[int]) -> list[TestVideo]:
    """Test videos of random embeddings, a fifth of whose frames are anomalous."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(lengths):
        paths = tuple(folder / f"{modality}{number}__5.npy" for modality in ("image", "event"))
        for path in paths:
            np.save(path, rng.standard_normal((S, D), np.float32))
        sample = Sample(f"v{number}", "Abuse", True, 5, paths, S)
        truth = np.repeat(rng.random(S) < 0.2, 16).astype(np.uint8)
        videos.append(TestVideo(sample.video, sample.label, (sample,), truth))
    return videos


@torch.no_grad()
def plain_scores(model: IEFVAD, videos: list[TestVideo]) -> list[np.ndarray]:
    """Scores video by video, its windows whole."""
    found = []
    for video in videos:
        image, event = (torch.from_numpy(test_windows(np.load(path), T)) for path in video.crops[0].paths)
        lengths = torch.from_numpy(window_lengths(video.snippets, T))
        scores = torch.sigmoid(model(image, event, lengths).logits)[..., 0].numpy()
        found.append(np.concatenate([row[:length] for row, length in zip(scores, lengths, strict=True)]))
    return found


def bench_scoring() -> None:
    """Both kinds of padding on every sixth of the real lengths."""
    with tempfile.TemporaryDirectory() as folder:
        videos = made_videos(Path(folder), ucf_lengths()[2::6])
        for padding, switches in SWITCHES.items():
            torch.manual_seed(0)
            model = IEFVAD(embed_dim=D, **switches).eval()
            options = {"window": T, "nan": "refuse", "padding": padding, "progress": None}
            ours = seconds(lambda m=model, o=options: score_videos(m, videos, **o), 3)
            plain = seconds(lambda m=model: plain_scores(m, videos), 3)
            scored, expected = score_videos(model, videos, **options), plain_scores(model, videos)
            away = max(np.abs(a.scores - b).max() for a, b in zip(scored, expected, strict=True))
            S = sum(video.snippets for video in videos)
            print(f"scoring {len(videos)} videos of {S} snippets, padding {padding}: ours {ours:.2f} s, video by video "
                  f"× {plain / ours:.2f}, equal to {away:.0e}")  # fmt: skip


def bench_metrics() -> None:
    """All numbers of an evaluation of UCF-Crime's size, and AUC and AP alone against scikit-learn on frames."""
    rng = np.random.default_rng(0)
    videos = []
    for number, S in enumerate(ucf_lengths()):
        label = ("Normal", "Abuse")[number % 2]
        truth = np.zeros(16 * S, np.uint8)
        truth[5 * S : 7 * S + 3] = label != "Normal"
        weights = rng.random(S).astype(np.float32)
        scores = rng.random(S).astype(np.float32)
        videos.append(ScoredVideo(f"v{number}", label, scores, weights, 1 - weights, np.zeros(D, np.float32), truth))
    whole = seconds(lambda: evaluate(videos, UCFCRIME))
    print(f"all metrics of {len(videos)} videos, {sum(len(v.scores) for v in videos)} snippets: {1e3 * whole:.0f} ms "
          f"(target: below 300 ms)")  # fmt: skip
    truth, scores = np.concatenate([v.frame_labels for v in videos]), np.concatenate([v.scores for v in videos])
    frames = np.repeat(scores, 16)
    for name, ours, theirs in (
        ("AUC", roc_auc, roc_auc_score),
        ("AP", average_precision, average_precision_score),
    ):
        counted = seconds(lambda f=ours: f(samples(videos)))
        plain = seconds(lambda f=theirs: f(truth, frames), 3)
        away = abs(ours(samples(videos)) - theirs(truth, frames))
        print(f"  {name} from counts {1e3 * counted:.1f} ms, scikit-learn on {len(frames):,} frames "
              f"× {plain / counted:.1f}, equal to {away:.0e}")  # fmt: skip


def run() -> None:
    """Print the section."""
    bench_scoring()
    bench_metrics()
