"""Shared by the encoder tests: weights and images of the golden arrays, frames and checkpoints."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from extracting.video.crops import crop_slices


def golden_weights(arrays: np.lib.npyio.NpzFile) -> dict[str, Tensor]:
    """Return the weights of a clip_*.npz tower, see golden/README.md."""
    config, shapes = json.loads(str(arrays["config"])), json.loads(str(arrays["shapes"]))
    random = np.random.RandomState(config["weight_seed"])
    weights = {}
    for name in sorted(shapes):
        x = random.standard_normal(shapes[name]).astype(np.float32)
        if x.ndim >= 2:
            x *= np.float32(0.7 / np.sqrt(np.prod(x.shape[1:])))
        else:
            x = np.float32(0.1) * x
            x = 1 + x if name.endswith("weight") else x
        weights[name] = torch.from_numpy(x)
    return weights


def golden_inputs(arrays: np.lib.npyio.NpzFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the RGB images (n, 224, 224, 3) and clamped event counts (2, 224, 224) of a clip_*.npz."""
    config = json.loads(str(arrays["config"]))
    random = np.random.RandomState(config["input_seed"])
    images = random.randint(0, 256, (config["images"], 224, 224, 3)).astype(np.uint8)
    y, x = np.mgrid[:224, :224]
    images[1] = ((y + x) % 256)[..., None]
    counts = np.minimum(random.randint(0, 16, (2, 224, 224)), 10).astype(np.uint8)
    return images, counts


def at_crop_0(images: np.ndarray) -> Tensor:
    """Return frames (n, 256, 340, …) with the images (n, 224, 224, …) at crop 0 and 77 around them."""
    frames = np.full((len(images), 256, 340, *images.shape[3:]), 77, np.uint8)
    frames[:, *crop_slices(0)] = images
    return torch.from_numpy(frames)


def random_frames(n: int, length: int, seed: int = 0) -> Tensor:
    """Return random frames (n, length, 256, 340, 3) uint8."""
    pixels = np.random.RandomState(seed).randint(0, 256, (n, length, 256, 340, 3))
    return torch.from_numpy(pixels.astype(np.uint8))


def random_counts(n: int, seed: int = 0) -> Tensor:
    """Return random event counts (n, 256, 340) from 0 to 10."""
    counts = np.random.RandomState(seed).randint(0, 11, (n, 256, 340))
    return torch.from_numpy(counts.astype(np.uint8))


def clip_checkpoint(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP checkpoint: the image tower under `visual.`, and tensors of a text tower."""
    text = {"text_projection": torch.zeros(2), "transformer.resblocks.0.ln_1.bias": torch.ones(2)}
    return {**{f"visual.{name}": value for name, value in weights.items()}, **text}


def event_checkpoint(
    weights: dict[str, Tensor], prefix: str = ""
) -> dict[str, dict[str, Tensor]]:
    """Return an event checkpoint in the published format, including other keys."""
    tower = {f"encoder_k.{prefix}{name}": value for name, value in weights.items()}
    return {"checkpoint": {**tower, "encoder_q.proj": torch.zeros(3), "queue": torch.zeros(4)}}
