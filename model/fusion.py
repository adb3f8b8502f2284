"""Section 3.3 and Appendix C: inverse-variance fusion of the streams, with a sum over any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from model.uncertainty import precision

EPSILON_PLACEMENTS = ("weights", "sum")


class Fused(NamedTuple):
    """The fused estimate of every time step, each (B, T, D)."""

    mean: Tensor  # z = Σ w_m μ_m / Σ w_m
    variance: Tensor  # σ²_fused = 1 / Σ w_m
    weights: Mapping[str, Tensor]  # stream m → ŵ_m = w_m / Σ w_m


def fuse(
    means: Mapping[str, Tensor],
    logvars_eff: Mapping[str, Tensor],
    *,
    epsilon: float,
    epsilon_placement: str = "weights",
    missing: Mapping[str, Tensor] | None = None,
) -> Fused:
    """Return the precision-weighted mean of independent Gaussian estimates (Section 3.3).

    means, logvars_eff: stream → (B, T, D). With epsilon_placement "weights", w = 1/(σ²_eff + ε) as in
    Eq. 4. With "sum", as in the released code, w = 1/σ²_eff and ε is added to Σ w_m.
    missing: stream → (B, 1, 1), True where a video lacks it. Then σ² = ∞ and w = 0, so that z and
    σ²_fused are those of the other streams. At least one stream must be present.

    As ε → 0, Student's t scales all weights by (ν+1)/ν. The factor cancels, so ŵ equals that of a
    Gaussian. ν then acts only through the KL terms and, if q > 0, the fused variance.
    """
    inside, outside = (epsilon, 0.0) if epsilon_placement == "weights" else (0.0, epsilon)
    w = {name: precision(s, inside) for name, s in logvars_eff.items()}
    for name, absent in (missing or {}).items():
        w[name] = w[name].masked_fill(absent, 0.0)
    total = sum(w.values()) + outside
    weights = {name: w[name] / total for name in means}
    return Fused(
        mean=sum(weights[name] * mu for name, mu in means.items()),
        variance=1 / total,
        weights=weights,
    )
