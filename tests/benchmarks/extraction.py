"""Extraction: frames a second without the encoder against a plain loop, memory, the encoder's images a second."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from extracting.clip.encoder import load_encoder
from extracting.config import MODALITIES
from tests.benchmarks import extraction_gpu, plain_extraction
from tests.benchmarks.timing import seconds
from tests.benchmarks.video_pass import NoEncoder, draw, pass_through

ROOT = Path(__file__).resolve().parent.parent.parent


def bench_frames(folder: Path) -> None:
    """Decoding, events, transport and files, against a plain pass for each crop and modality.

    The plain passes also cut the crops and normalise them, which is the encoder's work in ours. So the
    ratio says how much earlier the frames are there, not how much less is computed.
    """
    videos = [draw(folder / f"v{number}.mp4", 1600) for number in range(4)]
    nothing = dict.fromkeys(MODALITIES, NoEncoder())
    rates = []
    for _ in range(3):
        frames, taken = pass_through(videos, 2, nothing)
        rates.append(frames / taken)
    ours = sorted(rates)[1]
    short = draw(folder / "short.mp4", 320)
    plain = 320 / seconds(lambda: plain_extraction.extract(short), 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"320×240, ten crops, image and event, no encoder, 2 decoder processes on {cores} cores")
    print(f"  one pass (ours)                     {ours:7.0f} frames/s")
    print(f"  a pass for each crop and modality   {plain:7.1f} frames/s   × {ours / plain:.0f} (target: ≥ 700, ≥ 25 ×)")


MEASURE = """
import sys, threading
from pathlib import Path
from extracting.config import MODALITIES
from tests.benchmarks.extraction import descendants, memory
from tests.benchmarks.video_pass import NoEncoder, pass_through
before, most, over = memory("self"), 0, threading.Event()
def watch():
    global most
    while not over.wait(0.1):
        most = max(most, memory("self") - before + sum(map(memory, descendants())))
watching = threading.Thread(target=watch)
watching.start()
pass_through([Path(path) for path in sys.argv[2:]], int(sys.argv[1]), dict.fromkeys(MODALITIES, NoEncoder()))
over.set(); watching.join()
print(most)
"""


def memory(pid: int | str) -> float:
    """Memory of a process, MiB, what it shares with others divided among them (PSS); 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(rollup.split("\nPss:")[1].split()[0]) / 1024


def descendants() -> set[int]:
    """Processes that this one has started, and what they have started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {os.getpid()}


def bench_memory(folder: Path) -> None:
    """Memory of all processes together, above this one's imports, for short and long videos, few and many workers."""
    for frames, workers in ((600, 2), (12000, 2), (12000, 16)):
        paths = [draw(folder / f"m{frames}_{number}.mp4", frames) for number in range(workers)]
        told = subprocess.run(
            [sys.executable, "-c", MEASURE, str(workers), *map(str, paths)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        print(f"  {frames:5d} frames, {workers:2d} workers: {float(told):4.0f} MiB above imports (target: ≤ 300)")


def bench_encoder() -> None:
    """Images a second on this CPU, and how near bf16 is to fp32."""
    for tower, snippets in (("tiny", 8), ("vitl", 1)):
        frames = np.random.RandomState(0).randint(0, 256, (snippets, 4, 256, 340, 3)).astype(np.uint8)
        pixels, found = torch.from_numpy(frames), {}
        for precision in ("fp32", "bf16"):
            encoder = load_encoder("untrained", "image", tower=tower, device="cpu", precision=precision)
            found[precision] = encoder.images(pixels, (5,))
            rate = 4 * snippets / seconds(lambda e=encoder, p=pixels: e.images(p, (5,)), 1)
            cosine = torch.cosine_similarity(found["fp32"], found[precision], dim=-1).min()
            print(f"  {tower:5s} {precision}: {rate:8.2f} images/s, cosine to fp32 {cosine:.6f}")


def run() -> None:
    """Print the section."""
    with tempfile.TemporaryDirectory() as folder:
        bench_frames(Path(folder))
        if Path("/proc/self/smaps_rollup").exists():
            print("memory of all processes, whatever the videos' length")
            bench_memory(Path(folder))
        print(f"encoder on the CPU, random weights, {torch.get_num_threads()} threads")
        bench_encoder()
        extraction_gpu.run(Path(folder))
