"""Sections 3.1 – 3.2, Eq. 1 – 4, Appendix B: posterior mean, log-variance, effective variance and precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NOISE_MODELS = ("StudentT", "Gaussian")


class GaussianHead(nn.Module):
    """Eq. 1: two linear maps from an encoded step to its mean μ and its log-variance s = log σ²."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(embed_dim, embed_dim)
        self.log_variance = nn.Linear(embed_dim, embed_dim)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h: (B, T, D). Returns μ and log σ², both (B, T, D)."""
        return self.mean(h), self.log_variance(h)


def effective_logvar(logvar: Tensor, noise_model: str, nu: float) -> Tensor:
    """Log-variance of the Gaussian that matches the noise density at its mode (Eq. 3, Appendix B).

    logvar: (..., D) log σ². Returns (..., D) log σ²_eff: log σ² + log(ν/(ν+1)) for Student's t, log σ² itself
    for a Gaussian. The Student's t value is the *smaller* one, although the paper's prose says the opposite:
    a heavy-tailed density is more sharply peaked at its mode than the Gaussian of the same scale.
    """
    if noise_model == "Gaussian":
        return logvar
    if noise_model != "StudentT":
        raise ValueError(f"unknown noise model {noise_model!r}; known are {', '.join(NOISE_MODELS)}")
    # added in log space, so that exp is taken once
    return logvar + math.log(nu / (nu + 1))


def precision(logvar_eff: Tensor, epsilon: float) -> Tensor:
    """Inverse-variance weight w = 1 / (σ²_eff + ε) (Eq. 4); (..., D) → (..., D)."""
    # float32 also under autocast: variances span many orders of magnitude
    return 1 / (torch.exp(logvar_eff.float() if logvar_eff.dtype != torch.float64 else logvar_eff) + epsilon)
