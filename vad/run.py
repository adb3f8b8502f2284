"""A training run: what it trains, on what, how it is judged, and what it has reached."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from vad.computing import Computing
from vad.data import TrainingBatches
from vad.errors import InputError
from vad.settings import Settings

# output, lengths, anomalous, divisors → terms with .total and ._asdict(); see `Ranks.divisors` for the last
Objective = Callable[..., object]


@dataclass(frozen=True)
class Files:
    """Where a run leaves its results."""

    last: Path  # weights as they are, at the end those kept; until then all that a stopped run needs to continue
    best: Path  # best weights on the test set so far
    log: Path  # a row per evaluation

    @classmethod
    def of(cls, folder: Path, exp_name: str) -> Files:
        """checkpoints/<exp_name>.pth, <exp_name>_best.pth and <exp_name>.csv."""
        return cls(folder / f"{exp_name}.pth", folder / f"{exp_name}_best.pth", folder / f"{exp_name}.csv")


@dataclass(frozen=True)
class Saving:
    """How often an unfinished run is written to disk, beside every epoch's end: whichever comes first."""

    steps: int = 0  # every so many steps; 0: not by steps
    minutes: float = 2.0  # after so many minutes; 0: not by time

    def __post_init__(self) -> None:
        for name in ("steps", "minutes"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--save_{name} must be 0 (never) or more; got {getattr(self, name)}")


@dataclass
class Progress:
    """Where in its epoch a run is."""

    steps: int = 0  # steps of this epoch that are done
    sums: dict[str, float] = field(default_factory=dict)  # of the loss and its terms over these steps


@dataclass
class Run:
    """One training run."""

    model: torch.nn.Module
    objective: Objective
    batches: TrainingBatches
    evaluate: Callable[[], dict[str, float]]  # metrics on the test set of the model as it is
    save: Callable[..., None]  # (path, model, **extra), whole or not at all
    settings: Settings
    identity: Mapping[str, object]  # settings, modality, seed, data: what must be equal for a run to be continued
    files: Files
    seed: int
    computing: Computing
    trim: bool  # cut batches to their longest window: exact where padding is masked
    saving: Saving = Saving()
    show: Callable[[Run], None] = lambda run: None  # called after every evaluation, e.g. to draw curves
    about: Mapping[str, object] = field(default_factory=dict)  # what else a checkpoint says: command, versions
    overwrites: bool = False  # by --overwrite: the same command would start once more
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps
    saved: int | None = None  # step of the state on disk
    progress: Progress = field(default_factory=Progress)
    best: float = -math.inf
    best_state: dict[str, Tensor] | None = None
    rows: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0  # that the run took in earlier processes
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        recipe = self.settings.recipe
        # one kernel for all tensors where there is one; it agrees with the plain form to the last bits
        fused = self.computing.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.lr, fused=fused)
        self.forward = self.computing.prepare(self.model)

    def log(self) -> pd.DataFrame:
        """A row per evaluation: step, epoch, learning rate, mean loss and its terms since the epoch began, metrics."""
        return pd.DataFrame([{name: value for name, value in row.items() if name != "metrics"} for row in self.rows])

    def set_learning_rate(self) -> None:
        """The rate of the present epoch: it falls by `scheduler_rate` after every milestone (Appendix F.2)."""
        recipe = self.settings.recipe
        passed = sum(self.epoch >= milestone for milestone in recipe.scheduler_milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.scheduler_rate**passed

    @property
    def metric(self) -> str:
        """The metric that "best" means here."""
        return self.settings.dataset.metric

    @property
    def elapsed(self) -> float:
        """Seconds of work in this run, stops not counted."""
        return self.seconds + time.monotonic() - self.since

    @property
    def finished(self) -> bool:
        """Whether no epoch is left."""
        return self.epoch >= self.settings.recipe.max_epoch

    @property
    def kept(self) -> str:
        """Whether the model goes on after this epoch, or ends, with its "last" or its "best" weights."""
        switches = self.settings.profile
        return "best" if switches.rollback or (self.finished and switches.keep == "best") else "last"

    @property
    def best_row(self) -> dict[str, object]:
        """The evaluation that is best; the first of equal ones."""
        return max(self.rows, key=lambda row: rank(row[self.metric]))


def rank(value: float) -> float:
    """A metric for comparison: NaN is worse than every number."""
    return -math.inf if math.isnan(value) else value


def metrics_of(row: Mapping[str, object]) -> dict[str, float]:
    """The metrics of a row of the log."""
    return {name: row[name] for name in row["metrics"]}
