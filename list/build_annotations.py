"""Make list/<ucf|xd|shang|msad>/annotations.csv from the lists and annotations of the data sets' authors.

The tables are part of the repository. This script documents how they were made and can reproduce them. The
comment at the top of each table, with its sources, is copied from the existing table.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vad.datasets import load_dataset, video_name
from vad.files import ROOT, InputError, read_text, run_command, write_bytes
from vad.options import command_parser

SPLITS = ("official", "released")
Intervals = list[tuple[int, int]]  # half-open, 0-based


@dataclass
class Row:
    """One video of a table under construction."""

    label: str
    alias: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)
    frames: int | None = None
    intervals: Intervals = field(default_factory=list)
    released: Intervals = field(default_factory=list)  # intervals of the released code, if they differ


Rows = dict[str, Row]


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file."""
    return [line for line in read_text(path, "source").splitlines() if line.strip()]


def read_intervals(path: Path) -> dict[str, Intervals]:
    """Return video → pairs of the numbers at the end of its line, up to the first -1."""
    intervals = {}
    for line in read_lines(path):
        values = [int(n) for n in re.search(r"((?:\s+-?\d+)+)\s*$", line).group(1).split()]
        values = values[: values.index(-1)] if -1 in values else values
        values = values[len(values) % 2 :]  # MSAD has the number of frames before the first interval
        intervals[video_name(line.split()[0])] = list(zip(values[::2], values[1::2], strict=True))
    return intervals


def read_frames(path: Path) -> dict[str, int]:
    """Return video → number of frames, from lines name@frames."""
    pairs = (line.rsplit("@", 1) for line in read_lines(path))
    return {video: int(frames) for video, frames in pairs}


def read_splits(root: Path, folder: str, official: str, spell: Callable[[str], str] = str) -> Rows:
    """Return a row for each video of either split, with its label and its part of each split.

    official: name of the authors' lists, with {0} for train or test and {1} for Train or Test.
    spell: maps a video name to its spelling in the table.
    """
    rows: Rows = {}
    for side in ("train", "test"):
        for line in csv.DictReader(read_lines(root / f"released_list/{folder}/{side}.csv")):
            name = spell(re.sub(r"__\d+$", "", Path(line["path"]).stem))
            rows.setdefault(name, Row(line["label"])).splits["released"] = side
    for side in ("train", "test"):
        for line in read_lines(root / f"annotations/{official.format(side, side.title())}.official.txt"):
            name = spell(video_name(line.split()[0]))
            if name not in rows:
                rows[name] = Row(load_dataset(folder).label_of(line))
            rows[name].splits["official"] = side
    return rows


def ucf_crime(root: Path) -> Rows:
    """Return the rows of UCF-Crime, with intervals cut at the end of the video."""
    rows = read_splits(root, "ucf", "ucf_Anomaly_{1}")
    intervals = read_intervals(root / "annotations/ucf_Temporal_Anomaly_Annotation.official.txt")
    for name, frames in read_frames(root / "frame_counts/ucf.txt").items():
        # this source writes Normal003 for Normal_Videos_003
        rows[re.sub(r"^Normal(?=\d)", "Normal_Videos_", name) + "_x264"].frames = frames
    for name, row in rows.items():
        row.alias = (name.removesuffix("_x264"),)
        row.intervals = [(s, min(e, row.frames)) for s, e in intervals.get(name, ())]
    return rows


def xd_violence(root: Path) -> Rows:
    """Return the rows of XD-Violence."""
    rows = read_splits(root, "xd", "xd_{0}_list")
    for name, intervals in read_intervals(root / "annotations/xd_annotations.official.txt").items():
        rows[name].intervals = intervals
    for name, frames in read_frames(root / "frame_counts/xd.txt").items():
        rows[name].frames = frames
    return rows


def shanghaitech(root: Path) -> Rows:
    """Return the rows of ShanghaiTech, with intervals from the authors' frame masks."""
    rows = read_splits(root, "shang", "shang_SH_{1}")
    for video in json.loads(read_text(root / "gt/shang_test_197_frames.json", "source")):
        rows[video["video"]].frames = video["frames"]
    with np.load(root / "gt/shang_test_frame_mask.official.npz") as masks:
        for name, mask in masks.items():
            edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0)).tolist()
            rows[name].frames = len(mask)
            rows[name].intervals = list(zip(edges[::2], edges[1::2], strict=True))
    for name, intervals in read_intervals(root / "annotations/shang_annotations.txt").items():
        whole = "_".join(name.split("_")[:2])  # the released annotations split two videos into parts
        rows[whole].released += intervals
        if whole != name:
            rows[whole].alias += (name,)
    return rows


def msad(root: Path) -> Rows:
    """Return the rows of MSAD, whose authors count frames from 1 and include the last frame."""

    def spell(name: str) -> str:
        plain = name.replace("perdestrian", "pedestrian")  # a typo in the released lists
        return plain if "_testing_" in plain else plain.removeprefix("MSAD_normal_")

    rows = read_splits(root, "msad", "msad_{0}_list", spell)
    annotation = root / "annotations/msad_anomaly_annotation.official.txt"
    frames = {line.split()[0]: int(line.split()[2]) for line in read_lines(annotation)}
    intervals, released = read_intervals(annotation), read_intervals(root / "annotations/msad_annotations.txt")
    for name, row in rows.items():
        if row.label == "Normal":
            plain = name.removeprefix("MSAD_normal_")
            spellings = (plain, f"MSAD_normal_{plain}", plain.replace("pedestrian", "perdestrian"))
            row.alias = tuple(dict.fromkeys(other for other in spellings if other != name))
        row.frames = frames.get(name)
        row.intervals = [(s - 1, e) for s, e in intervals.get(name, ())]
        row.released = released.get(name, [])
    return rows


TABLES: Mapping[str, Callable[[Path], Rows]] = {
    "ucf": ucf_crime, "xd": xd_violence, "shang": shanghaitech, "msad": msad
}  # fmt: skip


def as_csv(folder: str, rows: Rows) -> str:
    """Return the text of a table: the comment of the existing table, then the videos sorted by name."""
    text = io.StringIO()
    existing = read_text(ROOT / "list" / folder / "annotations.csv", "table").splitlines(keepends=True)
    text.writelines(takewhile(lambda line: line.startswith("#"), existing))
    readings = ["intervals", "intervals_released"] if any(row.released for row in rows.values()) else ["intervals"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "alias", "label", *SPLITS, "frames", *readings])
    for name, row in sorted(rows.items()):
        sides = [row.splits.get(split, "") for split in SPLITS]
        cells = [" ".join(f"{s}-{e}" for s, e in intervals) for intervals in (row.intervals, row.released)]
        writer.writerow([name, " ".join(row.alias), row.label, *sides, row.frames or "", *cells[: len(readings)]])
    return text.getvalue()


def main() -> None:
    """Write the four tables and print which have changed."""
    default = os.environ.get("IEFVAD_REALDATA", ROOT.parent / "shared" / "realdata")
    parser = command_parser(__doc__, "python list/build_annotations.py SOURCES", usage="[SOURCES] [options]")
    parser.add_argument("source", nargs="?", type=Path, metavar="SOURCES", default=default,
                        help="folder of the data sets' lists and annotations")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", default=ROOT / "list", help="output folder (default: list/)")
    flags = parser.parse_args()
    if not flags.source.is_dir():
        raise InputError(f"{flags.source} does not exist. Give the folder of the sources.")
    for folder, build in TABLES.items():
        path, rows = flags.out / folder / "annotations.csv", build(flags.source)
        changed = write_bytes(path, as_csv(folder, rows).encode())
        print(f"{path}: {len(rows)} videos, {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    run_command(main)
