"""Section 3.6 and Appendix E: multiple-instance classification, KL to the prior, cross-modal regulariser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.ief_vad import ConfigError, IEFVADConfig, IEFVADOutput
from model.uncertainty import effective_logvar

INSTANCE_STEPS = 16  # top-k takes one step in 16; a segment is 16 steps long


class LossTerms(NamedTuple):
    """Scalars; the terms are unweighted, `total` is what is minimised."""

    total: Tensor
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
    # as many as the longest window could ask for: to ask `k` would make a GPU wait within every step
    largest = probability.masked_fill(~valid, -1.0).topk(probability.shape[1] // INSTANCE_STEPS + 1, dim=1).values
    chosen = torch.arange(largest.shape[1], device=k.device) < k.unsqueeze(1)
    return (largest * chosen).sum(1) / k


def segment_probability(probability: Tensor, lengths: Tensor) -> Tensor:
    """Largest mean over consecutive segments of 16 valid steps, a shorter last segment over its own steps.

    probability: (B, T); lengths: (B,) ≥ 1. Returns (B,).
    """
    B, T = probability.shape
    valid = _valid(probability, lengths)
    fill = -T % INSTANCE_STEPS
    segments = F.pad(probability * valid, (0, fill)).view(B, -1, INSTANCE_STEPS)
    counts = F.pad(valid, (0, fill)).view(B, -1, INSTANCE_STEPS).sum(2)
    means = segments.sum(2) / counts.clamp(min=1)
    return means.masked_fill(counts == 0, -1.0).max(1).values


def classification_loss(
    logits: Tensor, lengths: Tensor, anomalous: Tensor, mil: str = "topk", videos: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of one probability per video with the video's label (Section 3.6).

    logits: (B, T, 1); lengths: (B,); anomalous: (B,) 0 or 1. mil: "topk" or "segment". videos: what the sum over
    videos is divided by, where it is not B. Returns a scalar.
    """
    probability = torch.sigmoid(logits.float().squeeze(-1))
    instance = {"topk": top_k_probability, "segment": segment_probability}[mil](probability, lengths)
    # a mean of rounded probabilities can exceed 1 in the last bit
    instance, anomalous = instance.clamp(0, 1), anomalous.float()
    if videos is None:
        return F.binary_cross_entropy(instance, anomalous)
    return F.binary_cross_entropy(instance, anomalous, reduction="sum") / videos


def kl_loss(mu: Tensor, logvar_eff: Tensor, valid: Tensor | None, steps: Tensor | None = None) -> Tensor:
    """KL(N(μ, σ²_eff) ‖ N(0, 1)) averaged over steps and dimensions (Appendix E): −½ · mean(1 + s − μ² − e^s).

    mu, logvar_eff: (B, T, D); valid: (B, T) the steps that count, None for all; steps: what the sum over steps is
    divided by, where it is not their number. Returns a scalar.
    """
    return _mean(-0.5 * (1 + logvar_eff - mu.square() - logvar_eff.exp()).mean(-1), valid, steps)


def cosine_loss(image_mu: Tensor, event_mu: Tensor, valid: Tensor | None, steps: Tensor | None = None) -> Tensor:
    """mean(1 − cos(μ_i, μ_e)) over the steps that count (Section 3.6); arguments as in `kl_loss`."""
    return _mean(1 - F.cosine_similarity(image_mu, event_mu, dim=-1), valid, steps)


def norm_loss(image_mu: Tensor, event_mu: Tensor, valid: Tensor | None, steps: Tensor | None = None) -> Tensor:
    """mean(|‖μ_i‖ − ‖μ_e‖|) over the steps that count (Section 3.6); arguments as in `kl_loss`."""
    return _mean((image_mu.norm(dim=-1) - event_mu.norm(dim=-1)).abs(), valid, steps)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The overall loss (Eq. 6): L_cls + λ_kl (KL_i + KL_e) + λ_reg (λ_1 cosine + λ_2 norm).

    kl_noise_model "model" takes the network's own noise model for σ²_eff in the KL term; a name overrules it.
    A network of one stream has that stream's KL alone and nothing to regularise against.
    """

    config: IEFVADConfig
    mil: str = "topk"
    lambda_cos: float = 0.5
    lambda_norm: float = 0.5
    lambda_reg: float = 1.0
    lambda_kl: float = 1.0
    kl_noise_model: str = "model"

    def __post_init__(self) -> None:
        for name in ("lambda_cos", "lambda_norm", "lambda_reg", "lambda_kl"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a number; got {getattr(self, name)}")

    def __call__(
        self,
        output: IEFVADOutput,
        lengths: Tensor,
        anomalous: Tensor,
        divisors: tuple[Tensor, Tensor] | None = None,
    ) -> LossTerms:
        """output of a batch; lengths: (B,) valid steps; anomalous: (B,) video labels, 0 or 1.

        divisors: numbers of videos and of valid steps to divide by instead of this batch's own; with those of a larger
        batch over the number of its parts, the mean of the parts' losses is the loss of the whole.
        """
        # where padding is attended to, the released code averages it in here as well
        valid = _valid(output.logits[..., 0], lengths) if self.config.padding == "masked" else None
        videos, steps = divisors or (None, None)
        if videos is not None and valid is None:
            steps = videos * output.logits.shape[1]
        zero = output.logits.new_zeros(())
        cosine = norm = zero
        if output.image_mu is not None and output.event_mu is not None:
            image_mu, event_mu = output.image_mu.float(), output.event_mu.float()
            cosine = cosine_loss(image_mu, event_mu, valid, steps)
            norm = norm_loss(image_mu, event_mu, valid, steps)
        kl_image = self._kl(output.image_mu, output.image_logvar, valid, steps, zero)
        kl_event = self._kl(output.event_mu, output.event_logvar, valid, steps, zero)
        classification = classification_loss(output.logits, lengths, anomalous, self.mil, videos)
        total = (
            classification
            + self.lambda_kl * (kl_image + kl_event)
            + self.lambda_reg * (self.lambda_cos * cosine + self.lambda_norm * norm)
        )
        return LossTerms(total, classification, cosine, norm, kl_image, kl_event)

    def _kl(
        self, mu: Tensor | None, logvar: Tensor | None, valid: Tensor | None, steps: Tensor | None, zero: Tensor
    ) -> Tensor:
        if mu is None or logvar is None:
            return zero
        noise_model = self.config.noise_model if self.kl_noise_model == "model" else self.kl_noise_model
        return kl_loss(mu.float(), effective_logvar(logvar.float(), noise_model, self.config.nu), valid, steps)


def _valid(steps: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) True at the first `lengths` steps of each row of `steps` (B, T)."""
    return torch.arange(steps.shape[1], device=steps.device) < lengths.unsqueeze(1)


def _mean(per_step: Tensor, valid: Tensor | None, steps: Tensor | None) -> Tensor:
    """Mean of (B, T) over the valid steps of the whole batch; their sum over `steps` where that is given."""
    if steps is None:
        return per_step.mean() if valid is None else (per_step * valid).sum() / valid.sum()
    return (per_step if valid is None else per_step * valid).sum() / steps
