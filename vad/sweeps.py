"""What --sweep asks for: names and values checked, then the cells of the grid, each with the flags that make it."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from vad.data import MODALITIES
from vad.errors import InputError
from vad.profile import PROFILES
from vad.settings import RECIPE_FLAGS, SWITCHES, Settings, resolve

SHORT = MappingProxyType({"N": "num_refinement_steps"})  # as the paper writes it
LOSS = "loss"  # Table 5's column: which terms of the loss are used
LOSS_TERMS = MappingProxyType({"reg": "lambda_reg", "kl": "lambda_kl"})  # term → the weight that is 0 without it
_CHOICES = MappingProxyType({"modality": MODALITIES, "profile": tuple(PROFILES)})

Check = Callable[[Settings, str], object]  # (settings, modality): raises where the network cannot be built from them


@dataclass(frozen=True)
class Value:
    """One value of a sweep: how it is written, and the flags that set it."""

    label: str
    flags: Mapping[str, object]


@dataclass(frozen=True)
class Cell:
    """One combination of swept values, trained with every seed."""

    labels: Mapping[str, str]  # sweep → value, in the order of the --sweep flags
    flags: Mapping[str, object]  # those that change something, under the names of the parsed arguments
    suffix: str  # what the runs' name says about the cell; empty for the settings without any sweep
    settings: Settings
    modality: str


def shown(name: str) -> str:
    """A sweep's name as the paper writes it, where it has one."""
    return next((short for short, full in SHORT.items() if full == name), name)


def known_names() -> str:
    """Every name that --sweep takes, for messages and help."""
    short = {name: f"{name} ({key})" for key, name in SHORT.items()}
    names = (*_CHOICES, LOSS, *SWITCHES, *RECIPE_FLAGS)
    return ", ".join(short.get(name, name) for name in names)


def parse_sweeps(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Sweeps by full name from `nu=2,4,6`, `N=0,10`, `loss=cls,cls+kl`, `modality=image,fusion`.

    Raises InputError for a text without `=`, an unknown name (the known ones are listed), a name given twice, two
    sweeps that set one flag, a value that does not fit or stands twice.
    """
    sweeps: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        given, equals, values = text.partition("=")
        name = SHORT.get(given.strip(), given.strip())
        if not equals or not values.strip():
            raise InputError(f"--sweep takes name=value,value,… like nu=2,4,6; got {text!r}")
        if name not in (*_CHOICES, LOSS, *SWITCHES, *RECIPE_FLAGS):
            raise InputError(f"--sweep {given}: unknown name; known are {known_names()}")
        if name in sweeps:
            raise InputError(f"--sweep {name} is given twice; put all its values in one")
        sweeps[name] = _values(name, [value.strip() for value in values.split(",")])
    setters: dict[str, str] = {}
    for name, values in sweeps.items():
        for flag in {flag for value in values for flag in value.flags}:
            if flag in setters:
                raise InputError(f"--sweep {setters[flag]} and --sweep {name} both set {flag}; sweep one of them")
            setters[flag] = name
    return sweeps


def cells(args: argparse.Namespace, sweeps: Mapping[str, Sequence[Value]], check: Check | None = None) -> list[Cell]:
    """The grid, last sweep fastest; one cell without flags where nothing is swept.

    args: the parsed flags that all cells share. check: called for every cell, so that a value the network refuses
    is found before anything is trained. Raises InputError as `resolve`.
    """
    grid = []
    for combination in itertools.product(*sweeps.values()):
        chosen = dict(zip(sweeps, combination, strict=True))
        effective = _effective(args, chosen)
        flags = {flag: value for name in effective for flag, value in chosen[name].flags.items()}
        settings, modality = _resolved(args, flags)
        if check:
            check(settings, modality)
        parts = [_part(name, chosen[name].label) for name in effective]
        suffix = "".join("_" + re.sub(r"[^\w.+=-]", "-", part) for part in parts)
        labels = {name: value.label for name, value in chosen.items()}
        grid.append(Cell(labels, flags, suffix, settings, modality))
    return grid


def _part(name: str, label: str) -> str:
    """A value in a run's name. `image` and `gaussian` speak for themselves, and test.py --table looks for them so."""
    return label.lower() if name in ("modality", "noise_model") else f"{shown(name)}={label}"


def _effective(args: argparse.Namespace, chosen: Mapping[str, Value]) -> list[str]:
    """The sweeps whose value changes anything: nu=8 is what is used anyway, and so its run is the run without it."""
    kept = list(chosen)
    for name in chosen:
        without = [other for other in kept if other != name]
        if _identity(args, [chosen[n] for n in kept]) == _identity(args, [chosen[n] for n in without]):
            kept = without
    return kept


def _identity(args: argparse.Namespace, values: Sequence[Value]) -> tuple[dict[str, object], str]:
    settings, modality = _resolved(args, {flag: v for value in values for flag, v in value.flags.items()})
    return {**settings.as_dict(), "typed": None}, modality


def _resolved(args: argparse.Namespace, flags: Mapping[str, object]) -> tuple[Settings, str]:
    merged = argparse.Namespace(**{**vars(args), **flags})
    return resolve(merged), merged.modality


def _values(name: str, texts: Sequence[str]) -> tuple[Value, ...]:
    values = tuple(_loss(text) if name == LOSS else _value(name, text) for text in texts)
    for number, value in enumerate(values):
        if value.label in [other.label for other in values[:number]]:
            raise InputError(f"--sweep {name}: {value.label} stands twice")
    return values


def _value(name: str, text: str) -> Value:
    if name in _CHOICES:
        kind, choices = str, _CHOICES[name]
    elif name in SWITCHES:
        kind, choices, _ = SWITCHES[name]
    else:
        kind, choices = RECIPE_FLAGS[name][0], None
    try:
        # 4+8: a list of epochs, commas part the values of the sweep
        value = tuple(map(kind, text.split("+"))) if name == "scheduler_milestones" else kind(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        reason = error if isinstance(error, argparse.ArgumentTypeError) else f"no {kind.__name__}: {text!r}"
        raise InputError(f"--sweep {name}: {reason}") from None
    if choices and value not in choices:
        raise InputError(f"--sweep {name}: unknown value {text!r}; known are {', '.join(choices)}")
    label = f"{value:g}" if isinstance(value, float) else text
    return Value(label, MappingProxyType({name: value}))


def _loss(text: str) -> Value:
    terms = text.split("+")
    unknown = [term for term in terms if term not in ("cls", *LOSS_TERMS)]
    if unknown or "cls" not in terms or len(set(terms)) < len(terms):
        raise InputError(f"--sweep loss: {text!r} is none of cls, cls+reg, cls+kl, cls+kl+reg")
    label = "+".join(["cls", *(term for term in ("kl", "reg") if term in terms)])
    return Value(label, MappingProxyType({weight: 0.0 for term, weight in LOSS_TERMS.items() if term not in terms}))
