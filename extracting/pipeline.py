"""One video → embeddings: snippets, crops and encoder put together, in batches that may span videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from extracting.crops import ALL_CROPS, CROP_SIZE, crop_views
from extracting.encoder import Encoder
from extracting.frames import Video, VideoError
from extracting.stream import Settings, Snippet, snippets_of
from extracting.uploads import Uploads, crop_tensors
from vad.catalog import SNIPPET_FRAMES
from vad.errors import InputError

Sink = Callable[[int, np.ndarray], None]  # takes a crop number and the embedding (D,) of its next snippet


class Batches:
    """Collects crops of snippets, of whatever video, into full batches and hands each embedding to its owner.

    A batch's results are handed over after the next batch has been started: on a GPU the host fills one buffer while
    the device works on the other. So the way back to the host begins right behind the batch: asked for later, it
    would wait for the next batch too. A GPU is always given a full batch, the last one filled up with whatever the
    buffer held before: another size would change the last bits of every row (a CPU's passes are alike, see `Encoder`).
    """

    def __init__(
        self, encoder: Encoder, modality: str, crops: Sequence[int], batch_size: int, *, upload: bool | None = None
    ) -> None:
        """batch_size: forward passes at once; an image snippet takes 16, so the least is 16 there.

        upload: send whole snippets to the encoder's device and crop them there; None: where that is not the CPU.
        """
        self._encoder, self._modality, self._crops = encoder, modality, crops
        per_item = SNIPPET_FRAMES if modality == "image" else 1
        shape = (per_item, CROP_SIZE, CROP_SIZE, 3) if modality == "image" else (1, CROP_SIZE, CROP_SIZE)
        self._items = max(1, batch_size // per_item)
        on_gpu = self._on_gpu = encoder.device.type == "cuda"
        self._buffers = [
            (
                torch.zeros((self._items, *shape), dtype=torch.uint8, device=encoder.device),
                torch.ones(self._items, pin_memory=on_gpu),
            )
            for _ in range(2)
        ]
        # room for all snippets of a batch: their way up waits behind the batch before, the host does not
        rooms = 2 + self._items // len(crops)
        self._uploads = Uploads(encoder.device, rooms) if (on_gpu if upload is None else upload) else None
        self._owners: list[tuple[Sink, int]] = []
        self._running: tuple[list[tuple[Sink, int]], Tensor, torch.cuda.Event | None] | None = None

    def add(self, snippet: Snippet, sink: Sink) -> None:
        """Queue all crops of a snippet; `sink` gets their embeddings, in this order, some time later."""
        if self._uploads is None:
            views = crop_views(snippet.pixels, self._crops)
        else:
            views = crop_tensors(self._uploads.send(snippet.pixels), self._crops)
        for number, (crop, view) in enumerate(zip(self._crops, views, strict=True)):
            pixels, divisors = self._buffers[0]
            place = len(self._owners)
            if self._uploads is None:
                pixels.numpy()[place] = view
            else:
                pixels[place].copy_(view)
            if snippet.divisors is not None:
                divisors.numpy()[place] = snippet.divisors[number]
            self._owners.append((sink, crop))
            if len(self._owners) == self._items:
                self._launch()

    def flush(self) -> None:
        """Encode and hand over everything that was added."""
        self._launch()
        self._deliver()

    def _launch(self) -> None:
        if not self._owners:
            return
        launched = self._items if self._on_gpu else len(self._owners)
        pixels, divisors = (buffer[:launched] for buffer in self._buffers[0])
        if self._modality == "image":
            rows = self._encoder.images(pixels)
        else:
            rows = self._encoder.events(pixels[:, 0], divisors)
        arrived = None
        if self._on_gpu:
            rows = torch.empty(rows.shape, pin_memory=True).copy_(rows, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        started = (self._owners, rows, arrived)
        self._deliver()
        self._running, self._owners = started, []
        self._buffers.reverse()

    def _deliver(self) -> None:
        if self._running is None:
            return
        owners, rows, arrived = self._running
        self._running = None
        if arrived is not None:
            arrived.synchronize()
        values = rows.cpu().numpy()[: len(owners)]  # what filled the batch up has no owner
        if not np.isfinite(values).all():
            raise InputError(f"the encoder ({self._encoder.note}) gives NaN or infinite embeddings: damaged weights?")
        for (sink, crop), row in zip(owners, values, strict=True):
            sink(crop, row)


def default_batch_size(encoder: Encoder) -> int:
    """Forward passes at once: enough to fill a GPU; on a CPU few for a large tower, whose activations take memory."""
    if encoder.device.type == "cuda":
        return 256
    return 64 if encoder.embed_dim < 512 else SNIPPET_FRAMES


def standardise_on(encoder: Encoder, modality: str, videos: Sequence[Path], settings: Settings, most: int = 16) -> None:
    """Standardise an untrained encoder on some of the videos it is going to embed, evenly chosen.

    A video that gives no snippet is passed over: the run that follows reports it. Where fewer than two snippets
    differ there is no spread to divide by, and the encoder stays as it is.
    """
    chosen: list[Path] = []
    rows: list[np.ndarray] = []
    batches = Batches(encoder, modality, ALL_CROPS[:1], default_batch_size(encoder))
    for path in videos[:: max(1, len(videos) // most)][:most]:
        try:
            for snippet in snippets_of(Video(path, settings.tail), (modality,), settings, ALL_CROPS[:1]):
                batches.add(snippet, lambda crop, row: rows.append(row.copy()))
        except VideoError:
            continue
        chosen.append(path)
    batches.flush()
    if len(rows) < 2 or not np.ptp(rows, axis=0).any():
        return
    name = f"{len(chosen)} videos from {chosen[0].name} to {chosen[-1].name}"
    encoder.standardise(torch.from_numpy(np.stack(rows)).to(encoder.device), name)


def embed_video(
    path: str | Path,
    modality: str,
    encoder: Encoder,
    settings: Settings | None = None,
    crops: Sequence[int] = ALL_CROPS,
    batch_size: int | None = None,
) -> dict[int, np.ndarray]:
    """Embeddings of one video: crop number → (S, D) float32. Raises VideoError if it gives none."""
    rows: dict[int, list[np.ndarray]] = {crop: [] for crop in crops}
    batches = Batches(encoder, modality, crops, batch_size or default_batch_size(encoder))
    video = Video(path, (settings or Settings()).tail)
    for snippet in snippets_of(video, (modality,), settings or Settings(), crops):
        batches.add(snippet, lambda crop, row: rows[crop].append(row.copy()))
    batches.flush()
    return {crop: np.stack(found) for crop, found in rows.items()}
