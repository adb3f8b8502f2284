"""Write train.csv and test.csv of a data set from its image embeddings and its annotations.csv."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vad.datasets import IMAGE_FOLDER, load_dataset
from vad.files import run_command
from vad.options import DATASET_HELP, PROFILES, command_parser, parse_crops, preset
from vad.prepare.lists import make_lists


def main(name: str | None = None) -> None:
    """Write the lists and print a summary. name: the data set of a script; None adds the flag --dataset."""
    more = "--dataset ucfcrime " if name is None else ""
    parser = command_parser(__doc__, f"python list/{Path(sys.argv[0]).name} {more}--base_path FEATURES/rgb")
    add = parser.add_argument
    if name is None:
        add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    add("--base_path", type=Path, metavar="DIR", help="folder of the image embeddings (default: data/<folder>/rgb)")
    add("--train_save_path", type=Path, metavar="FILE", help="default: list/<folder>/rgb/vitl/train.csv")
    add("--test_save_path", type=Path, metavar="FILE", help="default: list/<folder>/rgb/vitl/test.csv")
    add("--split", metavar="NAME", help="split column of annotations.csv (default: the profile's)")
    add("--profile", choices=tuple(PROFILES), default="default", metavar="NAME",
        help="default, paper or released: sets split and test crops")  # fmt: skip
    add("--train_list", type=Path, metavar="FILE", help="training videos, instead of the split's")
    add("--test_list", type=Path, metavar="FILE", help="test videos, instead of the split's")
    add("--train_crops", metavar="CROPS", help="crops to train: 5, 0,5 or 0..9 (default: all that exist)")
    add("--test_crops", metavar="CROPS", help="crops to test: 5, 0,5 or 0..9 (default: the profile's)")
    add("--allow_missing", action="store_true", help="leave out videos without embeddings")
    flags = parser.parse_args()
    dataset, options = load_dataset(name or flags.dataset), preset(flags.profile)
    one = (flags.split or dataset.default_split(options.split),)
    for split in dataset.splits if dataset.split_per_run and not flags.split else one:
        summary = make_lists(
            dataset,
            split,
            flags.base_path or dataset.data_root / IMAGE_FOLDER,
            flags.train_save_path or dataset.lists_of(split) / "train.csv",
            flags.test_save_path or dataset.lists_of(split) / "test.csv",
            train_crops=parse_crops(flags.train_crops) if flags.train_crops else None,
            test_crops=parse_crops(flags.test_crops) if flags.test_crops else options.test_crops,
            train_list=flags.train_list,
            test_list=flags.test_list,
            allow_missing=flags.allow_missing,
        )
        print("\n".join(summary))


if __name__ == "__main__":
    run_command(main)
