"""Train IEF-VAD on one data set. Interrupt with Ctrl-C; run the same command again to resume."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from model import CheckpointError, ConfigError
from vad.datasets import load_dataset
from vad.experiments import train_many
from vad.files import run_command
from vad.options import Options, add_flags, command_parser, explicit_options, resolve
from vad.report.report import report_sweep, report_training
from vad.report.table import SUFFIXES, render_all
from vad.train import run_name, train_run


def parse() -> argparse.Namespace:
    """Parse the flags. Options that were not set are absent."""
    parser = command_parser(
        __doc__,
        "python main.py --dataset ucfcrime",
        "python main.py --dataset ucfcrime --runs 10 --sweep nu=2,4,6,8,10",
    )
    networks = ("method", "model", "loss", "avadclip", "avadclip_loss")
    add_flags(parser, "data", "test_crops", "results", *networks, "training")
    parser.add_argument("--format", choices=tuple(SUFFIXES), metavar="NAME", default="text",
                        help=f"tables as {', '.join(SUFFIXES)} (default: text)")  # fmt: skip
    group = parser.add_argument_group("several runs, each in its own process")
    group.add_argument("--runs", type=int, metavar="N", help="number of seeds; the table has mean ± std")
    group.add_argument("--sweep", nargs="+", action="extend", default=[], metavar="NAME=X,Y",
                       help="option and its values; two options make a grid")  # fmt: skip
    group.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: cores; 1 on a GPU)")
    add_flags(parser, "runtime")
    return parser.parse_args()


def main() -> int:
    """Train one run or several and print the table; return 1 if a run failed."""
    flags = parse()
    explicit = explicit_options(flags)
    options, tables = resolve(explicit), sys.stdout
    # other formats than text leave standard output to the table alone
    with contextlib.redirect_stdout(tables if flags.format == "text" else sys.stderr):
        prepare_demo(options)
        if flags.runs is None and not flags.sweep:
            trained = train_run(options)
            if os.environ.get("RANK", "0") == "0":  # only the first of several processes
                results, words = report_training(trained, options)
                print()
                print(render_all(results, flags.format), file=tables)
                print(words)
            return 0
        result = train_many(explicit, flags.sweep, flags.runs, flags.jobs)
        if len(result.runs):
            results, files = report_sweep(result, Path(options.figure_dir) / run_name(options))
            print()
            print(render_all(results, flags.format), file=tables)
            names = ", ".join(str(path) for path in files if path.suffix in (".txt", ".png"))
            print(f"\ntable, picture and runs: {names}, {result.log}")
        print(*("", *result.failures), sep="\n" if result.failures else "", end="")
        return int(bool(result.failures))


def prepare_demo(options: Options) -> None:
    """Create the synthetic data set if it is selected and does not exist."""
    dataset = load_dataset(options.dataset)
    missing = not options.list_root and not (dataset.list_root / "gt.npy").is_file()
    if dataset.synthetic and missing and "RANK" not in os.environ:
        from demo import prepare  # imported here, because it loads the extraction code

        if dataset.custom:
            prepare(folder=dataset.path.parent)
        else:
            prepare(dataset=dataset.name)


if __name__ == "__main__":
    run_command(main, expected=(CheckpointError, ConfigError))
