"""Section 3.1: the modality-specific temporal encoder, self-attention over the snippets of one modality."""

from __future__ import annotations

from torch import Tensor, nn


class TemporalEncoder(nn.Module):
    """Post-norm self-attention without feed-forward or positional term, then one LayerNorm ("whitening").

    x ← LN(x + MHA(x, x, x)), `num_layers` times. Order enters through the recursion of Section 3.4 alone.
    """

    def __init__(self, *, embed_dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(embed_dim, num_heads, dropout=dropout, batch_first=True) for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(num_layers))
        self.whitening = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """x: (B, T, D) embeddings; padding: (B, T) True where a step is not to be attended to, or None. (B, T, D)."""
        for attention, norm in zip(self.attentions, self.norms, strict=True):
            # need_weights=False lets PyTorch take its fused scaled-dot-product kernel
            attended, _ = attention(x, x, x, key_padding_mask=padding, need_weights=False)
            x = norm(x + attended)
        return self.whitening(x)
