"""The drawn demo data set: `python -m vad.demo` draws it and runs the documented commands up to lists and truth."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from vad import ucf_sized
from vad.catalog import DEMO, ROOT
from vad.demo_scene import HEIGHT, WIDTH
from vad.demo_story import FPS, draw, tell
from vad.errors import InputError, run_door
from vad.files import read_json, write_json, write_whole

LISTS = DEMO.annotations["official"]  # the names under which list/ looks for them
WEIGHTS = (DEMO.data_root / "weights").relative_to(ROOT)  # made by demo.encoder
COMMANDS = (
    ("-m", "demo.encoder"),
    (
        "extracting/gen.py", "--dataset", DEMO.name, "--modality", "both", "--crops", "5",
        "--clip_ckpt", f"{WEIGHTS}/untrained_image.pt", "--event_ckpt", f"{WEIGHTS}/untrained_event.pt",
    ),
    ("list/generate_file.py", "--dataset", DEMO.name),
    ("list/generate_gt.py", "--dataset", DEMO.name),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One video to draw: its number in the set, its name and class, and what the renderer knows of it."""

    index: int
    name: str
    label: str
    frames: int
    intervals: tuple[tuple[int, int], ...]  # half-open, in frames

    @property
    def file(self) -> str:
        """Path below videos/, as the lists name it."""
        return f"{self.label}/{self.name}.mp4"

    @property
    def annotation(self) -> str:
        """`name class s e …`, and -1 -1 for a normal video."""
        numbers = [n for interval in self.intervals or ((-1, -1),) for n in interval]
        return " ".join([self.name, self.label, *map(str, numbers)])


def plan_videos(seed: int, train: int, test: int) -> tuple[list[Plan], list[Plan]]:
    """Training and test videos: every other one normal, the rest the kinds of anomaly in turn.

    Raises InputError where a split would not hold a normal and an anomalous video.
    """
    if min(train, test) < 2:
        raise InputError(f"{train} training and {test} test videos asked for; each split needs at least 2")
    kinds = tuple(DEMO.classes)
    labels = [
        DEMO.normal if number % 2 == 0 else kinds[number // 2 % len(kinds)]
        for split in (train, test)
        for number in range(split)
    ]
    plans = []
    for index, label in enumerate(labels):
        story = tell(seed, index, label)
        name = f"{label}_{labels[: index + 1].count(label):03d}"
        plans.append(Plan(index, name, label, story.frames, tuple(story.intervals)))
    return plans[:train], plans[train:]


def write_video(plan: Plan, seed: int, out: Path) -> None:
    """Draw one video into <out>/videos, whole or not at all. Raises InputError where it cannot be written."""
    final = out / "videos" / plan.file
    unfinished = out / "unfinished" / f"{plan.name}.{os.getpid()}.mp4"  # not where extraction looks for videos
    for folder in (final.parent, unfinished.parent):
        folder.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise InputError(f"{unfinished}: cannot write this video; is there room, and can this OpenCV write mp4v?")
    for frame in draw(tell(seed, plan.index, plan.label)):
        writer.write(frame)
    writer.release()
    promised = int(cv2.VideoCapture(str(unfinished)).get(cv2.CAP_PROP_FRAME_COUNT))
    if promised != plan.frames:  # the writer says nothing when the disk is full
        raise InputError(f"{unfinished}: {promised} of {plan.frames} frames were written; is the disk full?")
    os.replace(unfinished, final)


def draw_videos(
    out: Path,
    lists: Path,
    *,
    seed: int = 0,
    train: int = DEMO.videos["official"][0],
    test: int = DEMO.videos["official"][1],
    workers: int = 1,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Draw what is missing of the data set into `out`, its lists and annotations into `lists`.

    Training truth is written beside the videos, for study; no command reads it. Raises InputError where `out`
    holds something else and is not to be overwritten.
    """
    splits = plan_videos(seed, train, test)
    _claim(out, {"seed": seed, "train": train, "test": test, "drawing": _drawing()}, overwrite)
    videos = [plan for split in splits for plan in split]
    missing = [plan for plan in videos if not (out / "videos" / plan.file).is_file()]
    if missing:
        _draw_all(missing, seed, out, workers)
    kept = f", {len(videos) - len(missing)} were there" if len(missing) < len(videos) else ""
    frames = sum(plan.frames for plan in videos)
    say(f"{out / 'videos'}: {len(videos)} videos, {frames} frames (drawn {len(missing)}{kept})")
    for name, plans in zip((LISTS.train_list, LISTS.test_list), splits, strict=True):
        _write_lines(lists / str(name), [plan.file for plan in plans])
    _write_lines(lists / LISTS.annotation, [plan.annotation for plan in splits[1]])
    _write_lines(out / "train_annotations.txt", [plan.annotation for plan in splits[0]])
    say(f"{lists}: {LISTS.train_list} ({train}), {LISTS.test_list} ({test}), {LISTS.annotation}")


def _drawing() -> str:
    """Fingerprint of the code that draws: other code draws other videos."""
    sources = sorted(Path(__file__).resolve().parent.glob("demo_*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _claim(out: Path, settings: dict[str, object], overwrite: bool) -> None:
    """Make `out` the folder of these settings: untouched if it is, emptied of videos if it may be."""
    note, videos = out / "demo.json", out / "videos"
    there = read_json(note, "description of the drawn videos") if note.is_file() else None
    if there is None and videos.is_dir() and any(videos.iterdir()):
        raise InputError(f"{videos} holds videos that were not drawn here; give another --out")
    if there is not None and (there != settings or overwrite):
        if not overwrite:
            differs = next(key for key in {**settings, **there} if there.get(key) != settings.get(key))
            how = f"{differs} {there.get(differs)}, not {settings.get(differs)}"
            raise InputError(
                f"{out} holds videos drawn with {'another version of this code' if differs == 'drawing' else how}; "
                "give --overwrite to draw them again, or another --out"
            )
        shutil.rmtree(videos, ignore_errors=True)
    write_json(note, settings)


def _draw_all(plans: Sequence[Plan], seed: int, out: Path, workers: int) -> None:
    job = partial(write_video, seed=seed, out=out)
    # the longest first, so that no worker is left with one at the end
    queue = sorted(plans, key=lambda plan: -plan.frames)
    with tqdm(total=sum(plan.frames for plan in plans), desc="drawing", unit="frame") as bar:
        if workers < 2:
            for plan in queue:
                job(plan)
                bar.update(plan.frames)
        else:
            with multiprocessing.get_context("spawn").Pool(min(workers, len(queue)), _start_worker) as pool:
                for frames in pool.imap_unordered(partial(_drawn, job), queue):
                    bar.update(frames)
    shutil.rmtree(out / "unfinished", ignore_errors=True)


def _drawn(job: Callable[[Plan], None], plan: Plan) -> int:
    job(plan)
    return plan.frames


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    cv2.setNumThreads(1)  # the processes are the parallelism


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def prepare(
    say: Callable[[str], None] = print,
    *,
    seed: int = 0,
    train: int = DEMO.videos["official"][0],
    test: int = DEMO.videos["official"][1],
    workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Draw the data set where the commands expect it, then run them: embeddings, lists, ground truth.

    workers: drawing processes, one a core by default. What is there is reused. Raises InputError where a command
    fails.
    """
    draw_videos(
        DEMO.data_root,
        DEMO.annotation_root,
        seed=seed,
        train=train,
        test=test,
        workers=workers or os.cpu_count() or 1,
        overwrite=overwrite,
        say=say,
    )
    for command in COMMANDS:
        again = ("--overwrite",) if overwrite and not command[0].startswith("list/") else ()
        typed = " ".join(["python", *command, *again])
        say(f"$ {typed}")
        code = subprocess.run([sys.executable, *command, *again], cwd=ROOT, check=False).returncode
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise InputError(f"`{typed}` ended with exit code {code}; what it printed above says why")


def main() -> None:
    """Parse, draw, and run the commands that follow."""
    parser = argparse.ArgumentParser(prog="python -m vad.demo", description=__doc__)
    train, test = DEMO.videos["official"]
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another data set (default 0)")
    parser.add_argument("--train", type=int, default=train, help=f"training videos (default {train})")
    parser.add_argument("--test", type=int, default=test, help=f"test videos (default {test})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="drawing processes (default: cores)")
    parser.add_argument("--overwrite", action="store_true", help="draw and extract again, also with other settings")
    parser.add_argument("--draw_only", action="store_true", help="draw the videos and write their lists, no more")
    parser.add_argument("--out", type=Path, help="draw into this folder, lists in its list/, and no more")
    parser.add_argument("--ucf_sized", type=Path, metavar="DIR", help="instead: made-up embeddings of UCF-Crime's size")
    args = parser.parse_args()
    if args.ucf_sized is not None:
        ucf_sized.make(args.ucf_sized, seed=args.seed)
        return
    chosen = {name: getattr(args, name) for name in ("seed", "train", "test", "workers", "overwrite")}
    if args.out is not None:
        draw_videos(args.out, args.out / "list", **chosen)
    elif args.draw_only:
        draw_videos(DEMO.data_root, DEMO.annotation_root, **chosen)
    else:
        prepare(**chosen)


if __name__ == "__main__":
    run_door(main)
