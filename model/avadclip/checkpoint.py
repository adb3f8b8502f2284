"""Checkpoints of AVadCLIP: the released files, which contain a whole CLIP, and those of this code, which do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from model.avadclip.avadclip import PROFILES, AVadCLIP, AVadCLIPConfig
from model.avadclip.prompt import TextPrompt
from model.avadclip.text import PLACES, TextTower
from model.checkpoint import CheckpointError, atomic_write, is_state_dict, load_file, replace_prefix
from model.ief_vad import ConfigError

FORMAT = "avadclip 1"
MARK = "text_prompt_embeddings.weight"  # a tensor that only files of AVadCLIP have
CLIP = "clipmodel."  # prefix of the frozen CLIP in a released file
# prompts of the released files and their numbers in CLIP's vocabulary
RELEASED_CLASSES: Mapping[str, tuple[int, ...]] = {
    "normal": (5967,), "fighting": (4652,), "shooting": (3992,), "riot": (14218,), "abuse": (7678,),
    "car accident": (1615, 6608), "explosion": (13785,),
}  # fmt: skip
START, END = 49406, 49407  # CLIP's tokens at the start and the end of a text
WEIGHT_NORM = {"bias": "bias", "weight_g": "parametrizations.weight.original0",
               "weight_v": "parametrizations.weight.original1"}  # fmt: skip
# prefix of a tensor's name in a released file → prefix in this code
RELEASED_PREFIXES: Mapping[str, str] = {
    "frame_position_embeddings.weight": "temporal.positions",
    "temporal.resblocks.": "temporal.blocks.",
    "gc1.weight": "temporal.similarity.first",
    "gc1.residual.": "temporal.similarity.conv.",
    "gc2.weight": "temporal.similarity.second",
    "gc3.weight": "temporal.distance.first",
    "gc3.residual.": "temporal.distance.conv.",
    "gc4.weight": "temporal.distance.second",
    "linear.": "temporal.linear.",
    "temporalgatedresidual.gate_proj.0.": "fusion.gate.",
    "temporalgatedresidual.residual_proj.": "fusion.residual.",
    "mlp1.": "prompt.feed_forward.",
    "mlp2.": "classifier.feed_forward.",
    "classifier.": "classifier.linear.",
    "text_prompt_embeddings.weight": "text_prompt.places",
    **{f"fe_net.conv.{i}.conv.0.": f"enhancement.convs.{i}." for i in range(3)},
    **{f"fe_net.theta.theta.{i}.": f"variance.convs.{k}." for k, i in enumerate((0, 2, 3))},
    **{
        f"temporalconvnet.network.{i}.conv{k + 1}.{released}": f"audio.blocks.{i}.{k}.{ours}"
        for i in range(3)
        for k in range(2)
        for released, ours in WEIGHT_NORM.items()
    },
}


def from_released_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a released state_dict under this code's names.

    The frozen CLIP, the second names of the temporal convolutions and the unused `disAdj.sigma` are left out.
    """
    unused = (CLIP, "disAdj.")
    return {
        replace_prefix(name, RELEASED_PREFIXES): tensor
        for name, tensor in state.items()
        if not name.startswith(unused) and ".net." not in name
    }


def read_avadclip(path: str | Path) -> dict[str, object]:
    """Read a checkpoint of this code or a released file, of teacher or student, as one dictionary.

    `model` holds the weights under this code's names, `config` the fields of `AVadCLIPConfig`, `form` is "ours" or
    "released". The text embeddings of a released file are computed with its CLIP. Raises CheckpointError.
    """
    return parse_avadclip(load_file(Path(path)), path)


def is_avadclip(content: Mapping[str, object]) -> bool:
    """Return whether the content of a file is that of AVadCLIP."""
    state = content.get("model_state_dict", content)
    return content.get("format") == FORMAT or any(str(name).endswith(MARK) for name in state)


def parse_avadclip(content: Mapping[str, object], path: str | Path) -> dict[str, object]:
    """Return what `read_avadclip` does, from the content of a file."""
    if content.get("format") == FORMAT and {"config", "model"} <= content.keys():
        return {**content, "form": "ours"}
    state = content.get("model_state_dict", content)
    if is_state_dict(state):  # names start with "module." if saved from DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    required = {"alpha", MARK, "frame_position_embeddings.weight"}
    if not is_state_dict(state) or not required <= state.keys():
        raise CheckpointError(f"{path} contains no weights of AVadCLIP, teacher or student.")
    if len(state["alpha"]) != len(RELEASED_CLASSES):
        raise CheckpointError(f"{path} has {len(state['alpha'])} classes. A released file has {len(RELEASED_CLASSES)}.")
    model = from_released_state(state)
    max_length, embed_dim = model["temporal.positions"].shape
    config = {
        "classes": tuple(RELEASED_CLASSES),
        "student": any(name.startswith("enhancement.") for name in model),
        "embed_dim": embed_dim,
        "max_length": max_length,
        "num_layers": len({name.split(".")[2] for name in model if name.startswith("temporal.blocks.")}),
        **{k: v for k, v in PROFILES["released"].items() if k in AVadCLIPConfig.__dataclass_fields__},
    }
    clip = {name.removeprefix(CLIP): tensor for name, tensor in state.items() if name.startswith(CLIP)}
    try:
        model["text_embedding"] = _embed_text(clip, model["text_prompt.places"])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    metadata = {k: content[k] for k in ("epoch", "ap") if k in content and "model_state_dict" in content}
    return {"form": "released", "model": model, "config": config, **metadata}


def build_avadclip(
    content: Mapping[str, object], path: str | Path, text: TextTower | None = None, **overrides: object
) -> AVadCLIP:
    """Build the network, in eval mode, from the result of `read_avadclip(path)`.

    text: the tower, for further training; overrides: fields of `AVadCLIPConfig` that replace those of the file.
    Raises CheckpointError for an invalid field, and for a missing, unexpected or misshapen tensor.
    """
    try:
        model = AVadCLIP(text, **{**content["config"], **overrides})
        model.load_state_dict(content["model"])
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    except RuntimeError as error:  # its first line names the class, the second the tensors
        raise CheckpointError(f"{path} does not fit the network. {str(error).splitlines()[1].strip()[:160]}") from None
    return model.eval()


def load_avadclip(path: str | Path, text: TextTower | None = None, **overrides: object) -> AVadCLIP:
    """Load teacher or student in eval mode on the CPU; see `read_avadclip` and `build_avadclip`."""
    return build_avadclip(read_avadclip(path), path, text, **overrides)


def save_avadclip(path: str | Path, model: AVadCLIP, **extra: object) -> None:
    """Write weights, config and `extra` (plain values and tensors) to `path` atomically.

    The frozen text tower is left out; its text embeddings are stored. Raises CheckpointError if the disk is full or
    the file cannot be written.
    """
    if model.tower is not None:
        with torch.no_grad():
            model.text_embedding.copy_(model.embed_text())
    content = {"format": FORMAT, "config": asdict(model.config), "model": model.state_dict(), **extra}
    with atomic_write(Path(path)) as part:
        torch.save(content, part)


def _embed_text(clip: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """Return the text embeddings (7, D) of the released prompts with the learned places (77, D)."""
    tokens = torch.zeros(len(RELEASED_CLASSES), PLACES, dtype=torch.long)
    for row, words in zip(tokens, RELEASED_CLASSES.values(), strict=True):
        row[: len(words) + 2] = torch.tensor([START, *words, END])
    prompt = TextPrompt(embed_dim=places.shape[1])
    with torch.no_grad():
        prompt.places.copy_(places)
        return prompt(TextTower.from_clip(clip, tokens))
