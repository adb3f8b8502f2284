"""Image towers by name: CLIP's ViT (Appendix F.1), and those of open_clip and timm."""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from extracting.clip.weights import fingerprint
from extracting.video.crops import CROP_SIZE
from vad.files import InputError

Norm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of R, G, B in [0, 1]
CLIP_NORM: Norm = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HEAD_WIDTH = 64  # of every OpenAI CLIP
_schemas: torch.library.Library | None = None  # the definitions live as long as this object


@dataclass(frozen=True)
class Tower:
    """An image network on the CPU, and the pixels it wants."""

    network: nn.Module  # (n, 3, 224, 224) float32 → (n, D)
    embed_dim: int  # D
    norm: Norm
    cpu_pass: int  # images per forward at which a CPU is fastest
    hash: str  # of its weights


def import_open_clip() -> ModuleType:
    """Import open_clip, also where torchvision's wheel does not fit torch's.

    The PyPI wheel of torchvision is a CUDA build. Beside a CPU-only torch its compiled operators
    do not load, and importing it ends in "operator torchvision::nms does not exist", because it
    describes operators that nobody has defined. Defining their signatures is enough to import it;
    we call none of them. Where torchvision imports by itself nothing is touched. timm imports
    torchvision too: import it after this.
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


def _vit(width: int, layers: int, patch: int, embed_dim: int) -> dict[str, Any]:
    """A CLIP ViT as OpenAI built them, in the form of open_clip's model configs."""
    vision = {"width": width, "layers": layers, "patch_size": patch, "image_size": CROP_SIZE}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "quick_gelu": True}


VITS = {
    "vitl": _vit(1024, 24, 14, 768),  # ViT-L/14, the paper's
    "tiny": _vit(128, 3, 32, 64),  # untrained, for the synthetic data set
}


def check_tower(name: str) -> None:
    """Raise InputError, with the closest names, where there is no tower of this name."""
    if name in VITS:
        return
    known = [*VITS, *(f"open_clip:{model}" for model in import_open_clip().list_models())]
    import timm

    known += [f"timm:{model}" for model in timm.list_models() + timm.list_pretrained()]
    if name not in known:
        close = difflib.get_close_matches(name, known) or ["vitl", "open_clip:NAME", "timm:NAME"]
        raise InputError(f"unknown tower {name!r}; close are {', '.join(close)}")


def load_tower(name: str, tensors: Mapping[str, Tensor] | None = None, source: str = "") -> Tower:
    """Tower with these weights, or with random ones (seed 0) where there are none.

    name: one that `check_tower` lets pass. The weights of "vitl" and "tiny" may be those of a
    CLIP ViT of any size. source: name of the weights' file in refusals.
    Raises InputError for a missing, extra or misshapen tensor, and for a network that does not
    take images of 224x224 pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, norm, tensors = _build(name, tensors, source)
    if tensors is not None:
        _load(network, tensors, source, name)
    network.eval().requires_grad_(False)
    try:
        embed_dim = network(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE)).shape[1]
    except (AssertionError, RuntimeError) as error:
        reason = f"takes no images of {CROP_SIZE}x{CROP_SIZE} pixels, the size of crops ({error})"
        raise InputError(f"tower {name!r} {reason}") from None
    if name in VITS:
        cpu_pass = 16 if network.transformer.width < 512 else 1
        return Tower(network, embed_dim, norm, cpu_pass, fingerprint(network.state_dict()))
    # tensors do not tell GELU from quick-GELU, so the name counts too
    weights = fingerprint(network.state_dict(), name)
    return Tower(fold_batch_norm(network), embed_dim, norm, 4, weights)


def _build(
    name: str, tensors: Mapping[str, Tensor] | None, source: str
) -> tuple[nn.Module, Norm, Mapping[str, Tensor] | None]:
    """Network with random weights, its normalisation, and the tensors under the network's names."""
    open_clip = import_open_clip()
    library, _, model = name.partition(":")
    if library == "timm":
        return _timm_network(model, tensors, source)
    if library == "open_clip":
        return _network(open_clip.get_model_config(model)), _published_norm(model), tensors
    if tensors is None:
        return _network(VITS[name]), CLIP_NORM, None
    with torch.device("meta"):  # no memory for weights that are replaced at once
        return _network(_read_config(tensors, source)), CLIP_NORM, tensors


def _network(config: Mapping[str, Any]) -> nn.Module:
    """Image tower of an open_clip model config, with random weights."""
    from open_clip.model import _build_vision_tower

    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def _published_norm(model: str) -> Norm:
    """Mean and deviation that all published weights of an open_clip model share, else CLIP's."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(model)
    published = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    norms = {(tuple(weights["mean"]), tuple(weights["std"])) for weights in published}
    return norms.pop() if len(norms) == 1 else CLIP_NORM


def _timm_network(
    model: str, tensors: Mapping[str, Tensor] | None, source: str
) -> tuple[nn.Module, Norm, Mapping[str, Tensor] | None]:
    """As `_build`, of a timm model without its classifier.

    Tensors of which no name is timm's are taken in timm's order. Shapes are not checked here.
    """
    import timm

    network = timm.create_model(model)
    norm = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    whole = list(network.state_dict())
    network.reset_classifier(0)
    names = list(network.state_dict())
    if tensors is None:
        return network, norm, None
    if tensors.keys().isdisjoint(names):
        in_order = names if len(tensors) == len(names) else whole
        if len(tensors) != len(in_order):
            raise InputError(
                f"{source}: holds {len(tensors)} tensors and none of timm's names; {model} has"
                f" {len(whole)}, or {len(names)} without its classifier"
            )
        tensors = dict(zip(in_order, tensors.values(), strict=True))
    classifier = {*whole} - {*names}
    return network, norm, {n: value for n, value in tensors.items() if n not in classifier}


def _read_config(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Config of the CLIP ViT these tensors belong to; InputError names one that fits none."""
    for name, axes in {"conv1.weight": 4, "positional_embedding": 2, "proj": 2}.items():
        if name not in tensors or tensors[name].ndim != axes:
            reason = f"is missing or has not {axes} axes; a CLIP image tower is needed"
            raise InputError(f"{source}: tensor '{name}' {reason}")
    width, _, patch, _ = tensors["conv1.weight"].shape
    blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
    if width % HEAD_WIDTH or not blocks:
        reason = f"is {width} wide with {len(blocks)} blocks; no CLIP image tower has that"
        raise InputError(f"{source}: 'conv1.weight' {reason}")
    positions, tokens = len(tensors["positional_embedding"]), (CROP_SIZE // patch) ** 2 + 1
    if positions != tokens:
        raise InputError(
            f"{source}: 'positional_embedding' has {positions} positions; {CROP_SIZE}x{CROP_SIZE}"
            f" crops in patches of {patch} make {tokens} (the weights of a {CROP_SIZE}-pixel CLIP"
            " are needed)"
        )
    return _vit(width, len(blocks), patch, tensors["proj"].shape[1])


def _load(network: nn.Module, tensors: Mapping[str, Tensor], source: str, tower: str) -> None:
    """Give a network these weights, matched name by name."""
    weights = {}
    for name, value in network.state_dict().items():
        if name not in tensors:
            raise InputError(f"{source}: tensor '{name}' is missing")
        shape, expected = tuple(tensors[name].shape), tuple(value.shape)
        if shape != expected:
            raise InputError(f"{source}: tensor '{name}' has shape {shape}, expected {expected}")
        weights[name] = tensors[name].to(value.dtype)
    extra = sorted(tensors.keys() - weights.keys())
    if extra:
        owner = "CLIP image tower" if tower in VITS else f"tower {tower!r}"
        raise InputError(f"{source}: tensor '{extra[0]}' belongs to no {owner} ({len(extra)} such)")
    network.load_state_dict(weights, assign=True)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy in which each BatchNorm behind a convolution is part of it: less memory is moved.

    Returns the network itself where it has none, or where the copy's outputs of a random batch
    differ by more than 1e-5 of the largest: the norm cannot be folded, or rounding grows too much.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id, unique while the tensor is kept
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    names = {module: name for name, module in folded.named_modules()}
    noted = [module for module in names if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [module.register_forward_hook(note) for module in noted]
    batch = torch.randn(2, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
    expected = folded(batch)
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))  # timm's has one
    is_same = (folded(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()
    return folded if is_same else network
