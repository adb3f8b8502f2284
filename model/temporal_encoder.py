"""Section 3.1: the temporal encoder, self-attention over the snippets of one modality."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TemporalEncoder(nn.Module):
    """Post-norm self-attention without feed-forward or position, then a LayerNorm ("whitening").

    x ← LN(x + MHA(x, x, x)), `num_layers` times. Only the update of Section 3.4 knows the steps'
    order.
    """

    def __init__(self, *, embed_dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(embed_dim, num_heads, dropout=dropout, batch_first=True)
            for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(num_layers))
        self.whitening = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, T, D) embeddings; mask: as in `attention`. Returns (B, T, D)."""
        for weights, norm in zip(self.attentions, self.norms, strict=True):
            x = norm(x + attention(weights, x, mask))
        return self.whitening(x)


def attention(weights: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Multi-head self-attention with the weights of PyTorch's module, (B, T, D) → (B, T, D).

    mask: (B, 1, 1, T) True at the steps that may be attended to, None for all; shared by heads and
    queries. The module's own forward rebuilds the mask in every layer and transposes batch and time
    twice.
    """
    B, T, D = x.shape
    heads = F.linear(x, weights.in_proj_weight, weights.in_proj_bias).view(
        B, T, 3, weights.num_heads, -1
    )
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D / heads) each
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=weights.dropout if weights.training else 0.0
    )
    return weights.out_proj(mixed.transpose(1, 2).reshape(B, T, D))
