"""A data set of UCF-Crime's size: loading, memory, steps and evaluation; IEFVAD_UCF_SIZED names its folder."""

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
STEPS = 2  # on a CPU; a step of 128 is 5 TFLOP


def timed(what: str, action: Callable[[], T]) -> T:
    """Result of an action; prints its time and the largest memory of the process so far."""
    start = time.perf_counter()
    result = action()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {what}: {time.perf_counter() - start:.1f} s (peak memory so far {peak:.0f} MiB)")
    return result


def open_all(folder: Path, options: Options) -> tuple[TestSet, DataLoader]:
    """Test set and training batches, each part timed."""
    test = timed("test list, headers, ground truth", lambda: open_test_set(options, DATASET))
    rows = read_list(test.train_list, DATASET)
    videos, width = timed(
        "training list and headers", lambda: find_videos(rows, DATASET, test.feature_root, "fusion")
    )
    cache = folder / "windows"
    what = "opening" if cache.is_dir() else "building"
    windows = timed(
        f"{what} the windows of {len(videos)} crops",
        lambda: Windows(videos, options.window, options.nan, width, cache),
    )
    batches = PairedBatches(videos, options.batch_size, options.paired, seed=0)
    pinned = torch.cuda.is_available()
    return test, DataLoader(windows, batch_sampler=batches, collate_fn=lambda x: x, pin_memory=pinned)


def bench_steps(loader: DataLoader, trainer: Trainer, steps: int) -> None:
    """Steps of both precisions, loading included, from batches as training takes them."""
    for precision in PRECISIONS:
        batches = iter(loader)
        trainer.step(next(batches), precision)
        start, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            trainer.step(batch, precision)
        taken = (time.perf_counter() - start) / steps
        hours = 10 * len(loader) * taken / 3600
        print(f"  {precision}: {100 * taken:.1f} s for 100 steps of {len(batch.names)} (from {steps}), "
              f"of which {100 * waited / steps / taken:.2f} % waiting for data; ten epochs of "
              f"{len(loader)} steps: {hours:.1f} h")  # fmt: skip


def run() -> None:
    """Print the section; the data set is made where it is not there yet (some minutes, 1 GB)."""
    named = os.environ.get("IEFVAD_UCF_SIZED")
    if not named:
        print("skipped; set IEFVAD_UCF_SIZED to a folder, which will hold the data set (1 GB)")
        return
    folder = Path(named)
    counts = snippet_counts()
    timed("making the data set", lambda: make(folder, [DATASET.videos[n] for n in counts], counts))
    test, loader = open_all(folder, resolve({"list_root": str(folder / "lists")}))
    trainer = Trainer(test.width, pick_device("auto"))
    bench_steps(loader, trainer, 50 if trainer.device.type == "cuda" else STEPS)
    scored = timed(
        f"scoring {len(test.videos)} test videos",
        lambda: test.score(trainer.model, trainer.device, progress=False),
    )
    timed("their metrics", lambda: evaluate(scored, DATASET))
