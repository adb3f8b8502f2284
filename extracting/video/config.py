"""Settings of an extraction, and the record of one video to embed.

This module does not import torch, because every decoder process imports it and should start fast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vad.datasets import DEFAULT_FPS, RECORDING_SUFFIXES
from vad.files import InputError
from vad.options import SCALINGS, TAILS, Options

MODALITIES = ("image", "event")  # in this order everywhere
ALL_CROPS = tuple(range(10))


@dataclass(frozen=True)
class Config:
    """Settings of an extraction except those of the encoders. The defaults are those of the default profile.

    Raises InputError for an invalid value.
    """

    crops: tuple[int | None, ...] = ALL_CROPS  # None: an embedding without crops, as of sound
    tail: str = Options.tail  # see `video.frames.group_snippets`
    event_threshold: int = Options.event_threshold  # grey levels, 0 to 255
    event_clamp: int = Options.event_clamp  # larger event counts are clamped to this
    event_scaling: str = Options.event_scaling  # see `video.events.EventScaling`
    save_events: bool = False  # also write the event maps
    fps: float | None = None  # frame rate of frame folders and recordings, which do not store one
    workers: int = 1  # number of decoder processes
    time_limit: float = 120.0  # seconds without a new snippet after which a video is given up
    strict: bool = False  # stop at the first video that is not ok

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise InputError(f"unknown tail rule {self.tail!r}; choose from {', '.join(TAILS)}")
        if not 0 <= self.event_threshold <= 255:
            raise InputError(f"--event_threshold {self.event_threshold} must be a grey level from 0 to 255")
        if self.event_clamp < 1:
            raise InputError(f"--event_clamp {self.event_clamp} must be at least 1")
        if self.event_scaling not in SCALINGS:
            raise InputError(f"unknown event scaling {self.event_scaling!r}; choose from {', '.join(SCALINGS)}")
        if self.fps is not None and not 0 < self.fps < 1000:
            raise InputError(f"--fps {self.fps:g} must be above 0 and below 1000 frames per second")
        for name in ("workers", "time_limit"):
            if not getattr(self, name) >= 1:
                raise InputError(f"--{name} {getattr(self, name)} must be at least 1")

    @property
    def recording_fps(self) -> float:
        """Frames per second that divide an event-camera recording into snippets."""
        return self.fps or DEFAULT_FPS

    def provenance(self, modality: str) -> dict[str, Any]:
        """Return the settings that affect the embeddings of one modality, for the manifest."""
        events = {name: value for name, value in asdict(self).items() if name.startswith("event_")}
        events["recording_fps"] = self.recording_fps
        return {"modality": modality, "tail": self.tail} | (events if modality == "event" else {})


@dataclass(frozen=True)
class Job:
    """One video of an extraction."""

    path: Path  # a video file, a frame folder or an event-camera recording
    video: str  # path relative to --video_dir
    name: str  # [<Class>/]<video>, the base name of the embedding files
    size: int  # bytes; for a frame folder the sum over its frames
    modalities: tuple[str, ...] = MODALITIES  # not yet embedded
    attempt: int = 1
    outcome: str = ""  # set if the video is rejected without opening it
    reason: str = ""
    snippets: int | None = None  # S of its image embeddings, which those of its sound must have; None: any
    tails: tuple[str, ...] = TAILS  # tail rules that may have given this S

    @property
    def is_recording(self) -> bool:
        """Whether this is an event-camera recording, which has no images."""
        return self.path.suffix.lower() in RECORDING_SUFFIXES and not self.path.is_dir()
