"""Section 3.6, Eq. 6, Appendix E: classification, KL and regularisation losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.ief_vad import ConfigError, IEFVADConfig, IEFVADOutput, check_choices
from model.uncertainty import NOISE_MODELS, effective_logvar, full_precision

INSTANCE_STEPS = 16  # top-k selects one step in 16; a segment has 16 steps
KL_NOISE_MODELS = ("model", *NOISE_MODELS)
REG_PAIRS = ("all", "image-event")


class LossTerms(NamedTuple):
    """The unweighted terms of Eq. 6, each a scalar."""

    classification: Tensor
    cosine: Tensor
    norm: Tensor
    kl_image: Tensor
    kl_event: Tensor
    kl_audio: Tensor


def top_k_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean of the k = ⌊L/16⌋ + 1 largest values of each video's L valid steps.

    values: (B, T), or (B, T, C) where each class has its own k steps; lengths: (B,) ≥ 1. Returns (B,) or (B, C).
    """
    B, T, *classes = values.shape
    steps = (B, -1, *[1] * len(classes))
    k = lengths // INSTANCE_STEPS + 1
    valid = valid_mask(values, lengths).view(steps)
    # upper bound of k from the shape: reading k.max() would synchronise with the GPU in every step
    max_k = T // INSTANCE_STEPS + 1
    largest = values.masked_fill(~valid, -math.inf).topk(max_k, dim=1).values
    surplus = torch.arange(max_k, device=k.device) >= k.unsqueeze(1)
    return largest.masked_fill(surplus.view(steps), 0).sum(1) / k.view(steps)[:, 0]


def segment_probability(probability: Tensor, lengths: Tensor) -> Tensor:
    """Return the largest mean over segments of 16 valid steps; the last one may be shorter.

    probability: (B, T); lengths: (B,) ≥ 1. Returns (B,).
    """
    B, T = probability.shape
    valid = valid_mask(probability, lengths)
    padding = -T % INSTANCE_STEPS
    segments = F.pad(probability * valid, (0, padding)).view(B, -1, INSTANCE_STEPS)
    counts = F.pad(valid, (0, padding)).view(B, -1, INSTANCE_STEPS).sum(2)
    # a segment without valid steps has mean 0, the smallest possible value
    return (segments.sum(2) / counts.clamp(min=1)).max(1).values


MIL_POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"topk": top_k_mean, "segment": segment_probability}
)


def classification_loss(
    logits: Tensor, lengths: Tensor, anomalous: Tensor, mil: str = "topk"
) -> Tensor:
    """Return the mean binary cross-entropy of the videos' pooled probabilities (Section 3.6).

    logits: (B, T, 1) without NaN; lengths: (B,) valid steps; anomalous: (B,) video labels, 0 or 1;
    mil: a key of `MIL_POOLINGS`.
    """
    probability = torch.sigmoid(full_precision(logits).squeeze(-1))
    # rounding can raise a mean of probabilities slightly above 1
    pooled = MIL_POOLINGS[mil](probability, lengths).clamp(0, 1)
    return F.binary_cross_entropy(pooled, anomalous.to(pooled))


def kl_loss(
    mu: Tensor, logvar_eff: Tensor, valid: Tensor | None, present: Tensor | None = None
) -> Tensor:
    """Return KL(N(μ, σ²_eff) ‖ N(0, 1)), averaged over steps and dimensions (Appendix E).

    It is −½ · mean(1 + s − μ² − e^s) with s = log σ²_eff. mu, logvar_eff: (B, T, D);
    valid: (B, T) mask of the steps to average over, None for all. present: (B, 1), False for a video
    that lacks the stream, which then adds 0 to the average; None: all videos have it.
    """
    per_step = -0.5 * (1 + logvar_eff - mu.square() - logvar_eff.exp()).mean(-1)
    return _masked_mean(per_step, valid, present)


def cosine_loss(
    mu: Tensor, other: Tensor, valid: Tensor | None, present: Tensor | None = None
) -> Tensor:
    """Return mean(1 − cos(μ_m, μ_n)) of two streams over the valid steps (Section 3.6); see `kl_loss`."""
    return _masked_mean(1 - F.cosine_similarity(mu, other, dim=-1), valid, present)


def norm_loss(
    mu: Tensor, other: Tensor, valid: Tensor | None, present: Tensor | None = None
) -> Tensor:
    """Return mean(|‖μ_m‖ − ‖μ_n‖|) of two streams over the valid steps (Section 3.6); see `kl_loss`."""
    return _masked_mean((mu.norm(dim=-1) - other.norm(dim=-1)).abs(), valid, present)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The training loss L_cls + λ_kl Σ_m KL_m + λ_reg (λ_1 cosine + λ_2 norm) (Eq. 6).

    kl_noise_model: noise model of σ²_eff in the KL terms; "model" means that of the network.
    The regulariser is the mean over the pairs of streams: all of them, or with reg_pairs "image-event"
    that pair alone. It is 0 without a pair. A video that lacks a stream adds 0 to the terms of that stream.
    """

    config: IEFVADConfig
    mil: str = "topk"
    lambda_cos: float = 0.5  # λ_1
    lambda_norm: float = 0.5  # λ_2
    lambda_reg: float = 1.0
    lambda_kl: float = 1.0
    kl_noise_model: str = "model"
    reg_pairs: str = "all"

    def __post_init__(self) -> None:
        check_choices(
            self, {"mil": MIL_POOLINGS, "kl_noise_model": KL_NOISE_MODELS, "reg_pairs": REG_PAIRS}
        )
        for name in ("lambda_cos", "lambda_norm", "lambda_reg", "lambda_kl"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be finite, but is {getattr(self, name)}")

    def terms(self, output: IEFVADOutput, lengths: Tensor, anomalous: Tensor) -> LossTerms:
        """Compute the terms of a batch; lengths, anomalous: as in `classification_loss`."""
        # the released code attends to padding and includes it in these averages
        masked = self.config.padding == "masked"
        valid = valid_mask(output.logits[..., 0], lengths) if masked else None
        mu = {name: full_precision(x) for name, x in output.mu.items()}
        present = {name: ~absent[:, :, 0] for name, absent in output.missing.items()}  # (B, 1)
        pairs = [
            (mu[m], mu[n], valid, present[m] & present[n] if present else None)
            for m, n in combinations(mu, 2)
            if self.reg_pairs in ("all", f"{m}-{n}")
        ]
        zero = full_precision(output.logits).new_zeros(())
        # the order of these terms decides in which order gradients are added, and so their last bits
        cosine = sum((cosine_loss(*pair) for pair in pairs), zero) / max(len(pairs), 1)
        norm = sum((norm_loss(*pair) for pair in pairs), zero) / max(len(pairs), 1)
        classification = classification_loss(output.logits, lengths, anomalous, self.mil)
        kl = {f"kl_{m}": self._kl(output.mu[m], output.logvar[m], valid, present.get(m)) for m in mu}
        kl = {name: kl.get(name, zero) for name in LossTerms._fields if name.startswith("kl_")}
        return LossTerms(classification, cosine, norm, **kl)

    def total(self, terms: LossTerms) -> Tensor:
        """Return the weighted sum of the terms (Eq. 6)."""
        return (
            terms.classification
            + self.lambda_kl * (terms.kl_image + terms.kl_event + terms.kl_audio)
            + self.lambda_reg * (self.lambda_cos * terms.cosine + self.lambda_norm * terms.norm)
        )

    def _kl(
        self, mu: Tensor, logvar: Tensor, valid: Tensor | None, present: Tensor | None
    ) -> Tensor:
        c, noise_model = self.config, self.kl_noise_model
        noise_model = c.noise_model if noise_model == "model" else noise_model
        logvar_eff = effective_logvar(full_precision(logvar), noise_model, c.nu)
        return kl_loss(full_precision(mu), logvar_eff, valid, present)


def valid_mask(steps: Tensor, lengths: Tensor) -> Tensor:
    """Return a mask (B, T), True at the first `lengths` steps of each row of `steps` (B, T, …)."""
    return torch.arange(steps.shape[1], device=steps.device) < lengths.unsqueeze(1)


def _masked_mean(per_step: Tensor, valid: Tensor | None, present: Tensor | None) -> Tensor:
    """Return the mean of `per_step` (B, T) over the valid steps of the batch, with 0 where not `present`."""
    per_step = per_step if present is None else per_step * present
    return per_step.mean() if valid is None else (per_step * valid).sum() / valid.sum()
