"""Weights in files: released state_dicts, the authors' training dictionaries, and our own."""

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
PROCESS_NOISE = "temporal_update.raw_process_noise"  # the one tensor released files do not have
# what the released code computes; its files hold weights alone
RELEASED_OPTIONS = {"temporal_update": "none", "padding": "attended", "epsilon_placement": "sum"}
# how a released file's names begin → how ours do
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
    """A checkpoint that cannot be used; the message names the file, the reason and the tensor."""


def from_released_name(name: str) -> str:
    """Our name of a tensor that a released file calls `name`; unknown names come back unchanged."""
    return _replace_prefix(name, _RELEASED_PREFIXES)


def to_released_name(name: str) -> str:
    """What a released file calls our tensor `name`; names it does not have come back unchanged."""
    return _replace_prefix(name, {ours: released for released, ours in _RELEASED_PREFIXES.items()})


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Content of any of the three forms as one dictionary.

    `model` holds the weights under our tensor names, `config` the fields of `IEFVADConfig`, `form`
    is "ours" or "released". A released file's config comes from its shapes and `RELEASED_OPTIONS`.
    Raises CheckpointError for a file of another form.
    """
    path = Path(path)
    content = _load(path)
    if content.get("format") == FORMAT and {"config", "model"} <= content.keys():
        return {**content, "form": "ours"}
    state = content.get("model_state_dict", content)
    if not _is_state_dict(state):
        raise CheckpointError(
            f"{path} holds no weights of this model: it is neither a state_dict, nor a dictionary "
            f"with 'model_state_dict', nor a file this code wrote"
        )
    if all(name.startswith("module.") for name in state):  # saved from (Distributed)DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    model = {from_released_name(name): tensor for name, tensor in state.items()}
    about = {k: content[k] for k in ("epoch", "ap") if state is not content and k in content}
    return {"form": "released", "model": model, "config": _infer_config(model, path), **about}


def _is_state_dict(content: object) -> bool:
    """Whether this is a mapping, not empty, from names to tensors."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def load_checkpoint(path: str | Path, **overrides: object) -> IEFVAD:
    """The model of a checkpoint, in eval mode on the CPU; see `read_checkpoint`, `build_model`."""
    return build_model(read_checkpoint(path), path, **overrides)


def build_model(content: Mapping[str, object], path: str | Path, **overrides: object) -> IEFVAD:
    """The model of what `read_checkpoint` returned for `path`.

    overrides: fields of `IEFVADConfig` that replace the file's. `modality="image"` or `"event"`
    takes that stream out of a fused checkpoint. Raises CheckpointError for an unknown field, an
    impossible value, and a missing, extra or misshapen tensor.
    """
    known = {field.name for field in fields(IEFVADConfig)}
    if unknown := set(overrides) - known:
        raise CheckpointError(
            f"unknown settings {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    try:
        model = IEFVAD(**{**content["config"], **overrides})
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    state = dict(content["model"])
    saved, wanted = content["config"].get("modality", "fusion"), model.config.modality
    if saved == "fusion" != wanted:
        dropped = "event_" if wanted == "image" else "image_"
        state = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    if model.config.temporal_update != "kalman":
        state.pop(PROCESS_NOISE, None)
    _check_tensors(content, state, model, path)
    model.load_state_dict(state)
    return model.eval()


def save_checkpoint(path: str | Path, model: IEFVAD, **extra: object) -> None:
    """Write weights, config and `extra` (plain values and tensors) to `path`, whole or not at all.

    Raises CheckpointError where the place cannot be written to or is full.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "format": FORMAT,
                "config": asdict(model.config),
                "model": model.state_dict(),
                **extra,
            },
            part,
        )
        os.replace(part, path)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch reports a full disk as a RuntimeError of its own
        raise CheckpointError(
            f"{path} cannot be written ({_reason(error)}); make room, or name another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _load(path: Path) -> Mapping[str, object]:
    """Unpickle tensors and plain values only."""
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}; give the path of a .pth file with --ckpt_path"
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
            f"{path} cannot be read as a checkpoint ({_reason(error)}); download or copy it again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dictionary of weights"
        )
    return content


def _reason(error: Exception) -> str:
    """The first line of an error, not too long, without the path that stands beside it."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def _numpy_scalars() -> list[object]:
    """Types of the score in the authors' files; numpy 1 and 2 pickle it under two names."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]


def _infer_config(model: Mapping[str, Tensor], path: Path) -> dict[str, object]:
    """Width, layers and refinement steps, from names and shapes; heads, ν, λ_ref do not show."""
    classifier = model.get("classifier.weight")
    if classifier is None or classifier.dim() != 2:
        raise CheckpointError(
            f"{path} holds no weights of this model: tensor 'temporal.classifier.weight' is missing"
        )

    def count(pattern: str) -> int:
        found = [int(match.group(1)) for name in model if (match := re.match(pattern, name))]
        return max(found, default=-1) + 1

    return {
        "embed_dim": classifier.shape[1],
        "num_layers": count(r"(?:image|event)_encoder\.norms\.(\d+)\."),
        "num_refinement_steps": count(r"refinement\.blocks\.(\d+)\."),
        **RELEASED_OPTIONS,
    }


def _check_tensors(
    content: Mapping[str, object], state: Mapping[str, Tensor], model: IEFVAD, path: str | Path
) -> None:
    """Raise CheckpointError naming the first missing, extra or misshapen tensor."""
    shown = to_released_name if content["form"] == "released" else str
    c, expected = model.config, {name: x.shape for name, x in model.state_dict().items()}
    if PROCESS_NOISE in expected and PROCESS_NOISE not in state:
        raise CheckpointError(
            f"{path}: tensor {PROCESS_NOISE!r} is missing: these weights were trained without a "
            f"learned process noise; evaluate them with temporal_update 'none' or 'paper'"
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
                f"{path}: tensor {shown(name)!r} {problem}{more}; expected a {c.modality} model "
                f"of width {c.embed_dim}, {c.num_layers} layers, "
                f"{c.num_refinement_steps} refinement steps"
            )
