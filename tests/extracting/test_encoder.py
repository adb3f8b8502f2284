"""CLIP towers: parity with the released numbers, every form of checkpoint, every refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracting import encoder as encoder_module
from extracting.encoder import Encoder, load_encoder
from extracting.towers import build_tower
from extracting.weights import fingerprint
from tests.extracting.helpers import golden_inputs, golden_weights
from vad.errors import InputError


@pytest.fixture(scope="module")
def weights(golden: Callable) -> dict[str, Tensor]:
    return golden_weights(golden("clip_vit_small"))


@pytest.mark.parametrize("name", ["clip_vit_small", "clip_vitl14"])
def test_towers_equal_the_release(golden: Callable, name: str) -> None:
    arrays = golden(name)
    tower = build_tower(golden_weights(arrays), name)
    encoder = Encoder(tower, device=torch.device("cpu"), precision="fp32", note=name, trained=True)
    images, counts = golden_inputs(arrays)
    bgr = np.ascontiguousarray(images[:, None, ..., ::-1])
    found = {
        # one frame a snippet, so that the mean over its frames is the frame's own embedding
        "image_embedding": encoder.images(torch.from_numpy(bgr)),
        "event_embedding": encoder.events(torch.from_numpy(counts), torch.full((2,), 10.0)),
    }
    for key, value in found.items():
        expected = arrays[key]
        assert np.abs(value.numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), key


def test_image_embedding_is_the_mean_over_frames_not_normalised(weights: dict[str, Tensor]) -> None:
    encoder = Encoder(
        build_tower(weights, "small"), device=torch.device("cpu"), precision="fp32", note="", trained=True
    )
    frames = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (2, 16, 224, 224, 3)).astype(np.uint8))
    single = encoder.images(frames.reshape(32, 1, 224, 224, 3)).view(2, 16, -1)
    together = encoder.images(frames)
    assert torch.allclose(together, single.mean(1), atol=1e-5)
    assert together.norm(dim=-1).min() > 1.5  # a unit vector would mean someone normalised


def test_bf16_stays_close(weights: dict[str, Tensor]) -> None:
    pair = [
        Encoder(build_tower(weights, "s"), device=torch.device("cpu"), precision=p, note="", trained=True)
        for p in ("fp32", "bf16")
    ]
    frames = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (2, 2, 224, 224, 3)).astype(np.uint8))
    exact, rough = (encoder.images(frames) for encoder in pair)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough).min() > 0.999
    assert not torch.equal(exact, rough)


class _Clip(nn.Module):
    """A CLIP as OpenAI ships it: its image tower below `visual`, something of a text tower beside it."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.visual = tower
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.visual(images) * self.logit_scale


def whole_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    text = {"text_projection": torch.zeros(2, 2), "transformer.resblocks.0.ln_1.weight": torch.ones(2)}
    return {**{f"visual.{name}": value for name, value in weights.items()}, **text}


def event_checkpoint(weights: dict[str, Tensor], prefix: str = "") -> dict[str, dict[str, Tensor]]:
    kept = {f"encoder_k.{prefix}{name}": value for name, value in weights.items()}
    return {"checkpoint": {**kept, "encoder_q.proj": torch.zeros(3), "queue": torch.zeros(4)}}


def test_every_form_of_checkpoint_gives_the_same_tower(weights: dict[str, Tensor], tmp_path: Path) -> None:
    forms = {
        "openai.pt": whole_clip(weights),
        "half.pt": {name: value.half() for name, value in whole_clip(weights).items()},
        "open_clip.pt": {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in whole_clip(weights).items()}},
        "tower.pt": weights,
    }
    expected = fingerprint(weights)
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
        loaded = load_encoder(str(tmp_path / name), "image", device="cpu")
        assert (loaded.embed_dim, loaded.trained) == (64, True)
        if name == "half.pt":
            half = {key: value.half().float() for key, value in weights.items()}
            assert loaded.hash == fingerprint(half)
        else:
            assert loaded.hash == expected, name
    for name, prefix in (("event.pt", ""), ("event_visual.pt", "visual.")):
        torch.save(event_checkpoint(weights, prefix), tmp_path / name)
        assert load_encoder(str(tmp_path / name), "event", device="cpu").hash == expected, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_archive_as_openai_ships_it(weights: dict[str, Tensor], tmp_path: Path) -> None:
    clip = _Clip(build_tower(weights, "small")).eval()
    archive = torch.jit.trace(clip, torch.zeros(1, 3, 224, 224), check_trace=False)
    path = tmp_path / "ViT-L-14.pt"
    torch.jit.save(archive, str(path))
    assert load_encoder(str(path), "image", device="cpu").hash == fingerprint(weights)


def test_safetensors(weights: dict[str, Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "open_clip_model.safetensors"
    save_file(whole_clip(weights), path)
    assert load_encoder(str(path), "image", device="cpu").hash == fingerprint(weights)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_encoder(str(path), "image", device="cpu")


def test_wrong_tensors_are_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    block = "transformer.resblocks.1.mlp.c_fc.weight"
    cases = [
        ({name: value for name, value in weights.items() if name != block}, f"tensor '{block}' is missing"),
        ({**weights, "surplus": torch.zeros(1)}, "tensor 'surplus' belongs to no CLIP image tower"),
        ({**weights, block: torch.zeros(7, 128)}, rf"tensor '{block}' has shape \(7, 128\), expected \(512, 128\)"),
        ({name: value for name, value in weights.items() if name != "conv1.weight"}, "'conv1.weight' is missing"),
        ({**weights, "positional_embedding": torch.zeros(145, 128)}, "'positional_embedding' has 145 positions"),
        ({"a": 1}, "holds no named tensors"),
        ([1, 2], "holds no named tensors"),
        ({**weights, "extra": "text"}, "'extra' is not a tensor"),
    ]
    path = tmp_path / "wrong.pt"
    for content, sentence in cases:
        torch.save(content, path)
        with pytest.raises(InputError, match=sentence) as refusal:
            load_encoder(str(path), "image", device="cpu")
        assert str(path) in str(refusal.value)


def test_a_checkpoint_of_the_other_modality_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(whole_clip(weights), tmp_path / "clip.pt")
    with pytest.raises(InputError, match=r"no 'encoder_k\.' tensors"):
        load_encoder(str(tmp_path / "clip.pt"), "event", device="cpu")
    torch.save(event_checkpoint(weights), tmp_path / "event.pt")
    with pytest.raises(InputError, match="is an event checkpoint"):
        load_encoder(str(tmp_path / "event.pt"), "image", device="cpu")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_encoder(str(tmp_path / "none.pt"), "image", device="cpu")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match="is not a checkpoint that loads safely"):
        load_encoder(str(tmp_path / "text.pt"), "image", device="cpu")
    torch.save({"conv1.weight": Path("a pickled object")}, tmp_path / "unsafe.pt")
    with pytest.raises(InputError, match="is not a checkpoint that loads safely"):
        load_encoder(str(tmp_path / "unsafe.pt"), "image", device="cpu")


def test_without_weights_and_network_a_sentence_says_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    open_clip = encoder_module.import_open_clip()
    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError, match=r"get https://openaipublic.*ViT-L-14\.pt.*--clip_ckpt"):
        load_encoder(None, "image", device="cpu")
    with pytest.raises(InputError, match="event checkpoint: get it from https://huggingface"):
        load_encoder(None, "event", device="cpu")


def test_cached_openai_weights_are_used(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cached.pt"
    torch.save(whole_clip(weights), path)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: str(path))
    assert load_encoder(None, "image", device="cpu").hash == fingerprint(weights)


def test_untrained_is_seeded_and_says_so() -> None:
    state = torch.random.get_rng_state()
    first, second = (load_encoder("untrained", m, tower="tiny", device="cpu") for m in ("image", "event"))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers move
    assert first.hash == second.hash
    assert (first.embed_dim, first.trained) == (64, False)
    assert "UNTRAINED" in first.note


@pytest.mark.parametrize("name", ["cuda:99", "tpu9"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
        load_encoder("untrained", "image", tower="tiny", device=name)
