"""Explore the uncertainty weights by masking: `python test2.py --dataset xd --ckpt_path checkpoints/xd/xd.pth`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model import CheckpointError, ConfigError, build_model, read_checkpoint
from vad.benchmark import add_list_flags, check_width, find_lists, open_checkpoint, open_test_set
from vad.catalog import ROOT
from vad.data import MODALITIES
from vad.device import pick_device
from vad.errors import InputError, run_door
from vad.probes import LEVELS, run_probes
from vad.report import report_probes, show
from vad.settings import add_dataset_flags, add_switch_flags
from vad.table import add_format_flag


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint of a fused model")
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
    checkpoint = open_checkpoint(args.ckpt_path, args, read_checkpoint, build_model)
    if checkpoint.modality != "fusion":
        raise InputError(f"{args.ckpt_path} is a model of {checkpoint.modality} alone: it has no weights to probe")
    test = open_test_set(find_lists(args, checkpoint.settings), checkpoint.settings, checkpoint.modality)
    check_width(checkpoint.path, checkpoint.model.config.embed_dim, test.width, f"those of {test.lists.test}")
    model = checkpoint.model.to(device)
    probes = run_probes(
        lambda transform: test.score(model, device, transform, progress=None),
        checkpoint.settings.dataset,
        axis=checkpoint.settings.profile.mask_axis,
        levels=args.levels,
        seed=args.seed,
    )
    folder = Path(args.figure_dir) / (args.exp_name or checkpoint.settings.dataset.name)
    table, pictures = report_probes(probes, checkpoint, test, folder, seed=args.seed)
    show([table], pictures, folder, args.format)


if __name__ == "__main__":
    run_door(main, expected=(CheckpointError, ConfigError))
