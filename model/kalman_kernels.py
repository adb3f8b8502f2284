"""Section 3.4, Eq. 5: fast kernels of the sequential update and its gradient.

The recursion of `model.kalman.sequential_update` in the letters of the filter: V = 1/P is the
state's variance, m its prediction, r the observation's variance, k the gain.

    m_t = V_{t−1} + q + ε                      r_t = σ²_t + ε
    k_t = m_t / (m_t + r_t)                1 − k_t = r_t / (m_t + r_t)
    s_t = s_{t−1} + k_t (z_t − s_{t−1})        V_t = k_t r_t

`KalmanLoop` takes T short steps, which suits a CPU. `KalmanScan` takes about 3√T long ones, which
suits a GPU (Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers", 2021).
It cuts time into about √T stretches and composes the steps of all stretches side by side. The
states at the ends of the stretches follow one after the other. From there all stretches run side by
side again. Variances are composed without a subtraction, so float32 suffices.

Autograd through the recursion would keep every intermediate result. The gradient here is exact and
needs only inputs and outputs: two recursions of the form x_t = a_t x_{t+1} + b_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

Gradients = tuple[Tensor, Tensor, Tensor, None]  # of z, variance, q and epsilon


class KalmanLoop(torch.autograd.Function):
    """The recursion and its gradient, one pass over T each way."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State, variance and gain, (B, T, D) each; arguments as in `kalman_filter`."""
        state, posterior, gain = torch.empty_like(z), torch.empty_like(z), torch.empty_like(z)
        s, v = z[:, 0], variance[:, 0]
        state[:, 0], posterior[:, 0], gain[:, 0] = s, v, 1.0
        drift, r = q + epsilon, variance + epsilon
        for z_t, r_t, s_t, v_t, k_t in _later_steps(z, r, state, posterior, gain):
            m = v + drift
            torch.div(m, m + r_t, out=k_t)
            s, v = torch.lerp(s, z_t, k_t, out=s_t), torch.mul(k_t, r_t, out=v_t)
        ctx.save_for_backward(z, variance, q, state, posterior, gain)
        ctx.epsilon = epsilon
        return state, posterior, gain

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> Gradients:
        """Gradients of z, variance and q from those of state, variance and gain."""
        return _gradients(_backwards_loop, ctx, *upstream)


class KalmanScan(torch.autograd.Function):
    """The same recursion and gradient, parallel over stretches of T."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """State, variance and gain, (B, T, D) each; arguments as in `kalman_filter`."""
        later, gain = variance_scan(variance[:, 1:] + epsilon, q + epsilon, variance[:, 0])
        posterior = torch.cat([variance[:, :1], later], 1)
        gain = torch.cat([torch.ones_like(z[:, :1]), gain], 1)  # 1: the state starts as z_0
        state = affine_scan(1 - gain, gain * z)
        ctx.save_for_backward(z, variance, q, state, posterior, gain)
        ctx.epsilon = epsilon
        return state, posterior, gain

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> Gradients:
        """Gradients of z, variance and q from those of state, variance and gain."""
        return _gradients(_backwards_scan, ctx, *upstream)


def affine_scan(a: Tensor, b: Tensor) -> Tensor:
    """x_t = a_t x_{t−1} + b_t with x_{−1} = 0 in about 3√T long steps; all (B, T, D)."""
    T = a.shape[1]
    a, b = _stretches(a, 1.0), _stretches(b, 0.0)  # (B, n, L, D)
    steps = list(zip(a.unbind(2), b.unbind(2), strict=True))
    A, whole = steps[0]
    for a_j, b_j in steps[1:]:
        A, whole = a_j * A, torch.addcmul(b_j, a_j, whole)
    ends = [torch.zeros_like(b[:, 0, 0])]
    for A_i, b_i in zip(A.unbind(1)[:-1], whole.unbind(1)[:-1], strict=True):
        ends.append(torch.addcmul(b_i, A_i, ends[-1]))
    x = torch.stack(ends, 1)  # the state before each stretch
    out = torch.empty_like(b)
    for (a_j, b_j), x_j in zip(steps, out.unbind(2), strict=True):
        x = torch.addcmul(b_j, a_j, x, out=x_j)
    return out.flatten(1, 2)[:, :T]


def variance_scan(r: Tensor, drift: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """V_t and k_t in about 3√T long steps, with V_{−1} = start.

    r: (B, T, D) ≥ 0; drift: (D,) q + ε ≥ 0; start: (B, D). Returns (B, T, D) each.

    Any number of steps maps V to A² V / (1 + J V) + C. With c = q + ε, one step has A = r/(c + r),
    C = c A and J = 1/(c + r). Each composed A ≤ 1, and C J ≤ T with the next step's J: no
    composition overflows, whatever the variances are.
    """
    T = r.shape[1]
    r = _stretches(r, 1.0)  # (B, n, L, D)
    total = _positive(r + drift)
    weight = r / total
    maps = list(zip(*(x.unbind(2) for x in (weight, weight * drift, 1 / total)), strict=True))
    A, C, J = maps[0]
    for A_j, C_j, J_j in maps[1:]:
        overlap = 1 + C * J_j
        share = A / overlap
        J = torch.addcmul(J, A * share, J_j)
        A, C = A_j * share, torch.addcmul(C_j, A_j.square(), C / overlap)
    ends = [start]
    for A_i, C_i, J_i in zip(*(x.unbind(1)[:-1] for x in (A, C, J)), strict=True):
        ends.append(torch.addcmul(C_i, A_i, A_i / (ends[-1].reciprocal() + J_i)))
    v = torch.stack(ends, 1)  # the variance before each stretch
    posterior, gain = torch.empty_like(r), torch.empty_like(r)
    for r_j, v_j, k_j in zip(*(x.unbind(2) for x in (r, posterior, gain)), strict=True):
        m = v + drift
        torch.div(m, _positive(m + r_j), out=k_j)
        v = torch.mul(k_j, r_j, out=v_j)
    return posterior.flatten(1, 2)[:, :T], gain.flatten(1, 2)[:, :T]


def _positive(x: Tensor) -> Tensor:
    """x ≥ 0, raised to the smallest number with a finite reciprocal; in place."""
    return x.clamp_(min=torch.finfo(x.dtype).tiny)


def _gradients(
    backwards: Callable[[Tensor, Tensor], Tensor],
    ctx: FunctionCtx,
    grad_state: Tensor,
    grad_posterior: Tensor,
    grad_gain: Tensor,
) -> Gradients:
    """The gradient of both kernels; `backwards` is `_backwards_loop` or `_backwards_scan`.

    1 − k is taken as r/(m + r): a difference from 1 would vanish in float32 where σ² ≪ q.
    """
    z, variance, q, state, posterior, gain = ctx.saved_tensors
    r = variance[:, 1:] + ctx.epsilon  # from here on steps 1 … T−1: the first has no predecessor
    total = _positive(posterior[:, :-1] + (q + ctx.epsilon) + r)  # m + r
    k, keep = gain[:, 1:], r / total  # keep: 1 − k
    grad_s = backwards(keep, grad_state)  # through all later states: ∂s_t/∂s_{t−1} = 1 − k
    # gradient of k over m + r: ∂k/∂m = (1 − k)/(m + r), ∂k/∂r = −k/(m + r)
    slope = torch.addcmul(grad_gain[:, 1:], grad_s[:, 1:], z[:, 1:] - state[:, :-1]).div_(total)
    # through all later variances: ∂V/∂m = (1 − k)², ∂V/∂r = k²
    grad_v = backwards(keep.square(), grad_posterior + F.pad(keep * slope, (0, 0, 0, 1)))
    grad_m = torch.addcmul(slope, keep, grad_v[:, 1:]).mul_(keep)
    grad_r = (k * grad_v[:, 1:]).sub_(slope).mul_(k)
    return grad_s * gain, torch.cat([grad_v[:, :1], grad_r], 1), grad_m.sum((0, 1)), None


def _backwards_loop(a: Tensor, b: Tensor) -> Tensor:
    """x_t = a_t x_{t+1} + b_t from the last step, x = b, back; a: (B, T−1, D), b: (B, T, D)."""
    out = torch.empty_like(b)
    out[:, -1] = x = b[:, -1]
    steps = zip(a.unbind(1), b.unbind(1)[:-1], out.unbind(1)[:-1], strict=True)
    for a_t, b_t, x_t in reversed(list(steps)):
        x = torch.addcmul(b_t, a_t, x, out=x_t)
    return out


def _backwards_scan(a: Tensor, b: Tensor) -> Tensor:
    """`_backwards_loop` in about 3√T long steps."""
    return affine_scan(F.pad(a, (0, 0, 0, 1)).flip(1), b.flip(1)).flip(1)


def _later_steps(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of every tensor at t = 1, 2, …, T−1."""
    return zip(*(tensor.unbind(1)[1:] for tensor in tensors), strict=True)


def _stretches(x: Tensor, fill: float) -> Tensor:
    """(B, T, D) → (B, n, L, D), n stretches of L ≈ √T steps; `fill` follows the last step."""
    B, T, D = x.shape
    L = max(1, math.ceil(math.sqrt(T)))
    return F.pad(x, (0, 0, 0, -T % L), value=fill).view(B, -1, L, D)
