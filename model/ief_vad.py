"""Section 3 and Figure 1: the complete network, assembled from the modules of each section."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
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

STREAMS = ("image", "event", "audio")  # in this order everywhere
# value of `modality` → its streams: "fusion" is the paper's image and event; others are joined by "+"
MODALITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fusion": ("image", "event"),
        **{"+".join(names): names for count in (1, 2, 3) for names in combinations(STREAMS, count)},
    }
)
FUSIONS = ("inverse_variance", *BASELINES)
PADDINGS = ("masked", "attended")


class ConfigError(ValueError):
    """Raised for an invalid option of the network or its loss; the message names the option."""


@dataclass(frozen=True, kw_only=True)
class IEFVADConfig:
    """All options that affect the network's output; the numeric defaults are the paper's."""

    embed_dim: int = 768  # D, 768 for CLIP ViT-L/14
    input_dim: int = 0  # width of embeddings that are reduced to D principal components; 0: D, unchanged
    audio_dim: int = 0  # width of sound embeddings, if it is not that of the others
    num_layers: int = 2  # of each temporal encoder
    num_heads: int = 8
    dropout: float = 0.1  # of the attention weights
    modality: str = "fusion"  # a key of `MODALITIES`; one stream for a single-modality network
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
            ("audio_dim", self.audio_dim >= 0, "0 or more"),
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
    def streams(self) -> tuple[str, ...]:
        """Streams that the network takes, in the order of `STREAMS`."""
        return MODALITIES[self.modality]

    @property
    def embedding_width(self) -> int:
        """Width of the image and event embeddings that the network takes."""
        return self.input_dim or self.embed_dim

    def width_of(self, stream: str) -> int:
        """Return the width of a stream's embeddings."""
        return self.audio_dim if stream == "audio" and self.audio_dim else self.embedding_width


def check_choices(config: object, choices: Mapping[str, Iterable[str]]) -> None:
    """Raise ConfigError if a field of `config` has none of its allowed values."""
    for name, allowed in choices.items():
        if (value := getattr(config, name)) not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


@dataclass(frozen=True)
class IEFVADOutput:
    """Output for a batch of windows. A mapping has the streams that the network uses."""

    logits: Tensor  # (B, T, 1) before the sigmoid
    fused: Tensor  # (B, T, D) state after refinement; (K·B, T, D) for late fusion of K streams
    mu: Mapping[str, Tensor]  # stream → (B, T, D)
    logvar: Mapping[str, Tensor]  # stream → (B, T, D) log σ² from the head, not log σ²_eff
    weights: Mapping[str, Tensor]  # stream → (B, T, D) ŵ; NaN for a fusion without weights
    missing: Mapping[str, Tensor]  # stream → (B, 1, 1), see `IEFVAD.forward`; empty for one stream
    gain: Tensor  # (B, T, D) Kalman gain; 1 means that the state equals the observation
    variance: Tensor  # (B, T, D) posterior variance of the state before refinement


class Observed(NamedTuple):
    """The steps before the temporal update; see `IEFVADOutput`."""

    mu: Mapping[str, Tensor]
    logvar: Mapping[str, Tensor]
    missing: Mapping[str, Tensor]
    fused: Fused  # the observation of the filter; its mean and variance are (K·B, T, D) for late fusion


class IEFVAD(nn.Module):
    """Uncertainty-weighted fusion of image, event and sound embeddings for video anomaly detection.

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
        for stream in c.streams:
            # one attribute a part and stream, such as image_encoder: the names of the tensors
            setattr(self, f"{stream}_projection", _projection(c.width_of(stream), c))
            setattr(self, f"{stream}_encoder", TemporalEncoder(**encoder))
            setattr(self, f"{stream}_head", GaussianHead(embed_dim=c.embed_dim))
        if len(c.streams) > 1 and c.fusion != "inverse_variance":
            sizes = {"embed_dim": c.embed_dim, "num_heads": c.num_heads}
            self.fusion = BASELINES[c.fusion](**sizes, num_streams=len(c.streams))
        self.temporal_update = TemporalUpdate(
            embed_dim=c.embed_dim, temporal_update=c.temporal_update, epsilon=c.epsilon
        )
        self.refinement = Refinement(
            embed_dim=c.embed_dim, num_steps=c.num_refinement_steps, lambda_ref=c.lambda_ref
        )
        self.classifier = nn.Linear(c.embed_dim, 1)

    def forward(
        self,
        image: Tensor | None = None,
        event: Tensor | None = None,
        lengths: Tensor | None = None,
        audio: Tensor | None = None,
    ) -> IEFVADOutput:
        """Score a batch of windows.

        image, event, audio: (B, T, D) embeddings, None for a stream that the network does not use; D is
        `IEFVADConfig.width_of`. Where a window has only zeros, the video lacks that stream: its weight
        is 0 if the fusion is inverse_variance and another stream is present.
        lengths: (B,) number of valid steps of each window; None means that all T are valid.
        Raises ValueError for embeddings of another shape.
        """
        # fmt: off
        observed = self.observe(image, event, lengths, audio)
        z = observed.fused                                                      # (B, T, D) each
        filtered = self.temporal_update(z.mean, z.variance)                     # (B, T, D) each
        state = self.refinement(filtered.state)                                 # (B, T, D)
        logits = self.classify(state)                                           # (B, T, 1)
        # fmt: on
        return IEFVADOutput(
            logits=logits,
            fused=state,
            mu=observed.mu,
            logvar=observed.logvar,
            weights=z.weights,
            missing=observed.missing,
            gain=filtered.gain,
            variance=filtered.variance,
        )

    def observe(
        self,
        image: Tensor | None = None,
        event: Tensor | None = None,
        lengths: Tensor | None = None,
        audio: Tensor | None = None,
    ) -> Observed:
        """Encode a batch of windows and fuse the streams; arguments and errors as in `forward`."""
        given = {"image": image, "event": event, "audio": audio}
        streams = {name: self._validate(name, given[name]) for name in self.config.streams}
        mask = self._attention_mask(next(iter(streams.values())), lengths)
        mu, logvar = {}, {}
        # fmt: off
        for name, x in streams.items():
            x = getattr(self, f"{name}_projection")(x)                          # (B, T, D)
            h = getattr(self, f"{name}_encoder")(x, mask)                       # (B, T, D)
            mu[name], logvar[name] = getattr(self, f"{name}_head")(h)           # (B, T, D) each
        # fmt: on
        missing = _missing(streams) if len(streams) > 1 else {}
        return Observed(mu, logvar, missing, self._fuse(mu, logvar, missing, mask))

    def classify(self, state: Tensor) -> Tensor:
        """Return the logits (B, T, 1) of refined states (B, T, D), or (K·B, T, D) for late fusion.

        They are in full precision, also under autocast: D products per step cost little.
        """
        with torch.autocast(state.device.type, enabled=False):
            logits = self.classifier(state.to(self.classifier.weight.dtype))
        late = isinstance(getattr(self, "fusion", None), LateFusion)
        return LateFusion.mean_score(logits, len(self.config.streams)) if late else logits

    def _fuse(
        self,
        mu: Mapping[str, Tensor],
        logvar: Mapping[str, Tensor],
        missing: Mapping[str, Tensor],
        mask: Tensor | None,
    ) -> Fused:
        """Fuse the streams (Section 3.3), or give a single stream weight 1."""
        c = self.config
        logvar_eff = {name: effective_logvar(s, c.noise_model, c.nu) for name, s in logvar.items()}
        if len(mu) == 1:
            ((name, mean),) = mu.items()
            variance = 1 / precision(logvar_eff[name], c.epsilon)
            return Fused(mean.to(variance), variance, {name: torch.ones_like(variance)})
        if c.fusion == "inverse_variance":
            placement = c.epsilon_placement
            return fuse(mu, logvar_eff, epsilon=c.epsilon, epsilon_placement=placement, missing=missing)
        return self.fusion(mu, {name: full_precision(s).exp() for name, s in logvar_eff.items()}, mask)

    def _attention_mask(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return a mask (B, 1, 1, T), True at valid steps, or None to attend to all steps."""
        if lengths is None or self.config.padding == "attended":
            return None
        # attention over a window without a valid step would return NaN
        lengths = lengths.to(x.device).clamp(min=1)
        valid = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        return valid[:, None, None]

    def _validate(self, name: str, x: Tensor | None) -> Tensor:
        """Check the shape; convert float16 embeddings here, after their copy to the GPU."""
        width = self.config.width_of(name)
        if x is None or x.dim() != 3 or x.shape[-1] != width:
            shape, expected = None if x is None else tuple(x.shape), f"(B, T, {width})"
            raise ValueError(f"{name} embeddings must have shape {expected}, not {shape}")
        return x.to(self.classifier.weight.dtype)


def _projection(width: int, config: IEFVADConfig) -> nn.Module:
    """Return the map from embeddings of this width to width D."""
    if config.input_dim:
        return PrincipalComponents(input_dim=width, embed_dim=config.embed_dim)
    return nn.Identity() if width == config.embed_dim else nn.Linear(width, config.embed_dim)


def _missing(streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return stream → (B, 1, 1), True where a window has only zeros; nothing is missing if all have."""
    zero = {name: ~x.flatten(1).any(1)[:, None, None] for name, x in streams.items()}
    some = ~torch.stack(tuple(zero.values())).all(0)
    return {name: absent & some for name, absent in zero.items()}
