"""Extraction on a GPU, ViT-L/14 with random weights: rate, share of the peak, cosines, equal bits, idle share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from extracting.clip.encoder import Encoder, load_encoder
from extracting.config import ALL_CROPS, MODALITIES
from tests.benchmarks.timing import Machine
from tests.benchmarks.video_pass import draw, pass_through

VITL_FLOP = 162e9  # of one forward pass of ViT-L/14
CENTRE = (0,)


@dataclass
class Setup(Machine):
    """What is measured, by default ViT-L/14 on a GPU."""

    tower: str = "vitl"
    batch: int = 256  # images of a forward pass
    frames: int = 6400  # of the synthetic videos that are embedded from end to end
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    workers: tuple[int, ...] = (2, 4)

    def encoder(self, precision: str) -> Encoder:
        """Untrained, of these sizes."""
        how = {"tower": self.tower, "device": self.device, "precision": precision, "pass_size": self.batch}
        return load_encoder("untrained", "image", **how)


@dataclass
class Timed:
    """An encoder whose batches are timed on its device, from the first kernel of each to its last, gaps included."""

    encoder: Encoder
    marks: list[tuple[object, object]] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """As the encoder's."""
        return self._timed(lambda: self.encoder.images(frames, crops))

    def events(self, counts: Tensor, divisors: Tensor, crops: Sequence[int]) -> Tensor:
        """As the encoder's."""
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
        """Seconds inside passes, of those that are finished."""
        if self.encoder.device.type == "cpu":
            return sum(end - start for start, end in self.marks)
        return sum(start.elapsed_time(end) for start, end in self.marks) / 1000


def inputs(setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """Random frames (n, 16, 256, 340, 3) and event counts (16 n, 256, 340) with divisors, one pass of each."""
    generator = torch.Generator().manual_seed(0)
    how = {"dtype": torch.uint8, "generator": generator}
    frames = torch.randint(0, 256, (setup.batch // 16, 16, 256, 340, 3), **how)
    counts = torch.randint(0, 11, (setup.batch, 256, 340), **how)
    return frames.to(setup.device), counts.to(setup.device), torch.full((setup.batch, 1), 10.0, device=setup.device)


def bench_passes(setup: Setup) -> None:
    """Images and event maps a second, share of the bf16 peak, cosine to fp32, whether bits depend on the company."""
    frames, counts, tens = inputs(setup)
    peak = setup.peak(torch.bfloat16)
    print(f"passes of {setup.batch}; a large bf16 product: {peak / 1e12:.1f} TFLOP/s")
    exact = setup.encoder("fp32")
    expected = exact.images(frames, CENTRE), exact.events(counts, tens, CENTRE)
    for precision in setup.precisions:
        encoder = setup.encoder(precision)
        found = encoder.images(frames, CENTRE), encoder.events(counts, tens, CENTRE)
        cosines = [
            torch.cosine_similarity(one, other, dim=-1).min() for one, other in zip(expected, found, strict=True)
        ]
        image = setup.batch / setup.seconds(lambda e=encoder: e.images(frames, CENTRE))
        event = setup.batch / setup.seconds(lambda e=encoder: e.events(counts, tens, CENTRE))
        shares = [f"{100 * rate * VITL_FLOP / peak:.0f}" for rate in (image, event)]
        print(f"  {encoder.precision:14s} images {image:6.0f}/s, event maps {event:6.0f}/s")
        if setup.tower == "vitl":
            print(f"    {shares[0]} and {shares[1]} % of the peak (target: ≥ 55 %)")
        print(f"    cosine to fp32 {cosines[0]:.6f} and {cosines[1]:.6f}; {company(encoder, frames, counts, tens)}")


def company(encoder: Encoder, frames: Tensor, counts: Tensor, tens: Tensor) -> str:
    """Whether a row's bits stay the same at every place, beside other neighbours and beside none, in words."""
    differ = 0
    for items, embed in (
        (frames, lambda x: encoder.images(x, CENTRE)),
        (counts, lambda x: encoder.events(x, tens[: len(x)], CENTRE)),
    ):
        first = embed(items)
        differ += int((embed(items.flip(0)).flip(0) != first).any(-1).sum())
        others = items.roll(1, 0)
        others[0] = items[0]  # the same row at the same place, others around it
        differ += int((embed(others)[0] != first[0]).any())
        differ += int((embed(items[:1])[0] != first[0]).any())
    return "bits alike in any company" if not differ else f"{differ} ROWS WITH OTHER BITS IN OTHER COMPANY"


def bench_idle(setup: Setup, folder: Path) -> None:
    """Share of the time, from the first process to the last file, in which no batch is at work."""
    videos = [draw(folder / f"g{number}.mp4", setup.frames // 4) for number in range(4)]
    precision = "fp32" if setup.device == "cpu" else "bf16"
    some = (("image",), ALL_CROPS), (("event",), ALL_CROPS), (MODALITIES, ALL_CROPS), (MODALITIES, (5,))
    for modalities, crops in some:
        for workers in setup.workers:
            timed = Timed(setup.encoder(precision))
            one_pass = partial(pass_through, workers=workers, encoders=dict.fromkeys(modalities, timed), crops=crops)
            one_pass(videos[:1])  # warms up
            timed.marks.clear()
            frames, taken = one_pass(videos)
            what = f"{' + '.join(modalities)}, {len(crops)} crops, {workers} decoder processes"
            print(f"  {what}: {frames / taken:.0f} frames/s, idle {100 * (1 - timed.busy() / taken):.0f} %")


def bench(setup: Setup, folder: Path) -> None:
    """Print all of it."""
    bench_passes(setup)
    print("from video files to embeddings")
    bench_idle(setup, folder)


def run(folder: Path) -> None:
    """Print the section, or the one line of a machine without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU here; where there is one, `python tests/bench.py extraction` prints its rate and idle share")
        return
    print(f"{torch.cuda.get_device_name()}, ViT-L/14, random weights")
    bench(Setup(), folder)
