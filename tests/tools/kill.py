"""Disturb extraction runs at random times (kill, kill a decoder, Ctrl-C), resume them and compare all bytes.

`python tests/tools/kill.py --kills 30` prints the counts; a test runs a short campaign.
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
    """Run the extraction that is killed: both modalities, two crops, event maps.

    tower: "tiny" for an untrained network of three layers, "sums" for pixel sums without a network.
    """
    from extracting.clip.encoder import load_encoder
    from extracting.job.run import ExtractionRun, Output
    from extracting.job.videos import find_videos
    from extracting.video.config import Config

    config = Config(crops=(0, 5), event_threshold=3, save_events=True, workers=2)
    encoders = dict.fromkeys(MODALITIES, Sums(48))
    if tower != "sums":
        encoders = {name: load_encoder("untrained", name, tower=tower, device="cpu") for name in MODALITIES}
    outputs = {m: Output.of(m, out / folder, encoders[m], config) for m, folder in MODALITIES.items()}
    run = ExtractionRun(find_videos(videos), outputs, config)
    print("started", flush=True)
    return 1 if run.run().problems else 0


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Return modification time and inode of every array that a manifest lists as finished."""
    stamps = {}
    for folder in MODALITIES.values():
        manifest = out / folder / "manifest.jsonl"
        lines = manifest.read_bytes().splitlines(keepends=True) if manifest.is_file() else []
        for line in (json.loads(line) for line in lines if line.endswith(b"\n")):
            for path in (out / folder).glob(f"{line['name']}__*.np?"):
                stamps[str(path)] = (path.stat().st_mtime_ns, path.stat().st_ino)
    return stamps


def parents() -> dict[int, int]:
    """Return process id → parent id of all processes."""
    result = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            result[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return result


def all_end(pids: list[int], seconds: float = 10) -> bool:
    """Return whether these processes end within a time limit."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


class Campaign:
    """Disturbed runs, compared with one undisturbed run."""

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
        assert len(self.expected) == len(LENGTHS) * 5  # two crops of two modalities, and the event maps

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
        """Start or resume a run and disturb it once; return whether it finished."""
        before, unfinished = finished(out), hidden(out)  # temporary files of earlier killed runs
        process = self._start(out)
        time.sleep(self.random.uniform(0, self.seconds * 0.6))
        parent_of = parents()
        helpers = [pid for pid, parent in parent_of.items() if parent == process.pid]
        decoders = [pid for pid, parent in parent_of.items() if parent in helpers]
        action = self.random.choice(["kill", "kill", "decoder", "interrupt"])
        if process.poll() is not None or (action == "decoder" and not decoders):
            action = "over"
        elif action == "decoder":
            os.kill(self.random.choice(decoders), signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL if action == "kill" else signal.SIGINT)
        code = process.wait(120)
        # Ctrl-C may arrive after the run (0) or while Python shuts down (−2)
        assert code in {"kill": (-9,), "interrupt": (130, 0, -2)}.get(action, (0,)), (
            action, code, (self.folder / "stderr").read_text()[-2000:]
        )
        self.tally[action] += 1
        assert all_end(helpers + decoders), "processes outlive their run"
        after = finished(out)
        assert before == {path: after[path] for path in before}, "a finished video was modified"
        if action == "interrupt" and code:
            assert set(hidden(out)) <= set(unfinished), "Ctrl-C leaves a partial file"
        return code == 0

    def cycle(self, kills: int) -> None:
        """Disturb a run until it finishes, at most `kills` times; then complete it and compare."""
        out = self.folder / f"cycle{self.tally['cycles']}"
        self.tally["cycles"] += 1
        for _ in range(kills):
            if self.disturb(out):
                break
        assert self._start(out).wait(120) == 0
        assert contents(out) == self.expected, "the files differ from those of an undisturbed run"
        assert not hidden(out), "temporary files of killed runs remain"

    def spent(self) -> int:
        """Return the number of disturbances so far."""
        return sum(self.tally[action] for action in ("kill", "decoder", "interrupt"))


def main() -> None:
    """Run a campaign and print its counts; with --child, run one extraction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tower", choices=("tiny", "sums"), default="tiny")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("VIDEOS", "OUT"))
    flags = parser.parse_args()
    if flags.child:
        from vad.files import run_command

        run_command(lambda: child(*flags.child, flags.tower))
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), flags.seed, flags.tower)
        while campaign.spent() < flags.kills:
            campaign.cycle(flags.kills - campaign.spent())
            print(dict(campaign.tally), flush=True)
    print(f"{campaign.spent()} disturbances: identical results, unchanged finished files, no temporary files")


if __name__ == "__main__":
    main()
