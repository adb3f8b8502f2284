"""Extract damaged copies of videos: none may stop or hang the run, be lost or get wrong embeddings unnoticed.

`python tests/tools/fuzz.py --videos DIR --copies 300` prints the number of copies per outcome.
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

from extracting.job.manifest import OUTCOMES, Manifest, Record
from extracting.job.run import ExtractionRun
from extracting.job.videos import find_videos
from extracting.video.config import Config
from tests.extracting.helpers import Sums, outputs_of
from vad.datasets import VIDEO_SUFFIXES

MUTATIONS = ("cut", "flipped bytes", "flipped head", "swapped head", "zeroed block", "cut out", "text")


def plain_sums(path: Path) -> tuple[int, np.ndarray]:
    """Return frame count and pixel sums (see `Sums`) of crop 5, from a plain OpenCV loop."""
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


def mutate(data: bytes, other: bytes, mutation: str, rng: random.Random) -> bytes:
    """Return a damaged copy of a file; "swapped head" takes its head from `other`."""
    size, damaged = len(data), bytearray(data)
    if mutation == "cut":
        return data[: rng.randrange(size)]
    if mutation == "text":
        return b"this is no video\n" * rng.randrange(3)  # 0 times gives an empty file
    if mutation == "flipped bytes":
        for _ in range(rng.choice([1, 10, 100, 1000])):
            damaged[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif mutation == "flipped head":
        offsets = [rng.randrange(min(4096, size)) for _ in range(16)]
        for number, offset in enumerate(offsets):  # alternately from the end and from the start
            damaged[offset if number % 2 else size - 1 - offset] = rng.randrange(256)
    elif mutation == "swapped head":
        length = rng.choice([16, 64, 512, 4096])
        damaged[:length] = other[:length]
    else:
        start, length = rng.randrange(size), rng.choice([64, 4096, 65536])
        block = damaged[start : start + length]
        damaged[start : start + length] = bytes(len(block)) if mutation == "zeroed block" else b""
    return bytes(damaged)


def copies(videos: Sequence[Path], number: int, folder: Path, seed: int) -> Iterator[str]:
    """Write damaged copies, cycling through videos and mutations, and yield their names."""
    rng = random.Random(seed)
    for count in range(number):
        source = videos[count % len(videos)]
        mutation = MUTATIONS[count // len(videos) % len(MUTATIONS)] if number > len(MUTATIONS) else MUTATIONS[count]
        other = rng.choice(videos).read_bytes()
        name = f"{count:03d}-{mutation.replace(' ', '_')}-{source.name}"
        (folder / name).write_bytes(mutate(source.read_bytes(), other, mutation, rng))
        yield name


def run_over(folder: Path, out: Path, workers: int, time_limit: float) -> dict[str, Record]:
    """Extract a folder and return its records by video."""
    config = Config(crops=(5,), workers=workers, time_limit=time_limit)
    outputs = outputs_of(out, {"image": Sums()}, config, ("image",))
    ExtractionRun(find_videos(folder), outputs, config).run()
    return {record.video: record for record in Manifest(out / "image").records.values()}


def check(folder: Path, out: Path, record: Record) -> None:
    """Assert that outcome and embeddings of a video equal those of a plain decoding loop."""
    assert record.outcome in OUTCOMES, record
    assert bool(record.reason) == (record.outcome != "ok"), record
    path = out / "image" / f"{record.name}__5.npy"
    assert path.is_file() == record.embedded, record
    if record.outcome in ("decoder_died", "time_limit", "damaged", "conversion_failed"):
        return  # a plain loop would crash, hang, raise or repeat frames
    frames, rows = plain_sums(folder / record.video)
    assert record.frames == frames, (record, frames)
    assert record.embedded == (frames >= 16), record
    if record.embedded:
        assert np.array_equal(np.load(path), rows), record
        if record.declared is not None and frames >= record.declared:
            assert record.outcome == "ok", record


def main() -> None:
    """Extract damaged copies, check them and print the number of copies per outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos to damage")
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--time_limit", type=float, default=20)
    flags = parser.parse_args()
    videos = sorted(path for path in flags.videos.iterdir() if path.suffix in VIDEO_SUFFIXES)
    with tempfile.TemporaryDirectory() as root:
        folder, out = Path(root, "videos"), Path(root, "out")
        folder.mkdir()
        names = list(copies(videos, flags.copies, folder, flags.seed))
        records = run_over(folder, out, flags.workers, flags.time_limit)
        assert records.keys() == set(names), "a copy has no line in the manifest"
        for record in records.values():
            check(folder, out, record)
    tally = Counter((name.split("-")[1], record.outcome) for name, record in records.items())
    for outcome in OUTCOMES:
        counts = {mutation: n for (mutation, other), n in sorted(tally.items()) if other == outcome}
        if counts:
            print(f"{outcome:<13}{sum(counts.values()):>4}   " + ", ".join(f"{m} {n}" for m, n in counts.items()))
    print(f"{len(records)} copies: each has a manifest line, and each embedding equals that of a plain loop")


if __name__ == "__main__":
    main()
