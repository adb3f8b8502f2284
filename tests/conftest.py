"""Shared fixtures: parity arrays, real data, a tiny data set and the commands."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # background jobs of a shell ignore Ctrl-C, and the programs that tests interrupt would inherit this
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], np.lib.npyio.NpzFile]:
    """Return a loader of tests/golden/<name>.npz: inputs and outputs of the authors' released code."""
    return lambda name: np.load(ROOT / "tests" / "golden" / f"{name}.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real videos, annotations and published arrays; skip the test if it is missing."""
    folder = Path(os.environ.get("IEFVAD_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set IEFVAD_REALDATA)")
    return folder


def snippet_count(frames: int, tail: str) -> int:
    """Return the number of snippets S of a video under a tail rule.

    "whole" counts every whole snippet. "released" reads blocks of 512 frames and counts the last,
    partial block only if it has more than 16 frames.
    """
    if tail == "whole":
        return frames // 16
    if tail == "released":
        tail_frames = frames % 512
        return (frames - (tail_frames if tail_frames <= 16 else 0)) // 16
    raise ValueError(tail)


@dataclass(frozen=True)
class Tiny:
    """Embeddings, lists and ground truth of a tiny synthetic UCF-Crime, with the flags to use them."""

    root: Path  # contains rgb/ and event_thr_10/
    lists: Path  # contains train.csv, test.csv and gt.npy

    @property
    def flags(self) -> list[str]:
        """Flags for main.py, test.py and test2.py."""
        return ["--dataset", "ucfcrime", "--feature_root", str(self.root), "--list_root", str(self.lists)]

    def path(self, modality: str, video: str, label: str) -> Path:
        """Return the embedding file of a video's crop 5."""
        return self.root / modality / label / f"{video}__5.npy"

    @classmethod
    def make(cls, folder: Path, width: int = 16) -> Tiny:
        """Write twelve training and eight test videos, half of them anomalous, with 4 to 40 snippets."""
        dataset = cls(folder / "features", folder / "lists")
        dataset.lists.mkdir(parents=True)
        rng = np.random.default_rng(0)
        rows, labels = {"train": [], "test": []}, []
        for number in range(20):
            label = ("Normal", "Arson", "Normal", "Fighting")[number % 4]
            split = "train" if number < 12 else "test"
            video, S = f"{label}{number:03d}_x264", int(rng.integers(4, 41))
            snippets = np.zeros(S, np.uint8)
            if label != "Normal":
                snippets[S // 3 : S // 3 + max(2, S // 4)] = 1
            for modality, strength in (("rgb", 0.3), ("event_thr_10", 3.0)):
                x = rng.standard_normal((S, width)).astype(np.float32)
                x[snippets == 1, :4] += strength
                path = dataset.path(modality, video, label)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, x)
            rows[split].append(f"rgb/{label}/{video}__5.npy,{label}")
            if split == "test":
                labels.append(np.repeat(snippets, 16))
        for split, lines in rows.items():
            (dataset.lists / f"{split}.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
        np.save(dataset.lists / "gt.npy", np.concatenate(labels))
        return dataset


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """Return a UCF-Crime of 20 videos and width 16, whose event embeddings reveal the anomalies."""
    return Tiny.make(tmp_path)


def write_sound(tiny: Tiny, width: int, silent: Sequence[str] = ()) -> None:
    """Write sound embeddings of the tiny data set, which differ in anomalous videos; zeros for silent videos."""
    rng = np.random.default_rng(1)
    for path in sorted((tiny.root / "rgb").rglob("*.npy")):
        label, video, snippets = path.parent.name, path.stem.rpartition("__")[0], len(np.load(path))
        x = rng.standard_normal((snippets, width)).astype(np.float32) + (label != "Normal")
        file = tiny.root / "audio" / label / f"{video}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, 0 * x if video in silent else x)


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in this process: (exit code, stdout, stderr)."""
    from vad.files import run_command  # sys.path contains the root only here

    def run(name: str, *flags: object) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f"command_{name}", ROOT / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, flags)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command(module.main, expected=(module.CheckpointError, module.ConfigError))
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run
