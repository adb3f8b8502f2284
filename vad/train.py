"""The training loop: weak supervision, evaluation on the way, exact resume (Section 3.6, Appendix F.2)."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from tqdm import tqdm

from model import (
    IEFVAD,
    IEFVADConfig,
    IEFVADOutput,
    LossTerms,
    Objective,
    read_checkpoint,
    save_checkpoint,
)
from vad.data import (
    Batch,
    ListRow,
    PairedBatches,
    Video,
    Windows,
    check_values,
    data_fingerprint,
    embedding_root,
    find_videos,
    read_list,
    resolve_path,
)
from vad.datasets import load_dataset
from vad.evaluation import Protocol, TestSet, open_test_set
from vad.files import InputError, write_bytes
from vad.metrics import evaluate as all_metrics
from vad.options import Options, as_field, as_text, resolve, upgrade
from vad.runtime import Runtime, available_cores, command_line, seed_everything, seed_step, start, versions

SAVE_SECONDS = 120  # an unfinished run is written at least this often, and at each epoch's end
NAMED = 8  # videos that an error about a batch names


@dataclass
class Progress:
    """What a run has reached: with weights and optimiser all it needs to resume at any step."""

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # one per evaluation
    best: dict[str, Any] | None = None  # "row" and "model" of the best evaluation
    seconds: float = 0.0  # of earlier processes


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: what its checkpoint says, and the protocol of its numbers."""

    content: Mapping[str, Any]
    protocol: Protocol


@dataclass(frozen=True)
class RunFiles:
    """<exp_name>.pth (the run, and at its end the weights kept), <exp_name>_best.pth and <exp_name>.csv."""

    last: Path
    best: Path
    log: Path

    @classmethod
    def of(cls, options: Options) -> RunFiles:
        """In the checkpoint folder."""
        name = Path(options.checkpoint_dir) / run_name(options)
        return cls(*(name.with_name(name.name + end) for end in (".pth", "_best.pth", ".csv")))


def run_name(options: Options) -> str:
    """--exp_name; by default the data set's, and the modality's where it is one stream."""
    one_stream = f"_{options.modality}" if options.modality != "fusion" else ""
    return options.exp_name or load_dataset(options.dataset).name + one_stream


def check_model(options: Options) -> None:
    """Raise ConfigError for options the network or the objective refuses, before any work."""
    config = IEFVADConfig(embed_dim=options.visual_head, modality=options.modality, **options.group("model"))
    Objective(config=config, **options.group("loss"))


@dataclass(frozen=True)
class TrainingData:
    """Everything a run reads, found and checked before anything long starts."""

    test: TestSet
    videos: list[Video]
    width: int  # D
    windows: Windows

    def fingerprint(self) -> str:
        """Hash of the lists, the ground truth, and some embeddings."""
        test = self.test
        return data_fingerprint([*self.videos, *test.crops], [test.train_list, test.test_list, test.gt_path])


def open_data(options: Options, runtime: Runtime) -> TrainingData:
    """Test set and training windows of a run; the window cache is made here. InputError for what is wrong."""
    dataset = load_dataset(options.dataset)
    test = open_test_set(options, dataset)
    rows = read_list(test.train_list, dataset)
    videos, width = find_videos(rows, dataset, test.feature_root, options.modality)
    if width != test.width:
        lists = f"{test.train_list} has embeddings {width} wide, {test.test_list} {test.width}"
        raise InputError(f"{lists}; extract both alike")
    check_values(test.crops, options.nan, width)
    with runtime.main_process_first():
        windows = Windows(videos, options.window, options.nan, width, cache_folder(options, test, rows))
    if not windows.cached:
        check_values(videos, options.nan, width)
    return TrainingData(test, videos, width, windows)


def train_run(options: Options) -> TrainedRun:
    """Train one run, resume it, or reuse it where it is finished."""
    check_model(options)
    with start(options) as runtime:
        data = open_data(options, runtime)
        fingerprint = {**options.fingerprint(), "data": data.fingerprint()}
        print(options.describe())
        print(f"{len(data.videos)} training samples, {len(data.test.videos)} test videos, width {data.width}, "
              f"{options.modality}; {runtime.describe()}; "
              f"{', '.join(f'{name} {version}' for name, version in versions().items())}")  # fmt: skip
        print(f"data {fingerprint['data']}; {command_line()}")
        seed_everything(options.seed)
        model = IEFVAD(embed_dim=data.width, modality=options.modality, **options.group("model"))
        model = model.to(runtime.device)
        objective = Objective(config=model.config, **options.group("loss"))
        sampler = PairedBatches(
            data.videos, options.batch_size, options.paired, options.seed, runtime.rank, runtime.world
        )
        loader = DataLoader(
            data.windows,
            batch_sampler=sampler,
            collate_fn=_as_is,
            num_workers=min(4, available_cores()) if runtime.on_gpu or not data.windows.cached else 0,
            pin_memory=runtime.on_gpu,
        )
        content = train(model, objective, loader, data.test, options, fingerprint, runtime)
        return TrainedRun(content, data.test.protocol(content["weights"]))


def cache_folder(options: Options, test: TestSet, rows: Sequence[ListRow]) -> Path | None:
    """Where the training windows are kept: windows/ beside rgb/, --cache_dir, or None."""
    if options.cache_dir:
        return None if options.cache_dir == "none" else Path(options.cache_dir)
    return embedding_root(resolve_path(rows[0].path, test.feature_root)) / "windows"


def _as_is(batch: Batch) -> Batch:
    return batch


def train(
    model: IEFVAD,
    objective: Objective,
    loader: DataLoader,
    test: TestSet,
    options: Options,
    fingerprint: Mapping[str, object],
    runtime: Runtime,
) -> dict[str, Any]:
    """Train all steps that are left; returns the content of <exp_name>.pth, its weights aside."""
    sampler: PairedBatches = loader.batch_sampler
    fused = runtime.device.type in ("cpu", "cuda")  # one kernel for all tensors
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, fused=fused)
    log = RunLog(options, fingerprint, runtime, len(sampler), test.split)
    with runtime.main_process_first():
        saved = log.read()
    if saved and is_finished(saved, options):
        print(f"{log.files.last}: finished already, reused")
        return saved
    run = log.resume(saved, model, optimizer) if saved else Progress()
    network = runtime.wrap(model)
    losses: list[list[float]] = []  # since the last evaluation
    bar = tqdm(total=log.steps, initial=run.step, desc="training", unit="step",
               disable=not runtime.is_main_process or run.step >= log.steps)  # fmt: skip
    while run.step < log.steps:
        sampler.epoch, sampler.start = divmod(run.step, len(sampler))
        set_learning_rate(optimizer, options, sampler.epoch)
        for batch in loader:
            losses.append(train_step(model, network, objective, optimizer, batch, run.step, options, runtime))
            run.step += 1
            bar.update()
            bar.set_postfix(loss=f"{losses[-1][0]:.3f}")
            epoch_ends = run.step % len(sampler) == 0
            if evaluation_due(run.step, sampler, options):
                log.record(run, model, evaluate(model, test, options, runtime), losses, optimizer)
                losses = []
            if epoch_ends and options.rollback and run.best:
                model.load_state_dict(run.best["model"])  # the optimiser keeps its moments, as in the release
            if run.step < log.steps and (epoch_ends or (not losses and log.save_is_due())):
                log.save(run, model, optimizer)
    bar.close()
    if not run.rows or (options.keep == "last" and run.rows[-1]["step"] < run.step):
        log.record(run, model, evaluate(model, test, options, runtime), losses, optimizer)
    return log.finish(run, model)


def train_step(
    model: IEFVAD,
    network: Callable[..., IEFVADOutput],
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch | InputError,
    step: int,
    options: Options,
    runtime: Runtime,
) -> list[float]:
    """One optimiser step on this process's part of a batch; returns loss and terms of the whole batch.

    Raises InputError, before the weights are touched, where loss or gradient is not finite.
    """
    if isinstance(batch, InputError):
        raise batch
    model.train()
    seed_step(options.seed, step, runtime.rank)
    masked = options.padding == "masked"  # then a batch cut to its longest window gives the same numbers
    batch = batch.to(runtime.device, steps=int(batch.lengths.max()) if masked else None)
    with runtime.autocast():
        output = network(batch.streams.get("image"), batch.streams.get("event"), batch.lengths)
    # cross-entropy fails on NaN with an error of its own, so it is shown none
    clean = dataclasses.replace(output, logits=output.logits.nan_to_num())
    terms = objective.terms(clean, batch.lengths, batch.anomalous)
    terms = runtime.reweight(terms, batch.lengths, masked)
    loss = objective.total(terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    broken = ~output.logits.isfinite().flatten(1).all(1)
    # one transfer from the device a step
    *values, norm_value, broken_share = runtime.mean(
        torch.stack([loss, *terms, norm, broken.float().mean()]).detach()
    ).tolist()
    if broken_share or not math.isfinite(sum(values) + norm_value):
        refuse(batch, broken.tolist(), step, math.nan if broken_share else values[0], norm_value, runtime)
    optimizer.step()
    return values


def refuse(
    batch: Batch, broken: Sequence[bool], step: int, loss: float, norm: float, runtime: Runtime
) -> None:
    """End the run with one sentence about the step whose loss or gradient is not finite."""
    bad = [name for name, is_bad in zip(batch.names, broken, strict=True) if is_bad]
    parts = runtime.gather((bad, list(batch.names)))
    names = sorted({name for part in parts for name in part[0]} or {name for part in parts for name in part[1]})
    if not runtime.is_main_process:
        raise SystemExit(2)
    what = f"the gradient is {norm} (the loss {loss:.4g})" if math.isfinite(loss) else f"the loss is {loss}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    raise InputError(
        f"{what} at step {step + 1} (videos {', '.join(names[:NAMED])}{more}); look at their embeddings or lower "
        f"--lr; what was saved before is kept"
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, options: Options, epoch: int) -> None:
    """The rate of an epoch: it falls by `scheduler_rate` at every milestone (Appendix F.2)."""
    passed = sum(epoch >= milestone for milestone in options.scheduler_milestones)
    for group in optimizer.param_groups:
        group["lr"] = options.lr * options.scheduler_rate**passed


def evaluation_due(step: int, sampler: PairedBatches, options: Options) -> bool:
    """Whether the model is evaluated after this step.

    "epoch": where a multiple of `print_steps` videos was passed, and at each epoch's end. "released": after the
    steps i of an epoch, counted from 0, with i > 0 and i · videos a multiple of `print_steps` (11, 21, … on
    UCF-Crime), as in the authors' code.
    """
    at, interval = (step - 1) % len(sampler), options.print_steps
    if options.evaluate_at == "released":
        return at > 0 and at * sampler.videos % interval == 0
    passed = (at + 1) * sampler.videos // interval > at * sampler.videos // interval
    return passed or at == len(sampler) - 1


def evaluate(model: IEFVAD, test: TestSet, options: Options, runtime: Runtime) -> dict[str, float]:
    """Every metric of the model as it is; processes that train together share the videos."""
    part = dataclasses.replace(test, videos=list(runtime.shard(test.videos)))
    videos = runtime.merge(part.score(model, runtime.device, progress=False))
    return {k: float(v) for k, v in all_metrics(videos, test.dataset, ano_auc=options.ano_auc).items()}


@dataclass
class RunLog:
    """What a run leaves on disk, and how a stopped one resumes at the step it had reached.

    <exp_name>.pth is replaced as a whole: whatever ends the process, it is the old state or the new one.
    """

    options: Options
    fingerprint: Mapping[str, object]
    runtime: Runtime
    per_epoch: int
    split: str | None  # of the lists
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.files = RunFiles.of(self.options)
        self.metric = load_dataset(self.options.dataset).metric
        self.steps = self.options.max_epoch * self.per_epoch

    def record(
        self, run: Progress, model: IEFVAD, metrics: Mapping[str, float], losses: Sequence[Sequence[float]],
        optimizer: torch.optim.Optimizer,
    ) -> None:  # fmt: skip
        """Add an evaluation to the log; keep the weights if it is the best so far."""
        means = [sum(column) / len(losses) for column in zip(*losses, strict=True)] or [math.nan] * 6
        named = dict(zip(("loss", *(f"loss_{name}" for name in LossTerms._fields)), means, strict=True))
        lr = optimizer.param_groups[0]["lr"]
        row = {"step": run.step, "epoch": run.step // self.per_epoch, "lr": lr, **named, **metrics}
        run.rows.append(row)
        if run.best is None or rank(row[self.metric]) > rank(run.best["row"][self.metric]):
            run.best = {"row": row, "model": copy.deepcopy(model.state_dict())}
            self._write(self.files.best, model, run, "best", row)
        self._write_csv(run)

    def save(self, run: Progress, model: IEFVAD, optimizer: torch.optim.Optimizer) -> None:
        """Write all that the run needs to resume."""
        weights = "best" if self.options.rollback else "last"
        if run.step % self.per_epoch:
            weights = "unfinished"
        progress = {**vars(run), "seconds": self.seconds(run)}
        self._write(self.files.last, model, run, weights, run.rows[-1] if run.rows else {}, progress=progress,
                    optimizer=optimizer.state_dict())  # fmt: skip
        self.saved = time.monotonic()

    def save_is_due(self) -> bool:
        """Whether the last save is long ago; the main process's clock decides."""
        return self.runtime.is_main_process and time.monotonic() - self.saved > SAVE_SECONDS

    def finish(self, run: Progress, model: IEFVAD) -> dict[str, Any]:
        """Write the weights that are kept, without what only a resumed run needs."""
        row = run.rows[-1]
        if self.options.keep == "best":
            model.load_state_dict(run.best["model"])
            row = run.best["row"]
        return self._write(self.files.last, model, run, self.options.keep, row)

    def read(self) -> dict[str, Any] | None:
        """The content of <exp_name>.pth; None where there is none, or --overwrite replaces it.

        Raises InputError where that run was made with other options, naming the first that differs.
        """
        files = self.files
        if self.options.overwrite or not files.last.is_file():
            for path in (files.last, files.best, files.log) if self.runtime.is_main_process else ():
                path.unlink(missing_ok=True)
            return None
        content = read_checkpoint(files.last)
        recorded = recorded_fingerprint(content)
        for name, value in self.fingerprint.items():
            if recorded.get(name) != value:
                raise InputError(
                    f"{files.last} was trained with {name} {as_text(recorded.get(name))}, not {as_text(value)}; give "
                    f"another --exp_name, or replace it with --overwrite"
                )
        return content

    def resume(
        self, content: Mapping[str, Any], model: IEFVAD, optimizer: torch.optim.Optimizer
    ) -> Progress:  # fmt: skip
        """Take up the run in <exp_name>.pth; the other two files are brought to the same step."""
        if "progress" not in content:
            raise InputError(
                f"{self.files.last} is an unfinished run of an earlier version of this code; give another "
                f"--exp_name, or start it anew with --overwrite"
            )
        run = Progress(**content["progress"])
        if run.best:  # the file may be of an evaluation after the state was written
            model.load_state_dict(run.best["model"])
            self._write(self.files.best, model, run, "best", run.best["row"])
            self._write_csv(run)
        model.load_state_dict(content["model"])
        fused = [group["fused"] for group in optimizer.param_groups]
        optimizer.load_state_dict(content["optimizer"])
        for group, here in zip(optimizer.param_groups, fused, strict=True):
            group["fused"] = here  # the device decides, and it may be another now
        print(f"{self.files.last}: resumed after step {run.step}, epoch {run.step // self.per_epoch + 1}")
        return run

    def seconds(self, run: Progress) -> float:
        """Seconds of work in this run, stops not counted."""
        return run.seconds + time.monotonic() - self.began

    def _write(
        self, path: Path, model: IEFVAD, run: Progress, weights: str, row: Mapping[str, Any], **extra: Any
    ) -> dict[str, Any]:
        content = {
            "weights": weights,
            "rows": run.rows,
            "fingerprint": dict(self.fingerprint),
            "options": self.options.recorded(),
            "split": self.split,
            "seed": self.options.seed,
            "epoch": row.get("epoch", 0) if path == self.files.best else run.step // self.per_epoch,
            "step": row.get("step", 0) if path == self.files.best else run.step,
            "metrics": metrics_of(row),
            "computing": self.runtime.describe(),
            "seconds": self.seconds(run),
            "command": command_line(),
            "versions": versions(),
        }
        if self.runtime.is_main_process:
            save_checkpoint(path, model, **content, **extra)
        return {**content, "config": dataclasses.asdict(model.config)}

    def _write_csv(self, run: Progress) -> None:
        if self.runtime.is_main_process:
            text = io.StringIO()
            pd.DataFrame(run.rows).to_csv(text, index=False, float_format="%.6g")
            write_bytes(self.files.log, text.getvalue().encode())


def is_finished(content: Mapping[str, Any], options: Options) -> bool:
    """Whether a checkpoint is of a run that has nothing left to do."""
    return "progress" not in content and content["epoch"] >= options.max_epoch


def recorded_fingerprint(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint in a checkpoint, of this version or an earlier one; files keep lists for tuples."""
    if "fingerprint" in content:
        return {name: as_field(value) for name, value in content["fingerprint"].items()}
    if "identity" not in content:
        return {}
    identity = content["identity"]
    saved = {**upgrade(content), "seed": content["seed"], "precision": identity.get("precision", "fp32")}
    return {**resolve({}, saved).fingerprint(), "data": identity.get("data")}


def rank(value: float) -> float:
    """A metric for comparison: NaN is worse than every number."""
    return -math.inf if math.isnan(value) else value


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row of the log."""
    return {k: v for k, v in row.items() if k not in ("step", "epoch", "lr", "metrics") and not k.startswith("loss")}


def best_row(content: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """The best evaluation of a run; the first of equal ones."""
    return max(content["rows"], key=lambda row: rank(row[metric]))
