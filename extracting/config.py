"""What an extraction is asked for: its settings, checked, and the videos it is about.

No torch here: decoder processes import this module, and each of them should start fast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vad.files import InputError
from vad.options import Options

MODALITIES = ("image", "event")  # in this order everywhere
TAILS = ("whole", "released")
SCALINGS = ("clamp", "block")
ALL_CROPS = tuple(range(10))


@dataclass(frozen=True)
class Config:
    """Settings of an extraction, the encoders apart. Defaults are those of the profile `default`.

    Raises InputError for a value that means nothing.
    """

    crops: tuple[int, ...] = ALL_CROPS
    tail: str = Options.tail  # see `video.frames.group_snippets`
    event_threshold: int = Options.event_threshold  # grey levels of 255
    event_clamp: int = Options.event_clamp  # largest count kept
    event_scaling: str = Options.event_scaling  # see `video.events.EventScaling`
    save_events: bool = False  # write the event maps too
    fps: float | None = None  # frame rate of folders of frames, which store none
    workers: int = 1  # decoder processes at once
    time_limit: float = 120.0  # seconds without a new snippet that end a video
    strict: bool = False  # stop at the first video that is not ok

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise InputError(f"unknown tail rule {self.tail!r}; known are {', '.join(TAILS)}")
        if not 0 <= self.event_threshold <= 255:
            raise InputError(f"--event_threshold {self.event_threshold}: grey levels go from 0 to 255")
        if self.event_clamp < 1:
            raise InputError(f"--event_clamp {self.event_clamp}: the largest count kept is at least 1")
        if self.event_scaling not in SCALINGS:
            raise InputError(
                f"unknown event scaling {self.event_scaling!r}; known are {', '.join(SCALINGS)}"
            )
        if self.fps is not None and not 0 < self.fps < 1000:
            raise InputError(f"--fps {self.fps:g}: frames a second, above 0 and below 1000")
        for name in ("workers", "time_limit"):
            if not getattr(self, name) >= 1:
                raise InputError(f"--{name} {getattr(self, name)}: at least 1 is needed")

    def recorded(self, modality: str) -> dict[str, Any]:
        """The settings that change the embeddings of one modality, as the manifest keeps them."""
        events = {name: value for name, value in asdict(self).items() if name.startswith("event_")}
        return {"modality": modality, "tail": self.tail} | (events if modality == "event" else {})


@dataclass(frozen=True)
class Job:
    """One video of an extraction."""

    path: Path  # of a video file, or of a folder of frames
    video: str  # path below --video_dir
    name: str  # [<Class>/]<video>, what its embeddings are called after
    size: int  # bytes, of all frames together for a folder
    modalities: tuple[str, ...] = MODALITIES  # still to be made
    attempt: int = 1
    outcome: str = ""  # set where the video cannot be used, which was seen without opening it
    reason: str = ""
