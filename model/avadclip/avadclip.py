"""Section III: teacher (image and audio) and student (image alone), assembled from the modules of each section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from model.avadclip.branches import ClassificationBranch, align
from model.avadclip.distillation import VARIANCE_HEADS, Enhancement, VarianceHead
from model.avadclip.fusion import FUSIONS
from model.avadclip.prompt import GLOBAL_WEIGHTS, PROMPT_WEIGHTS, TextPrompt, VideoPrompt
from model.avadclip.temporal import AUDIO_DELAYS, TemporalConvolution, TemporalModel
from model.avadclip.text import TextTower
from model.ief_vad import PADDINGS, ConfigError, check_choices
from model.losses import valid_mask
from model.uncertainty import full_precision

# options of network and objective in which paper and released code differ, and what this code does by default
PROFILES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "paper": {
            "prompt_weights": "classes", "global_weights": "probability", "padding": "masked",
            "enhancement_layers": 1, "variance_head": "plain", "distill": "nll", "lambda_distill": 1.0,
            "lambda_text": 0.0,
        },
        "released": {
            "prompt_weights": "uniform", "global_weights": "logit", "padding": "attended",
            "enhancement_layers": 3, "variance_head": "released", "distill": "released", "lambda_distill": 1e-8,
            "lambda_text": 1e-4,
        },
        "default": {
            "prompt_weights": "uniform", "global_weights": "probability", "padding": "masked",
            "enhancement_layers": 3, "variance_head": "none", "distill": "mse", "lambda_distill": 1.0,
            "lambda_text": 1e-4,
        },
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AVadCLIPConfig:
    """All options that affect the network's output."""

    classes: tuple[str, ...]  # texts of the C prompts, the first for normal videos
    student: bool = False  # image alone
    embed_dim: int = 512  # D, 512 for CLIP ViT-B/16 and Wav2CLIP
    max_length: int = 256  # longest window, in steps
    num_layers: int = 0  # of the local transformer; 0: as released, 2 for the teacher and 1 for the student
    local_window: int = 0  # steps in a block of local attention; 0: as released, 4 and 64
    num_heads: int = 1  # of the local transformer
    fusion: str = "adaptive"  # a key of `FUSIONS`; unused by the student
    prompt_weights: str = "uniform"  # see `VideoPrompt`
    global_weights: str = "probability"  # see `VideoPrompt`
    padding: str = "masked"  # "masked": no influence on valid steps and on the losses
    audio_delay: str = "causal"  # see `TemporalConvolution`; unused by the student
    enhancement_layers: int = 3  # of the student
    variance_head: str = "none"  # of the student, see `VarianceHead`; only the likelihoods need one

    def __post_init__(self) -> None:
        check_choices(
            self,
            {
                "fusion": FUSIONS,
                "prompt_weights": PROMPT_WEIGHTS,
                "global_weights": GLOBAL_WEIGHTS,
                "padding": PADDINGS,
                "audio_delay": AUDIO_DELAYS,
                "variance_head": VARIANCE_HEADS,
            },
        )
        for name, minimum in (
            ("max_length", 1), ("num_layers", 0), ("local_window", 0), ("num_heads", 1), ("enhancement_layers", 0)
        ):  # fmt: skip
            if (value := getattr(self, name)) < minimum:
                raise ConfigError(f"{name} must be {minimum} or more, but is {value}")
        if self.embed_dim < 1 or self.embed_dim % 2 or self.embed_dim % self.num_heads:
            raise ConfigError(f"embed_dim must be divisible by 2 and by {self.num_heads} heads, not {self.embed_dim}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"classes must be two or more different texts, not {self.classes}")

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that the network takes, in the order of `model.STREAMS`."""
        return ("image",) if self.student else ("image", "audio")

    def width_of(self, stream: str) -> int:
        """Return the width of a stream's embeddings, which is D."""
        return self.embed_dim

    @property
    def layers(self) -> int:
        """Layers of the local transformer."""
        return self.num_layers or (1 if self.student else 2)

    @property
    def block(self) -> int:
        """Steps in a block of local attention."""
        return self.local_window or (64 if self.student else 4)


@dataclass(frozen=True)
class AVadCLIPOutput:
    """Output for a batch of windows."""

    logits: Tensor  # (B, T, 1) classification branch, before the sigmoid
    class_logits: Tensor  # (B, T, C) alignment branch, before the softmax
    features: Tensor  # (B, T, D) F of the teacher, F_s of the student
    theta: Tensor | None  # (B, T, D) of the student with a variance head
    gate: Tensor | None  # (B, T, D) W of the teacher with adaptive fusion
    text: Tensor  # (C, D) X_c, the text embeddings
    prompted: Tensor  # (B, C, D) X_c with the prompt
    class_embeddings: Tensor  # (B, C, D) those compared with the features
    alpha: Tensor  # (C,) weights of the focal loss


class AVadCLIP(nn.Module):
    """Video anomaly detection from image and audio with prompts (arXiv 2504.04495).

    The student has the same interface, uses images alone, and learns from the teacher's features.
    """

    def __init__(self, text: TextTower | None, **config: object) -> None:
        """Build the network; keyword arguments are the fields of `AVadCLIPConfig`.

        text: the frozen tower with the words of the classes. Only training needs it: without, the text embeddings
        are those in the loaded weights. Raises ConfigError for an invalid field and a tower of another size.
        """
        super().__init__()
        self.config = c = AVadCLIPConfig(**config)
        if text is not None and text.words.shape[::2] != (len(c.classes), c.embed_dim):
            C, D = text.words.shape[::2]
            raise ConfigError(f"the text tower has {C} classes and width {D}, not {len(c.classes)} and {c.embed_dim}")
        self.tower = text
        self.register_buffer("text_embedding", torch.full((len(c.classes), c.embed_dim), math.nan))  # X_c
        width = {"embed_dim": c.embed_dim}
        self.temporal = TemporalModel(
            **width, max_length=c.max_length, num_layers=c.layers, num_heads=c.num_heads, local_window=c.block
        )
        if c.student:
            self.enhancement = Enhancement(**width, num_layers=c.enhancement_layers)
            self.variance = None if c.variance_head == "none" else VarianceHead(**width, kind=c.variance_head)
        else:
            self.audio = TemporalConvolution(**width, audio_delay=c.audio_delay)
            self.fusion = FUSIONS[c.fusion](**width, num_heads=c.num_heads)
        self.classifier = ClassificationBranch(**width)
        self.text_prompt = TextPrompt(**width)
        self.prompt = VideoPrompt(**width, prompt_weights=c.prompt_weights, global_weights=c.global_weights)
        self.alpha = nn.Parameter(torch.full((len(c.classes),), 0.25))

    def forward(
        self, image: Tensor, audio: Tensor | None = None, lengths: Tensor | None = None
    ) -> AVadCLIPOutput:
        """Score a batch of windows.

        image, audio: (B, T, D) embeddings; the student ignores audio. lengths: (B,) number of valid steps of each
        window; None means that all T are valid. Raises ValueError for embeddings of another shape, and in training
        without a text tower.
        """
        c, image = self.config, self._validate("image", image)
        B, T, _ = image.shape
        lengths = torch.full((B,), T, device=image.device) if lengths is None else lengths.to(image.device).clamp(min=1)
        # fmt: off
        valid = valid_mask(image[..., 0], lengths)                              # (B, T)
        used = valid if c.padding == "masked" else torch.ones_like(valid)       # (B, T)
        video, theta, gate = self.temporal(image, valid, used), None, None      # (B, T, D)
        if c.student:
            features = self.enhancement(video, used)                            # (B, T, D)
            theta = None if self.variance is None else self.variance(video, used)
        else:
            sound = self.audio(self._validate("audio", audio, (B, T)), used)    # (B, T, D)
            features, gate = self.fusion(video, sound, used)                    # (B, T, D) each
        # in full precision, also under autocast: cosines are divided by a small temperature
        with torch.autocast(image.device.type, enabled=False):
            features = full_precision(features)
            logits = self.classifier(features)                                  # (B, T, 1)
            text = self.embed_text()                                            # (C, D)
            prompted, classes = self.prompt(text, features, logits, used)       # (B, C, D) each
            class_logits = align(features, classes)                             # (B, T, C)
        # fmt: on
        return AVadCLIPOutput(
            logits=logits,
            class_logits=class_logits,
            features=features,
            theta=theta,
            gate=gate,
            text=text,
            prompted=prompted,
            class_embeddings=classes,
            alpha=self.alpha,
        )

    def embed_text(self) -> Tensor:
        """Return the text embeddings X_c (C, D): those of the tower, or without it the stored ones."""
        if self.tower is not None:
            return self.text_prompt(self.tower)
        if self.training:
            raise ValueError("training needs the text tower of CLIP, but the network was built without it")
        return self.text_embedding

    def _validate(self, name: str, x: Tensor | None, steps: tuple[int, int] | None = None) -> Tensor:
        """Check the shape; convert float16 embeddings here, after their copy to the GPU."""
        c, shape = self.config, None if x is None else tuple(x.shape)
        if shape is None or len(shape) != 3 or shape[2] != c.embed_dim or (steps and shape[:2] != steps):
            B, T = steps or ("B", "T")
            raise ValueError(f"{name} embeddings must have shape ({B}, {T}, {c.embed_dim}), not {shape}")
        if shape[1] > c.max_length:
            raise ValueError(f"a window has {shape[1]} steps, more than the {c.max_length} of the network")
        return x.to(self.alpha.dtype)
