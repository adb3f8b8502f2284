"""Training on a GPU: steps a second, share of its peak, hours for the four data sets; one line where there is none."""

from __future__ import annotations

import torch

from model import IEFVAD
from model.kalman import KalmanLoop
from model.kalman_scan import KalmanScan
from tests.benches.timing import seconds
from tests.benches.training import training_step
from vad.catalog import DATASETS, SNIPPET_FRAMES, Dataset
from vad.data import Batch

T, D = 256, 768
CROPS = 10


def gpu_seconds(action: object, repeats: int = 20) -> float:
    """As `seconds`, of work that is finished."""
    return seconds(lambda: (action(), torch.cuda.synchronize()), repeats)


def peak_flops(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: what this machine can do at most."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * n**3 / gpu_seconds(lambda: a @ b)


def step_flops(B: int, N: int = 10, layers: int = 2) -> float:
    """Operations of a training step: products of the network, three times (forward, both gradients)."""
    per_step = 2 * layers * (4 * 2 * D * D + 2 * 2 * T * D) + 2 * 2 * 2 * D * D + N * 2 * 2 * D * D
    return 3.0 * B * T * per_step


def batch_of(B: int) -> Batch:
    """Random windows in page-locked float16, as the cache gives them."""
    image, event = (torch.randn(B, T, D).half().pin_memory() for _ in range(2))
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
    z, variance = (torch.rand(128, T, D, device="cuda").add(0.1).requires_grad_() for _ in range(2))
    q = torch.ones(D, device="cuda", requires_grad=True)
    for form in (KalmanScan, KalmanLoop):
        taken = gpu_seconds(lambda f=form: f.apply(z, variance, q, 1e-8)[0].sum().backward())
        print(f"  {form.__name__}, batch 128, forward and backward: {1e3 * taken:.2f} ms")
    model = IEFVAD(embed_dim=D).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates: dict[tuple[str, int], float] = {}
    for precision, dtype in dtypes.items():
        peak = peak_flops(dtype)
        for B in (2, 16, 128):
            batch = batch_of(B)
            taken = gpu_seconds(lambda b=batch, p=precision: training_step(model, b, optimizer, p))
            rates[precision, B] = taken
            share = 100 * step_flops(B) / taken / peak
            print(f"  {precision}, batch {B}: {1 / taken:.1f} steps/s, {share:.0f} % of {peak / 1e12:.0f} TFLOP/s")
    for dataset in DATASETS.values():
        if dataset.drawn:
            continue
        size, steps = steps_of(dataset)
        hours = ", ".join(f"{steps * rates[p, size] / 3600:.2f} h in {p}" for p in dtypes)
        print(f"  {dataset.title}: {steps} steps of {size}: {hours}, evaluations aside")
