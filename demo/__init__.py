"""A synthetic data set: rendered street videos, embedded by an untrained encoder.

It exercises every step from videos to tables. Its scores do not measure the method's accuracy.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from demo.videos import SIZES, dataset_in, render_videos
from vad.datasets import Dataset, load_dataset
from vad.files import ROOT, InputError


def commands(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """Return the documented commands that embed the videos and write lists and ground truth."""
    flag, weights = ("--dataset", dataset.flag_value), dataset.data_root / "weights"  # written by `demo.encoder`
    weights = weights.relative_to(ROOT) if weights.is_relative_to(ROOT) else weights
    audio = ("extracting/gen_audio.py", *flag, "--encoder", "tiny", "--wav2clip_ckpt", f"{weights}/untrained_audio.pt")
    return (
        ("-m", "demo.encoder", *flag),
        ("extracting/gen.py", *flag, "--modality", "both", "--crops", "5", "--save_events",
         "--clip_ckpt", f"{weights}/untrained_image.pt", "--event_ckpt", f"{weights}/untrained_event.pt"),
        *([audio, ("-m", "extracting.clip.text", *flag)] if dataset.sound else []),
        ("list/generate_file.py", *flag),
        ("list/generate_gt.py", *flag),
    )  # fmt: skip


def prepare(
    *, dataset: str = "demo", seed: int = 0, train: int | None = None, test: int | None = None,
    workers: int | None = None, overwrite: bool = False, folder: Path | None = None,
) -> None:  # fmt: skip
    """Render the videos, then run the documented commands for embeddings, lists and ground truth.

    dataset: a key of `SIZES`; demo_av has sound. train, test: numbers of videos, by default those of `SIZES`.
    workers: number of rendering processes, by default one per core. folder: see `dataset_in`.
    Existing files are reused unless `overwrite`. Raises InputError if a command fails.
    """
    made, workers = dataset_in(folder, load_dataset(dataset)), workers or os.cpu_count() or 1
    # an existing folder may hold the other demo
    sizes = SIZES["demo_av" if made.sound else "demo"]
    train, test = train or sizes[0], test or sizes[1]
    render_videos(made.data_root, made.annotation_path, seed, train, test, workers, overwrite, made)
    for command in commands(made):
        extra = ("--overwrite",) if overwrite and not command[0].startswith("list/") else ()
        text = shlex.join(["python", *command, *extra])
        print(f"$ {text}", flush=True)
        code = subprocess.run([sys.executable, *command, *extra], cwd=ROOT, check=False).returncode
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise InputError(f"`{text}` failed with exit code {code}. See its output above.")
