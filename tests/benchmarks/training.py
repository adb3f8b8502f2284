"""Benchmark training: windows, loading with and without cache, loss, and the whole step in fp32 and bf16."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import IEFVAD, MODALITIES, Objective
from model.losses import top_k_mean
from tests.benchmarks.timing import seconds
from vad.data import Batch, Video, Windows, train_window
from vad.options import Options
from vad.runtime import Runtime
from vad.train import train_step

T, D = 256, 768
WIDTHS = {"image": D, "event": D}
PRECISIONS = ("fp32", "bf16")


def plain_window(x: np.ndarray) -> np.ndarray:
    """Compute a training window of (S, D) in the obvious way: pad, or average each part."""
    if len(x) <= T:
        return np.pad(x, ((0, T - len(x)), (0, 0)))
    edges = np.linspace(0, len(x), T + 1).astype(int)
    return np.stack([x[a:b].mean(0) for a, b in itertools.pairwise(edges)])


def bench_windows(S: int) -> None:
    """Time the reduction of a long video to one training window."""
    x = np.random.default_rng(0).standard_normal((S, D)).astype(np.float32)
    plain, ours = seconds(lambda: plain_window(x)), seconds(lambda: train_window(x, T))
    error = np.abs(plain_window(x) - train_window(x, T)).max()
    print(f"training window of {S} snippets: ours {1e3 * ours:.2f} ms, np.mean in a loop "
          f"× {plain / ours:.1f}, max. difference {error:.0e}")  # fmt: skip


def random_videos(folder: Path, videos: int, dtype: type) -> list[Video]:
    """Write random embeddings with lengths like UCF-Crime's: long-tailed, about 490 snippets on average."""
    rng = np.random.default_rng(0)
    result = []
    for number in range(videos):
        S = int(np.clip(rng.lognormal(5.5, 1.0), 20, 4000))
        streams = {stream: folder / stream / f"v{number:03d}__5.npy" for stream in MODALITIES["fusion"]}
        for path in streams.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.standard_normal((S, D), np.float32).astype(dtype))
        dtypes = dict.fromkeys(MODALITIES["fusion"], np.dtype(dtype))
        result.append(Video(f"v{number:03d}", "Normal", number % 2 == 1, 5, streams, S, dtypes))
    return result


def plain_batch(videos: list[Video]) -> list[Tensor]:
    """Load image and event windows (B, T, D) of a batch from .npy files, video by video."""

    def window(path: Path) -> Tensor:
        return torch.from_numpy(plain_window(np.load(path).astype(np.float32)))

    return [torch.stack([window(video.streams[stream]) for video in videos]) for stream in MODALITIES["fusion"]]


def bench_loading(B: int, dtype: type) -> tuple[float, Batch]:
    """Time three ways to load a batch and compare their values; return the cached time and the batch."""
    with tempfile.TemporaryDirectory() as folder:
        videos, indices = random_videos(Path(folder), B, dtype), list(range(B))
        cached = Windows(videos, T, "refuse", WIDTHS, Path(folder) / "windows")
        uncached = Windows(videos, T, "refuse", WIDTHS, None)
        plain = seconds(lambda: plain_batch(videos), 3)
        without_cache = seconds(lambda: uncached.__getitems__(indices), 3)
        with_cache = seconds(lambda: cached.__getitems__(indices))
        batch = cached.__getitems__(indices)
        pairs = zip(batch.streams.values(), plain_batch(videos), strict=True)
        error = max((ours.float() - expected).abs().max().item() for ours, expected in pairs)
    print(f"loading a batch of {B} ({np.dtype(dtype)} files in the page cache): cache {1e3 * with_cache:.1f} ms, "
          f"video by video × {plain / with_cache:.1f}, --cache_dir none × {without_cache / with_cache:.1f}, "
          f"max. difference {error:.0e}")  # fmt: skip
    return with_cache, batch


def plain_top_k(probability: Tensor, lengths: Tensor) -> Tensor:
    """Compute top-k means in a Python loop over the batch."""
    return torch.stack([
        row[:length].topk(length // 16 + 1).values.mean()
        for row, length in zip(probability, lengths.tolist(), strict=True)
    ])


def bench_loss(B: int) -> None:
    """Time forward and backward of the top-k multiple-instance loss."""
    lengths = torch.randint(1, T + 1, (B,), generator=torch.Generator().manual_seed(0))
    p = torch.rand(B, T, generator=torch.Generator().manual_seed(1)).requires_grad_()
    forms = (top_k_mean, plain_top_k)
    ours, plain = (seconds(lambda f=form: f(p, lengths).sum().backward(), 20) for form in forms)
    error = (top_k_mean(p, lengths) - plain_top_k(p, lengths)).abs().max().item()
    print(f"top-k of {B} videos: ours {1e3 * ours:.2f} ms, Python loop × {plain / ours:.1f}, "
          f"max. difference {error:.0e}")  # fmt: skip


class Trainer:
    """An untrained network and its optimiser."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.device, self.options = device, Options()
        self.model = IEFVAD(embed_dim=width).to(device)
        self.objective = Objective(config=self.model.config)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, fused=True)

    def step(self, batch: Batch, precision: str) -> None:
        """Take one training step with `vad.train.train_step`."""
        runtime = Runtime(self.device, precision=precision)
        parts = (self.model, self.model, self.objective, self.optimizer)
        train_step(*parts, batch, 0, self.options, runtime)


def bench_step(batch: Batch, loading: float) -> None:
    """Time the training step on the CPU in fp32 and bf16, and the share of data loading."""
    trainer = Trainer(D, torch.device("cpu"))
    times = {p: seconds(lambda p=p: trainer.step(batch, p), 3) for p in PRECISIONS}
    print(f"training step, batch {len(batch.names)}, T {T}, D {D}: fp32 {times['fp32']:.2f} s, "
          f"bf16 {times['bf16']:.2f} s (fp32 takes × {times['fp32'] / times['bf16']:.1f})")  # fmt: skip
    shares = [f"{100 * loading / times[p]:.2f} % of the {p} step" for p in PRECISIONS]
    print(f"  loading is {', '.join(shares)} (target: at most 5 %)")


def run() -> None:
    """Run all benchmarks of this file."""
    bench_windows(S=1000)
    bench_loading(64, np.float16)
    bench_loading(64, np.float32)
    bench_loss(128)
    loading, batch = bench_loading(8, np.float32)
    bench_step(batch, loading)
