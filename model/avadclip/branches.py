"""Section III-D: the two branches, one score for "anomalous" and one for each class."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.avadclip.text import FeedForward

TEMPERATURE = 0.07  # fixed


class ClassificationBranch(nn.Module):
    """w · (F + FFN F) + b."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.feed_forward = FeedForward(embed_dim=embed_dim)
        self.linear = nn.Linear(embed_dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, T, 1) of features F (B, T, D)."""
        return self.linear(features + self.feed_forward(features))


def align(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """Return the class logits cos(F_t, t_c) / 0.07, (B, T, C), of features (B, T, D) and embeddings (B, C, D)."""
    return F.normalize(features, dim=-1) @ F.normalize(class_embeddings, dim=-1).transpose(1, 2) / TEMPERATURE
