"""CSV → embeddings on disk, checked before anything runs → windows → batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vad import catalog
from vad.errors import InputError
from vad.lists import Item, event_path, resolve_path
from vad.truth import embedding_shape, load_ground_truth
from vad.windows import train_window

MODALITIES = ("image", "event", "fusion")


@dataclass(frozen=True)
class Sample:
    """One row of a list, found on disk: a video seen through one crop."""

    video: str
    label: str
    anomalous: bool
    crop: int
    paths: tuple[Path | None, Path | None]  # image, event; None for a stream that is not used
    snippets: int  # S


@dataclass(frozen=True)
class TestVideo:
    """One test video: its crops, and the truth about its frames."""

    name: str
    label: str
    crops: tuple[Sample, ...]
    frame_labels: np.ndarray  # (16·S,) uint8

    @property
    def snippets(self) -> int:
        """S, the same for every crop."""
        return self.crops[0].snippets


@dataclass(frozen=True)
class Batch:
    """Windows of B samples; a stream that is not used is None."""

    image: Tensor | None  # (B, T, D) float32
    event: Tensor | None  # (B, T, D) float32
    lengths: Tensor  # (B,) int64, valid steps
    anomalous: Tensor  # (B,) float32, 0 or 1
    videos: tuple[str, ...]


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
        shapes = [embedding_shape(path) for path in paths if path]
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
        samples.append(Sample(item.video, item.label, anomalous, item.crop, paths, shapes[0][0]))
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


def load_embedding(path: Path, nan: str) -> np.ndarray:
    """(S, D) float32 from a .npy file. nan "zero" turns NaN into 0, "refuse" raises InputError naming the file."""
    try:
        embedding = np.load(path, allow_pickle=False).astype(np.float32)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a readable array of numbers ({error}); extract it again") from None
    missing = np.isnan(embedding)
    if missing.any():
        if nan == "refuse":
            steps = int(missing.any(1).sum())
            raise InputError(
                f"{path} has NaN in {steps} of its {len(embedding)} snippets; extract it again, or count NaN as 0, as "
                f"the released code does, with --nan zero"
            )
        embedding[missing] = 0
    return embedding


def check_values(samples: Sequence[Sample], nan: str, width: int, most_bytes: int = 4 << 30) -> None:
    """Read every embedding once before long work starts, so that a NaN is found now; sets above `most_bytes` are not.

    Raises InputError as `load_embedding`. A larger set is checked as it is read.
    """
    streams = [path for sample in samples for path in sample.paths if path]
    if nan == "zero" or 4 * width * sum(s.snippets * sum(p is not None for p in s.paths) for s in samples) > most_bytes:
        return
    for path in tqdm(streams, desc="checking values", unit="file", leave=False, delay=1):
        load_embedding(path, nan)


class TrainingWindows(Dataset):
    """One window per sample; keeps windows in memory when all of them fit into `cache_bytes`."""

    def __init__(
        self, samples: Sequence[Sample], *, window: int, nan: str, width: int, cache_bytes: int = 1 << 30
    ) -> None:
        self.samples, self.window, self.nan = samples, window, nan
        streams = sum(path is not None for path in samples[0].paths) if samples else 0
        self.cached = len(samples) * streams * window * width * 4 <= cache_bytes
        self._cache: dict[int, tuple[list[Tensor | None], int]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list[Tensor | None], int] | InputError:
        """The sample, its windows (T, D) per stream and their valid steps; an InputError is returned, not raised."""
        try:
            if index not in self._cache:
                windows = self._windows(self.samples[index])
                if not self.cached:
                    return self.samples[index], *windows
                self._cache[index] = windows
            return self.samples[index], *self._cache[index]
        except InputError as error:
            return error  # raised in a worker process it would arrive as a traceback

    def _windows(self, sample: Sample) -> tuple[list[Tensor | None], int]:
        windows, length = [], 0
        for path in sample.paths:
            if path is None:
                windows.append(None)
                continue
            reduced, length = train_window(load_embedding(path, self.nan), self.window)
            windows.append(torch.from_numpy(reduced))
        return windows, length


def collate(items: Sequence[tuple[Sample, list[Tensor | None], int] | InputError]) -> Batch | InputError:
    """Samples → batch; the first InputError among them, if there is one."""
    for item in items:
        if isinstance(item, InputError):
            return item
    samples, windows, lengths = zip(*items, strict=True)
    image, event = (None if s[0] is None else torch.stack(s) for s in zip(*windows, strict=True))
    return Batch(
        image=image,
        event=event,
        lengths=torch.tensor(lengths),
        anomalous=torch.tensor([float(s.anomalous) for s in samples]),
        videos=tuple(s.video for s in samples),
    )


@dataclass
class TrainingBatches:
    """Batches of one epoch in an order that depends on seed and epoch alone, so that any epoch can be run again.

    paired: `batch_size` normal and as many anomalous samples a batch, normal ones first; an epoch ends with the
    shorter of the two sides. Otherwise `batch_size` samples as they come.
    """

    data: TrainingWindows
    batch_size: int
    paired: bool
    seed: int
    workers: int = 0
    sides: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        anomalous = np.array([sample.anomalous for sample in self.data.samples])
        if anomalous.all() or not anomalous.any():
            only = "anomalous" if len(anomalous) and anomalous[0] else "normal"
            raise InputError(f"the training list holds {only} videos only; learning needs normal and anomalous ones")
        whole = np.arange(len(anomalous))
        self.sides = [whole[~anomalous], whole[anomalous]] if self.paired else [whole]

    def __len__(self) -> int:
        """Batches an epoch; a last batch that would be smaller is left out, unless it is the only one."""
        return max(1, min(len(side) for side in self.sides) // self.batch_size)

    def order(self, epoch: int) -> list[np.ndarray]:
        """Indices of every batch of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        sides = [rng.permutation(side) for side in self.sides]
        size = self.batch_size
        return [np.concatenate([side[i * size : (i + 1) * size] for side in sides]) for i in range(len(self))]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch; raises InputError for an embedding that cannot be used."""
        loader = DataLoader(
            self.data,
            batch_sampler=self.order(epoch),
            num_workers=0 if self.data.cached else self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _other_crop(item: Item, crop: int) -> str:
    """Path of another crop of the same video."""
    return f"{item.path.rpartition('__')[0]}__{crop}.npy"
