"""Many runs: seeds and sweeps planned, trained several at a time, collected in <exp_name>_runs.csv."""

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

import pandas as pd
import torch
from tqdm import tqdm

from vad.datasets import load_dataset
from vad.evaluation import Protocol
from vad.files import InputError, read_text, write_bytes
from vad.options import MODALITIES, Options, as_text, option_fields, parse_value, resolve, upgrade
from vad.runtime import Runtime, available_cores, pick_device
from vad.train import best_row, check_model, metrics_of, open_data, run_name, train_run

BEST = "best on test "  # begins the columns of numbers that were selected on the test set
SHORT = {"N": "num_refinement_steps"}  # as the paper writes it
LOSS = "loss"  # Table 5's column: which terms of the loss are used
LOSS_TERMS = {"reg": "lambda_reg", "kl": "lambda_kl"}  # term → the weight that is 0 without it
SWEPT_GROUPS = ("model", "loss", "training", "evaluation")
NEEDED = ("run", "dataset", "profile", "modality", "seed", "weights")  # columns of a table of runs


# what to train


@dataclass(frozen=True)
class PlannedRun:
    """One training run of a plan."""

    options: Options
    values: Mapping[str, str]  # swept name → value as text, in the order of the --sweep flags
    is_base: bool  # whether these values change nothing

    @property
    def name(self) -> str:
        """Of its files in the checkpoint folder."""
        return self.options.exp_name


def swept_names() -> list[str]:
    """Every name that --sweep takes."""
    options = [f.name for group in SWEPT_GROUPS for f in option_fields(group) if f.name != "paired"]
    return ["modality", "profile", LOSS, *options]


def short_name(name: str) -> str:
    """A swept name as the paper writes it, where it has one."""
    return next((short for short, full in SHORT.items() if full == name), name)


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[str]]:
    """Swept names and their values as text, from `nu=2,4`, `N=0,10`, `loss=cls,cls+kl`, `modality=image,fusion`.

    Raises InputError for a text without `=`, an unknown name, one that is given twice, a value that does not fit
    or stands twice, and for `loss` beside a weight it sets.
    """
    sweeps: dict[str, list[str]] = {}
    for text in texts:
        given, _, values = text.partition("=")
        name = SHORT.get(given.strip(), given.strip())
        if not values.strip():
            raise InputError(f"--sweep takes name=value,value,… like nu=2,4,6; got {text!r}")
        if name not in swept_names():
            known = ", ".join(f"{n} ({short_name(n)})" if short_name(n) != n else n for n in swept_names())
            raise InputError(f"--sweep {given}: unknown name; known are {known}")
        if name in sweeps:
            raise InputError(f"--sweep {name} is given twice; put all its values in one")
        sweeps[name] = [_value_text(name, value.strip()) for value in values.split(",")]
        if len(set(sweeps[name])) < len(sweeps[name]):
            twice = next(value for value in sweeps[name] if sweeps[name].count(value) > 1)
            raise InputError(f"--sweep {name}: {twice} stands twice")
    for weight in LOSS_TERMS.values():
        if LOSS in sweeps and weight in sweeps:
            raise InputError(f"--sweep loss and --sweep {weight} both set {weight}; sweep one of them")
    return sweeps


def _value_text(name: str, text: str) -> str:
    """A swept value as names and tables have it; InputError for one that does not fit."""
    if name == LOSS:
        terms = text.split("+")
        if not set(terms) <= {"cls", *LOSS_TERMS} or "cls" not in terms or len(set(terms)) < len(terms):
            raise InputError(f"--sweep loss: {text!r} is none of cls, cls+reg, cls+kl, cls+kl+reg")
        return "+".join(["cls", *(term for term in ("kl", "reg") if term in terms)])
    try:
        value = parse_value(name, text)
    except InputError as error:
        raise InputError(f"--sweep {error}") from None
    return f"{value:g}" if isinstance(value, float) else text


def _explicit(name: str, text: str) -> dict[str, object]:
    """The options that a swept value sets."""
    if name == LOSS:
        return {weight: 0.0 for term, weight in LOSS_TERMS.items() if term not in text.split("+")}
    return {name: parse_value(name, text)}


def plan_runs(explicit: Mapping[str, object], sweep: Sequence[str], runs: int | None) -> list[PlannedRun]:
    """Every run that --runs and --sweep ask for, seed by seed: an early stop leaves whole comparisons behind.

    Raises InputError or ConfigError for a value that does not go with the rest, before anything runs.
    """
    if runs is not None and runs < 1:
        raise InputError(f"--runs must be 1 or more; got {runs}")
    sweeps = parse_sweeps(sweep)
    base = resolve(explicit)
    experiment, plan = run_name(base), []
    for values in itertools.product(*sweeps.values()):
        point = dict(zip(sweeps, values, strict=True))
        effective = _effective(explicit, point)
        options = resolve({**explicit, **_merged(effective)})
        check_model(options)
        parts = [_name_part(name, value) for name, value in effective.items()]
        suffix = "".join("_" + re.sub(r"[^\w.+=-]", "-", part) for part in parts)
        plan.append((options, point, suffix))
    seeds = range(base.seed, base.seed + (runs or 1))
    return [
        PlannedRun(replace(options, exp_name=f"{experiment}{suffix}_seed{seed}", seed=seed), point, not suffix)
        for seed in seeds
        for options, point, suffix in plan
    ]


def _effective(explicit: Mapping[str, object], point: Mapping[str, str]) -> dict[str, str]:
    """The swept values that change anything: nu=8 is in force anyway, so its run is the run without it."""
    kept = dict(point)
    for name in point:
        without = {other: value for other, value in kept.items() if other != name}
        pair = [resolve({**explicit, **_merged(values)}) for values in (kept, without)]
        if pair[0].fingerprint() == pair[1].fingerprint() and pair[0].profile == pair[1].profile:
            kept = without
    return kept


def _merged(point: Mapping[str, str]) -> dict[str, object]:
    return {k: v for name, text in point.items() for k, v in _explicit(name, text).items()}


def _name_part(name: str, value: str) -> str:
    # `image` and `gaussian` speak for themselves, and test.py --table looks for them so
    return value.lower() if name in ("modality", "noise_model") else f"{short_name(name)}={value}"


# training


@dataclass(frozen=True)
class SweepResult:
    """Finished runs of a sweep, or of seeds alone (`names` empty)."""

    names: tuple[str, ...]  # swept names
    runs: pd.DataFrame  # of text: rows of runs.csv, and a column "sweep <name>" for each swept name
    base: tuple[str, ...] | None  # the values in force without any sweep, where they are among the swept ones
    protocol: Protocol
    planned: int
    failures: tuple[str, ...]
    log: Path  # <exp_name>_runs.csv
    differing: tuple[str, ...] = field(default=())  # protocol fields that are not equal in all runs


def train_many(explicit: Mapping[str, object], sweep: Sequence[str], runs: int | None, jobs: int | None) -> SweepResult:
    """Train what is not finished of a plan, `jobs` runs at a time; one that fails stops no other.

    Raises InputError where a run cannot start, KeyboardInterrupt after ending the runs at Ctrl-C.
    """
    plan = plan_runs(explicit, sweep, runs)
    options = resolve(explicit)
    if "LOCAL_RANK" in os.environ:
        raise InputError("--runs and --sweep start processes of their own: leave torchrun out, or give one --seed")
    protocols = _open_all_data(plan)
    jobs = max(1, min(jobs or default_jobs(options.device), len(plan)))
    log = Path(options.checkpoint_dir) / f"{run_name(options)}_runs.csv"
    print(options.describe())
    print(f"{len(plan)} runs, {jobs} at a time; the output of each: {_output(plan[0].options)}"
          f"{' …' if plan[1:] else ''}")  # fmt: skip
    rows, failures = _train_all(plan, jobs, log)
    done = [run for run in plan if run.name in rows]
    frame = pd.DataFrame([
        {**rows[run.name], **{f"sweep {name}": value for name, value in run.values.items()}} for run in done
    ])  # fmt: skip
    kinds = {rows[run.name]["weights"] for run in done}
    protocol = replace(protocols[0], weights=kinds.pop() if len(kinds) == 1 else "several")
    differing = [name for name in ("split", "test_crops", "ano_auc", "noise_model")
                 if len({getattr(p, name) for p in protocols}) > 1]  # fmt: skip
    differing += ["weights"] if protocol.weights == "several" else []
    names = tuple(parse_sweeps(sweep))
    base = next((tuple(run.values.values()) for run in plan if run.is_base), None) if names else None
    return SweepResult(names, frame, base, protocol, len(plan), tuple(failures), log, tuple(differing))


def _open_all_data(plan: Sequence[PlannedRun]) -> list[Protocol]:
    """Check the data of every run, and make its window cache once, before any process starts."""
    opened: dict[object, Protocol] = {}
    for options in (run.options for run in plan):
        key = replace(options, exp_name="", seed=0, explicit=(), **_irrelevant())
        if key not in opened:
            data = open_data(options, Runtime(pick_device("cpu")))
            opened[key] = data.test.protocol(options.keep)
    return list(opened.values())


def _irrelevant() -> dict[str, object]:
    """Options that change neither which data is read nor the protocol, at their defaults."""
    names = [f.name for group in ("model", "loss", "training") for f in option_fields(group)]
    return {name: getattr(Options, name) for name in names if name != "noise_model"}


def _train_all(plan: Sequence[PlannedRun], jobs: int, log: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Rows of runs.csv by run, and a paragraph for each run that failed."""
    rows: dict[str, dict[str, str]] = {}
    failures = []
    with _pool(jobs) as pool:
        futures = {pool.submit(train_quietly, run.options): run for run in plan}
        for future in tqdm(as_completed(futures), total=len(plan), desc="runs", unit="run"):
            run = futures[future]
            error = _error(future)
            if error:
                failures.append(f"{run.name} failed: {error}; its output: {_output(run.options)}")
                continue
            row = run_row(run, future.result())
            write_rows(log, [row])
            rows[run.name] = as_read(row)
    return rows, failures


def _error(future: Future[Any]) -> str:
    """What a run failed of, in one line; empty where it did not."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return "a process was killed (out of memory?); run the same command again to continue"
    return "" if error is None else f"{str(error) or type(error).__name__}".splitlines()[0]


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that have imported everything once; ended at once where the block is left by an error."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # so that numbers do not depend on --jobs; read when torch is imported
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
    """End this process when its parent is gone: a run nobody waits for would meet its own repetition."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(130)

    threading.Thread(target=wait, daemon=True).start()


def train_quietly(options: Options) -> dict[str, Any]:
    """`train_run` in a worker process, its output in <exp_name>.log; returns what the checkpoint says."""
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
    """As many runs as cores on a CPU; one on a GPU, whose memory may not do for two."""
    if device != "cpu" and (device != "auto" or torch.cuda.is_available()):
        return 1
    return available_cores()


# runs.csv


def run_row(run: PlannedRun, content: Mapping[str, Any]) -> dict[str, object]:
    """One run as a flat row. Metrics are those of the weights kept; of the best evaluation they begin with `BEST`."""
    options = upgrade(content)
    groups = ("model", "loss", "training", "evaluation", "metrics", "masking", "preparation", "data")
    names = [f.name for group in groups for f in option_fields(group)]
    aside = ("dataset", "profile", "modality")
    about = {name: as_text(options[name]) for name in names if name in options and name not in aside}
    dataset = load_dataset(str(options["dataset"]))
    best = best_row(content, dataset.metric)
    return {
        "run": run.name,
        "checkpoint": f"{run.name}.pth",
        "curve": f"{run.name}.csv",
        "dataset": dataset.name,
        "profile": options["profile"],
        "modality": content["config"]["modality"],
        "seed": content["seed"],
        **about,
        "split": content.get("split", options.get("split")) or "not recorded",
        "data": content.get("fingerprint", content.get("identity", {})).get("data"),
        **content.get("versions", {}),
        **{name: content.get(name) for name in ("computing", "seconds", "command", "weights", "epoch", "step")},
        **content["metrics"],
        **{f"{BEST}{name}": best[name] for name in ("epoch", "step", *metrics_of(best))},
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Put rows into runs.csv, each in the place of an older one of the same run.

    The file is whole at any time; two sweeps of one experiment may write at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        old = read_runs(path).to_dict("records") if path.is_file() else []
        merged = {row["run"]: row for row in [*old, *rows]}
        write_bytes(path, _csv(list(merged.values())).encode())


def as_read(row: Mapping[str, object]) -> dict[str, str]:
    """A row as `read_runs` returns it."""
    return pd.read_csv(io.StringIO(_csv([row])), dtype=str, keep_default_na=False).to_dict("records")[0]


def read_runs(path: Path) -> pd.DataFrame:
    """A table of runs, every cell as its text; InputError where it is none."""
    text = read_text(path, "table of runs")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is no table of runs ({str(error).strip()}); main.py --runs writes one") from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise InputError(f"{path} is no table of runs (no column {', '.join(missing)}); main.py --runs writes one")
    return table


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    return pd.DataFrame(rows).to_csv(index=False)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of this folder's `_locked`; the system lets go of a killed one's hold."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# finding runs again

TRAIN = "python main.py --dataset {name} --runs 10 --sweep "
ALSO = "N=0,10,20,30,40, epsilon=1e-4,1e-6,1e-8 and lambda_ref=0.1,0.3,0.5,0.7,0.9"
TABLE_COMMANDS = {
    **dict.fromkeys((3, 4), f"{TRAIN}nu=2,4,6,8,10, and the same with --sweep {ALSO}"),
    5: f"{TRAIN}loss=cls,cls+reg,cls+kl,cls+kl+reg",
    **dict.fromkeys((6, 7, 8, 9), "python test2.py --dataset {name} --ckpt_path CHECKPOINT"),
}
# table of the paper → other runs it needs: suffix of --exp_name → flags of main.py
SIBLINGS = {
    1: {"gaussian": "--noise_model Gaussian"},
    2: {"image": "--modality image", "event": "--modality event"},
}


def find_runs(explicit: Mapping[str, object], runs: int, table: int | None) -> tuple[list[Path], list[str]]:
    """The checkpoints <exp_name>_seed0 … that main.py --runs left, and a sentence for kinds of runs the table lacks.

    Raises InputError where a run is missing, with the command that trains it.
    """
    if runs < 1:
        raise InputError(f"--runs must be 1 or more; got {runs}")
    options = resolve(explicit)
    dataset, base = load_dataset(options.dataset), run_name(options)
    paths, missing = _seeds(options, base, runs)
    if missing:
        raise InputError(f"{missing}: no such run; train it with {train_command(dataset, base, runs)}")
    notes = []
    for suffix, flags in SIBLINGS.get(table, {}).items():
        name = _sibling(base, suffix)
        more, missing = _seeds(options, name, runs)
        if missing:
            command = train_command(dataset, name, runs, flags)
            notes.append(f"No {suffix} runs ({missing.name}); {command} trains them.")
        else:
            paths += more
    return paths, notes


def _seeds(options: Options, base: str, runs: int) -> tuple[list[Path], Path | None]:
    """Paths of the seeds 0 … runs − 1 of a name, and the first that is not there."""
    paths = [Path(options.checkpoint_dir) / f"{base}_seed{seed}.pth" for seed in range(runs)]
    return paths, next((path for path in paths if not path.is_file()), None)


def _sibling(base: str, suffix: str) -> str:
    """demo → demo_image, as main.py calls it; demo/fusion → demo/image, demo/fusion_gaussian."""
    path = Path(base)
    return str(path.with_name(suffix)) if path.name == "fusion" and suffix in MODALITIES else f"{base}_{suffix}"


def train_command(dataset: Any, base: str, runs: int, flags: str = "") -> str:
    """The command that trains such runs."""
    named = "" if base == dataset.name else f"--exp_name {base}"
    return " ".join(f"python main.py --dataset {dataset.flag_value} {flags} {named} --runs {runs}".split())
