"""Benchmark extraction: frames per second without encoder against a plain loop, memory, encoder rate."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from extracting.clip.encoder import load_encoder
from extracting.video.config import MODALITIES
from tests.benchmarks import extraction_gpu, plain_extraction
from tests.benchmarks.timing import seconds
from tests.benchmarks.video_pass import NoEncoder, draw, pass_through

ROOT = Path(__file__).resolve().parent.parent.parent


def bench_frames(folder: Path) -> None:
    """Time decoding, events, transport and files against one plain pass per crop and modality.

    The plain passes also crop and normalise, which our encoder does. The ratio therefore compares
    when frames are available, not the amount of computation.
    """
    videos = [draw(folder / f"v{number}.mp4", 1600) for number in range(4)]
    encoders = dict.fromkeys(MODALITIES, NoEncoder())
    rates = []
    for _ in range(3):
        frames, duration = pass_through(videos, 2, encoders)
        rates.append(frames / duration)
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
from extracting.video.config import MODALITIES
from tests.benchmarks.extraction import descendants, memory
from tests.benchmarks.video_pass import NoEncoder, pass_through
before, peak, done = memory("self"), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.1):
        peak = max(peak, memory("self") - before + sum(map(memory, descendants())))
watching = threading.Thread(target=watch)
watching.start()
pass_through([Path(path) for path in sys.argv[2:]], int(sys.argv[1]), dict.fromkeys(MODALITIES, NoEncoder()))
done.set(); watching.join()
print(peak)
"""


def memory(pid: int | str) -> float:
    """Return the proportional set size (PSS) of a process in MiB; 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(rollup.split("\nPss:")[1].split()[0]) / 1024


def descendants() -> set[int]:
    """Return all direct and indirect child processes of this process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {os.getpid()}
    while children := {child for child, parent in parents.items() if parent in family} - family:
        family |= children
    return family - {os.getpid()}


def bench_memory(folder: Path) -> None:
    """Measure the peak memory of all processes, without imports, by video length and number of workers."""
    for frames, workers in ((600, 2), (12000, 2), (12000, 16)):
        paths = [draw(folder / f"m{frames}_{number}.mp4", frames) for number in range(workers)]
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, str(workers), *map(str, paths)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        print(f"  {frames:5d} frames, {workers:2d} workers: {float(measured):4.0f} MiB without imports (target: ≤ 300)")


def bench_encoder() -> None:
    """Time the encoder on the CPU and compare bf16 with fp32 embeddings."""
    for tower, snippets in (("tiny", 8), ("vitl", 1)):
        frames = np.random.RandomState(0).randint(0, 256, (snippets, 4, 256, 340, 3)).astype(np.uint8)
        pixels, embeddings = torch.from_numpy(frames), {}
        for precision in ("fp32", "bf16"):
            encoder = load_encoder("untrained", "image", tower=tower, device="cpu", precision=precision)
            embeddings[precision] = encoder.images(pixels, (5,))
            rate = 4 * snippets / seconds(lambda e=encoder, p=pixels: e.images(p, (5,)), 1)
            cosine = torch.cosine_similarity(embeddings["fp32"], embeddings[precision], dim=-1).min()
            print(f"  {tower:5s} {precision}: {rate:8.2f} images/s, cosine to fp32 {cosine:.6f}")


def run() -> None:
    """Run all benchmarks of this file and of extraction_gpu."""
    with tempfile.TemporaryDirectory() as folder:
        bench_frames(Path(folder))
        if Path("/proc/self/smaps_rollup").exists():
            print("peak memory of all processes")
            bench_memory(Path(folder))
        print(f"encoder on the CPU, random weights, {torch.get_num_threads()} threads")
        bench_encoder()
        extraction_gpu.run(Path(folder))
