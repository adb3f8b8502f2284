"""Section 3.5 and Appendix D: iterative refinement of the fused state."""

from __future__ import annotations

from torch import Tensor, nn


class Refinement(nn.Module):
    """N steps s ← s − λ_ref · r_k(s), k = 1 … N, where each r_k is a Linear–ReLU–Linear network.

    With N = 0 the state is returned unchanged.
    """

    def __init__(self, *, embed_dim: int, num_steps: int, lambda_ref: float) -> None:
        super().__init__()
        self.lambda_ref = lambda_ref
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim)
            )
            for _ in range(num_steps)
        )

    def forward(self, s: Tensor) -> Tensor:
        """Return the refined state; s: (B, T, D)."""
        for residual in self.blocks:
            s = s - self.lambda_ref * residual(s)  # (B, T, D)
        return s
