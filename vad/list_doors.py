"""What the doors of list/ share: flags, and the words in which they say what came of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vad.audit import AuditRequest
from vad.audit import audit as run_audit
from vad.catalog import DATASETS, IMAGE_FOLDER, dataset
from vad.lists import lists_sidecar
from vad.profile import PROFILES, profile
from vad.settings import crops
from vad.splits import ListRequest, make_lists
from vad.truth import TruthRequest, make_ground_truth

SPLITS = ("official", "released")


def generate_file(name: str | None = None) -> None:
    """Make train.csv and test.csv; name: the data set of a documented script, else --dataset is asked for."""
    parser = _parser("Make train.csv and test.csv from image embeddings and a data set's own lists.", name)
    add = parser.add_argument
    add("--base_path", type=Path, help="folder of the image embeddings, <…>/rgb (default: data/<folder>/rgb)")
    add("--train_save_path", type=Path, help="default: list/<folder>/rgb/<encoder>/train.csv")
    add("--test_save_path", type=Path, help="default: list/<folder>/rgb/<encoder>/test.csv")
    add("--train_list", type=Path, help="list of training videos (default: the split's file in list/<folder>/)")
    add("--test_list", type=Path, help="list of test videos, an annotation file does (default: the split's file)")
    add("--annotation_path", type=Path, help="test videos are those this annotation names; same as --test_list")
    add("--annotation_root", type=Path, help="folder of the split's lists (default: list/<folder>)")
    add("--train_crops", type=crops, help="like 5, 0,5 or 0..9 (default: all that exist)")
    add("--test_crops", type=crops, help="like 5, 0,5 or 0..9 (default: the profile's)")
    add("--unlisted", choices=("report", "train"), help="videos in neither list (default: train without training list)")
    add("--allow_missing", action="store_true", help="leave out test videos that have no embeddings")
    args = parser.parse_args()
    record, switches = dataset(name or args.dataset), profile(args.profile or "default")
    said = make_lists(
        ListRequest(
            dataset=record,
            split=args.split or switches.split,
            base_path=args.base_path or record.data_root / IMAGE_FOLDER,
            train_csv=args.train_save_path or record.list_root / "train.csv",
            test_csv=args.test_save_path or record.list_root / "test.csv",
            train_list=args.train_list,
            test_list=args.test_list or args.annotation_path,
            annotation_root=args.annotation_root,
            train_crops=args.train_crops,
            test_crops=args.test_crops or switches.test_crops,
            unlisted=args.unlisted,
            allow_missing=args.allow_missing,
        )
    )
    print("\n".join(said))


def generate_gt(name: str | None = None) -> None:
    """Make gt.npy and its note; name: the data set of a documented script, else --dataset is asked for."""
    parser = _parser("Make the frame labels gt.npy in the order of test.csv from a data set's annotation.", name)
    add = parser.add_argument
    add("--csv_path", type=Path, help="test.csv (default: list/<folder>/rgb/<encoder>/test.csv)")
    add("--save_path", type=Path, help="a .npy file, or a folder that gets gt.npy (default: beside test.csv)")
    add("--annotation_path", type=Path, help="annotation file, or folder of masks (default: the split's file)")
    add("--annotation_root", type=Path, help="folder of the split's annotation file (default: list/<folder>)")
    add("--annotation_form", help="auto, class, pairs, table or masks (default: told from the lines)")
    add("--feature_root", type=Path, help="folder that holds rgb/ (default: as noted when the list was made)")
    args = parser.parse_args()
    record = dataset(name or args.dataset)
    csv_path = args.csv_path or record.list_root / "test.csv"
    # what the lists were made with goes before the default profile, but not before what was typed
    noted = None if args.profile else lists_sidecar(csv_path).get("split")
    said = make_ground_truth(
        TruthRequest(
            dataset=record,
            split=args.split or str(noted or profile(args.profile or "default").split),
            csv_path=csv_path,
            save_path=args.save_path or csv_path.parent,
            annotation_path=args.annotation_path,
            annotation_root=args.annotation_root,
            annotation_form=args.annotation_form,
            feature_root=args.feature_root,
        )
    )
    print("\n".join(said))


def audit() -> int:
    """Print what does not fit in lists, embeddings, ground truth and videos; returns 1 where something is found."""
    parser = _parser("Check lists, embeddings, ground truth and videos of a data set against each other.", None)
    add = parser.add_argument
    add("--list_root", type=Path, help="folder of train.csv, test.csv, gt.npy (default: list/<folder>/rgb/<encoder>)")
    add("--annotation_root", type=Path, help="folder of the data set's own lists (default: list/<folder>)")
    add("--feature_root", type=Path, help="folder that holds rgb/ (default: as noted when the lists were made)")
    add("--video_root", type=Path, help="folder of the videos, of which only the names are read")
    add("--gt_path", type=Path, help="gt.npy, where it is not in --list_root")
    what = "JSON lists of {video, frames} or {video, chunks}, or frame masks: lengths to predict frames from"
    add("--frame_counts", type=Path, nargs="+", default=(), help=what)
    add("--values", choices=("auto", "all", "none"), default="auto", help="look for NaN: up to 2 GiB (auto), all, none")
    add("--json", action="store_true", help="print JSON, with every example")
    args = parser.parse_args()
    record = dataset(args.dataset)
    noted = None if args.profile else lists_sidecar((args.list_root or record.list_root) / "test.csv").get("split")
    found = run_audit(
        AuditRequest(
            dataset=record,
            split=args.split or str(noted or profile(args.profile or "default").split),
            list_root=args.list_root,
            annotation_root=args.annotation_root,
            feature_root=args.feature_root,
            video_root=args.video_root,
            gt_path=args.gt_path,
            frame_counts=tuple(args.frame_counts),
            values=args.values,
            progress=sys.stderr.isatty(),
        )
    )
    print(found.as_json() if args.json else found)
    return 1 if found.findings else 0


def _parser(what: str, name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=what)
    if name is None:
        parser.add_argument("--dataset", required=True, help=f"{', '.join(DATASETS)}, or one's own .toml file")
    parser.add_argument("--profile", choices=tuple(PROFILES), help="set of switches (default: default)")
    parser.add_argument("--split", choices=SPLITS, help="whose split (default: the profile's)")
    return parser
