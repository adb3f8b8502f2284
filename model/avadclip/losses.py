"""Sections III-E and III-F: the losses of both branches, of the text embeddings, and of the distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.avadclip.avadclip import AVadCLIPConfig, AVadCLIPOutput
from model.avadclip.distillation import DISTILLATIONS
from model.ief_vad import ConfigError, check_choices
from model.losses import classification_loss, top_k_mean, valid_mask
from model.uncertainty import full_precision

GAMMA = 2  # exponent of the focal loss


class AVadCLIPTerms(NamedTuple):
    """The unweighted terms of the loss, each a scalar."""

    classification: Tensor
    alignment: Tensor
    focal: Tensor
    text: Tensor
    distillation: Tensor


def alignment_losses(class_logits: Tensor, lengths: Tensor, labels: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of the videos' pooled class logits, and the focal loss (Section III-E).

    class_logits: (B, T, C); lengths: (B,) valid steps; labels: (B, C) multi-hot, a video's classes count equally;
    alpha: (C,) learned weights of the focal loss.
    """
    log_p = top_k_mean(full_precision(class_logits), lengths).log_softmax(1)  # (B, C)
    share = labels.to(log_p) / labels.sum(1, keepdim=True)  # ŷ, (B, C)
    entropy = -(share * log_p).sum(1)  # (B,)
    p = (share * log_p.exp()).sum(1)  # (B,)
    weight = (share * alpha).sum(1)  # (B,)
    return entropy.mean(), (weight * (1 - p) ** GAMMA * entropy).mean()


def text_loss(text: Tensor) -> Tensor:
    """Return the mean |cos| between the embeddings (C, D) of the normal class, row 0, and of every other class."""
    return F.cosine_similarity(full_precision(text[:1]), full_precision(text[1:])).abs().mean()


@dataclass(frozen=True, kw_only=True)
class AVadCLIPObjective:
    """The training loss L_bce + λ_align L_align + λ_text L_text + λ_distill L_distill.

    L_align is the mean of cross-entropy and focal loss, or the cross-entropy alone. distill: a key of
    `DISTILLATIONS`, for the student alone. The released weights are 1e-8 on XD-Violence and 1e-7 on CCTV-Fights.
    """

    config: AVadCLIPConfig
    focal: bool = True
    lambda_align: float = 1.0
    lambda_text: float = 1e-4
    distill: str = "mse"
    lambda_distill: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self, {"distill": DISTILLATIONS})
        for name in ("lambda_align", "lambda_text", "lambda_distill"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be finite, but is {getattr(self, name)}")
        c = self.config
        if c.student and self.lambda_distill and self.distill != "mse" and c.variance_head == "none":
            raise ConfigError(f"distill {self.distill} needs a variance_head, plain or released, not none")

    def terms(
        self, output: AVadCLIPOutput, lengths: Tensor, labels: Tensor, teacher_features: Tensor | None = None
    ) -> AVadCLIPTerms:
        """Compute the terms of a batch.

        lengths: (B,) valid steps; labels: (B, C) multi-hot, column 0 for normal videos. teacher_features: (B, T, D)
        of the teacher on the same windows, or None: no distillation.
        """
        alignment, focal = alignment_losses(output.class_logits, lengths, labels, output.alpha)
        return AVadCLIPTerms(
            classification=classification_loss(output.logits, lengths, 1 - labels[:, 0]),
            alignment=alignment,
            focal=focal,
            text=text_loss(output.text),
            distillation=self._distillation(output, lengths, teacher_features),
        )

    def total(self, terms: AVadCLIPTerms) -> Tensor:
        """Return the weighted sum of the terms."""
        align = (terms.alignment + terms.focal) / 2 if self.focal else terms.alignment
        return (
            terms.classification
            + self.lambda_align * align
            + self.lambda_text * terms.text
            + self.lambda_distill * terms.distillation
        )

    def _distillation(self, output: AVadCLIPOutput, lengths: Tensor, teacher_features: Tensor | None) -> Tensor:
        """Return the mean over steps and dimensions; the released code includes padding."""
        if teacher_features is None or not self.config.student:
            return output.logits.new_zeros(())
        theta = None if output.theta is None else full_precision(output.theta)
        teacher = full_precision(teacher_features.detach())
        per_step = DISTILLATIONS[self.distill](full_precision(output.features), theta, teacher).mean(-1)  # (B, T)
        used = valid_mask(per_step, lengths) if self.config.padding == "masked" else torch.ones_like(per_step)
        return (per_step * used).sum() / used.sum()
