"""What a training run leaves on disk, and how a stopped one is taken up again at the very step it had reached."""

from __future__ import annotations

import copy
import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from vad.errors import InputError
from vad.files import write_whole
from vad.run import Files, Progress, Run, metrics_of


def save_state(run: Run) -> None:
    """Write <exp_name>.pth: the weights and, until the run has finished, all that it needs to continue.

    One file, replaced as a whole: whatever ends the process, it is the old state or the new one, never a mixture.
    """
    if not run.computing.ranks.leads:
        return
    row = run.best_row if run.kept == "best" and run.rows else next(iter(run.rows[-1:]), None)
    whole = not run.progress.steps
    run.save(
        run.files.last,
        run.model,
        weights=run.kept if whole else "unfinished",
        training=None if run.finished else _training(run),
        rows=run.rows,
        **_about(run, run.epoch, run.step, metrics_of(row) if row and whole else {}),
    )
    run.saved = run.step


def _training(run: Run) -> dict[str, object]:
    # no state of a random generator, no schedule: `seed_step` and `set_learning_rate` need the step's number alone
    return {
        "optimizer": run.optimizer.state_dict(),
        "best": run.best,
        "best_state": run.best_state,
        "steps": run.progress.steps,
        "sums": run.progress.sums,
    }


def save_best(run: Run, row: Mapping[str, object]) -> None:
    """Write <exp_name>_best.pth from the model as it is; `row` is the evaluation that found it best."""
    if run.computing.ranks.leads:
        if run.saved is None:  # <exp_name>.pth is of a run that this one replaces, and would go with another's best
            run.files.last.unlink(missing_ok=True)
        about = _about(run, row["epoch"], row["step"], metrics_of(row))
        run.save(run.files.best, run.model, weights="best", **about)


def write_log(run: Run) -> None:
    """Write <exp_name>.csv."""
    if run.computing.ranks.leads:
        write_whole(run.files.log, run.log().to_csv(index=False, float_format="%.6g").encode())


def _about(run: Run, epoch: int, step: int, metrics: Mapping[str, float]) -> dict[str, object]:
    """What every checkpoint says about itself."""
    return {
        "identity": dict(run.identity),
        "settings": run.settings.as_dict(),
        "seed": run.seed,
        "epoch": epoch,
        "step": step,
        "metrics": dict(metrics),
        "computing": run.computing.describe(),
        "seconds": run.elapsed,
        **run.about,
    }


def resume(run: Run, read: Callable[[Path], Mapping[str, object]]) -> None:
    """Continue where <exp_name>.pth was written; the other two files are brought to the same step.

    read: the checkpoint reader. Raises InputError where the run was made with other settings, naming the first that
    differs, or by a version of this code that kept less.
    """
    last = read(run.files.last)
    there = {"precision": "fp32", **last.get("identity", {})}  # there was no other once
    for name, value in run.identity.items():
        if there.get(name) != value:
            raise InputError(
                f"{run.files.last} was trained with {_difference(name, there.get(name), value)}; "
                f"give another --exp_name, or replace it with --overwrite"
            )
    run.model.load_state_dict(last["model"])
    run.epoch, run.step, run.rows = last["epoch"], last["step"], [dict(row) for row in last["rows"]]
    run.saved, run.seconds = run.step, last.get("seconds", 0.0)
    if not run.finished:
        _continue(run, last["training"] or {}, read)
    if run.rows:
        write_log(run)


def _continue(run: Run, training: Mapping[str, object], read: Callable[[Path], Mapping[str, object]]) -> None:
    if "steps" not in training:
        raise InputError(
            f"{run.files.last} is an unfinished run of an earlier version of this code, which cannot be continued "
            f"exactly; give another --exp_name, or start it anew with --overwrite"
        )
    fused = [group["fused"] for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(training["optimizer"])
    for group, here in zip(run.optimizer.param_groups, fused, strict=True):
        group["fused"] = here  # the device decides, and it may be another now
    run.progress = Progress(training["steps"], dict(training["sums"]))
    run.best, run.best_state = training["best"], training["best_state"]
    if run.rows and run.computing.ranks.leads and _step_of(run.files.best, read) != run.best_row["step"]:
        # that best was found after the state was written and will be found again; until then no row tells of it
        now = copy.deepcopy(run.model.state_dict())
        run.model.load_state_dict(run.best_state)
        save_best(run, run.best_row)
        run.model.load_state_dict(now)


def _step_of(path: Path, read: Callable[[Path], Mapping[str, object]]) -> object:
    try:
        return read(path).get("step")
    except ValueError:  # missing or damaged
        return None


def remove_unfinished(files: Files) -> None:
    """Remove what a killed process left of a checkpoint it was writing."""
    for path in (files.last, files.best):
        for name in glob.glob(f"{glob.escape(str(path))}.*.part"):
            process = name.removesuffix(".part").rpartition(".")[2]
            if process.isdecimal() and not _alive(int(process)):
                Path(name).unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _difference(name: str, there: object, here: object) -> str:
    """The first value in which two nested settings differ, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in here:
            if there.get(key) != here[key]:
                return _difference(str(key), there.get(key), here[key])
    return f"{name} {there}, not {here}"
