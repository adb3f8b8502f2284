"""Kills training runs at random instants, starts them again, and compares what they leave with an undisturbed run.

python tests/vad/kill_training.py --kills 30     prints the tally; the tests run a short one
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

from model import read_checkpoint
from tests.conftest import Tiny
from tests.vad.training_runs import SMALL, continued
from vad.errors import run_door
from vad.run import Files
from vad.training import train

VARIANTS = (("--profile", "released", "--rollback", "on"), (), ("--rollback", "on", "--keep", "best"))


def start(tiny: Tiny, folder: Path, flags: tuple[str, ...]) -> int:
    """A process that trains, or goes on training, in `folder`; a copy of this one, so that it starts at once."""
    process = os.fork()
    if process:
        return process
    quiet = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(quiet, number)
    try:
        run_door(lambda: train(continued(tiny, folder, *SMALL, "--max_epoch", "6", *flags)) and 0)
    except SystemExit as end:
        os._exit(end.code)
    finally:
        os._exit(1)


def difference(one: Files, other: Files) -> str:
    """The first thing in which two finished runs differ; empty where there is none."""
    if one.log.read_bytes() != other.log.read_bytes():
        return "log"
    for which in ("last", "best"):
        a, b = (read_checkpoint(getattr(files, which)) for files in (one, other))
        names = [n for n, tensor in a["model"].items() if not torch.equal(tensor, b["model"][n])]
        if names or any(a[key] != b[key] for key in ("step", "epoch", "weights", "metrics")):
            return f"{which} {names[:1]}"
    return ""


def campaign(folder: Path, kills: int, seed: int) -> Counter:
    """Kill until `kills` are reached; every run is brought to its end and compared."""
    rng, tally, tiny = random.Random(seed), Counter(), Tiny.make(folder)
    while tally["kills"] < kills:
        flags = VARIANTS[tally["runs"] % len(VARIANTS)]
        whole, disturbed = folder / f"whole{tally['runs']}", folder / f"disturbed{tally['runs']}"
        since = time.monotonic()
        assert os.waitpid(start(tiny, whole, flags), 0)[1] == 0
        seconds, ended = 1.2 * (time.monotonic() - since), False
        while not ended:
            process = start(tiny, disturbed, flags)
            if tally["kills"] < kills:
                time.sleep(rng.uniform(0, seconds))
                # every fifth is asked to stop, the others are not asked
                os.kill(process, signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            ended = status == 0
            tally["kills"] += not ended
            tally["killed by 9"] += os.WIFSIGNALED(status)
            tally["while writing"] += bool(list(disturbed.glob("*.part")) + list(disturbed.glob(".*.tmp")))
            if not ended and (disturbed / "run.pth").is_file():
                tally[f"state of step {read_checkpoint(disturbed / 'run.pth')['step']}"] += 1
            assert ended or os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 130, status
        found = difference(Files.of(whole, "run"), Files.of(disturbed, "run"))
        tally["runs"] += 1
        tally["equal"] += not found
        if found:
            print(f"run {tally['runs']} {flags}: {found} differs")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a copy of a process has none of its other threads
    with tempfile.TemporaryDirectory() as folder:
        tally = campaign(args.folder or Path(folder), args.kills, args.seed)
    print(json.dumps(tally))
    return int(tally["equal"] != tally["runs"])


if __name__ == "__main__":
    sys.exit(main())
