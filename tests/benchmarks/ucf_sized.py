"""Write random embeddings of UCF-Crime's size, to time loading, training and evaluation.

There are 1610 training videos with ten crops and 290 test videos with their real lengths, in float16 and width
768. Training embeddings are random in the first snippets and then zeros, which take no disk space.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vad.datasets import IMAGE_FOLDER, SIDES, SNIPPET_FRAMES, AnnotatedVideo, load_dataset
from vad.files import atomic_write
from vad.prepare.ground_truth import make_ground_truth
from vad.prepare.lists import make_lists

DATASET = load_dataset("ucfcrime")
SPLIT = "official"
WIDTH = 768
CROPS = {"train": tuple(range(10)), "test": (5,)}
SNIPPETS = 128 * 3600 * 30 // SNIPPET_FRAMES  # in total: 128 hours at 30 frames/s
FILLED = 4  # non-zero snippets at the start of a training embedding
FOLDERS = (IMAGE_FOLDER, DATASET.event_folders[0])


def snippet_counts(seed: int = 0) -> dict[str, int]:
    """Return video → S. Test videos have their real lengths.

    Training lengths are random multiples of those of test videos with the same binary label.
    """
    rng = np.random.default_rng(seed)
    train, test = (
        [DATASET.videos[name] for name in DATASET.split_names(SPLIT, side)] for side in SIDES
    )
    counts = {video.name: video.frames // SNIPPET_FRAMES for video in test}
    remaining = SNIPPETS - sum(counts.values())
    test_counts: dict[bool, list[int]] = {False: [], True: []}
    for video in test:
        test_counts[DATASET.is_anomalous(video.label)].append(counts[video.name])
    lengths = np.array([rng.choice(test_counts[DATASET.is_anomalous(video.label)]) for video in train])
    stretched = lengths * rng.lognormal(0, 0.8, len(train))
    rounded = np.maximum(1, np.rint(stretched * remaining / stretched.sum())).astype(int)
    return {**counts, **dict(zip((video.name for video in train), rounded.tolist(), strict=True))}


def write_embedding(path: Path, snippets: int, filled: int, seed: Sequence[int]) -> None:
    """Write an array (S, 768), float16, whose first `filled` snippets are random and the others 0."""
    x = np.random.default_rng(seed).standard_normal((filled, WIDTH), np.float32)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (snippets, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        size = file.tell() + 2 * WIDTH * snippets
        file.write(x.astype(np.float16).tobytes())
        file.truncate(size)


def make(out: Path, videos: Sequence[AnnotatedVideo], counts: dict[str, int]) -> None:
    """Write missing embeddings into `out`, and lists and ground truth into out/lists."""
    for number, video in enumerate(tqdm(videos, desc="embeddings", unit="video", delay=1)):
        side, S = video.splits[SPLIT], counts[video.name]
        filled = S if side == "test" else min(FILLED, S)
        for stream, folder in enumerate(FOLDERS):
            for crop in CROPS[side]:
                path = out / folder / video.label / f"{video.name}__{crop}.npy"
                if not path.is_file():
                    write_embedding(path, S, filled, (number, stream, crop))
    lists = out / "lists"
    train, test = (lists / f"{side}.csv" for side in SIDES)
    make_lists(DATASET, SPLIT, out / IMAGE_FOLDER, train, test, allow_missing=True)
    make_ground_truth(DATASET, SPLIT, test, lists)
