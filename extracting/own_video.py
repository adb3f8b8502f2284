"""Embeddings of single videos, outside any data set: for scoring one's own video with a trained model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from extracting.encoder import Encoder
from extracting.pipeline import Settings, embed_video
from vad.errors import InputError

MIRRORED_CENTRE = 5  # the crop that the evaluation uses


def embed_own_videos(
    videos: Sequence[Path], encoders: Mapping[str, Encoder], folder: Path, settings: Settings | None = None
) -> list[dict[str, Path]]:
    """Crop 5 of each video under each modality's encoder, as files below `folder`; what is there is reused.

    Returns modality → path of the (S, D) array for each video. Raises InputError for two videos of one name, and
    for a video that does not open or is shorter than a snippet, before any other is embedded where that shows.
    """
    names = [video.stem for video in videos]
    for video in videos:
        if not video.is_file():
            raise InputError(f"{video}: there is no such video")
        if names.count(video.stem) > 1:
            raise InputError(f"{video}: two videos are called {video.stem}; rename one")
    found = []
    for video in tqdm(videos, desc="embedding", unit="video"):
        paths = {}
        for modality, encoder in encoders.items():
            path = folder / f"{modality}_{encoder.hash[:12]}" / f"{video.stem}__{MIRRORED_CENTRE}.npy"
            if not path.is_file() or path.stat().st_mtime < video.stat().st_mtime:
                rows = embed_video(video, modality, encoder, settings, (MIRRORED_CENTRE,))[MIRRORED_CENTRE]
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(f".{os.getpid()}.part")
                with part.open("wb") as stream:
                    np.save(stream, rows)
                os.replace(part, path)
            paths[modality] = path
        found.append(paths)
    return found
