"""Principal components of embeddings, for data sets with few videos; not part of the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PrincipalComponents(nn.Module):
    """A fixed map x ↦ (x − mean) W / s to the first D principal components of the training videos.

    s is the standard deviation of the first component, so all inputs have a similar scale.
    """

    def __init__(self, *, input_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("components", torch.zeros(input_dim, embed_dim))  # W / s

    def fit(self, x: Tensor) -> None:
        """Set the map from embeddings (n, input_dim) of the training videos, n ≥ D."""
        mean = x.double().mean(0)
        _, singular, rows = torch.linalg.svd(x.double() - mean, full_matrices=False)
        scale = singular[0] / len(x) ** 0.5
        self.mean.copy_(mean)
        self.components.copy_(rows[: self.components.shape[1]].T / scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the components (B, T, D) of embeddings (B, T, input_dim)."""
        return (x - self.mean) @ self.components
