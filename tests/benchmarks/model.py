"""Benchmark the Kalman update (two kernels, two plain loops, share of the network, growth with T) and the attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import IEFVAD
from model.kalman import kalman_filter
from model.kalman_kernels import KalmanScan
from model.temporal_encoder import attention
from tests.benchmarks.timing import seconds

EPSILON = 1e-8


def plain_loop(z: Tensor, variance: Tensor, q: Tensor, unbound: bool) -> Tensor:
    """Compute Eq. 5 in a plain autograd loop, with x[:, t] or over x.unbind(1)."""
    steps = zip(z.unbind(1), variance.unbind(1), strict=True) if unbound else None
    pairs = steps or ((z[:, t], variance[:, t]) for t in range(z.shape[1]))
    s, v = next(pairs)
    states = [s]
    for z_t, variance_t in pairs:
        m, r = v + q + EPSILON, variance_t + EPSILON
        k = m / (m + r)
        s, v = s + k * (z_t - s), k * r
        states.append(s)
    return torch.stack(states, 1)


def bench_kalman(B: int, T: int, D: int) -> None:
    """Time forward and backward of the Kalman update in all forms, and its share of the network."""
    z, variance = (torch.rand(B, T, D).add(0.1).requires_grad_() for _ in range(2))
    q = torch.ones(D, requires_grad=True)
    forms = {
        "one pass (ours)": lambda: kalman_filter(z, variance, q, EPSILON).state,
        "scan (ours, for GPUs)": lambda: KalmanScan.apply(z, variance, q, EPSILON)[0],
        "loop over unbind(1)": lambda: plain_loop(z, variance, q, unbound=True),
        "loop with x[:, t]": lambda: plain_loop(z, variance, q, unbound=False),
    }
    times = {name: seconds(lambda form=form: form().sum().backward(), 3) for name, form in forms.items()}
    ours = times["one pass (ours)"]
    print(f"Kalman update, forward + backward, B {B}, T {T}, D {D}")
    for name, value in times.items():
        print(f"  {name:28s} {1e3 * value:9.1f} ms   × {value / ours:.1f}")
    print("  kernel launches on a GPU:", end="")
    for name in ("one pass (ours)", "scan (ours, for GPUs)"):
        print(f"  {name} {operations(lambda form=forms[name]: form().sum().backward())}", end="")
    print()
    model = IEFVAD(embed_dim=D)
    x = torch.randn(B, T, D)
    whole = seconds(lambda: model(x, x).logits.sum().backward(), 3)
    print(f"  share of the network's {1e3 * whole:.0f} ms: {100 * ours / whole:.1f} % (target: at most 10 %)")
    print("  ms per time step, which must not grow with T:", end="")
    for length in (T // 2, T, 2 * T):
        longer = torch.rand(B, length, D).add(0.1).requires_grad_()
        value = seconds(lambda x=longer: kalman_filter(x, x, q, EPSILON).state.sum().backward(), 3)
        print(f"  T {length}: {1e3 * value / length:.3f}", end="")
    print()


class Operations(TorchDispatchMode):
    """Count tensor operations, except views and memory allocation."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        """Run an operation and count it."""
        uncounted = ("empty", "detach", "_unsafe_view")
        self.count += not (function.is_view or function.overloadpacket.__name__.startswith(uncounted))
        return function(*args, **(kwargs or {}))


def operations(action: Callable[[], object]) -> int:
    """Return the number of tensor operations of an action."""
    with Operations() as counter:
        action()
    return counter.count


def bench_attention(B: int, T: int, D: int) -> None:
    """Time forward and backward of one attention layer against PyTorch's own module."""
    layer = torch.nn.MultiheadAttention(D, 8, dropout=0.1, batch_first=True)
    x = torch.randn(B, T, D, requires_grad=True)
    padding = torch.arange(T) >= torch.randint(T // 4, T + 1, (B, 1))
    mask = ~padding[:, None, None]
    for mode in ("training", "evaluation"):
        layer.train(mode == "training")
        ours = seconds(lambda: attention(layer, x, mask).sum().backward())
        module = seconds(lambda: layer(x, x, x, key_padding_mask=padding, need_weights=False)[0].sum().backward())
        print(f"attention, {mode}, B {B}: ours {1e3 * ours:.0f} ms, nn.MultiheadAttention × {module / ours:.2f}")


def run() -> None:
    """Run all benchmarks of this file."""
    bench_kalman(B=8, T=256, D=768)
    bench_attention(B=8, T=256, D=768)
