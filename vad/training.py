"""The training loop: weak supervision, evaluation on the way, checkpoints that a stopped run continues from."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR
from tqdm import tqdm

from vad.data import Batch, Sample, TrainingBatches
from vad.errors import InputError
from vad.files import write_whole
from vad.settings import Settings

Objective = Callable[[object, Tensor, Tensor], object]  # output, lengths, anomalous → terms with .total and ._asdict()


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Fix every random number that follows, the same for the same (seed, epoch) whatever came before."""
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))


def fingerprint(samples: Sequence[Sample], files: Sequence[Path]) -> str:
    """Hash that tells whether two runs saw the same data: lists, ground truth, sizes, and some embeddings whole."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    digest.update(repr([(s.video, s.crop, s.snippets) for s in samples]).encode())
    for sample in samples[:: max(1, len(samples) // 16)]:
        for path in sample.paths:
            digest.update(path.read_bytes() if path else b"")
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Files:
    """Where a run leaves its results."""

    last: Path  # weights at the end, and all that a stopped run needs to continue
    best: Path  # best weights on the test set so far
    log: Path  # a row per evaluation

    @classmethod
    def of(cls, folder: Path, exp_name: str) -> Files:
        """checkpoints/<exp_name>.pth, <exp_name>_best.pth and <exp_name>.csv."""
        return cls(folder / f"{exp_name}.pth", folder / f"{exp_name}_best.pth", folder / f"{exp_name}.csv")


@dataclass
class Run:
    """One training run: what it trains, on what, how it is judged, and what it has reached."""

    model: torch.nn.Module
    objective: Objective
    batches: TrainingBatches
    evaluate: Callable[[], dict[str, float]]  # metrics on the test set of the model as it is
    save: Callable[..., None]  # (path, model, **extra), whole or not at all
    settings: Settings
    identity: Mapping[str, object]  # settings, modality, seed, data: what must be equal for a run to be continued
    files: Files
    seed: int
    device: torch.device
    trim: bool  # cut batches to their longest window: exact where padding is masked
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps
    best: float = -math.inf
    best_state: dict[str, Tensor] | None = None
    rows: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe = self.settings.recipe
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.lr)
        self.scheduler = MultiStepLR(self.optimizer, list(recipe.scheduler_milestones), recipe.scheduler_rate)

    def log(self) -> pd.DataFrame:
        """A row per evaluation: step, epoch, learning rate, mean loss and its terms since the epoch began, metrics."""
        return pd.DataFrame([{name: value for name, value in row.items() if name != "metrics"} for row in self.rows])

    @property
    def metric(self) -> str:
        """The metric that "best" means here."""
        return self.settings.dataset.metric


@dataclass(frozen=True)
class Trained:
    """How a run ended."""

    weights: str  # which weights <exp_name>.pth holds: "last" or "best"
    metrics: dict[str, float]  # of those weights
    best: str  # the best evaluation of the run in words


def train(run: Run) -> Trained:
    """Run all epochs that are left.

    Every evaluation appends a row to the log; every epoch's end writes the checkpoint that `resume` reads.
    """
    epochs = run.settings.recipe.max_epoch
    total = (epochs - run.epoch) * len(run.batches)
    with tqdm(total=total, desc="training", unit="step", disable=not total) as bar:
        while run.epoch < epochs:
            bar.set_description(f"training, epoch {run.epoch + 1}/{epochs}")
            _epoch(run, bar)
    best, kept = _best_row(run), _kept(run)
    words = f"{run.metric} {100 * best[run.metric]:.2f} % after step {best['step']} ({run.files.best.name})"
    return Trained(kept, _metrics(best if kept == "best" else run.rows[-1]), words)


def _epoch(run: Run, bar: tqdm) -> None:
    seed_everything(run.seed, run.epoch + 1)
    sums: dict[str, float] = {}
    steps = samples = 0
    interval = run.settings.recipe.print_steps
    for batch in run.batches.epoch(run.epoch):
        terms = _step(run, batch)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        steps += 1
        before, samples = samples, samples + len(batch.videos)
        bar.update()
        bar.set_postfix(loss=f"{terms['total']:.3f}", **_shown(run))
        last_step = steps == len(run.batches)
        if samples // interval > before // interval and not last_step:
            _evaluate(run, {name: value / steps for name, value in sums.items()})
    run.epoch += 1
    _evaluate(run, {name: value / steps for name, value in sums.items()})
    run.scheduler.step()
    if _kept(run) == "best":
        run.model.load_state_dict(run.best_state)  # the optimiser keeps its moments, as in the released code
    _save_last(run)


def _step(run: Run, batch: Batch) -> dict[str, float]:
    """One optimiser step; returns the loss terms. Raises InputError where the loss is no number."""
    run.model.train()
    steps = int(batch.lengths.max()) if run.trim else None
    image, event = (
        x if x is None else x[:, :steps].to(run.device, non_blocking=True) for x in (batch.image, batch.event)
    )
    lengths, anomalous = batch.lengths.to(run.device), batch.anomalous.to(run.device)
    output = run.model(image, event, lengths)
    # cross-entropy refuses NaN with an error of its own, which would name neither step nor videos
    finite = bool(output.logits.isfinite().all())
    terms = run.objective(output, lengths, anomalous) if finite else None
    values = {name: value.item() for name, value in terms._asdict().items()} if finite else {"total": math.nan}
    if not math.isfinite(values["total"]):
        raise InputError(
            f"the loss is {values['total']} at step {run.step + 1} (epoch {run.epoch + 1}; videos "
            f"{', '.join(sorted(set(batch.videos))[:4])}, …); lower --lr; {run.files.last} keeps the last whole epoch"
        )
    run.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()
    run.optimizer.step()
    run.step += 1
    return values


def _evaluate(run: Run, losses: Mapping[str, float]) -> None:
    """Judge the model on the test set, log it, and keep it if it is the best so far."""
    metrics = {name: float(value) for name, value in run.evaluate().items()}
    row = {
        "step": run.step,
        "epoch": run.epoch,
        "lr": run.optimizer.param_groups[0]["lr"],
        "loss": losses["total"],
        **{f"loss_{name}": value for name, value in losses.items() if name != "total"},
        **metrics,
        "metrics": tuple(metrics),
    }
    run.rows.append(row)
    if _rank(metrics[run.metric]) > run.best or run.best_state is None:
        run.best = _rank(metrics[run.metric])
        run.best_state = copy.deepcopy(run.model.state_dict())
        run.save(run.files.best, run.model, weights="best", **_about(run, metrics))
    _write_log(run)


def _save_last(run: Run) -> None:
    state = {"optimizer": run.optimizer.state_dict(), "scheduler": run.scheduler.state_dict(), "best": run.best}
    kept = _kept(run)
    metrics = _metrics(_best_row(run) if kept == "best" else run.rows[-1])
    run.save(run.files.last, run.model, weights=kept, training=state, rows=run.rows, **_about(run, metrics))


def _kept(run: Run) -> str:
    """Whether the model goes on, or ends, with its "last" or its "best" weights."""
    switches = run.settings.profile
    finished = run.epoch == run.settings.recipe.max_epoch
    return "best" if switches.rollback or (finished and switches.keep == "best") else "last"


def _about(run: Run, metrics: Mapping[str, float]) -> dict[str, object]:
    """What every checkpoint says about itself."""
    return {
        "identity": dict(run.identity),
        "settings": run.settings.as_dict(),
        "seed": run.seed,
        "epoch": run.epoch,
        "step": run.step,
        "metrics": dict(metrics),
        "versions": {"torch": str(torch.__version__), "numpy": np.__version__},
    }


def resume(run: Run, last: Mapping[str, object], best: Mapping[str, object]) -> None:
    """Continue where the checkpoint `last` was written; `best` holds the best weights so far.

    Both as the checkpoint reader returns them. Raises InputError where the run was made with other settings,
    naming the first that differs.
    """
    there = last.get("identity", {})
    for name, value in run.identity.items():
        if there.get(name) != value:
            raise InputError(
                f"{run.files.last} was trained with {_difference(name, there.get(name), value)}; "
                f"give another --exp_name, or replace it with --overwrite"
            )
    run.model.load_state_dict(last["model"])
    run.epoch, run.step, run.rows = last["epoch"], last["step"], [dict(row) for row in last["rows"]]
    run.optimizer.load_state_dict(last["training"]["optimizer"])
    run.scheduler.load_state_dict(last["training"]["scheduler"])
    run.best, run.best_state = last["training"]["best"], best["model"]
    _write_log(run)


def _difference(name: str, there: object, here: object) -> str:
    """The first value in which two nested settings differ, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in here:
            if there.get(key) != here[key]:
                return _difference(str(key), there.get(key), here[key])
    return f"{name} {there}, not {here}"


def _write_log(run: Run) -> None:
    write_whole(run.files.log, run.log().to_csv(index=False, float_format="%.6g").encode())


def _best_row(run: Run) -> dict[str, object]:
    return max(run.rows, key=lambda row: _rank(row[run.metric]))


def _metrics(row: Mapping[str, object]) -> dict[str, float]:
    return {name: row[name] for name in row["metrics"]}


def _rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _shown(run: Run) -> dict[str, str]:
    return {run.metric: f"{run.rows[-1][run.metric]:.3f}"} if run.rows else {}
