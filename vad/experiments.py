"""Plan seeds and sweeps, train them in parallel, and collect the results in <exp_name>_runs.csv."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import multiprocessing
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from vad.datasets import load_dataset
from vad.evaluation import Protocol, TestSet
from vad.files import InputError, read_text, write_bytes
from vad.options import MODALITIES, Options, as_text, option_fields, parse_value, resolve, upgrade
from vad.runtime import Runtime, available_cores, pick_device
from vad.statistics import seeds_needed
from vad.train import best_row, check_model, metrics_of, open_data, run_name, train_run

BEST = "best on test "  # prefix of columns whose metrics were selected on the test set
SHORT = {"N": "num_refinement_steps"}  # symbol in the paper → option
LOSS = "loss"  # swept name for the set of loss terms (Table 5)
LOSS_TERMS = {"reg": "lambda_reg", "kl": "lambda_kl"}  # loss term → its weight, 0 if the term is omitted
SWEPT_GROUPS = ("model", "loss", "avadclip", "avadclip_loss", "training", "evaluation")
REQUIRED_COLUMNS = ("run", "dataset", "profile", "modality", "seed", "weights")  # of a table of runs


# planning


@dataclass(frozen=True)
class PlannedRun:
    """One planned training run."""

    options: Options
    values: Mapping[str, str]  # swept name → value as text, in --sweep order
    is_base: bool  # the values equal those of a run without --sweep

    @property
    def name(self) -> str:
        """Base name of the run's files in the checkpoint folder."""
        return self.options.exp_name


def swept_names() -> list[str]:
    """Return every name that --sweep accepts."""
    options = [f.name for group in SWEPT_GROUPS for f in option_fields(group) if f.name != "paired"]
    return ["modality", "profile", LOSS, *options]


def short_name(name: str) -> str:
    """Return the paper's symbol of a swept name, if it has one, else the name."""
    return next((short for short, full in SHORT.items() if full == name), name)


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse `nu=2,4`, `N=0,10`, `loss=cls,cls+kl`, `modality=image,fusion` into swept names and values as text.

    Raises InputError for a text without `=` and for an unknown or repeated name. The same holds for an invalid or
    repeated value, and for `loss` together with a weight that it sets.
    """
    sweeps: dict[str, list[str]] = {}
    for text in texts:
        typed, _, values = text.partition("=")
        name = SHORT.get(typed.strip(), typed.strip())
        if not values.strip():
            raise InputError(f"--sweep takes name=value,value,… like nu=2,4,6, not {text!r}")
        if name not in swept_names():
            known = ", ".join(f"{n} ({short_name(n)})" if short_name(n) != n else n for n in swept_names())
            raise InputError(f"--sweep {typed}: unknown name. Known names: {known}.")
        if name in sweeps:
            raise InputError(f"--sweep {name} is set twice. Put all its values in one flag.")
        sweeps[name] = [_value_text(name, value.strip()) for value in values.split(",")]
        if len(set(sweeps[name])) < len(sweeps[name]):
            repeated = next(value for value in sweeps[name] if sweeps[name].count(value) > 1)
            raise InputError(f"--sweep {name}: the value {repeated} is repeated")
    for weight in LOSS_TERMS.values():
        if LOSS in sweeps and weight in sweeps:
            raise InputError(f"--sweep loss and --sweep {weight} both set {weight}. Sweep one of them.")
    return sweeps


def _value_text(name: str, text: str) -> str:
    """Return the normalised text of a swept value. Raises InputError for an invalid value."""
    if name == LOSS:
        terms = text.split("+")
        if not set(terms) <= {"cls", *LOSS_TERMS} or "cls" not in terms or len(set(terms)) < len(terms):
            raise InputError(f"--sweep loss: {text!r} is not one of cls, cls+reg, cls+kl, cls+kl+reg")
        return "+".join(["cls", *(term for term in ("kl", "reg") if term in terms)])
    try:
        value = parse_value(name, text)
    except InputError as error:
        raise InputError(f"--sweep {error}") from None
    return f"{value:g}" if isinstance(value, float) else text


def _explicit(name: str, text: str) -> dict[str, object]:
    """Return the options that a swept value sets."""
    if name == LOSS:
        return {weight: 0.0 for term, weight in LOSS_TERMS.items() if term not in text.split("+")}
    return {name: parse_value(name, text)}


def plan_runs(explicit: Mapping[str, object], sweep: Sequence[str], runs: int | None) -> list[PlannedRun]:
    """Return all runs of --runs and --sweep, ordered by seed, so that an early stop leaves complete comparisons.

    Raises InputError or ConfigError for invalid or incompatible values, before any run starts.
    """
    if runs is not None and runs < 1:
        raise InputError(f"--runs must be 1 or more, not {runs}")
    sweeps = parse_sweeps(sweep)
    base = resolve(explicit)
    experiment, plan = run_name(base), []
    for values in itertools.product(*sweeps.values()):
        point = dict(zip(sweeps, values, strict=True))
        effective = _effective(explicit, point)
        values = {**explicit, **_merged(effective)}
        check_model(resolve(values))
        parts = [_name_part(name, value) for name, value in effective.items()]
        suffix = "".join("_" + re.sub(r"[^\w.+=-]", "-", part) for part in parts)
        plan.append((values, point, suffix))
    # the seed may choose the split
    return [
        PlannedRun(resolve({**values, "exp_name": f"{experiment}{suffix}_seed{seed}", "seed": seed}), point, not suffix)
        for seed in range(base.seed, base.seed + (runs or 1))
        for values, point, suffix in plan
    ]


def _effective(explicit: Mapping[str, object], point: Mapping[str, str]) -> dict[str, str]:
    """Return the swept values that change the run. By default nu=8, for example, changes nothing."""
    effective = dict(point)
    for name in point:
        without = {other: value for other, value in effective.items() if other != name}
        pair = [resolve({**explicit, **_merged(values)}) for values in (effective, without)]
        if pair[0].fingerprint() == pair[1].fingerprint() and pair[0].profile == pair[1].profile:
            effective = without
    return effective


def _merged(point: Mapping[str, str]) -> dict[str, object]:
    return {k: v for name, text in point.items() for k, v in _explicit(name, text).items()}


def _name_part(name: str, value: str) -> str:
    # test.py --table finds the runs under these short names: `image`, `gaussian`
    return value.lower() if name in ("modality", "noise_model") else f"{short_name(name)}={value}"


# training


@dataclass(frozen=True)
class SweepResult:
    """The finished runs of a sweep, or of several seeds (`names` is empty)."""

    names: tuple[str, ...]  # swept names
    runs: pd.DataFrame  # text cells: rows of runs.csv, and a column "sweep <name>" per swept name
    base: tuple[str, ...] | None  # values of a run without --sweep, if among the swept ones
    protocol: Protocol
    planned: int
    failures: tuple[str, ...]
    log: Path  # <exp_name>_runs.csv
    tests: tuple[TestSet, ...]  # test sets of the runs
    differing: tuple[str, ...] = field(default=())  # protocol fields that differ between runs


def train_many(explicit: Mapping[str, object], sweep: Sequence[str], runs: int | None, jobs: int | None) -> SweepResult:
    """Train the unfinished runs of a plan, `jobs` at a time. A failed run does not stop the others.

    Raises InputError if a run cannot start. Ctrl-C terminates all runs and raises KeyboardInterrupt.
    """
    plan = plan_runs(explicit, sweep, runs)
    options = resolve(explicit)
    if "LOCAL_RANK" in os.environ:
        raise InputError("--runs and --sweep start their own processes. Do not use torchrun, or train one --seed.")
    tests = _open_all_data(plan)
    protocols = [test.protocol(test.options.keep) for test in tests]
    jobs = max(1, min(jobs or default_jobs(options.device), len(plan)))
    log = Path(options.checkpoint_dir) / f"{run_name(options)}_runs.csv"
    print(options.describe())
    print(f"{len(plan)} runs, {jobs} at a time. Log of each run: {_output(plan[0].options)}"
          f"{' …' if plan[1:] else ''}")  # fmt: skip
    print(spread_note(plan, log))
    rows, failures = _train_all(plan, jobs, log)
    done = [run for run in plan if run.name in rows]
    frame = pd.DataFrame([
        {**rows[run.name], **{f"sweep {name}": value for name, value in run.values.items()}} for run in done
    ])  # fmt: skip
    kinds = {rows[run.name]["weights"] for run in done}
    protocol = replace(protocols[0], weights=kinds.pop() if len(kinds) == 1 else "several")
    if protocol.dataset.split_per_run:
        protocol = replace(protocol, splits=len({p.split for p in protocols}))
        protocols = [replace(p, split=protocol.split) for p in protocols]
    differing = [name for name in ("split", "test_crops", "ano_auc", "noise_model")
                 if len({getattr(p, name) for p in protocols}) > 1]  # fmt: skip
    differing += ["weights"] if protocol.weights == "several" else []
    names = tuple(parse_sweeps(sweep))
    base = next((tuple(run.values.values()) for run in plan if run.is_base), None) if names else None
    return SweepResult(
        names, frame, base, protocol, len(plan), tuple(failures), log, tuple(tests), tuple(differing)
    )


def spread_note(plan: Sequence[PlannedRun], log: Path) -> str:
    """Return how many seeds would show a difference of one point, from the spread of the finished runs in `log`.

    The spread is that of the paired differences from the base; without a sweep, √2 times that over seeds.
    """
    metric = load_dataset(plan[0].options.dataset).metric
    finished = pd.to_numeric(read_runs(log).set_index("run")[metric]).dropna() if log.is_file() else {}
    values: dict[tuple[str, ...], dict[int, float]] = {}
    for run in plan:
        if run.name in finished:
            values.setdefault(tuple(run.values.values()), {})[run.options.seed] = finished[run.name]
    base = values.get(next((tuple(run.values.values()) for run in plan if run.is_base), ()), {})
    spreads = [
        np.std([value - base[seed] for seed, value in other.items() if seed in base], ddof=1)
        for other in values.values()
        if other is not base and len(base.keys() & other.keys()) > 1
    ]
    if not spreads and len(base) > 1:
        spreads = [2**0.5 * np.std(list(base.values()), ddof=1)]
    if not spreads:
        return "Each run is paired by seed. After two seeds, this line says how many show a difference of one point."
    std = float(np.sqrt(np.mean(np.square(spreads))))
    number = f"{seeds_needed(std)} seeds" if std else "2 seeds"
    return f"Spread so far: {metric} differs by ± {100 * std:.2f} points. To show one point takes about {number}."


def _open_all_data(plan: Sequence[PlannedRun]) -> list[TestSet]:
    """Check the data of every run and build its window cache, before any process starts."""
    opened: dict[object, TestSet] = {}
    for options in (run.options for run in plan):
        key = replace(options, exp_name="", seed=0, explicit=(), **_data_independent_options())
        if key not in opened:
            opened[key] = open_data(options, Runtime(pick_device("cpu"))).test
    return list(opened.values())


def _data_independent_options() -> dict[str, object]:
    """Return defaults of the options that affect neither the data nor the protocol."""
    names = [f.name for group in SWEPT_GROUPS if group != "evaluation" for f in option_fields(group)]
    return {name: getattr(Options, name) for name in names if name != "noise_model"}


def _train_all(plan: Sequence[PlannedRun], jobs: int, log: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Train all runs. Return the rows of runs.csv by run, and a message for each failed run."""
    rows: dict[str, dict[str, str]] = {}
    failures = []
    with _pool(jobs) as pool:
        futures = {pool.submit(train_quietly, run.options): run for run in plan}
        for future in tqdm(as_completed(futures), total=len(plan), desc="runs", unit="run"):
            run = futures[future]
            error = _error(future)
            if error:
                failures.append(f"{run.name} failed: {error} (log: {_output(run.options)})")
                continue
            row = run_row(run, future.result())
            write_rows(log, [row])
            rows[run.name] = row_as_text(row)
    return rows, failures


def _error(future: Future[Any]) -> str:
    """Return a one-line error message, or an empty string if the run succeeded."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return "a process was killed, perhaps out of memory. Run the same command again to resume."
    return "" if error is None else f"{str(error) or type(error).__name__}".splitlines()[0]


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that share their imports. An error in the block terminates them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # so that results do not depend on --jobs; read at the import of torch
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vad.train"])
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_parent)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _follow_parent() -> None:
    """Exit this process after its parent, since an orphaned run would collide with its restart."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(130)

    threading.Thread(target=wait, daemon=True).start()


def train_quietly(options: Options) -> dict[str, Any]:
    """Call `train_run` with its output in <exp_name>.log. Return the content of the checkpoint."""
    torch.set_num_threads(1)
    path = _output(options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            return dict(train_run(options).content)
        except Exception as error:
            print(f"error: {error}", file=log)
            raise


def _output(options: Options) -> Path:
    return Path(options.checkpoint_dir) / f"{options.exp_name}.log"


def default_jobs(device: str) -> int:
    """Return the number of parallel runs: one per CPU core, or one on a GPU, to fit its memory."""
    if device != "cpu" and (device != "auto" or torch.cuda.is_available()):
        return 1
    return available_cores()


# runs.csv


def run_row(run: PlannedRun, content: Mapping[str, Any]) -> dict[str, object]:
    """Return a run as a flat row: metrics of the kept weights, and with prefix `BEST` of the best evaluation."""
    options = upgrade(content)
    groups = (*SWEPT_GROUPS, "metrics", "masking", "preparation", "data", "method")
    names = [f.name for group in groups for f in option_fields(group)]
    first_columns = ("dataset", "profile", "modality")
    others = {name: as_text(options[name]) for name in names if name in options and name not in first_columns}
    dataset = load_dataset(str(options["dataset"]))
    best = best_row(content, dataset.metric)
    return {
        "run": run.name,
        "checkpoint": f"{run.name}.pth",
        "curve": f"{run.name}.csv",
        "dataset": dataset.name,
        "profile": options["profile"],
        "modality": options["modality"],
        "seed": content["seed"],
        **others,
        "split": content.get("split", options.get("split")) or "not recorded",
        "data": content.get("fingerprint", content.get("identity", {})).get("data"),
        **content.get("versions", {}),
        "parameters": content.get("parameters"),
        **{name: content.get(name) for name in ("computing", "seconds", "command", "weights", "epoch", "step")},
        **content["metrics"],
        **{f"{BEST}{name}": best[name] for name in ("epoch", "step", *metrics_of(best))},
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to runs.csv. A new row replaces the old row of the same run.

    The write is atomic, and a lock lets two sweeps of one experiment write concurrently.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        old = read_runs(path).to_dict("records") if path.is_file() else []
        merged = {row["run"]: row for row in [*old, *rows]}
        write_bytes(path, _csv(list(merged.values())).encode())


def row_as_text(row: Mapping[str, object]) -> dict[str, str]:
    """Return a row with text cells, as `read_runs` does."""
    return pd.read_csv(io.StringIO(_csv([row])), dtype=str, keep_default_na=False).to_dict("records")[0]


def read_runs(path: Path) -> pd.DataFrame:
    """Read a table of runs with text cells. Raises InputError for any other file."""
    text = read_text(path, "table of runs")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not a table of runs ({str(error).strip()}). main.py --runs writes one.") from None
    missing = [name for name in REQUIRED_COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path} is not a table of runs (no column {', '.join(missing)}). main.py --runs writes one.")
    return table


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    return pd.DataFrame(rows).to_csv(index=False)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder. The system releases the lock of a killed process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # the file system may not support locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# finding finished runs

SWEEP_COMMAND = "python main.py --dataset {name} --runs 10 --sweep "
FURTHER_SWEEPS = "N=0,10,20,30,40, epsilon=1e-4,1e-6,1e-8 and lambda_ref=0.1,0.3,0.5,0.7,0.9"
TABLE_COMMANDS = {  # table of the paper → command that makes it
    **dict.fromkeys((3, 4), f"{SWEEP_COMMAND}nu=2,4,6,8,10, and the same with --sweep {FURTHER_SWEEPS}"),
    5: f"{SWEEP_COMMAND}loss=cls,cls+reg,cls+kl,cls+kl+reg",
    **dict.fromkeys((6, 7, 8, 9), "python test2.py --dataset {name} --ckpt_path CHECKPOINT"),
}
# table of the paper → further runs in it: suffix of --exp_name → flags of main.py
RELATED_RUNS = {
    1: {"gaussian": "--noise_model Gaussian"},
    2: {"image": "--modality image", "event": "--modality event"},
}


def find_runs(explicit: Mapping[str, object], runs: int, table: int | None) -> tuple[list[Path], list[str]]:
    """Return the checkpoints <exp_name>_seed0 … of main.py --runs, and notes on related runs that are missing.

    Raises InputError for a missing main run, with the command that trains it.
    """
    if runs < 1:
        raise InputError(f"--runs must be 1 or more, not {runs}")
    options = resolve(explicit)
    dataset, base = load_dataset(options.dataset), run_name(options)
    paths, missing = _seeds(options, base, runs)
    if missing:
        raise InputError(f"{missing}: no such run. Train it with {train_command(dataset, base, runs)}")
    notes = []
    for suffix, flags in RELATED_RUNS.get(table, {}).items():
        name = _related_name(base, suffix)
        related, missing = _seeds(options, name, runs)
        if missing:
            command = train_command(dataset, name, runs, flags)
            notes.append(f"The {suffix} runs are missing ({missing.name}). Train them with {command}.")
        else:
            paths += related
    return paths, notes


def _seeds(options: Options, base: str, runs: int) -> tuple[list[Path], Path | None]:
    """Return the paths of seeds 0 … runs − 1 of a run name, and the first path that is missing."""
    paths = [Path(options.checkpoint_dir) / f"{base}_seed{seed}.pth" for seed in range(runs)]
    return paths, next((path for path in paths if not path.is_file()), None)


def _related_name(base: str, suffix: str) -> str:
    """Return the name of related runs: demo → demo_image, demo/fusion → demo/image, demo/fusion_gaussian."""
    path = Path(base)
    return str(path.with_name(suffix)) if path.name == "fusion" and suffix in MODALITIES else f"{base}_{suffix}"


def train_command(dataset: Any, base: str, runs: int, flags: str = "") -> str:
    """Return the command that trains these runs."""
    name_flag = "" if base == dataset.name else f"--exp_name {base}"
    return " ".join(f"python main.py --dataset {dataset.flag_value} {flags} {name_flag} --runs {runs}".split())
