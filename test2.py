"""Mask a share of either stream and measure AUC and fusion weights (Section 4.2, Tables 6–9, Figure 3)."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from model import CheckpointError, ConfigError
from vad.evaluation import NETWORK_OPTIONS, open_runs
from vad.files import run_command
from vad.options import add_flags, command_parser, explicit_options
from vad.report.masking import LEVELS, run_masking
from vad.report.masking_tables import report_masking
from vad.report.report import check_masking_runs, show
from vad.report.table import SUFFIXES
from vad.runtime import pick_device


def parse() -> argparse.Namespace:
    """Parse the flags. Options that were not set are absent."""
    parser = command_parser(
        __doc__, "python test2.py --dataset xd --ckpt_path checkpoints/xd/xd.pth", usage="--ckpt_path FILE … [options]"
    )
    parser.add_argument("--ckpt_path", nargs="+", required=True, metavar="FILE",
                        help="checkpoints of a fusion model, one per seed")  # fmt: skip
    parser.add_argument("--levels", type=float, nargs="+", metavar="X", default=LEVELS,
                        help="masked shares (default: the paper's)")  # fmt: skip
    parser.add_argument("--mask_seed", "--seed", type=int, metavar="N", default=0, help="default: 0")
    parser.add_argument("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
                        help=f"tables as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    names = ("dataset", "profile", "list_root", "feature_root", "nan", "insist_gt", "test_crops")
    add_flags(parser, *names, title="data (default: the checkpoint's)")
    add_flags(parser, "mask_axis")
    add_flags(parser, "exp_name", "figure_dir", "device", title="results")
    add_flags(parser, *NETWORK_OPTIONS, title="network (default: the checkpoint's values)")
    return parser.parse_args()


def main() -> None:
    """Score every checkpoint with each stream masked at each level; print Tables 6–9, draw Figure 3."""
    flags = parse()
    explicit = explicit_options(flags)
    runs = open_runs(flags.ckpt_path, explicit, pick_device(str(explicit.get("device", "auto"))))
    check_masking_runs(runs)
    responses = []
    for run in runs:
        score = partial(run.test.score, run.model.to(run.device), run.device, progress=False)
        axis = run.options.mask_axis
        responses.append(run_masking(score, run.dataset, axis=axis, levels=flags.levels, seed=flags.mask_seed))
    first = runs[0]
    folder = Path(first.options.figure_dir) / (str(explicit.get("exp_name", "")) or first.dataset.name)
    show(*report_masking(responses, runs, folder, flags.mask_seed), folder, flags.format)


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
