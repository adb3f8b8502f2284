"""An embedding's bits depend on its pixels and weights alone: not on neighbours, place, batch size or threads."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.crops import crop_views
from extracting.encoder import Encoder, load_encoder
from extracting.lanes import Lanes
from extracting.pipeline import Batches, Snippet
from extracting.towers import TOWERS, TowerShape
from extracting.uploads import crop_tensors
from tests.benches import extraction_gpu
from vad.errors import InputError

CPU = torch.device("cpu")
SHAPES = {"tiny": TOWERS["tiny"], "as wide as ViT-L/14": TowerShape(width=1024, layers=1, patch=14, output_dim=768)}


def untrained(shape: TowerShape, precision: str, threads: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(shape.build(), device=CPU, precision=precision, note="", trained=False)
    encoder._lanes = Lanes(threads)
    return encoder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_an_event_embedding_is_the_same_bits_at_every_place_and_with_any_threads(name: str, precision: str) -> None:
    """Shared among three threads, one product of four or eight images rounds some rows differently; ours do not.

    19 small or 3 large images: the last pass of the small tower (16 images) is not full.
    """
    n = 19 if name == "tiny" else 3
    generator = torch.Generator().manual_seed(1)
    one = torch.randint(0, 11, (1, 224, 224), dtype=torch.uint8, generator=generator)
    tens = torch.full((n,), 10.0)
    alone = untrained(SHAPES[name], precision, threads=1).events(one, tens[:1])
    for threads in (1, 3):
        encoder = untrained(SHAPES[name], precision, threads)
        for place in sorted({0, 1, n - 4, n - 1} & {*range(n)}):
            maps = torch.randint(0, 11, (n, 224, 224), dtype=torch.uint8, generator=generator)
            maps[place] = one[0]
            assert torch.equal(encoder.events(maps, tens)[place], alone[0]), (threads, place)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_embedding_is_the_same_bits_whatever_the_batch(precision: str) -> None:
    """Six snippets of one crop, pushed through batches of 1, 3 and 5 snippets and in two orders."""
    snippets = np.random.RandomState(2).randint(0, 256, (6, 16, 256, 340, 3)).astype(np.uint8)
    encoder = untrained(SHAPES["tiny"], precision, threads=2)
    found: dict[tuple[int, bool], dict[int, bytes]] = {}
    for items in (1, 3, 5):
        for backwards in (False, True):
            rows = found[items, backwards] = {}
            batches = Batches(encoder, "image", (5,), 16 * items)
            for number in sorted(range(6), reverse=backwards):
                keep = partial(rows.__setitem__, number)
                batches.add(Snippet("image", snippets[number]), lambda _, row, keep=keep: keep(row.tobytes()))
            batches.flush()
            assert sorted(rows) == list(range(6))
    assert all(rows == found[1, False] for rows in found.values())
    assert len(set(found[1, False].values())) == 6


@pytest.mark.parametrize("modality", ["image", "event"])
def test_cropping_on_the_encoders_device_gives_the_same_bits(modality: str) -> None:
    """Five snippets pass through the two rooms of the upload; the array they came in is overwritten each time."""
    random = np.random.RandomState(3)
    shape = (16, 256, 340, 3) if modality == "image" else (1, 256, 340)
    stacks = random.randint(0, 11, (5, *shape)).astype(np.uint8)
    divisors = np.arange(1, 11, dtype=np.float32) if modality == "event" else None
    encoder = untrained(SHAPES["tiny"], "fp32", threads=1)
    found: dict[bool, list[tuple[int, bytes]]] = {True: [], False: []}
    for upload, rows in found.items():
        room = np.empty(shape, np.uint8)
        batches = Batches(encoder, modality, range(10), 48, upload=upload)
        for stack in stacks:
            room[...] = stack
            batches.add(
                Snippet(modality, room, divisors), lambda crop, row, rows=rows: rows.append((crop, row.tobytes()))
            )
        batches.flush()
    assert found[True] == found[False]
    assert len({row for _, row in found[True]}) == 50
    views = zip(crop_tensors(torch.from_numpy(stacks[0]), range(10)), crop_views(stacks[0], range(10)), strict=True)
    assert all((tensor.numpy() == view).all() for tensor, view in views)


def test_the_gpu_bench_runs_where_a_cpu_stands_for_the_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers mean nothing here; that it measures all streams, and that bits keep in any company, does."""
    how = (("fp32", False), ("bf16", False))
    setup = extraction_gpu.Setup("cpu", 64, 1, tower="tiny", batch=16, frames=64, how=how, workers=(1,))
    extraction_gpu.bench(setup, tmp_path)
    said = capsys.readouterr().out
    for part in ("  fp32 ", "  bf16 ", "image, 10 crops, 1 d", "event, 10 crops, 1 d", "image + event, 1 crops, 1 d"):
        assert part in said
    assert said.count("bits alike in any company") == 2
    assert all(0 <= int(part.split()[0]) < 100 for part in said.split("idle ")[1:])


def test_an_encoder_is_the_same_after_a_journey() -> None:
    """What another process makes of its parts embeds with the same bits, standardised as it was."""
    encoder = untrained(SHAPES["tiny"], "bf16", threads=1)
    counts = torch.randint(0, 11, (20, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder.standardise(encoder.events(counts, torch.full((20,), 10.0)), "twenty maps")
    there = Encoder.of_parts(pickle.loads(pickle.dumps(encoder.parts())), CPU)
    assert torch.equal(*(each.events(counts, torch.full((20,), 10.0)) for each in (encoder, there)))
    assert (there.hash, there.note, there.precision) == (encoder.hash, encoder.note, "bf16")


def test_lanes_leave_the_callers_threads_alone_and_keep_the_order() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        numbers = list(Lanes(3).map(lambda part: torch.tensor([part, torch.get_num_threads()]), range(5)))
        assert torch.stack(numbers).tolist() == [[part, 1] for part in range(5)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_precision_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(InputError, match="--precision fp16: a CPU has no fast float16; take bf16"):
        load_encoder("untrained", "image", tower="tiny", device="cpu", precision="fp16")
    with pytest.raises(InputError, match="--compile: is for GPUs"):
        load_encoder("untrained", "image", tower="tiny", device="cpu", compiled=True)
