"""Training: reduction of long videos to windows."""

from __future__ import annotations

import itertools

import numpy as np

from tests.benches.timing import seconds
from vad.windows import train_window


def bench_windows(S: int, D: int) -> None:
    """Reduction of a long video to one training window."""
    x = np.random.default_rng(0).standard_normal((S, D)).astype(np.float32)
    edges = np.linspace(0, S, 257).astype(int)
    plain = seconds(lambda: np.stack([x[a:b].mean(0) for a, b in itertools.pairwise(edges)]))
    ours = seconds(lambda: train_window(x))
    print(f"training window of {S} snippets: ours {1e3 * ours:.2f} ms, np.mean in a loop × {plain / ours:.1f}")


def run() -> None:
    """Print the section."""
    bench_windows(S=1000, D=768)
