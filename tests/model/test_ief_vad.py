"""Properties of the network with any weights: fusion, padding, modalities, input checks."""

from __future__ import annotations

import math

import pytest
import torch

from model.fusion import fuse
from model.ief_vad import IEFVAD, IEFVADConfig
from model.losses import Objective
from model.temporal_encoder import attention
from model.uncertainty import effective_logvar


def small_model(**config) -> IEFVAD:
    torch.manual_seed(0)
    return IEFVAD(**{"embed_dim": 32, "num_heads": 4, "num_refinement_steps": 2, **config}).eval()


def batch(B: int = 3, T: int = 12, D: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, T, D, generator=generator), torch.randn(B, T, D, generator=generator)


def test_student_t_and_gaussian_fuse_equally_at_epsilon_0():
    image_mu, event_mu = batch()
    image_s, event_s = (2 * x for x in batch(D=32))
    weights = {}
    for noise_model in ("StudentT", "Gaussian"):
        for epsilon in (0.0, 1.0):
            s = {"image": image_s, "event": event_s}
            fused = fuse(
                {"image": image_mu, "event": event_mu},
                {name: effective_logvar(x, noise_model, nu=2) for name, x in s.items()},
                epsilon=epsilon,
            )
            weights[noise_model, epsilon] = fused.weights["image"]
    torch.testing.assert_close(
        weights["StudentT", 0.0], weights["Gaussian", 0.0], rtol=1e-6, atol=1e-7
    )
    # with a large ε the factor does not cancel
    assert (weights["StudentT", 1.0] - weights["Gaussian", 1.0]).abs().max() > 1e-2


def test_effective_variance_is_smaller_by_nu_over_nu_plus_1():
    logvar = torch.tensor([-1.0, 0.0, 2.0])
    ratio = (effective_logvar(logvar, "StudentT", nu=8.0) - logvar).exp()
    torch.testing.assert_close(ratio, torch.full((3,), 8 / 9))


def test_fusion_matches_hand_computation():
    # variances 1 and 3: weights 3/4 and 1/4, fused mean 3/4·2 + 1/4·6 = 3, fused variance 3/4
    one = torch.ones(1, 1, 1)
    means, s = {"image": 2 * one, "event": 6 * one}, {"image": 0 * one, "event": (3 * one).log()}
    fused = fuse(means, s, epsilon=0.0)
    assert (fused.mean.item(), fused.variance.item()) == pytest.approx((3.0, 0.75))
    assert [x.item() for x in fused.weights.values()] == pytest.approx([0.75, 0.25])


def step_outputs(output) -> dict[str, torch.Tensor]:
    """Return the outputs of every step by name."""
    weights = {f"weight {name}": x for name, x in output.weights.items()}
    return weights | {name: getattr(output, name) for name in ("logits", "fused", "gain", "variance")}


@pytest.mark.parametrize("temporal_update", ["kalman", "paper", "none"])
@pytest.mark.parametrize("modality", ["fusion", "image", "event"])
def test_padding_changes_no_valid_output(temporal_update, modality):
    model = small_model(temporal_update=temporal_update, modality=modality)
    image, event = batch()
    lengths = torch.tensor([12, 1, 7])
    garbage = 100 * torch.ones(3, 30, 32)  # the values in the padding must not matter
    with torch.no_grad():
        short = model(image, event, lengths)
        long = model(torch.cat([image, garbage], 1), torch.cat([event, -garbage], 1), lengths)
    for row, length in enumerate(lengths):
        for name, x in step_outputs(short).items():
            y = step_outputs(long)[name]
            torch.testing.assert_close(x[row, :length], y[row, :length], rtol=1e-5, atol=1e-5)


def test_attention_matches_pytorch(T=12):
    torch.manual_seed(0)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    x, _ = batch()
    lengths = torch.tensor([12, 1, 7])
    padding = torch.arange(T) >= lengths[:, None]
    expected, _ = reference(x, x, x, key_padding_mask=padding, need_weights=False)
    torch.testing.assert_close(
        attention(reference, x, ~padding[:, None, None]), expected, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        attention(reference, x, None), reference(x, x, x, need_weights=False)[0], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"temporal_update": "paper"},
        {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
    ],
)
@pytest.mark.parametrize("modality", ["fusion", "image"])
def test_autocast_keeps_fusion_filter_and_loss_in_float32(config, modality):
    model = small_model(dropout=0.0, modality=modality, **config)
    image, event = batch(T=40)
    lengths, anomalous = torch.tensor([40, 3, 21]), torch.tensor([0.0, 1, 1])
    objective = Objective(config=model.config)
    exact = model(image, event, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image, event, lengths)
        terms = objective.terms(output, lengths, anomalous)
    for name, x in step_outputs(output).items():
        assert x.dtype == torch.float32, name
    assert all(term.dtype == torch.float32 for term in terms)
    # bfloat16 has 8 significant bits: 2⁻⁸ = 4e-3 per product, doubled for the rest of the network
    assert (output.logits - exact.logits).abs().max() < 8e-3 * exact.logits.abs().max()
    total = objective.total(terms)
    expected = objective.total(objective.terms(exact, lengths, anomalous))
    assert total.item() == pytest.approx(expected.item(), rel=2e-3)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_float16_embeddings_give_float32_results():
    model = small_model()
    image, event = (x.half() for x in batch())
    with torch.no_grad():
        assert torch.equal(model(image, event).logits, model(image.float(), event.float()).logits)


def test_attended_padding_changes_outputs():
    model = small_model(padding="attended")
    image, event = batch()
    lengths = torch.tensor([12, 12, 12])
    zeros = torch.zeros(3, 30, 32)
    with torch.no_grad():
        short = model(image, event, lengths).logits
        long = model(torch.cat([image, zeros], 1), torch.cat([event, zeros], 1), lengths).logits
    assert (short - long[:, :12]).abs().max() > 1e-3


@pytest.mark.parametrize("modality", ["image", "event"])
def test_single_modality_ignores_the_other(modality):
    model = small_model(modality=modality)
    image, event = batch()
    inputs = (image, None) if modality == "image" else (None, event)
    with torch.no_grad():
        output, alone = model(image, event), model(*inputs)
    assert torch.equal(output.logits, alone.logits)
    unused = "event" if modality == "image" else "image"
    assert output.weights[modality].eq(1).all()
    assert output.mu[modality].shape == (3, 12, 32)
    assert output.weights.keys() == output.mu.keys() == output.logvar.keys() == {modality}
    assert not any(name.startswith(unused) for name in model.state_dict())


def test_empty_window_attends_to_its_first_step():
    # attention without any valid step returns NaN in some PyTorch kernels
    model = small_model()
    with torch.no_grad():
        empty, one = (model(*batch(), torch.tensor([12, n, 3])).logits for n in (0, 1))
    assert empty.isfinite().all() and torch.equal(empty, one)


def test_zero_refinement_steps_classify_the_filter_state():
    model = small_model(num_refinement_steps=0)
    image, event = batch()
    with torch.no_grad():
        output = model(image, event)
    torch.testing.assert_close(model.classifier(output.fused), output.logits)
    assert not any(name.startswith("refinement") for name in model.state_dict())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"noise_model": "Cauchy"}, "noise_model must be one of StudentT, Gaussian, not 'Cauchy'"),
        ({"modality": "smell"}, "modality must be one of fusion, image, event, audio, .*, not 'smell'"),
        ({"nu": 0}, "nu must be positive .*, but is 0"),
        ({"nu": math.inf}, "nu must be positive and finite .* is noise_model Gaussian"),
        ({"epsilon": math.nan}, "epsilon must be finite and not negative, but is nan"),
        ({"lambda_ref": math.nan}, "lambda_ref must be finite, but is nan"),
        ({"embed_dim": 30}, "embedding width 30 is not divisible by 4 heads"),
    ],
)
def test_invalid_option_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        small_model(**config)


def test_embeddings_of_wrong_width_are_refused():
    image, event = batch()
    message = r"event embeddings must have shape \(B, T, 32\), not \(3, 12, 16\)"
    with pytest.raises(ValueError, match=message):
        small_model()(image, event[..., :16])


def test_numeric_defaults_are_those_of_the_paper():
    config = IEFVADConfig()
    assert (config.embed_dim, config.num_layers, config.num_heads) == (768, 2, 8)
    assert (config.num_refinement_steps, config.lambda_ref) == (10, 0.5)
    assert (config.noise_model, config.nu, config.epsilon) == ("StudentT", 8.0, 1e-8)


def test_compiled_model_matches_and_does_not_unroll_filter():
    model = small_model()
    image, event = batch(T=64)
    nodes = []

    def backend(graph, _):
        nodes.append(len(graph.graph.nodes))
        return graph.forward

    lengths = torch.tensor([64, 3, 20])
    compiled = torch.compile(model, backend=backend)(image, event, lengths)
    torch.testing.assert_close(compiled.logits, model(image, event, lengths).logits)
    # an unrolled filter alone would have five operations for each of the 64 steps
    assert 0 < sum(nodes) < 250
