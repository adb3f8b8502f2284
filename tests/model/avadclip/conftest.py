"""Fixtures: parity cases of AVadCLIP with their weights, and small networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.avadclip import PROFILES, AVadCLIP, AVadCLIPConfig, TextTower
from model.avadclip.checkpoint import CLIP, from_released_state

FIELDS = AVadCLIPConfig.__dataclass_fields__


def profile(name: str) -> dict[str, object]:
    """Return the options of the network in a profile."""
    return {k: v for k, v in PROFILES[name].items() if k in FIELDS}


@dataclass(frozen=True)
class Case:
    """Inputs, weights under released names, and expected arrays of a parity case."""

    arrays: Mapping[str, np.ndarray]
    config: dict
    visual: Tensor
    audio: Tensor
    weights: dict[str, dict[str, Tensor]]  # role → released name → tensor

    @property
    def lengths(self) -> Tensor:
        return torch.from_numpy(self.arrays["lengths"])

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.arrays["labels"])

    def tower(self) -> TextTower:
        """Return the frozen text tower of teacher and student."""
        clip = {k.removeprefix(CLIP): v for k, v in self.weights["teacher"].items() if k.startswith(CLIP)}
        clip["token_embedding.weight"] = table = torch.zeros(49408, self.config["D"])
        table[torch.from_numpy(self.arrays["token_ids"])] = torch.from_numpy(self.arrays["token_rows"])
        return TextTower.from_clip(clip, torch.from_numpy(self.arrays["tokens"]), num_heads=self.config["text_heads"])

    def network(self, role: str, **options: object) -> AVadCLIP:
        """Return teacher or student with the released options, in eval mode."""
        c = self.config
        sizes = {"embed_dim": c["D"], "max_length": c["T"], "num_heads": c["heads"]}
        layers = {"num_layers": c[f"{role}_layers"], "local_window": c[f"{role}_window"]}
        model = AVadCLIP(
            self.tower(),
            classes=tuple(c["prompts"]),
            student=role == "student",
            **{**sizes, **layers, **profile("released"), **options},
        )
        state = from_released_state(self.weights[role])
        model.load_state_dict({**state, "text_embedding": model.text_embedding})
        return model.eval()


def rebuild_weights(shapes: Mapping[str, list[int]], seed: int, config: dict) -> dict[str, Tensor]:
    """Rebuild weights from their seed (see tests/golden/avadclip/README.md)."""
    rng, weights = np.random.RandomState(seed), {}
    for name in sorted(shapes):
        x = rng.standard_normal(shapes[name]).astype(np.float32)
        if name == "alpha":
            x = 0.25 + 0.05 * x
        elif name.endswith("weight_g"):
            x = 1 + 0.1 * x
        elif x.ndim == 1:
            x = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
        else:
            gain = config["text_gain" if name.startswith(CLIP) else "gain"]
            x *= np.float32(gain / np.sqrt(np.prod(x.shape[1:])))
        weights[name] = torch.from_numpy(x.astype(np.float32))
    return weights


def rebuild_inputs(config: dict) -> tuple[np.ndarray, np.ndarray]:
    """Rebuild image and audio embeddings from their seed."""
    rng, inputs = np.random.RandomState(config["input_seed"]), []
    B, T, D, segment = (config[k] for k in ("B", "T", "D", "segment"))
    for _ in range(2):
        base = rng.standard_normal((B, -(-T // segment), D)).astype(np.float32)
        e = rng.standard_normal((B, T, D)).astype(np.float32)
        x = np.repeat(base, segment, axis=1)[:, :T] + np.float32(config["noise"]) * e
        for row, length in zip(x, config["lengths"], strict=True):
            row[length:] = 0
        inputs.append(x)
    return inputs[0], inputs[1]


def load_case(arrays: Mapping[str, np.ndarray]) -> Case:
    """Read a parity case, with stored or rebuilt weights and inputs."""
    config = json.loads(str(arrays["config"]))
    if "visual" in arrays:
        weights = {
            role: {
                k.removeprefix(f"{role}/weight/"): torch.from_numpy(arrays[k])
                for k in arrays
                if k.startswith(f"{role}/weight/")
            }
            for role in ("teacher", "student")
        }
        visual, audio = arrays["visual"], arrays["audio"]
    else:
        shapes = {role: json.loads(str(arrays[f"shapes_{role}"])) for role in ("teacher", "student")}
        clip = {k: v for k, v in shapes["teacher"].items() if k.startswith(CLIP)}
        weights = {
            "teacher": rebuild_weights(shapes["teacher"], config["weight_seed"], config),
            "student": rebuild_weights({**shapes["student"], **clip}, config["weight_seed"] + 1, config),
        }
        visual, audio = rebuild_inputs(config)
    return Case(arrays, config, torch.from_numpy(visual), torch.from_numpy(audio), weights)


@pytest.fixture(scope="session")
def case(golden) -> Callable[[str], Case]:
    """Return a loader of the parity cases "small" and "full"."""
    return lambda name: load_case(dict(golden(f"avadclip/avadclip_{name}")))


@pytest.fixture(scope="session")
def layout() -> dict[str, dict[str, list[int]]]:
    """Return role → name → shape of the tensors in a released checkpoint."""
    path = Path(__file__).resolve().parents[2] / "golden" / "avadclip" / "avadclip_checkpoint_layout.json"
    return json.loads(path.read_text())


@pytest.fixture
def network() -> Callable[..., AVadCLIP]:
    """Return a builder of small networks with three classes and random weights, in eval mode."""

    def build(**options: object) -> AVadCLIP:
        torch.manual_seed(0)
        tokens = torch.zeros(3, 77, dtype=torch.long)
        for row, words in zip(tokens, ([5], [6], [7, 8]), strict=True):
            row[: len(words) + 2] = torch.tensor([49406, *words, 49407])
        tower = TextTower(tokens, width=16, num_layers=2, num_heads=2)
        config = {"classes": ("normal", "riot", "car accident"), "embed_dim": 16, "max_length": 40}
        return AVadCLIP(tower, **{**config, **options}).eval()

    return build
