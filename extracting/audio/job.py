"""Embed the sound of the videos that have image embeddings."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from extracting.audio.segments import cut
from extracting.audio.tracks import fits, read_track, wav_path
from extracting.audio.wav2clip import AudioEncoder
from extracting.job.files import EmbeddingFile
from extracting.job.manifest import FINE, Manifest
from extracting.job.run import Output, Result, finish
from extracting.video.config import Config, Job
from extracting.video.decode import DecodeResult
from extracting.video.frames import VideoError
from vad.datasets import Dataset
from vad.files import InputError
from vad.options import TAILS

AUDIO = "audio"


def join_images(jobs: Sequence[Job], image_dir: Path, dataset: Dataset) -> tuple[list[Job], list[str]]:
    """Return the jobs of videos with image embeddings, and the names of the videos without.

    A job gets the name, S and tail rules of its image embeddings. Its size includes the .wav beside the video.
    They are joined by [<Class>/]<video>, or else by the key of the video in the data set.
    Raises InputError if no video has image embeddings, or if two have the same.
    """
    # any crop: all have the same S
    images = {_name(path, image_dir): path for path in sorted(image_dir.rglob("[!.]*__*.npy"))}
    exact, records = {job.name for job in jobs}, Manifest(image_dir).records
    by_key = {dataset.key(name): name for name in images if name not in exact}
    joined, missing, videos = [], [], {}
    for job in jobs:
        name = job.name if job.name in images else by_key.get(dataset.key(job.name))
        if name is None:
            missing.append(job.video)
            continue
        if videos.setdefault(name, job.video) != job.video and not job.outcome:
            both = f"{videos[name]} and {job.video}"
            raise InputError(f"{images[name]} has the name of two videos, {both}. Remove one of them.")
        tail = records[name].settings.get("tail") if name in records else None
        wav = wav_path(job.path)
        size = job.size + (wav.stat().st_size if wav.is_file() else 0)
        tails = (tail,) if tail else TAILS
        joined.append(replace(job, name=name, size=size, snippets=_rows(images[name]), tails=tails))
    if not joined:
        raise InputError(f"{image_dir} has no image embedding of these videos. Extract the image embeddings first.")
    return joined, missing


def _name(path: Path, folder: Path) -> str:
    """Return [<Class>/]<video> of an embedding file."""
    return path.relative_to(folder).as_posix().rpartition("__")[0]


def _rows(path: Path) -> int:
    """Return S of an embedding file, from its header. Raises InputError."""
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an embedding ({error}). Extract it again.") from None


def embed_sounds(jobs: Sequence[Job], out: Output, encoder: AudioEncoder, config: Config) -> Generator[Result]:
    """Yield the record of each video, and None per snippet, as `job.run.run` does."""
    for job in jobs:
        file = EmbeddingFile(out.folder, job, AUDIO, config.crops, encoder.embed_dim)
        try:
            yield from _embed(job, file, encoder, config)
            for result in finish([file], {AUDIO: out}, config):
                yield result
                if config.strict and result[2].outcome not in FINE:
                    return
        finally:
            file.discard()


def _embed(job: Job, file: EmbeddingFile, encoder: AudioEncoder, config: Config) -> Generator[None]:
    """Write the rows of a video into its file, and the result. Yield None per snippet."""
    frames = 0
    try:
        track = read_track(job, config.fps)
        frames = len(track.seconds)
        if not fits(job, frames):
            reason = f"its {frames} frames do not give the {job.snippets} snippets of its image embeddings"
            raise VideoError(job.path, "other_length", f"{reason}; embed the images of this file again")
        segments = cut(job.path, track, job.snippets)
    except VideoError as error:
        file.result = DecodeResult(error.outcome, error.reason, frames)
        return
    rows = np.zeros((job.snippets, encoder.embed_dim), np.float32)
    if segments is None:
        reason = "its sound is zero throughout" if track.pieces else "it has no sound"
        file.result = DecodeResult("silent", reason, frames)
    else:
        file.result = DecodeResult("ok", track.note, frames)
        for part, embeddings in encoder.embed(segments):
            rows[part] = embeddings
            yield from [None] * len(part)
    file.pending = len(rows)
    for row in rows:
        file.append(row[None])
