"""The sequential update equals a reference, a float64 loop and filterpy, and has the right limits."""

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
both_kernels = pytest.mark.parametrize("kernel", KERNELS)


def float64_loop(z: Tensor, variance: Tensor, q: Tensor, epsilon: float) -> Filtered:
    """Filter in a plain float64 loop whose autograd is accurate for σ² ≪ q.

    Autograd of Eq. 5 as written would subtract numbers that differ only by a factor of σ²/q there.
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
    """Return z and variance in float32, with log-normal variances."""
    rng = np.random.default_rng(seed)
    z, log_variance = (rng.standard_normal((B, T, D)).astype(np.float32) for _ in range(2))
    return torch.from_numpy(z), torch.from_numpy(np.exp(log_variance))


def test_reference_matches_hand_computation():
    # z = 2 with σ² = 1, then z = 6 with σ² = 3: s = (2 + 6/3) / (1 + 1/3) = 3 and 1/P = 3/4
    z, variance = torch.tensor([[[2.0], [6.0]]]), torch.tensor([[[1.0], [3.0]]])
    state, posterior, gain = sequential_update(z, variance, torch.zeros(1), 0.0)
    assert (state[0, 1].item(), posterior[0, 1].item()) == pytest.approx((3, 0.75))
    assert gain[0, :, 0].tolist() == pytest.approx([1, 0.25])


@pytest.mark.parametrize("q", [0.0, 0.1, 2.0])
def test_filter_and_reference_match_filterpy(q):
    z, variance = observations(40, B=1, D=1, seed=3)
    epsilon = 1e-3  # large enough that omitting it anywhere would fail
    theirs = KalmanFilter(dim_x=1, dim_z=1)
    theirs.x, theirs.P = z[0, :1].double().numpy(), variance[0, :1].double().numpy()
    theirs.F = theirs.H = np.eye(1)
    theirs.Q = np.array([[q + epsilon]])
    functions = (kalman_filter, sequential_update)
    results = [f(z, variance, torch.tensor([q]), epsilon) for f in functions]
    for t in range(1, 40):
        theirs.predict()
        theirs.update(z[0, t].item(), R=np.array([[variance[0, t].item() + epsilon]]))
        expected = [theirs.x.item(), theirs.P.item(), theirs.K.item()]
        for ours in results:
            assert [x[0, t, 0].item() for x in ours] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@both_kernels
@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 255, 256, 257, 300])
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 30.0])
def test_kernels_match_float64_reference(T, q, kernel):
    z, variance = observations(T)
    q = torch.full((5,), q)
    state, posterior, gain = (x.double() for x in kernel.apply(z, variance, q, EPSILON))
    expected = sequential_update(z.double(), variance.double(), q.double(), EPSILON)
    torch.testing.assert_close(state, expected.state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior, expected.variance, rtol=1e-5, atol=0)
    torch.testing.assert_close(gain, expected.gain, rtol=1e-5, atol=0)


@both_kernels
@pytest.mark.parametrize("T", [1, 2, 6, 17])
def test_gradients_pass_gradcheck(T, kernel):
    z, variance = (x.double().requires_grad_() for x in observations(T, D=3, seed=1))
    q = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: kernel.apply(*x, 1e-3), (z, variance, q))


@both_kernels
@pytest.mark.parametrize("outputs", [3, 1])
@pytest.mark.parametrize("q", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_float32_gradients_are_accurate_at_any_variance(scale, q, outputs, kernel):
    # if 1 − k is a subtraction, they are 6 % off at σ² = 1, q = 1e6, and 0 at σ² = 1e-12, q = 1
    z, variance = observations(40)
    upstream = observations(40, seed=1)[0], *observations(40, seed=2)
    inputs = [z, scale * variance, torch.full((5,), q)]

    def gradients(function, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        values = function(*leaves, EPSILON)[:outputs]  # state, variance and gain, or only state
        return torch.autograd.grad(values, leaves, [x.to(dtype) for x in upstream[:outputs]])

    expected = gradients(float64_loop, torch.float64)
    for actual, exact in zip(gradients(kernel.apply, torch.float32), expected, strict=True):
        assert (actual - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("q", [0.0, 1e-20, 1.0, 1e30])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_scan_is_finite_wherever_loop_is_finite(q, epsilon):
    # from numbers whose reciprocal overflows float32 to numbers whose square does
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


@both_kernels
def test_kernels_handle_extreme_variances_in_one_window(kernel):
    values = torch.tensor([1e-18, 1e-12, 1.0, 1e12, 1e18])
    generator = torch.Generator().manual_seed(0)
    variance = values[torch.randint(5, (8, 100, 16), generator=generator)].requires_grad_()
    z = torch.randn(8, 100, 16, generator=generator)
    state, posterior, gain = kernel.apply(z, variance, torch.zeros(16), 0.0)
    expected = float64_loop(z.double(), variance.double(), torch.zeros(16).double(), 0.0)
    torch.testing.assert_close(posterior.double(), expected.variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(gain.double(), expected.gain, rtol=1e-4, atol=0)
    torch.testing.assert_close(state.double(), expected.state, rtol=0, atol=1e-5)
    state.sum().backward()
    assert variance.grad.isfinite().all()


@both_kernels
def test_huge_initial_variance_does_not_overflow(kernel):
    # with q = ε = 0 and equal variances, the gain of step t is 1/t; 10²⁵ / 10⁻²⁰ overflows float32
    variance = torch.full((1, 40, 1), 1e-20)
    variance[:, 0] = 1e25
    gain = kernel.apply(torch.zeros(1, 40, 1), variance, torch.zeros(1), 0.0)[2]
    torch.testing.assert_close(gain[0, 1:, 0], 1 / torch.arange(1, 40.0), rtol=1e-5, atol=0)


def test_infinite_process_noise_equals_no_recursion():
    z, variance = observations(50)
    none = TemporalUpdate(embed_dim=5, temporal_update="none", epsilon=EPSILON)(z, variance)
    limit = kalman_filter(z, variance, torch.full((5,), 1e12), EPSILON)
    assert torch.equal(none.state, z)
    torch.testing.assert_close(limit.state, none.state, rtol=0, atol=1e-5)
    torch.testing.assert_close(limit.variance, none.variance, rtol=1e-5, atol=2e-8)


def test_zero_process_noise_gives_running_mean():
    # with equal variances the gain is 1/t and the state is the mean of all steps so far
    z, _ = observations(30)
    update = TemporalUpdate(embed_dim=5, temporal_update="paper", epsilon=0.0)
    filtered = update(z, torch.ones(2, 30, 5))
    steps = torch.arange(1, 31.0)[:, None]
    torch.testing.assert_close(filtered.state, z.cumsum(1) / steps, rtol=0, atol=1e-5)
    torch.testing.assert_close(filtered.gain[0], (1 / steps).expand(30, 5), rtol=1e-5, atol=0)


def test_learned_process_noise_starts_at_one_with_gradient():
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


def test_unknown_temporal_update_is_refused():
    with pytest.raises(ValueError, match="must be one of kalman, paper, none, not 'kalmann'"):
        TemporalUpdate(embed_dim=4, temporal_update="kalmann", epsilon=EPSILON)


def test_gpu_uses_scan_and_cpu_uses_loop(monkeypatch):
    class OnGPU(torch.Tensor):
        device = torch.device("cuda")

    called = []
    monkeypatch.setattr(KalmanLoop, "apply", lambda *_: called.append("loop") or (1, 2, 3))
    monkeypatch.setattr(KalmanScan, "apply", lambda *_: called.append("scan") or (1, 2, 3))
    x = torch.ones(1, 2, 3)
    for tensor_class in (torch.Tensor, OnGPU):
        kalman_filter(x.as_subclass(tensor_class), x, torch.ones(3), EPSILON)
    assert called == ["loop", "scan"]


@pytest.mark.parametrize("update", ["kalman", "paper", "none"])
def test_steps_one_by_one_equal_the_whole_window(update):
    z, variance = observations(30)
    module = TemporalUpdate(embed_dim=5, temporal_update=update, epsilon=EPSILON)
    whole, previous = module(z, variance), None
    for t in range(30):
        previous = module.step(previous, z[:, t], variance[:, t])
        s, P = previous
        torch.testing.assert_close(s, whole.state[:, t], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(1 / P, whole.variance[:, t], rtol=1e-5, atol=1e-6)
