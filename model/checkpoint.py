"""Checkpoints: released state_dicts, the authors' files, files of this code, and pretrained folders.

A pretrained folder has the layout of the Hugging Face hub: model.safetensors, config.json and
README.md, the model card. config.json holds everything of a checkpoint except weights and training
state. Tuples become lists. JSON has no NaN: it is written as {"__float__": "nan"}.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from model.ief_vad import IEFVAD, MODALITIES, ConfigError, IEFVADConfig

FORMAT = "ief-vad 1"
FORMS = ((FORMAT, "ours"), (None, "released"))  # format and form of a pretrained folder
TRAINING_STATE = ("rows", "progress", "optimizer")  # not in a pretrained folder
PROCESS_NOISE = "temporal_update.raw_process_noise"  # the only tensor that released files lack
# options of the released code, whose files store only weights
RELEASED_OPTIONS = {"temporal_update": "none", "padding": "attended", "epsilon_placement": "sum"}
# prefix of a tensor's name in a released file → prefix in this code
_RELEASED_PREFIXES = {
    **{f"temporal.{m}_attn_layers.": f"{m}_encoder.attentions." for m in ("image", "event")},
    **{f"temporal.{m}_norms.": f"{m}_encoder.norms." for m in ("image", "event")},
    **{f"temporal.whiten_{m}.": f"{m}_encoder.whitening." for m in ("image", "event")},
    **{f"temporal.{m}_mu.": f"{m}_head.mean." for m in ("image", "event")},
    **{f"temporal.{m}_logvar.": f"{m}_head.log_variance." for m in ("image", "event")},
    "temporal.refinement_blocks.": "refinement.blocks.",
    "temporal.classifier.": "classifier.",
}


class CheckpointError(ValueError):
    """Raised for an unusable checkpoint; the message gives file and reason."""


def from_released_name(name: str) -> str:
    """Translate a tensor name of a released file to this code's; leave unknown names unchanged."""
    return replace_prefix(name, _RELEASED_PREFIXES)


def to_released_name(name: str) -> str:
    """Translate a tensor name of this code to a released file's; leave other names unchanged."""
    return replace_prefix(name, {ours: released for released, ours in _RELEASED_PREFIXES.items()})


def replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    """Return the name with its prefix, a key of `prefixes`, replaced by the value; leave other names unchanged."""
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a checkpoint of any of the three formats, or a pretrained folder, as one dictionary.

    `model` holds the weights under this code's names, `config` the fields of `IEFVADConfig`, `form`
    is "ours" or "released". A released file's config comes from its shapes and `RELEASED_OPTIONS`.
    Raises CheckpointError for any other file or folder.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else parse_checkpoint(load_file(path), path)


def parse_checkpoint(content: Mapping[str, object], path: str | Path) -> dict[str, object]:
    """Return what `read_checkpoint` does, from the content of a file."""
    if content.get("format") == FORMAT and {"config", "model"} <= content.keys():
        return {**content, "form": "ours"}
    state = content.get("model_state_dict", content)
    if not is_state_dict(state):
        raise CheckpointError(
            f"{path} contains no weights of this model. It is neither a state_dict, nor a "
            f"dictionary with 'model_state_dict', nor a checkpoint of this code."
        )
    if all(name.startswith("module.") for name in state):  # saved from (Distributed)DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    model = {from_released_name(name): tensor for name, tensor in state.items()}
    metadata = {k: content[k] for k in ("epoch", "ap") if state is not content and k in content}
    return {"form": "released", "model": model, "config": _infer_config(model, path), **metadata}


def is_state_dict(content: object) -> bool:
    """Return whether `content` is a non-empty mapping from names to tensors."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def load_checkpoint(path: str | Path, **overrides: object) -> IEFVAD:
    """Load a model in eval mode on the CPU; see `read_checkpoint` and `build_model`."""
    return build_model(read_checkpoint(path), path, **overrides)


def build_model(content: Mapping[str, object], path: str | Path, **overrides: object) -> IEFVAD:
    """Build the model, in eval mode, from the result of `read_checkpoint(path)`.

    overrides: fields of `IEFVADConfig` that replace those of the file. `modality` selects some of its
    streams. Raises CheckpointError for an unknown field, an invalid value, and a missing, unexpected or
    misshapen tensor.
    """
    names = {field.name for field in fields(IEFVADConfig)}
    if unknown := set(overrides) - names:
        raise CheckpointError(
            f"unknown options {', '.join(sorted(unknown))}; choose from {', '.join(sorted(names))}"
        )
    try:
        model = IEFVAD(**{**content["config"], **overrides})
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    state = dict(content["model"])
    trained = MODALITIES[content["config"].get("modality", "fusion")]
    unused = tuple(f"{name}_" for name in trained if name not in model.config.streams)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    if model.config.temporal_update != "kalman":
        state.pop(PROCESS_NOISE, None)
    _check_tensors(content, state, model, path)
    model.load_state_dict(state)
    return model.eval()


def from_pretrained(name_or_path: str | Path, **overrides: object) -> IEFVAD:
    """Load a model in eval mode on the CPU from a pretrained folder, here or on the Hugging Face hub.

    name_or_path: a folder, any other checkpoint, or a name on the hub such as "user/ief-vad-xd", which
    is downloaded once. overrides: see `build_model`. Raises CheckpointError.
    """
    path = Path(name_or_path)
    return load_checkpoint(path if path.exists() else _download(str(name_or_path)), **overrides)


# in the class itself, the import of this module would be a cycle
IEFVAD.from_pretrained = staticmethod(from_pretrained)


def save_checkpoint(path: str | Path, model: IEFVAD, **extra: object) -> None:
    """Write weights, config and `extra` (plain values and tensors) to `path` atomically.

    Raises CheckpointError if the disk is full or the file cannot be written.
    """
    weights, config = model.state_dict(), asdict(model.config)
    with atomic_write(Path(path)) as part:
        torch.save({"format": FORMAT, "config": config, "model": weights, **extra}, part)


def save_pretrained(folder: Path, content: Mapping[str, object], card: str) -> None:
    """Write the result of `read_checkpoint` as a pretrained folder, whose README.md is `card`.

    Other files in the folder stay. config.json is written last and removed first, so that no
    interruption leaves a mixture of two models. Raises CheckpointError if `content` has other than
    plain values, or a file cannot be written.
    """
    safetensors = _safetensors(folder)
    kept = {k: v for k, v in content.items() if k not in ("model", *TRAINING_STATE)}
    try:
        config = json.dumps(_to_json(kept), indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be written ({error})") from None
    tensors = {name: tensor.clone().contiguous() for name, tensor in content["model"].items()}
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    with (
        atomic_write(folder / "config.json") as config_part,
        atomic_write(folder / "README.md") as card_part,
        atomic_write(folder / "model.safetensors") as weights_part,
    ):
        weights_part.write_bytes(weights)
        card_part.write_text(card, encoding="utf-8")
        config_part.write_text(config, encoding="utf-8")
        (folder / "config.json").unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` after the block, or removed if it fails.

    Raises CheckpointError if the disk is full or the file cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a full disk
        raise CheckpointError(
            f"{path} cannot be written ({_reason(error)}). Free some space or use another folder."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _read_folder(folder: Path) -> dict[str, object]:
    """Read a pretrained folder, see `read_checkpoint`."""
    again = "Download it again, or write it with test.py --export."
    safetensors = _safetensors(folder)
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
        content = json.loads(text, object_hook=_from_json)
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        name = Path(error.filename or "model.safetensors").name
        raise CheckpointError(f"{folder} is no pretrained model: it has no {name}. {again}") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} cannot be read ({_reason(error)}). {again}"
        ) from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} cannot be read ({_reason(error)}). {again}"
        ) from None
    ours = isinstance(content, dict) and isinstance(content.get("config"), dict)
    if not ours or (content.get("format"), content.get("form")) not in FORMS:
        raise CheckpointError(f"{folder / 'config.json'} does not describe a model of this code. {again}")
    return {**content, "model": tensors}


def _safetensors(folder: Path) -> ModuleType:
    """Return the package `safetensors`; raise CheckpointError if it is not installed."""
    try:
        import safetensors.torch
    except ImportError:
        raise CheckpointError(
            f"{folder} needs the package safetensors. Install it with pip install safetensors."
        ) from None
    return safetensors


def _download(name: str) -> Path:
    """Return the local folder of a pretrained model on the Hugging Face hub."""
    advice = "Check the name and the network, or give a folder or a .pth file."
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except ImportError:
        raise CheckpointError(
            f"{name} is no folder here. To download it, pip install huggingface_hub."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} is no folder here and cannot be downloaded ({_reason(error)}). {advice}"
        ) from None


def _to_json(value: object) -> object:
    """Return plain values with only those types that JSON has; raise TypeError for other values."""
    match value:
        case float() if not math.isfinite(value):
            return {"__float__": str(float(value))}
        case list() | tuple():
            return [_to_json(v) for v in value]
        case Mapping():
            if names := [k for k in value if not isinstance(k, str)]:
                raise TypeError(f"the key {names[0]!r} is not text")
            return {k: _to_json(v) for k, v in value.items()}
    return value


def _from_json(value: dict[str, object]) -> object:
    """Undo `_to_json` for an object whose members are already undone."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def load_file(path: Path) -> Mapping[str, object]:
    """Load a file that contains only tensors and plain values; other pickled data is refused."""
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}. Give the path of a .pth file or a pretrained folder."
        )
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}). Download or copy it again."
        ) from None
    if not isinstance(content, Mapping):
        name = type(content).__name__
        raise CheckpointError(f"{path} contains a {name} instead of a dictionary of weights")
    return content


def _reason(error: Exception) -> str:
    """Return the first line of an error message, without the path, at most 160 characters."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def _numpy_scalars() -> list[object]:
    """Return the types needed to load the score in the authors' files, which is a NumPy scalar."""
    scalar = np.float64(0).__reduce__()[0]
    # the names in files written with NumPy 1 and 2
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(dtype)) for dtype in (np.float64, np.float32, np.int64)]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]


def _infer_config(model: Mapping[str, Tensor], path: Path) -> dict[str, object]:
    """Infer width, layers and refinement steps from the tensors; heads, ν, λ_ref are not stored."""
    classifier = model.get("classifier.weight")
    if classifier is None or classifier.dim() != 2:
        raise CheckpointError(
            f"{path} contains no weights of this model: 'temporal.classifier.weight' is missing"
        )

    def count(pattern: str) -> int:
        indices = [int(match.group(1)) for name in model if (match := re.match(pattern, name))]
        return max(indices, default=-1) + 1

    return {
        "embed_dim": classifier.shape[1],
        "num_layers": count(r"(?:image|event)_encoder\.norms\.(\d+)\."),
        "num_refinement_steps": count(r"refinement\.blocks\.(\d+)\."),
        **RELEASED_OPTIONS,
    }


def _check_tensors(
    content: Mapping[str, object], state: Mapping[str, Tensor], model: IEFVAD, path: str | Path
) -> None:
    """Raise CheckpointError that names the first missing, unexpected or misshapen tensor."""
    display_name = to_released_name if content["form"] == "released" else str
    c, expected = model.config, {name: x.shape for name, x in model.state_dict().items()}
    if PROCESS_NOISE in expected and PROCESS_NOISE not in state:
        raise CheckpointError(
            f"{path}: tensor {PROCESS_NOISE!r} is missing, because the model was trained without a "
            f"learned process noise. Evaluate it with temporal_update 'none' or 'paper'."
        )
    shapes = {name: x.shape for name, x in state.items() if name in expected}
    for problem, names in (
        ("is missing", expected.keys() - state.keys()),
        ("is unexpected", state.keys() - expected.keys()),
        ("has shape", {name for name, shape in shapes.items() if shape != expected[name]}),
    ):
        if names:
            name = min(names)
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            if problem == "has shape":
                problem += f" {tuple(shapes[name])} instead of {tuple(expected[name])}"
            raise CheckpointError(
                f"{path}: tensor {display_name(name)!r} {problem}{more}. Expected a {c.modality} "
                f"model with width {c.embed_dim}, {c.num_layers} layers and "
                f"{c.num_refinement_steps} refinement steps."
            )
