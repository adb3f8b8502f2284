"""What can be watched of a run while it trains: a picture of its curves and, where asked for, TensorBoard."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

from vad.errors import InputError
from vad.figures_training import draw_training
from vad.run import Run, metrics_of

SHARE = 0.05  # of the run's time that drawing may take


class Curves:
    """Called after every evaluation; draws <folder>/training.png and .pdf, and writes <folder>/tensorboard/."""

    def __init__(self, folder: Path, name: str, tensorboard: bool = False) -> None:
        """Raises InputError where TensorBoard is asked for and not installed."""
        self.folder, self.name = folder, name
        self._board = self._module() if tensorboard else None
        self._writer = None
        self._written = 0  # rows that TensorBoard has
        self._drawn = -float("inf")  # when, and how long it took
        self._seconds = 0.0

    def __call__(self, run: Run) -> None:
        if self._board is not None:
            self._write(run)
        # epochs of a small data set take less time than a picture of them
        if time.monotonic() - self._drawn >= self._seconds / SHARE:
            self.draw(run)

    def draw(self, run: Run) -> None:
        """Draw the curves now."""
        start = time.monotonic()
        draw_training(run.log(), self.folder / "training", title=f"{self.name}, training")
        self._drawn = time.monotonic()
        self._seconds = self._drawn - start

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    @staticmethod
    def _module() -> object:
        try:
            return importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            raise InputError(
                "--tensorboard needs a package that is not installed; install it with `pip install tensorboard`, or "
                "leave the flag out: the same numbers are in the CSV log"
            ) from None

    def _write(self, run: Run) -> None:
        if self._writer is None:
            # a continued run writes its rows again; whatever was written after them belongs to steps that were lost
            first = run.rows[0]["step"] if run.rows else 0
            self._writer = self._board.SummaryWriter(str(self.folder / "tensorboard"), purge_step=first)
        for row in run.rows[self._written :]:
            for name, value in row.items():
                if name == "loss" or name.startswith("loss_"):
                    self._writer.add_scalar(f"loss/{name.removeprefix('loss_') if name != 'loss' else 'total'}",
                                            value, row["step"])  # fmt: skip
            for name, value in {**metrics_of(row), "learning rate": row["lr"]}.items():
                self._writer.add_scalar(f"test set/{name}" if name != "learning rate" else name, value, row["step"])
        self._written = len(run.rows)
        self._writer.flush()
