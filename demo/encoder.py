"""The demo's untrained encoders, as checkpoints: `python -m demo.encoder`.

Random weights embed all pictures of one camera nearly alike: the common part is ten times as large as the
differences, and a network learns next to nothing from that. So mean and scale are measured on some of the
demo's videos and folded into the tower's last layers.
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

from extracting.clip.encoder import Encoder
from extracting.clip.tower import load_tower
from extracting.clip.weights import EVENT_PREFIX
from extracting.config import MODALITIES, Config, Job
from extracting.job.run import Output, run
from extracting.job.videos import find_videos
from vad.datasets import load_dataset
from vad.files import run_command, write_bytes

DATASET = load_dataset("demo")
WEIGHTS = DATASET.data_root / "weights"
MOST = 16  # videos that are measured
CENTRE = Config(crops=(0,))


def checkpoint_path(modality: str, folder: Path = WEIGHTS) -> Path:
    """Where the checkpoint of one modality lies."""
    return folder / f"untrained_{modality}.pt"


def make_checkpoints(video_dir: Path, folder: Path = WEIGHTS) -> None:
    """Write a checkpoint of each modality, normalised on up to 16 of the videos, evenly chosen."""
    jobs = find_videos(video_dir)
    jobs = jobs[:: max(1, len(jobs) // MOST)][:MOST]
    for modality in MODALITIES:
        tower = load_tower(DATASET.encoder)
        encoder = Encoder(tower, device=torch.device("cpu"), note="random weights, seed 0")
        fit_normalisation(tower.network, embed(jobs, modality, encoder))
        tensors = tower.network.state_dict()
        if modality == "event":  # in the form of the event checkpoint
            tensors = {"checkpoint": {f"{EVENT_PREFIX}{name}": value for name, value in tensors.items()}}
        content = io.BytesIO()
        torch.save(tensors, content)
        write_bytes(checkpoint_path(modality, folder), content.getvalue())


def embed(jobs: Sequence[Job], modality: str, encoder: Encoder) -> Tensor:
    """Embeddings (n, D) float64 of the videos' centre crops; videos without embedding are left out."""
    with tempfile.TemporaryDirectory() as folder:
        output = Output.of(modality, Path(folder), encoder, CENTRE)
        todo = [replace(job, modalities=(modality,)) for job in jobs if not job.outcome]
        for _ in run(todo, {modality: output}, CENTRE):
            pass
        rows = [np.load(path, allow_pickle=False) for path in sorted(Path(folder).rglob("*.npy"))]
    return torch.from_numpy(np.concatenate(rows)).double()


@torch.no_grad()
def fit_normalisation(tower: nn.Module, embeddings: Tensor) -> None:
    """Change a tower so that these embeddings (n, D) of it get mean 0 and, over all dimensions, variance 1.

    The tower ends in `y = (w · x + b) P`, so P / scale and b − mean · P⁺ give `(y − mean) / scale`.
    """
    mean = embeddings.mean(0)
    scale = embeddings.std(0).square().mean().sqrt()  # one for all dimensions: none is blown up
    projection = tower.proj.double()
    tower.ln_post.bias -= (mean @ torch.linalg.pinv(projection)).float()
    tower.proj.copy_(projection / scale)


def main() -> None:
    """Make the checkpoints where they are missing."""
    parser = argparse.ArgumentParser(prog="python -m demo.encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--overwrite", action="store_true", help="make them again")
    overwrite = parser.parse_args().overwrite
    if overwrite or not all(checkpoint_path(modality).is_file() for modality in MODALITIES):
        make_checkpoints(DATASET.video_root)
    for modality in MODALITIES:
        print(f"{modality} encoder → {checkpoint_path(modality)}")


if __name__ == "__main__":
    run_command(main)
