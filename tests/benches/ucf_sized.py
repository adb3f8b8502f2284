"""A data set of UCF-Crime's size: loading, memory, steps and evaluation, where it has been made."""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

from model import IEFVAD
from tests.benches.training import training_step
from vad.benchmark import TestSet, add_list_flags, find_lists, open_test_set
from vad.catalog import ROOT
from vad.data import TrainingBatches, TrainingWindows, cache_folder, find_samples
from vad.device import pick_device
from vad.lists import read_csv
from vad.metrics import evaluate
from vad.settings import add_dataset_flags, add_switch_flags, resolve
from vad.ucf_sized import NAME

STEPS = 2  # on a CPU; a step of 128 is 5 TFLOP


def said(what: str, action: Callable[[], object]) -> object:
    """Result of an action, its time printed with the memory that the process has had at most."""
    start = time.perf_counter()
    result = action()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {what}: {time.perf_counter() - start:.1f} s (peak memory so far {peak:.0f} MiB)")
    return result


def opened(toml: Path) -> tuple[TestSet, TrainingBatches]:
    """Test set and training batches, each part timed."""
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    add_list_flags(parser)
    add_switch_flags(parser, recipe=True)
    args = parser.parse_args(["--dataset", str(toml)])
    settings = resolve(args)
    lists = find_lists(args, settings)
    test = said("test list, headers, ground truth", lambda: open_test_set(lists, settings, "fusion"))
    items = read_csv(lists.train, settings.dataset)
    samples, width = said(
        "training list and headers", lambda: find_samples(items, settings.dataset, lists.feature_root)
    )
    folder = cache_folder(items, lists.feature_root)
    there = "opening" if list(folder.glob("*.npy")) else "building"
    windows = said(
        f"{there} the cache of {len(samples)} items",
        lambda: TrainingWindows(samples, window=256, nan="refuse", width=width, cache=folder),
    )
    recipe = settings.recipe
    return test, TrainingBatches(windows, recipe.batch_size, recipe.paired, seed=0)


def bench_steps(batches: TrainingBatches, model: IEFVAD, device: torch.device, steps: int) -> None:
    """Steps of both precisions, loading included, from batches as training takes them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    for precision in ("fp32", "bf16"):
        epoch = batches.epoch(0)
        training_step(model, next(epoch), optimizer, precision)
        start = time.perf_counter()
        waited = 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(epoch)
            waited += time.perf_counter() - asked
            training_step(model, batch, optimizer, precision)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = (time.perf_counter() - start) / steps
        epoch.close()
        print(f"  {precision}: {100 * taken:.1f} s for 100 steps of {len(batch.videos)} (from {steps}), of which "
              f"{100 * waited / steps / taken:.2f} % waiting for data; ten epochs of {len(batches)} steps: "
              f"{10 * len(batches) * taken / 3600:.1f} h")  # fmt: skip


def run() -> None:
    """Print the section."""
    folder = Path(os.environ.get("IEFVAD_UCF_SIZED", ROOT / "data" / NAME))
    toml = folder / f"{NAME}.toml"
    if not toml.is_file():
        print(f"no {toml}; make it with: python -m vad.demo --ucf_sized {folder}")
        return
    test, batches = opened(toml)
    device = pick_device("auto")
    model = IEFVAD(embed_dim=test.width).to(device)
    bench_steps(batches, model, device, 50 if device.type == "cuda" else STEPS)
    scored = said(f"scoring {len(test.videos)} test videos", lambda: test.score(model, device, progress=None))
    said("their metrics", lambda: evaluate(scored, test.settings.dataset))
