"""CLIP's frozen text transformer (Radford et al., arXiv 2103.00020), and its blocks, which the network uses too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.temporal_encoder import attention

PLACES = 77  # positions of CLIP's text transformer
WIDTH_PER_HEAD = 64  # of CLIP's text transformers


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of any shape."""
        return x * torch.sigmoid(1.702 * x)


class FeedForward(nn.Module):
    """W₂ QuickGELU(W₁ x + b₁) + b₂ of width 4D."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(embed_dim, 4 * embed_dim)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D) of x (…, D)."""
        return self.c_proj(self.gelu(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    """x ← x + MHA(LN x), then x ← x + FFN(LN x); parameters have CLIP's names."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(embed_dim)
        self.mlp = FeedForward(embed_dim=embed_dim)
        self.ln_2 = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, D) of x (B, T, D); mask: True where attended to, see `attention`."""
        x = x + attention(self.attn, self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class TextTower(nn.Module):
    """CLIP's text transformer with the words of C class names.

    Its weights are buffers outside the state_dict: they follow the network to its device, but are neither trained nor
    saved. Of CLIP's vocabulary it keeps the words of the classes only. They are random until `from_clip` sets them.
    """

    def __init__(self, tokens: Tensor, *, width: int, num_layers: int, num_heads: int) -> None:
        """Build the tower; tokens: (C, 77), the class names as CLIP's tokenizer returns them."""
        super().__init__()
        self.ends = tokens.argmax(1).tolist()  # the end token has the largest number
        used, words = tokens[:, : max(self.ends) + 1].unique(return_inverse=True)
        # fmt: off
        self.words = nn.Parameter(0.02 * torch.randn(len(used), width)[words])              # (C, N, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(PLACES, width))
        blocks = (ResidualAttentionBlock(embed_dim=width, num_heads=num_heads) for _ in range(num_layers))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, width) / width**0.5)
        # fmt: on
        for module in self.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach(), persistent=False)

    @classmethod
    def from_clip(cls, state: Mapping[str, Tensor], tokens: Tensor, *, num_heads: int | None = None) -> TextTower:
        """Build the tower from the state_dict of a CLIP, whose image tower is ignored.

        tokens: see `__init__`; num_heads: by default the text width / 64, as in every CLIP. Raises ValueError if a
        tensor is missing or its width differs.
        """
        try:
            width = state["positional_embedding"].shape[1]
            layers = {n.split(".")[2] for n in state if n.startswith("transformer.resblocks.")}
            num_heads = num_heads or width // WIDTH_PER_HEAD
            tower = cls(tokens, width=width, num_layers=len(layers), num_heads=num_heads)
            words = state["token_embedding.weight"][tokens[:, : tower.words.shape[1]]]
            for name, weight in tower.named_buffers():
                weight.copy_(words if name == "words" else state[name])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"these are no weights of a CLIP text tower ({str(error).splitlines()[0]})") from None
        return tower

    def forward(self, x: Tensor, ends: list[int]) -> Tensor:
        """Return the text embeddings (C, D) of prompts x (C, L, D) whose end tokens stand at `ends`, in float32."""
        L = x.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            causal = torch.ones(L, L, dtype=torch.bool, device=x.device).tril()
            x = x + self.positional_embedding[:L]
            for block in self.transformer["resblocks"]:
                x = block(x, causal)
            return self.ln_final(x[range(len(ends)), ends]) @ self.text_projection
