"""Compare the lists, embeddings, ground truth and videos of a data set with each other and with its table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from vad.data import lists_metadata
from vad.datasets import load_dataset
from vad.files import run_command
from vad.options import PROFILES, preset
from vad.prepare.audit import audit


def main() -> int:
    """Print the audit. Return 1 if it has findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="name of a data set, or one's own .toml file")
    add("--split", help="split to check against (default: that of the lists)")
    add("--profile", choices=tuple(PROFILES), help="preset of options")
    add("--list_root", type=Path, help="folder of train.csv, test.csv, gt.npy (default: list/<folder>/rgb/<encoder>)")
    add("--feature_root", type=Path, help="folder that holds rgb/ (default: as recorded with the lists)")
    add("--video_root", type=Path, help="folder of the videos, of which only the names are read")
    add("--all_values", action="store_true", help="look for NaN also in more than 2 GiB of embeddings")
    add("--json", action="store_true", help="print JSON, with every example")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    lists = flags.list_root or dataset.list_root
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
