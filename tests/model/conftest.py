"""Fixtures for the tests of the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def released_layout() -> dict[str, list[int]]:
    """Return name → shape of the 78 tensors in a released checkpoint."""
    path = Path(__file__).resolve().parent.parent / "golden" / "released_checkpoint_layout.json"
    return json.loads(path.read_text())
