"""Extraction: frames a second without the encoder against a plain loop, memory, the encoder's images a second."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from extracting.encoder import Encoder, load_encoder
from tests.benches import extraction_gpu, plain_extraction
from tests.benches.timing import seconds
from tests.benches.video_pass import MODALITIES, draw, pass_through

ROOT = Path(__file__).resolve().parent.parent.parent


class NoEncoder:
    """Takes batches as an encoder does and answers zeros at once: what is timed is all that lies before it."""

    device, embed_dim, note = torch.device("cpu"), 8, "none"

    def images(self, frames: Tensor) -> Tensor:
        """Zeros (n, 8)."""
        return torch.zeros(len(frames), 8)

    def events(self, counts: Tensor, _: Tensor) -> Tensor:
        """Zeros (n, 8)."""
        return torch.zeros(len(counts), 8)


def bench_frames(folder: Path) -> None:
    """Decoding, crops and events, into the encoder's buffers."""
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
import sys
from pathlib import Path
from tests.benches.extraction import MODALITIES, NoEncoder, pass_through, peak_memory
before = peak_memory("self")
nothing = dict.fromkeys(MODALITIES, NoEncoder())
pass_through([Path(sys.argv[1])], 2, nothing, lambda pids: print(*map(peak_memory, pids)))
print(peak_memory("self") - before)
"""


def peak_memory(pid: int | str) -> float:
    """Largest resident memory of a process so far, MiB. Not from getrusage, which keeps that of the process before."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def bench_memory(folder: Path) -> None:
    """Peak memory of a short and of a long video, each in a process of its own."""
    for frames in (600, 12000):
        path = draw(folder / f"m{frames}.mp4", frames)
        told = subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        print(
            f"  {frames:5d} frames: {float(told[-1]):4.0f} MiB above imports beside the encoder (target: ≤ 300),"
            f" {float(told[0]):4.0f} MiB a decoder process in all"
        )


def rate_of(encoder: Encoder, frames: Tensor) -> tuple[float, Tensor]:
    """Images a second, and the embeddings."""
    rows = encoder.images(frames)
    return frames[..., 0, 0, 0].numel() / seconds(lambda: encoder.images(frames), 1), rows


def bench_encoder() -> None:
    """Images a second on this CPU, and how near bf16 is to fp32."""
    for tower, shape in (("tiny", (8, 16)), ("vitl", (2, 2))):
        pixels = np.random.RandomState(0).randint(0, 256, (*shape, 224, 224, 3)).astype(np.uint8)
        found = {}
        for precision in ("fp32", "bf16"):
            encoder = load_encoder("untrained", "image", tower=tower, device="cpu", precision=precision)
            rate, found[precision] = rate_of(encoder, torch.from_numpy(pixels))
            cosine = torch.cosine_similarity(found["fp32"], found[precision]).min()
            print(f"  {tower:5s} {precision}: {rate:8.2f} images/s, cosine to fp32 {cosine:.6f}")


def run() -> None:
    """Print the section."""
    with tempfile.TemporaryDirectory() as folder:
        bench_frames(Path(folder))
        if Path("/proc/self/status").exists():
            print("memory, whatever the video's length")
            bench_memory(Path(folder))
        print(f"encoder on the CPU, random weights, {torch.get_num_threads()} threads")
        bench_encoder()
        extraction_gpu.run(Path(folder))
