"""Section 3 and Figure 1: the whole network, assembled from one file per box."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.fusion import EPSILON_PLACEMENTS, Fused, fuse
from model.kalman import TEMPORAL_UPDATES, TemporalUpdate
from model.refinement import Refinement
from model.temporal_encoder import TemporalEncoder
from model.uncertainty import NOISE_MODELS, GaussianHead, effective_logvar, precision

MODALITIES = ("image", "event", "fusion")
PADDINGS = ("masked", "attended")


class ConfigError(ValueError):
    """A setting of the network or its loss that makes no sense; the message names it."""


@dataclass(frozen=True, kw_only=True)
class IEFVADConfig:
    """Everything the network's arithmetic depends on; the paper's values are the defaults."""

    embed_dim: int = 768
    num_layers: int = 2
    num_heads: int = 8
    dropout: float = 0.1
    modality: str = "fusion"  # or one stream of the same network: "image", "event"
    noise_model: str = "StudentT"
    nu: float = 8.0
    epsilon: float = 1e-8
    epsilon_placement: str = "weights"
    temporal_update: str = "kalman"
    padding: str = "masked"
    num_refinement_steps: int = 10
    lambda_ref: float = 0.5

    def __post_init__(self) -> None:
        check_choices(
            self,
            {
                "modality": MODALITIES,
                "noise_model": NOISE_MODELS,
                "epsilon_placement": EPSILON_PLACEMENTS,
                "temporal_update": TEMPORAL_UPDATES,
                "padding": PADDINGS,
            },
        )
        nu, epsilon, steps = self.nu, self.epsilon, self.num_refinement_steps
        if not 0 < nu < math.inf or not 0 <= epsilon < math.inf or steps < 0:
            raise ConfigError(
                f"nu must be positive and finite (ν → ∞ is noise_model Gaussian), epsilon and "
                f"num_refinement_steps not negative; got {nu}, {epsilon}, {steps}"
            )
        if not math.isfinite(self.lambda_ref):
            raise ConfigError(f"lambda_ref must be a number; got {self.lambda_ref}")
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise ConfigError(
                f"width {self.embed_dim} cannot be divided among {self.num_heads} attention heads"
            )
        if self.num_layers < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"num_layers must be 1 or more, dropout from 0 to below 1; "
                f"got {self.num_layers}, {self.dropout}"
            )


def check_choices(config: object, choices: Mapping[str, Iterable[str]]) -> None:
    """Raise ConfigError, naming the known values, where a field of `config` holds another one."""
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ConfigError(f"{name} is {getattr(config, name)!r}; known are {', '.join(known)}")


@dataclass(frozen=True)
class IEFVADOutput:
    """Output for a batch of windows; mean and log-variance of an absent stream are None."""

    logits: Tensor  # (B, T, 1) before the sigmoid
    fused: Tensor  # (B, T, D) state after refinement
    image_mu: Tensor | None  # (B, T, D)
    event_mu: Tensor | None  # (B, T, D)
    image_logvar: Tensor | None  # (B, T, D) raw log σ², not the effective one
    event_logvar: Tensor | None  # (B, T, D)
    weight_image: Tensor  # (B, T, D) ŵ_i
    weight_event: Tensor  # (B, T, D) ŵ_e
    gain: Tensor  # (B, T, D) Kalman gain, 1 where the state is the observation
    variance: Tensor  # (B, T, D) posterior variance of the state before refinement


class IEFVAD(nn.Module):
    """Uncertainty-weighted image-event fusion for video anomaly detection."""

    def __init__(self, **config: object) -> None:
        """Keyword arguments are the fields of `IEFVADConfig`."""
        super().__init__()
        self.config = c = IEFVADConfig(**config)
        encoder = {
            "embed_dim": c.embed_dim,
            "num_layers": c.num_layers,
            "num_heads": c.num_heads,
            "dropout": c.dropout,
        }
        if c.modality != "event":
            self.image_encoder = TemporalEncoder(**encoder)
            self.image_head = GaussianHead(embed_dim=c.embed_dim)
        if c.modality != "image":
            self.event_encoder = TemporalEncoder(**encoder)
            self.event_head = GaussianHead(embed_dim=c.embed_dim)
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
        """image, event: (B, T, D) embeddings; lengths: (B,) valid steps of each, None for all T.

        float16 embeddings are widened here, so that they cost half the copy to a GPU. A
        single-modality network takes None for the other stream. Raises ValueError for shapes that
        do not fit.
        """
        mask = self._mask(image if image is not None else event, lengths)  # (B, 1, 1, T)
        image_mu = image_logvar = event_mu = event_logvar = None
        if self.config.modality != "event":
            h = self.image_encoder(self._checked("image", image), mask)  # (B, T, D)
            image_mu, image_logvar = self.image_head(h)  # (B, T, D) each
        if self.config.modality != "image":
            h = self.event_encoder(self._checked("event", event), mask)  # (B, T, D)
            event_mu, event_logvar = self.event_head(h)  # (B, T, D) each
        z = self._fuse(image_mu, event_mu, image_logvar, event_logvar)  # (B, T, D) each
        filtered = self.temporal_update(z.mean, z.variance)  # (B, T, D) each
        state = self.refinement(filtered.state)  # (B, T, D)
        return IEFVADOutput(
            logits=self._classify(state),  # (B, T, 1)
            fused=state,
            image_mu=image_mu,
            event_mu=event_mu,
            image_logvar=image_logvar,
            event_logvar=event_logvar,
            weight_image=z.weight_image,
            weight_event=z.weight_event,
            gain=filtered.gain,
            variance=filtered.variance,
        )

    def _fuse(
        self,
        image_mu: Tensor | None,
        event_mu: Tensor | None,
        image_logvar: Tensor | None,
        event_logvar: Tensor | None,
    ) -> Fused:
        """Fused observation (Section 3.3), or the one stream there is with weight 1."""
        c = self.config
        if c.modality == "fusion":
            return fuse(
                image_mu,
                event_mu,
                effective_logvar(image_logvar, c.noise_model, c.nu),
                effective_logvar(event_logvar, c.noise_model, c.nu),
                epsilon=c.epsilon,
                epsilon_placement=c.epsilon_placement,
            )
        mu, logvar = (image_mu, image_logvar) if c.modality == "image" else (event_mu, event_logvar)
        variance = 1 / precision(effective_logvar(logvar, c.noise_model, c.nu), c.epsilon)
        one, zero = torch.ones_like(variance), torch.zeros_like(variance)
        weights = (one, zero) if c.modality == "image" else (zero, one)
        return Fused(mu.to(variance), variance, *weights)

    def _classify(self, state: Tensor) -> Tensor:
        """Logits, in full precision also under autocast: it costs D products a step."""
        with torch.autocast(state.device.type, enabled=False):
            return self.classifier(state.to(self.classifier.weight.dtype))

    def _mask(self, x: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        """(B, 1, 1, T) True at valid steps, shared by layers and streams; None to attend to all."""
        if lengths is None or x is None or self.config.padding == "attended":
            return None
        # a window without a single valid step would leave its attention nothing to attend to (NaN)
        lengths = lengths.to(x.device).clamp(min=1)
        valid = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return valid[:, None, None]

    def _checked(self, name: str, x: Tensor | None) -> Tensor:
        if x is None or x.dim() != 3 or x.shape[-1] != self.config.embed_dim:
            shape = None if x is None else tuple(x.shape)
            raise ValueError(
                f"{name} embeddings must be (B, T, {self.config.embed_dim}); got {shape}"
            )
        return x.to(self.classifier.weight.dtype)
