"""Benchmark a data set of UCF-Crime's size in the folder IEFVAD_UCF_SIZED: loading, memory, training, evaluation."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from tests.benchmarks.training import PRECISIONS, Trainer
from tests.benchmarks.ucf_sized import DATASET, make, snippet_counts
from vad.data import PairedBatches, Windows, find_videos, read_list
from vad.evaluation import TestSet, open_test_set
from vad.metrics import evaluate
from vad.options import Options, resolve
from vad.runtime import pick_device

T = TypeVar("T")
STEPS = 2  # on a CPU; a step with 128 videos needs 5 TFLOP


def timed(name: str, action: Callable[[], T]) -> T:
    """Run an action and return its result; print its time and the peak memory of the process."""
    start = time.perf_counter()
    result = action()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name}: {time.perf_counter() - start:.1f} s (peak memory so far {peak:.0f} MiB)")
    return result


def open_all(folder: Path, options: Options) -> tuple[TestSet, DataLoader]:
    """Open test set and training batches and time each part."""
    test = timed("test list, headers, ground truth", lambda: open_test_set(options, DATASET))
    rows = read_list(test.train_list, DATASET)
    videos, widths = timed(
        "training list and headers", lambda: find_videos(rows, DATASET, test.feature_root, "fusion")
    )
    cache = folder / "windows"
    verb = "opening" if cache.is_dir() else "building"
    windows = timed(
        f"{verb} the windows of {len(videos)} crops",
        lambda: Windows(videos, options.window, options.nan, widths, cache),
    )
    batches = PairedBatches(videos, options.batch_size, options.paired, seed=0)
    pinned = torch.cuda.is_available()
    return test, DataLoader(windows, batch_sampler=batches, collate_fn=lambda x: x, pin_memory=pinned)


def bench_steps(loader: DataLoader, trainer: Trainer, steps: int) -> None:
    """Time training steps in fp32 and bf16, including data loading."""
    for precision in PRECISIONS:
        batches = iter(loader)
        trainer.step(next(batches), precision)
        start, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            requested = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - requested
            trainer.step(batch, precision)
        per_step = (time.perf_counter() - start) / steps
        hours = 10 * len(loader) * per_step / 3600
        print(f"  {precision}: {100 * per_step:.1f} s for 100 steps of {len(batch.names)} videos (from {steps}), "
              f"of which {100 * waited / steps / per_step:.2f} % waiting for data; ten epochs of "
              f"{len(loader)} steps: {hours:.1f} h")  # fmt: skip


def run() -> None:
    """Run all benchmarks of this file; create the data set if it is missing (a few minutes, 1 GB)."""
    setting = os.environ.get("IEFVAD_UCF_SIZED")
    if not setting:
        print("Skipped. Set IEFVAD_UCF_SIZED to a folder for the data set (1 GB).")
        return
    folder = Path(setting)
    counts = snippet_counts()
    timed("creating the data set", lambda: make(folder, [DATASET.videos[n] for n in counts], counts))
    test, loader = open_all(folder, resolve({"list_root": str(folder / "lists")}))
    trainer = Trainer(test.widths["image"], pick_device("auto"))
    bench_steps(loader, trainer, 50 if trainer.device.type == "cuda" else STEPS)
    scored = timed(
        f"scoring {len(test.videos)} test videos",
        lambda: test.score(trainer.model, trainer.device, progress=False),
    )
    timed("computing the metrics", lambda: evaluate(scored, DATASET))
