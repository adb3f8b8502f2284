"""Section 3.1: the temporal encoder, self-attention over the snippets of one modality."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TemporalEncoder(nn.Module):
    """`num_layers` layers x ← LN(x + MHA(x, x, x)), then one more LayerNorm ("whitening").

    There is no feed-forward block and no positional encoding. Only the sequential update of
    Section 3.4 depends on the order of the time steps.
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
        """Encode embeddings x (B, T, D) to (B, T, D); see `attention` for the mask."""
        for layer, norm in zip(self.attentions, self.norms, strict=True):
            x = norm(x + attention(layer, x, mask))  # (B, T, D)
        return self.whitening(x)


def attention(layer: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Apply multi-head self-attention with the weights of a PyTorch layer; x: (B, T, D).

    mask: (B, 1, 1, T), True at steps that may be attended to; None attends to all steps. The
    layer's own forward would rebuild the mask in every layer and transpose batch and time twice.
    """
    B, T, D = x.shape
    heads = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).view(B, T, 3, layer.num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D / heads) each
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=layer.dropout if layer.training else 0.0
    )
    return layer.out_proj(attended.transpose(1, 2).reshape(B, T, D))
