"""Section 3.3 and Appendix C: inverse-variance fusion of the two modalities."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.uncertainty import precision

EPSILON_PLACEMENTS = ("weights", "sum")


class Fused(NamedTuple):
    """The fused estimate of every time step, each (B, T, D)."""

    mean: Tensor  # z = (w_i μ_i + w_e μ_e) / (w_i + w_e)
    variance: Tensor  # σ²_fused = 1 / (w_i + w_e)
    weight_image: Tensor  # ŵ_i = w_i / (w_i + w_e)
    weight_event: Tensor  # ŵ_e = w_e / (w_i + w_e)


def fuse(
    image_mu: Tensor,
    event_mu: Tensor,
    image_logvar_eff: Tensor,
    event_logvar_eff: Tensor,
    *,
    epsilon: float,
    epsilon_placement: str = "weights",
) -> Fused:
    """Return the precision-weighted mean of two Gaussian estimates (Section 3.3).

    All tensors are (B, T, D). With epsilon_placement "weights", w = 1/(σ²_eff + ε) as in Eq. 4.
    With "sum", as in the released code, w = 1/σ²_eff and ε is added to w_i + w_e.

    As ε → 0, Student's t scales both weights by (ν+1)/ν. The factor cancels, so ŵ_i and ŵ_e equal
    those of a Gaussian. ν then acts only through the KL terms and, if q > 0, the fused variance.
    """
    inside, outside = (epsilon, 0.0) if epsilon_placement == "weights" else (0.0, epsilon)
    w_image = precision(image_logvar_eff, inside)
    w_event = precision(event_logvar_eff, inside)
    total = w_image + w_event + outside
    weight_image, weight_event = w_image / total, w_event / total
    return Fused(
        mean=weight_image * image_mu + weight_event * event_mu,
        variance=1 / total,
        weight_image=weight_image,
        weight_event=weight_event,
    )
