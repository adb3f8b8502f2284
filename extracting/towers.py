"""The network of a CLIP image tower: one ViT with quick-GELU, its sizes read from the tensors (Appendix F.1)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from extracting.crops import CROP_SIZE
from vad.errors import InputError

HEAD_WIDTH = 64  # of every OpenAI CLIP

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

        return VisionTransformer(
            image_size=CROP_SIZE,
            patch_size=self.patch,
            width=self.width,
            layers=self.layers,
            heads=self.width // HEAD_WIDTH,
            mlp_ratio=4.0,
            output_dim=self.output_dim,
            act_layer=QuickGELU,
        )


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
