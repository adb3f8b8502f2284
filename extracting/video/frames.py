"""Decode a video file or frame folder into whole 16-frame snippets of 340x256 pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from extracting.video.containers import expected_frames
from extracting.video.log import DecoderLog
from vad.datasets import DEFAULT_FPS, FRAME_SUFFIXES, SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.files import InputError
from vad.options import TAILS

HEIGHT, WIDTH = 256, 340
BLOCK_SNIPPETS = 32  # the released code reads blocks of 512 frames


class VideoError(InputError):
    """Raised for a video that cannot be embedded. A run records it and continues."""

    def __init__(self, path: Path, outcome: str, reason: str) -> None:
        """outcome: a key of `job.manifest.OUTCOMES`; reason: what is wrong and what to do."""
        super().__init__(f"{path}: {reason}")
        self.outcome, self.reason = outcome, reason


def check_opencv() -> None:
    """Raise InputError for an OpenCV version that decodes other pixels than the release's (4.11).

    From 4.13 on, OpenCV converts colours by the tags of the video. It also returns stale memory for
    frames of interlaced video, without an error. Neither shows in the embeddings.
    """
    major, minor = (int(number) for number in cv2.__version__.split(".")[:2])
    if not (4, 10) <= (major, minor) < (4, 13):
        raise InputError(
            f"OpenCV {cv2.__version__} decodes some videos to different pixels than the supported versions."
            ' Run: pip install "opencv-python-headless>=4.10,<4.13"'
        )


def group_snippets(frames: Iterator[np.ndarray], tail: str) -> Iterator[np.ndarray]:
    """Resize frames and yield whole snippets as new arrays (16, 256, 340, 3) BGR uint8.

    tail: "whole" yields every whole snippet. "released" reads blocks of 512 frames and drops a
    partial block of 16 frames or fewer, so a tail of exactly 16 frames is lost.
    Memory use is one snippet, or two while the released rule waits for a 17th frame.
    """
    if tail not in TAILS:
        raise InputError(f"unknown tail rule {tail!r}; choose from {', '.join(TAILS)}")
    held_back: np.ndarray | None = None  # first snippet of a block until its 17th frame arrives
    snippet = np.empty((SNIPPET_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    filled = complete = 0
    for frame in frames:
        if held_back is not None:
            yield held_back
            held_back = None
        cv2.resize(frame, (WIDTH, HEIGHT), dst=snippet[filled], interpolation=cv2.INTER_LINEAR)
        filled += 1
        if filled < SNIPPET_FRAMES:
            continue
        if tail == "released" and complete % BLOCK_SNIPPETS == 0:
            held_back = snippet
        else:
            yield snippet
        complete += 1
        snippet = np.empty_like(snippet)  # the consumer may still be sending the last one
        filled = 0


def snippet_count(frames: int, tail: str) -> int:
    """Return the number of snippets S that `group_snippets` yields for this many frames."""
    partial = frames % (SNIPPET_FRAMES * BLOCK_SNIPPETS)
    dropped = partial if tail == "released" and partial <= SNIPPET_FRAMES else 0
    return (frames - dropped) // SNIPPET_FRAMES


def snippet_times(seconds: Sequence[float], snippets: int) -> np.ndarray:
    """Return the start of each snippet and the end of the last one (S + 1,), from the times of all frames."""
    end = seconds[-1] + (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)  # the last frame lasts the mean time
    return np.array([*seconds, end][: SNIPPET_FRAMES * snippets + 1 : SNIPPET_FRAMES])


class Video:
    """One pass over a video. Iterate `snippets()` once; `frames` is final after that."""

    def __init__(self, path: str | Path, tail: str = "whole", fps: float | None = None) -> None:
        """Open a video file or frame folder. fps: frame rate of a frame folder, which stores none.

        Raises VideoError for a file that cannot be opened as a video, and for a folder without
        frames or with a gap in the frame numbers.
        """
        self.path, self._tail = Path(path), tail
        self.frames = 0  # decoded so far
        self.fps = fps
        self._seconds = 0.0  # presentation time of the last decoded frame
        self._log = DecoderLog()
        if os.path.isdir(path):
            files = _numbered_frames(self.path)
            self.declared: int | None = len(files)  # stored frame count, see `expected_frames`
            self._source = self._read_files(files)
            return
        with self._log:
            capture = _open(self.path)
        fps, count = (capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps < 1e6 else None
        self.declared = int(count) if count > 0 else None
        self._source = self._decode(capture)

    def _decode(self, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
        """Yield the frames of a file. Each is valid until the next one is read."""
        frame, unwritten = None, unwritten_rows(capture)
        try:
            while True:
                with self._log:
                    ok, frame = capture.read(frame)  # reuses the array: one allocation per video
                if not ok:
                    return
                self.frames += 1
                if self._log.conversion_failed():
                    raise VideoError(self.path, "conversion_failed", self._conversion_error())
                if unwritten:
                    frame[-unwritten:] = frame[-unwritten - 1]
                self._seconds = max(self._seconds, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                yield frame
        finally:
            capture.release()

    def _conversion_error(self) -> str:
        causes = "which may be interlaced, differ in size from the first, or use a rare colour space"
        return (
            f"OpenCV {cv2.__version__} cannot convert frame {self.frames}, {causes}; re-encode the"
            ' video to H.264 or install "opencv-python-headless>=4.10,<4.13"'
        )

    def _read_files(self, files: list[Path]) -> Iterator[np.ndarray]:
        for file in files:
            with self._log:
                frame = _read_image(self.path, file)
            self.frames += 1
            yield frame

    def timed_frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield each frame (height, width, 3) BGR uint8, valid until the next, and its presentation time in seconds.

        Take this instead of `snippets`. Without usable time stamps, the frame rate (default 30) gives the times.
        """
        for number, frame in enumerate(self._source):
            by_rate = number / (self.fps or DEFAULT_FPS)
            yield (self._seconds if self._seconds > 0 or not number else by_rate), frame

    def snippets(self) -> Iterator[np.ndarray]:
        """Yield whole snippets (16, 256, 340, 3) BGR uint8; each is a new array.

        Raises VideoError if decoding fails, or at the end if there was no whole snippet.
        """
        complete = 0
        try:
            for snippet in group_snippets(self._source, self._tail):
                complete += 1
                yield snippet
        except cv2.error as error:
            reason = f"decoding failed after {self.frames} frames ({error.err})"
            raise VideoError(self.path, "damaged", reason) from None
        if complete:
            return
        incomplete = self.declared is not None and self.declared > self.frames
        if self.frames == 0:
            note = f", although its container declares {self.declared}" if incomplete else ""
            reason = f"the file opens but contains no frames{note}; copy it again or re-encode it to H.264"
            raise VideoError(self.path, "no_frames", reason)
        count = f"the video has {self.frames} frames"
        if incomplete:
            count = f"only {self.frames} of {self.declared} declared frames can be decoded"
        needed = "at least 16" if self._tail == "whole" else "more than 16 (released tail rule)"
        reason = f"{count}, but a snippet needs {needed}"
        raise VideoError(self.path, "too_short", reason + ("; copy the video again" if incomplete else ""))

    def check_completeness(self) -> tuple[str, str]:
        """Return ("ok", "") or ("short", reason). Call it after iterating over the snippets.

        If the container stores no frame count, this is a heuristic: a video is short if it ends too
        early by more than a snippet, one second and 2 % of its duration. Audio that is this much
        longer also makes a video "short". A truncated transport stream or WMV remains "ok".
        """
        if self.declared is None or self.frames >= self.declared:
            return "ok", ""
        expected, exact = expected_frames(self.path, self.declared)
        if exact:
            if self.frames >= expected:
                return "ok", ""
            reason = f"only {self.frames} of the {expected} frames in the container can be decoded"
            return "short", f"{reason}; copy the video again"
        fps = self.fps or 1.0
        duration = expected / fps
        end = self._seconds + 1 / fps
        if duration - end <= max(SNIPPET_FRAMES / fps, 1.0, duration / 50):
            return "ok", ""
        reason = f"the frames end after {end:.1f} of {duration:.1f} seconds"
        return "short", f"{reason}; copy the video again unless only its audio is longer"


def _open(path: Path) -> cv2.VideoCapture:
    """Open a video file. Raises VideoError."""
    location = str(path.absolute())  # FFmpeg would read the relative path "a:b.mp4" as a URL
    if any("\ud800" <= letter <= "\udfff" for letter in location):
        # OpenCV would crash this process
        reason = "the path is not valid UTF-8; rename the file or folder"
        raise VideoError(path, "unreadable", reason)
    check_content(path)
    # videos are decoded in parallel; more threads per video were slower even for a single video
    capture = cv2.VideoCapture(location, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        reason = "cannot be opened as a video; check that the file is a complete video"
        raise VideoError(path, "not_video", reason)
    return capture


def check_content(path: Path) -> None:
    """Raise VideoError if a file does not exist, cannot be read or is empty."""
    try:
        if not path.is_file() and not path.is_symlink():
            raise VideoError(path, "unreadable", "the file does not exist")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise VideoError(path, "unreadable", f"cannot be read ({error.strerror})") from None
    if empty:
        raise VideoError(path, "empty", "the file is empty (0 bytes); copy it again")


def unwritten_rows(capture: cv2.VideoCapture) -> int:
    """Return the number of bottom rows that OpenCV below 4.13 leaves uninitialised in every frame.

    It is 3 for H.264 and HEVC video with more than 8 bits whose height is not a multiple of 16.
    These rows would differ between runs, so the row above replaces them.
    """
    pixels = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFF
    more_than_8_bits = pixels == int.from_bytes(b"Y3\x0b", "little")  # planar 4:2:0
    return 3 if more_than_8_bits and capture.get(cv2.CAP_PROP_FRAME_HEIGHT) % 16 else 0


# ---- Frame folders -------------------------------------------------------------------------------


def is_frame_folder(path: Path) -> bool:
    """Return whether a folder is a video: it has frames and, unlike a class folder, no video file."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    return not suffixes & VIDEO_SUFFIXES and any(_number(name) is not None for name in names)


def frame_files(folder: Path) -> list[Path]:
    """Return the image files whose names end in a number, such as img_010.png, in numeric order."""
    files = [path for path in folder.iterdir() if _number(path.name) is not None]
    return sorted(files, key=lambda path: (_number(path.name), path.name))


def _number(name: str) -> int | None:
    """Return the frame number in a file name, or None if the file is not a frame."""
    stem, suffix = os.path.splitext(name)
    digits = re.search(r"[0-9]+$", stem)
    is_frame = digits and suffix.lower() in FRAME_SUFFIXES and not name.startswith(".")
    return int(digits[0]) if is_frame else None


def _read_image(folder: Path, file: Path) -> np.ndarray:
    """Read a frame (height, width, 3) BGR uint8. Raises VideoError."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        # same pixels as cv2.imread, which however silently fills a truncated JPEG with grey
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        reason = f"{file.name} cannot be read ({error.strerror})"
        raise VideoError(folder, "unreadable", reason) from None
    except cv2.error:
        frame = None
    if frame is None:
        raise VideoError(folder, "damaged", f"{file.name} cannot be decoded; copy it again")
    return frame


def _numbered_frames(folder: Path) -> list[Path]:
    """Return the frames of a folder. Raises VideoError if there are none, or for a gap."""
    try:
        files = frame_files(folder)
    except OSError as error:
        raise VideoError(folder, "unreadable", f"cannot be read ({error.strerror})") from None
    if not files:
        reason = "the folder contains no frames (image files whose names end in a number)"
        raise VideoError(folder, "not_video", reason)
    for before, file in pairwise(files):
        number, expected = _number(file.name), _number(before.name) + 1
        if number > expected:
            reason = f"frame {expected} is missing between {before.name} and {file.name}"
            raise VideoError(folder, "damaged", reason)
        if number < expected:
            reason = f"{before.name} and {file.name} have the same frame number"
            raise VideoError(folder, "damaged", reason)
    return files
