"""The sequential update against its reference, a float64 loop, filterpy, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from filterpy.kalman import KalmanFilter
from torch import Tensor

from model.ief_vad import IEFVAD
from model.kalman import Filtered, TemporalUpdate, kalman_filter, sequential_update
from model.kalman_kernels import KalmanLoop, KalmanScan

EPSILON = 1e-8
KERNELS = [KalmanLoop, KalmanScan]
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def oracle(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """The filter as a plain loop for float64, in a form whose autograd holds for σ² ≪ q as well.

    Autograd of Eq. 5 as it is written subtracts numbers that are equal there up to σ²/q.
    """
    s, V = z[:, 0], variance[:, 0]
    steps = [(s, V, torch.ones_like(s))]
    for t in range(1, z.shape[1]):
        m, r = V + q + epsilon, variance[:, t] + epsilon
        k, V = 1 / (1 + r / m), 1 / (1 / m + 1 / r)
        s = s / (1 + m / r) + k * z[:, t]
        steps.append((s, V, k))
    return Filtered(*(torch.stack(values, 1) for values in zip(*steps, strict=True)))


def observations(T: int, B: int = 2, D: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """z and variance, float32, the variances log-normal."""
    rng = np.random.default_rng(seed)
    z, log_variance = (rng.standard_normal((B, T, D)).astype(np.float32) for _ in range(2))
    return torch.from_numpy(z), torch.from_numpy(np.exp(log_variance))


def test_the_reference_by_hand():
    # 2 with variance 1, then 6 with variance 3: weights 1 and 1/3, so (2 + 2)/(4/3) = 3, 1/P = 3/4
    z, variance = torch.tensor([[[2.0], [6.0]]]), torch.tensor([[[1.0], [3.0]]])
    state, posterior, gain = sequential_update(z, variance, torch.zeros(1), 0.0)
    assert (state[0, 1].item(), posterior[0, 1].item()) == pytest.approx((3, 0.75))
    assert gain[0, :, 0].tolist() == pytest.approx([1, 0.25])


@pytest.mark.parametrize("q", [0.0, 0.1, 2.0])
def test_reference_and_filter_equal_filterpy(q):
    z, variance = observations(40, B=1, D=1, seed=3)
    epsilon = 1e-3  # large enough that leaving it out anywhere would show
    theirs = KalmanFilter(dim_x=1, dim_z=1)
    theirs.x, theirs.P = z[0, :1].double().numpy(), variance[0, :1].double().numpy()
    theirs.F = theirs.H = np.eye(1)
    theirs.Q = np.array([[q + epsilon]])
    found = [f(z, variance, torch.tensor([q]), epsilon) for f in (kalman_filter, sequential_update)]
    for t in range(1, 40):
        theirs.predict()
        theirs.update(z[0, t].item(), R=np.array([[variance[0, t].item() + epsilon]]))
        expected = [theirs.x.item(), theirs.P.item(), theirs.K.item()]
        for ours in found:
            assert [x[0, t, 0].item() for x in ours] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@each_kernel
@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 255, 256, 257, 300])
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 30.0])
def test_kernels_equal_the_reference_in_float64(T, q, kernel):
    z, variance = observations(T)
    drift = torch.full((5,), q)
    got = kernel.apply(z, variance, drift, EPSILON)
    expected = sequential_update(z.double(), variance.double(), drift.double(), EPSILON)
    torch.testing.assert_close(got[0].double(), expected.state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1].double(), expected.variance, rtol=1e-5, atol=0)
    torch.testing.assert_close(got[2].double(), expected.gain, rtol=1e-5, atol=0)


@each_kernel
@pytest.mark.parametrize("T", [1, 2, 6, 17])
def test_gradients_pass_gradcheck(T, kernel):
    z, variance = (x.double().requires_grad_() for x in observations(T, D=3, seed=1))
    q = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: kernel.apply(*x, 1e-3), (z, variance, q))


@each_kernel
@pytest.mark.parametrize("outputs", [3, 1])
@pytest.mark.parametrize("q", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_float32_gradients_hold_whatever_the_variances(scale, q, outputs, kernel):
    # with 1 − k by subtraction they are 6 % off at σ² = 1, q = 1e6, and 0 at σ² = 1e-12, q = 1
    z, variance = observations(40)
    upstream = observations(40, seed=1)[0], *observations(40, seed=2)
    inputs = [z, scale * variance, torch.full((5,), q)]

    def gradients(function, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        values = function(*leaves, EPSILON)[
            :outputs
        ]  # of state, variance and gain, or the state alone
        return torch.autograd.grad(values, leaves, [x.to(dtype) for x in upstream[:outputs]])

    expected = gradients(oracle, torch.float64)
    for got, exact in zip(gradients(kernel.apply, torch.float32), expected, strict=True):
        assert (got - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("q", [0.0, 1e-20, 1.0, 1e30])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_the_parallel_form_is_finite_where_the_loop_is(q, epsilon):
    # down to numbers without a reciprocal in float32, up to those whose square overflows
    values = torch.tensor([0.0, 1e-45, 1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e30, 1e38])
    generator = torch.Generator().manual_seed(0)
    for T in (2, 5, 33):
        variance = values[torch.randint(len(values), (64, T, 16), generator=generator)]
        z = torch.randn(64, T, 16, generator=generator)
        loop, scan = (
            kernel.apply(z, variance, torch.full((16,), q), epsilon) for kernel in KERNELS
        )
        finite = torch.stack([x.isfinite() for x in loop])
        assert finite.float().mean() > 0.3
        assert torch.stack([x.isfinite() for x in scan])[finite].all()


@each_kernel
def test_variances_from_tiny_to_huge_in_one_window(kernel):
    values = torch.tensor([1e-18, 1e-12, 1.0, 1e12, 1e18])
    generator = torch.Generator().manual_seed(0)
    variance = values[torch.randint(5, (8, 100, 16), generator=generator)].requires_grad_()
    z = torch.randn(8, 100, 16, generator=generator)
    state, posterior, gain = kernel.apply(z, variance, torch.zeros(16), 0.0)
    expected = oracle(z.double(), variance.double(), torch.zeros(16).double(), 0.0)
    torch.testing.assert_close(posterior.double(), expected.variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(gain.double(), expected.gain, rtol=1e-4, atol=0)
    torch.testing.assert_close(state.double(), expected.state, rtol=0, atol=1e-5)
    state.sum().backward()
    assert variance.grad.isfinite().all()


@each_kernel
def test_a_huge_first_variance_is_forgotten(kernel):
    # then q = ε = 0 and equal variances: the gain of step t is 1/t; 10²⁵ / 10⁻²⁰ overflows float32
    variance = torch.full((1, 40, 1), 1e-20)
    variance[:, 0] = 1e25
    gain = kernel.apply(torch.zeros(1, 40, 1), variance, torch.zeros(1), 0.0)[2]
    torch.testing.assert_close(gain[0, 1:, 0], 1 / torch.arange(1, 40.0), rtol=1e-5, atol=0)


def test_infinite_process_noise_is_no_recursion():
    z, variance = observations(50)
    none = TemporalUpdate(embed_dim=5, temporal_update="none", epsilon=EPSILON)(z, variance)
    limit = kalman_filter(z, variance, torch.full((5,), 1e12), EPSILON)
    assert torch.equal(none.state, z)
    torch.testing.assert_close(limit.state, none.state, rtol=0, atol=1e-5)
    torch.testing.assert_close(limit.variance, none.variance, rtol=1e-5, atol=2e-8)


def test_without_process_noise_the_state_is_the_running_mean():
    # equal variances: the gain is 1/t and the state the plain mean of all steps so far
    z, _ = observations(30)
    update = TemporalUpdate(embed_dim=5, temporal_update="paper", epsilon=0.0)
    filtered = update(z, torch.ones(2, 30, 5))
    steps = torch.arange(1, 31.0)[:, None]
    torch.testing.assert_close(filtered.state, z.cumsum(1) / steps, rtol=0, atol=1e-5)
    torch.testing.assert_close(filtered.gain[0], (1 / steps).expand(30, 5), rtol=1e-5, atol=0)


def test_learned_process_noise_starts_at_one_and_is_trained():
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1)
    update = model.temporal_update
    assert update.process_noise(torch.empty(1, 1, 16)).tolist() == pytest.approx([1.0] * 16)
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    model(x, x.flip(0)).logits.sum().backward()
    assert update.raw_process_noise.grad.abs().min() > 0


def test_learned_process_noise_reaches_the_filter():
    z, variance = observations(20)
    update = TemporalUpdate(embed_dim=5, temporal_update="kalman", epsilon=EPSILON)
    with torch.no_grad():
        update.raw_process_noise.copy_(torch.linspace(-4, 3, 5))
        q = torch.log1p(torch.linspace(-4, 3, 5).exp())  # softplus
        expected = sequential_update(z, variance, q, EPSILON)
        torch.testing.assert_close(update(z, variance).state, expected.state, rtol=1e-5, atol=1e-5)


def test_an_unknown_temporal_update_is_named():
    with pytest.raises(ValueError, match="unknown temporal update 'kalmann'"):
        TemporalUpdate(embed_dim=4, temporal_update="kalmann", epsilon=EPSILON)


def test_a_gpu_gets_the_parallel_form_and_a_cpu_the_loop(monkeypatch):
    class OnGPU(torch.Tensor):
        device = torch.device("cuda")

    called = []
    monkeypatch.setattr(KalmanLoop, "apply", lambda *_: called.append("loop") or (1, 2, 3))
    monkeypatch.setattr(KalmanScan, "apply", lambda *_: called.append("scan") or (1, 2, 3))
    for kind in (torch.Tensor, OnGPU):
        kalman_filter(
            torch.ones(1, 2, 3).as_subclass(kind), torch.ones(1, 2, 3), torch.ones(3), EPSILON
        )
    assert called == ["loop", "scan"]
