"""Training windows of samples, from the cache or reduced anew, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vad.cache import open_cache
from vad.cache_file import Cache, Stream
from vad.errors import InputError
from vad.samples import Sample


@dataclass(frozen=True)
class Batch:
    """Windows of B samples; a stream that is not used is None."""

    image: Tensor | None  # (B, T, D) float32, or float16 where all embeddings of the stream are
    event: Tensor | None  # (B, T, D) likewise
    lengths: Tensor  # (B,) int64, valid steps
    anomalous: Tensor  # (B,) float32, 0 or 1
    videos: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; the name by which a DataLoader asks for it."""
        tensors = {name: x.pin_memory() for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **tensors)


class TrainingWindows(Dataset):
    """One window per sample, from a cache on disk or, without one, reduced anew each time it is asked for."""

    def __init__(
        self, samples: Sequence[Sample], *, window: int, nan: str, width: int, cache: Path | None = None
    ) -> None:
        """cache: folder of the cache, which is built here where it has to be; None for none.

        Raises InputError for an embedding that cannot be used. Where the folder cannot be written to or is full, that
        is printed and there is no cache: the windows are the same.
        """
        self.samples = samples
        used = [k for k in (0, 1) if samples and samples[0].paths[k] is not None]
        self.streams: tuple[Stream | None, ...] = tuple(
            _stream(samples, k, window, width, nan) if k in used else None for k in (0, 1)
        )
        self.caches: tuple[Cache | None, ...] | None = None
        if cache is not None:
            try:
                self.caches = tuple(stream and open_cache(stream, cache) for stream in self.streams)
            except OSError as error:
                print(f"{cache}: windows cannot be kept here ({error.strerror or error}); every epoch reads the "
                      f"embeddings anew, which is slower; --cache_dir names another place")  # fmt: skip

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list[Tensor | None]] | InputError:
        """The sample and its windows (T, D) per stream, reduced now; an InputError is returned, not raised."""
        windows: list[Tensor | None] = []
        try:
            for stream in self.streams:
                if stream is None:
                    windows.append(None)
                    continue
                valid, _ = stream.reduce(index)
                window = torch.zeros(stream.window, stream.width, dtype=torch.from_numpy(valid).dtype)
                window[: len(valid)] = torch.from_numpy(valid)
                windows.append(window)
        except InputError as error:
            return error  # raised in a worker process it would arrive as a traceback
        return self.samples[index], windows

    def gather(self, indices: Sequence[int], pin: bool = False) -> Batch:
        """Windows of many samples from the cache; pin: in page-locked memory, which a GPU copies beside its work.

        Raises InputError for a damaged cache.
        """
        streams: list[Tensor | None] = []
        for cache in self.caches:
            if cache is None:
                streams.append(None)
                continue
            stream = cache.stream
            # memory from numpy comes in large pages, a third of the time of torch's own
            windows = torch.from_numpy(np.empty((len(indices), stream.window, stream.width), stream.dtype))
            if pin:
                windows = torch.empty_like(windows, pin_memory=True)
            cache.read(indices, windows.numpy())
            streams.append(windows)
        return self.batch([self.samples[index] for index in indices], streams)

    def batch(self, samples: Sequence[Sample], streams: Sequence[Tensor | None]) -> Batch:
        """A batch of samples whose windows (B, T, D) are at hand."""
        window = next(stream.window for stream in self.streams if stream)
        return Batch(
            image=streams[0],
            event=streams[1],
            lengths=torch.tensor([min(sample.snippets, window) for sample in samples]),
            anomalous=torch.tensor([float(sample.anomalous) for sample in samples]),
            videos=tuple(sample.video for sample in samples),
        )

    def collate(self, items: Sequence[tuple[Sample, list[Tensor | None]] | InputError]) -> Batch | InputError:
        """Samples → batch; the first InputError among them, if there is one."""
        for item in items:
            if isinstance(item, InputError):
                return item
        samples, windows = zip(*items, strict=True)
        return self.batch(samples, [None if s[0] is None else torch.stack(s) for s in zip(*windows, strict=True)])


def _stream(samples: Sequence[Sample], k: int, window: int, width: int, nan: str) -> Stream:
    """What is to be reduced of image (k = 0) or event (k = 1) embeddings."""
    return Stream(
        modality=("image", "event")[k],
        paths=tuple(sample.paths[k] for sample in samples),
        lengths=tuple(min(sample.snippets, window) for sample in samples),
        window=window,
        width=width,
        dtype=np.dtype(np.float16 if all(sample.half[k] for sample in samples) else np.float32),
        nan=nan,
    )


def one_ahead(gather: Callable[[np.ndarray], Batch], order: Iterable[np.ndarray]) -> Iterator[Batch]:
    """Batches in order, the next one gathered by a thread while the present one is used."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Batch] | None = None
        for indices in order:
            ready, coming = coming, thread.submit(gather, indices)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
