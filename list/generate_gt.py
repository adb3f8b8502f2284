"""Make the frame labels gt.npy in the order of test.csv, from a data set's annotations.csv or frame masks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vad.data import lists_metadata, read_list
from vad.datasets import load_dataset
from vad.files import run_command
from vad.options import PROFILES, preset
from vad.prepare.ground_truth import make_ground_truth


def main(name: str | None = None) -> None:
    """Write gt.npy and print a summary. name: the data set of a script; None adds the flag --dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    if name is None:
        add("--dataset", required=True, help="name of a data set, or one's own .toml file")
    add("--csv_path", type=Path, help="test.csv (default: list/<folder>/rgb/<encoder>/test.csv)")
    add("--save_path", type=Path, help="a .npy file, or a folder that gets gt.npy (default: beside test.csv)")
    add("--split", help="split whose intervals count (default: that of the lists)")
    add("--profile", choices=tuple(PROFILES), help="preset of options")
    add("--masks", type=Path, help="folder of <video>.npy, or an .npz: 0 or 1 a frame, instead of the table")
    add("--feature_root", type=Path, help="folder that holds rgb/ (default: as recorded with the lists)")
    flags = parser.parse_args()
    dataset = load_dataset(name or flags.dataset)
    csv_path = flags.csv_path or dataset.list_root / "test.csv"
    split = None if flags.profile else lists_metadata(csv_path).get("split")
    if not (flags.split or flags.profile or split):  # without lists.json the video names show the split
        split = dataset.split_of([], [row.video for row in read_list(csv_path, dataset)])[0]
    preferred = str(split or preset(flags.profile or "default").split)
    summary = make_ground_truth(
        dataset,
        flags.split or dataset.default_split(preferred),
        csv_path,
        flags.save_path or csv_path.parent,
        masks=flags.masks,
        feature_root=flags.feature_root,
    )
    print("\n".join(summary))


if __name__ == "__main__":
    run_command(main)
