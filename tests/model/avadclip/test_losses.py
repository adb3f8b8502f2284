"""Losses of AVadCLIP against plain, slow code."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from model.avadclip import AVadCLIPConfig, AVadCLIPObjective, AVadCLIPOutput, AVadCLIPTerms
from model.avadclip.losses import alignment_losses, text_loss
from model.ief_vad import ConfigError
from model.losses import top_k_mean

B, T, C, D = 3, 40, 4, 6
LENGTHS = torch.tensor([40, 17, 1])
LABELS = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])


def config(**options):
    return AVadCLIPConfig(classes=("normal", "a", "b", "c"), embed_dim=D, **{"student": True, **options})


def output(seed=0):
    """Return a random output of a student."""
    generator = torch.Generator().manual_seed(seed)

    def x(*shape):
        return torch.randn(*shape, generator=generator)

    return AVadCLIPOutput(
        logits=x(B, T, 1), class_logits=x(B, T, C), features=x(B, T, D), theta=x(B, T, D), gate=None, text=x(C, D),
        prompted=x(B, C, D), class_embeddings=x(B, C, D), alpha=torch.tensor([0.1, 0.2, 0.3, 0.4]),
    )  # fmt: skip


def test_each_class_pools_its_own_largest_steps():
    logits = output().class_logits * 5 - 20  # below -1, the smallest fill that would do for probabilities
    pooled = top_k_mean(logits, LENGTHS)
    for row in range(B):
        k = LENGTHS[row].item() // 16 + 1
        for c in range(C):
            expected = sum(sorted(logits[row, : LENGTHS[row], c].tolist())[-k:]) / k
            assert pooled[row, c].item() == pytest.approx(expected, rel=1e-6)


def test_alignment_and_focal_loss_equal_plain_code():
    out = output()
    entropy, focal = alignment_losses(out.class_logits, LENGTHS, LABELS, out.alpha)
    pooled = top_k_mean(out.class_logits, LENGTHS)
    entropies, focals = [], []
    for row in range(B):
        total = sum(math.exp(s) for s in pooled[row].tolist())
        true = [c for c in range(C) if LABELS[row, c]]
        p = [math.exp(pooled[row, c].item()) / total for c in true]
        entropies.append(-sum(math.log(q) for q in p) / len(p))
        alpha = sum(out.alpha[c].item() for c in true) / len(true)
        focals.append(alpha * (1 - sum(p) / len(p)) ** 2 * entropies[-1])
    assert entropy.item() == pytest.approx(sum(entropies) / B, rel=1e-5)
    assert focal.item() == pytest.approx(sum(focals) / B, rel=1e-5)


def test_text_loss_is_mean_cosine_with_the_normal_class():
    # cosines with row 0: 1, 0, -1/√2
    text = torch.tensor([[2.0, 0], [3, 0], [0, 1], [-1, 1]])
    assert text_loss(text).item() == pytest.approx((1 + 0 + 0.5**0.5) / 3)


@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("distill", ["released", "nll", "mse"])
def test_distillation_equals_plain_code(distill, padding):
    out, teacher = output(), output(seed=1).features
    objective = AVadCLIPObjective(config=config(padding=padding, variance_head="plain"), distill=distill)
    values = []
    for row in range(B):
        for step in range(LENGTHS[row] if padding == "masked" else T):
            difference = (teacher - out.features)[row, step].double()
            theta = out.theta[row, step].double()
            error = difference**2
            if distill == "mse":
                values.append(error.mean())
            elif distill == "nll":
                normal = torch.distributions.Normal(0, (theta / 2).exp())  # σ² = e^θ
                values.append((-2 * normal.log_prob(difference) - math.log(2 * math.pi)).mean())
            else:
                values.append((error / (1e-6 + 2 * theta.exp()) + theta).mean())
    terms = objective.terms(out, LENGTHS, LABELS, teacher)
    assert terms.distillation.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-5)


def test_teacher_gets_no_gradient_and_has_no_distillation():
    out, teacher = output(), output(seed=1).features.requires_grad_()
    student = replace(out, features=out.features.requires_grad_())
    terms = AVadCLIPObjective(config=config()).terms(student, LENGTHS, LABELS, teacher)
    terms.distillation.backward()
    assert teacher.grad is None and student.features.grad.norm() > 0
    objective = AVadCLIPObjective(config=config())
    assert objective.terms(out, LENGTHS, LABELS).distillation == 0
    objective = AVadCLIPObjective(config=config(student=False))
    assert objective.terms(out, LENGTHS, LABELS, teacher).distillation == 0


def test_total_is_weighted_sum():
    weights = {"lambda_align": 2.0, "lambda_text": 0.5, "lambda_distill": 0.25}
    terms = AVadCLIPTerms(*torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    # 1 + 2 (2 + 4) / 2 + 0.5 · 8 + 0.25 · 16 = 15; without focal 1 + 2 · 2 + 4 + 4 = 13
    assert AVadCLIPObjective(config=config(), **weights).total(terms).item() == 15
    assert AVadCLIPObjective(config=config(), focal=False, **weights).total(terms).item() == 13


def test_normal_class_decides_the_binary_label():
    out = replace(output(), logits=torch.full((B, T, 1), 20.0))  # probability 1 everywhere
    objective = AVadCLIPObjective(config=config())
    anomalous = torch.tensor([[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert objective.terms(out, LENGTHS, anomalous).classification < 1e-6
    assert objective.terms(out, LENGTHS, LABELS).classification > 1  # row 0 is normal


def test_terms_of_half_precision_are_float32():
    half = {k: v.bfloat16() if isinstance(v, torch.Tensor) else v for k, v in vars(output()).items()}
    objective = AVadCLIPObjective(config=config(variance_head="plain"), distill="nll")
    terms = objective.terms(AVadCLIPOutput(**half), LENGTHS, LABELS, output(seed=1).features.bfloat16())
    assert {term.dtype for term in terms} == {torch.float32}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"distill": "kl"}, "distill must be one of released, nll, mse, not 'kl'"),
        ({"lambda_distill": math.nan}, "lambda_distill must be finite, but is nan"),
        ({"lambda_text": math.inf}, "lambda_text must be finite"),
        ({"distill": "nll"}, "distill nll needs a variance_head, plain or released, not none"),
    ],
)
def test_invalid_option_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        AVadCLIPObjective(config=config(), **option)
    if "distill" in option:  # the teacher needs no variance
        AVadCLIPObjective(config=config(student=False), distill="nll")
