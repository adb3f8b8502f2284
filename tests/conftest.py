"""What tests share: the root on sys.path, parity arrays, real data, a tiny data set, commands."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background jobs ignore Ctrl-C and so would every program that the tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], np.lib.npyio.NpzFile]:
    """Loads tests/golden/<name>.npz: inputs and outputs of the authors' released code."""
    return lambda name: np.load(ROOT / "tests" / "golden" / f"{name}.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real videos, annotations and published arrays; the test is skipped where there is none."""
    folder = Path(os.environ.get("IEFVAD_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set IEFVAD_REALDATA)")
    return folder


def snippet_count(frames: int, tail: str) -> int:
    """Number of whole snippets S that a video of `frames` frames gives under a tail rule.

    "whole": every whole snippet counts. "released": frames come in blocks of 512, and the last,
    partial block counts only if more than 16 frames are left.
    """
    if tail == "whole":
        return frames // 16
    if tail == "released":
        left = frames % 512
        return (frames - (left if left <= 16 else 0)) // 16
    raise ValueError(tail)


@dataclass(frozen=True)
class Tiny:
    """Embeddings, lists and ground truth of a made-up UCF-Crime, with the flags that find them."""

    root: Path  # holds rgb/ and event_thr_10/
    lists: Path  # holds train.csv, test.csv, gt.npy

    @property
    def flags(self) -> list[str]:
        """For main.py, test.py and test2.py."""
        return ["--dataset", "ucfcrime", "--feature_root", str(self.root), "--list_root", str(self.lists)]

    def path(self, modality: str, video: str, label: str) -> Path:
        """File of crop 5 of a video."""
        return self.root / modality / label / f"{video}__5.npy"

    @classmethod
    def make(cls, folder: Path, width: int = 16) -> Tiny:
        """Twelve training and eight test videos, half of them anomalous, 4 to 40 snippets long."""
        made = cls(folder / "features", folder / "lists")
        made.lists.mkdir(parents=True)
        rng = np.random.default_rng(0)
        rows, truth = {"train": [], "test": []}, []
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
                path = made.path(modality, video, label)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, x)
            rows[split].append(f"rgb/{label}/{video}__5.npy,{label}")
            if split == "test":
                truth.append(np.repeat(snippets, 16))
        for split, lines in rows.items():
            (made.lists / f"{split}.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
        np.save(made.lists / "gt.npy", np.concatenate(truth))
        return made


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A UCF-Crime of twenty videos, 16 wide, in which event embeddings tell the anomaly."""
    return Tiny.make(tmp_path)


@pytest.fixture
def command(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Runs main, test or test2 in this process; returns exit code, standard output and error."""
    from vad.files import run_command  # the root is on sys.path only now

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
