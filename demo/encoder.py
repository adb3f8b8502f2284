"""Write checkpoints of the demo's untrained encoders: `python -m demo.encoder`.

With random weights, all frames of one camera have nearly equal embeddings: the common part is ten times
larger than the differences. A network hardly learns from them. Mean and scale are therefore measured on
some videos and folded into the tower's last layers.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from extracting.audio.segments import cut
from extracting.audio.tracks import read_track
from extracting.audio.wav2clip import AudioEncoder, Wav2CLIP, save_weights, untrained
from extracting.clip.encoder import Encoder
from extracting.clip.tower import load_tower
from extracting.clip.weights import EVENT_PREFIX
from extracting.job.run import Output, run
from extracting.job.videos import find_videos
from extracting.video.config import MODALITIES, Config, Job
from vad.datasets import SNIPPET_FRAMES, Dataset, load_dataset
from vad.files import run_command, write_bytes

MAX_VIDEOS = 16  # for measuring mean and scale
CENTRE_CROP = Config(crops=(0,))


def checkpoint_path(dataset: Dataset, modality: str) -> Path:
    """Return the path of one modality's checkpoint."""
    return dataset.data_root / "weights" / f"untrained_{modality}.pt"


def make_checkpoints(dataset: Dataset) -> None:
    """Write a checkpoint of each modality, normalised on up to 16 evenly spaced videos."""
    jobs = find_videos(dataset.video_root)
    jobs = jobs[:: max(1, len(jobs) // MAX_VIDEOS)][:MAX_VIDEOS]
    for modality in MODALITIES:
        tower = load_tower(dataset.encoder)
        encoder = Encoder(tower, device=torch.device("cpu"), note="random weights, seed 0")
        fit_normalisation(tower.network, embed(jobs, modality, encoder))
        tensors = tower.network.state_dict()
        if modality == "event":  # in the format of the event checkpoint
            tensors = {"checkpoint": {f"{EVENT_PREFIX}{name}": value for name, value in tensors.items()}}
        content = io.BytesIO()
        torch.save(tensors, content)
        write_bytes(checkpoint_path(dataset, modality), content.getvalue())
    if dataset.sound:
        network = untrained(dataset.encoder)
        fit_sound(network, [job for job in jobs if job.path.with_suffix(".wav").is_file()], dataset)
        save_weights(checkpoint_path(dataset, "audio"), network)


@torch.no_grad()
def fit_sound(network: Wav2CLIP, jobs: Sequence[Job], dataset: Dataset) -> None:
    """Modify an audio network so that its embeddings of these videos get mean 0 and an average variance of 1."""
    encoder = AudioEncoder(
        network, dataset.encoder, device=torch.device("cpu"), norm="video", pass_size=None, note="random weights"
    )
    rows = []
    for job in jobs:
        track = read_track(job, dataset.fps)
        for _, part in encoder.embed(cut(job.path, track, len(track.seconds) // SNIPPET_FRAMES)):
            rows.append(part)
    embeddings = torch.from_numpy(np.concatenate(rows))
    scale, last = embeddings.std(0).square().mean().sqrt(), network.audio_transform["sequential"][-1]
    last.bias.copy_((last.bias - embeddings.mean(0)) / scale)
    last.weight /= scale


def embed(jobs: Sequence[Job], modality: str, encoder: Encoder) -> Tensor:
    """Return embeddings (n, D), float64, of the centre crops; videos that cannot be embedded are skipped."""
    with tempfile.TemporaryDirectory() as folder:
        output = Output.of(modality, Path(folder), encoder, CENTRE_CROP)
        todo = [replace(job, modalities=(modality,)) for job in jobs if not job.outcome]
        for _ in run(todo, {modality: output}, CENTRE_CROP):
            pass
        rows = [np.load(path, allow_pickle=False) for path in sorted(Path(folder).rglob("*.npy"))]
    return torch.from_numpy(np.concatenate(rows)).double()


@torch.no_grad()
def fit_normalisation(tower: nn.Module, embeddings: Tensor) -> None:
    """Modify a tower so that these embeddings (n, D) get mean 0 and an average variance of 1.

    The tower ends in `y = (w · x + b) P`. P / scale and b − mean · P⁺ turn y into `(y − mean) / scale`.
    """
    mean = embeddings.mean(0)
    scale = embeddings.std(0).square().mean().sqrt()  # shared, so that no dimension is amplified
    projection = tower.proj.double()
    tower.ln_post.bias -= (mean @ torch.linalg.pinv(projection)).float()
    tower.proj.copy_(projection / scale)


def main() -> None:
    """Write the missing checkpoints and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m demo.encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", metavar="NAME", default="demo", help="demo, or your own folder (default: demo)")
    parser.add_argument("--overwrite", action="store_true", help="make them again")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    modalities = (*MODALITIES, "audio") if dataset.sound else MODALITIES
    paths = {modality: checkpoint_path(dataset, modality) for modality in modalities}
    if flags.overwrite or not all(path.is_file() for path in paths.values()):
        make_checkpoints(dataset)
    for modality, path in paths.items():
        print(f"{modality} encoder → {path}")


if __name__ == "__main__":
    run_command(main)
