"""Build image towers by name: CLIP's ViT (Appendix F.1), and towers of open_clip and timm."""

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

Norm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of R, G, B in [0, 1]
CLIP_NORM: Norm = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HEAD_WIDTH = 64  # attention head width of every OpenAI CLIP
_schemas: torch.library.Library | None = None  # keeps the operator definitions alive


@dataclass(frozen=True)
class Tower:
    """An image network on the CPU, with its input normalisation."""

    network: nn.Module  # (n, 3, 224, 224) float32 → (n, D)
    embed_dim: int  # D
    norm: Norm
    cpu_pass: int  # fastest number of images per forward pass on a CPU
    hash: str  # fingerprint of the weights


def import_open_clip() -> ModuleType:
    """Import open_clip, even if the torchvision wheel does not match torch.

    The PyPI wheel of torchvision is a CUDA build. With a CPU-only torch its compiled operators do
    not load, and the import fails with "operator torchvision::nms does not exist". Defining the
    operator signatures is enough to import it; we call none of them. A torchvision that imports
    without this is not changed. timm imports torchvision too, so import timm after this call.
    """
    global _schemas
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # partially imported
        _schemas = torch.library.Library("torchvision", "DEF")
        _schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import open_clip

    return open_clip


def _vit(width: int, layers: int, patch: int, embed_dim: int) -> dict[str, Any]:
    """Return the open_clip model config of an OpenAI CLIP ViT."""
    vision = {"width": width, "layers": layers, "patch_size": patch, "image_size": CROP_SIZE}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "quick_gelu": True}


VITS = {
    "vitl": _vit(1024, 24, 14, 768),  # ViT-L/14, as in the paper
    "tiny": _vit(128, 3, 32, 64),  # untrained, for the synthetic data set
}


def check_tower(name: str) -> None:
    """Raise InputError with the closest names if no tower has this name."""
    if name in VITS:
        return
    known = [*VITS, *(f"open_clip:{model}" for model in import_open_clip().list_models())]
    import timm

    known += [f"timm:{model}" for model in timm.list_models() + timm.list_pretrained()]
    if name not in known:
        close = difflib.get_close_matches(name, known) or ["vitl", "open_clip:NAME", "timm:NAME"]
        raise InputError(f"unknown tower {name!r}; the closest names are {', '.join(close)}")


def load_tower(name: str, tensors: Mapping[str, Tensor] | None = None, source: str = "") -> Tower:
    """Return a tower with these weights, or with random weights (seed 0) if `tensors` is None.

    name: a name that `check_tower` accepts. "vitl" and "tiny" accept weights of a CLIP ViT of any
    size. source: name of the weights file for error messages.
    Raises InputError for a missing, extra or misshapen tensor, and for a network that does not
    accept images of 224x224 pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, norm, tensors = _build(name, tensors, source)
    if tensors is not None:
        target = "a CLIP image tower" if name in VITS else f"tower {name!r}"
        load_weights(network, tensors, source, target)
    network.eval().requires_grad_(False)
    try:
        embed_dim = network(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE)).shape[1]
    except (AssertionError, RuntimeError) as error:
        size = f"{CROP_SIZE}x{CROP_SIZE} pixels"
        raise InputError(f"tower {name!r} does not accept crops of {size} ({error})") from None
    if name in VITS:
        cpu_pass = 16 if network.transformer.width < 512 else 1
        return Tower(network, embed_dim, norm, cpu_pass, fingerprint(network.state_dict()))
    # GELU and quick-GELU networks have equal tensors, so the name is hashed too
    weights = fingerprint(network.state_dict(), name)
    return Tower(fold_batch_norm(network), embed_dim, norm, 4, weights)


def _build(
    name: str, tensors: Mapping[str, Tensor] | None, source: str
) -> tuple[nn.Module, Norm, Mapping[str, Tensor] | None]:
    """Return a network with random weights, its normalisation, and the tensors under its names."""
    open_clip = import_open_clip()
    library, _, model = name.partition(":")
    if library == "timm":
        return _timm_network(model, tensors, source)
    if library == "open_clip":
        return _network(open_clip.get_model_config(model)), _published_norm(model), tensors
    if tensors is None:
        return _network(VITS[name]), CLIP_NORM, None
    with torch.device("meta"):  # allocate no memory: the weights are replaced
        return _network(_read_config(tensors, source)), CLIP_NORM, tensors


def _network(config: Mapping[str, Any]) -> nn.Module:
    """Build the image tower of an open_clip model config with random weights."""
    from open_clip.model import _build_vision_tower

    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def _published_norm(model: str) -> Norm:
    """Return the normalisation shared by all published weights of a model, or else CLIP's."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(model)
    published = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    norms = {(tuple(weights["mean"]), tuple(weights["std"])) for weights in published}
    return norms.pop() if len(norms) == 1 else CLIP_NORM


def _timm_network(
    model: str, tensors: Mapping[str, Tensor] | None, source: str
) -> tuple[nn.Module, Norm, Mapping[str, Tensor] | None]:
    """Return the same as `_build` for a timm model without its classifier.

    If no tensor has a timm name, the tensors are matched by order. Shapes are not checked here.
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
                f"{source}: contains {len(tensors)} tensors without timm's names, but {model} has"
                f" {len(whole)}, or {len(names)} without its classifier"
            )
        tensors = dict(zip(in_order, tensors.values(), strict=True))
    classifier = {*whole} - {*names}
    return network, norm, {n: value for n, value in tensors.items() if n not in classifier}


def _read_config(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Infer the config of a CLIP ViT from its tensors. Raises InputError if they do not fit one."""
    for name, axes in {"conv1.weight": 4, "positional_embedding": 2, "proj": 2}.items():
        if name not in tensors or tensors[name].ndim != axes:
            reason = f"is missing or does not have {axes} axes. Give the weights of a CLIP image tower."
            raise InputError(f"{source}: tensor '{name}' {reason}")
    width, _, patch, _ = tensors["conv1.weight"].shape
    blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
    if width % HEAD_WIDTH or not blocks:
        size = f"width {width} and {len(blocks)} blocks"
        raise InputError(f"{source}: a tower of {size} is not a CLIP image tower")
    positions, tokens = len(tensors["positional_embedding"]), (CROP_SIZE // patch) ** 2 + 1
    if positions != tokens:
        raise InputError(
            f"{source}: 'positional_embedding' has {positions} positions, but {CROP_SIZE}x{CROP_SIZE}"
            f" crops with patch size {patch} need {tokens}. Give the weights of a {CROP_SIZE}-pixel CLIP."
        )
    return _vit(width, len(blocks), patch, tensors["proj"].shape[1])


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], source: str, target: str) -> None:
    """Load weights into a network, matched by name. source: of the weights, target: what takes them, for errors.

    Raises InputError for a missing, extra or misshapen tensor.
    """
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
        raise InputError(f"{source}: tensor '{extra[0]}' is not part of {target} ({len(extra)} extra)")
    network.load_state_dict(weights, assign=True)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy with each BatchNorm folded into the preceding convolution, which is faster.

    Returns the network itself if it has no BatchNorm. It also does so if folding changes the output
    for a random batch by more than 1e-5 of its largest value.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id, unique while the tensor exists
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    names = {module: name for name, module in folded.named_modules()}
    recorded = [module for module in names if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [module.register_forward_hook(record) for module in recorded]
    batch = torch.randn(2, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
    expected = folded(batch)
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))  # timm norms include the activation
    is_same = (folded(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()
    return folded if is_same else network
