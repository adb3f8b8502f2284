"""A video decoded once, as whole 16-frame snippets of 340×256 pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# What is wrong with a video is told in our own sentence; the decoder's own lines would tear the progress bar.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2
import numpy as np

from extracting.containers import bytes_missing
from vad.catalog import SNIPPET_FRAMES
from vad.errors import InputError

WIDTH, HEIGHT = 340, 256
BLOCK_SNIPPETS = 32  # the release reads 512 frames at a time
TAILS = ("whole", "released")


class VideoError(InputError):
    """A video that gives no embedding. A run notes it and goes on with the next video."""

    def __init__(self, path: Path, outcome: str, reason: str) -> None:
        """outcome: one of `manifest.OUTCOMES`; reason: what is wrong and what to do, without the path."""
        super().__init__(f"{path}: {reason}")
        self.outcome, self.reason = outcome, reason


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Frames (height, width, 3) BGR uint8 until the decoder gives no more; each is valid until the next is read."""
    frame = None
    while True:
        # the decoder writes into the array of the frame before: one allocation a video
        ok, frame = capture.read(frame)
        if not ok:
            return
        yield frame


def group_snippets(frames: Iterator[np.ndarray], tail: str) -> Iterator[np.ndarray]:
    """Resize frames and group them into whole snippets: arrays (16, 256, 340, 3) BGR uint8.

    tail: "whole" yields every whole snippet. "released" reads blocks of 512 frames and keeps the whole snippets
    of the last, partial block only if more than 16 frames are left, so that a tail of exactly 16 is lost.
    Memory is one snippet, two where the tail rule has to wait for a 17th frame.
    """
    if tail not in TAILS:
        raise InputError(f"unknown tail rule {tail!r}; known are {', '.join(TAILS)}")
    waiting: np.ndarray | None = None  # a block's first snippet, complete, its 17th frame not seen yet
    snippet = np.empty((SNIPPET_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    filled = complete = 0
    for frame in frames:
        if waiting is not None:
            yield waiting
            waiting = None
        cv2.resize(frame, (WIDTH, HEIGHT), dst=snippet[filled], interpolation=cv2.INTER_LINEAR)
        filled += 1
        if filled < SNIPPET_FRAMES:
            continue
        if tail == "released" and complete % BLOCK_SNIPPETS == 0:
            waiting = snippet
        else:
            yield snippet
        complete += 1
        snippet = np.empty_like(snippet)
        filled = 0


class Video:
    """One pass over a video file. `snippets()` may be walked once; the counts are final when it ends."""

    def __init__(self, path: str | Path, tail: str = "whole", on_frame: Callable[[int], None] | None = None) -> None:
        """Open a video. on_frame is told the number of every decoded frame, from 1.

        Raises VideoError if the file cannot be read or does not open as a video.
        """
        self.path = Path(path)
        self.tail = tail
        self.frames = 0  # decoded so far
        self._on_frame = on_frame
        place = str(self.path.absolute())  # of "a:b.mp4" alone a decoder would read a as a protocol
        if not place.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in place):
            # OpenCV itself would take the process with it
            raise VideoError(self.path, "unreadable", "its path holds bytes that are no UTF-8 text; rename it")
        try:
            if not self.path.is_file() and not self.path.is_symlink():
                raise VideoError(self.path, "unreadable", "no such file")
            with self.path.open("rb") as file:
                empty = not file.read(1)
            self.missing = bytes_missing(self.path)  # bytes the container says should follow
        except OSError as error:
            raise VideoError(self.path, "unreadable", f"cannot be read ({error.strerror})") from None
        if empty:
            raise VideoError(self.path, "empty", "is empty (0 bytes); copy it again")
        # One decoding thread a video: videos run beside each other, and more threads were slower even alone.
        self._capture = cv2.VideoCapture(place, cv2.CAP_ANY, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            self._raise_if_cut()
            raise VideoError(self.path, "not_video", "does not open as a video; is it one, and complete?")
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.promised = promised if promised > 0 else None  # frames the container says it holds, None if it does not

    def _raise_if_cut(self) -> None:
        if self.missing:
            told = f"at least {self.missing} bytes are missing at its end"
            raise VideoError(self.path, "truncated", f"{told} and what is there gives no snippet; copy it again")

    def _counted(self) -> Iterator[np.ndarray]:
        for frame in read_frames(self._capture):
            self.frames += 1
            if self._on_frame:
                self._on_frame(self.frames)
            yield frame

    def snippets(self) -> Iterator[np.ndarray]:
        """Whole snippets (16, 256, 340, 3) BGR uint8.

        Raises VideoError at the end if there was no frame at all, or too few for one snippet.
        """
        complete = 0
        try:
            for snippet in group_snippets(self._counted(), self.tail):
                complete += 1
                yield snippet
        except cv2.error as error:
            raise VideoError(self.path, "damaged", f"frame {self.frames} cannot be read ({error.err})") from None
        finally:
            self._capture.release()
        if complete:
            return
        self._raise_if_cut()
        if self.frames == 0:
            told = f" although it promises {self.promised}" if self.promised else ""
            raise VideoError(
                self.path, "no_frames", f"opens but gives no frame{told}; re-encode it, for example to H.264"
            )
        needed = "at least 16 frames" if self.tail == "whole" else "more than 16 frames (released tail rule)"
        raise VideoError(self.path, "too_short", f"has {self.frames} frames, one snippet needs {needed}")

    def verdict(self) -> tuple[str, str]:
        """Outcome of a video whose snippets have all been walked, and its reason where that is not "ok"."""
        if self.promised is None or self.frames >= self.promised:
            return "ok", ""
        counted = f"the container promises {self.promised} frames, {self.frames} could be decoded"
        if self.missing:
            return "truncated", f"{counted}, and at least {self.missing} bytes are missing at its end; copy it again"
        return "short", counted
