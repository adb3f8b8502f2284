"""Section 3.4, Eq. 5 in parallel: the same filter in a few long steps instead of T short ones, for a GPU.

Both recursions compose: V_t = M_t(V_{t−1}) with the Möbius map M_t = [[r, r·c], [1, c + r]], c = q + ε, and
s_t = (1 − k_t) s_{t−1} + k_t z_t (Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers",
2021). Time is cut into about √T stretches. The maps of all stretches are composed side by side, the states at their
ends follow one after the other, and from there all stretches run side by side again. Every entry of the products is
positive, so nothing cancels and float32 will do. The adjoint is two scans of the second kind, backwards in time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F


def affine_scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """x_t = a_t x_{t−1} + b_t for t = 0 … T−1, with x_{−1} = start.

    a, b: (B, T, D); start: (B, D). Returns (B, T, D).
    """
    T = a.shape[1]
    a, b = _stretches(a, 1.0), _stretches(b, 0.0)  # (B, n, C, D)
    steps = list(zip(a.unbind(2), b.unbind(2), strict=True))
    A, whole = steps[0]
    for a_j, b_j in steps[1:]:
        A, whole = a_j * A, torch.addcmul(b_j, a_j, whole)
    ends = [start]
    for A_i, b_i in zip(A.unbind(1)[:-1], whole.unbind(1)[:-1], strict=True):
        ends.append(torch.addcmul(b_i, A_i, ends[-1]))
    x = torch.stack(ends, 1)
    out = torch.empty_like(b)
    for (a_j, b_j), out_j in zip(steps, out.unbind(2), strict=True):
        x = torch.addcmul(b_j, a_j, x, out=out_j)
    return out.flatten(1, 2)[:, :T]


def variance_scan(r: Tensor, drift: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """V_t = k_t r_t with k_t = (V_{t−1} + c) / (V_{t−1} + c + r_t) for t = 0 … T−1, with V_{−1} = start.

    r: (B, T, D) > 0; drift: (D,) c ≥ 0; start: (B, D). Returns V and k, (B, T, D) each.
    """
    T = r.shape[1]
    r = _stretches(r, 1.0)  # (B, n, C, D)
    steps = r.unbind(2)
    # columns of the product so far, numerators x and denominators y: after the first map
    x = torch.stack([steps[0], steps[0] * drift])  # (2, B, n, D)
    y = torch.stack([torch.ones_like(steps[0]), steps[0] + drift])
    for r_j in steps[1:]:
        u = torch.addcmul(x, y, drift)
        x, y = r_j * u, torch.addcmul(u, r_j, y)
        scale = (x + y).sum(0).reciprocal_()  # a map is the same whatever its entries are multiplied by
        x, y = x.mul_(scale), y.mul_(scale)
    ends = [start]
    for x_i, y_i in zip(x.unbind(2)[:-1], y.unbind(2)[:-1], strict=True):
        ends.append(torch.addcmul(x_i[1], x_i[0], ends[-1]) / torch.addcmul(y_i[1], y_i[0], ends[-1]))
    v = torch.stack(ends, 1)
    posterior, gain = torch.empty_like(r), torch.empty_like(r)
    for r_j, v_j, k_j in zip(steps, posterior.unbind(2), gain.unbind(2), strict=True):
        m = v + drift
        torch.div(m, m + r_j, out=k_j)
        v = torch.mul(k_j, r_j, out=v_j)
    return posterior.flatten(1, 2)[:, :T], gain.flatten(1, 2)[:, :T]


class KalmanScan(torch.autograd.Function):
    """The filter of `model.kalman` with its exact adjoint, as scans."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State, variance and gain, (B, T, D) each; arguments as `kalman_filter`'s."""
        posterior, gain = variance_scan(variance[:, 1:] + epsilon, q + epsilon, variance[:, 0])
        # the first step takes its observation as it is: gain 1
        gain = torch.cat([torch.ones_like(z[:, :1]), gain], 1)
        posterior = torch.cat([variance[:, :1], posterior], 1)
        state = affine_scan(1 - gain, gain * z, torch.zeros_like(z[:, 0]))
        ctx.save_for_backward(z, variance, state, gain)
        ctx.epsilon = epsilon
        return state, posterior, gain

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_state: Tensor, grad_posterior: Tensor, grad_gain: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of z, variance and q."""
        z, variance, state, gain = ctx.saved_tensors
        keep = 1 - gain  # 0 at t = 0: nothing flows to an earlier step
        slope = keep / (variance + ctx.epsilon)  # ∂k/∂m
        innovation = F.pad(z[:, 1:] - state[:, :-1], (0, 0, 1, 0))
        # adjoints of s_t and V_t, contributions of later steps included
        a_s = _backwards(keep, grad_state)
        a_k = torch.addcmul(grad_gain, a_s, innovation)
        later = F.pad((keep * slope * a_k)[:, 1:], (0, 0, 0, 1))
        a_v = _backwards(keep.square(), grad_posterior + later)
        common = torch.addcmul(slope * a_k, keep, a_v)  # ∂k/∂m times the whole adjoint of k_t: slope · r = keep
        grad_variance = (a_v - common) * gain
        return a_s * gain, grad_variance, (common * keep).sum((0, 1)), None


def _backwards(a: Tensor, b: Tensor) -> Tensor:
    """x_t = a_{t+1} x_{t+1} + b_t from the last step to the first; (B, T, D)."""
    shifted = F.pad(a[:, 1:], (0, 0, 0, 1)).flip(1)
    return affine_scan(shifted, b.flip(1), torch.zeros_like(b[:, 0])).flip(1)


def _stretches(x: Tensor, fill: float) -> Tensor:
    """(B, T, D) → (B, n, C, D) with C about √T; `fill` follows the last step."""
    B, T, D = x.shape
    C = max(1, math.ceil(math.sqrt(T)))
    return F.pad(x, (0, 0, 0, -T % C), value=fill).view(B, -1, C, D)
