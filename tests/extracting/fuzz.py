"""Damaged copies of videos through a run: none may end it, hang it, be forgotten, or be embedded wrongly unsaid.

python tests/extracting/fuzz.py --videos DIR --copies 300     prints the tally by outcome
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import cv2
import numpy as np
import torch

from extracting.embedder import Target
from extracting.manifest import OUTCOMES, Manifest, Record
from extracting.run import FolderRun
from extracting.stream import Settings
from extracting.videos import find_videos
from vad.catalog import VIDEO_SUFFIXES

MUTATIONS = ("cut", "flipped bytes", "flipped head", "swapped head", "zeroed block", "cut out", "text")


class Sums:
    """Stands in for an encoder: exact sums of the pixels, by which frames can be told from others."""

    embed_dim = 8
    precision = "fp32"
    hash = "sums"
    note = "sums of pixels in eight stripes"
    device = torch.device("cpu")

    def images(self, frames: torch.Tensor) -> torch.Tensor:
        """(n, 16, 224, 224, 3) uint8 → (n, 8): sums over stripes of 28 rows."""
        return frames.view(len(frames), 16, 8, 28, -1).sum((1, 3, 4), dtype=torch.int64).float()

    def events(self, counts: torch.Tensor, divisors: torch.Tensor) -> torch.Tensor:
        """(n, 224, 224) uint8 → (n, 8), the same of event counts; the divisors play no part."""
        return counts.reshape(len(counts), 8, -1).sum(2, dtype=torch.int64).float()


def plain_sums(path: Path) -> tuple[int, np.ndarray]:
    """Decoded frames and what `Sums` gives of crop 5, by a plain OpenCV loop of its own."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_ANY, [cv2.CAP_PROP_N_THREADS, 1])
    rows, row, frames = [], np.zeros(8, np.int64), 0
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        crop = cv2.resize(frame, (340, 256))[16:240, 58:282][:, ::-1]
        row += crop.reshape(8, -1).sum(1, dtype=np.int64)
        frames += 1
        if frames % 16 == 0:
            rows.append(row.astype(np.float32))
            row = np.zeros(8, np.int64)
    return frames, np.array(rows, np.float32).reshape(-1, 8)


def mutate(data: bytes, other: bytes, kind: str, rng: random.Random) -> bytes:
    """A damaged copy of a file; other: a second file for the head."""
    size, damaged = len(data), bytearray(data)
    if kind == "cut":
        return data[: rng.randrange(size)]
    if kind == "text":
        return b"this is no video\n" * rng.randrange(3)  # none: an empty file
    if kind == "flipped bytes":
        for _ in range(rng.choice([1, 10, 100, 1000])):
            damaged[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "flipped head":
        near = [rng.randrange(min(4096, size)) for _ in range(16)]
        ends = [at if number % 2 else size - 1 - at for number, at in enumerate(near)]
        for at in ends:
            damaged[at] = rng.randrange(256)
    elif kind == "swapped head":
        length = rng.choice([16, 64, 512, 4096])
        damaged[:length] = other[:length]
    else:
        start, length = rng.randrange(size), rng.choice([64, 4096, 65536])
        block = damaged[start : start + length]
        damaged[start : start + length] = bytes(len(block)) if kind == "zeroed block" else b""
    return bytes(damaged)


def copies(videos: Sequence[Path], number: int, folder: Path, seed: int) -> Iterator[str]:
    """Write damaged copies, mutations and videos in turn; yields the name of each."""
    rng = random.Random(seed)
    for count in range(number):
        source = videos[count % len(videos)]
        kind = MUTATIONS[count // len(videos) % len(MUTATIONS)] if number > len(MUTATIONS) else MUTATIONS[count]
        other = rng.choice(videos).read_bytes()
        name = f"{count:03d}-{kind.replace(' ', '_')}-{source.name}"
        (folder / name).write_bytes(mutate(source.read_bytes(), other, kind, rng))
        yield name


def run_over(folder: Path, out: Path, workers: int, time_limit: float) -> dict[str, Record]:
    """Records of a run over a folder, by video."""
    target = Target("image", out, Sums(), Settings())
    FolderRun(find_videos(folder), [target], Settings(), (5,), workers=workers, time_limit=time_limit).run()
    return {record.video: record for record in Manifest(out).records.values()}


def check(folder: Path, out: Path, record: Record) -> None:
    """Assert that a video's outcome is what a plain decode says, and that its file holds what that gives."""
    assert record.outcome in OUTCOMES, record
    assert bool(record.reason) == (record.outcome != "ok"), record
    path = out / f"{record.name}__5.npy"
    assert path.is_file() == record.written, record
    if record.outcome in ("decoder_died", "time_limit", "damaged"):
        return  # a plain decode would take this process with it, hang or raise
    frames, rows = plain_sums(folder / record.video)
    assert record.frames == frames, (record, frames)
    assert record.written == (frames >= 16), record
    if record.written:
        assert np.array_equal(np.load(path), rows), record
        fewer = record.promised is not None and frames < record.promised
        assert record.outcome in (("short", "truncated") if fewer else ("ok",)), record


def main() -> None:
    """Print the tally of a run over damaged copies."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--videos", type=Path, required=True, help="folder of videos to damage")
    flags.add_argument("--copies", type=int, default=300)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--time_limit", type=float, default=20)
    typed = flags.parse_args()
    videos = sorted(path for path in typed.videos.iterdir() if path.suffix in VIDEO_SUFFIXES)
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "videos"), Path(place, "out")
        folder.mkdir()
        names = list(copies(videos, typed.copies, folder, typed.seed))
        records = run_over(folder, out, typed.workers, typed.time_limit)
        assert records.keys() == set(names), "a copy has no line in the manifest"
        for record in records.values():
            check(folder, out, record)
    tally = Counter((name.split("-")[1], record.outcome) for name, record in records.items())
    for outcome in OUTCOMES:
        kinds = {kind: number for (kind, found), number in sorted(tally.items()) if found == outcome}
        if kinds:
            print(f"{outcome:<13}{sum(kinds.values()):>4}   " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    print(f"{len(records)} copies: every one has its line, every file equals a plain decode")


if __name__ == "__main__":
    main()
