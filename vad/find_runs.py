"""Which checkpoints a command means: files the user names, or the runs that main.py --runs left."""

from __future__ import annotations

import argparse
from pathlib import Path

from vad.catalog import Dataset, dataset
from vad.data import MODALITIES
from vad.errors import InputError

# table of the paper → what else it needs beside the fused Student's t runs: suffix of --exp_name → flags of main.py
SIBLINGS = {
    1: {"gaussian": "--noise_model Gaussian"},
    2: {"image": "--modality image", "event": "--modality event"},
}
_TRAIN = "python main.py --dataset {name} --runs 10 --sweep "
_ALSO = "N=0,10,20,30,40, epsilon=1e-4,1e-6,1e-8 and lambda_ref=0.1,0.3,0.5,0.7,0.9"
ELSEWHERE = {
    **dict.fromkeys((3, 4), f"{_TRAIN}nu=2,4,6,8,10, and the same with --sweep {_ALSO}"),
    5: f"{_TRAIN}loss=cls,cls+reg,cls+kl,cls+kl+reg",
    **dict.fromkeys((6, 7, 8, 9), "python test2.py --dataset {name} --ckpt_path CHECKPOINT"),
}


def add_run_flags(parser: argparse.ArgumentParser, checkpoint_dir: Path) -> None:
    """--ckpt_path, --runs, --checkpoint_dir."""
    parser.add_argument("--ckpt_path", nargs="+", help="one checkpoint, or several to compare")
    parser.add_argument(
        "--runs", type=int, help="instead of --ckpt_path: the runs <exp_name>_seed0 … of main.py --runs"
    )
    parser.add_argument("--checkpoint_dir", default=str(checkpoint_dir), help="folder in which --runs are looked for")


def find_runs(args: argparse.Namespace, table: int | None) -> tuple[list[str], list[str]]:
    """Paths of the checkpoints, and a sentence for each kind of run that the table would also show.

    Raises InputError where neither --ckpt_path nor --runs is given, where both are, where a run is missing, for a
    table that another command makes, and for flags that ask for two things at once; each says what to give.
    """
    asked = [f"--{name}" for name in ("table", "timeline", "video") if getattr(args, name) is not None]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} ask for different results; give one of them")
    if args.timelines < 0:
        raise InputError(f"--timelines must be 0 or more; got {args.timelines}")
    paths, notes = _find(args, table)
    single = next((flag for flag in ("--timeline", "--video") if flag in asked), None)
    if single and len(paths) > 1:
        raise InputError(f"{single} is of one checkpoint, {len(paths)} are named; give --ckpt_path one of them")
    return paths, notes


def _find(args: argparse.Namespace, table: int | None) -> tuple[list[str], list[str]]:
    if table in ELSEWHERE:
        name = args.dataset or args.ds or "ucfcrime"
        raise InputError(f"Table {table} is made by another command: {ELSEWHERE[table].format(name=name)}")
    if args.ckpt_path and args.runs is not None:
        raise InputError("--ckpt_path and --runs both say which checkpoints to take; give one of them")
    if args.ckpt_path:
        return list(args.ckpt_path), []
    record = dataset(args.dataset or args.ds or "ucfcrime")
    base = args.exp_name or record.name
    if args.runs is None:
        raise InputError(
            f"no checkpoint is named; give --ckpt_path, or --runs N for {base}_seed0 … of {args.checkpoint_dir}, which "
            f"this command trains: {_train(record, base, 10)}"
        )
    if args.runs < 1:
        raise InputError(f"--runs must be 1 or more; got {args.runs}")
    paths, missing = _runs(args, base)
    if missing:
        raise InputError(f"{missing}: no such run; train it with {_train(record, base, args.runs)}")
    notes = []
    for suffix, flags in SIBLINGS.get(table, {}).items():
        name = _sibling(base, suffix)
        more, missing = _runs(args, name)
        if missing:
            notes.append(f"No {suffix} runs ({missing.name}); {_train(record, name, args.runs, flags)} trains them.")
        else:
            paths += more
    return [str(path) for path in paths], notes


def _runs(args: argparse.Namespace, base: str) -> tuple[list[Path], Path | None]:
    """Paths of the seeds 0 … n − 1 of a name, and the first that is not there."""
    paths = [Path(args.checkpoint_dir) / f"{base}_seed{seed}.pth" for seed in range(args.runs)]
    return paths, next((path for path in paths if not path.is_file()), None)


def _sibling(base: str, suffix: str) -> str:
    """demo → demo_image, as main.py calls it; demo/fusion → demo/image, demo/fusion_gaussian."""
    path = Path(base)
    return str(path.with_name(suffix)) if path.name == "fusion" and suffix in MODALITIES else f"{base}_{suffix}"


def _train(record: Dataset, base: str, runs: int, flags: str = "") -> str:
    named = "" if base == record.name else f"--exp_name {base}"
    return " ".join(f"python main.py --dataset {record.given} {flags} {named} --runs {runs}".split())
