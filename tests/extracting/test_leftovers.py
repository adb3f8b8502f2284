"""What a run that could not end leaves: a full disk, killed processes, decoders that do not start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extracting import decoders as decoders_module
from extracting.decoders import Decoders
from extracting.encoder import Encoder
from extracting.manifest import Manifest
from extracting.outputs import part_path, sweep
from tests.extracting.helpers import contents, make, write_video
from vad.errors import InputError


def test_a_full_disk_is_one_sentence_and_the_run_continues(
    tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files (EFBIG) stands for a full disk (ENOSPC): both are an OSError at a write."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    write_video(videos / "a.avi", 32, seed=1)
    write_video(videos / "b.avi", 16 * 40, seed=2)
    make(videos, tmp_path / "whole", encoders, ("event",))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    walk = Decoders.__iter__

    def limited(self: Decoders):
        for item in walk(self):  # the decoders have their memory, which counts as a file too
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))  # 40 rows of 64 float32 are 10,368 bytes
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Decoders, "__iter__", limited)
        try:
            with pytest.raises(InputError, match=r"b__\d\.npy: cannot be written \(File too large\); what was fin"):
                make(videos, out, encoders, ("event",), workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.rglob(".unfinished"))
    assert Manifest(out / "event").records.keys() == {"a"}
    stamp = (out / "event" / "a__5.npy").stat().st_mtime_ns
    make(videos, out, encoders, ("event",))
    assert (out / "event" / "a__5.npy").stat().st_mtime_ns == stamp
    assert contents(out) == contents(tmp_path / "whole")


def test_files_of_killed_runs_are_swept_and_those_of_running_ones_are_not(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "image"
    out.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=pid: pid)
            part = part_path(out, out / "Abuse" / "a__5.npy")
            part.parent.mkdir(parents=True)
            part.write_bytes(b"half")
    elsewhere = out / ".unfinished" / "another-machine-7"
    elsewhere.mkdir()
    sweep(out)
    assert sorted(place.name for place in (out / ".unfinished").iterdir()) == sorted([elsewhere.name, part.parts[-3]])
    day = time.time() - 90000
    os.utime(elsewhere, (day, day))
    sweep(out)
    assert [place.name for place in (out / ".unfinished").iterdir()] == [part.parts[-3]]  # its process runs: ours


def test_decoders_that_do_not_start_end_the_run(
    videos: Path, tmp_path: Path, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(7)")
    monkeypatch.setattr(decoders_module, "_PROGRAM", tmp_path / "broken.py")
    with pytest.raises(decoders_module.DecoderError, match=r"end before they are ready \(exit code 7\)"):
        make(videos, tmp_path / "out", encoders)
    assert (tmp_path / "out" / "image" / "manifest.jsonl").read_text() == ""
