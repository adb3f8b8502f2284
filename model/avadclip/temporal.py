"""Section III-B: the temporal model of the image embeddings, and the temporal convolutions of the audio embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from model.avadclip.text import QuickGELU, ResidualAttentionBlock
from model.uncertainty import full_precision

SIMILAR = 0.7  # steps with a smaller cosine are not linked
DILATIONS = (1, 2, 4)  # of the temporal convolutions
DROPOUT = 0.1  # of the temporal convolutions
AUDIO_DELAYS = ("causal", "both")


class TemporalModel(nn.Module):
    """Learned positions, a local transformer, and two graphs that link similar and near steps."""

    def __init__(self, *, embed_dim: int, max_length: int, num_layers: int, num_heads: int, local_window: int) -> None:
        super().__init__()
        self.local_window = local_window
        self.positions = nn.Parameter(0.01 * torch.randn(max_length, embed_dim))
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(embed_dim=embed_dim, num_heads=num_heads) for _ in range(num_layers)
        )
        self.similarity = GraphConvolution(embed_dim=embed_dim)
        self.distance = GraphConvolution(embed_dim=embed_dim)
        self.linear = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, valid: Tensor, used: Tensor) -> Tensor:
        """Return features (B, T, D) of embeddings x (B, T, D).

        valid: (B, T), True at the steps of the video. used: (B, T), True at the steps that may influence others:
        those of the video, or all if padding is attended to.
        """
        # fmt: off
        x = self.transform(x, used)                                             # (B, T, D)
        similar = self.similarity(x, similarity_graph(x, valid), used)          # (B, T, D/2)
        near = self.distance(x, distance_graph(used), used)                     # (B, T, D/2)
        return self.linear(torch.cat([similar, near], -1))                      # (B, T, D)
        # fmt: on

    def transform(self, x: Tensor, used: Tensor) -> Tensor:
        """Return the output (B, T, D) of the local transformer, which attends inside consecutive blocks of w steps."""
        B, T, D = x.shape
        w = min(self.local_window, T)
        x = F.pad(x + self.positions[:T], (0, 0, 0, -T % w)).view(-1, w, D)  # blocks become rows of the batch
        keys = F.pad(used, (0, -T % w)).view(-1, w)
        keys = keys | ~keys.any(1, keepdim=True)  # attention over no step would return NaN
        for block in self.blocks:
            x = block(x, keys[:, None, None])
        return x.view(B, -1, D)[:, :T]


class GraphConvolution(nn.Module):
    """Two graph convolutions of width D/2: y ← QG(G x W₁ + conv x), then y ← QG(G y W₂ + y)."""

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        width = embed_dim // 2
        self.first = nn.Parameter(nn.init.xavier_uniform_(torch.empty(embed_dim, width)))  # W₁
        self.conv = nn.Conv1d(embed_dim, width, 5, padding=2)
        self.second = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))  # W₂
        self.gelu = QuickGELU()

    def forward(self, x: Tensor, graph: Tensor, used: Tensor) -> Tensor:
        """Return (B, T, D/2) of x (B, T, D) on a graph (B, T, T); used: see `TemporalModel.forward`."""
        graph = graph.to(x)
        y = self.gelu(graph @ (x @ self.first) + convolve(self.conv, x, used))
        return self.gelu(graph @ (y @ self.second) + y)


def similarity_graph(x: Tensor, valid: Tensor) -> Tensor:
    """Return G (B, T, T), the softmax of each row of c · [c > 0.7], c the cosine of two steps of x (B, T, D).

    Steps outside the video, where `valid` (B, T) is False, are not linked. A cut entry is 0 before the softmax, so
    it keeps a weight.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = F.normalize(full_precision(x), dim=-1)
        cosine = x @ x.transpose(1, 2)
        score = torch.where(cosine > SIMILAR, cosine, 0).masked_fill(~valid[:, None], -math.inf)
        return score.softmax(-1) * valid[..., None]


def distance_graph(used: Tensor) -> Tensor:
    """Return H (B, T, T) with H_ij = exp(−|i − j| / e), 0 for steps j where `used` (B, T) is False."""
    step = torch.arange(used.shape[1], device=used.device, dtype=torch.float32)
    return torch.exp(-(step[:, None] - step).abs() / math.e) * used[:, None]


class TemporalConvolution(nn.Module):
    """Three residual blocks of two dilated convolutions each, over the audio embeddings (Bai et al., arXiv 1803.01271).

    audio_delay: "causal" sees 15 steps, this one and those before. With "both" the second convolution of each block
    looks ahead instead, so 7 steps before and 7 after are seen.
    """

    def __init__(self, *, embed_dim: int, audio_delay: str) -> None:
        super().__init__()
        self.ahead = audio_delay == "both"
        self.blocks = nn.ModuleList(
            nn.ModuleList(weight_norm(nn.Conv1d(embed_dim, embed_dim, 2, dilation=d)) for _ in range(2))
            for d in DILATIONS
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, used: Tensor) -> Tensor:
        """Return (B, T, D) of audio embeddings x (B, T, D); used: see `TemporalModel.forward`."""
        for block, d in zip(self.blocks, DILATIONS, strict=True):
            y = x
            for conv, pad in zip(block, ((d, 0), (0, d) if self.ahead else (d, 0)), strict=True):
                y = self.dropout(convolve(conv, y, used, pad).relu())
            x = (x + y).relu()
        return x


def convolve(conv: nn.Conv1d, x: Tensor, used: Tensor, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Return the convolution over time, (B, T, D'), of x (B, T, D), which counts as 0 where `used` is False.

    pad: zeros before and after, beside those of the layer itself.
    """
    x = (x * used[..., None]).transpose(1, 2)
    return conv(F.pad(x, pad)).transpose(1, 2)
