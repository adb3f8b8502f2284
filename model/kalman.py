"""Section 3.4, Eq. 5: the sequential update of the fused state, one Kalman filter per dimension.

The state is a random walk with process noise q. The observation is the fused mean z_t, with
variance σ²_t + ε. The paper writes the update with the state's precision P_t, and without q:

    w_prev = 1 / (1/P_{t−1} + q + ε)                          precision of the prediction
    w_cur = 1 / (σ²_t + ε)                                    precision of the observation
    s_t = (w_prev s_{t−1} + w_cur z_t) / (w_prev + w_cur)     posterior mean
    P_t = w_prev + w_cur                                      posterior precision

The initial values are s_0 = z_0 and P_0 = 1/σ²_0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.kalman_kernels import KalmanLoop, KalmanScan

TEMPORAL_UPDATES = ("kalman", "paper", "none")
Triple = tuple[Tensor, Tensor, Tensor]


class Filtered(NamedTuple):
    """The filter's output at every time step, each (B, T, D)."""

    state: Tensor  # s_t, posterior mean
    variance: Tensor  # 1/P_t, posterior variance
    gain: Tensor  # w_cur / (w_prev + w_cur), weight of the observation; 1 at t = 0


def sequential_update(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """Compute Eq. 5 step by step, as a slow reference for `kalman_filter`, with its arguments.

    Example: z = 2, 6 with σ² = 1, 3 and q = ε = 0 ends in s = (2 + 6/3) / (1 + 1/3) = 3, 1/P = 3/4.
    """
    s, P = z[:, 0], 1 / variance[:, 0]  # (B, D) each
    steps = [(s, 1 / P, torch.ones_like(s))]
    for t in range(1, z.shape[1]):
        s, P, gain = filter_step(s, P, z[:, t], variance[:, t], q, epsilon)
        steps.append((s, 1 / P, gain))
    return Filtered(*(torch.stack(values, 1) for values in zip(*steps, strict=True)))


def filter_step(
    s: Tensor, P: Tensor, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return s_t, P_t and the gain, (B, D) each: one step of Eq. 5.

    s, P: (B, D) state and precision of step t − 1; z, variance: (B, D) observation of step t and its
    variance; q: (D,) process noise.
    """
    w_prev = 1 / (1 / P + q + epsilon)
    w_cur = 1 / (variance + epsilon)
    s = (w_prev * s + w_cur * z) / (w_prev + w_cur)
    P = w_prev + w_cur
    return s, P, w_cur / P


# torch.compile would unroll the recursion into thousands of operations, again for every T
@torch.compiler.disable
def kalman_filter(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """Filter a window of fused observations (Eq. 5).

    z, variance: (B, T, D) fused mean and variance; q: (D,) process noise ≥ 0, added to the state's
    variance at every step. The result can be differentiated once by z, variance and q.
    """
    # A step of B·D numbers keeps a CPU busy. A GPU takes longer to launch it than to compute it.
    kernel = KalmanLoop if z.device.type == "cpu" else KalmanScan
    return Filtered(*kernel.apply(z, variance, q.expand(z.shape[-1]), epsilon))


def exportable_filter(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """Filter as `kalman_filter` does, with one operator that torch.export keeps as a loop over any T.

    A step returns the state before it, and moves the state to the next observation. The observations
    are therefore rolled back by one step. The last move, to the first observation, has no effect.
    """
    # a private module of PyTorch, so only an export depends on it
    from torch._higher_order_ops.scan import scan

    def step(before: Triple, observation: tuple[Tensor, Tensor]) -> tuple[Triple, Triple]:
        s, P, gain = before
        after = filter_step(s, P, *observation, q, epsilon)
        return after, (s.clone(), 1 / P, gain.clone())  # a scan must not return its own input

    s, P = z[:, 0].contiguous(), 1 / variance[:, 0].contiguous()
    following = z.roll(-1, 1), variance.roll(-1, 1)
    _, filtered = scan(step, (s, P, torch.ones_like(s)), following, dim=1)
    return Filtered(*filtered)


class TemporalUpdate(nn.Module):
    """The sequential update with learned q ("kalman"), q = 0 ("paper") or q = ∞ ("none").

    With q = 0 the state is the precision-weighted mean of all steps so far. Its gain falls like
    1/t, so an anomaly late in a window hardly moves it. With q = ∞ the state is the observation.
    """

    def __init__(self, *, embed_dim: int, temporal_update: str, epsilon: float) -> None:
        super().__init__()
        if temporal_update not in TEMPORAL_UPDATES:
            choices = ", ".join(TEMPORAL_UPDATES)
            raise ValueError(f"temporal_update must be one of {choices}, not {temporal_update!r}")
        self.temporal_update = temporal_update
        self.epsilon = epsilon
        if temporal_update == "kalman":
            # initial q = softplus(log(e − 1)) = 1
            self.raw_process_noise = nn.Parameter(torch.full((embed_dim,), math.log(math.e - 1)))

    def process_noise(self, like: Tensor) -> Tensor:
        """Return q of each dimension, (D,), with device and dtype of `like`; 0 unless learned."""
        if self.temporal_update == "kalman":
            return F.softplus(self.raw_process_noise).to(like)
        return like.new_zeros(like.shape[-1])

    def forward(self, z: Tensor, variance: Tensor) -> Filtered:
        """Update the state over a window; z, variance: (B, T, D) fused mean and variance."""
        if self.temporal_update == "none":
            return Filtered(z, variance, torch.ones_like(z))
        update = exportable_filter if torch.compiler.is_exporting() else kalman_filter
        return update(z, variance, self.process_noise(variance), self.epsilon)

    def step(
        self, previous: tuple[Tensor, Tensor] | None, z: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return state s_t and precision P_t, (B, D) each, from those of the step before.

        previous: s_{t−1} and P_{t−1}, or None before the first step; z, variance: (B, D) as in
        `filter_step`. Steps one after the other equal `forward` up to rounding.
        """
        if previous is None or self.temporal_update == "none":
            return z, 1 / variance
        s, P, _ = filter_step(*previous, z, variance, self.process_noise(variance), self.epsilon)
        return s, P
