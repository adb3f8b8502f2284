"""Section 3 and Figure 1: the complete network, assembled from the modules of each section."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.fusion import EPSILON_PLACEMENTS, Fused, fuse
from model.fusion_baselines import BASELINES, LateFusion
from model.kalman import TEMPORAL_UPDATES, TemporalUpdate
from model.projection import PrincipalComponents
from model.refinement import Refinement
from model.temporal_encoder import TemporalEncoder
from model.uncertainty import NOISE_MODELS, GaussianHead, effective_logvar, full_precision, precision

MODALITIES = ("image", "event", "fusion")
FUSIONS = ("inverse_variance", *BASELINES)
PADDINGS = ("masked", "attended")


class ConfigError(ValueError):
    """Raised for an invalid option of the network or its loss; the message names the option."""


@dataclass(frozen=True, kw_only=True)
class IEFVADConfig:
    """All options that affect the network's output; the numeric defaults are the paper's."""

    embed_dim: int = 768  # D, 768 for CLIP ViT-L/14
    input_dim: int = 0  # width of embeddings that are reduced to D principal components; 0: D, unchanged
    num_layers: int = 2  # of each temporal encoder
    num_heads: int = 8
    dropout: float = 0.1  # of the attention weights
    modality: str = "fusion"  # "image" or "event" for a single-modality network
    fusion: str = "inverse_variance"  # or a key of `BASELINES`; unused in a single-modality network
    noise_model: str = "StudentT"
    nu: float = 8.0  # ν, degrees of freedom of Student's t
    epsilon: float = 1e-8  # ε of Eq. 4 and 5
    epsilon_placement: str = "weights"  # see `fuse`
    temporal_update: str = "kalman"  # see `TemporalUpdate`
    padding: str = "masked"  # in attention and in the KL and regularisation losses
    num_refinement_steps: int = 10  # N
    lambda_ref: float = 0.5  # λ_ref

    def __post_init__(self) -> None:
        check_choices(
            self,
            {
                "modality": MODALITIES,
                "fusion": FUSIONS,
                "noise_model": NOISE_MODELS,
                "epsilon_placement": EPSILON_PLACEMENTS,
                "temporal_update": TEMPORAL_UPDATES,
                "padding": PADDINGS,
            },
        )
        for name, valid, requirement in (
            ("nu", 0 < self.nu < math.inf, "positive and finite (ν → ∞ is noise_model Gaussian)"),
            ("epsilon", 0 <= self.epsilon < math.inf, "finite and not negative"),
            ("num_refinement_steps", self.num_refinement_steps >= 0, "0 or more"),
            ("lambda_ref", math.isfinite(self.lambda_ref), "finite"),
            ("input_dim", not 0 < self.input_dim < self.embed_dim, "0, or at least embed_dim"),
            ("num_layers", self.num_layers >= 1, "1 or more"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and less than 1"),
        ):
            if not valid:
                raise ConfigError(f"{name} must be {requirement}, but is {getattr(self, name)}")
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise ConfigError(
                f"embedding width {self.embed_dim} is not divisible by {self.num_heads} heads"
            )

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings that the network takes."""
        return self.input_dim or self.embed_dim


def check_choices(config: object, choices: Mapping[str, Iterable[str]]) -> None:
    """Raise ConfigError if a field of `config` has none of its allowed values."""
    for name, allowed in choices.items():
        if (value := getattr(config, name)) not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


@dataclass(frozen=True)
class IEFVADOutput:
    """Output for a batch of windows; mean and log-variance of an unused modality are None."""

    logits: Tensor  # (B, T, 1) before the sigmoid
    fused: Tensor  # (B, T, D) state after refinement; (2B, T, D) for late fusion
    image_mu: Tensor | None  # (B, T, D)
    event_mu: Tensor | None  # (B, T, D)
    image_logvar: Tensor | None  # (B, T, D) log σ² from the head, not log σ²_eff
    event_logvar: Tensor | None  # (B, T, D)
    weight_image: Tensor  # (B, T, D) ŵ_i; NaN for a fusion without weights
    weight_event: Tensor  # (B, T, D) ŵ_e
    gain: Tensor  # (B, T, D) Kalman gain; 1 means that the state equals the observation
    variance: Tensor  # (B, T, D) posterior variance of the state before refinement


class Observed(NamedTuple):
    """The steps before the temporal update; mean and log-variance of an unused modality are None."""

    image_mu: Tensor | None  # (B, T, D)
    event_mu: Tensor | None  # (B, T, D)
    image_logvar: Tensor | None  # (B, T, D) log σ² from the head, not log σ²_eff
    event_logvar: Tensor | None  # (B, T, D)
    fused: Fused  # the observation of the filter; its mean and variance are (2B, T, D) for late fusion


class IEFVAD(nn.Module):
    """Uncertainty-weighted image-event fusion for video anomaly detection.

    `IEFVAD.from_pretrained(folder)` loads a trained one, see `model.checkpoint.from_pretrained`.
    """

    def __init__(self, **config: object) -> None:
        """Build the network; keyword arguments are the fields of `IEFVADConfig`."""
        super().__init__()
        self.config = c = IEFVADConfig(**config)
        encoder = {
            "embed_dim": c.embed_dim,
            "num_layers": c.num_layers,
            "num_heads": c.num_heads,
            "dropout": c.dropout,
        }
        projection = {"input_dim": c.input_dim, "embed_dim": c.embed_dim}
        if c.modality != "event":
            self.image_projection = PrincipalComponents(**projection) if c.input_dim else nn.Identity()
            self.image_encoder = TemporalEncoder(**encoder)
            self.image_head = GaussianHead(embed_dim=c.embed_dim)
        if c.modality != "image":
            self.event_projection = PrincipalComponents(**projection) if c.input_dim else nn.Identity()
            self.event_encoder = TemporalEncoder(**encoder)
            self.event_head = GaussianHead(embed_dim=c.embed_dim)
        if c.modality == "fusion" and c.fusion != "inverse_variance":
            baseline = BASELINES[c.fusion]
            self.fusion = baseline(embed_dim=c.embed_dim, num_heads=c.num_heads)
        self.temporal_update = TemporalUpdate(
            embed_dim=c.embed_dim, temporal_update=c.temporal_update, epsilon=c.epsilon
        )
        self.refinement = Refinement(
            embed_dim=c.embed_dim, num_steps=c.num_refinement_steps, lambda_ref=c.lambda_ref
        )
        self.classifier = nn.Linear(c.embed_dim, 1)

    def forward(
        self, image: Tensor | None, event: Tensor | None, lengths: Tensor | None = None
    ) -> IEFVADOutput:
        """Score a batch of windows.

        image, event: (B, T, D) embeddings, None for the modality that the network does not use; D is
        `IEFVADConfig.embedding_width`.
        lengths: (B,) number of valid steps of each window; None means that all T are valid.
        Raises ValueError for embeddings of another shape.
        """
        # fmt: off
        observed = self.observe(image, event, lengths)
        z = observed.fused                                                      # (B, T, D) each
        filtered = self.temporal_update(z.mean, z.variance)                     # (B, T, D) each
        state = self.refinement(filtered.state)                                 # (B, T, D)
        logits = self.classify(state)                                           # (B, T, 1)
        # fmt: on
        return IEFVADOutput(
            logits=logits,
            fused=state,
            image_mu=observed.image_mu,
            event_mu=observed.event_mu,
            image_logvar=observed.image_logvar,
            event_logvar=observed.event_logvar,
            weight_image=z.weight_image,
            weight_event=z.weight_event,
            gain=filtered.gain,
            variance=filtered.variance,
        )

    def observe(self, image: Tensor | None, event: Tensor | None, lengths: Tensor | None = None) -> Observed:
        """Encode a batch of windows and fuse the streams; arguments and errors as in `forward`."""
        mask = self._attention_mask(image if image is not None else event, lengths)
        image_mu = image_logvar = event_mu = event_logvar = None
        # fmt: off
        if self.config.modality != "event":
            x = self.image_projection(self._validate("image", image))           # (B, T, D)
            h = self.image_encoder(x, mask)                                     # (B, T, D)
            image_mu, image_logvar = self.image_head(h)                         # (B, T, D) each
        if self.config.modality != "image":
            x = self.event_projection(self._validate("event", event))           # (B, T, D)
            h = self.event_encoder(x, mask)                                     # (B, T, D)
            event_mu, event_logvar = self.event_head(h)                         # (B, T, D) each
        # fmt: on
        fused = self._fuse(image_mu, event_mu, image_logvar, event_logvar, mask)
        return Observed(image_mu, event_mu, image_logvar, event_logvar, fused)

    def classify(self, state: Tensor) -> Tensor:
        """Return the logits (B, T, 1) of refined states (B, T, D), or (2B, T, D) for late fusion.

        They are in full precision, also under autocast: D products per step cost little.
        """
        with torch.autocast(state.device.type, enabled=False):
            logits = self.classifier(state.to(self.classifier.weight.dtype))
        return LateFusion.mean_score(logits) if isinstance(getattr(self, "fusion", None), LateFusion) else logits

    def _fuse(
        self,
        image_mu: Tensor | None,
        event_mu: Tensor | None,
        image_logvar: Tensor | None,
        event_logvar: Tensor | None,
        mask: Tensor | None,
    ) -> Fused:
        """Fuse the two streams (Section 3.3), or give a single stream weight 1."""
        c = self.config
        if c.modality == "fusion":
            image_logvar = effective_logvar(image_logvar, c.noise_model, c.nu)
            event_logvar = effective_logvar(event_logvar, c.noise_model, c.nu)
            if c.fusion != "inverse_variance":
                variance = (full_precision(s).exp() for s in (image_logvar, event_logvar))
                return self.fusion((image_mu, event_mu), tuple(variance), mask)
            return fuse(
                image_mu,
                event_mu,
                image_logvar,
                event_logvar,
                epsilon=c.epsilon,
                epsilon_placement=c.epsilon_placement,
            )
        mu, logvar = (image_mu, image_logvar) if c.modality == "image" else (event_mu, event_logvar)
        variance = 1 / precision(effective_logvar(logvar, c.noise_model, c.nu), c.epsilon)
        one, zero = torch.ones_like(variance), torch.zeros_like(variance)
        weights = (one, zero) if c.modality == "image" else (zero, one)
        return Fused(mu.to(variance), variance, *weights)

    def _attention_mask(self, x: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        """Return a mask (B, 1, 1, T), True at valid steps, or None to attend to all steps."""
        if lengths is None or x is None or self.config.padding == "attended":
            return None
        # attention over a window without a valid step would return NaN
        lengths = lengths.to(x.device).clamp(min=1)
        valid = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return valid[:, None, None]

    def _validate(self, name: str, x: Tensor | None) -> Tensor:
        """Check the shape; convert float16 embeddings here, after their copy to the GPU."""
        if x is None or x.dim() != 3 or x.shape[-1] != self.config.embedding_width:
            shape = None if x is None else tuple(x.shape)
            expected = f"(B, T, {self.config.embedding_width})"
            raise ValueError(f"{name} embeddings must have shape {expected}, not {shape}")
        return x.to(self.classifier.weight.dtype)
