"""Wav2CLIP: parity with the published network, independence of batching, weights that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from extracting.audio.wav2clip import NORMS, TOWERS, AudioEncoder, Wav2CLIP, load_audio_encoder, save_weights, untrained
from vad.files import InputError


@pytest.fixture(scope="module")
def parity(golden, tmp_path_factory) -> tuple[np.lib.npyio.NpzFile, Path]:
    """Return the arrays of the published network, and a file with its weights as tests/golden/README.md makes them."""
    arrays = golden("avadclip/wav2clip")
    random = np.random.RandomState(json.loads(str(arrays["config"]))["weight_seed"])
    tensors = {}
    for name, shape in sorted(json.loads(str(arrays["shapes"])).items()):
        if name == "audio_encoder.spectrogram.window":
            continue
        x = random.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            x *= np.float32(1 / np.sqrt(np.prod(shape[1:])))
        else:
            x = 1 + 0.1 * x if name.endswith((".weight", "running_var")) else 0.1 * x
        tensors[name] = torch.from_numpy(x.astype(np.float32))
    tensors["audio_encoder.spectrogram.window"] = torch.hann_window(512)
    path = tmp_path_factory.mktemp("weights") / "Wav2CLIP.pt"
    torch.save(tensors, path)
    return arrays, path


def embed(encoder: AudioEncoder, segments: list[np.ndarray]) -> np.ndarray:
    """Return the embeddings (S, D) of the segments, in their order."""
    rows = {k: row for part, block in encoder.embed(segments) for k, row in zip(part, block, strict=True)}
    return np.stack([rows[k] for k in range(len(segments))])


def assert_close(values: np.ndarray, expected: np.ndarray) -> None:
    """Assert agreement to 1e-4 of the largest value."""
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= 1e-4 * np.abs(expected).max()


def test_embeddings_equal_the_published_network(parity) -> None:
    arrays, path = parity
    wave, hop = arrays["wave"], json.loads(str(arrays["config"]))["hop"]
    segments = [wave[start : start + hop] for start in range(0, len(wave) - hop + 1, hop)]
    by_video, by_segment = (load_audio_encoder(str(path), device="cpu", norm=norm) for norm in NORMS)
    assert_close(embed(by_video, segments), arrays["segments_together"])
    assert_close(embed(by_segment, segments), arrays["segments_alone"])
    assert_close(embed(by_video, [wave]), arrays["whole"])


def test_spectrogram_equals_the_published_one(parity) -> None:
    arrays, _ = parity
    first = torch.from_numpy(arrays["wave"][:10667])
    assert_close(Wav2CLIP("tiny").spectrogram(first).exp().numpy(), arrays["spectrogram"] + 1e-7)


def test_mean_and_deviation_cover_the_whole_video() -> None:
    rng = np.random.default_rng(0)
    segments = [rng.standard_normal(n).astype(np.float32) for n in (9000, 12_000, 700)]
    network = untrained("tiny").eval()
    spectrograms = [network.spectrogram(torch.from_numpy(s)) for s in segments]
    values = torch.cat([s.flatten() for s in spectrograms])
    normalised = [(s - values.mean()) / (values.std() + 1e-9) for s in spectrograms]
    with torch.no_grad():
        expected = np.concatenate([network(s[None]).numpy() for s in normalised])
    assert_close(embed(load_audio_encoder("untrained", tower="tiny", device="cpu"), segments), expected)


@pytest.mark.parametrize("tower", TOWERS)
def test_bits_do_not_depend_on_batching_and_threads(tower: str) -> None:
    rng = np.random.default_rng(1)
    segments = [rng.standard_normal(n).astype(np.float32) for n in [10_666, 10_667, 12_000, 9_000, 10_667] * 2]
    encoder = load_audio_encoder("untrained", tower=tower, device="cpu", norm="segment", pass_size=4)
    together = embed(encoder, segments)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        alone = np.concatenate([embed(encoder, [segment]) for segment in segments[::-1]])[::-1]
    finally:
        torch.set_num_threads(threads)
    assert together.shape == (10, 64 if tower == "tiny" else 512)
    assert np.array_equal(together, alone)


def test_saved_weights_give_the_same_embeddings(tmp_path: Path) -> None:
    segment = np.random.default_rng(2).standard_normal(9000).astype(np.float32)
    save_weights(tmp_path / "w.pt", untrained("tiny", seed=3))
    encoder = load_audio_encoder(str(tmp_path / "w.pt"), tower="tiny", device="cpu")
    other = load_audio_encoder("untrained", tower="tiny", device="cpu")
    settings = {"device": torch.device("cpu"), "norm": "video", "pass_size": 8, "note": ""}
    expected = embed(AudioEncoder(untrained("tiny", seed=3), "tiny", **settings), [segment])
    assert np.array_equal(embed(encoder, [segment]), expected) and encoder.hash != other.hash
    assert encoder.note == "weights of w.pt" and other.note.startswith("UNTRAINED")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"visual.proj": torch.zeros(3)}, "is missing"),
        ({**untrained("tiny").state_dict(), "more": torch.zeros(1)}, "'more' is not part of audio tower 'tiny'"),
        ({**untrained("tiny").state_dict(), "audio_encoder.conv1.bias": torch.zeros(1)}, r"shape \(1,\), expected"),
        ([1, 2], "contains no named tensors"),
    ],
)
def test_other_weights_are_refused(tensors: object, message: str, tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(InputError, match=message):
        load_audio_encoder(str(tmp_path / "w.pt"), tower="tiny", device="cpu")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give it as --wav2clip_ckpt"):
        load_audio_encoder(None)
    with pytest.raises(InputError, match=r"--wav2clip_ckpt .*none.pt: the file does not exist"):
        load_audio_encoder(str(tmp_path / "none.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match=r"--wav2clip_ckpt .*not a checkpoint that loads safely"):
        load_audio_encoder(str(tmp_path / "text.pt"))
