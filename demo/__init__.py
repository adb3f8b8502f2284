"""A synthetic data set: rendered street videos, embedded by an untrained encoder.

It exercises every step from videos to tables. Its scores do not measure the method's accuracy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from demo.videos import DATASET, TEST, TRAIN, render_videos
from vad.files import ROOT, InputError

WEIGHTS = (DATASET.data_root / "weights").relative_to(ROOT)  # written by `demo.encoder`
COMMANDS = (
    ("-m", "demo.encoder"),
    ("extracting/gen.py", "--dataset", DATASET.name, "--modality", "both", "--crops", "5", "--save_events",
     "--clip_ckpt", f"{WEIGHTS}/untrained_image.pt", "--event_ckpt", f"{WEIGHTS}/untrained_event.pt"),
    ("list/generate_file.py", "--dataset", DATASET.name),
    ("list/generate_gt.py", "--dataset", DATASET.name),
)  # fmt: skip


def prepare(
    *, seed: int = 0, train: int = TRAIN, test: int = TEST, workers: int | None = None, overwrite: bool = False
) -> None:
    """Render the videos, then run the documented commands for embeddings, lists and ground truth.

    workers: number of rendering processes, by default one per core. Existing files are reused unless
    `overwrite`. Raises InputError if a command fails.
    """
    workers = workers or os.cpu_count() or 1
    render_videos(DATASET.data_root, DATASET.annotation_path, seed, train, test, workers, overwrite)
    for command in COMMANDS:
        extra = ("--overwrite",) if overwrite and not command[0].startswith("list/") else ()
        text = " ".join(["python", *command, *extra])
        print(f"$ {text}", flush=True)
        code = subprocess.run([sys.executable, *command, *extra], cwd=ROOT, check=False).returncode
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise InputError(f"`{text}` failed with exit code {code}. See its output above.")
