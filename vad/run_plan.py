"""What --runs and --sweep ask for, as single runs: each with its name, its seed and the command that trains it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vad.errors import InputError
from vad.processes import Command
from vad.settings import SWITCHES
from vad.sweeps import Cell, Check, cells, known_names, parse_sweeps

OURS = ("runs", "sweep", "jobs", "compare", "format")  # flags that a single run does not have


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """--runs, --sweep, --jobs, --threads."""
    group = parser.add_argument_group("many runs", "each a process of its own; finished ones are not repeated")
    group.add_argument("--runs", type=int, help="train with this many seeds, <exp_name>_seed<k> each: mean ± std")
    text = f"name=value,value,…: train with each value; several sweeps make a grid. Names: {known_names()}"
    group.add_argument("--sweep", nargs="+", action="extend", metavar="NAME=VALUES", help=text)
    group.add_argument("--jobs", type=int, help="runs at a time (default: the cores on a CPU, 1 on a GPU)")
    text = "CPU threads of a run; of many runs 1 by default, so that numbers do not depend on --jobs"
    group.add_argument("--threads", type=int, help=text)


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a plan."""

    name: str  # of its files in the checkpoint folder
    cell: Cell
    seed: int
    command: Command


def check_run_flags(args: argparse.Namespace) -> None:
    """InputError for --runs, --sweep, --jobs or --threads that make no sense, before anything is opened."""
    for name in ("runs", "jobs", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} must be 1 or more; got {getattr(args, name)}")
    parse_sweeps(args.sweep or ())


def plan_runs(args: argparse.Namespace, exp_name: str, door: Path, check: Check | None = None) -> list[PlannedRun]:
    """Every run that --runs and --sweep ask for, seed by seed: an early stop leaves whole comparisons behind.

    Raises InputError for a value that does not go with the rest, before anything runs.
    """
    grid = cells(args, parse_sweeps(args.sweep or ()), check)
    folder = Path(args.checkpoint_dir)
    plan = []
    for seed in range(args.seed, args.seed + (args.runs or 1)):
        for cell in grid:
            name = f"{exp_name}{cell.suffix}_seed{seed}"
            own = {**cell.flags, "seed": seed, "exp_name": name, "threads": args.threads or 1}
            command = Command(name, door, _flags({**vars(args), **own}), folder / f"{name}.log")
            plan.append(PlannedRun(name, cell, seed, command))
    return plan


def default_jobs(device: str, threads: int) -> int:
    """As many runs as cores on a CPU; one on a GPU, whose memory nobody knows to be enough for two."""
    if device != "cpu" and (device != "auto" or torch.cuda.is_available()):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    """Parsed arguments as the flags that give them; what was not given is left out."""
    flags = []
    for name, value in values.items():
        if name in OURS or value is None or (value is False and name not in SWITCHES):
            continue
        if isinstance(value, bool):
            flags += [f"--{name}", "on" if value else "off"] if name in SWITCHES else [f"--{name}"]
        elif isinstance(value, tuple | list):
            texts = list(map(str, value))
            flags += [f"--{name}", *([",".join(texts)] if name in SWITCHES else texts)]
        else:
            flags += [f"--{name}", str(value)]
    return tuple(flags)
