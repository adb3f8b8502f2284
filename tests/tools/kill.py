"""Kills a run, its decoders and presses Ctrl-C at random instants, starts again, compares bytes.

python tests/tools/kill.py --kills 30     prints the tally; the tests run a short one
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.extracting.helpers import Sums, contents, hidden, write_video

LENGTHS = (150, 16, 90, 130, 40, 170)  # frames
MODALITIES = {"image": "rgb", "event": "event_thr_10"}


def child(videos: Path, out: Path, tower: str) -> int:
    """The run that is killed: both modalities, two crops, event maps.

    tower: "tiny", untrained, of three layers; "sums" for the sums of pixels that need no network.
    """
    from extracting.clip.encoder import load_encoder
    from extracting.config import Config
    from extracting.job.run import ExtractionRun, Output
    from extracting.job.videos import find_videos

    config = Config(crops=(0, 5), event_threshold=3, save_events=True, workers=2)
    encoders = dict.fromkeys(MODALITIES, Sums(48))
    if tower != "sums":
        encoders = {name: load_encoder("untrained", name, tower=tower, device="cpu") for name in MODALITIES}
    outputs = {m: Output.of(m, out / folder, encoders[m], config) for m, folder in MODALITIES.items()}
    run = ExtractionRun(find_videos(videos), outputs, config)
    print("started", flush=True)
    return 1 if run.run().problems else 0


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Modification time and inode of every array that a manifest calls finished."""
    stamps = {}
    for folder in MODALITIES.values():
        manifest = out / folder / "manifest.jsonl"
        lines = manifest.read_bytes().splitlines(keepends=True) if manifest.is_file() else []
        for line in (json.loads(line) for line in lines if line.endswith(b"\n")):
            for path in (out / folder).glob(f"{line['name']}__*.np?"):
                stamps[str(path)] = (path.stat().st_mtime_ns, path.stat().st_ino)
    return stamps


def parents() -> dict[int, int]:
    """Process → its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def gone(pids: list[int], seconds: float = 10) -> bool:
    """Whether these processes end by themselves."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


class Campaign:
    """Runs that are disturbed, against one that is not."""

    def __init__(self, folder: Path, seed: int, tower: str) -> None:
        self.folder, self.random, self.tower = folder, random.Random(seed), tower
        self.videos = folder / "videos"
        for number, frames in enumerate(LENGTHS):
            write_video(self.videos / f"class{number % 2}" / f"v{number}.avi", frames, seed=number)
        self.tally: Counter[str] = Counter()
        process = self._start(folder / "undisturbed")
        started = time.monotonic()
        assert process.wait(120) == 0, "the undisturbed run failed"
        self.seconds = time.monotonic() - started
        self.expected = contents(folder / "undisturbed")
        assert len(self.expected) == len(LENGTHS) * 5  # two crops of each modality and the event maps

    def _start(self, out: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(self.videos), str(out), "--tower", self.tower],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("w"),
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            text=True,
        )
        assert process.stdout.readline() == "started\n"
        return process

    def disturb(self, out: Path) -> bool:
        """One run, disturbed once; returns whether it was over."""
        before, left = finished(out), hidden(out)  # a killed run's, until its videos' turn comes
        process = self._start(out)
        time.sleep(self.random.uniform(0, self.seconds * 0.6))
        above = parents()
        helpers = [pid for pid, parent in above.items() if parent == process.pid]
        decoders = [pid for pid, parent in above.items() if parent in helpers]
        what = self.random.choice(["kill", "kill", "decoder", "interrupt"])
        if process.poll() is not None or (what == "decoder" and not decoders):
            what = "over"
        elif what == "decoder":
            os.kill(self.random.choice(decoders), signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL if what == "kill" else signal.SIGINT)
        code = process.wait(120)
        # Ctrl-C may come too late (0), or when the run is over and Python is on its way out (−2)
        assert code in {"kill": (-9,), "interrupt": (130, 0, -2)}.get(what, (0,)), (
            what, code, (self.folder / "stderr").read_text()[-2000:]
        )
        self.tally[what] += 1
        assert gone(helpers + decoders), "processes outlive their run"
        after = finished(out)
        assert before == {path: after[path] for path in before}, "a finished video was touched"
        if what == "interrupt" and code:
            assert set(hidden(out)) <= set(left), "Ctrl-C leaves half a file"
        return code == 0

    def cycle(self, kills: int) -> None:
        """Disturb until the run is over or `kills` are spent, then let it end, and compare."""
        out = self.folder / f"cycle{self.tally['cycles']}"
        self.tally["cycles"] += 1
        for _ in range(kills):
            if self.disturb(out):
                break
        assert self._start(out).wait(120) == 0
        assert contents(out) == self.expected, "the bytes differ from an undisturbed run"
        assert not hidden(out), "files of killed runs are left"

    def spent(self) -> int:
        """Disturbances so far."""
        return sum(self.tally[what] for what in ("kill", "decoder", "interrupt"))


def main() -> None:
    """Print the tally of a campaign, or be the run that is killed."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--kills", type=int, default=30)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--tower", choices=("tiny", "sums"), default="tiny")
    flags.add_argument("--child", nargs=2, type=Path, metavar=("VIDEOS", "OUT"))
    typed = flags.parse_args()
    if typed.child:
        from vad.files import run_command

        run_command(lambda: child(*typed.child, typed.tower))
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), typed.seed, typed.tower)
        while campaign.spent() < typed.kills:
            campaign.cycle(typed.kills - campaign.spent())
            print(dict(campaign.tally), flush=True)
    print(f"{campaign.spent()} disturbances: results byte-identical, finished files untouched, nothing left behind")


if __name__ == "__main__":
    main()
