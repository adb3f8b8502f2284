"""Other fusions of the two streams, to compare with the inverse variance of Section 3.3.

The rest of the network stays the same. A linear map A of independent estimates μ with variances σ²
has the variance A² σ², with A² element by element. The temporal update of Section 3.4 needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion import Fused

Pair = tuple[Tensor, Tensor]  # image and event


class EqualWeights(nn.Module):
    """z = (μ_i + μ_e) / 2."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()

    def forward(self, mu: Pair, variance: Pair, mask: Tensor | None) -> Fused:
        """Fuse means and variances of image and event, (B, T, D) each; mask: (B, 1, 1, T) or None."""
        half = torch.full_like(variance[0], 0.5)
        return _weighted(mu, variance, half)


class Gate(nn.Module):
    """z = g μ_i + (1 − g) μ_e with g = sigmoid(W [μ_i, μ_e] + b), a gate per dimension.

    Source: the gated multimodal unit of Arevalo et al., arXiv 1702.01992, applied to the means.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, mu: Pair, variance: Pair, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        return _weighted(mu, variance, torch.sigmoid(self.gate(torch.cat(mu, -1))))


class Concatenation(nn.Module):
    """z = W [μ_i, μ_e] + b. There are no fusion weights."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, mu: Pair, variance: Pair, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        z_variance = F.linear(torch.cat(variance, -1), self.project.weight.square())
        return _without_weights(self.project(torch.cat(mu, -1)), z_variance)


class CrossAttention(nn.Module):
    """z = (μ_i + μ_e + MHA(μ_i, μ_e) + MHA(μ_e, μ_i)) / 2, where each stream attends to the other.

    Both directions share one attention layer. There are no fusion weights. The
    variance is that of (μ_i + μ_e) / 2.
    """

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, mu: Pair, variance: Pair, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        image, event = mu
        options = {
            "key_padding_mask": None if mask is None else ~mask[:, 0, 0],
            "need_weights": False,
        }
        from_event, _ = self.attention(image, event, event, **options)
        from_image, _ = self.attention(event, image, image, **options)
        z = (image + event + from_event + from_image) / 2
        return _without_weights(z, sum(variance) / 4)


class LateFusion(EqualWeights):
    """Score each stream alone and average the two probabilities.

    Both streams pass the shared layers after the fusion, one behind the other in the batch.
    `mean_score` averages at the end.
    """

    def forward(self, mu: Pair, variance: Pair, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`; mean and variance are (2B, T, D), image before event."""
        half = torch.full_like(variance[0], 0.5)
        return Fused(torch.cat(mu), torch.cat(variance), half, half)

    @staticmethod
    def mean_score(logits: Tensor) -> Tensor:
        """Return the logit of the mean probability, (B, T, 1), of logits (2B, T, 1)."""
        streams = logits.unflatten(0, (2, -1))  # (2, B, T, 1)
        return torch.logaddexp(*F.logsigmoid(streams)) - torch.logaddexp(*F.logsigmoid(-streams))


# value of --fusion → its module; "inverse_variance" is `model.fusion.fuse`
BASELINES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "equal": EqualWeights,
        "concat": Concatenation,
        "gate": Gate,
        "cross_attention": CrossAttention,
        "late": LateFusion,
    }
)
WITHOUT_WEIGHTS = ("concat", "cross_attention")  # their weights in the output are NaN


def _weighted(mu: Pair, variance: Pair, weight: Tensor) -> Fused:
    """Return the mean with weight ŵ_i of the image and 1 − ŵ_i of the events."""
    other = 1 - weight
    z_variance = weight.square() * variance[0] + other.square() * variance[1]
    return Fused(weight * mu[0] + other * mu[1], z_variance, weight, other)


def _without_weights(mean: Tensor, variance: Tensor) -> Fused:
    none = torch.full_like(mean, torch.nan)
    return Fused(mean, variance, none, none)
