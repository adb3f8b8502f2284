"""Write gt.npy, one label per frame in the order of test.csv, from annotations.csv or frame masks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vad.data import lists_metadata, read_list
from vad.datasets import Dataset, load_dataset
from vad.files import run_command
from vad.options import DATASET_HELP, PROFILES, command_parser, preset
from vad.prepare.ground_truth import make_ground_truth


def main(name: str | None = None) -> None:
    """Write gt.npy and print a summary. name: the data set of a script; None adds the flag --dataset."""
    more = " --dataset ucfcrime" if name is None else ""
    parser = command_parser(__doc__, f"python list/{Path(sys.argv[0]).name}{more}")
    add = parser.add_argument
    if name is None:
        add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    add("--csv_path", type=Path, metavar="FILE", help="test list (default: list/<folder>/rgb/vitl/test.csv)")
    add("--save_path", type=Path, metavar="FILE", help=".npy file, or folder for gt.npy (default: beside test.csv)")
    add("--split", metavar="NAME", help="split whose intervals count (default: the lists')")
    add("--profile", choices=tuple(PROFILES), metavar="NAME", help="default, paper or released: sets the split")
    add("--masks", type=Path, metavar="PATH", help="frame masks: folder of <video>.npy, or one .npz")
    add("--feature_root", type=Path, metavar="DIR", help="folder of rgb/ (default: as recorded in lists.json)")
    flags = parser.parse_args()
    dataset = load_dataset(name or flags.dataset)
    if dataset.split_per_run and not (flags.csv_path or flags.split):
        paths = [dataset.lists_of(split) / "test.csv" for split in dataset.splits]
    else:
        paths = [flags.csv_path or dataset.lists_of(flags.split) / "test.csv"]
    for csv_path in paths:
        print("\n".join(write(flags, dataset, csv_path)))


def write(flags: argparse.Namespace, dataset: Dataset, csv_path: Path) -> list[str]:
    """Write gt.npy beside a test list, or where the flags say. Return the lines of its summary."""
    split = None if flags.profile else lists_metadata(csv_path).get("split")
    if not (flags.split or flags.profile or split):  # without lists.json the video names show the split
        split = dataset.split_of([], [row.video for row in read_list(csv_path, dataset)])[0]
    preferred = str(split or preset(flags.profile or "default").split)
    return make_ground_truth(
        dataset,
        flags.split or dataset.default_split(preferred),
        csv_path,
        flags.save_path or csv_path.parent,
        masks=flags.masks,
        feature_root=flags.feature_root,
    )


if __name__ == "__main__":
    run_command(main)
