"""CLIP image tower and event tower on their device: pixels in, embeddings out, the same bits in whatever company."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from extracting.crops import CROP_SIZE
from extracting.lanes import Lanes
from extracting.towers import TOWERS, build_tower, import_open_clip
from extracting.weights import CLIP_URL, EVENT_URL, UNTRAINED, fingerprint, read_checkpoint, tower_weights
from vad.device import pick_device
from vad.errors import InputError

MODALITIES = ("image", "event")
PRECISIONS = ("fp32", "bf16", "fp16")
# CLIP's own normalisation, R, G, B
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SMALL = 512  # a tower less wide than this spends its time between products


class Encoder:
    """A tower on its device: pixels of crops in, embeddings out. `note` says in words what its weights are.

    An embedding's bits must not depend on what else is in the batch, or a run that was stopped and continued would
    write other files. The same product in another shape, or shared among threads, rounds some rows differently.
    So a CPU always computes passes of the same few images, each by one thread (several passes beside each other):
    batch size and number of threads change nothing. A GPU repeats its bits for a batch of the same size.
    """

    def __init__(
        self,
        tower: nn.Module,
        *,
        device: torch.device,
        precision: str,
        note: str,
        trained: bool,
        compiled: bool = False,
    ) -> None:
        self.hash = fingerprint(tower.state_dict())
        self.tower = tower.to(device).eval().requires_grad_(False)
        self.device = device
        # as the manifest keeps it: compiled products round differently
        self.precision = f"{precision} compiled" if compiled else precision
        self._network = torch.compile(self.tower, dynamic=False) if compiled else self.tower
        self.note = note
        self.trained = trained
        self.embed_dim: int = tower.output_dim
        # a large tower is no faster with more images at once on a CPU, and its activations stay small
        self.cpu_pass = 16 if tower.conv1.out_channels < SMALL else 1
        self._type = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        # in bfloat16 on a CPU, attention with the batch first hands its projection a transposed view whose copies cost
        # six times the arithmetic; with the steps first there is none (in float32 it is the slower way)
        steps_first = precision == "bf16" and device.type == "cpu"
        tower.transformer.batch_first = not steps_first
        for block in tower.transformer.resblocks:
            block.attn.batch_first = not steps_first
        self.offset: Tensor | float = 0.0  # (D,) taken off every embedding,
        self.scale: Tensor | float = 1.0  # by which the rest is divided; see `standardise`
        self._lanes = Lanes() if device.type == "cpu" else None

    def standardise(self, embeddings: Tensor, name: str) -> None:
        """Shift and scale every later embedding so that these (n, D) have mean 0 and variance 1; `name` says which.

        For untrained towers alone: they answer all pictures of one camera nearly alike, with a common part ten times
        as large as what differs, and a network fed with that learns next to nothing.
        """
        rows = embeddings.double()  # so that float32's last bit does not depend on how the sums are shared
        self.offset = rows.mean(0).float()
        self.scale = rows.std(0).square().mean().sqrt().float()  # one for all dimensions: none is blown up
        self.hash = hashlib.sha256(f"{self.hash} standardised on {name}".encode()).hexdigest()[: len(self.hash)]
        self.note += f", standardised on {name}"

    def parts(self) -> dict[str, Any]:
        """All that makes this encoder, on the CPU, as plain values and tensors: what another process needs."""
        names = ("precision", "note", "trained", "hash")
        tensors = {name: value.cpu() for name, value in self.tower.state_dict().items()}
        linear = tuple(torch.as_tensor(value).cpu() for value in (self.offset, self.scale))
        return {"tensors": tensors, "linear": linear, **{name: getattr(self, name) for name in names}}

    @classmethod
    def of_parts(cls, parts: dict[str, Any], device: torch.device) -> Encoder:
        """The same encoder on a device of this process. Raises InputError where it lacks the precision."""
        precision, _, compiled = parts["precision"].partition(" ")
        check_precision(precision, device, bool(compiled))
        words = {"precision": precision, "compiled": bool(compiled), "note": parts["note"], "trained": parts["trained"]}
        made = cls(build_tower(parts["tensors"], parts["note"]), device=device, **words)
        made.hash = parts["hash"]
        made.offset, made.scale = (value.to(device) for value in parts["linear"])
        return made

    def images(self, frames: Tensor) -> Tensor:
        """Embeddings of crops, one per snippet: the mean over its frames, not normalised.

        frames: (n, 16, 224, 224, 3) uint8 BGR. Returns (n, D) float32 on the encoder's device.
        """
        n, per_snippet = frames.shape[:2]
        flat = frames.flatten(0, 1)  # (16 n, 224, 224, 3)
        rows = self._passes(len(flat), lambda part, pixels: _normalise(flat[part].to(self.device), pixels))
        return rows.view(n, per_snippet, -1).mean(1)

    def events(self, counts: Tensor, divisors: Tensor) -> Tensor:
        """Embeddings of event maps: scaled to [0, 1], three equal channels, no CLIP normalisation.

        counts: (n, 224, 224) uint8; divisors: (n,) float32. Returns (n, D) float32 on the encoder's device.
        """

        def fill(part: slice, pixels: Tensor) -> None:
            maps = counts[part].to(self.device).float()
            # page-locked ones go up behind the batch before, and the host does not wait for that
            maps /= divisors[part].to(self.device, non_blocking=True).view(-1, 1, 1)
            pixels.copy_(maps.unsqueeze(1))

        return self._passes(len(counts), fill)

    def _passes(self, n: int, fill: Callable[[slice, Tensor], None]) -> Tensor:
        """Embeddings (n, D) of n images. fill(part, pixels) writes images `part` into pixels (·, 3, 224, 224)."""
        size = n if self._lanes is None else self.cpu_pass

        def one_pass(start: int) -> Tensor:
            part = slice(start, min(start + size, n))
            # zeros where the last pass is not full: what they give is dropped
            pixels = torch.zeros((size, 3, CROP_SIZE, CROP_SIZE), device=self.device)
            fill(part, pixels[: part.stop - start])
            return self._forward(pixels)[: part.stop - start]

        starts = range(0, n, size)
        rows = map(one_pass, starts) if self._lanes is None else self._lanes.map(one_pass, starts)
        return torch.cat(list(rows))

    def _forward(self, pixels: Tensor) -> Tensor:
        autocast = torch.autocast(self.device.type, self._type, enabled=self._type != torch.float32)
        with torch.inference_mode(), autocast:
            return (self._network(pixels).float() - self.offset) / self.scale


def _normalise(frames: Tensor, pixels: Tensor) -> None:
    """Frames (n, 224, 224, 3) uint8 BGR → pixels (n, 3, 224, 224) float32 RGB, by CLIP's mean and deviation."""
    for channel, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True)):
        plane = pixels[:, channel]
        plane.copy_(frames[..., 2 - channel])
        # divide, subtract, divide: bit-identical to the frame-by-frame path; one fused step is not
        plane.div_(255).sub_(mean).div_(std)


def check_precision(precision: str, device: torch.device, compiled: bool = False) -> None:
    """Raise InputError where the device has no products of this type, or nothing to compile for."""
    if compiled and device.type == "cpu":
        raise InputError("--compile: is for GPUs; on a CPU leave it out")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16: a CPU has no fast float16; take bf16, or a GPU")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; take fp16")


def load_encoder(
    clip_ckpt: str | None,
    modality: str,
    *,
    tower: str = "vitl",
    device: str = "auto",
    precision: str = "fp32",
    compiled: bool = False,
) -> Encoder:
    """Encoder of one modality.

    clip_ckpt: a checkpoint file; "untrained" for seeded random weights of the sizes TOWERS[tower]; None for
    OpenAI's CLIP ViT-L/14, downloaded or from open_clip's cache (images only).
    precision: "fp32", or "bf16", "fp16" for products in that type (cosine to fp32 above 0.999, several times faster).
    compiled: by torch.compile, once for a batch's one shape; a GPU's memory traffic between products shrinks.
    Raises InputError for whatever cannot be had or does not fit.
    """
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}; known are image, event")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    where = pick_device(device)
    check_precision(precision, where, compiled)
    how = {"device": where, "precision": precision, "compiled": compiled}
    if clip_ckpt == UNTRAINED:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = TOWERS[tower].build()
        note = f"UNTRAINED {tower} tower (random weights, seed 0): for trying the pipeline, not for results"
        return Encoder(built, **how, note=note, trained=False)
    if clip_ckpt is None and modality == "event":
        raise InputError(
            f"event embeddings need the event checkpoint: get it from {EVENT_URL}, put it anywhere, for example"
            " checkpoints/event_clip.pt, and give --clip_ckpt checkpoints/event_clip.pt"
        )
    path = Path(clip_ckpt) if clip_ckpt is not None else _download_clip()
    built = build_tower(tower_weights(read_checkpoint(path), modality, str(path)), str(path))
    return Encoder(built, **how, note=f"weights of {path.name}", trained=True)


def _download_clip() -> Path:
    """OpenAI's ViT-L/14 from a cache, or downloaded into one. InputError says how to bring it by hand."""
    open_clip = import_open_clip()
    weights = open_clip.get_pretrained_cfg("ViT-L-14-quickgelu", "openai")
    # The hub's cache is looked into, the hub is not asked: without network it retries for most of a minute.
    cached = try_to_load_from_cache(weights["hf_hub"].rstrip("/"), "open_clip_model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(open_clip.download_pretrained(weights, prefer_hf_hub=False))  # OpenAI's own address, hash checked
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"CLIP ViT-L/14 is not on this machine and could not be downloaded ({error}): get {CLIP_URL},"
            " put it anywhere, for example checkpoints/ViT-L-14.pt, and give --clip_ckpt checkpoints/ViT-L-14.pt"
        ) from None
