"""Section 3.4, Eq. 5: the sequential update of the fused state, a Kalman filter per dimension.

State: random walk with process noise q; observation: the fused mean z_t with variance σ²_t + ε. In the letters
of the filter (V = 1/P the state's variance, m its prediction, r the observation's variance, k the gain):

    m_t = V_{t−1} + q + ε          r_t = σ²_t + ε
    k_t = m_t / (m_t + r_t)        s_t = s_{t−1} + k_t (z_t − s_{t−1})        V_t = k_t r_t

which is the paper's s_t = (w_prev s_{t−1} + w_cur z_t)/(w_prev + w_cur) with w_prev = 1/m_t, w_cur = 1/r_t.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from model.kalman_scan import KalmanScan

TEMPORAL_UPDATES = ("kalman", "paper", "none")


class Filtered(NamedTuple):
    """The filter's run over a window, each (B, T, D)."""

    state: Tensor  # s_t, posterior mean
    variance: Tensor  # V_t = 1/P_t, posterior variance
    gain: Tensor  # k_t, share of the new observation; 1 at t = 0


class KalmanLoop(torch.autograd.Function):
    """The recursion and its adjoint, both one pass over T.

    Autograd through a loop would keep every intermediate and, with x[:, t], write a full-sized gradient per step
    (O(T²)). The adjoint below needs only s, k and the inputs, and is exact.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State, variance and gain, (B, T, D) each; arguments as `kalman_filter`'s."""
        r = variance + epsilon
        state, posterior, gain = torch.empty_like(z), torch.empty_like(z), torch.empty_like(z)
        s, v = z[:, 0], variance[:, 0]
        state[:, 0], posterior[:, 0], gain[:, 0] = s, v, 1.0
        drift = q + epsilon
        for z_t, r_t, state_t, v_t, k_t in _steps(z, r, state, posterior, gain):
            m = v + drift
            torch.div(m, m + r_t, out=k_t)
            torch.lerp(s, z_t, k_t, out=state_t)
            torch.mul(k_t, r_t, out=v_t)
            s, v = state_t, v_t
        ctx.save_for_backward(z, r, state, gain)
        return state, posterior, gain

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_state: Tensor, grad_posterior: Tensor, grad_gain: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of z, variance and q."""
        z, r, state, gain = ctx.saved_tensors
        # what does not depend on the recursion, for all steps at once: ∂k/∂m = (1−k)/(m+r) = (1−k)²/r,
        # because m + r = r/(1−k); and ∂k/∂r = −k(1−k)/r
        keep = 1 - gain
        slope = keep / r
        innovation = torch.zeros_like(z)
        torch.sub(z[:, 1:], state[:, :-1], out=innovation[:, 1:])
        grad_z, grad_r = torch.empty_like(z), torch.empty_like(z)
        grad_q = torch.zeros_like(z[:, 0])
        a_s = torch.zeros_like(z[:, 0])  # adjoint of s_t
        a_v = torch.zeros_like(z[:, 0])  # adjoint of V_t
        steps = list(
            _steps(gain, keep, slope, innovation, r, grad_state, grad_posterior, grad_gain, grad_z, grad_r)
        )
        for k, kept, slope_t, e, r_t, g_s, g_v, g_k, out_z, out_r in reversed(steps):
            a_s = a_s + g_s
            a_v = a_v + g_v
            a_k = torch.addcmul(torch.addcmul(g_k, a_s, e), a_v, r_t)
            torch.mul(a_s, k, out=out_z)
            a_s = a_s * kept
            common = a_k * slope_t
            torch.mul(a_v - common, k, out=out_r)  # V_t = k_t r_t, and k_t falls with r_t
            a_v = common * kept  # becomes the adjoint of m_t = V_{t−1} + q + ε
            grad_q += a_v
        grad_z[:, 0] = a_s + grad_state[:, 0]
        grad_r[:, 0] = a_v + grad_posterior[:, 0]  # V_0 = σ²_0
        return grad_z, grad_r, grad_q.sum(0), None


def _steps(*tensors: Tensor):
    """Views of every tensor at t = 1, 2, …, T−1."""
    return zip(*(tensor.unbind(1)[1:] for tensor in tensors), strict=True)


# torch.compile would unroll the recursion into thousands of operations, for minutes and for every T anew
@torch.compiler.disable
def kalman_filter(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """Filter a window of fused observations (Eq. 5).

    z, variance: (B, T, D) fused mean and variance; q: (D,) process noise ≥ 0, added to the state's variance at
    every step. The state starts at s_0 = z_0 with P_0 = 1/σ²_0. Differentiable once in z, variance and q.
    """
    # a CPU is kept busy by a step of B·D numbers; a GPU would wait for the launch of each, so it gets fewer and longer
    form = KalmanLoop if z.device.type == "cpu" else KalmanScan
    return Filtered(*form.apply(z, variance, q.expand(z.shape[-1]), epsilon))


class TemporalUpdate(nn.Module):
    """The three settings of the time step: learned q ("kalman"), q = 0 ("paper"), q = ∞ ("none").

    With q = 0 the state is a running precision-weighted mean of everything seen so far; its gain falls like 1/t,
    and an anomaly late in a window can hardly move it. With q = ∞ the state is the observation.
    """

    def __init__(self, *, embed_dim: int, temporal_update: str, epsilon: float) -> None:
        super().__init__()
        if temporal_update not in TEMPORAL_UPDATES:
            raise ValueError(f"unknown temporal update {temporal_update!r}; known are {', '.join(TEMPORAL_UPDATES)}")
        self.temporal_update = temporal_update
        self.epsilon = epsilon
        if temporal_update == "kalman":
            # softplus(log(e − 1)) = 1
            self.raw_process_noise = nn.Parameter(torch.full((embed_dim,), math.log(math.e - 1)))

    def process_noise(self, like: Tensor) -> Tensor:
        """q per dimension, (D,), on the device and in the type of `like`; learned, or 0 (`none` has no recursion)."""
        if self.temporal_update == "kalman":
            return F.softplus(self.raw_process_noise).to(like)
        return like.new_zeros(like.shape[-1])

    def forward(self, z: Tensor, variance: Tensor) -> Filtered:
        """z, variance: (B, T, D) fused mean and variance."""
        if self.temporal_update == "none":
            return Filtered(z, variance, torch.ones_like(z))
        return kalman_filter(z, variance, self.process_noise(variance), self.epsilon)
