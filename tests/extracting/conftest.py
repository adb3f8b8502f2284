"""Fixtures of the extraction tests: three small videos, and a small untrained encoder per modality."""

from __future__ import annotations

from pathlib import Path

import pytest

from extracting.clip.encoder import Encoder, load_encoder
from tests.extracting.helpers import BOTH, write_video


@pytest.fixture(scope="session")
def tiny_encoders() -> dict[str, Encoder]:
    """Untrained towers with three layers and 64-dimensional embeddings."""
    return {name: load_encoder("untrained", name, tower="tiny", device="cpu") for name in BOTH}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos with 3, 2 and 1 snippets; the last one has no class folder."""
    root = tmp_path / "videos"
    write_video(root / "Abuse" / "a.b_x264.avi", 50, seed=1)
    write_video(root / "Arson" / "c.avi", 32, seed=2)
    write_video(root / "d.avi", 17, seed=3)
    return root
