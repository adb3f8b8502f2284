"""The loss terms by hand and against a plain loop over the batch."""

from __future__ import annotations

import math

import pytest
import torch

from model.ief_vad import IEFVAD, ConfigError, IEFVADConfig
from model.losses import (
    Objective,
    classification_loss,
    cosine_loss,
    kl_loss,
    norm_loss,
    segment_probability,
    top_k_probability,
)


def logit(p: torch.Tensor) -> torch.Tensor:
    return torch.log(p / (1 - p))


@pytest.mark.parametrize("T", [1, 15, 16, 17, 48, 100])
def test_top_k_equals_a_loop_over_videos(T):
    generator = torch.Generator().manual_seed(T)
    p = torch.rand(5, T, generator=generator)
    lengths = torch.randint(1, T + 1, (5,), generator=generator)
    videos = zip(p, lengths.tolist(), strict=True)
    expected = [row[:n].sort(descending=True).values[: n // 16 + 1].mean() for row, n in videos]
    torch.testing.assert_close(top_k_probability(p, lengths), torch.stack(expected))


@pytest.mark.parametrize("T", [1, 15, 16, 17, 48, 100])
def test_segments_equal_a_loop_over_videos(T):
    generator = torch.Generator().manual_seed(T)
    p = torch.rand(5, T, generator=generator)
    lengths = torch.randint(1, T + 1, (5,), generator=generator)
    expected = [max(part.mean() for part in row[:n].split(16)) for row, n in zip(p, lengths.tolist(), strict=True)]
    torch.testing.assert_close(segment_probability(p, lengths), torch.stack(expected))


def test_topk_and_segment_by_hand():
    # 20 steps, four of them 0.9 far apart, the last one in the short second segment of 4 steps
    p = torch.full((1, 20), 0.1)
    p[0, [0, 5, 10, 18]] = 0.9
    lengths = torch.tensor([20])
    assert top_k_probability(p, lengths).item() == pytest.approx(0.9)  # k = 20 // 16 + 1 = 2
    assert segment_probability(p, lengths).item() == pytest.approx((3 * 0.1 + 0.9) / 4)
    anomalous = torch.tensor([1.0])
    for mil, instance in (("topk", 0.9), ("segment", 0.3)):
        loss = classification_loss(logit(p).unsqueeze(-1), lengths, anomalous, mil)
        assert loss.item() == pytest.approx(-math.log(instance), rel=1e-5)


def test_padding_never_reaches_the_classification_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, 1, generator=generator)
    changed = logits.clone()
    changed[0, 9:] = 50
    lengths, anomalous = torch.tensor([9, 40]), torch.tensor([0.0, 1.0])
    for mil in ("topk", "segment"):
        assert torch.equal(
            classification_loss(logits, lengths, anomalous, mil), classification_loss(changed, lengths, anomalous, mil)
        )


def test_kl_by_hand_and_against_torch_distributions():
    mu, logvar = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[0.3, -1.0]]])
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(kl_loss(mu, logvar, None), theirs)
    assert kl_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), None).item() == 0


def test_regulariser_by_hand():
    image = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    event = torch.tensor([[[6.0, 8.0], [0.0, 2.0]]])
    valid = torch.tensor([[True, False]])
    assert cosine_loss(image, event, None).item() == pytest.approx(0.5)  # parallel, then orthogonal
    assert norm_loss(image, event, None).item() == pytest.approx((5 + 1) / 2)
    assert cosine_loss(image, event, valid).item() == pytest.approx(0.0, abs=1e-6)
    assert norm_loss(image, event, valid).item() == pytest.approx(5.0)


@pytest.mark.parametrize(("padding", "changes"), [("masked", False), ("attended", True)])
def test_padding_counts_in_kl_and_regulariser_only_where_it_is_attended_to(padding, changes):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1, padding=padding).eval()
    x = torch.randn(2, 8, 16)
    lengths, anomalous = torch.tensor([8, 8]), torch.tensor([0.0, 1.0])
    padded = torch.cat([x, torch.zeros(2, 5, 16)], 1)
    objective = Objective(config=model.config)
    short = objective(model(x, x.flip(0), lengths), lengths, anomalous)
    long = objective(model(padded, padded.flip(0), lengths), lengths, anomalous)
    assert (abs(short.total.item() - long.total.item()) > 1e-3) == changes
    assert (abs(short.kl_image.item() - long.kl_image.item()) > 1e-3) == changes


def test_total_is_the_weighted_sum_and_a_single_stream_has_its_own_kl_alone():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 16)
    lengths, anomalous = torch.tensor([8, 5]), torch.tensor([0.0, 1.0])
    weights = {"lambda_cos": 2.0, "lambda_norm": 3.0, "lambda_reg": 0.5, "lambda_kl": 0.25}
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1).eval()
    terms = Objective(config=model.config, **weights)(model(x, x.flip(0), lengths), lengths, anomalous)
    total = terms.classification + 0.25 * (terms.kl_image + terms.kl_event) + 0.5 * (2 * terms.cosine + 3 * terms.norm)
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-6)
    image_only = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1, modality="image").eval()
    terms = Objective(config=image_only.config, **weights)(image_only(x, None, lengths), lengths, anomalous)
    assert terms.cosine == terms.norm == terms.kl_event == 0
    assert terms.total.item() == pytest.approx((terms.classification + 0.25 * terms.kl_image).item(), rel=1e-6)


def test_the_kl_of_xd_is_student_t_whatever_the_noise_model():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 16)
    lengths, anomalous = torch.tensor([8, 5]), torch.tensor([0.0, 1.0])
    model = IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1, noise_model="Gaussian", nu=2).eval()
    output = model(x, x.flip(0), lengths)
    kl = {
        name: Objective(config=model.config, kl_noise_model=name)(output, lengths, anomalous).kl_image.item()
        for name in ("model", "Gaussian", "StudentT")
    }
    assert kl["model"] == kl["Gaussian"]
    assert abs(kl["StudentT"] - kl["Gaussian"]) > 1e-2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused_before_it_becomes_a_loss(value):
    with pytest.raises(ConfigError, match="lambda_kl must be a number; got"):
        Objective(config=IEFVADConfig(), lambda_kl=value)


@pytest.mark.parametrize("T", [1, 15, 16, 17, 40])
def test_top_k_is_the_plain_mean_whatever_the_longest_window_is(T):
    probability = torch.rand(4, T, generator=torch.Generator().manual_seed(T))
    for lengths in ([1, 1, 1, 1], [T, 1, max(1, T // 2), max(1, T - 1)]):
        found = top_k_probability(probability, torch.tensor(lengths))
        for row, length, value in zip(probability, lengths, found, strict=True):
            k = length // 16 + 1
            assert value.item() == pytest.approx(sum(sorted(row[:length].tolist())[-k:]) / k, rel=1e-6)
