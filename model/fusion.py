"""Section 3.3 and Appendix C: fusion of the two modalities by inverse variance."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.uncertainty import precision

EPSILON_PLACEMENTS = ("weights", "sum")


class Fused(NamedTuple):
    """The fused observation of every step, each (B, T, D)."""

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
    """Precision-weighted mean of two independent Gaussian estimates, (B, T, D) each (Section 3.3).

    epsilon_placement "weights" is Eq. 4: w = 1/(σ²_eff + ε). "sum" is the released code: w =
    1/σ²_eff, and ε is added once, to the sum of the weights.

    As ε → 0, Student's t scales both weights by (ν+1)/ν, which cancels: ŵ_i and ŵ_e equal a
    Gaussian's. ν then acts through the KL terms and, where there is process noise, through the
    fused variance.
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
