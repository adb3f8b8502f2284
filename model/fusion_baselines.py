"""Other fusions of the streams, to compare with the inverse variance of Section 3.3.

The rest of the network stays the same. A linear map A of independent estimates μ with variances σ²
has the variance A² σ², with A² element by element. The temporal update of Section 3.4 needs it.
A baseline does not know which streams a video lacks: it fuses the encoding of their zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import permutations
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion import Fused

Streams = Mapping[str, Tensor]  # stream → (B, T, D)


class EqualWeights(nn.Module):
    """z = Σ μ_m / K for K streams."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()

    def forward(self, mu: Streams, variance: Streams, mask: Tensor | None) -> Fused:
        """Fuse means and variances of all streams, (B, T, D) each; mask: (B, 1, 1, T) or None."""
        return _weighted(mu, variance, _equal_weights(variance))


class Gate(nn.Module):
    """z = g μ_i + (1 − g) μ_e with g = sigmoid(W [μ_i, μ_e] + b), a gate per dimension.

    Source: the gated multimodal unit of Arevalo et al., arXiv 1702.01992, applied to the means.
    Of more than two streams, each but the last gets its gate's part of what those before it left over.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, num_streams: int = 2) -> None:
        super().__init__()
        self.gate = nn.Linear(num_streams * embed_dim, (num_streams - 1) * embed_dim)

    def forward(self, mu: Streams, variance: Streams, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        *names, last = mu
        gates = torch.sigmoid(self.gate(torch.cat(tuple(mu.values()), -1))).chunk(len(names), -1)
        weights, rest = {}, 1.0
        for name, gate in zip(names, gates, strict=True):
            weights[name], rest = rest * gate, rest * (1 - gate)
        return _weighted(mu, variance, {**weights, last: rest})


class Concatenation(nn.Module):
    """z = W [μ_1, …, μ_K] + b. There are no fusion weights."""

    def __init__(self, *, embed_dim: int, num_heads: int, num_streams: int = 2) -> None:
        super().__init__()
        self.project = nn.Linear(num_streams * embed_dim, embed_dim)

    def forward(self, mu: Streams, variance: Streams, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        z_variance = F.linear(torch.cat(tuple(variance.values()), -1), self.project.weight.square())
        return _without_weights(mu, self.project(torch.cat(tuple(mu.values()), -1)), z_variance)


class CrossAttention(nn.Module):
    """z = Σ_m (μ_m + the mean over n ≠ m of MHA(μ_m, μ_n)) / K: each stream attends to the others.

    All directions share one attention layer. There are no fusion weights. The
    variance is that of Σ μ_m / K.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, num_streams: int = 2) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, mu: Streams, variance: Streams, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`."""
        options = {
            "key_padding_mask": None if mask is None else ~mask[:, 0, 0],
            "need_weights": False,
        }
        streams, count = tuple(mu.values()), len(mu)
        attended = [self.attention(x, y, y, **options)[0] / (count - 1) for x, y in permutations(streams, 2)]
        z = sum((*streams, *attended)) / count
        return _without_weights(mu, z, sum(variance.values()) / count**2)


class LateFusion(EqualWeights):
    """Score each stream alone and average the probabilities.

    All streams pass the shared layers after the fusion, one behind the other in the batch.
    `mean_score` averages at the end.
    """

    def forward(self, mu: Streams, variance: Streams, mask: Tensor | None) -> Fused:
        """See `EqualWeights.forward`; mean and variance are (K·B, T, D), in the order of the streams."""
        mean, z_variance = torch.cat(tuple(mu.values())), torch.cat(tuple(variance.values()))
        return Fused(mean, z_variance, _equal_weights(variance))

    @staticmethod
    def mean_score(logits: Tensor, num_streams: int) -> Tensor:
        """Return the logit of the mean probability, (B, T, 1), of logits (K·B, T, 1)."""
        streams = logits.unflatten(0, (num_streams, -1))  # (K, B, T, 1)
        return _log_sum(F.logsigmoid(streams)) - _log_sum(F.logsigmoid(-streams))


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


def _equal_weights(like: Streams) -> dict[str, Tensor]:
    return {name: torch.full_like(x, 1 / len(like)) for name, x in like.items()}


def _weighted(mu: Streams, variance: Streams, weights: Streams) -> Fused:
    """Return the weighted mean of the streams; the weights of a step sum to 1."""
    mean = sum(weights[name] * x for name, x in mu.items())
    return Fused(mean, sum(weights[name].square() * x for name, x in variance.items()), weights)


def _without_weights(mu: Streams, mean: Tensor, variance: Tensor) -> Fused:
    return Fused(mean, variance, dict.fromkeys(mu, torch.full_like(mean, torch.nan)))


def _log_sum(x: Tensor) -> Tensor:
    """Return log Σ exp(x) over the first dimension."""
    return reduce(torch.logaddexp, x)
