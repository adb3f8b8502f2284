"""The Kalman step: our two forms against two loops, its share of the network, its growth with T; the attention."""

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
        "one pass (ours)": lambda: kalman_filter(z, variance, q, EPSILON).state,
        "scan (ours, for a GPU)": lambda: KalmanScan.apply(z, variance, q, EPSILON)[0],
        "loop over unbind(1)": lambda: plain_loop(z, variance, q, unbound=True),
        "loop with x[:, t]": lambda: plain_loop(z, variance, q, unbound=False),
    }
    taken = {name: seconds(lambda form=form: form().sum().backward(), 3) for name, form in forms.items()}
    ours = taken["one pass (ours)"]
    print(f"Kalman step, forward + backward, B {B}, T {T}, D {D}")
    for name, value in taken.items():
        print(f"  {name:28s} {1e3 * value:9.1f} ms   × {value / ours:.1f}")
    print("  operations that a GPU would have to launch:", end="")
    for name in ("one pass (ours)", "scan (ours, for a GPU)"):
        print(f"  {name} {operations(lambda form=forms[name]: form().sum().backward())}", end="")
    print()
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


class Operations(TorchDispatchMode):
    """Counts operations on tensors, those that only make views or reserve memory aside."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        """Run an operation and count it."""
        aside = function.is_view or function.overloadpacket.__name__.startswith(("empty", "detach", "_unsafe_view"))
        self.count += not aside
        return function(*args, **(kwargs or {}))


def operations(action: Callable[[], object]) -> int:
    """Operations that an action takes, its backward pass included."""
    with Operations() as found:
        action()
    return found.count


def bench_attention(B: int, T: int, D: int) -> None:
    """One layer's attention, forward and backward, against the module of PyTorch that holds its weights."""
    weights = torch.nn.MultiheadAttention(D, 8, dropout=0.1, batch_first=True)
    x = torch.randn(B, T, D, requires_grad=True)
    padding = torch.arange(T) >= torch.randint(T // 4, T + 1, (B, 1))
    mask = ~padding[:, None, None]
    for mode in ("training", "evaluation"):
        weights.train(mode == "training")
        ours = seconds(lambda: attention(weights, x, mask).sum().backward())
        module = seconds(lambda: weights(x, x, x, key_padding_mask=padding, need_weights=False)[0].sum().backward())
        print(f"attention, {mode}, B {B}: ours {1e3 * ours:.0f} ms, nn.MultiheadAttention × {module / ours:.2f}")


def run() -> None:
    """Print the section."""
    bench_kalman(B=8, T=256, D=768)
    bench_attention(B=8, T=256, D=768)
