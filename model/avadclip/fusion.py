"""Section III-C: adaptive fusion of image and audio, and the fusions of Table VII to compare it with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class AdaptiveFusion(nn.Module):
    """F = V + W ⊙ R: the gate W = sigmoid(Linear [V, A]) says how much of the residual R = MLP [V, A] is added."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * embed_dim, embed_dim)
        self.residual = nn.Sequential(nn.Linear(2 * embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, image: Tensor, audio: Tensor, used: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the fused features and the gate, or None for a fusion without one, (B, T, D) each.

        image, audio: V and A, (B, T, D) each; used: (B, T), True at steps that may influence others.
        """
        joint = torch.cat([image, audio], -1)  # (B, T, 2D)
        gate = torch.sigmoid(self.gate(joint))
        return image + gate * self.residual(joint), gate


class ConcatFusion(nn.Module):
    """F = Linear [V, A]."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, image: Tensor, audio: Tensor, used: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `AdaptiveFusion.forward`."""
        return self.linear(torch.cat([image, audio], -1)), None


class AddFusion(nn.Module):
    """F = V + A."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()

    def forward(self, image: Tensor, audio: Tensor, used: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `AdaptiveFusion.forward`."""
        return image + audio, None


class CrossFusion(nn.Module):
    """F = V + MHA(V, A): the image attends to the audio. The paper does not describe its own variant."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, image: Tensor, audio: Tensor, used: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `AdaptiveFusion.forward`."""
        heard, _ = self.attention(image, audio, audio, key_padding_mask=~used, need_weights=False)
        return image + heard, None


FUSIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"adaptive": AdaptiveFusion, "concat": ConcatFusion, "add": AddFusion, "cross": CrossFusion}
)
