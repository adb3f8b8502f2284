"""Checkpoints opened for evaluation, with the settings that hold and what is to be said about them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vad.errors import InputError
from vad.profile import profile
from vad.settings import NETWORK_SWITCHES, Settings, model_fields, resolve

Read = Callable[[str], dict[str, Any]]
Build = Callable[..., torch.nn.Module]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened for evaluation: the model, the settings that hold, and what is to be said about them."""

    path: Path
    model: torch.nn.Module
    settings: Settings
    modality: str
    seed: int | None  # None where the file does not say
    weights: str  # a key of `vad.protocol.WEIGHTS`
    notes: tuple[str, ...]


def open_checkpoint(path: str, args: argparse.Namespace, read: Read, build: Build) -> Checkpoint:
    """Open a checkpoint with its own settings, the flags the user typed beating them.

    read, build: the model's own `read_checkpoint` and `build_model`. A released file, which holds weights alone, is
    taken with the profile `released`. --profile replaces all switches but those that the weights' shapes fix.
    """
    content = read(path)
    released = content["form"] == "released"
    saved = {"profile": "released"} if released else content.get("settings", {})
    settings = resolve(args, saved)
    overrides = model_fields(settings, settings.typed)
    if args.profile:
        shaped = {"num_layers", "num_refinement_steps"}
        overrides |= {k: v for k, v in model_fields(settings).items() if k not in shaped}
    if args.modality:
        overrides["modality"] = args.modality
    model = build(content, path, **overrides)
    there, here = saved.get("profile", "default"), settings.profile.name
    notes = [f"{path} was trained with profile {there} and is evaluated with profile {here}"] if there != here else []
    for name in (name for name in settings.typed if name in NETWORK_SWITCHES):
        before = saved.get("switches", {}).get(name, getattr(profile(there), name))
        if before != getattr(settings.profile, name):
            now = getattr(settings.profile, name)
            notes.append(f"{path} was trained with {name} {before} and is evaluated with {now}")
    if not released and saved.get("dataset") != settings.dataset.name:
        notes.append(f"{path} was trained on {saved.get('dataset')} and is evaluated on {settings.dataset.name}")
    weights = "released" if released else str(content.get("weights", "given"))
    return Checkpoint(
        Path(path), model, settings, model.config.modality, content.get("seed"), weights, tuple(notes)
    )


def open_checkpoints(
    paths: Sequence[str], args: argparse.Namespace, read: Read, build: Build, *, streams: bool = False
) -> list[Checkpoint]:
    """Every checkpoint as `open_checkpoint` has it; all of one data set, or InputError.

    streams: where all of them are fused models, add either stream taken out of each (Table 2 from one checkpoint).
    """
    opened = [open_checkpoint(path, args, read, build) for path in paths]
    sets = list(dict.fromkeys(checkpoint.settings.dataset.name for checkpoint in opened))
    if len(sets) > 1:
        raise InputError(f"these checkpoints were trained on {' and '.join(sets)}; give --dataset to say which to use")
    if not streams or args.modality or any(checkpoint.modality != "fusion" for checkpoint in opened):
        return opened
    note = (
        "The columns image and event are the two streams of the fused model, each without the other; "
        "main.py --modality image|event trains a stream alone"
    )
    for modality in ("image", "event"):
        alone = argparse.Namespace(**{**vars(args), "modality": modality})
        found = [open_checkpoint(path, alone, read, build) for path in paths]
        opened += [replace(checkpoint, notes=(*checkpoint.notes, note)) for checkpoint in found]
    return opened
