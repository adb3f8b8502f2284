"""Benchmark training on a GPU: steps per second, share of the peak rate, hours for the four data sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model import MODALITIES
from model.kalman_kernels import KalmanLoop, KalmanScan
from tests.benchmarks.timing import Machine
from tests.benchmarks.training import PRECISIONS, Trainer
from vad.data import Batch
from vad.datasets import SNIPPET_FRAMES, Dataset, dataset_names, load_dataset
from vad.options import resolve

T, D = 256, 768
CROPS = 10


def step_flops(B: int, N: int = 10, layers: int = 2) -> float:
    """Return the FLOPs of a training step: three times the forward pass, for two gradients per product."""
    per_step = 2 * layers * (4 * 2 * D * D + 2 * 2 * T * D) + 2 * 2 * 2 * D * D + N * 2 * 2 * D * D
    return 3.0 * B * T * per_step


def batch_of(B: int) -> Batch:
    """Return a random float16 batch as the cache returns it, in pinned memory if there is a GPU."""
    streams = {stream: torch.randn(B, T, D).half() for stream in MODALITIES["fusion"]}
    anomalous = (torch.arange(B) >= B // 2).float()
    batch = Batch(streams, torch.randint(16, T + 1, (B,)), anomalous, tuple(map(str, range(B))))
    return batch.pin_memory() if torch.cuda.is_available() else batch


def steps_of(dataset: Dataset) -> tuple[int, int]:
    """Return the number of videos per batch and of steps of the whole training."""
    options = resolve({"dataset": dataset.flag_value})
    train, _ = dataset.split_counts["official"]
    size = options.batch_size * (2 if options.paired else 1)
    return size, max(1, train * CROPS // size) * options.max_epoch


def run() -> None:
    """Run the benchmarks if there is a GPU."""
    if not torch.cuda.is_available():
        print("No GPU found. On a GPU, `python tests/bench.py gpu` prints steps/s, share of the peak rate and hours.")
        return
    print(f"{torch.cuda.get_device_name()}; snippets of {SNIPPET_FRAMES} frames, windows of {T}, width {D}")
    bench(Machine(repeats=20))


def bench(machine: Machine, batches: Sequence[int] = (2, 16, 128)) -> None:
    """Time both Kalman kernels and the training step; print the hours to train on each data set."""
    bench_kalman(machine, batches[-1])
    times = bench_steps(machine, batches)
    for dataset in map(load_dataset, dataset_names()):
        if dataset.synthetic or dataset.split_per_run:
            continue
        size, steps = steps_of(dataset)
        # estimated from the measured batch size nearest to that of the data set
        nearest = min(batches, key=lambda B: abs(B - size))
        hours = (f"{steps * times[p, nearest] * size / nearest / 3600:.2f} h in {p}" for p in PRECISIONS)
        print(f"  {dataset.title}: {steps} steps of {size} videos: {', '.join(hours)}, without evaluations")


def bench_kalman(machine: Machine, B: int) -> None:
    """Time forward and backward of both Kalman kernels."""
    z, variance = (torch.rand(B, T, D, device=machine.device).add(0.1).requires_grad_() for _ in range(2))
    q = torch.ones(D, device=machine.device, requires_grad=True)
    for kernel in (KalmanScan, KalmanLoop):
        duration = machine.seconds(lambda k=kernel: k.apply(z, variance, q, 1e-8)[0].sum().backward())
        print(f"  {kernel.__name__}, batch {B}, forward and backward: {1e3 * duration:.2f} ms")


def bench_steps(machine: Machine, batches: Sequence[int]) -> dict[tuple[str, int], float]:
    """Return the time of a training step, in seconds, for every precision and batch size."""
    trainer, times = Trainer(D, torch.device(machine.device)), {}
    for precision, dtype in zip(PRECISIONS, (torch.float32, torch.bfloat16), strict=True):
        peak = machine.peak(dtype)
        for B in batches:
            batch = batch_of(B)
            times[precision, B] = machine.seconds(lambda b=batch, p=precision: trainer.step(b, p))
            share = 100 * step_flops(B) / times[precision, B] / peak
            print(f"  {precision}, batch {B}: {1 / times[precision, B]:.1f} steps/s, {share:.0f} % of "
                  f"{peak / 1e12:.0f} TFLOP/s")  # fmt: skip
    return times
