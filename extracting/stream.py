"""One video as a stream: snippets for the encoders, then one last word. No torch: decoder processes start fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extracting.events import EventScaling, check_event_settings, count_events
from extracting.frames import TAILS, Video, VideoError
from vad.errors import InputError
from vad.profile import DEFAULT


@dataclass(frozen=True)
class Settings:
    """What decides the numbers, beside the video and the weights. Defaults are the profile `default`'s."""

    tail: str = DEFAULT.tail
    event_threshold: int = DEFAULT.event_threshold
    event_clamp: int = DEFAULT.event_clamp
    event_scaling: str = DEFAULT.event_scaling

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise InputError(f"unknown tail rule {self.tail!r}; known are {', '.join(TAILS)}")
        check_event_settings(self.event_threshold, self.event_clamp, self.event_scaling)

    def recorded(self, modality: str, precision: str) -> dict[str, Any]:
        """The settings that bear on one modality, as the manifest keeps them."""
        kept = asdict(self) if modality == "event" else {"tail": self.tail}
        return {"modality": modality, **kept, "precision": precision}


@dataclass(frozen=True)
class Job:
    """One video of a run."""

    path: Path
    video: str  # path below the folder of videos
    name: str  # [<Class>/]<video>
    size: int  # bytes
    modalities: tuple[str, ...] = ()  # still to be made of it; image before event
    outcome: str = ""  # set where the video cannot be used, which was seen without opening it
    reason: str = ""


@dataclass(frozen=True)
class Snippet:
    """What one encoder needs of one snippet, still uncropped. The arrays hold until the next item is asked for."""

    modality: str
    pixels: np.ndarray  # image: frames (16, 256, 340, 3) BGR uint8; event: clamped counts (1, 256, 340) uint8
    divisors: np.ndarray | None = None  # event: (number of crops,) float32
    counts: np.ndarray | None = None  # event: counts (256, 340) uint8 before the clamp, 0 … 15


@dataclass(frozen=True)
class Opened:
    """The first word on a video that opens."""

    promised: int | None  # frames, by the container


@dataclass(frozen=True)
class Again:
    """A video starts from its beginning: what came of it so far is void."""


@dataclass(frozen=True)
class Ended:
    """The last word on a video."""

    frames: int  # decoded
    promised: int | None  # by the container
    outcome: str = "ok"  # one of manifest.OUTCOMES
    reason: str = ""  # a sentence where the outcome is not "ok"
    usable: bool = True  # whether the snippets that came before make embeddings


Item = Opened | Snippet | Again | Ended


def snippets_of(video: Video, modalities: Sequence[str], settings: Settings, crops: Sequence[int]) -> Iterator[Snippet]:
    """Encoder inputs of a video, each modality's in order. Raises VideoError as `Video.snippets` does.

    Decodes once. Under block scaling the event maps of a block follow behind its images.
    """
    scale = EventScaling(crops, settings.event_clamp, settings.event_scaling)

    def events(decided: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Snippet]:
        for counts, divisors in decided:
            yield Snippet("event", scale.clamped(counts)[None], divisors, counts)

    for frames in video.snippets():
        if "image" in modalities:
            yield Snippet("image", frames)
        if "event" in modalities:
            yield from events(scale.add(count_events(frames, settings.event_threshold)))
    yield from events(scale.end())


def stream(
    job: Job,
    settings: Settings,
    crops: Sequence[int],
    on_frame: Callable[[int], None] | None = None,
) -> Iterator[Item]:
    """Opened, a job's snippets, and Ended last; a video that is no good ends, it does not raise.

    on_frame is told the number of every decoded frame.
    """
    video = None
    try:
        video = Video(job.path, settings.tail, on_frame)
        yield Opened(video.promised)
        yield from snippets_of(video, job.modalities, settings, crops)
    except VideoError as error:
        frames, promised = (video.frames, video.promised) if video else (0, None)
        yield Ended(frames, promised, error.outcome, error.reason, usable=False)
        return
    yield Ended(video.frames, video.promised, *video.verdict())


def promised_frames(job: Job, settings: Settings) -> Ended:
    """What a job's container promises, without decoding a frame."""
    try:
        video = Video(job.path, settings.tail)
    except VideoError as error:
        return Ended(0, None, error.outcome, error.reason, usable=False)
    return Ended(0, video.promised)
