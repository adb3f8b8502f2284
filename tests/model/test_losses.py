"""The loss terms match hand computations and plain loops over the batch."""

from __future__ import annotations

import math

import pytest
import torch

from model.ief_vad import IEFVAD, ConfigError, IEFVADConfig, IEFVADOutput
from model.losses import (
    LossTerms,
    Objective,
    classification_loss,
    cosine_loss,
    kl_loss,
    norm_loss,
    segment_probability,
    top_k_mean,
)


def logit(p: torch.Tensor) -> torch.Tensor:
    return torch.log(p / (1 - p))


@pytest.mark.parametrize("T", [1, 15, 16, 17, 48, 100])
def test_segment_mil_matches_loop_over_videos(T):
    generator = torch.Generator().manual_seed(T)
    p = torch.rand(5, T, generator=generator)
    lengths = torch.randint(1, T + 1, (5,), generator=generator)
    expected = [
        max(part.mean() for part in row[:n].split(16))
        for row, n in zip(p, lengths.tolist(), strict=True)
    ]
    torch.testing.assert_close(segment_probability(p, lengths), torch.stack(expected))


def test_top_k_and_segment_mil_match_hand_computation():
    # of 20 steps, four are 0.9; the last of them is in the second segment, which has 4 steps
    p = torch.full((1, 20), 0.1)
    p[0, [0, 5, 10, 18]] = 0.9
    lengths = torch.tensor([20])
    assert top_k_mean(p, lengths).item() == pytest.approx(0.9)  # k = 20 // 16 + 1 = 2
    assert segment_probability(p, lengths).item() == pytest.approx((3 * 0.1 + 0.9) / 4)
    anomalous = torch.tensor([1.0])
    for mil, pooled in (("topk", 0.9), ("segment", 0.3)):
        loss = classification_loss(logit(p).unsqueeze(-1), lengths, anomalous, mil)
        assert loss.item() == pytest.approx(-math.log(pooled), rel=1e-5)


def test_padding_does_not_change_classification_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, 1, generator=generator)
    changed = logits.clone()
    changed[0, 9:] = 50
    lengths, anomalous = torch.tensor([9, 40]), torch.tensor([0.0, 1.0])
    for mil in ("topk", "segment"):
        assert torch.equal(
            classification_loss(logits, lengths, anomalous, mil),
            classification_loss(changed, lengths, anomalous, mil),
        )


def test_kl_matches_torch_distributions():
    mu, logvar = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[0.3, -1.0]]])
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(kl_loss(mu, logvar, None), theirs)
    assert kl_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), None).item() == 0


def test_regulariser_matches_hand_computation():
    image = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    event = torch.tensor([[[6.0, 8.0], [0.0, 2.0]]])
    valid = torch.tensor([[True, False]])
    assert cosine_loss(image, event, None).item() == pytest.approx(0.5)  # parallel, then orthogonal
    assert norm_loss(image, event, None).item() == pytest.approx((5 + 1) / 2)
    assert cosine_loss(image, event, valid).item() == pytest.approx(0.0, abs=1e-6)
    assert norm_loss(image, event, valid).item() == pytest.approx(5.0)


def outputs(B: int = 2, **config) -> tuple[IEFVAD, IEFVADOutput]:
    """Return a small network and its output for B windows of 8 steps."""
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1, **config).eval()
    image, event = torch.randn(2, B, 8, 16)
    with torch.no_grad():
        return model, model(image, event, LENGTHS[:B])


LENGTHS, ANOMALOUS = torch.tensor([8, 5, 1, 7]), torch.tensor([0.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(("padding", "changes"), [("masked", False), ("attended", True)])
def test_padding_changes_kl_and_cosine_only_if_attended(padding, changes):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1, padding=padding).eval()
    x = torch.randn(2, 8, 16)
    lengths, anomalous = torch.tensor([8, 8]), torch.tensor([0.0, 1.0])
    padded = torch.cat([x, torch.zeros(2, 5, 16)], 1)
    objective = Objective(config=model.config)
    short, long = (
        objective.terms(model(y, y.flip(0), lengths), lengths, anomalous) for y in (x, padded)
    )
    for name in ("kl_image", "kl_event", "cosine"):
        difference = abs(getattr(short, name) - getattr(long, name)).item()
        assert (difference > 1e-3) == changes, name


WEIGHTS = {"lambda_cos": 2.0, "lambda_norm": 3.0, "lambda_reg": 0.5, "lambda_kl": 0.25}


def test_total_is_weighted_sum_of_terms():
    objective = Objective(config=IEFVADConfig(), **WEIGHTS)
    # 1 + 0.25 (8 + 16 + 4) + 0.5 (2·2 + 3·4) = 16
    assert objective.total(LossTerms(*torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 4.0]))).item() == 16


@pytest.mark.parametrize("modality", ["image", "event"])
def test_single_modality_has_one_kl_and_no_regulariser(modality):
    model, output = outputs(modality=modality)
    terms = Objective(config=model.config).terms(output, LENGTHS[:2], ANOMALOUS[:2])
    used, unused = ("kl_image", "kl_event") if modality == "image" else ("kl_event", "kl_image")
    assert terms.cosine == terms.norm == getattr(terms, unused) == 0
    assert getattr(terms, used) > 0


def apply(output, function):
    """Return an output with a function of each tensor."""
    fields = {
        name: {stream: function(x) for stream, x in value.items()} if isinstance(value, dict) else function(value)
        for name, value in vars(output).items()
    }
    return IEFVADOutput(**fields)


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_reweighted_terms_of_shards_average_to_whole_batch(padding):
    # on W processes, classification is averaged over videos and the other terms over valid steps
    model, output = outputs(B=4, padding=padding)
    objective = Objective(config=model.config)
    whole = objective.terms(output, LENGTHS, ANOMALOUS)
    W, mean = 3, torch.zeros(6)
    for part in (slice(0, 2), slice(2, 3), slice(3, 4)):
        rows = apply(output, lambda x: x[part])  # noqa: B023
        terms = torch.stack(objective.terms(rows, LENGTHS[part], ANOMALOUS[part]))
        v = W * len(LENGTHS[part]) / len(LENGTHS)
        s = W * LENGTHS[part].sum() / LENGTHS.sum() if padding == "masked" else v
        mean += terms * torch.tensor([v, *[s] * 5]) / W
    torch.testing.assert_close(mean, torch.stack(whole), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_terms_are_at_least_float32(dtype, result):
    model, output = outputs()
    cast = apply(output, lambda x: x if x.dtype == torch.bool else x.to(dtype))
    objective = Objective(config=model.config)
    terms = objective.terms(cast, LENGTHS[:2], ANOMALOUS[:2])
    assert {term.dtype for term in (*terms, objective.total(terms))} == {result}


@pytest.mark.parametrize("name", ["model", "Gaussian", "StudentT"])
def test_kl_uses_the_selected_noise_model(name):
    # for ν = 2, s falls by log(3/2) and e^s to 2/3 of it: KL changes by ½ (log(3/2) − mean e^s / 3)
    model, output = outputs(noise_model="Gaussian", nu=2.0)
    objective = Objective(config=model.config, kl_noise_model=name)
    terms = objective.terms(output, LENGTHS[:2], ANOMALOUS[:2])
    valid = torch.arange(8) < LENGTHS[:2, None]
    expected = kl_loss(output.mu["image"], output.logvar["image"], valid)
    if name == "StudentT":
        expected += (math.log(1.5) - output.logvar["image"].exp()[valid].mean() / 3) / 2
    assert terms.kl_image.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mil": "max"}, "mil must be one of topk, segment, not 'max'"),
        ({"kl_noise_model": "Cauchy"}, "must be one of model, StudentT, Gaussian, not 'Cauchy'"),
        ({"lambda_kl": math.nan}, "lambda_kl must be finite, but is nan"),
        ({"lambda_cos": math.inf}, "lambda_cos must be finite, but is inf"),
    ],
)
def test_invalid_loss_option_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        Objective(config=IEFVADConfig(), **option)


@pytest.mark.parametrize("T", [1, 15, 16, 17, 40])
def test_top_k_mil_matches_plain_mean_of_largest(T):
    probability = torch.rand(4, T, generator=torch.Generator().manual_seed(T))
    for lengths in ([1, 1, 1, 1], [T, 1, max(1, T // 2), max(1, T - 1)]):
        pooled = top_k_mean(probability, torch.tensor(lengths))
        for row, length, value in zip(probability, lengths, pooled, strict=True):
            k = length // 16 + 1
            expected = sum(sorted(row[:length].tolist())[-k:]) / k
            assert value.item() == pytest.approx(expected, rel=1e-6)
