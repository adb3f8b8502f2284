"""Which videos lose their sound, and what `python -m demo.missing_sound` prints."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from demo import missing_sound
from demo.missing_sound import without_sound
from tests.conftest import write_sound
from vad.files import run_command


def removed(share: float, stream: str = "audio") -> set[str]:
    transform, x = without_sound(share), np.ones((3, 2), np.float32)
    return {name for name in map(str, range(400)) if not transform(stream, x, name).any()}


def test_share_of_the_videos_loses_its_sound():
    assert len(removed(0.0)) == 0 and len(removed(1.0)) == 400
    assert 160 < len(removed(0.5)) < 240 and removed(0.25) < removed(0.5)
    assert not removed(1.0, "image") and not removed(1.0, "event")


def test_aucs_of_three_streams_end_at_those_of_two(tiny, command, tmp_path, capsys, monkeypatch):
    write_sound(tiny, 24)
    flags = [*tiny.flags, "--device", "cpu", "--test_crops", 5, "--batch_size", 3, "--lr", 0.003, "--max_epoch", 2,
             "--num_refinement_steps", 1, "--checkpoint_dir", tmp_path, "--figure_dir", tmp_path]  # fmt: skip
    assert command("main", *flags, "--modality", "image+event+audio", "--exp_name", "m")[0] == 0
    path = tmp_path / "m.pth"
    aucs = []
    for modality in ("image+event+audio", "fusion"):
        code, out, err = command("test", *tiny.flags, "--ckpt_path", path, "--modality", modality, "--format", "csv",
                                 "--figure_dir", tmp_path)  # fmt: skip
        assert code == 0, err
        aucs.append(next(line.split(",")[1] for line in out.splitlines() if line.startswith("AUC (%)")))
    opened = missing_sound.open_runs
    where = {"feature_root": str(tiny.root), "list_root": str(tiny.lists)}
    monkeypatch.setattr(missing_sound, "open_runs", lambda paths, explicit, device: opened(paths, where, device))
    monkeypatch.setattr(sys, "argv", ["missing_sound", "--ckpt_path", str(path)])
    with pytest.raises(SystemExit) as stopped:
        run_command(missing_sound.main)
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0 and lines[0].startswith("m.pth: ")
    assert [lines[1].split(": ")[1], lines[3].split(": ")[1]] == aucs
