"""Fusions to compare with inverse variance, and the projection to principal components."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from model import IEFVAD, load_checkpoint, save_checkpoint
from model.fusion_baselines import BASELINES, WITHOUT_WEIGHTS, LateFusion
from model.ief_vad import FUSIONS, ConfigError
from model.losses import Objective
from model.projection import PrincipalComponents

B, T, D = 3, 9, 16
SMALL = {"embed_dim": D, "num_layers": 1, "num_heads": 4, "dropout": 0.0, "num_refinement_steps": 2}
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def estimates(seed: int = 0, batch: int = B):
    """Return means and variances of both streams."""
    torch.manual_seed(seed)
    mu = {name: torch.randn(batch, T, D) for name in ("image", "event")}
    return mu, {name: torch.rand(batch, T, D) + 0.1 for name in mu}


def build(fusion: str):
    """Return one of the baseline fusions with fixed weights."""
    torch.manual_seed(1)
    return BASELINES[fusion](embed_dim=D, num_heads=4).eval()


@pytest.mark.parametrize("fusion", ["equal", "gate", "concat"])
def test_variance_is_that_of_sampled_estimates(fusion):
    """The propagated variance equals the empirical one of z for sampled independent estimates."""
    mu, variance = ({name: x[:1, :1] for name, x in streams.items()} for streams in estimates())
    module = build(fusion)
    if fusion == "gate":  # a constant gate is a linear map
        module.gate.weight.data.zero_()
    samples = {name: x + torch.randn(1, 20_000, D) * variance[name].sqrt() for name, x in mu.items()}
    sampled = module(samples, variance, None)
    torch.testing.assert_close(sampled.variance[0, 0], sampled.mean[0].var(0), rtol=0.05, atol=0)


def test_weights_add_up_to_one():
    for fusion in ("equal", "gate"):
        fused = build(fusion)(*estimates(), None)
        torch.testing.assert_close(sum(fused.weights.values()), torch.ones(B, T, D))
        mu, _ = estimates()
        torch.testing.assert_close(fused.mean, sum(fused.weights[name] * x for name, x in mu.items()))
    assert (build("equal")(*estimates(), None).weights["image"] == 0.5).all()


@pytest.mark.parametrize("fusion", BASELINES)
def test_fusions_without_weights_report_nan(fusion):
    fused = build(fusion)(*estimates(), None)
    assert fused.weights["image"].isnan().all() == (fusion in WITHOUT_WEIGHTS) and fused.mean.isfinite().all()


def test_cross_attention_of_one_step_is_hand_computed():
    """With a single valid step, attention returns the projected value of that step."""
    module, (mu, variance) = build("cross_attention"), estimates()
    mask = (torch.arange(T) < 1)[None, None, None].expand(B, 1, 1, T)
    layer = module.attention

    def value(x):
        return layer.out_proj(x @ layer.in_proj_weight[2 * D :].T + layer.in_proj_bias[2 * D :])

    expected = sum(x + value(x[:, :1]) for x in mu.values()) / 2
    torch.testing.assert_close(module(mu, variance, mask).mean[:, 0], expected[:, 0])


def test_late_score_is_the_mean_probability():
    """The logit of the mean is stable: logits of ±80 round to probabilities of 0 and 1."""
    logits = torch.tensor([0.3, -2.0, 80.0, 1.0, -1.0, -80.0]).view(6, 1, 1)
    mean = LateFusion.mean_score(logits, 2)
    p = torch.sigmoid(logits.double())
    torch.testing.assert_close(torch.sigmoid(mean.double()), (p[:3] + p[3:]) / 2)
    assert mean.isfinite().all()


def test_late_fusion_scores_each_stream_alone():
    """Its score is the mean of two single-stream networks with the same weights."""
    torch.manual_seed(2)
    late = IEFVAD(**SMALL, fusion="late").eval()
    image, event = torch.randn(2, B, T, D)
    expected = 0
    for stream in ("image", "event"):
        single = IEFVAD(**SMALL, modality=stream).eval()
        single.load_state_dict({k: v for k, v in late.state_dict().items() if k in single.state_dict()})
        expected = expected + torch.sigmoid(single(image, event).logits) / 2
    torch.testing.assert_close(torch.sigmoid(late(image, event).logits), expected)


@every_fusion
def test_padding_changes_no_score(fusion):
    torch.manual_seed(3)
    model = IEFVAD(**SMALL, fusion=fusion).eval()
    image, event = torch.randn(2, B, T, D)
    lengths = torch.tensor([T, 4, 1])
    scores = model(image, event, lengths).logits
    changed = model(image + (torch.arange(T) >= 4)[None, :, None] * 9.0, event, lengths).logits
    torch.testing.assert_close(scores[1, :4], changed[1, :4])
    assert scores.shape == (B, T, 1)


@every_fusion
def test_fusion_trains_and_survives_a_checkpoint(fusion, tmp_path):
    """Every parameter gets a gradient, and a saved network gives the same scores."""
    torch.manual_seed(4)
    model = IEFVAD(**SMALL, fusion=fusion)
    image, event = torch.randn(2, B, T, D)
    lengths, anomalous = torch.full((B,), T), torch.tensor([0.0, 1.0, 1.0])
    objective = Objective(config=model.config)
    objective.total(objective.terms(model(image, event, lengths), lengths, anomalous)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    save_checkpoint(tmp_path / "m.pth", model)
    loaded = load_checkpoint(tmp_path / "m.pth")
    assert loaded.config.fusion == fusion
    torch.testing.assert_close(loaded(image, event).logits, model.eval()(image, event).logits)


def test_fusions_have_about_as_many_parameters():
    """No baseline has more than 11 % more parameters than the paper's network."""
    counts = {f: sum(p.numel() for p in IEFVAD(embed_dim=64, fusion=f).parameters()) for f in FUSIONS}
    assert min(counts.values()) == counts["inverse_variance"]
    assert max(counts.values()) < 1.11 * counts["inverse_variance"]


def test_unknown_fusion_is_refused():
    with pytest.raises(ConfigError, match="fusion must be one of inverse_variance, equal"):
        IEFVAD(**SMALL, fusion="sum")


def test_principal_components_match_scikit_learn():
    x = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32) @ np.diag(np.arange(12, 0, -1)).astype("f")
    module = PrincipalComponents(input_dim=12, embed_dim=5)
    module.fit(torch.from_numpy(x))
    pca = PCA(5).fit(x)
    expected = pca.transform(x) / math.sqrt(pca.explained_variance_[0] * 39 / 40)
    np.testing.assert_allclose(np.abs(module(torch.from_numpy(x)).numpy()), np.abs(expected), atol=1e-4)


def test_projection_is_part_of_the_checkpoint(tmp_path):
    model = IEFVAD(**SMALL, input_dim=24).eval()
    image, event = torch.randn(2, B, T, 24)
    model.image_projection.fit(torch.randn(50, 24))
    model.event_projection.fit(torch.randn(50, 24))
    save_checkpoint(tmp_path / "m.pth", model)
    torch.testing.assert_close(load_checkpoint(tmp_path / "m.pth")(image, event).logits, model(image, event).logits)
    with pytest.raises(ValueError, match=r"must have shape \(B, T, 24\)"):
        model(image[..., :D], event[..., :D])
    with pytest.raises(ConfigError, match="input_dim must be 0, or at least embed_dim"):
        IEFVAD(**SMALL, input_dim=8)
