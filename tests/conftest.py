"""What every test shares: the project's root on sys.path, the parity arrays, the real data where it is at hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


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
