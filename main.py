"""Train IEF-VAD on one data set: `python main.py --dataset ucfcrime`."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import torch

from model import IEFVAD, CheckpointError, ConfigError, Objective, read_checkpoint, save_checkpoint
from vad import demo
from vad.benchmark import add_list_flags, describe, find_lists, open_test_set, trims
from vad.catalog import ROOT
from vad.data import MODALITIES, TrainingBatches, TrainingWindows, check_values, find_samples
from vad.errors import InputError, run_door
from vad.figures import draw_training
from vad.lists import read_csv
from vad.metrics import evaluate
from vad.settings import add_dataset_flags, add_switch_flags, loss_fields, model_fields, resolve
from vad.tables import results_table
from vad.training import Files, Run, fingerprint, pick_device, resume, seed_everything, train


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, default="fusion", help="fusion (default), or one stream")
    parser.add_argument("--exp_name", help="name of the results in checkpoints/ and figure/ (default: the data set's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    parser.add_argument("--workers", type=int, default=4, help="processes that load embeddings")
    parser.add_argument("--checkpoint_dir", default=str(ROOT / "checkpoints"), help="folder of weights and logs")
    parser.add_argument("--figure_dir", default=str(ROOT / "figure"), help="folder of pictures")
    parser.add_argument("--resume", action="store_true", help="refuse to start anew: there must be a run to continue")
    parser.add_argument("--overwrite", action="store_true", help="train anew even where results are there")
    add_list_flags(parser)
    add_switch_flags(parser, recipe=True)
    return parser.parse_args()


def main() -> None:
    args = parse()
    settings = resolve(args)
    if settings.dataset.drawn and not args.list_root:
        demo.prepare()
    lists = find_lists(args, settings)
    test = open_test_set(lists, settings, args.modality)
    items = read_csv(lists.train, settings.dataset)
    samples, width = find_samples(items, settings.dataset, lists.feature_root, args.modality)
    if width != test.width:
        raise InputError(f"{lists.train} has embeddings {width} wide, {lists.test} {test.width}; extract both alike")
    check_values([*samples, *test.samples], settings.profile.nan, width)
    device = pick_device(args.device)
    seed_everything(args.seed)
    model = IEFVAD(embed_dim=width, modality=args.modality, **model_fields(settings)).to(device)
    windows = TrainingWindows(samples, window=settings.dataset.window, nan=settings.profile.nan, width=width)
    recipe = settings.recipe
    exp_name = args.exp_name or settings.dataset.name + (f"_{args.modality}" if args.modality != "fusion" else "")
    run = Run(
        model=model,
        objective=Objective(config=model.config, **loss_fields(settings)),
        batches=TrainingBatches(windows, recipe.batch_size, recipe.paired, args.seed, args.workers),
        evaluate=lambda: evaluate(
            test.score(model, device, progress=None), settings.dataset, ano_auc=settings.profile.ano_auc
        ),
        save=save_checkpoint,
        settings=settings,
        identity={
            **settings.as_dict(),
            "typed": None,
            "modality": args.modality,
            "seed": args.seed,
            "data": fingerprint([*samples, *test.samples], [lists.train, lists.test, lists.gt]),
        },
        files=Files.of(Path(args.checkpoint_dir), exp_name),
        seed=args.seed,
        device=device,
        trim=trims(settings),
    )
    print(textwrap.fill(describe(settings.as_dict()), 110))
    print(f"{len(samples)} training samples, {len(test.videos)} test videos, width {width}, {args.modality}, "
          f"seed {args.seed}, {device}, torch {torch.__version__}")  # fmt: skip
    if run.files.last.is_file() and not args.overwrite:
        resume(run, read_checkpoint(run.files.last), read_checkpoint(run.files.best))
        finished = run.epoch == recipe.max_epoch
        print(f"{run.files.last}: " + ("trained already, reused" if finished else f"continued after epoch {run.epoch}"))
    elif args.resume:
        raise InputError(f"{run.files.last} is not there: nothing to resume; leave out --resume to start a run")
    kept = train(run)
    print(f"\n{results_table(kept.metrics, test.protocol(kept.weights), modality=args.modality)}")
    print(f"best on the test set, and selected on it: {kept.best}")
    pictures = draw_training(run.log(), Path(args.figure_dir) / exp_name / "training", title=f"{exp_name}, training")
    print(f"\nweights: {run.files.last} and {run.files.best.name}\nlog: {run.files.log}\npicture: {pictures[0]}")


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
