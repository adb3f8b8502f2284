"""Damaged copies of videos through a run: none may end it, hang it, be forgotten, or be embedded wrongly unsaid.

python tests/tools/fuzz.py --videos DIR --copies 300     prints the tally by outcome
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

from extracting.config import Config
from extracting.job.manifest import OUTCOMES, Manifest, Record
from extracting.job.run import ExtractionRun
from extracting.job.videos import find_videos
from tests.extracting.helpers import Sums, outputs_of
from vad.datasets import VIDEO_SUFFIXES

MUTATIONS = ("cut", "flipped bytes", "flipped head", "swapped head", "zeroed block", "cut out", "text")


def plain_sums(path: Path) -> tuple[int, np.ndarray]:
    """Decoded frames and what `Sums` gives of crop 5, by a plain OpenCV loop of its own."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    weights = np.arange(1, 225)
    rows, row, frames = [], np.zeros(8, np.int64), 0
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        crop = cv2.resize(frame, (340, 256))[16:240, 58:282][:, ::-1]
        row += (crop.sum(2, dtype=np.int64) * weights).reshape(8, -1).sum(1)
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
    config = Config(crops=(5,), workers=workers, time_limit=time_limit)
    outputs = outputs_of(out, {"image": Sums()}, config, ("image",))
    ExtractionRun(find_videos(folder), outputs, config).run()
    return {record.video: record for record in Manifest(out / "image").records.values()}


def check(folder: Path, out: Path, record: Record) -> None:
    """Assert that a video's outcome is what a plain decode says, and that its file holds what that gives."""
    assert record.outcome in OUTCOMES, record
    assert bool(record.reason) == (record.outcome != "ok"), record
    path = out / "image" / f"{record.name}__5.npy"
    assert path.is_file() == record.embedded, record
    if record.outcome in ("decoder_died", "time_limit", "damaged", "conversion_failed"):
        return  # a plain decode would end this process, hang, raise, or repeat frames unsaid
    frames, rows = plain_sums(folder / record.video)
    assert record.frames == frames, (record, frames)
    assert record.embedded == (frames >= 16), record
    if record.embedded:
        assert np.array_equal(np.load(path), rows), record
        if record.declared is not None and frames >= record.declared:
            assert record.outcome == "ok", record


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
