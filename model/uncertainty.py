"""Sections 3.1 – 3.2, Eq. 1 – 4, Appendix B: mean, log-variance, noise model and precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class GaussianHead(nn.Module):
    """Eq. 1: two linear maps from an encoded step to its mean μ and its log-variance s = log σ²."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(embed_dim, embed_dim)
        self.log_variance = nn.Linear(embed_dim, embed_dim)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h: (B, T, D). Returns μ and log σ², both (B, T, D)."""
        return self.mean(h), self.log_variance(h)


def student_t(nu: float) -> float:
    """Student's t with ν degrees of freedom: log(ν/(ν+1)), which is negative.

    σ²_eff is smaller than σ², although the paper's prose says larger: a heavy-tailed density is
    more sharply peaked at its mode than the Gaussian of the same scale.
    """
    return math.log(nu / (nu + 1))


def gaussian(nu: float) -> float:
    """A Gaussian: 0, whatever ν is."""
    return 0.0


# name → what the Laplace approximation adds to log σ² (Eq. 3)
NOISE_MODELS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"StudentT": student_t, "Gaussian": gaussian}
)


def effective_logvar(logvar: Tensor, noise_model: str, nu: float) -> Tensor:
    """Log-variance of the Gaussian that matches the noise density at its mode (Eq. 3, Appendix B).

    logvar: (..., D) log σ²; noise_model: a name in `NOISE_MODELS`. Returns (..., D) log σ²_eff.
    """
    return logvar + NOISE_MODELS[noise_model](nu)


def precision(logvar_eff: Tensor, epsilon: float) -> Tensor:
    """Inverse-variance weight w = 1 / (σ²_eff + ε) (Eq. 4), in full precision; (..., D)."""
    return 1 / (torch.exp(full_precision(logvar_eff)) + epsilon)


def full_precision(x: Tensor) -> Tensor:
    """x in float32 at least: under autocast too, variances span many orders of magnitude."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
