"""Runs killed at random times give the same bytes as an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.kill import Campaign


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are found in /proc")
def test_killed_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """Three disturbances; `Campaign` contains the assertions, and kill.py runs more of them."""
    campaign = Campaign(tmp_path, seed=3, tower="sums")
    campaign.cycle(kills=3)
    assert campaign.spent() >= 1
    assert len(campaign.expected) == 30  # six videos, two crops of two modalities and event maps
