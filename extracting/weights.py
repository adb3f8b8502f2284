"""Where the weights of a CLIP image tower come from: every form of checkpoint becomes one set of OpenAI names."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vad.errors import InputError

UNTRAINED = "untrained"  # as --clip_ckpt takes it
EVENT_PREFIX = "encoder_k."
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"
)
EVENT_URL = "https://huggingface.co/Eavn/event-clip"


def read_checkpoint(path: Path) -> Any:
    """Content of a checkpoint file: a torch file, a TorchScript archive (OpenAI's ViT-L-14.pt) or safetensors.

    Raises InputError if it is none of them. Nothing in the file is executed: torch files load with weights_only,
    of a TorchScript archive only the tensors are taken.
    """
    if not path.is_file():
        raise InputError(f"--clip_ckpt {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            return torch.jit.load(path, map_location="cpu").state_dict()
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"--clip_ckpt {path}: is not a checkpoint that loads safely ({first_line[:160]})") from None
    except Exception as error:
        # safetensors raises a class of its own for a damaged file; everything else is a bug and keeps its traceback
        if path.suffix != ".safetensors":
            raise
        raise InputError(f"--clip_ckpt {path}: is not a safetensors file ({error})") from None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def tower_weights(content: Any, modality: str, source: str) -> dict[str, Tensor]:
    """Tensors of the image tower under their OpenAI names without `visual.`, float32.

    modality: "event" takes the `encoder_k.` tensors of an event checkpoint, whatever else it holds; "image" takes
    the image tower of a whole CLIP, or a file that is only that tower. source names the file in refusals.
    Raises InputError if the checkpoint is of the other kind or holds no image tower.
    """
    if isinstance(content, Mapping):
        for wrapper in ("checkpoint", "state_dict", "model"):
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{source}: holds no named tensors; a CLIP or event checkpoint is needed")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items()}
    is_event = any(name.startswith(EVENT_PREFIX) for name in tensors)
    if modality == "event" and not is_event:
        raise InputError(
            f"{source}: has no '{EVENT_PREFIX}' tensors, so it is not the event checkpoint, which event embeddings"
            f" need; get it from {EVENT_URL}"
        )
    if modality == "image" and is_event:
        raise InputError(
            f"{source}: is an event checkpoint ('{EVENT_PREFIX}' tensors); image embeddings need CLIP's own weights"
        )
    if is_event:
        tensors = _below(tensors, EVENT_PREFIX)
    if any(name.startswith("visual.") for name in tensors):
        tensors = _below(tensors, "visual.")
    no_tensor = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if no_tensor:
        raise InputError(f"{source}: '{no_tensor[0]}' is not a tensor")
    return {name: value.detach().float() for name, value in tensors.items()}


def _below(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """First 16 hexadecimal digits of the SHA-256 over names and float32 values: equal for every form of a file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
