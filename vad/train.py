"""Training loop with intermediate evaluation and exact resume (Section 3.6, Appendix F.2)."""

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

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from tqdm import tqdm

from model import (
    IEFVAD,
    IEFVADConfig,
    IEFVADOutput,
    LossTerms,
    Objective,
    save_checkpoint,
)
from model.avadclip import AVadCLIP, AVadCLIPOutput, AVadCLIPTerms, save_avadclip
from vad.avadclip.method import AVadCLIPLoss, build_avadclip_network, check_avadclip
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
    load_embedding,
    read_list,
    resolve_path,
)
from vad.datasets import load_dataset
from vad.evaluation import Network, Protocol, TestSet, open_test_set, read_any
from vad.files import InputError, write_bytes
from vad.localisation import alarm_threshold, normal_hours
from vad.metrics import ALIGNMENT
from vad.metrics import evaluate as all_metrics
from vad.options import Options, as_field, as_text, resolve, upgrade
from vad.prepare.ground_truth import recorded_encoders
from vad.runtime import Runtime, available_cores, command_line, seed_everything, seed_step, start, versions

SAVE_SECONDS = 120  # longest time between two saves of the state, which is also saved after each epoch
FEW_STEPS = 100  # a run below this gets a warning
MAX_NAMED_VIDEOS = 8  # in an error about a batch


@dataclass
class Progress:
    """Progress of a run. With weights and optimiser it is the full state to resume from."""

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # one per evaluation
    best: dict[str, Any] | None = None  # "row" and "model" of the best evaluation
    seconds: float = 0.0  # spent in earlier processes


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: the content of its checkpoint, its test set, and the protocol of its metrics."""

    content: Mapping[str, Any]
    test: TestSet
    protocol: Protocol


@dataclass(frozen=True)
class RunFiles:
    """Files of a run: <exp_name>.pth (state, finally the kept weights), <exp_name>_best.pth, <exp_name>.csv.

    A single finished run also has the pretrained folder <exp_name>_pretrained.
    """

    last: Path
    best: Path
    log: Path
    pretrained: Path

    @classmethod
    def of(cls, options: Options) -> RunFiles:
        """Return the files in the checkpoint folder of the options."""
        name = Path(options.checkpoint_dir) / run_name(options)
        return cls(*(name.with_name(name.name + end) for end in (".pth", "_best.pth", ".csv", "_pretrained")))


def run_name(options: Options) -> str:
    """Return --exp_name, or by default the name of the data set, and of another method or modality."""
    suffix = f"_{options.modality}" if options.modality != "fusion" else ""
    if options.method == "avadclip":
        suffix = "_avadclip_student" if options.student else "_avadclip"
    return options.exp_name or load_dataset(options.dataset).name + suffix


def check_model(options: Options) -> None:
    """Raise ConfigError for options that the network or the objective does not accept."""
    if options.method == "avadclip":
        return check_avadclip(options, load_dataset(options.dataset))
    config = IEFVADConfig(embed_dim=options.visual_head, modality=options.modality, **options.group("model"))
    Objective(config=config, **options.group("loss"))


@dataclass(frozen=True)
class TrainingData:
    """The checked input data of a run."""

    test: TestSet
    videos: list[Video]
    widths: Mapping[str, int]  # stream → D
    windows: Windows

    @property
    def encoders(self) -> dict[str, dict[str, Any]]:
        """Encoder of each stream, see `recorded_encoders`. Raises InputError if those of the two sides differ."""
        return recorded_encoders([*self.videos, *self.test.crops])

    def fingerprint(self) -> str:
        """Return a hash of the lists, the ground truth, and some embeddings."""
        test = self.test
        return data_fingerprint([*self.videos, *test.crops], [test.train_list, test.test_list, test.gt_path])


def open_data(options: Options, runtime: Runtime) -> TrainingData:
    """Open test set and training windows, and build the window cache. Raises InputError for invalid data."""
    dataset = load_dataset(options.dataset)
    test = open_test_set(options, dataset)
    rows = read_list(test.train_list, dataset)
    # a student is tested on images alone, but its teacher needs the sound of the training videos
    modality = "image+audio" if options.teacher else options.modality
    videos, widths = find_videos(rows, dataset, test.feature_root, modality)
    for stream, other in test.widths.items():
        if (width := widths[stream]) != other:
            problem = f"{test.train_list} has {stream} embeddings of width {width}, but {test.test_list} has {other}"
            raise InputError(f"{problem}. Extract both with the same encoder.")
    check_values(test.crops, options.nan, widths)
    with runtime.main_process_first():
        windows = Windows(videos, options.window, options.nan, widths, cache_folder(options, test, rows))
    if not windows.cached:
        check_values(videos, options.nan, widths)
    return TrainingData(test, videos, widths, windows)


def train_run(options: Options) -> TrainedRun:
    """Train one run. Resume it if it is unfinished, and reuse it if it is finished."""
    check_model(options)
    with start(options) as runtime:
        if options.method == "avadclip" and runtime.world > 1:
            raise InputError("--method avadclip trains in one process. Start it without torchrun.")
        data = open_data(options, runtime)
        fingerprint = {**options.fingerprint(), "data": data.fingerprint()}
        print(options.describe())
        print(f"{len(data.videos)} training samples, {len(data.test.videos)} test videos, width "
              f"{', '.join(map(str, dict.fromkeys(data.widths.values())))}, "
              f"{'+'.join(data.widths)}; {runtime.describe()}; "
              f"{', '.join(f'{name} {version}' for name, version in versions().items())}")  # fmt: skip
        print(f"data {fingerprint['data']}; {command_line()}")
        seed_everything(options.seed)
        model = build_network(options, data).to(runtime.device)
        objective = build_objective(model, options, data)
        sampler = PairedBatches(
            data.videos, options.batch_size, options.paired, options.seed, runtime.rank, runtime.world
        )
        loader = DataLoader(
            data.windows,
            batch_sampler=sampler,
            collate_fn=_identity,
            num_workers=min(4, available_cores()) if runtime.on_gpu or not data.windows.cached else 0,
            pin_memory=runtime.on_gpu,
        )
        print(describe_size(model, options.max_epoch * len(sampler)))
        content = train(model, objective, loader, data, options, fingerprint, runtime)
        return TrainedRun(content, data.test, data.test.protocol(content["weights"]))


def describe_size(model: Network, steps: int) -> str:
    """Return the numbers of parameters and steps as text, with a warning for a run of very few steps."""
    text = f"{parameter_count(model) / 1e6:.2f} million parameters, {steps} training steps"
    if steps >= FEW_STEPS:
        return text
    return f"{text}\nwarning: fewer than {FEW_STEPS} steps train little. Raise --max_epoch, or lower --batch_size."


def parameter_count(model: Network) -> int:
    """Return the number of trained numbers."""
    return sum(weight.numel() for weight in model.parameters())


def build_objective(model: Network, options: Options, data: TrainingData) -> Objective | AVadCLIPLoss:
    """Return the training loss of a network on its device."""
    if isinstance(model, AVadCLIP):
        return AVadCLIPLoss.of(options, model, data.videos, data.test.dataset)
    return Objective(config=model.config, **options.group("loss"))


def build_network(options: Options, data: TrainingData) -> Network:
    """Return the untrained network, with principal components of the training videos if --pca is set."""
    if options.method == "avadclip":
        return build_avadclip_network(options, data.test.dataset, data.widths, data.videos[0])
    pca, snippets = options.pca, sum(video.snippets for video in data.videos)
    if pca > min(snippets, smallest := min(data.widths.values())):
        size = f"{snippets} snippets of width {smallest}"
        raise InputError(f"--pca {pca} is too large: the training videos have {size}. Lower it.")
    width = next(iter(data.widths.values()))
    sizes = {"embed_dim": pca or width, "input_dim": width if pca else 0, "audio_dim": data.widths.get("audio", 0)}
    model = IEFVAD(**sizes, modality=options.modality, **options.group("model"))
    for name in data.videos[0].streams if pca else ():
        x = np.concatenate([load_embedding(video.streams[name], options.nan) for video in data.videos])
        getattr(model, f"{name}_projection").fit(torch.from_numpy(x))
    return model


def cache_folder(options: Options, test: TestSet, rows: Sequence[ListRow]) -> Path | None:
    """Return the folder of the window cache: --cache_dir, or windows/ beside rgb/. None disables the cache."""
    if options.cache_dir:
        return None if options.cache_dir == "none" else Path(options.cache_dir)
    return embedding_root(resolve_path(rows[0].path, test.feature_root)) / "windows"


def _identity(batch: Batch) -> Batch:
    return batch


def train(
    model: Network,
    objective: Objective | AVadCLIPLoss,
    loader: DataLoader,
    data: TrainingData,
    options: Options,
    fingerprint: Mapping[str, object],
    runtime: Runtime,
) -> dict[str, Any]:
    """Train the remaining steps. Return the content of <exp_name>.pth without the weights."""
    sampler: PairedBatches = loader.batch_sampler
    fused = runtime.device.type in ("cpu", "cuda")  # faster: one kernel for all tensors
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, fused=fused)
    log = RunLog(options, fingerprint, runtime, len(sampler), data)
    with runtime.main_process_first():
        saved = log.read()
    if saved and is_finished(saved, options):
        print(f"{log.files.last}: already finished, reused")
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
                log.record(run, model, evaluate(model, data.test, options, runtime), losses, optimizer)
                losses = []
            if epoch_ends and options.rollback and run.best:
                model.load_state_dict(run.best["model"])  # the optimiser keeps its moments, as in the released code
            if run.step < log.steps and (epoch_ends or (not losses and log.save_is_due())):
                log.save(run, model, optimizer)
    bar.close()
    if not run.rows or (options.keep == "last" and run.rows[-1]["step"] < run.step):
        log.record(run, model, evaluate(model, data.test, options, runtime), losses, optimizer)
    return log.finish(run, model)


def train_step(
    model: Network,
    network: Callable[..., IEFVADOutput | AVadCLIPOutput],
    objective: Objective | AVadCLIPLoss,
    optimizer: torch.optim.Optimizer,
    batch: Batch | InputError,
    step: int,
    options: Options,
    runtime: Runtime,
) -> list[float]:
    """Take one optimiser step on the share of this process. Return loss and loss terms of the whole batch.

    Raises InputError if loss or gradient is not finite. The weights are then unchanged.
    """
    if isinstance(batch, InputError):
        raise batch
    model.train()
    seed_step(options.seed, step, runtime.rank)
    masked = options.padding == "masked"  # then truncating the batch to its longest window is exact
    batch = batch.to(runtime.device, steps=int(batch.lengths.max()) if masked else None)
    streams = drop_streams(batch.streams, options.drop_stream) if options.drop_stream else batch.streams
    with runtime.autocast():
        output = network(**streams, lengths=batch.lengths)
    # cross-entropy raises its own error for NaN, so NaN is replaced here and reported below
    clean = dataclasses.replace(output, logits=output.logits.nan_to_num())
    if isinstance(objective, AVadCLIPLoss):
        terms = objective.terms(clean, batch)
    else:
        terms = objective.terms(clean, batch.lengths, batch.anomalous)
    terms = runtime.reweight(terms, batch.lengths, masked)
    loss = objective.total(terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    invalid = ~output.logits.isfinite().flatten(1).all(1)
    # a single transfer from the device per step
    *values, norm_value, invalid_share = runtime.mean(
        torch.stack([loss, *terms, norm, invalid.float().mean()]).detach()
    ).tolist()
    if invalid_share or not math.isfinite(sum(values) + norm_value):
        raise_not_finite(batch, invalid.tolist(), step, math.nan if invalid_share else values[0], norm_value, runtime)
    optimizer.step()
    return values


def drop_streams(streams: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Replace each stream of each video by zeros with probability `share`, but never all streams of a video."""
    kept = torch.rand(len(next(iter(streams.values()))), len(streams)) >= share  # (B, K)
    kept |= ~kept.any(1, keepdim=True)
    return {name: x * kept[:, k, None, None].to(x) for k, (name, x) in enumerate(streams.items())}


def raise_not_finite(
    batch: Batch, invalid: Sequence[bool], step: int, loss: float, norm: float, runtime: Runtime
) -> None:
    """Raise InputError for a step with infinite or NaN loss or gradient, naming the videos."""
    invalid_names = [name for name, is_invalid in zip(batch.names, invalid, strict=True) if is_invalid]
    parts = runtime.gather((invalid_names, list(batch.names)))
    names = sorted({name for part in parts for name in part[0]} or {name for part in parts for name in part[1]})
    if not runtime.is_main_process:
        raise SystemExit(2)
    problem = f"the gradient is {norm} (the loss {loss:.4g})" if math.isfinite(loss) else f"the loss is {loss}"
    others = f" and {len(names) - MAX_NAMED_VIDEOS} more" if len(names) > MAX_NAMED_VIDEOS else ""
    raise InputError(
        f"{problem} at step {step + 1} (videos {', '.join(names[:MAX_NAMED_VIDEOS])}{others}). Check their embeddings "
        f"or lower --lr. The last saved state is kept."
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, options: Options, epoch: int) -> None:
    """Set the learning rate of an epoch: every milestone multiplies it by `scheduler_rate` (Appendix F.2)."""
    passed = sum(epoch >= milestone for milestone in options.scheduler_milestones)
    for group in optimizer.param_groups:
        group["lr"] = options.lr * options.scheduler_rate**passed


def evaluation_due(step: int, sampler: PairedBatches, options: Options) -> bool:
    """Return whether the model is evaluated after this step.

    "epoch": after every `print_steps` videos of an epoch, and at its end. "released": after step i > 0 of an epoch,
    counted from 0, if i · videos is a multiple of `print_steps`, as in the released code. On UCF-Crime these are
    the 11th, 21st, … step.
    """
    i, interval = (step - 1) % len(sampler), options.print_steps
    if options.evaluate_at == "released":
        return i > 0 and i * sampler.videos % interval == 0
    passed = (i + 1) * sampler.videos // interval > i * sampler.videos // interval
    return passed or i == len(sampler) - 1


def evaluate(model: Network, test: TestSet, options: Options, runtime: Runtime) -> dict[str, float]:
    """Return every metric of the current model. The processes share the test videos."""
    part = dataclasses.replace(test, videos=list(runtime.shard(test.videos)))
    videos = runtime.merge(part.score(model, runtime.device, progress=False))
    values = all_metrics(videos, test.dataset, ano_auc=options.ano_auc)
    return {**{k: float(v) for k, v in values.items()}, "threshold": alarm_threshold(videos, test.dataset)}


@dataclass
class RunLog:
    """Log and checkpoints of a run on disk, from which an interrupted run resumes.

    <exp_name>.pth is written atomically: after any interruption it has either the old or the new state.
    """

    options: Options
    fingerprint: Mapping[str, object]
    runtime: Runtime
    per_epoch: int
    data: TrainingData
    started: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.files = RunFiles.of(self.options)
        dataset = load_dataset(self.options.dataset)
        self.metric = ALIGNMENT["AP"] if self.options.method == "avadclip" else dataset.metric
        self.encoders, self.hours = self.data.encoders, normal_hours(self.data.test.videos, dataset)
        self.steps = self.options.max_epoch * self.per_epoch

    def record(
        self, run: Progress, model: Network, metrics: Mapping[str, float], losses: Sequence[Sequence[float]],
        optimizer: torch.optim.Optimizer,
    ) -> None:  # fmt: skip
        """Add an evaluation to the log. Save the weights if it is the best so far."""
        terms = AVadCLIPTerms if isinstance(model, AVadCLIP) else LossTerms
        names = ("loss", *(f"loss_{name}" for name in terms._fields))
        means = [sum(column) / len(losses) for column in zip(*losses, strict=True)] or [math.nan] * len(names)
        loss_means = dict(zip(names, means, strict=True))
        lr = optimizer.param_groups[0]["lr"]
        row = {"step": run.step, "epoch": run.step // self.per_epoch, "lr": lr, **loss_means, **metrics}
        run.rows.append(row)
        if run.best is None or nan_as_lowest(row[self.metric]) > nan_as_lowest(run.best["row"][self.metric]):
            run.best = {"row": row, "model": copy.deepcopy(model.state_dict())}
            self._write(self.files.best, model, run, "best", row)
        self._write_csv(run)

    def save(self, run: Progress, model: Network, optimizer: torch.optim.Optimizer) -> None:
        """Write the full state that a resumed run needs."""
        weights = "best" if self.options.rollback else "last"
        if run.step % self.per_epoch:
            weights = "unfinished"
        progress = {**vars(run), "seconds": self.seconds(run)}
        self._write(self.files.last, model, run, weights, run.rows[-1] if run.rows else {}, progress=progress,
                    optimizer=optimizer.state_dict())  # fmt: skip
        self.saved = time.monotonic()

    def save_is_due(self) -> bool:
        """Return whether the last save is older than `SAVE_SECONDS`, on the main process only."""
        return self.runtime.is_main_process and time.monotonic() - self.saved > SAVE_SECONDS

    def finish(self, run: Progress, model: Network) -> dict[str, Any]:
        """Write the final weights, without the state for resuming."""
        row = run.rows[-1]
        if self.options.keep == "best":
            model.load_state_dict(run.best["model"])
            row = run.best["row"]
        return self._write(self.files.last, model, run, self.options.keep, row)

    def read(self) -> dict[str, Any] | None:
        """Return the content of <exp_name>.pth, or None if it is missing or --overwrite is set.

        Raises InputError if that run has different options, and names the first of them.
        """
        files = self.files
        if self.options.overwrite or not files.last.is_file():
            for path in (files.last, files.best, files.log) if self.runtime.is_main_process else ():
                path.unlink(missing_ok=True)
            return None
        content = read_any(files.last)
        recorded = recorded_fingerprint(content)
        for name, value in self.fingerprint.items():
            before = recorded.get(name, getattr(Options, name, None))  # an older run has the default of a new option
            if before != value:
                raise InputError(
                    f"{files.last} was trained with {name} {as_text(before)}, not {as_text(value)}. Set "
                    f"another --exp_name, or replace it with --overwrite."
                )
        return content

    def resume(
        self, content: Mapping[str, Any], model: Network, optimizer: torch.optim.Optimizer
    ) -> Progress:  # fmt: skip
        """Resume the run in <exp_name>.pth. The other two files are rewritten to the same step."""
        if "progress" not in content:
            raise InputError(
                f"{self.files.last} is an unfinished run of an earlier version of this code. Set another "
                f"--exp_name, or restart it with --overwrite."
            )
        run = Progress(**content["progress"])
        if run.best:  # the files may be newer than the saved state
            model.load_state_dict(run.best["model"])
            self._write(self.files.best, model, run, "best", run.best["row"])
            self._write_csv(run)
        model.load_state_dict(content["model"])
        fused = [group["fused"] for group in optimizer.param_groups]
        optimizer.load_state_dict(content["optimizer"])
        for group, value in zip(optimizer.param_groups, fused, strict=True):
            group["fused"] = value  # depends on the device, which may have changed
        print(f"{self.files.last}: resumed after step {run.step}, epoch {run.step // self.per_epoch + 1}")
        return run

    def seconds(self, run: Progress) -> float:
        """Return the seconds spent on this run, without interruptions."""
        return run.seconds + time.monotonic() - self.started

    def _write(
        self, path: Path, model: Network, run: Progress, weights: str, row: Mapping[str, Any], **extra: Any
    ) -> dict[str, Any]:
        content = {
            "weights": weights,
            "rows": run.rows,
            "fingerprint": dict(self.fingerprint),
            "options": self.options.recorded(),
            "split": self.data.test.split,
            "protocol": self.data.test.recorded(),
            "encoders": self.encoders,
            "threshold": {
                "value": row.get("threshold", math.nan),
                "source": f"one false alarm per hour in {self.hours:.2g} hours of normal test videos",
            },
            "seed": self.options.seed,
            "epoch": row.get("epoch", 0) if path == self.files.best else run.step // self.per_epoch,
            "step": row.get("step", 0) if path == self.files.best else run.step,
            "metrics": metrics_of(row),
            "parameters": parameter_count(model),
            "computing": self.runtime.describe(),
            "seconds": self.seconds(run),
            "command": command_line(),
            "versions": versions(),
        }
        if self.runtime.is_main_process:
            save = save_avadclip if isinstance(model, AVadCLIP) else save_checkpoint
            save(path, model, **content, **extra)
        return {**content, "config": dataclasses.asdict(model.config)}

    def _write_csv(self, run: Progress) -> None:
        if self.runtime.is_main_process:
            text = io.StringIO()
            pd.DataFrame(run.rows).to_csv(text, index=False, float_format="%.6g")
            write_bytes(self.files.log, text.getvalue().encode())


def is_finished(content: Mapping[str, Any], options: Options) -> bool:
    """Return whether a checkpoint is of a finished run."""
    return "progress" not in content and content["epoch"] >= options.max_epoch


def recorded_fingerprint(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of a checkpoint of this or an earlier version, with tuples in place of lists."""
    if "fingerprint" in content:
        return {name: as_field(value) for name, value in content["fingerprint"].items()}
    if "identity" not in content:
        return {}
    identity = content["identity"]
    saved = {**upgrade(content), "seed": content["seed"], "precision": identity.get("precision", "fp32")}
    return {**resolve({}, saved).fingerprint(), "data": identity.get("data")}


def nan_as_lowest(value: float) -> float:
    """Return a metric for comparison, −∞ in place of NaN."""
    return -math.inf if math.isnan(value) else value


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row of the log."""
    others = ("step", "epoch", "lr", "metrics", "threshold")
    return {k: v for k, v in row.items() if k not in others and not k.startswith("loss")}


def best_row(content: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the row of the best evaluation of a run, the first one in case of ties."""
    return max(content["rows"], key=lambda row: nan_as_lowest(row[metric]))
