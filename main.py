"""Train IEF-VAD on one data set: `python main.py --dataset ucfcrime`; seeds with `--runs`, sweeps with `--sweep`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from model import IEFVAD, CheckpointError, ConfigError, IEFVADConfig, Objective, read_checkpoint, save_checkpoint
from vad import demo
from vad.benchmark import TestSet, add_list_flags, describe, find_lists, open_test_set, trims
from vad.catalog import ROOT
from vad.compare_tables import compare_files
from vad.computing import Computing, add_computing_flags, start_computing
from vad.data import MODALITIES, TrainingBatches, TrainingWindows, cache_folder, check_values, find_samples
from vad.errors import InputError, run_door
from vad.experiments import Trainer, train_many
from vad.lists import read_csv
from vad.repeatable import command, fingerprint, seed_everything, versions
from vad.run import Files, Run, Saving
from vad.run_plan import add_run_flags, check_run_flags
from vad.run_state import resume
from vad.settings import Settings, add_dataset_flags, add_switch_flags, loss_fields, model_fields, resolve
from vad.table import add_format_flag
from vad.tables import results_table
from vad.training import Trained, train
from vad.training_log import Curves


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, default="fusion", help="fusion (default), or one stream")
    parser.add_argument("--exp_name", help="name of the results in checkpoints/ and figure/ (default: the data set's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run, or of the first of --runs (default 0)")
    add_result_flags(parser)
    add_window_flags(parser)
    add_computing_flags(parser)
    add_run_flags(parser)
    text = "do not train: hold two <exp_name>_runs.csv against each other, or a.csv:nu=2 for some of their runs"
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help=text)
    add_format_flag(parser)
    add_list_flags(parser)
    add_switch_flags(parser, recipe=True)
    return parser.parse_args()


def add_result_flags(parser: argparse.ArgumentParser) -> None:
    """Where results go, and what becomes of those that are there."""
    text = "the same command continues a stopped run and repeats no finished one"
    group = parser.add_argument_group("results", text)
    group.add_argument("--checkpoint_dir", default=str(ROOT / "checkpoints"), help="folder of weights and logs")
    group.add_argument("--figure_dir", default=str(ROOT / "figure"), help="folder of pictures")
    again = group.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="refuse to start anew: there must be a run to continue")
    again.add_argument("--overwrite", action="store_true", help="train anew even where results are there")
    text = "write the run's state every so many steps (default 0: not by steps)"
    group.add_argument("--save_steps", type=int, default=0, help=text)
    text = "and after so many minutes (default 2; 0: not by time); the end of an epoch writes it anyway"
    group.add_argument("--save_minutes", type=float, default=2, help=text)
    group.add_argument("--tensorboard", action="store_true", help="also log to <figure_dir>/<exp_name>/tensorboard")


def add_window_flags(parser: argparse.ArgumentParser) -> None:
    """Where training windows come from."""
    group = parser.add_argument_group("training windows", "reduced once and kept on disk; the numbers are the same")
    cache = group.add_mutually_exclusive_group()
    cache.add_argument("--cache_dir", type=Path, help="their folder (default: windows/ beside rgb/)")
    cache.add_argument("--no_cache", action="store_true", help="keep none: reduce the embeddings anew in every epoch")
    group.add_argument("--workers", type=int, default=4, help="processes that load embeddings without cache (4)")


@dataclass(frozen=True)
class Job:
    """What all runs of one call share."""

    args: argparse.Namespace
    settings: Settings
    test: TestSet
    windows: TrainingWindows
    data: str  # fingerprint
    computing: Computing


def prepare(args: argparse.Namespace, computing: Computing) -> Job:
    """Find and check everything a run needs, before anything long starts."""
    settings = resolve(args)
    if settings.dataset.drawn and not args.list_root and not (settings.dataset.list_root / "gt.npy").is_file():
        demo.prepare()
    lists = find_lists(args, settings)
    test = open_test_set(lists, settings, args.modality).kept()
    items = read_csv(lists.train, settings.dataset)
    samples, width = find_samples(items, settings.dataset, lists.feature_root, args.modality)
    if width != test.width:
        raise InputError(f"{lists.train} has embeddings {width} wide, {lists.test} {test.width}; extract both alike")
    check_values(test.samples, settings.profile.nan, width)
    print(textwrap.fill(describe(settings.as_dict()), 110))
    print(f"{len(samples)} training samples, {len(test.videos)} test videos, width {width}, {args.modality}; "
          f"{computing.describe()}; {', '.join(f'{name} {value}' for name, value in versions().items())}")  # fmt: skip
    cache = None if args.no_cache else args.cache_dir or cache_folder(items, lists.feature_root)
    windows = TrainingWindows(
        samples, window=settings.dataset.window, nan=settings.profile.nan, width=width, cache=cache
    )
    if windows.caches is None:
        check_values(samples, settings.profile.nan, width)
    data = fingerprint([*samples, *test.samples], [lists.train, lists.test, lists.gt])
    print(f"data {data}; {command()}")
    return Job(args, settings, test, windows, data, computing)


def identity(job: Job, settings: Settings, modality: str, seed: int) -> dict[str, object]:
    """What must be equal for a run to be continued, or taken for done."""
    about = {"modality": modality, "seed": seed, "data": job.data, "precision": job.args.precision}
    return {**settings.as_dict(), "typed": None, "dataset_file": None, **about}


def run_once(job: Job, exp_name: str, seed: int) -> Trained:
    """Train with one seed, or continue or reuse what is there."""
    args, settings, recipe, computing = job.args, job.settings, job.settings.recipe, job.computing
    ranks = computing.ranks
    seed_everything(seed)
    model = IEFVAD(embed_dim=job.test.width, modality=args.modality, **model_fields(settings)).to(computing.device)
    curves = Curves(Path(args.figure_dir) / exp_name, exp_name, args.tensorboard)
    run = Run(
        model=model,
        objective=Objective(config=model.config, **loss_fields(settings)),
        batches=TrainingBatches(
            job.windows,
            recipe.batch_size,
            recipe.paired,
            seed,
            args.workers,
            ranks.rank,
            ranks.world,
            pin=computing.device.type == "cuda",
        ),
        evaluate=lambda: job.test.judge(model, computing),
        save=save_checkpoint,
        settings=settings,
        identity=identity(job, settings, args.modality, seed),
        files=Files.of(Path(args.checkpoint_dir), exp_name),
        seed=seed,
        computing=computing,
        trim=trims(settings),
        saving=Saving(args.save_steps, args.save_minutes),
        show=curves,
        overwrites=args.overwrite,
        about={"command": command(), "arguments": {k: str(v) for k, v in vars(args).items()}, "versions": versions()},
    )
    ranks.together(lambda: take_up(run, args))
    trained = train(run)
    if ranks.leads:
        curves.draw(run)
    curves.close()
    return trained


def take_up(run: Run, args: argparse.Namespace) -> None:
    """Continue the run that is there, unless it is to be replaced."""
    if run.files.last.is_file() and not args.overwrite:
        resume(run, read_checkpoint)
        how = "trained already, reused" if run.finished else f"continued after step {run.step}, epoch {run.epoch + 1}"
        print(f"{run.files.last}: {how}")
    elif args.resume:
        raise InputError(f"{run.files.last} is not there: nothing to resume; leave out --resume to start a run")


def train_several(job: Job, exp_name: str, tables: TextIO) -> int:
    """--runs and --sweep; returns the exit code."""
    if job.computing.ranks.world > 1:
        raise InputError("--runs and --sweep start processes of their own: leave torchrun out, or give one --seed")
    trainer = Trainer(
        door=Path(__file__).resolve(),
        read=read_checkpoint,
        check=lambda settings, modality: IEFVADConfig(
            embed_dim=job.test.width, modality=modality, **model_fields(settings)
        ),
        identity=partial(identity, job),
    )
    report = train_many(job.args, exp_name, job.test.protocol, trainer)
    print()
    if report.table:
        print(report.table.render(job.args.format), file=tables)
    print(f"\n{report.words()}")
    return int(bool(report.failures))


def main() -> int:
    args = parse()
    if args.compare:
        print(compare_files(*args.compare).render(args.format))
        return 0
    check_run_flags(args)
    with start_computing(args) as computing:
        tables = sys.stdout
        # a table for machines or papers has standard output to itself; processes that do not lead print nothing
        apart = args.format != "text" and computing.ranks.leads
        with contextlib.redirect_stdout(sys.stderr if apart else tables):
            return train_all(computing.ranks.together(lambda: prepare(args, computing)), tables)


def train_all(job: Job, tables: TextIO) -> int:
    """Train one run or many, print what came of it, and return the exit code."""
    args = job.args
    one_stream = f"_{args.modality}" if args.modality != "fusion" else ""
    exp_name = args.exp_name or job.settings.dataset.name + one_stream
    if args.runs is not None or args.sweep:
        return train_several(job, exp_name, tables)
    trained = run_once(job, exp_name, args.seed)
    print()
    table = results_table(trained.metrics, job.test.protocol(trained.weights), modality=args.modality)
    print(table.render(args.format), file=tables)
    print(f"best on the test set, and selected on it: {trained.best}")
    print(f"weights and logs: {args.checkpoint_dir}/{exp_name}.pth, _best.pth, .csv")
    return 0


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
