"""Many runs of one door: done ones recognised, the rest run several at a time, all in one table and one picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vad.figures_sweep import draw_sweep
from vad.processes import Command, Outcome, run_commands
from vad.protocol import Protocol
from vad.run import Files
from vad.run_log import as_read, log_path, run_row, write_rows
from vad.run_plan import PlannedRun, default_jobs, plan_runs
from vad.settings import Settings
from vad.stopping import Stopped
from vad.sweep_table import SweepResult, sweep_table
from vad.sweeps import Check, parse_sweeps, shown
from vad.table import Table

SHOWN = (".txt", ".png", ".csv")  # files named at the end; the same in other formats lie beside them
READS = frozenset(["modality", "profile", "split", "test_crops", "nan"])  # flags that change which data is read


@dataclass(frozen=True)
class Trainer:
    """What the door knows of a single run, and this module does not."""

    door: Path  # the script that trains one run
    read: Callable[[Path], Mapping[str, Any]]  # the model's reader of checkpoints
    check: Check  # see `vad.sweeps.cells`
    identity: Callable[[Settings, str, int], Mapping[str, object]]  # of (settings, modality, seed) on the shared data


@dataclass(frozen=True)
class Report:
    """What came out of many runs."""

    table: Table | None  # None where every run failed
    files: tuple[Path, ...]
    failures: tuple[str, ...]  # a paragraph for each run that failed

    def words(self) -> str:
        """What to print below the table: where the files are, and which runs failed."""
        names = ", ".join(str(path) for path in self.files if path.suffix in SHOWN)
        return "\n\n".join([*([f"table, picture and runs: {names}"] if names else []), *self.failures])


def train_many(
    args: argparse.Namespace,
    exp_name: str,
    protocol: Callable[[str], Protocol],
    trainer: Trainer,
) -> Report:
    """Run what is not done of the plan, write <exp_name>_runs.csv after every run, and end in a table and its picture.

    protocol: of the shared settings, given which weights are kept.
    """
    plan = plan_runs(args, exp_name, trainer.door, trainer.check)
    folder, log = Path(args.checkpoint_dir), log_path(Path(args.checkpoint_dir), exp_name)
    runs = {run.name: run for run in plan}

    rows: dict[str, dict[str, str]] = {}

    def collect(command: Command, outcome: Outcome) -> None:
        if outcome.code == 0:
            content = trainer.read(folder / f"{command.name}.pth")
            rows[command.name] = _collect(log, runs[command.name], content)

    outcomes = {}
    for run in runs.values():
        content = _done(run, args, trainer)
        if content is not None:
            rows[run.name] = _collect(log, run, content)
            outcomes[run.name] = Outcome(0, 0.0, ())
    todo = [run.command for run in runs.values() if run.name not in outcomes]
    jobs = max(1, min(args.jobs or default_jobs(args.device, args.threads or 1), len(todo)))
    kept = f", {len(outcomes)} of them trained already" if outcomes else ""
    more = " …" if plan[1:] else ""
    print(f"{len(runs)} runs{kept}; {jobs} at a time; what each prints: {plan[0].command.log}{more}")
    with _Progress(plan, folder, tuple(outcomes)) as bar:
        try:
            outcomes |= run_commands(todo, jobs=jobs, threads=args.threads or 1, tick=bar.tick, finished=collect)
        except KeyboardInterrupt:
            if args.overwrite:
                raise Stopped("stopped: the same command without --overwrite continues from there") from None
            raise
    failures = [_failure(runs[name], outcome) for name, outcome in outcomes.items() if outcome.code != 0]
    done = [run for run in plan if outcomes[run.name].code == 0]
    if not done:
        return Report(None, (), tuple(failures))
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


def _done(run: PlannedRun, args: argparse.Namespace, trainer: Trainer) -> Mapping[str, Any] | None:
    """The checkpoint of a run that needs no training; None where only the run's own process can tell.

    Reading a file takes a moment, starting a process to find that nothing is to be done a second.
    """
    files = Files.of(Path(args.checkpoint_dir), run.name)
    there = all(path.is_file() for path in (files.last, files.best, files.log))
    if args.overwrite or not there or not READS.isdisjoint(run.cell.flags):
        return None
    try:
        content = trainer.read(files.last)
    except ValueError:  # a file that cannot be read: its run says so
        return None
    same = content.get("identity") == trainer.identity(run.cell.settings, run.cell.modality, run.seed)
    return content if same and content["epoch"] >= run.cell.settings.recipe.max_epoch else None


def _collect(log: Path, run: PlannedRun, content: Mapping[str, Any]) -> dict[str, str]:
    """Put the run into the table of runs; returns its row as it is read from there."""
    where = {"checkpoint": f"{run.name}.pth", "curve": f"{run.name}.csv"}
    row = run_row(run.name, content, run.cell.settings.dataset.metric, **where)
    write_rows(log, [row])
    return as_read(row)


def _weights(kinds: Iterable[str]) -> str:
    """What a protocol says of weights of these kinds; where they differ the table marks which were selected."""
    found = set(kinds)
    return found.pop() if len(found) == 1 else "several"


def _failure(run: PlannedRun, outcome: Outcome) -> str:
    lines = "\n".join(f"    {line}" for line in outcome.last_lines) or "    (it printed nothing)"
    return f"{run.name} failed ({outcome.words}); {run.command.log} ends in\n{lines}\n    $ {run.command.typed()}"


class _Progress:
    """One bar over the epochs of all runs, read from the logs that they write."""

    def __init__(self, plan: Sequence[PlannedRun], folder: Path, done: Sequence[str]) -> None:
        self.epochs = {run.name: run.cell.settings.recipe.max_epoch for run in plan if run.name not in done}
        self.folder = folder
        total = sum(self.epochs.values())
        self.bar = tqdm(total=total, desc="runs", unit="epoch", file=sys.stderr, disable=not total)

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
