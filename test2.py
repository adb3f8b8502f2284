"""Explore the uncertainty weights by masking: `python test2.py --dataset xd --ckpt_path checkpoints/xd/xd.pth`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from model import CheckpointError, ConfigError, build_model, read_checkpoint
from vad.benchmark import add_list_flags, check_width, find_lists, open_test_set
from vad.catalog import ROOT
from vad.checkpoints import open_checkpoint
from vad.data import MODALITIES
from vad.degradation import check_alike, report_degradation
from vad.device import pick_device
from vad.errors import InputError, run_door
from vad.probes import LEVELS, run_probes
from vad.report import report_probes, show
from vad.settings import add_dataset_flags, add_switch_flags
from vad.table import add_format_flag


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    text = "checkpoint of a fused model; of several that differ in their seed, mean ± std"
    parser.add_argument("--ckpt_path", nargs="+", required=True, help=text)
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, help=argparse.SUPPRESS)
    parser.add_argument("--exp_name", help="folder of the results below figure/ (default: the data set's name)")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="masked shares (default the paper's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the masks (default 0)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    parser.add_argument("--figure_dir", default=str(ROOT / "figure"), help="folder of pictures and tables")
    add_format_flag(parser)
    add_list_flags(parser)
    add_switch_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    opened = [open_checkpoint(path, args, read_checkpoint, build_model) for path in args.ckpt_path]
    for checkpoint in opened:
        if checkpoint.modality != "fusion":
            raise InputError(f"{checkpoint.path} is a model of {checkpoint.modality} alone: it has no weights to probe")
    check_alike(opened)
    first = opened[0]
    test = open_test_set(find_lists(args, first.settings), first.settings, first.modality)
    probes = []
    for checkpoint in opened:
        check_width(checkpoint.path, checkpoint.model.config.embed_dim, test.width, f"those of {test.lists.test}")
        score = partial(test.score, checkpoint.model.to(device), device, progress=None)
        axis, levels = checkpoint.settings.profile.mask_axis, args.levels
        probes.append(run_probes(score, test.settings.dataset, axis=axis, levels=levels, seed=args.seed))
    folder = Path(args.figure_dir) / (args.exp_name or first.settings.dataset.name)
    if len(opened) == 1:
        table, pictures = report_probes(probes[0], first, test, folder, seed=args.seed)
    else:
        table, pictures = report_degradation(probes, opened, test, folder, seed=args.seed)
    show([table], pictures, folder, args.format)


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
