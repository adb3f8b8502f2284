"""Commands in processes of their own: order, outcomes, logs, and what Ctrl-C and a lost parent do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vad.processes import Command, last_lines, run_commands

ROOT = Path(__file__).resolve().parents[2]
# a door that does what its first flag says, with a file for each way it can end
DOOR = """
import os, signal, sys, time
from pathlib import Path
what, place = sys.argv[1], Path(sys.argv[2])
print("working", what, flush=True)
if what == "wait":
    place.with_suffix(".began").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        place.with_suffix(".stopped").touch()
        sys.exit(130)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "fail":
    sys.exit("error: nothing to eat")
place.write_text(os.environ["OMP_NUM_THREADS"])
"""
PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from vad.processes import Command, run_commands
if __name__ == "__main__":
    place = Path({place!r})
    waits = [Command(n, place / "door.py", ("wait", str(place / n)), place / f"{{n}}.log") for n in ("a", "b", "c")]
    run_commands(waits, jobs=2)
"""


def command(folder: Path, what: str, name: str) -> Command:
    (folder / "door.py").write_text(DOOR)
    return Command(name, folder / "door.py", (what, str(folder / name)), folder / "logs" / f"{name}.log")


def wait_for(*paths: Path) -> None:
    """Until the files are there; the limit is generous and only keeps a broken test from hanging."""
    for _ in range(600):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.1)
    pytest.fail(f"{paths} did not appear")


def test_one_that_fails_and_one_that_is_killed_cost_themselves_only(tmp_path):
    commands = [command(tmp_path, what, what) for what in ("kill", "fail", "fine")]
    ended = []
    outcomes = run_commands(commands, jobs=2, finished=lambda c, outcome: ended.append((c.name, outcome.code)))
    assert {name: outcome.code for name, outcome in outcomes.items()} == {"kill": -9, "fail": 1, "fine": 0}
    assert sorted(ended) == [("fail", 1), ("fine", 0), ("kill", -9)]
    assert outcomes["kill"].words == "ended by SIGKILL" and outcomes["fail"].words == "exit code 1"
    assert outcomes["fail"].last_lines == ("working fail", "error: nothing to eat")
    assert (tmp_path / "fine").read_text() == "1"  # thread
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"]  # ours is as it was


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "a lost parent"])
def test_what_runs_is_stopped_as_by_ctrl_c_and_the_rest_does_not_start(tmp_path, end):
    (tmp_path / "door.py").write_text(DOOR)
    (tmp_path / "parent.py").write_text(PARENT.format(root=str(ROOT), place=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "a.began", tmp_path / "b.began")
    parent.send_signal(end)
    code = parent.wait(60)
    wait_for(tmp_path / "a.stopped", tmp_path / "b.stopped")
    assert code != 0 and not (tmp_path / "c.log").exists()


def test_a_log_ends_in_its_last_lines_and_the_last_state_of_a_bar(tmp_path):
    log = tmp_path / "log"
    log.write_bytes("one\ntwo\n\nbar 1\rbar 2\rbar 3\nerror: ü\n".encode())
    assert last_lines(log) == ("one", "two", "bar 3", "error: ü")
    assert last_lines(log, 2) == ("bar 3", "error: ü")
    assert last_lines(tmp_path / "none") == ()
