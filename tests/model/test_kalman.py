"""The sequential update against a float64 loop in the paper's letters, against filterpy, and its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from filterpy.kalman import KalmanFilter

from model.ief_vad import IEFVAD
from model.kalman import KalmanLoop, TemporalUpdate, kalman_filter
from model.kalman_scan import KalmanScan

EPSILON = 1e-8


def oracle(z: np.ndarray, variance: np.ndarray, q: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 5 word for word in float64: states and variances 1/P, (B, T, D) each."""
    z, variance, q = (np.asarray(x, np.float64) for x in (z, variance, q))
    s, P = z[:, 0], 1 / variance[:, 0]
    states, variances = [s], [1 / P]
    for t in range(1, z.shape[1]):
        w_prev = 1 / (1 / P + q + epsilon)
        w_cur = 1 / (variance[:, t] + epsilon)
        s = (w_prev * s + w_cur * z[:, t]) / (w_prev + w_cur)
        P = w_prev + w_cur
        states.append(s)
        variances.append(1 / P)
    return np.stack(states, 1), np.stack(variances, 1)


def observations(T: int, B: int = 2, D: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, D)).astype(np.float32), np.exp(rng.standard_normal((B, T, D))).astype(np.float32)


@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 256, 300])
@pytest.mark.parametrize("setting", ["paper", "0.1", "kalman"])
def test_equals_a_float64_loop(setting, T):
    z, variance = observations(T)
    if setting == "0.1":
        q = np.full(5, 0.1, np.float32)
        filtered = kalman_filter(torch.from_numpy(z), torch.from_numpy(variance), torch.from_numpy(q), EPSILON)
    else:
        update = TemporalUpdate(embed_dim=5, temporal_update=setting, epsilon=EPSILON)
        if setting == "kalman":
            with torch.no_grad():
                update.raw_process_noise.copy_(torch.linspace(-4, 3, 5))
        q = update.process_noise(torch.empty(1, 1, 5)).detach().numpy()
        with torch.no_grad():
            filtered = update(torch.from_numpy(z), torch.from_numpy(variance))
    states, variances = oracle(z, variance, q, EPSILON)
    scale = np.abs(states).max()
    np.testing.assert_allclose(filtered.state.numpy(), states, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(filtered.variance.numpy(), variances, rtol=1e-5)


@pytest.mark.parametrize("q", [0.0, 0.1, 2.0])
def test_equals_filterpy(q):
    z, variance = observations(40, B=1, D=1, seed=3)
    epsilon = 1e-3  # large enough that leaving it out anywhere would show
    theirs = KalmanFilter(dim_x=1, dim_z=1)
    theirs.x, theirs.P = np.array([[float(z[0, 0, 0])]]), np.array([[float(variance[0, 0, 0])]])
    theirs.F = theirs.H = np.eye(1)
    theirs.Q = np.array([[q + epsilon]])
    ours = kalman_filter(torch.from_numpy(z), torch.from_numpy(variance), torch.tensor([q]), epsilon)
    for t in range(1, 40):
        theirs.predict()
        theirs.update(float(z[0, t, 0]), R=np.array([[float(variance[0, t, 0]) + epsilon]]))
        assert ours.state[0, t, 0].item() == pytest.approx(theirs.x.item(), rel=1e-5, abs=1e-6)
        assert ours.variance[0, t, 0].item() == pytest.approx(theirs.P.item(), rel=1e-5)
        assert ours.gain[0, t, 0].item() == pytest.approx(theirs.K.item(), rel=1e-5)


def test_infinite_process_noise_is_no_recursion():
    z, variance = (torch.from_numpy(x) for x in observations(50))
    none = TemporalUpdate(embed_dim=5, temporal_update="none", epsilon=EPSILON)(z, variance)
    limit = kalman_filter(z, variance, torch.full((5,), 1e12), EPSILON)
    assert torch.equal(none.state, z)
    torch.testing.assert_close(limit.state, none.state, rtol=0, atol=1e-5)
    torch.testing.assert_close(limit.variance, none.variance, rtol=1e-5, atol=2e-8)


def test_without_process_noise_the_state_is_the_running_mean():
    # equal variances: the gain is 1/t and the state the plain mean of all steps so far, Section 3.4 to the letter
    z, _ = observations(30)
    filtered = kalman_filter(torch.from_numpy(z), torch.ones(2, 30, 5), torch.zeros(5), 0.0)
    means = np.cumsum(z, 1) / np.arange(1, 31)[:, None]
    np.testing.assert_allclose(filtered.state.numpy(), means, atol=1e-5)
    np.testing.assert_allclose(filtered.gain[0, :, 0].numpy(), 1 / np.arange(1, 31), rtol=1e-5)


FORMS = [KalmanLoop, KalmanScan]


@pytest.mark.parametrize("T", [1, 2, 3, 17, 64, 255, 256, 257, 300])
@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 30.0])
def test_the_parallel_form_equals_a_float64_loop(T, q):
    z, variance = observations(T)
    drift = np.full(5, q, np.float32)
    state, posterior, _ = KalmanScan.apply(*(torch.from_numpy(x) for x in (z, variance, drift)), EPSILON)
    states, variances = oracle(z, variance, drift, EPSILON)
    np.testing.assert_allclose(state.numpy(), states, atol=2e-6 * np.abs(states).max(), rtol=0)
    np.testing.assert_allclose(posterior.numpy(), variances, rtol=1e-5)


def test_both_forms_have_the_same_gradients():
    z, variance = observations(100)
    generator = torch.Generator().manual_seed(0)
    upstream = [torch.randn(2, 100, 5, generator=generator) for _ in range(3)]
    found = []
    for form in FORMS:
        inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in (z, variance, np.full(5, 0.3, np.float32))]
        found.append(torch.autograd.grad(form.apply(*inputs, EPSILON), inputs, upstream))
    for loop, scan in zip(*found, strict=True):
        torch.testing.assert_close(scan, loop, rtol=1e-4, atol=2e-6 * loop.abs().max().item())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 2, 6])
def test_gradients_of_state_variance_and_gain(T, form):
    rng = np.random.default_rng(1)
    z = torch.tensor(rng.standard_normal((2, T, 3)), requires_grad=True)
    variance = torch.tensor(np.exp(rng.standard_normal((2, T, 3))), requires_grad=True)
    q = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: form.apply(*x, 1e-3), (z, variance, q))


def test_learned_process_noise_starts_at_one_and_receives_a_gradient():
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1)
    update = model.temporal_update
    assert update.process_noise(torch.empty(1, 1, 16)).tolist() == pytest.approx([1.0] * 16)
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    model(x, x.flip(0)).logits.sum().backward()
    assert update.raw_process_noise.grad.abs().min() > 0


def test_an_unknown_setting_is_named():
    with pytest.raises(ValueError, match="unknown temporal update 'kalmann'"):
        TemporalUpdate(embed_dim=4, temporal_update="kalmann", epsilon=EPSILON)


@pytest.mark.parametrize("form", FORMS)
def test_huge_and_tiny_variances_stay_finite(form):
    z = torch.ones(1, 6, 1)
    variance = torch.tensor([1e-8, 1e8, 1e-8, 1e8, 1e-8, 1e8]).view(1, 6, 1).requires_grad_()
    filtered = form.apply(z, variance, torch.zeros(1), EPSILON)
    filtered[0].sum().backward()
    assert all(torch.isfinite(x).all() for x in (*filtered, variance.grad))
    assert math.isclose(filtered[0][0, -1, 0].item(), 1.0, rel_tol=1e-6)


def test_a_gpu_gets_the_parallel_form_and_a_cpu_the_loop(monkeypatch):
    class OnGPU(torch.Tensor):
        device = torch.device("cuda")

    called = []
    monkeypatch.setattr(KalmanLoop, "apply", lambda *_: called.append("loop") or (1, 2, 3))
    monkeypatch.setattr(KalmanScan, "apply", lambda *_: called.append("scan") or (1, 2, 3))
    for kind in (torch.Tensor, OnGPU):
        kalman_filter(torch.ones(1, 2, 3).as_subclass(kind), torch.ones(1, 2, 3), torch.ones(3), EPSILON)
    assert called == ["loop", "scan"]
