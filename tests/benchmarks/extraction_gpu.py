"""Benchmark extraction on a GPU with ViT-L/14: rate, share of the peak, accuracy, bitwise equality, idle time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from extracting.clip.encoder import Encoder, load_encoder
from extracting.video.config import ALL_CROPS, MODALITIES
from tests.benchmarks.timing import Machine
from tests.benchmarks.video_pass import draw, pass_through

VITL_FLOP = 162e9  # of one forward pass of ViT-L/14
CENTRE = (0,)


@dataclass
class Setup(Machine):
    """The settings of a measurement, by default ViT-L/14 on a GPU."""

    tower: str = "vitl"
    batch: int = 256  # images per forward pass
    frames: int = 6400  # in all synthetic videos
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    workers: tuple[int, ...] = (2, 4)

    def encoder(self, precision: str) -> Encoder:
        """Return an untrained encoder."""
        options = {"tower": self.tower, "device": self.device, "precision": precision, "pass_size": self.batch}
        return load_encoder("untrained", "image", **options)


@dataclass
class Timed:
    """An encoder that measures the time of each batch on its device."""

    encoder: Encoder
    marks: list[tuple[object, object]] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """Call the encoder and record the time."""
        return self._timed(lambda: self.encoder.images(frames, crops))

    def events(self, counts: Tensor, divisors: Tensor, crops: Sequence[int]) -> Tensor:
        """Call the encoder and record the time."""
        return self._timed(lambda: self.encoder.events(counts, divisors, crops))

    def _timed(self, action: Callable[[], Tensor]) -> Tensor:
        start = self._mark()
        rows = action()
        self.marks.append((start, self._mark()))
        return rows

    def _mark(self) -> object:
        if self.encoder.device.type == "cpu":
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    def busy(self) -> float:
        """Return the total time of all batches, in seconds."""
        if self.encoder.device.type == "cpu":
            return sum(end - start for start, end in self.marks)
        return sum(start.elapsed_time(end) for start, end in self.marks) / 1000


def inputs(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """Return random frames (n, 16, 256, 340, 3), event counts (16 n, 256, 340) and divisors for one pass."""
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.uint8, "generator": generator}
    frames = torch.randint(0, 256, (setup.batch // 16, 16, 256, 340, 3), **options)
    counts = torch.randint(0, 11, (setup.batch, 256, 340), **options)
    return frames.to(setup.device), counts.to(setup.device), torch.full((setup.batch, 1), 10.0, device=setup.device)


def bench_passes(setup: Setup) -> None:
    """Measure rate, share of the bf16 peak, cosine to fp32 and bitwise reproducibility of forward passes."""
    frames, counts, tens = inputs(setup)
    peak = setup.peak(torch.bfloat16)
    print(f"passes of {setup.batch} images; peak bf16 rate: {peak / 1e12:.1f} TFLOP/s")
    exact = setup.encoder("fp32")
    expected = exact.images(frames, CENTRE), exact.events(counts, tens, CENTRE)
    for precision in setup.precisions:
        encoder = setup.encoder(precision)
        actual = encoder.images(frames, CENTRE), encoder.events(counts, tens, CENTRE)
        cosines = [
            torch.cosine_similarity(one, other, dim=-1).min() for one, other in zip(expected, actual, strict=True)
        ]
        image = setup.batch / setup.seconds(lambda e=encoder: e.images(frames, CENTRE))
        event = setup.batch / setup.seconds(lambda e=encoder: e.events(counts, tens, CENTRE))
        shares = [f"{100 * rate * VITL_FLOP / peak:.0f}" for rate in (image, event)]
        print(f"  {encoder.precision:14s} images {image:6.0f}/s, event maps {event:6.0f}/s")
        if setup.tower == "vitl":
            print(f"    {shares[0]} and {shares[1]} % of the peak (target: ≥ 55 %)")
        print(f"    cosine to fp32 {cosines[0]:.6f} and {cosines[1]:.6f}")
        differing = differing_rows(encoder, frames, counts, tens)
        print(f"    embeddings that differ bitwise in another batch: {differing} (target: 0)")


def differing_rows(encoder: Encoder, frames: Tensor, counts: Tensor, tens: Tensor) -> int:
    """Count embeddings that change with their position in the batch, with other neighbours or without any."""
    differing = 0
    for items, embed in (
        (frames, lambda x: encoder.images(x, CENTRE)),
        (counts, lambda x: encoder.events(x, tens[: len(x)], CENTRE)),
    ):
        first = embed(items)
        differing += int((embed(items.flip(0)).flip(0) != first).any(-1).sum())
        others = items.roll(1, 0)
        others[0] = items[0]  # the same row and position, other neighbours
        differing += int((embed(others)[0] != first[0]).any())
        differing += int((embed(items[:1])[0] != first[0]).any())
    return differing


def bench_idle(setup: Setup, folder: Path) -> None:
    """Measure the share of the run time in which the encoder is idle."""
    videos = [draw(folder / f"g{number}.mp4", setup.frames // 4) for number in range(4)]
    precision = "fp32" if setup.device == "cpu" else "bf16"
    cases = (("image",), ALL_CROPS), (("event",), ALL_CROPS), (MODALITIES, ALL_CROPS), (MODALITIES, (5,))
    for modalities, crops in cases:
        for workers in setup.workers:
            timed = Timed(setup.encoder(precision))
            one_pass = partial(pass_through, workers=workers, encoders=dict.fromkeys(modalities, timed), crops=crops)
            one_pass(videos[:1])  # warm-up
            timed.marks.clear()
            frames, duration = one_pass(videos)
            case = f"{' + '.join(modalities)}, {len(crops)} crops, {workers} decoder processes"
            print(f"  {case}: {frames / duration:.0f} frames/s, idle {100 * (1 - timed.busy() / duration):.0f} %")


def bench(setup: Setup, folder: Path) -> None:
    """Run both benchmarks of this file."""
    bench_passes(setup)
    print("from video files to embeddings")
    bench_idle(setup, folder)


def run(folder: Path) -> None:
    """Run the benchmarks if there is a GPU."""
    if not torch.cuda.is_available():
        print("No GPU found. On a GPU, `python tests/bench.py extraction` prints its rate and idle time.")
        return
    print(f"{torch.cuda.get_device_name()}, ViT-L/14, random weights")
    bench(Setup(), folder)
