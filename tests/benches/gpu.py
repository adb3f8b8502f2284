"""Training on a GPU: steps a second, share of its peak, hours for the four data sets; one line where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model import IEFVAD
from model.kalman import KalmanLoop
from model.kalman_scan import KalmanScan
from tests.benches.timing import Machine
from tests.benches.training import training_step
from vad.catalog import DATASETS, SNIPPET_FRAMES, Dataset
from vad.data import Batch

T, D = 256, 768
CROPS = 10


def step_flops(B: int, N: int = 10, layers: int = 2) -> float:
    """Operations of a training step: products of the network, three times (forward, both gradients)."""
    per_step = 2 * layers * (4 * 2 * D * D + 2 * 2 * T * D) + 2 * 2 * 2 * D * D + N * 2 * 2 * D * D
    return 3.0 * B * T * per_step


def batch_of(B: int) -> Batch:
    """Random windows in float16, page-locked where there is a GPU, as the cache gives them."""
    image, event = (torch.randn(B, T, D).half() for _ in range(2))
    if torch.cuda.is_available():
        image, event = image.pin_memory(), event.pin_memory()
    anomalous = (torch.arange(B) >= B // 2).float()
    return Batch(image, event, torch.randint(16, T + 1, (B,)), anomalous, tuple(map(str, range(B))))


def steps_of(dataset: Dataset) -> tuple[int, int]:
    """Videos a batch, and steps of the whole training."""
    recipe = dataset.recipe
    train, _ = dataset.videos["official"]
    size = recipe.batch_size * (2 if recipe.paired else 1)
    return size, max(1, train * CROPS // size) * recipe.max_epoch


def run() -> None:
    """Print the section."""
    if not torch.cuda.is_available():
        print("no GPU here; where there is one, `python tests/bench.py gpu` prints steps/s, share of peak and hours")
        return
    print(f"{torch.cuda.get_device_name()}; snippets of {SNIPPET_FRAMES} frames, windows of {T}, width {D}")
    bench(Machine(repeats=20))


def bench(machine: Machine, batches: Sequence[int] = (2, 16, 128)) -> None:
    """Print the Kalman step's forms, steps a second of every batch size, and the hours that the data sets take."""
    device, B = machine.device, batches[-1]
    z, variance = (torch.rand(B, T, D, device=device).add(0.1).requires_grad_() for _ in range(2))
    q = torch.ones(D, device=device, requires_grad=True)
    for form in (KalmanScan, KalmanLoop):
        taken = machine.seconds(lambda f=form: f.apply(z, variance, q, 1e-8)[0].sum().backward())
        print(f"  {form.__name__}, batch {B}, forward and backward: {1e3 * taken:.2f} ms")
    model = IEFVAD(embed_dim=D).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates: dict[tuple[str, int], float] = {}
    for precision, dtype in dtypes.items():
        peak = machine.peak(dtype)
        for B in batches:
            batch = batch_of(B)
            taken = machine.seconds(lambda b=batch, p=precision: training_step(model, b, optimizer, p))
            rates[precision, B] = taken
            share = 100 * step_flops(B) / taken / peak
            print(f"  {precision}, batch {B}: {1 / taken:.1f} steps/s, {share:.0f} % of {peak / 1e12:.0f} TFLOP/s")
    for dataset in DATASETS.values():
        if dataset.drawn:
            continue
        size, steps = steps_of(dataset)
        # batch sizes differ from set to set: the one next to it, by videos
        near = min(batches, key=lambda B: abs(B - size))
        hours = ", ".join(f"{steps * rates[p, near] * size / near / 3600:.2f} h in {p}" for p in dtypes)
        print(f"  {dataset.title}: {steps} steps of {size}: {hours}, evaluations aside")
