"""Checkpoints: released state_dicts, the authors' training files, and files of this code."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.ief_vad import IEFVAD, ConfigError, IEFVADConfig

FORMAT = "ief-vad 1"
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
    return _replace_prefix(name, _RELEASED_PREFIXES)


def to_released_name(name: str) -> str:
    """Translate a tensor name of this code to a released file's; leave other names unchanged."""
    return _replace_prefix(name, {ours: released for released, ours in _RELEASED_PREFIXES.items()})


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a checkpoint of any of the three formats as one dictionary.

    `model` holds the weights under this code's names, `config` the fields of `IEFVADConfig`, `form`
    is "ours" or "released". A released file's config comes from its shapes and `RELEASED_OPTIONS`.
    Raises CheckpointError for any other file.
    """
    path = Path(path)
    content = _load(path)
    if content.get("format") == FORMAT and {"config", "model"} <= content.keys():
        return {**content, "form": "ours"}
    state = content.get("model_state_dict", content)
    if not _is_state_dict(state):
        raise CheckpointError(
            f"{path} contains no weights of this model. It is neither a state_dict, nor a "
            f"dictionary with 'model_state_dict', nor a checkpoint of this code."
        )
    if all(name.startswith("module.") for name in state):  # saved from (Distributed)DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    model = {from_released_name(name): tensor for name, tensor in state.items()}
    metadata = {k: content[k] for k in ("epoch", "ap") if state is not content and k in content}
    return {"form": "released", "model": model, "config": _infer_config(model, path), **metadata}


def _is_state_dict(content: object) -> bool:
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

    overrides: fields of `IEFVADConfig` that replace those of the file. `modality="image"` or
    `"event"` selects one stream of a fusion checkpoint. Raises CheckpointError for an unknown
    field, an invalid value, and a missing, unexpected or misshapen tensor.
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
    modality = model.config.modality
    if content["config"].get("modality", "fusion") == "fusion" != modality:
        unused = "event_" if modality == "image" else "image_"
        state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    if model.config.temporal_update != "kalman":
        state.pop(PROCESS_NOISE, None)
    _check_tensors(content, state, model, path)
    model.load_state_dict(state)
    return model.eval()


def save_checkpoint(path: str | Path, model: IEFVAD, **extra: object) -> None:
    """Write weights, config and `extra` (plain values and tensors) to `path` atomically.

    Raises CheckpointError if the disk is full or the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights, config = model.state_dict(), asdict(model.config)
        torch.save({"format": FORMAT, "config": config, "model": weights, **extra}, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a full disk
        raise CheckpointError(
            f"{path} cannot be written ({_reason(error)}). Free some space or use another folder."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _load(path: Path) -> Mapping[str, object]:
    """Load a file that contains only tensors and plain values; other pickled data is refused."""
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}. Give the path of a .pth file with --ckpt_path."
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
