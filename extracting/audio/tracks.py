"""Read the sound of a video, and when its frames are shown."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from extracting.video.config import Job
from extracting.video.frames import Video, VideoError, check_content, frame_files, snippet_count
from vad.files import InputError

GAP = 0.1  # seconds; a track whose time stamps jump by more is placed anew
RATES = range(1_000, 768_001)  # samples per second; another rate is that of a damaged header
MAX_CHANNELS = 8  # 7.1; only damaged tracks have more
SAMPLE_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


@dataclass
class Piece:
    """Samples without a gap."""

    start: float  # seconds after the start of the video
    rate: int  # samples per second
    chunks: list[np.ndarray] = field(default_factory=list)  # each (n,) float32, mono
    length: int = 0  # samples in all chunks

    @property
    def end(self) -> float:
        """Time of the sample after the last one."""
        return self.start + self.length / self.rate


@dataclass
class Track:
    """The sound of a video."""

    pieces: list[Piece]  # none: the video has no sound
    seconds: Sequence[float]  # presentation time of each frame, after the start of the video
    note: str = ""  # what of the sound is missing


def wav_path(video: Path) -> Path:
    """Return the path of the .wav beside a video file or frame folder."""
    return video.with_name(f"{video.name if video.is_dir() else video.stem}.wav")


def require_av(jobs: Sequence[Job]) -> None:
    """Raise InputError if a video has no .wav beside it and the package av is not installed."""
    if importlib.util.find_spec("av") is None:
        for job in jobs:
            wav = wav_path(job.path)
            if not job.path.is_dir() and not wav.is_file():
                advice = f'Run: pip install ".[sound]", or put the sound beside it as {wav.name}.'
                raise InputError(f"{job.path}: reading its sound needs the package av. {advice}")


def read_track(job: Job, fps: float | None) -> Track:
    """Return the sound of a video, from the .wav beside it or else from its own first sound track.

    A .wav starts with the first frame. fps: frame rate of a frame folder.
    Raises VideoError for a damaged file, and for a frame folder without .wav or frame rate.
    """
    path, wav = job.path, wav_path(job.path)
    if path.is_dir() and not (wav.is_file() and fps):
        missing = "--fps" if wav.is_file() else f"{wav.name} beside it"
        reason = f"the sound of a frame folder needs a .wav and a frame rate; give {missing}"
        raise VideoError(path, "unreadable", reason)
    if path.is_dir():
        return Track(read_wav(wav), np.arange(len(frame_files(path))) / fps)
    if wav.is_file():
        return Track(read_wav(wav), frame_times(path))
    track = read_container(path)
    # packets that OpenCV does not decode; only decoding the pictures tells which
    if not fits(job, len(track.seconds)):
        track.seconds = frame_times(path)
    return track


def fits(job: Job, frames: int) -> bool:
    """Return whether a video of this many frames has the S of its image embeddings."""
    return job.snippets in [snippet_count(frames, tail) for tail in job.tails]


def frame_times(path: Path) -> list[float]:
    """Return the presentation times of the frames that OpenCV decodes."""
    return [time for time, _ in Video(path).timed_frames()]


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Return samples (n, channels) of any type as the mean of the channels (n,) float32 in [-1, 1]."""
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = (info.max + info.min + 1) // 2  # 128 for uint8, else 0
        samples = (samples.astype(np.float32) - middle) / (info.max + 1 - middle)
    return samples.mean(1, dtype=np.float32)


def read_wav(path: Path) -> list[Piece]:
    """Return the samples of a .wav as one piece, or none if it has no samples. Raises VideoError."""
    check_content(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # chunks of tags, or a file cut at its end
            rate, samples = wavfile.read(path)
    except Exception as error:  # of a damaged header: ValueError, struct.error, ZeroDivisionError …
        raise VideoError(path, "damaged", f"cannot be read as a .wav ({error}); write it again as 16-bit PCM") from None
    if rate not in RATES:
        reason = f"its sound has {rate} samples per second; write it again, for example at 48000"
        raise VideoError(path, "damaged", reason)
    return [Piece(0.0, rate, [to_mono(samples.reshape(len(samples), -1))], len(samples))] if len(samples) else []


def read_container(path: Path) -> Track:
    """Return the first sound track of a file and the times of its video packets, without decoding pictures.

    Samples stand at their presentation times. What cannot be decoded is left out, and the note says so.
    Raises VideoError for a file without video, and for a track of which nothing can be decoded.
    """
    import av

    track, times, lost = Track([], []), [], 0
    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            video, sound = container.streams.best("video"), container.streams.best("audio")
            if video is None:
                raise VideoError(path, "not_video", "contains no pictures; give the video that was embedded")
            start = (video.start_time or 0) * video.time_base
            with contextlib.suppress(av.error.EOFError):
                for packet in container.demux([video] + ([sound] if sound else [])):
                    if packet.stream is video:
                        if packet.size and not packet.is_discard:
                            times.append(_time(packet, len(times), video, start))
                        continue
                    try:
                        for frame in packet.decode():
                            if frame.sample_rate in RATES and len(frame.layout.channels) <= MAX_CHANNELS:
                                _append(track.pieces, frame, float(start))
                            else:
                                lost += 1
                    except av.error.FFmpegError:
                        lost += 1
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: a stream begins within the file
        if not times:
            reason = f"it cannot be opened ({getattr(error, 'strerror', error)}); copy it again"
            raise VideoError(path, "not_video", reason) from None
        track.note = "reading its sound stopped with an error; copy the video again, or put a .wav beside it"
    track.seconds = sorted(times)
    if lost:
        track.note = f"{lost} packets of the sound cannot be decoded and count as silence; copy the video again"
        if not track.pieces:
            raise VideoError(path, "damaged", "no packet of its sound can be decoded; copy the video again")
    return track


def _time(packet: Any, number: int, video: Any, start: float) -> float:
    """Return the presentation time of a video packet, or that of its frame rate without time stamps."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None:
        return number / float(video.average_rate or 30)
    return float(stamp * packet.time_base - start)


def _append(pieces: list[Piece], frame: Any, start: float) -> None:
    """Append a decoded frame to the last piece, or begin another after a jump in time or a change of rate."""
    time = pieces[-1].end if pieces else 0.0
    if frame.pts is not None:
        time = float(frame.pts * frame.time_base) - start
    if not pieces or frame.sample_rate != pieces[-1].rate or abs(time - pieces[-1].end) > GAP:
        pieces.append(Piece(time, frame.sample_rate))
    pieces[-1].chunks.append(to_mono(_samples(frame)))
    pieces[-1].length += frame.samples


def _samples(frame: Any) -> np.ndarray:
    """Return the samples (n, channels) of a decoded frame. PyAV's own `to_ndarray` crashes for eight channels."""
    channels, kind = len(frame.layout.channels), SAMPLE_TYPES[frame.format.packed.name]
    if frame.format.is_planar:
        return np.stack([np.frombuffer(plane, kind, frame.samples) for plane in frame.planes[:channels]], 1)
    return np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels)
