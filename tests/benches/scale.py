"""What a run's own bookkeeping costs, measured with empty encoders: job list, queue, manifest, file tree.

`python tests/bench.py scale` takes 20,000 videos; `python -m tests.benches.scale 1000000` any number.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from extracting.embedder import Target
from extracting.encoder import load_encoder
from extracting.manifest import Manifest, Record
from extracting.outputs import EmbeddingFiles, sweep
from extracting.run import FolderRun
from extracting.share import Feed, Order
from extracting.stream import Ended, Job, Settings
from extracting.videos import find_videos
from tests.benches.video_pass import CROPS

PER_FOLDER = 1000


def measured(what: str, number: int, action: Callable[[], object]) -> object:
    """Run an action on `number` things; print seconds, things a second, and the growth of memory a thing."""
    before, start = resident(), time.perf_counter()
    result = action()
    taken = time.perf_counter() - start
    grown = (resident() - before) / number
    print(f"  {what:44s} {taken:8.2f} s   {number / taken:10.0f} a second   {max(grown, 0):6.0f} bytes of memory each")
    return result


def resident() -> int:
    """Resident memory, bytes."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) * 1024 if status.exists() else 0


def make_tree(folder: Path, number: int) -> None:
    """Files that stand for videos, a thousand in each folder."""
    for index in range(number):
        parent = folder / f"c{index // PER_FOLDER:06d}"
        if index % PER_FOLDER == 0:
            parent.mkdir(parents=True)
        (parent / f"v{index:09d}.mp4").write_bytes(b"x")


def empty_encoders(jobs: Sequence[Job], order: Order) -> Iterator[tuple[Job, str, Record | Ended]]:
    """An engine that draws every job from the queue and answers at once: what is left is the driver's own work."""
    feed = Feed(jobs)
    settings = order.settings.recorded("image", "fp32")
    while job := feed.take(0):
        feed.settle(0, job.video, "image")
        record = Record(job.video, job.name, job.size, "ok", frames=1600, promised=1600, snippets=100)
        record.crops, record.settings, record.encoder = list(CROPS), settings, "0123456789abcdef"
        yield job, "image", record


def write_embeddings(folder: Path, number: int) -> None:
    """Files of ten crops, one snippet each, as a run writes them: temporary, then renamed."""
    row = np.zeros(768, np.float32)
    for index in range(number):
        files = EmbeddingFiles(folder, f"c{index // PER_FOLDER:06d}/v{index:09d}", CROPS, 768)
        for crop in CROPS:
            files.append(crop, row)
        files.commit()


def simulate(number: int, room: Path) -> None:
    """Print what each part costs for a number of videos; files go below `room`."""
    print(f"{number} videos, {PER_FOLDER} a folder")
    measured("file tree of the videos, made", number, lambda: make_tree(room / "videos", number))
    jobs = measured("job list (find_videos)", number, lambda: find_videos(room / "videos"))
    encoder = load_encoder("untrained", "image", tower="tiny", device="cpu")
    target = Target("image", room / "out", encoder, Settings())
    run = measured(
        "what is to do (FolderRun)",
        number,
        partial(FolderRun, jobs, [target], Settings(), CROPS, engine=empty_encoders),
    )
    measured("queue, records, manifest lines", number, run.run)
    size = target.manifest.path.stat().st_size
    print(f"  manifest: {size / number:.0f} bytes a video, {size / 1e6:.1f} MB")
    del run, target
    measured("manifest read again", number, lambda: Manifest(room / "out"))
    some = min(number, 20000)
    measured("embeddings of ten crops, written", some, lambda: write_embeddings(room / "out", some))
    folder = room / "out" / "c000000"
    print(f"  a folder of {len(list(folder.iterdir()))} embedding files: {folder.stat().st_size} bytes of directory")
    measured("leftovers looked for (sweep)", 10 * some, lambda: sweep(room / "out"))


def run(number: int = 20000) -> None:
    """Print the section."""
    room = Path(tempfile.mkdtemp(prefix="scale"))
    try:
        simulate(number, room)
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    run(int(sys.argv[1]))
