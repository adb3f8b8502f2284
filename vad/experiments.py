"""Many runs of one door: seeds and sweeps planned, run several at a time, collected in one table and one picture."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vad.errors import InputError
from vad.figures_sweep import draw_sweep
from vad.processes import Command, Outcome, run_commands
from vad.protocol import Protocol
from vad.run_log import log_path, read_rows, run_row, write_rows
from vad.settings import SWITCHES
from vad.sweep_table import SweepResult, sweep_table
from vad.sweeps import Cell, Check, cells, known_names, parse_sweeps, shown
from vad.table import Table

SHOWN = (".txt", ".png", ".csv")  # files named at the end; the same in other formats lie beside them
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


@dataclass(frozen=True)
class Report:
    """What came out of many runs."""

    table: Table | None  # None where every run failed
    files: tuple[Path, ...]
    failures: tuple[str, ...]  # a paragraph for each run that failed

    def text(self, kind: str) -> str:
        """What to print, the table in one of the formats of `vad.table.SUFFIXES`."""
        parts = [self.table.render(kind).rstrip("\n")] if self.table else []
        if self.files:
            parts.append(f"table, picture and runs: {', '.join(str(f) for f in self.files if f.suffix in SHOWN)}")
        return "\n" + "\n\n".join([*parts, *self.failures])


def plan_runs(args: argparse.Namespace, exp_name: str, door: Path, check: Check | None = None) -> list[PlannedRun]:
    """Every run that --runs and --sweep ask for, seed by seed: an early stop leaves whole comparisons behind.

    Raises InputError for a sweep that makes no sense, before anything runs.
    """
    for name in ("runs", "jobs", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} must be 1 or more; got {getattr(args, name)}")
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


def train_many(
    args: argparse.Namespace,
    exp_name: str,
    protocol: Callable[[str], Protocol],
    *,
    door: Path,
    read: Callable[[Path], Mapping[str, Any]],
    check: Check | None = None,
) -> Report:
    """Run the plan, write <exp_name>_runs.csv after every run, and end in a table of mean ± std and a picture of it.

    protocol: of the shared settings, given which weights are kept. read: the model's `read_checkpoint`. check: as in
    `vad.sweeps.cells`.
    """
    plan = plan_runs(args, exp_name, door, check)
    folder, log = Path(args.checkpoint_dir), log_path(Path(args.checkpoint_dir), exp_name)
    runs = {run.name: run for run in plan}
    metric = plan[0].cell.settings.dataset.metric

    def collect(command: Command, outcome: Outcome) -> None:
        if outcome.code == 0:
            run = runs[command.name]
            where = {"checkpoint": f"{run.name}.pth", "curve": f"{run.name}.csv"}
            write_rows(log, [run_row(run.name, read(folder / f"{run.name}.pth"), metric, **where)])

    jobs = min(args.jobs or default_jobs(args.device, args.threads or 1), len(runs))
    print(f"{len(runs)} runs, {jobs} at a time; what each prints: {plan[0].command.log}" + (" …" if plan[1:] else ""))
    with _Progress(plan, folder) as bar:
        # two cells may be one run: swept nu=8 and swept N=10 are both the settings without a sweep
        outcomes = run_commands(
            [run.command for run in runs.values()], jobs=jobs, threads=args.threads or 1, tick=bar.tick,
            finished=collect,
        )  # fmt: skip
    failures = [_failure(runs[name], outcome) for name, outcome in outcomes.items() if outcome.code != 0]
    done = [run for run in plan if outcomes[run.name].code == 0]
    if not done:
        return Report(None, (), tuple(failures))
    rows = {row["run"]: row for row in read_rows(log)}
    result = SweepResult(
        tuple(parse_sweeps(args.sweep or ())),
        [(run.cell, rows[run.name]) for run in done],
        protocol(_weights(rows[run.name]["weights"] for run in done)),
        planned=len(plan),
    )
    table = sweep_table(result)
    name = "_".join(["sweep", *map(shown, result.names)]) if result.names else "runs"
    place = Path(args.figure_dir) / exp_name / name
    files = [*table.save(place), *(draw_sweep(result, place) if result.names else []), log]
    return Report(table, tuple(files), tuple(failures))


def _weights(kinds: Iterable[str]) -> str:
    """What a protocol says of weights of these kinds; where they differ the table marks which were selected."""
    found = set(kinds)
    return found.pop() if len(found) == 1 else "several"


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


def _failure(run: PlannedRun, outcome: Outcome) -> str:
    lines = "\n".join(f"    {line}" for line in outcome.last_lines) or "    (it printed nothing)"
    return f"{run.name} failed ({outcome.words}); {run.command.log} ends in\n{lines}\n    $ {run.command.typed()}"


class _Progress:
    """One bar over the epochs of all runs, read from the logs that they write."""

    def __init__(self, plan: Sequence[PlannedRun], folder: Path) -> None:
        self.epochs = {run.name: run.cell.settings.recipe.max_epoch for run in plan}
        self.folder, self.failed = folder, 0
        self.bar = tqdm(total=sum(self.epochs.values()), desc="runs", unit="epoch", file=sys.stderr)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def tick(self, done: Mapping[str, Outcome], running: Iterable[str]) -> None:
        epochs = sum(self.epochs[name] for name in done) + sum(min(self._epoch(n), self.epochs[n]) for n in running)
        failed = sum(outcome.code != 0 for outcome in done.values())
        self.bar.n = epochs
        ended = f"{len(done)} of {len(self.epochs)} ended"
        self.bar.set_postfix_str(ended + (f", {failed} failed" if failed else ""))

    def _epoch(self, name: str) -> int:
        """Finished epochs of a run; 0 until it has written its log."""
        try:
            header, *lines = (self.folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
            return int(float(lines[-1].split(",")[header.split(",").index("epoch")]))
        except (OSError, ValueError, IndexError):
            return 0
