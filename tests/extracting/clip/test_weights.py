"""All supported checkpoint formats give the same tensors; other files are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from extracting.clip import weights as weights_module
from extracting.clip.tower import load_tower
from extracting.clip.weights import fingerprint, packaged_weights, read_checkpoint, tower_weights
from tests.extracting.clip.helpers import clip_checkpoint, event_checkpoint, golden_weights
from vad.files import InputError


@pytest.fixture(scope="module")
def weights(golden: Callable) -> dict[str, Tensor]:
    return golden_weights(golden("clip_vit_small"))


def read(path: Path, modality: str = "image") -> dict[str, Tensor]:
    return tower_weights(read_checkpoint(path), modality, str(path))


def test_all_checkpoint_formats_give_equal_tensors(weights: dict[str, Tensor], tmp_path: Path) -> None:
    clip = clip_checkpoint(weights)
    parallel = {f"module.{name}": value for name, value in clip.items()}
    formats = {
        ("openai.pt", "image"): clip,
        ("open_clip.pt", "image"): {"epoch": 3, "state_dict": parallel},
        ("timm.pt", "image"): {"model": weights, "optimizer": {}},
        ("tower.pt", "image"): weights,
        ("event.pt", "event"): event_checkpoint(weights),
        ("event_visual.pt", "event"): event_checkpoint(weights, "visual."),
    }
    for (name, modality), content in formats.items():
        torch.save(content, tmp_path / name)
        tensors = read(tmp_path / name, modality)
        assert tensors.keys() == weights.keys(), name
        assert all(torch.equal(tensors[key], weights[key]) for key in weights), name


def test_half_precision_files_become_float32(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "half.pt")
    tensors = read(tmp_path / "half.pt")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["proj"], weights["proj"].half().float())


class _Clip(nn.Module):
    """A CLIP in OpenAI's format: the image tower under `visual`, and a parameter outside it."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.visual = tower
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images) * self.logit_scale


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_openai_torchscript_archive_is_read(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    clip = _Clip(load_tower("vitl", weights).network).eval()
    archive = torch.jit.trace(clip, torch.zeros(1, 3, 224, 224), check_trace=False)
    torch.jit.save(archive, str(tmp_path / "ViT-L-14.pt"))
    assert fingerprint(read(tmp_path / "ViT-L-14.pt")) == fingerprint(weights)


def test_safetensors_file_is_read(weights: dict[str, Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "open_clip_model.safetensors"
    save_file(clip_checkpoint(weights), path)
    assert fingerprint(read(path)) == fingerprint(weights)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a safetensors file"):
        read(path)


def test_checkpoint_of_the_other_modality_is_refused(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(clip_checkpoint(weights), tmp_path / "clip.pt")
    with pytest.raises(InputError, match=r"no 'encoder_k\.' tensors.*download it from https://hugging"):
        read(tmp_path / "clip.pt", "event")
    torch.save(event_checkpoint(weights), tmp_path / "event.pt")
    with pytest.raises(InputError, match="this is an event checkpoint"):
        read(tmp_path / "event.pt", "image")


def test_files_that_are_not_checkpoints_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file does not exist"):
        read(tmp_path / "none.pt")
    path = tmp_path / "invalid.pt"
    path.write_text("hello")
    with pytest.raises(InputError, match="not a checkpoint that loads safely"):
        read(path)
    for content, sentence in [
        # a pickled object, which could run code
        ({"conv1.weight": Path("x")}, "not a checkpoint that loads safely"),
        ({"a": 1}, "contains no named tensors"),
        ([1, 2], "contains no named tensors"),
        ({**weights, "extra": "text"}, "'extra' is not a tensor"),
    ]:
        torch.save(content, path)
        with pytest.raises(InputError, match=sentence) as refusal:
            read(path)
        assert str(path) in str(refusal.value)


def test_fingerprint_depends_on_names_values_and_network() -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2)}
    expected = fingerprint(tensors)
    assert len(expected) == 16
    transposed = tensors["b"].t().contiguous().t()  # equal values, another memory layout
    assert fingerprint({"a": tensors["a"].half(), "b": transposed}) == expected
    others = [{**tensors, "a": torch.zeros(2)}, {"b": tensors["b"], "c": tensors["a"]}]
    assert len({expected, *map(fingerprint, others), fingerprint(tensors, "x")}) == 4


def test_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_tower"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('executed')")
    (package / "models" / "weights.pth").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(weights_module, "PACKAGES", {"timm:a": "some-tower", "timm:b": "no-such"})
    assert packaged_weights("timm:a") == package / "models" / "weights.pth"
    assert (packaged_weights("timm:b"), packaged_weights("timm:c")) == (None, None)
    assert "some_tower" not in sys.modules
