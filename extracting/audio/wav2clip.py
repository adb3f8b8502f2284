"""Wav2CLIP (Wu et al., ICASSP 2022): audio embeddings in the space of CLIP, and a small untrained network for tests."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extracting.clip.tower import import_open_clip, load_weights
from extracting.clip.weights import NOTE, UNTRAINED, fingerprint, read_checkpoint
from vad.files import InputError, write_bytes
from vad.runtime import pick_device

N_FFT, HOP = 512, 353  # samples at 16 kHz: 32 ms and 22 ms
BINS = N_FFT // 2 + 1
FLOOR = 1e-7  # added to the power before the logarithm
NORMS = ("video", "segment")
TOWERS = ("wav2clip", "tiny")
CPU_PASS, GPU_PASS = 8, 256  # segments per forward pass
WAV2CLIP_URL = "https://github.com/descriptinc/lyrebird-wav2clip/releases"


class TinyNetwork(nn.Module):
    """Two convolutions over time, which see all frequencies, and the mean over time."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, (BINS, 5), stride=(1, 2), padding=(0, 2))
        self.conv2 = nn.Conv2d(64, self.num_features, (1, 3), padding=(0, 1))

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(n, 1, 257, frames) → (n, 64)."""
        return self.conv2(self.conv1(spectrograms).relu()).relu().mean((2, 3))


class Wav2CLIP(nn.Module):
    """Spectrograms → embeddings. Tensors have the names of the published file.

    tower: "wav2clip" is ResNet-18 and 512 wide, as published; "tiny" is `TinyNetwork` and 64 wide.
    """

    def __init__(self, tower: str = "wav2clip") -> None:
        super().__init__()
        if tower == "tiny":
            self.audio_encoder = TinyNetwork()
        else:
            import_open_clip()  # before timm, see there
            import timm

            self.audio_encoder = timm.create_model("resnet18", in_chans=1, num_classes=0)
        self.audio_encoder.spectrogram = nn.Module()
        self.audio_encoder.spectrogram.register_buffer("window", torch.hann_window(N_FFT))
        width = self.embed_dim = self.audio_encoder.num_features
        layers = nn.Linear(width, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, width)
        self.audio_transform = nn.ModuleDict({"sequential": nn.Sequential(*layers)})

    def spectrogram(self, segment: Tensor) -> Tensor:
        """Return the logarithm of the power spectrogram (257, 1 + n // 353) of a segment (n,) at 16 kHz."""
        window = self.audio_encoder.spectrogram.window
        return (torch.stft(segment, N_FFT, HOP, window=window, return_complex=True).abs().square() + FLOOR).log()

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Return the embeddings (n, D) of normalised spectrograms (n, 257, frames)."""
        return self.audio_transform["sequential"](self.audio_encoder(spectrograms[:, None]))


class AudioEncoder:
    """Wav2CLIP on its device. `note` describes its weights.

    The bits of an embedding do not depend on the other segments of its pass, as in `clip.encoder.Encoder`:
    every pass has `pass_size` segments of equal length, padded with zeros.
    """

    def __init__(
        self, network: Wav2CLIP, tower: str, *, device: torch.device, norm: str, pass_size: int | None, note: str
    ) -> None:
        self.embed_dim, self.note, self.hash = network.embed_dim, note, fingerprint(network.state_dict())
        self._network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._tower, self._device, self._norm = tower, device, norm
        self._pass_size = pass_size or (CPU_PASS if device.type == "cpu" else GPU_PASS)

    def provenance(self) -> dict[str, Any]:
        """Return the settings besides the weights that affect an embedding, for the manifest."""
        settings = {"audio_norm": self._norm, "pass_size": self._pass_size, "device": self._device.type}
        return {"tower": self._tower, **settings}

    @torch.inference_mode()
    def embed(self, segments: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield the indices of the segments of each pass and their embeddings (n, D) float32.

        segments: of one video, each (n,) float32. The norm "video" takes one mean and deviation for all of them.
        """
        mean, std = self._statistics(range(len(segments)), segments) if self._norm == "video" else (None, None)
        by_length: dict[int, list[int]] = {}
        for k, segment in enumerate(segments):
            by_length.setdefault(len(segment) // HOP, []).append(k)  # spectrograms of equal width
        for group in by_length.values():
            for first in range(0, len(group), self._pass_size):
                part = group[first : first + self._pass_size]
                batch = []
                for k in part:
                    spectrogram = self._spectrogram(segments[k])
                    m, s = (mean, std) if mean is not None else self._statistics([k], segments)
                    batch.append((spectrogram - m) / s)
                padding = [torch.zeros_like(batch[0])] * (self._pass_size - len(part))
                yield part, self._network(torch.stack(batch + padding))[: len(part)].cpu().numpy()

    def _spectrogram(self, segment: np.ndarray) -> Tensor:
        return self._network.spectrogram(torch.from_numpy(segment).to(self._device))

    def _statistics(self, chosen: Sequence[int], segments: Sequence[np.ndarray]) -> tuple[float, float]:
        """Return mean and unbiased standard deviation (+ 1e-9) over all values of the spectrograms of some segments."""
        count, total, squares = 0, 0.0, 0.0
        for k in chosen:
            spectrogram = self._spectrogram(segments[k]).double()
            count += spectrogram.numel()
            total += spectrogram.sum().item()
            squares += spectrogram.square().sum().item()
        mean = total / count
        return mean, max(0.0, (squares - count * mean**2) / (count - 1)) ** 0.5 + 1e-9


def load_audio_encoder(
    checkpoint: str | None,
    *,
    tower: str = "wav2clip",
    device: str = "auto",
    norm: str = "video",
    pass_size: int | None = None,
) -> AudioEncoder:
    """Load an audio encoder.

    checkpoint: a file in the published layout, or "untrained" for random weights with seed 0.
    norm: "video" or "segment". pass_size: segments per forward pass; it affects the last bits of an embedding.
    Raises InputError if the weights are missing or do not fit, or for an invalid setting.
    """
    if pass_size is not None and pass_size < 1:
        raise InputError(f"--batch_size {pass_size} must be at least 1")
    target = pick_device(device)
    if target.type == "cuda":  # fp32 must not become TF32, which has a 10-bit mantissa
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if checkpoint is None:
        advice = f"Download Wav2CLIP.pt from {WAV2CLIP_URL} and give it as --wav2clip_ckpt"
        raise InputError(f"audio embeddings need weights. {advice}, or try --wav2clip_ckpt {UNTRAINED}.")
    network = untrained(tower)
    note = f"UNTRAINED {tower} tower (random weights, seed 0): for testing the pipeline, not for results"
    if checkpoint != UNTRAINED:
        path = Path(checkpoint)
        note = f"{NOTE}{path.name}"
        # counters of training steps, which nothing reads
        unread = {n: v for n, v in network.state_dict().items() if n.endswith("num_batches_tracked")}
        load_weights(network, unread | read_checkpoint(path, "--wav2clip_ckpt"), str(path), f"audio tower {tower!r}")
    return AudioEncoder(network, tower, device=target, norm=norm, pass_size=pass_size, note=note)


def untrained(tower: str, seed: int = 0) -> Wav2CLIP:
    """Return a network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Wav2CLIP(tower)


def save_weights(path: Path, network: Wav2CLIP) -> None:
    """Write the weights of a network in the published layout."""
    content = io.BytesIO()
    torch.save(network.state_dict(), content)
    write_bytes(path, content.getvalue())
