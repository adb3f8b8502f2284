"""CSV → embeddings on disk, checked before anything runs → windows → batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from vad import catalog
from vad.cache import FOLDER as CACHE_FOLDER
from vad.embeddings import embedding_header, embedding_shape, load_embedding
from vad.errors import InputError
from vad.lists import Item, embedding_root, event_path, resolve_path
from vad.samples import Sample, TestVideo
from vad.training_windows import Batch, TrainingWindows, one_ahead
from vad.truth import load_ground_truth

MODALITIES = ("image", "event", "fusion")


def find_samples(
    items: Sequence[Item],
    dataset: catalog.Dataset,
    feature_root: Path | None,
    modality: str = "fusion",
    what: str = "checking embeddings",
) -> tuple[list[Sample], int]:
    """Locate the embeddings of every row, read their headers, and return the samples with the width D.

    Only headers are read, so a list of thousands is checked in seconds, before any long work. Raises InputError:
    a file is missing or unreadable, image and event differ in S, or widths differ.
    """
    samples, width = [], None
    for item in tqdm(items, desc=what, unit="file", leave=False, delay=1):
        image = resolve_path(item.path, feature_root)
        event = event_path(image, dataset.event_folders)
        paths = (image if modality != "event" else None, event if modality != "image" else None)
        headers = [embedding_header(path) if path else None for path in paths]
        shapes = [header[0] for header in headers if header]
        if len(shapes) == 2 and shapes[0][0] != shapes[1][0]:
            raise InputError(
                f"{event} has {shapes[1][0]} snippets but {image} has {shapes[0][0]}; extract both from the same video "
                f"with the same tail rule"
            )
        if shapes[0][0] == 0:
            raise InputError(f"{image} holds no snippet; take {item.video} out of the list")
        for path, shape in zip([p for p in paths if p], shapes, strict=True):
            width = width or shape[1]
            if shape[1] != width:
                raise InputError(
                    f"{path} is {shape[1]} wide, the embeddings before it {width}; extract all with one encoder"
                )
        anomalous = dataset.is_anomalous(item.label)
        half = tuple(header is not None and header[1] == np.float16 for header in headers)
        samples.append(Sample(item.video, item.label, anomalous, item.crop, paths, shapes[0][0], half))
    if width is None:
        raise InputError("the list is empty; write it with list/generate_file.py")
    return samples, width


def find_test_videos(
    items: Sequence[Item],
    gt_path: Path,
    dataset: catalog.Dataset,
    feature_root: Path | None,
    crops: Sequence[int],
    modality: str = "fusion",
) -> tuple[list[TestVideo], int]:
    """Test videos in the list's order with the crops asked for and their ground truth, and the width D.

    The list need not name every crop: the files of the others stand beside the one it names. Raises InputError as
    `find_samples`, where crops differ in S, and where the ground truth is not that of these videos.
    """
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(item.video, item)
    named = {(item.video, item.crop): item for item in items}
    wanted = [
        named.get((item.video, crop)) or replace(item, crop=crop, path=_other_crop(item, crop))
        for item in first.values()
        for crop in crops
    ]
    samples, width = find_samples(wanted, dataset, feature_root, modality, "checking test embeddings")
    groups = [samples[k : k + len(crops)] for k in range(0, len(samples), len(crops))]
    for group in groups:
        if len({sample.snippets for sample in group}) > 1:
            counts = ", ".join(f"crop {s.crop}: {s.snippets}" for s in group)
            raise InputError(f"the crops of {group[0].video} differ in snippets ({counts}); extract them again")
    truth = load_ground_truth(gt_path, [(group[0].video, group[0].snippets) for group in groups])
    videos = [
        TestVideo(group[0].video, group[0].label, tuple(group), labels)
        for group, labels in zip(groups, truth, strict=True)
    ]
    return videos, width


def own_video(name: str, paths: Mapping[str, Path]) -> TestVideo:
    """A video without list, label or truth from its embeddings, modality → file."""
    image, event = paths.get("image"), paths.get("event")
    snippets = min(embedding_shape(path)[0] for path in paths.values())
    sample = Sample(name, "no label", False, 5, (image, event), snippets)
    return TestVideo(name, sample.label, (sample,), np.zeros(snippets * catalog.SNIPPET_FRAMES, np.uint8))


def cache_folder(items: Sequence[Item], feature_root: Path | None) -> Path:
    """Where the training windows of a list are kept: beside its embeddings."""
    return embedding_root(resolve_path(items[0].path, feature_root)) / CACHE_FOLDER


def check_values(samples: Sequence[Sample], nan: str, width: int, most_bytes: int = 4 << 30) -> None:
    """Read every embedding once before long work starts, so that a NaN is found now; sets above `most_bytes` are not.

    Raises InputError as `load_embedding`. A larger set is checked as it is read.
    """
    streams = [path for sample in samples for path in sample.paths if path]
    if nan == "zero" or 4 * width * sum(s.snippets * sum(p is not None for p in s.paths) for s in samples) > most_bytes:
        return
    for path in tqdm(streams, desc="checking values", unit="file", leave=False, delay=1):
        load_embedding(path, nan)


@dataclass
class TrainingBatches:
    """Batches of one epoch in an order that depends on seed and epoch alone, so that any epoch can be run again.

    paired: `batch_size` normal and as many anomalous samples a batch, normal ones first; an epoch ends with the
    shorter of the two sides. Otherwise `batch_size` samples as they come. Of `world` processes that share every batch
    this one, number `rank`, loads its part of each side. pin: see `TrainingWindows.gather`.
    """

    data: TrainingWindows
    batch_size: int
    paired: bool
    seed: int
    workers: int = 0
    rank: int = 0
    world: int = 1
    pin: bool = False
    sides: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"--workers must be 0 or more; got {self.workers}")
        anomalous = np.array([sample.anomalous for sample in self.data.samples])
        if anomalous.all() or not anomalous.any():
            only = "anomalous" if len(anomalous) and anomalous[0] else "normal"
            raise InputError(f"the training list holds {only} videos only; learning needs normal and anomalous ones")
        whole = np.arange(len(anomalous))
        self.sides = [whole[~anomalous], whole[anomalous]] if self.paired else [whole]
        most = max(min(self.batch_size, len(side)) for side in self.sides)
        if self.world > most:
            raise InputError(
                f"a batch of {most} cannot be shared by {self.world} processes; start at most {most}, or give a larger "
                f"--batch_size"
            )

    def __len__(self) -> int:
        """Batches an epoch; a last batch that would be smaller is left out, unless it is the only one."""
        return max(1, min(len(side) for side in self.sides) // self.batch_size)

    @property
    def samples(self) -> int:
        """Samples of one batch, of all processes together."""
        return sum(min(self.batch_size, len(side)) for side in self.sides)

    def order(self, epoch: int) -> list[np.ndarray]:
        """Indices of this process's part of every batch of an epoch; alone, of the whole batch."""
        rng = np.random.default_rng((self.seed % 2**64, epoch))  # a negative seed counts too
        sides = [rng.permutation(side) for side in self.sides]
        size = self.batch_size
        batches = [[side[i * size : (i + 1) * size] for side in sides] for i in range(len(self))]
        return [np.concatenate([np.array_split(side, self.world)[self.rank] for side in batch]) for batch in batches]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from number `start` on; raises InputError for an embedding that cannot be used."""
        order = self.order(epoch)[start:]
        if self.data.caches is not None:
            yield from one_ahead(partial(self.data.gather, pin=self.pin), order)
            return
        loader = DataLoader(
            self.data,
            batch_sampler=order,
            num_workers=self.workers,
            collate_fn=self.data.collate,
            pin_memory=self.pin,
            generator=torch.Generator(),  # else it draws from the numbers that dropout uses
        )
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _other_crop(item: Item, crop: int) -> str:
    """Path of another crop of the same video."""
    return f"{item.path.rpartition('__')[0]}__{crop}.npy"
