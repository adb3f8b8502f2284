"""Make list/<ucf|xd|shang|msad>/annotations.csv from the data sets' own lists and annotations.

    python list/build_annotations.py [folder of the sources] [--out list]

The tables are part of the repository. This script shows how they were derived and makes them again.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vad.datasets import load_dataset, video_name
from vad.files import ROOT, InputError, read_text, run_command, write_bytes

DATE = "2026-11-24"
SPLITS = ("official", "released")
RELEASED = "lists and intervals released with Jeong, Park and Imani, IEF-VAD, arXiv:2505.02393"

DERIVED = f"""splits, classes, lengths and anomalous frames. Derived on {DATE} by
list/build_annotations.py; list/README.md describes the columns."""

COMMENTS = {
    "ucf": f"""UCF-Crime: {DERIVED}
Cite: Sultani, Chen and Shah, Real-World Anomaly Detection in Surveillance Videos, CVPR 2018.
official, intervals: the authors' Anomaly_Train, Anomaly_Test and Temporal_Anomaly_Annotation.
released: {RELEASED}.
frames: as others measured them, of test videos alone. Five intervals are cut at the last frame.
The published ground truth has frames/16 snippets a video, rounded down, and one fewer for
{{shorter}}.""",
    "xd": f"""XD-Violence: {DERIVED}
Cite: Wu et al., Not only Look, but also Listen: Learning Multimodal Violence Detection under Weak
Supervision, ECCV 2020.
official, intervals: the authors' lists and their annotation of 500 test videos.
released: {RELEASED}.
frames: as others measured them, of test videos alone.
The published ground truth has (frames - 1)/16 snippets a video, rounded down: one fewer for the 54
videos whose length is a multiple of 16.""",
    "shang": f"""ShanghaiTech: {DERIVED}
Cite: Liu, Luo, Lian and Gao, Future Frame Prediction for Anomaly Detection - A New Baseline, CVPR
2018; for the weakly supervised split (official) Zhong et al., Graph Convolutional Label Noise
Cleaner, CVPR 2019.
intervals: runs of ones in the authors' frame masks of 107 videos, some of which train here.
released, intervals_released: {RELEASED}.
The release annotates 04_0012 and 05_0023 in parts (aliases), here put together; it trains on both.
frames: of the masks as RTFM (Tian et al., ICCV 2021) passes them on; of normal test videos from
MIST (Feng, Hong and Zheng, CVPR 2021).""",
    "msad": f"""MSAD: {DERIVED}
Cite: Zhu et al., Advancing Video Anomaly Detection: A Concise Review and a New Dataset, NeurIPS
2024.
official, frames, intervals: the authors' lists and annotation. They count from 1 and include the
last frame, as their published ground truth shows.
released, intervals_released: {RELEASED}.
The release takes the same numbers as 0-based and half-open, for its test videos.
Aliases: the authors' names of normal videos, and the release's "perdestrian".""",
}


@dataclass
class Row:
    """One video of a table while it is put together. intervals: column → half-open, 0-based."""

    label: str
    alias: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)
    frames: int | None = None
    intervals: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


Rows = dict[str, Row]


@dataclass(frozen=True)
class Sources:
    """The folder of the sources, and readers of their forms."""

    root: Path

    def lines(self, name: str) -> list[str]:
        """The lines of a text file that are not empty."""
        return [line for line in read_text(self.root / name, "source").splitlines() if line.strip()]

    def released(self, folder: str) -> dict[str, dict[str, str]]:
        """Side → video → label of the release's train.csv and test.csv."""
        return {
            side: {
                re.sub(r"__\d+$", "", Path(row["path"]).stem): row["label"]
                for row in csv.DictReader(self.lines(f"released_list/{folder}/{side}.csv"))
            }
            for side in ("train", "test")
        }

    def intervals(self, name: str) -> dict[str, list[tuple[int, int]]]:
        """Video → the numbers that end its line, in pairs, up to the first -1."""
        found = {}
        for line in self.lines(f"annotations/{name}"):
            numbers = re.search(r"((?:\s+-?\d+)+)\s*$", line)
            values = [int(n) for n in numbers.group(1).split()]
            values = values[: values.index(-1)] if -1 in values else values
            # MSAD's authors write the number of frames before the first interval
            values = values[len(values) % 2 :]
            found[video_name(line.split()[0])] = list(zip(values[::2], values[1::2], strict=True))
        return found

    def frames(self, name: str) -> dict[str, int]:
        """Video → number of frames, from lines name@frames."""
        pairs = (line.rsplit("@", 1) for line in self.lines(f"frame_counts/{name}"))
        return {video: int(frames) for video, frames in pairs}

    def json(self, name: str) -> list[Mapping[str, object]]:
        """The list of videos in a JSON file below gt/."""
        return json.loads(read_text(self.root / "gt" / name, "source"))


def start(
    sources: Sources, folder: str, official: str, spell: Callable[[str], str] = str
) -> Rows:
    """A row for each video of either split, with its label and sides.

    official: name of the authors' lists, with {0} for train and test, {1} for Train and Test.
    spell: a name → the table's.
    """
    rows: Rows = {}
    for side, labels in sources.released(folder).items():
        for name, label in labels.items():
            rows.setdefault(spell(name), Row(label)).splits["released"] = side
    for side in ("train", "test"):
        listed = f"annotations/{official.format(side, side.title())}.official.txt"
        for line in sources.lines(listed):
            name = spell(video_name(line.split()[0]))
            if name not in rows:
                rows[name] = Row(load_dataset(folder).label_of(line))
            rows[name].splits["official"] = side
    return rows


def ucf_crime(sources: Sources) -> tuple[Rows, str]:
    """Rows and comment of UCF-Crime."""
    rows = start(sources, "ucf", "ucf_Anomaly_{1}")
    intervals = sources.intervals("ucf_Temporal_Anomaly_Annotation.official.txt")
    chunks = {video["video"]: video["chunks"] for video in sources.json("ucf_test_290.json")}
    for name, frames in sources.frames("ucf.txt").items():
        # Normal003 there is Normal_Videos_003 everywhere else
        row = rows[re.sub(r"^Normal(?=\d)", "Normal_Videos_", name) + "_x264"]
        row.frames = frames
    for name, row in rows.items():
        row.alias = (name.removesuffix("_x264"),)
        row.intervals["intervals"] = [(s, min(e, row.frames)) for s, e in intervals.get(name, ())]
    shorter = sorted(name for name, count in chunks.items() if rows[name].frames // 16 > count)
    names = textwrap.fill(", ".join(name.removesuffix("_x264") for name in shorter), 98)
    return rows, COMMENTS["ucf"].format(shorter=names)


def xd_violence(sources: Sources) -> tuple[Rows, str]:
    """Rows and comment of XD-Violence."""
    rows = start(sources, "xd", "xd_{0}_list")
    intervals = sources.intervals("xd_annotations.official.txt")
    frames = sources.frames("xd.txt")
    for name, row in rows.items():
        row.frames = frames.get(name)
        row.intervals["intervals"] = intervals.get(name, [])
    return rows, COMMENTS["xd"]


def shanghaitech(sources: Sources) -> tuple[Rows, str]:
    """Rows and comment of ShanghaiTech."""
    rows = start(sources, "shang", "shang_SH_{1}")
    for row in rows.values():
        row.intervals = {"intervals": [], "intervals_released": []}
    for video in sources.json("shang_test_197_frames.json"):
        rows[video["video"]].frames = video["frames"]
    with np.load(sources.root / "gt" / "shang_test_frame_mask.official.npz") as masks:
        for name in masks.files:
            rows[name].frames = len(masks[name])
            edges = np.flatnonzero(np.diff(masks[name].astype(int), prepend=0, append=0)).tolist()
            rows[name].intervals["intervals"] = list(zip(edges[::2], edges[1::2], strict=True))
    for name, intervals in sources.intervals("shang_annotations.txt").items():
        whole = "_".join(name.split("_")[:2])
        rows[whole].intervals["intervals_released"] += intervals
        if whole != name:
            rows[whole].alias += (name,)
    return rows, COMMENTS["shang"]


def msad(sources: Sources) -> tuple[Rows, str]:
    """Rows and comment of MSAD."""

    def spell(name: str) -> str:
        plain = name.replace("perdestrian", "pedestrian")  # the release's mistake
        return plain if "_testing_" in plain else plain.removeprefix("MSAD_normal_")

    annotation = sources.lines("annotations/msad_anomaly_annotation.official.txt")
    frames = {line.split()[0]: int(line.split()[2]) for line in annotation}
    theirs = sources.intervals("msad_anomaly_annotation.official.txt")
    released = sources.intervals("msad_annotations.txt")
    rows = start(sources, "msad", "msad_{0}_list", spell)
    for name, row in rows.items():
        if row.label == "Normal":
            plain = name.removeprefix("MSAD_normal_")
            spellings = (plain, f"MSAD_normal_{plain}", plain.replace("pedestrian", "perdestrian"))
            row.alias = tuple(dict.fromkeys(other for other in spellings if other != name))
        row.frames = frames.get(name)
        row.intervals["intervals"] = [(s - 1, e) for s, e in theirs.get(name, ())]
        row.intervals["intervals_released"] = released.get(name, [])
    return rows, COMMENTS["msad"]


TABLES = {"ucf": ucf_crime, "xd": xd_violence, "shang": shanghaitech, "msad": msad}


def as_csv(rows: Rows, comment: str) -> str:
    """The text of a table: the comment, then the videos by name."""
    readings = list(next(iter(rows.values())).intervals)
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in comment.splitlines())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "alias", "label", *SPLITS, "frames", *readings])
    for name, row in sorted(rows.items()):
        sides = [row.splits.get(split, "") for split in SPLITS]
        cells = [" ".join(f"{s}-{e}" for s, e in row.intervals[reading]) for reading in readings]
        writer.writerow([name, " ".join(row.alias), row.label, *sides, row.frames or "", *cells])
    return text.getvalue()


def main() -> None:
    """Write the four tables, and say which are new."""
    default = os.environ.get("IEFVAD_REALDATA", ROOT.parent / "shared" / "realdata")
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("source", nargs="?", type=Path, default=default, help="the sources")
    parser.add_argument("--out", type=Path, default=ROOT / "list", help="folder of the results")
    flags = parser.parse_args()
    if not flags.source.is_dir():
        raise InputError(f"{flags.source}: no such folder of sources; name it")
    for folder, build in TABLES.items():
        path = flags.out / folder / "annotations.csv"
        rows, comment = build(Sources(flags.source))
        changed = write_bytes(path, as_csv(rows, comment).encode())
        print(f"{path}: {len(rows)} videos, {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    run_command(main)
