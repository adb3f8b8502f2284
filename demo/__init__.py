"""The synthetic data set: street videos rendered by code, embedded by an untrained encoder.

It exercises every step from videos to tables; its numbers say nothing about the method's accuracy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from demo.videos import DATASET, TEST, TRAIN, render_videos
from vad.files import ROOT, InputError

WEIGHTS = (DATASET.data_root / "weights").relative_to(ROOT)  # `demo.encoder` makes them
COMMANDS = (
    ("-m", "demo.encoder"),
    ("extracting/gen.py", "--dataset", DATASET.name, "--modality", "both", "--crops", "5",
     "--clip_ckpt", f"{WEIGHTS}/untrained_image.pt", "--event_ckpt", f"{WEIGHTS}/untrained_event.pt"),
    ("list/generate_file.py", "--dataset", DATASET.name),
    ("list/generate_gt.py", "--dataset", DATASET.name),
)  # fmt: skip


def prepare(
    *, seed: int = 0, train: int = TRAIN, test: int = TEST, workers: int | None = None, overwrite: bool = False
) -> None:
    """Render the videos, then run the documented commands: embeddings, lists, ground truth.

    workers: rendering processes, one a core by default. What exists is reused unless `overwrite`.
    Raises InputError where a command fails.
    """
    workers = workers or os.cpu_count() or 1
    render_videos(DATASET.data_root, DATASET.annotation_path, seed, train, test, workers, overwrite)
    for command in COMMANDS:
        again = ("--overwrite",) if overwrite and not command[0].startswith("list/") else ()
        text = " ".join(["python", *command, *again])
        print(f"$ {text}", flush=True)
        code = subprocess.run([sys.executable, *command, *again], cwd=ROOT, check=False).returncode
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise InputError(f"`{text}` ended with exit code {code}; its output above says why")
