"""Section III-F: the student's enhanced features, its variance, and the losses that draw it to the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from model.avadclip.temporal import convolve

VARIANCE_HEADS = ("released", "plain", "none")


class Enhancement(nn.Module):
    """x ← x + ReLU(conv x), once per layer: three times in the released code, once in the paper."""

    def __init__(self, *, embed_dim: int, num_layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(embed_dim, embed_dim, 3, padding=1) for _ in range(num_layers))

    def forward(self, x: Tensor, used: Tensor) -> Tensor:
        """Return F_s (B, T, D) of x (B, T, D); used: (B, T), True at steps that may influence others."""
        for conv in self.convs:
            x = x + convolve(conv, x, used).relu()
        return x


class VarianceHead(nn.Module):
    """Three convolutions h that predict θ, the log-variance of the teacher's features around the student's.

    kind: "released" is θ = −(x + h), with a ReLU at the end of h. "plain" is θ = h without it, and leaves the
    features to the other losses: no gradient passes to them.
    """

    def __init__(self, *, embed_dim: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        # fmt: off
        self.convs = nn.ModuleList(nn.Conv1d(embed_dim, embed_dim, k, padding=k // 2) for k in (1, 3, 1))
        # fmt: on

    def forward(self, x: Tensor, used: Tensor) -> Tensor:
        """Return θ (B, T, D); arguments as in `Enhancement.forward`."""
        first, second, third = self.convs
        y = convolve(first, x.detach() if self.kind == "plain" else x, used).relu()
        y = convolve(third, convolve(second, y, used), used)
        return y if self.kind == "plain" else -(x + y.relu())


def released_likelihood(student: Tensor, theta: Tensor, teacher: Tensor) -> Tensor:
    """Return (F − F_s)² / σ² + ln σ² − ln 2 with θ = ln(σ²/2), twice a Gaussian negative log-likelihood."""
    return (teacher - student).square() / (1e-6 + 2 * theta.exp()) + theta


def gaussian_likelihood(student: Tensor, theta: Tensor, teacher: Tensor) -> Tensor:
    """Return the paper's (F − F_s)² / σ² + ln σ² with θ = ln σ²."""
    return (teacher - student).square() * (-theta).exp() + theta


def squared_error(student: Tensor, theta: Tensor | None, teacher: Tensor) -> Tensor:
    """Return (F − F_s)²."""
    return (teacher - student).square()


# element by element over features of student and teacher, (B, T, D)
DISTILLATIONS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"released": released_likelihood, "nll": gaussian_likelihood, "mse": squared_error}
)
