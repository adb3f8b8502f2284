"""The switches where the paper's text, the released code and this code part ways: one frozen record per profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from vad.errors import InputError


@dataclass(frozen=True)
class Profile:
    """Every switch with the value this code takes by default. Flags of the same names overrule each of them.

    Values a data set has of its own (batch size, learning rate, …) stand in its `Recipe`; a profile that
    overrules those too names them in `recipe`.
    """

    name: str = "default"
    # model (Sections 3.1 – 3.5)
    visual_layers: int = 2
    visual_head: int = 8
    dropout: float = 0.1
    noise_model: str = "StudentT"  # or "Gaussian"
    nu: float = 8.0  # degrees of freedom ν
    epsilon: float = 1e-8
    epsilon_placement: str = "weights"  # inside each weight (Eq. 4); "sum": once, added to w_i + w_e
    temporal_update: str = "kalman"  # learned q; "paper": q = 0; "none": q = ∞
    padding: str = "masked"  # or "attended": zeros take part in attention, L_kl and L_reg
    num_refinement_steps: int = 10
    lambda_ref: float = 0.5
    # loss (Section 3.6)
    mil: str = "topk"  # or "segment"
    lambda_cos: float = 0.5  # λ_1
    lambda_norm: float = 0.5  # λ_2
    lambda_reg: float = 1.0
    lambda_kl: float = 1.0
    kl_noise_model: str = "model"  # as the noise model says; or "StudentT", "Gaussian" whatever that says
    # training and evaluation
    recipe: Mapping[str, object] = field(default_factory=dict)
    keep: str = "last"  # weights in <exp>.pth at the end: the last epoch's, or "best" on the test set
    rollback: bool = False  # at each epoch's end the weights, not the optimiser, return to the best on the test set
    split: str = "official"  # or "released"
    test_crops: tuple[int, ...] = (5,)
    ano_auc: str = "abnormal"  # abnormal videos only; "released": every video not labelled exactly "Normal"
    mask_axis: str = "feature"  # probe: a share of the D dimensions set to 0; "time": of the T steps, × 0.01
    nan: str = "refuse"  # an embedding with NaN ends the run; "zero": counts as 0, before anything is averaged
    # extraction (Appendix F.1)
    tail: str = "whole"  # every whole snippet; "released": a last block of 16 frames or fewer is lost
    event_threshold: int = 10  # grey levels of 255 (the release's UCF script says 25, its embeddings were made with 10)
    event_clamp: int = 10
    event_scaling: str = "clamp"  # divide by the clamp; "block": by the largest count of the 32-snippet block


DEFAULT = Profile()

PAPER = replace(
    DEFAULT,
    name="paper",
    temporal_update="paper",
    mil="segment",
    recipe=MappingProxyType({
        "batch_size": 64,
        "lr": 2e-5,
        "max_epoch": 10,
        "scheduler_milestones": (4, 8),
        "scheduler_rate": 0.1,
    }),
    test_crops=tuple(range(10)),
)

RELEASED = replace(
    DEFAULT,
    name="released",
    temporal_update="none",
    padding="attended",
    epsilon_placement="sum",
    lambda_cos=1.0,
    lambda_norm=1.0,
    keep="best",
    rollback=True,
    split="released",
    ano_auc="released",
    tail="released",
    event_clamp=16,
    event_scaling="block",
    mask_axis="time",
    nan="zero",  # a block of the released extraction without a single event is 0/0
)

PROFILES: Mapping[str, Profile] = MappingProxyType({p.name: p for p in (DEFAULT, PAPER, RELEASED)})


def profile(name: str) -> Profile:
    """Profile by its --profile name; InputError names the known ones."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}; known are {', '.join(PROFILES)}")
    return PROFILES[name]
