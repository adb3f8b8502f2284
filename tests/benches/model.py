"""The Kalman step: our form against two loops, its share of the network, its growth with T."""

from __future__ import annotations

import torch
from torch import Tensor

from model import IEFVAD
from model.kalman import kalman_filter
from tests.benches.timing import seconds

EPSILON = 1e-8


def plain_loop(z: Tensor, variance: Tensor, q: Tensor, unbound: bool) -> Tensor:
    """Eq. 5 as a loop that autograd follows, with x[:, t] or over x.unbind(1)."""
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
    """Forward and backward of the Kalman step: our form, both loops, and its share of the whole network."""
    z, variance = (torch.rand(B, T, D).add(0.1).requires_grad_() for _ in range(2))
    q = torch.ones(D, requires_grad=True)
    forms = {
        "autograd.Function (ours)": lambda: kalman_filter(z, variance, q, EPSILON).state,
        "loop over unbind(1)": lambda: plain_loop(z, variance, q, unbound=True),
        "loop with x[:, t]": lambda: plain_loop(z, variance, q, unbound=False),
    }
    taken = {name: seconds(lambda form=form: form().sum().backward(), 3) for name, form in forms.items()}
    ours = taken["autograd.Function (ours)"]
    print(f"Kalman step, forward + backward, B {B}, T {T}, D {D}")
    for name, value in taken.items():
        print(f"  {name:28s} {1e3 * value:9.1f} ms   × {value / ours:.1f}")
    model = IEFVAD(embed_dim=D)
    x = torch.randn(B, T, D)
    whole = seconds(lambda: model(x, x).logits.sum().backward(), 3)
    print(f"  share of the network's {1e3 * whole:.0f} ms: {100 * ours / whole:.1f} % (target: at most 10 %)")
    print("  ms a time step, to see that it does not grow with T:", end="")
    for length in (T // 2, T, 2 * T):
        longer = torch.rand(B, length, D).add(0.1).requires_grad_()
        value = seconds(lambda x=longer: kalman_filter(x, x, q, EPSILON).state.sum().backward(), 3)
        print(f"  T {length}: {1e3 * value / length:.3f}", end="")
    print()


def run() -> None:
    """Print the section."""
    bench_kalman(B=8, T=256, D=768)
