"""Training: windows, loading with and without the cache, the loss, the whole step in both precisions."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import IEFVAD, Objective
from model.losses import top_k_probability
from tests.benches.timing import seconds
from vad.data import Batch, Sample, TrainingWindows
from vad.windows import train_window

T, D = 256, 768


def plain_window(x: np.ndarray) -> np.ndarray:
    """Training window of (S, D) as one would write it first: pad, or np.mean over each stretch."""
    if len(x) <= T:
        return np.pad(x, ((0, T - len(x)), (0, 0)))
    edges = np.linspace(0, len(x), T + 1).astype(int)
    return np.stack([x[a:b].mean(0) for a, b in itertools.pairwise(edges)])


def bench_windows(S: int) -> None:
    """Reduction of a long video to one training window."""
    x = np.random.default_rng(0).standard_normal((S, D)).astype(np.float32)
    plain, ours = seconds(lambda: plain_window(x)), seconds(lambda: train_window(x))
    print(f"training window of {S} snippets: ours {1e3 * ours:.2f} ms, np.mean in a loop × {plain / ours:.1f}")


def made_samples(folder: Path, videos: int, dtype: type) -> list[Sample]:
    """Embeddings in a folder, with lengths like UCF-Crime's: a long tail and a mean of about 490 snippets."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(videos):
        S = int(np.clip(rng.lognormal(5.5, 1.0), 20, 4000))
        paths = tuple(folder / modality / f"v{number:03d}__5.npy" for modality in ("rgb", "event_thr_10"))
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.standard_normal((S, D), np.float32).astype(dtype))
        half = (dtype is np.float16,) * 2
        samples.append(Sample(f"v{number:03d}", "Normal", number % 2 == 1, 5, paths, S, half))
    return samples


def plain_batch(samples: list[Sample]) -> list[Tensor]:
    """Image and event windows (B, T, D) of a batch, item by item from the .npy files."""
    return [
        torch.stack([torch.from_numpy(plain_window(np.load(s.paths[k]).astype(np.float32))) for s in samples])
        for k in (0, 1)
    ]


def bench_loading(B: int, dtype: type) -> tuple[float, Batch]:
    """A batch from .npy files, plainly and as without cache, against the cache; seconds of the last, and the batch."""
    with tempfile.TemporaryDirectory() as folder:
        samples = made_samples(Path(folder), B, dtype)
        windows = TrainingWindows(samples, window=T, nan="refuse", width=D, cache=Path(folder) / "windows")
        plain = seconds(lambda: plain_batch(samples), 3)
        without = seconds(lambda: windows.collate([windows[k] for k in range(B)]), 3)
        cached = seconds(lambda: windows.gather(range(B)))
        batch = windows.gather(range(B))
        print(f"loading a batch of {B} ({np.dtype(dtype)} files in the page cache): cache {1e3 * cached:.1f} ms, "
              f"item by item × {plain / cached:.1f}, --no_cache × {without / cached:.1f}")  # fmt: skip
    return cached, batch


def plain_top_k(probability: Tensor, lengths: Tensor) -> Tensor:
    """Top-k means with a Python loop over the batch."""
    return torch.stack([
        row[:length].topk(length // 16 + 1).values.mean()
        for row, length in zip(probability, lengths.tolist(), strict=True)
    ])


def bench_loss(B: int) -> None:
    """Forward and backward of the multiple-instance loss."""
    lengths = torch.randint(1, T + 1, (B,), generator=torch.Generator().manual_seed(0))
    p = torch.rand(B, T, generator=torch.Generator().manual_seed(1)).requires_grad_()
    forms = (top_k_probability, plain_top_k)
    ours, plain = (seconds(lambda f=form: f(p, lengths).sum().backward(), 20) for form in forms)
    away = (top_k_probability(p, lengths) - plain_top_k(p, lengths)).abs().max().item()
    print(f"top-k of {B} videos: ours {1e3 * ours:.2f} ms, Python loop × {plain / ours:.1f}, equal to {away:.0e}")


def training_step(model: IEFVAD, batch: Batch, optimizer: torch.optim.Optimizer, precision: str) -> None:
    """One step as training takes it."""
    device = next(model.parameters()).device
    image, event, lengths, anomalous = (
        x.to(device, non_blocking=True) for x in (batch.image, batch.event, batch.lengths, batch.anomalous)
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        total = Objective(config=model.config)(model(image, event, lengths), lengths, anomalous).total
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()


def bench_step(batch: Batch, loading: float) -> None:
    """The step on this CPU, in both precisions, and the share that loading has in it."""
    B = len(batch.videos)
    model = IEFVAD(embed_dim=D)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    taken = {p: seconds(lambda p=p: training_step(model, batch, optimizer, p), 3) for p in ("fp32", "bf16")}
    print(f"training step, batch {B}, T {T}, D {D}: fp32 {taken['fp32']:.2f} s, bf16 {taken['bf16']:.2f} s "
          f"(fp32 × {taken['fp32'] / taken['bf16']:.1f} of it)")  # fmt: skip
    print(f"  loading is {100 * loading / taken['fp32']:.2f} % of the fp32 step, "
          f"{100 * loading / taken['bf16']:.2f} % of the bf16 step (target: at most 5 %)")  # fmt: skip


def run() -> None:
    """Print the section."""
    bench_windows(S=1000)
    bench_loading(64, np.float16)
    bench_loading(64, np.float32)
    bench_loss(128)
    loading, batch = bench_loading(8, np.float32)
    bench_step(batch, loading)
