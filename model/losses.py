"""Section 3.6, Eq. 6, Appendix E: multiple-instance classification, KL, regulariser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.ief_vad import ConfigError, IEFVADConfig, IEFVADOutput, check_choices
from model.uncertainty import NOISE_MODELS, effective_logvar, full_precision

INSTANCE_STEPS = 16  # top-k takes one step in 16; a segment is 16 steps long
KL_NOISE_MODELS = ("model", *NOISE_MODELS)


class LossTerms(NamedTuple):
    """The terms of Eq. 6 before their weights, scalars."""

    classification: Tensor
    cosine: Tensor
    norm: Tensor
    kl_image: Tensor
    kl_event: Tensor


def top_k_probability(probability: Tensor, lengths: Tensor) -> Tensor:
    """Mean of the k = ⌊L/16⌋ + 1 largest of each video's L valid steps.

    probability: (B, T); lengths: (B,) ≥ 1. Returns (B,).
    """
    k = lengths // INSTANCE_STEPS + 1
    valid = _valid(probability, lengths)
    # the most that a window can need: with the largest `k`, a GPU would wait for it in every step
    most = probability.shape[1] // INSTANCE_STEPS + 1
    largest = probability.masked_fill(~valid, -1.0).topk(most, dim=1).values
    chosen = torch.arange(largest.shape[1], device=k.device) < k.unsqueeze(1)
    return (largest * chosen).sum(1) / k


def segment_probability(probability: Tensor, lengths: Tensor) -> Tensor:
    """Largest mean over consecutive segments of 16 valid steps; a shorter last segment counts too.

    probability: (B, T); lengths: (B,) ≥ 1. Returns (B,).
    """
    B, T = probability.shape
    valid = _valid(probability, lengths)
    fill = -T % INSTANCE_STEPS
    segments = F.pad(probability * valid, (0, fill)).view(B, -1, INSTANCE_STEPS)
    counts = F.pad(valid, (0, fill)).view(B, -1, INSTANCE_STEPS).sum(2)
    # a segment without valid steps has mean 0, which no other is below
    return (segments.sum(2) / counts.clamp(min=1)).max(1).values


INSTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"topk": top_k_probability, "segment": segment_probability}
)


def classification_loss(
    logits: Tensor, lengths: Tensor, anomalous: Tensor, mil: str = "topk"
) -> Tensor:
    """Binary cross-entropy of one probability per video with the video's label (Section 3.6).

    logits: (B, T, 1), none of them NaN; lengths: (B,); anomalous: (B,) 0 or 1; mil: a name in
    `INSTANCES`.
    """
    probability = torch.sigmoid(full_precision(logits).squeeze(-1))
    # a mean of rounded probabilities can exceed 1 in the last bit
    instance = INSTANCES[mil](probability, lengths).clamp(0, 1)
    return F.binary_cross_entropy(instance, anomalous.to(instance))


def kl_loss(mu: Tensor, logvar_eff: Tensor, valid: Tensor | None) -> Tensor:
    """KL(N(μ, σ²_eff) ‖ N(0, 1)) averaged over steps and dimensions (Appendix E).

    −½ · mean(1 + s − μ² − e^s) with s = log σ²_eff. mu, logvar_eff: (B, T, D); valid: (B, T) the
    steps that count, None for all. Returns a scalar.
    """
    return _mean(-0.5 * (1 + logvar_eff - mu.square() - logvar_eff.exp()).mean(-1), valid)


def cosine_loss(image_mu: Tensor, event_mu: Tensor, valid: Tensor | None) -> Tensor:
    """mean(1 − cos(μ_i, μ_e)) over the steps that count (Section 3.6); see `kl_loss`."""
    return _mean(1 - F.cosine_similarity(image_mu, event_mu, dim=-1), valid)


def norm_loss(image_mu: Tensor, event_mu: Tensor, valid: Tensor | None) -> Tensor:
    """mean(|‖μ_i‖ − ‖μ_e‖|) over the steps that count (Section 3.6); see `kl_loss`."""
    return _mean((image_mu.norm(dim=-1) - event_mu.norm(dim=-1)).abs(), valid)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The overall loss (Eq. 6): L_cls + λ_kl (KL_i + KL_e) + λ_reg (λ_1 cosine + λ_2 norm).

    kl_noise_model: noise model of σ²_eff in the KL terms; "model" takes the network's own.
    A network of one stream has that stream's KL alone and no regulariser.
    """

    config: IEFVADConfig
    mil: str = "topk"
    lambda_cos: float = 0.5  # λ_1
    lambda_norm: float = 0.5  # λ_2
    lambda_reg: float = 1.0
    lambda_kl: float = 1.0
    kl_noise_model: str = "model"

    def __post_init__(self) -> None:
        check_choices(self, {"mil": INSTANCES, "kl_noise_model": KL_NOISE_MODELS})
        for name in ("lambda_cos", "lambda_norm", "lambda_reg", "lambda_kl"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a number; got {getattr(self, name)}")

    def terms(self, output: IEFVADOutput, lengths: Tensor, anomalous: Tensor) -> LossTerms:
        """Terms of a batch; lengths: (B,) valid steps; anomalous: (B,) video labels, 0 or 1."""
        # where padding is attended to, the released code averages it in here as well
        valid = _valid(output.logits[..., 0], lengths) if self.config.padding == "masked" else None
        cosine = norm = output.logits.new_zeros(())
        if output.image_mu is not None and output.event_mu is not None:
            image_mu, event_mu = full_precision(output.image_mu), full_precision(output.event_mu)
            cosine = cosine_loss(image_mu, event_mu, valid)
            norm = norm_loss(image_mu, event_mu, valid)
        return LossTerms(
            classification=classification_loss(output.logits, lengths, anomalous, self.mil),
            cosine=cosine,
            norm=norm,
            kl_image=self._kl(output, output.image_mu, output.image_logvar, valid),
            kl_event=self._kl(output, output.event_mu, output.event_logvar, valid),
        )

    def total(self, terms: LossTerms) -> Tensor:
        """The scalar that training minimises (Eq. 6)."""
        return (
            terms.classification
            + self.lambda_kl * (terms.kl_image + terms.kl_event)
            + self.lambda_reg * (self.lambda_cos * terms.cosine + self.lambda_norm * terms.norm)
        )

    def _kl(
        self, output: IEFVADOutput, mu: Tensor | None, logvar: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        if mu is None or logvar is None:
            return output.logits.new_zeros(())
        c, chosen = self.config, self.kl_noise_model
        noise_model = c.noise_model if chosen == "model" else chosen
        logvar_eff = effective_logvar(full_precision(logvar), noise_model, c.nu)
        return kl_loss(full_precision(mu), logvar_eff, valid)


def _valid(steps: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) True at the first `lengths` steps of each row of `steps` (B, T)."""
    return torch.arange(steps.shape[1], device=steps.device) < lengths.unsqueeze(1)


def _mean(per_step: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B, T) over the valid steps of the whole batch."""
    return per_step.mean() if valid is None else (per_step * valid).sum() / valid.sum()
