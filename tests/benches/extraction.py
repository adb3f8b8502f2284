"""Extraction: frames a second without the encoder against a plain loop, memory, the encoder's images a second."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from extracting.decoders import Decoders
from extracting.encoder import Encoder, load_encoder
from extracting.pipeline import Batches
from extracting.stream import Job, Settings, Snippet
from tests.benches import plain_extraction
from tests.benches.gpu import gpu_seconds, peak_flops
from tests.benches.timing import seconds

ROOT = Path(__file__).resolve().parent.parent.parent
CROPS = tuple(range(10))
MODALITIES = ("image", "event")
VITL_FLOP = 162e9  # of one forward pass of ViT-L/14


class NoEncoder:
    """Takes batches as an encoder does and answers zeros at once: what is timed is all that lies before it."""

    device, embed_dim, note = torch.device("cpu"), 8, "none"

    def images(self, frames: Tensor) -> Tensor:
        """Zeros (n, 8)."""
        return torch.zeros(len(frames), 8)

    def events(self, counts: Tensor, _: Tensor) -> Tensor:
        """Zeros (n, 8)."""
        return torch.zeros(len(counts), 8)


def draw(path: Path, frames: int) -> Path:
    """A 320×240 video at 25 frames a second: noise that drifts, a rectangle that runs."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    random = np.random.RandomState(0)
    coarse = random.randint(0, 256, (24, 32, 3)).astype(np.uint8)
    scene = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    for t in range(frames):
        frame = np.roll(scene, t // 4, axis=1)
        left = (5 * t) % 260
        frame[90:150, left : left + 50] = (20, 200, 240)
        writer.write(frame)
    writer.release()
    return path


def pass_through(
    videos: list[Path], workers: int, encoders: dict[str, object], at_end: Callable[[list[int]], None] | None = None
) -> tuple[int, float]:
    """Frames and seconds of one pass, both modalities and ten crops, from the first snippet on.

    at_end is told the decoder processes while they still run.
    """
    jobs = [Job(path, path.name, path.stem, path.stat().st_size, tuple(encoders)) for path in videos]
    batches = {name: Batches(encoder, name, CROPS, 256) for name, encoder in encoders.items()}
    frames, start = 0, None
    with Decoders(jobs, Settings(), CROPS, workers) as decoders:
        for job, item in decoders:
            if isinstance(item, Snippet):
                start = start or time.perf_counter()
                batches[item.modality].add(item, lambda crop, row: None)
                frames += 16 * (item.modality == job.modalities[0])
        if at_end is not None:
            at_end(decoders.pids)
    for batch in batches.values():
        batch.flush()
    return frames, time.perf_counter() - start


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


def bench_gpu() -> None:
    """ViT-L/14 with random weights on a GPU: images and event maps a second, share of the peak, cosine to fp32."""
    if not torch.cuda.is_available():
        print("no GPU here; where there is one, `python tests/bench.py extraction` prints ViT-L/14's images a second")
        return
    frames = torch.randint(0, 256, (16, 16, 224, 224, 3), dtype=torch.uint8, device="cuda")
    counts = torch.randint(0, 11, (256, 224, 224), dtype=torch.uint8, device="cuda")
    tens = torch.full((256,), 10.0, device="cuda")
    exact = load_encoder("untrained", "image", tower="vitl", device="cuda").images(frames)
    peak = peak_flops(torch.bfloat16)
    print(
        f"{torch.cuda.get_device_name()}, ViT-L/14, batches of 256, {peak / 1e12:.0f} TFLOP/s in a large bf16 product"
    )
    for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True), ("fp16", False), ("fp16", True)):
        words = {"tower": "vitl", "device": "cuda", "precision": precision, "compiled": compiled}
        encoder = load_encoder("untrained", "image", **words)
        rows = encoder.images(frames)
        cosine = torch.cosine_similarity(exact, rows).min()
        image = 256 / gpu_seconds(lambda e=encoder: e.images(frames), 10)
        event = 256 / gpu_seconds(lambda e=encoder: e.events(counts, tens), 10)
        share = 100 * image * VITL_FLOP / peak
        told = f"{encoder.precision:14s} {image:6.0f} images/s, {event:6.0f} event maps/s, {share:3.0f} % of peak"
        print(f"  {told}, cosine to fp32 {cosine:.6f} (target: ≥ 55 %)")


def run() -> None:
    """Print the section."""
    with tempfile.TemporaryDirectory() as folder:
        bench_frames(Path(folder))
        if Path("/proc/self/status").exists():
            print("memory, whatever the video's length")
            bench_memory(Path(folder))
        print(f"encoder on the CPU, random weights, {torch.get_num_threads()} threads")
        bench_encoder()
        bench_gpu()
