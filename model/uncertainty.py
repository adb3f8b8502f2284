"""Sections 3.1 – 3.2, Eq. 1 – 4, Appendix B: mean, log-variance, noise model and precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class GaussianHead(nn.Module):
    """Two linear layers that predict mean μ and log-variance s = log σ² of each step (Eq. 1)."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(embed_dim, embed_dim)
        self.log_variance = nn.Linear(embed_dim, embed_dim)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and log σ², (B, T, D) each, of encoded steps h (B, T, D)."""
        return self.mean(h), self.log_variance(h)


def student_t(nu: float) -> float:
    """Return log(ν/(ν+1)), the correction for Student's t noise with ν degrees of freedom.

    The correction is negative: σ²_eff is smaller than σ², although the paper's text says larger.
    At its mode, Student's t is more sharply curved than a Gaussian of the same scale.
    """
    return math.log(nu / (nu + 1))


def gaussian(nu: float) -> float:
    """Return 0: Gaussian noise needs no correction."""
    return 0.0


# name → function of ν whose value the Laplace approximation adds to log σ² (Eq. 3)
NOISE_MODELS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"StudentT": student_t, "Gaussian": gaussian}
)


def effective_logvar(logvar: Tensor, noise_model: str, nu: float) -> Tensor:
    """Return log σ²_eff of the Gaussian with the noise's curvature at the mode (Eq. 3, App. B).

    logvar: log σ² of any shape; noise_model: a key of `NOISE_MODELS`.
    """
    return logvar + NOISE_MODELS[noise_model](nu)


def precision(logvar_eff: Tensor, epsilon: float) -> Tensor:
    """Return the inverse-variance weight w = 1 / (σ²_eff + ε), at least in float32 (Eq. 4)."""
    return 1 / (torch.exp(full_precision(logvar_eff)) + epsilon)


def full_precision(x: Tensor) -> Tensor:
    """Return x at least in float32: variances span too many orders of magnitude for autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
