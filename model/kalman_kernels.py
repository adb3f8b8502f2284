"""Section 3.4, Eq. 5: fast kernels of the sequential update and its gradient.

The recursion of `model.kalman.sequential_update` in the usual form of the Kalman filter, where V is
the posterior variance 1/P, m the predicted variance, r the observation variance and k the gain:

    m_t = V_{t−1} + q + ε                      r_t = σ²_t + ε
    k_t = m_t / (m_t + r_t)                1 − k_t = r_t / (m_t + r_t)
    s_t = s_{t−1} + k_t (z_t − s_{t−1})        V_t = k_t r_t

`KalmanLoop` takes T short steps, which suits a CPU. `KalmanScan` takes about 3√T long steps, which
suits a GPU (Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers", 2021).
The scan splits the window into about √T chunks and works in three passes:
1. compose the steps of each chunk into one map, all chunks in parallel;
2. compute the state at the start of each chunk, one chunk after the other;
3. run the recursion inside each chunk, all chunks in parallel.
The composition of variances subtracts nothing, so float32 is accurate enough.

Autograd through the recursion would store every intermediate result. The gradient here is exact and
needs only inputs and outputs: two backward recursions of the form x_t = a_t x_{t+1} + b_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

Gradients = tuple[Tensor, Tensor, Tensor, None]  # with respect to z, variance, q and epsilon


class KalmanLoop(torch.autograd.Function):
    """The recursion and its gradient as a loop over T, forward and backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return state, variance and gain, (B, T, D) each; arguments as in `kalman_filter`."""
        state, posterior, gain = torch.empty_like(z), torch.empty_like(z), torch.empty_like(z)
        s, v = z[:, 0], variance[:, 0]
        state[:, 0], posterior[:, 0], gain[:, 0] = s, v, 1.0
        q_eps, r = q + epsilon, variance + epsilon
        for z_t, r_t, s_t, v_t, k_t in _later_steps(z, r, state, posterior, gain):
            m = v + q_eps
            torch.div(m, m + r_t, out=k_t)
            s, v = torch.lerp(s, z_t, k_t, out=s_t), torch.mul(k_t, r_t, out=v_t)
        ctx.save_for_backward(z, variance, q, state, posterior, gain)
        ctx.epsilon = epsilon
        return state, posterior, gain

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> Gradients:
        """Return the gradients of z, variance and q from those of state, variance and gain."""
        return _gradients(_backward_loop, ctx, *upstream)


class KalmanScan(torch.autograd.Function):
    """The recursion and its gradient as a scan, parallel over chunks of T."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, variance: Tensor, q: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return state, variance and gain, (B, T, D) each; arguments as in `kalman_filter`."""
        later, gain = variance_scan(variance[:, 1:] + epsilon, q + epsilon, variance[:, 0])
        posterior = torch.cat([variance[:, :1], later], 1)
        gain = torch.cat([torch.ones_like(z[:, :1]), gain], 1)  # gain 1 at t = 0, as s_0 = z_0
        state = affine_scan(1 - gain, gain * z)
        ctx.save_for_backward(z, variance, q, state, posterior, gain)
        ctx.epsilon = epsilon
        return state, posterior, gain

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> Gradients:
        """Return the gradients of z, variance and q from those of state, variance and gain."""
        return _gradients(_backward_scan, ctx, *upstream)


def affine_scan(a: Tensor, b: Tensor) -> Tensor:
    """Compute x_t = a_t x_{t−1} + b_t from x_{−1} = 0 in about 3√T steps; all (B, T, D)."""
    T = a.shape[1]
    a, b = _chunks(a, 1.0), _chunks(b, 0.0)  # (B, n, L, D)
    steps = list(zip(a.unbind(2), b.unbind(2), strict=True))
    A, C = steps[0]  # the composed map of a chunk is x → A x + C
    for a_j, b_j in steps[1:]:
        A, C = a_j * A, torch.addcmul(b_j, a_j, C)
    starts = [torch.zeros_like(b[:, 0, 0])]
    for A_i, C_i in zip(A.unbind(1)[:-1], C.unbind(1)[:-1], strict=True):
        starts.append(torch.addcmul(C_i, A_i, starts[-1]))
    x = torch.stack(starts, 1)  # (B, n, D), the state before each chunk
    out = torch.empty_like(b)
    for (a_j, b_j), x_j in zip(steps, out.unbind(2), strict=True):
        x = torch.addcmul(b_j, a_j, x, out=x_j)
    return out.flatten(1, 2)[:, :T]


def variance_scan(r: Tensor, q_eps: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Compute V_t and k_t, (B, T, D) each, from V_{−1} = start in about 3√T steps.

    r: (B, T, D) observation variances ≥ 0; q_eps: (D,) q + ε ≥ 0; start: (B, D).

    Any sequence of steps maps V to A² V / (1 + J V) + C. One step has A = r/(q + ε + r),
    C = (q + ε) A and J = 1/(q + ε + r). Every composed A is at most 1, and C times the next step's
    J is at most T. No composition can therefore overflow.
    """
    T = r.shape[1]
    r = _chunks(r, 1.0)  # (B, n, L, D)
    total = _positive(r + q_eps)
    weight = r / total
    maps = list(zip(*(x.unbind(2) for x in (weight, weight * q_eps, 1 / total)), strict=True))
    A, C, J = maps[0]
    for A_j, C_j, J_j in maps[1:]:
        denominator = 1 + C * J_j
        scaled = A / denominator
        J = torch.addcmul(J, A * scaled, J_j)
        A, C = A_j * scaled, torch.addcmul(C_j, A_j.square(), C / denominator)
    starts = [start]
    for A_i, C_i, J_i in zip(*(x.unbind(1)[:-1] for x in (A, C, J)), strict=True):
        starts.append(torch.addcmul(C_i, A_i, A_i / (starts[-1].reciprocal() + J_i)))
    v = torch.stack(starts, 1)  # (B, n, D), the variance before each chunk
    posterior, gain = torch.empty_like(r), torch.empty_like(r)
    for r_j, v_j, k_j in zip(*(x.unbind(2) for x in (r, posterior, gain)), strict=True):
        m = v + q_eps
        torch.div(m, _positive(m + r_j), out=k_j)
        v = torch.mul(k_j, r_j, out=v_j)
    return posterior.flatten(1, 2)[:, :T], gain.flatten(1, 2)[:, :T]


def _positive(x: Tensor) -> Tensor:
    """Raise x ≥ 0 in place to at least the smallest number with a finite reciprocal."""
    return x.clamp_(min=torch.finfo(x.dtype).tiny)


def _gradients(
    recursion: Callable[[Tensor, Tensor], Tensor],
    ctx: FunctionCtx,
    grad_state: Tensor,
    grad_posterior: Tensor,
    grad_gain: Tensor,
) -> Gradients:
    """Return the gradients of either kernel; `recursion` is `_backward_loop` or `_backward_scan`.

    1 − k is computed as r/(m + r), because subtraction would round it to 0 where σ² ≪ q.
    """
    z, variance, q, state, posterior, gain = ctx.saved_tensors
    r = variance[:, 1:] + ctx.epsilon  # steps 1 … T−1 from here on; step 0 has no predecessor
    innovation = _positive(posterior[:, :-1] + (q + ctx.epsilon) + r)  # variance m + r
    k, one_minus_k = gain[:, 1:], r / innovation
    grad_s = recursion(one_minus_k, grad_state)  # ∂s_t/∂s_{t−1} = 1 − k
    # slope = (∂L/∂k)/(m + r), because ∂k/∂m = (1 − k)/(m + r) and ∂k/∂r = −k/(m + r)
    slope = torch.addcmul(grad_gain[:, 1:], grad_s[:, 1:], z[:, 1:] - state[:, :-1])
    slope = slope.div_(innovation)
    # ∂V/∂m = (1 − k)² and ∂V/∂r = k²
    grad_v = grad_posterior + F.pad(one_minus_k * slope, (0, 0, 0, 1))
    grad_v = recursion(one_minus_k.square(), grad_v)
    grad_m = torch.addcmul(slope, one_minus_k, grad_v[:, 1:]).mul_(one_minus_k)
    grad_r = (k * grad_v[:, 1:]).sub_(slope).mul_(k)
    return grad_s * gain, torch.cat([grad_v[:, :1], grad_r], 1), grad_m.sum((0, 1)), None


def _backward_loop(a: Tensor, b: Tensor) -> Tensor:
    """Compute x_t = a_t x_{t+1} + b_t back from x_{T−1} = b_{T−1}; a: (B, T−1, D), b: (B, T, D)."""
    out = torch.empty_like(b)
    out[:, -1] = x = b[:, -1]
    steps = zip(a.unbind(1), b.unbind(1)[:-1], out.unbind(1)[:-1], strict=True)
    for a_t, b_t, x_t in reversed(list(steps)):
        x = torch.addcmul(b_t, a_t, x, out=x_t)
    return out


def _backward_scan(a: Tensor, b: Tensor) -> Tensor:
    """Compute the recursion of `_backward_loop` in about 3√T steps."""
    return affine_scan(F.pad(a, (0, 0, 0, 1)).flip(1), b.flip(1)).flip(1)


def _later_steps(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over the steps t = 1, …, T−1 of several tensors."""
    return zip(*(tensor.unbind(1)[1:] for tensor in tensors), strict=True)


def _chunks(x: Tensor, fill: float) -> Tensor:
    """Split (B, T, D) into n chunks of L ≈ √T steps, (B, n, L, D); pad the last with `fill`."""
    B, T, D = x.shape
    L = max(1, math.ceil(math.sqrt(T)))
    return F.pad(x, (0, 0, 0, -T % L), value=fill).view(B, -1, L, D)
