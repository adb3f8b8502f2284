"""Kill training runs at random times, resume them and compare their results with an undisturbed run.

`python tests/tools/kill_training.py --kills 30` prints the counts; a test runs a short campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import vad.train
from model import read_checkpoint
from tests.conftest import Tiny
from tests.vad.runs import SMALL, options_of
from vad.files import run_command
from vad.options import Options
from vad.train import RunFiles, train_run

VARIANTS = (
    {"profile": "released", "nan": "refuse", "print_steps": 4},
    {},
    {"rollback": True, "keep": "best"},
)


def start(options: Options) -> int:
    """Start a process that trains or resumes; forking avoids the import time."""
    process = os.fork()
    if process:
        return process
    devnull = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(devnull, descriptor)
    try:
        run_command(lambda: train_run(options) and 0)
    except SystemExit as end:
        os._exit(end.code)
    finally:
        os._exit(1)


def difference(one: RunFiles, other: RunFiles) -> str:
    """Return the first difference of two finished runs, or an empty string."""
    if one.log.read_bytes() != other.log.read_bytes():
        return "log"
    for name in ("last", "best"):
        a, b = (read_checkpoint(getattr(files, name)) for files in (one, other))
        names = [n for n, tensor in a["model"].items() if not torch.equal(tensor, b["model"][n])]
        if names or any(a[key] != b[key] for key in ("step", "epoch", "weights", "metrics")):
            return f"{name} {names[:1]}"
    return ""


def campaign(folder: Path, kills: int, seed: int) -> Counter:
    """Kill runs `kills` times in total; complete every run and compare it."""
    rng, tally, tiny = random.Random(seed), Counter(), Tiny.make(folder)
    vad.train.SAVE_SECONDS = 0
    while tally["kills"] < kills:
        changes = {**SMALL, "max_epoch": 6, **VARIANTS[tally["runs"] % len(VARIANTS)]}
        whole, disturbed = (
            options_of(tiny, folder / f"{name}{tally['runs']}", **changes) for name in ("whole", "disturbed")
        )
        started = time.monotonic()
        assert os.waitpid(start(whole), 0)[1] == 0
        seconds, ended = 1.2 * (time.monotonic() - started), False
        while not ended:
            process = start(disturbed)
            if tally["kills"] < kills:
                time.sleep(rng.uniform(0, seconds))
                # one in five is interrupted by Ctrl-C
                os.kill(process, signal.SIGINT if rng.random() < 0.2 else signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            ended = status == 0
            tally["kills"] += not ended
            tally["killed by 9"] += os.WIFSIGNALED(status)
            if not ended and RunFiles.of(disturbed).last.is_file():
                tally[f"state of step {read_checkpoint(RunFiles.of(disturbed).last)['step']}"] += 1
            assert ended or os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 130, status
        changed = difference(RunFiles.of(whole), RunFiles.of(disturbed))
        tally["runs"] += 1
        tally["equal"] += not changed
        if changed:
            print(f"run {tally['runs']} {changes}: {changed} differs")
    return tally


def main() -> int:
    """Run a campaign and print its counts; return 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    flags = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other threads
    with tempfile.TemporaryDirectory() as folder:
        tally = campaign(flags.folder or Path(folder), flags.kills, flags.seed)
    print(json.dumps(tally))
    return int(tally["equal"] != tally["runs"])


if __name__ == "__main__":
    sys.exit(main())
