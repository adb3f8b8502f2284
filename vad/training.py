"""The training loop: weak supervision, evaluation on the way, a state on disk that a stopped run continues from."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from vad.data import Batch
from vad.errors import InputError
from vad.repeatable import seed_step
from vad.run import Progress, Run, metrics_of, rank
from vad.run_state import remove_unfinished, save_best, save_state, write_log
from vad.stopping import Stopped, StopRequest

NAMED = 8  # videos that a sentence about a batch names


@dataclass(frozen=True)
class Trained:
    """How a run ended."""

    weights: str  # which weights <exp_name>.pth holds: "last" or "best"
    metrics: dict[str, float]  # of those weights
    best: str  # the best evaluation of the run in words


def train(run: Run) -> Trained:
    """Run all steps that are left.

    Every evaluation appends a row to the log; every epoch's end, `run.saving` and an interruption write the state that
    `resume` reads. Raises Stopped after an interruption, InputError where loss or gradient is no number.
    """
    if run.computing.ranks.leads:
        remove_unfinished(run.files)
    epochs = run.settings.recipe.max_epoch
    total = max(0, (epochs - run.epoch) * len(run.batches) - run.progress.steps)
    hidden = not total or not run.computing.ranks.leads
    loop = _Loop(run, StopRequest(patient=run.computing.ranks.world > 1))
    with loop.stop, tqdm(total=total, desc="training", unit="step", disable=hidden) as bar:
        try:
            while not run.finished:
                bar.set_description(f"training, epoch {run.epoch + 1}/{epochs}")
                loop.epoch(bar)
        except KeyboardInterrupt:
            bar.close()
            if not loop.stop.broke:
                save_state(run)
            if not run.computing.ranks.leads:
                raise SystemExit(130) from None  # the leader says where the run is
            raise Stopped(_how_to_continue(run)) from None
    best = run.best_row
    words = f"{run.metric} {100 * best[run.metric]:.2f} % after step {best['step']} ({run.files.best.name})"
    return Trained(run.kept, metrics_of(best if run.kept == "best" else run.rows[-1]), words)


def _how_to_continue(run: Run) -> str:
    if run.saved is None:
        return f"stopped in step {run.step + 1}, before anything was saved; the same command starts again"
    again = "without --overwrite continues there" if run.overwrites else "continues there, --overwrite starts again"
    return f"stopped: {run.files.last} holds step {run.saved} (epoch {run.epoch + 1}); the same command {again}"


@dataclass
class _Loop:
    """The loop over one run's steps, and when it last wrote to disk."""

    run: Run
    stop: StopRequest
    written: float = field(default_factory=time.monotonic)
    since: int = 0  # steps

    def epoch(self, bar: tqdm) -> None:
        """What is left of the present epoch."""
        run = self.run
        run.set_learning_rate()
        if self._evaluation_due() and not any(row["step"] == run.step for row in run.rows[-1:]):
            self._evaluate()  # the run was stopped between a step and its evaluation
        for batch in run.batches.epoch(run.epoch, run.progress.steps):
            with self.stop.finishing():
                values, asked = step(run, batch, self.stop.asked)
            bar.update()
            bar.set_postfix(loss=f"{values['total']:.3f}", **_shown(run))
            if asked or (self.stop.asked and not self.stop.patient):
                raise KeyboardInterrupt
            if self._evaluation_due():
                self._evaluate()
            self._save_in_time()
        self._evaluate(closing=True)

    def _evaluation_due(self) -> bool:
        """Whether the steps done have just passed a multiple of `print_steps` samples inside the epoch."""
        done, size = self.run.progress.steps, self.run.batches.samples
        interval = self.run.settings.recipe.print_steps
        return 0 < done < len(self.run.batches) and done * size // interval > (done - 1) * size // interval

    def _evaluate(self, closing: bool = False) -> None:
        """Judge the model on the test set, log it, keep it if it is the best so far; `closing` ends the epoch."""
        run = self.run
        metrics = {name: float(value) for name, value in run.evaluate().items()}
        with self.stop.finishing():
            _record(run, metrics, epoch=run.epoch + closing)
            if closing:
                _close(run)
                self._save()

    def _save_in_time(self) -> None:
        self.since += 1
        saving = self.run.saving
        minutes = (time.monotonic() - self.written) / 60
        if (saving.steps and self.since >= saving.steps) or (saving.minutes and minutes >= saving.minutes):
            with self.stop.finishing():
                self._save()

    def _save(self) -> None:
        save_state(self.run)
        self.written, self.since = time.monotonic(), 0


def _record(run: Run, metrics: dict[str, float], epoch: int) -> None:
    losses = {name: value / run.progress.steps for name, value in run.progress.sums.items()}
    row = {
        "step": run.step,
        "epoch": epoch,
        "lr": run.optimizer.param_groups[0]["lr"],
        "loss": losses["total"],
        **{f"loss_{name}": value for name, value in losses.items() if name != "total"},
        **metrics,
        "metrics": tuple(metrics),
    }
    run.rows.append(row)
    if rank(metrics[run.metric]) > run.best or run.best_state is None:
        run.best = rank(metrics[run.metric])
        run.best_state = copy.deepcopy(run.model.state_dict())
        save_best(run, row)
    write_log(run)
    if run.computing.ranks.leads:
        run.show(run)


def _close(run: Run) -> None:
    run.epoch += 1
    run.progress = Progress()
    if run.kept == "best":
        run.model.load_state_dict(run.best_state)  # the optimiser keeps its moments, as in the released code


def step(run: Run, batch: Batch, asked: bool = False) -> tuple[dict[str, float], bool]:
    """One optimiser step on this process's part of a batch; returns the loss terms of the whole batch.

    asked: whether this process was asked to stop; returned is whether any was. Raises InputError, before the weights
    are touched, where loss or gradient is no number.
    """
    run.model.train()
    ranks, device = run.computing.ranks, run.computing.device
    seed_step(run.seed, run.step, ranks.rank)
    cut = int(batch.lengths.max()) if run.trim else None
    image, event = (x if x is None else x[:, :cut].to(device, non_blocking=True) for x in (batch.image, batch.event))
    lengths, anomalous = (x.to(device, non_blocking=True) for x in (batch.lengths, batch.anomalous))
    with run.computing.autocast():
        output = run.forward(image, event, lengths)
    # cross-entropy refuses NaN with an error of its own (on a GPU one that ends the process), so it is shown none
    clean = dataclasses.replace(output, logits=output.logits.nan_to_num())
    terms = run.objective(clean, lengths, anomalous, ranks.divisors(lengths))
    run.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()
    norm = get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])
    own = torch.stack([*terms, norm, output.logits.isfinite().all(), terms.total.new_tensor(asked)]).detach()
    # one transfer from the device a step
    mean = (ranks.sum(own.clone()) / ranks.world).tolist()
    *values, norm_value, finite, anyone = mean
    if not (math.isfinite(sum(values)) and math.isfinite(norm_value) and finite == 1):
        _refuse(run, batch, output.logits, bool(own[:-3].isfinite().all()) and bool(own[-2]), mean)
    run.optimizer.step()
    run.step += 1
    run.progress.steps += 1
    named = dict(zip(terms._fields, values, strict=True))
    for name, value in named.items():
        run.progress.sums[name] = run.progress.sums.get(name, 0.0) + value
    return named, anyone > 0


def _refuse(run: Run, batch: Batch, logits: Tensor, sound: bool, mean: Sequence[float]) -> None:
    """End the run on every process with one sentence about the step whose loss or gradient is no number."""
    ranks = run.computing.ranks
    broken = ~logits.isfinite().flatten(1).all(1)
    own = [video for video, bad in zip(batch.videos, broken.tolist(), strict=True) if bad]
    # the outputs that are no numbers say which videos; else a process whose own loss is none; else the whole batch
    parts = ranks.gather((own, [] if sound else list(batch.videos), list(batch.videos)))
    names = next(found for k in range(3) if (found := sorted({v for part in parts for v in part[k]})))
    if not ranks.leads:
        raise SystemExit(2)
    loss = math.nan if mean[-2] < 1 else mean[0]
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {mean[-3]} (the loss {loss:.4g})"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    kept = f"{run.files.last} keeps step {run.saved}" if run.saved is not None else "nothing was saved yet"
    raise InputError(
        f"{what} at step {run.step + 1} (epoch {run.epoch + 1}; videos {', '.join(names[:NAMED])}{more}); look at "
        f"their embeddings or lower --lr; {kept}"
    )


def _shown(run: Run) -> dict[str, str]:
    return {run.metric: f"{run.rows[-1][run.metric]:.3f}"} if run.rows else {}
