"""CLIP image tower and event tower: one ViT with quick-GELU, its shape read from the tensors (Appendix F.1)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from extracting.crops import CROP_SIZE
from extracting.weights import (
    CLIP_URL,
    EVENT_URL,
    UNTRAINED,
    fingerprint,
    read_checkpoint,
    tower_weights,
)
from vad.errors import InputError

MODALITIES = ("image", "event")
PRECISIONS = ("fp32", "bf16")
HEAD_WIDTH = 64  # of every OpenAI CLIP
# CLIP's own normalisation, R, G, B
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_schemas: torch.library.Library | None = None  # the definitions live as long as this object


def import_open_clip() -> ModuleType:
    """Import open_clip, also where torchvision's wheel does not fit torch's.

    The PyPI wheel of torchvision is a CUDA build. Beside a CPU-only torch its compiled operators do not load, and
    importing it ends in "operator torchvision::nms does not exist", because it describes operators that nobody has
    defined. Defining their signatures is enough to import it; we call none of them. Where torchvision imports
    by itself nothing is touched.
    """
    global _schemas
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        _schemas = torch.library.Library("torchvision", "DEF")
        _schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import open_clip

    return open_clip


@dataclass(frozen=True)
class TowerShape:
    """Sizes of a CLIP image tower."""

    width: int
    layers: int
    patch: int
    output_dim: int  # D

    def build(self) -> nn.Module:
        """The tower with open_clip's random initial weights."""
        import_open_clip()
        from open_clip.transformer import QuickGELU, VisionTransformer

        tower = VisionTransformer(
            image_size=CROP_SIZE,
            patch_size=self.patch,
            width=self.width,
            layers=self.layers,
            heads=self.width // HEAD_WIDTH,
            mlp_ratio=4.0,
            output_dim=self.output_dim,
            act_layer=QuickGELU,
        )
        # (steps, batch, width) inside: batch first, attention hands its projection a transposed view, which costs a
        # bfloat16 forward on a CPU six times its arithmetic in copies
        tower.transformer.batch_first = False
        for block in tower.transformer.resblocks:
            block.attn.batch_first = False
        return tower


TOWERS: Mapping[str, TowerShape] = {
    "vitl": TowerShape(width=1024, layers=24, patch=14, output_dim=768),  # ViT-L/14, the paper's
    "tiny": TowerShape(width=128, layers=3, patch=32, output_dim=64),  # untrained, for the drawn data set
}


def shape_of(tensors: Mapping[str, Tensor], source: str) -> TowerShape:
    """Sizes of the tower these tensors belong to. InputError names the tensor that does not fit any."""
    dimensions = {"conv1.weight": 4, "positional_embedding": 2, "proj": 2}
    for name, number in dimensions.items():
        if name not in tensors:
            raise InputError(f"{source}: tensor '{name}' is missing; a CLIP image tower is needed")
        if tensors[name].ndim != number:
            raise InputError(f"{source}: tensor '{name}' has shape {tuple(tensors[name].shape)}, not {number} axes")
    width, _, patch, _ = tensors["conv1.weight"].shape
    blocks = [name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")]
    layers = 1 + max((int(block) for block in blocks if block.isdecimal()), default=-1)
    if width % HEAD_WIDTH or not layers:
        raise InputError(f"{source}: 'conv1.weight' is {width} wide with {layers} blocks; no CLIP image tower has that")
    tokens = (CROP_SIZE // patch) ** 2 + 1
    found = tensors["positional_embedding"].shape[0]
    if found != tokens:
        raise InputError(
            f"{source}: 'positional_embedding' has {found} positions; {CROP_SIZE}×{CROP_SIZE} crops in patches of"
            f" {patch} make {tokens} (the weights of a {CROP_SIZE}-pixel CLIP are needed)"
        )
    return TowerShape(width=width, layers=layers, patch=patch, output_dim=tensors["proj"].shape[1])


def build_tower(tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Tower with these weights, matched name by name. InputError names a missing, extra or misshapen tensor."""
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        tower = shape_of(tensors, source).build()
    expected = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
    for name, shape in expected.items():
        if name not in tensors:
            raise InputError(f"{source}: tensor '{name}' is missing")
        if tuple(tensors[name].shape) != shape:
            raise InputError(f"{source}: tensor '{name}' has shape {tuple(tensors[name].shape)}, expected {shape}")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise InputError(f"{source}: tensor '{extra[0]}' belongs to no CLIP image tower ({len(extra)} such)")
    tower.load_state_dict(dict(tensors), assign=True)
    return tower


class Encoder:
    """A tower on its device: pixels of crops in, embeddings out. `note` says in words what its weights are."""

    def __init__(self, tower: nn.Module, *, device: torch.device, precision: str, note: str, trained: bool) -> None:
        self.hash = fingerprint(tower.state_dict())
        self.tower = tower.to(device).eval().requires_grad_(False)
        self.device = device
        self.precision = precision
        self.note = note
        self.trained = trained
        self.embed_dim: int = tower.output_dim
        self._room: Tensor | None = None

    def _forward(self, pixels: Tensor) -> Tensor:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), autocast:
            return self.tower(pixels).float()

    def images(self, frames: Tensor) -> Tensor:
        """Embeddings of crops, one per snippet: the mean over its frames, not normalised.

        frames: (n, 16, 224, 224, 3) uint8 BGR. Returns (n, D) float32 on the encoder's device.
        """
        n, per_snippet = frames.shape[:2]
        flat = frames.flatten(0, 1).to(self.device, non_blocking=True)  # (16 n, 224, 224, 3)
        pixels = self._pixels(len(flat))  # (16 n, 3, 224, 224) RGB
        for channel, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True)):
            plane = pixels[:, channel]
            plane.copy_(flat[..., 2 - channel])
            # divide, subtract, divide: bit-identical to the frame-by-frame path; one fused step is not
            plane.div_(255).sub_(mean).div_(std)
        return self._forward(pixels).view(n, per_snippet, -1).mean(1)

    def _pixels(self, n: int) -> Tensor:
        """Room for n images, kept between batches: a fresh array of this size costs more than filling it."""
        if self._room is None or len(self._room) < n:
            self._room = torch.empty((n, 3, CROP_SIZE, CROP_SIZE), device=self.device)
        return self._room[:n]

    def events(self, counts: Tensor, divisors: Tensor) -> Tensor:
        """Embeddings of event maps: scaled to [0, 1], three equal channels, no CLIP normalisation.

        counts: (n, 224, 224) uint8; divisors: (n,) float32. Returns (n, D) float32 on the encoder's device.
        """
        maps = counts.to(self.device, non_blocking=True).float()
        maps /= divisors.to(self.device, non_blocking=True).view(-1, 1, 1)
        return self._forward(maps.unsqueeze(1).expand(-1, 3, -1, -1))


def pick_device(name: str) -> torch.device:
    """Device of a --device value; "auto" is the GPU if there is one. InputError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: unknown; write auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here; write --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")
    return device


def load_encoder(
    clip_ckpt: str | None, modality: str, *, tower: str = "vitl", device: str = "auto", precision: str = "fp32"
) -> Encoder:
    """Encoder of one modality.

    clip_ckpt: a checkpoint file; "untrained" for seeded random weights of the sizes TOWERS[tower]; None for
    OpenAI's CLIP ViT-L/14, downloaded or from open_clip's cache (images only).
    precision: "fp32", or "bf16" for bfloat16 products (cosine to fp32 above 0.999, several times faster).
    Raises InputError for whatever cannot be had or does not fit.
    """
    if modality not in MODALITIES:
        raise InputError(f"unknown modality {modality!r}; known are image, event")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    where = pick_device(device)
    if clip_ckpt == UNTRAINED:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = TOWERS[tower].build()
        note = f"UNTRAINED {tower} tower (random weights, seed 0): for trying the pipeline, not for results"
        return Encoder(built, device=where, precision=precision, note=note, trained=False)
    if clip_ckpt is None and modality == "event":
        raise InputError(
            f"event embeddings need the event checkpoint: get it from {EVENT_URL}, put it anywhere, for example"
            " checkpoints/event_clip.pt, and give --clip_ckpt checkpoints/event_clip.pt"
        )
    path = Path(clip_ckpt) if clip_ckpt is not None else _download_clip()
    built = build_tower(tower_weights(read_checkpoint(path), modality, str(path)), str(path))
    return Encoder(built, device=where, precision=precision, note=f"weights of {path.name}", trained=True)


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
