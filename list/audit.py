"""Check lists, embeddings, ground truth and videos of a data set against annotations.csv."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vad.data import lists_metadata
from vad.datasets import load_dataset
from vad.files import run_command
from vad.options import DATASET_HELP, PROFILES, command_parser, preset
from vad.prepare.against import compare, sentence
from vad.prepare.audit import audit


def main() -> int:
    """Print the findings; returns 1 where there are any."""
    parser = command_parser(__doc__, "python list/audit.py --dataset xd --list_root LISTS --feature_root FEATURES")
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    add("--split", metavar="NAME", help="split to check against (default: the lists')")
    add("--profile", choices=tuple(PROFILES), metavar="NAME", help="default, paper or released: sets the split")
    add("--list_root", type=Path, metavar="DIR", help="folder of train.csv, test.csv and gt.npy")
    add("--feature_root", type=Path, metavar="DIR", help="folder of rgb/ (default: as recorded in lists.json)")
    add("--against", type=Path, metavar="DIR", help="only compare --feature_root with these embeddings")
    add("--video_root", type=Path, metavar="DIR", help="folder of the videos; only names are read")
    add("--all_values", action="store_true", help="check more than 2 GiB of embeddings for NaN")
    add("--json", action="store_true", help="print JSON with every example")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    if flags.against:
        causes = compare(dataset, flags.feature_root or dataset.data_root, flags.against)
        print(sentence(causes))
        return int(any(causes.values()))
    lists = flags.list_root or dataset.lists_of(flags.split or dataset.splits[0])
    recorded = None if flags.profile else lists_metadata(lists / "test.csv").get("split")
    report = audit(
        dataset,
        flags.split or dataset.default_split(str(recorded or preset(flags.profile or "default").split)),
        list_root=flags.list_root,
        feature_root=flags.feature_root,
        video_root=flags.video_root,
        all_values=flags.all_values,
    )
    print(report.as_json() if flags.json else report)
    return 1 if report.findings else 0


if __name__ == "__main__":
    run_command(main)
