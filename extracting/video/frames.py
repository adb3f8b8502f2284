"""A video, file or folder of frames, decoded once as whole 16-frame snippets of 340x256 pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from extracting.config import TAILS
from extracting.video.containers import expected_frames
from extracting.video.log import DecoderLog
from vad.datasets import SNIPPET_FRAMES, VIDEO_SUFFIXES
from vad.files import InputError

HEIGHT, WIDTH = 256, 340
BLOCK_SNIPPETS = 32  # the release reads 512 frames at a time
FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})


class VideoError(InputError):
    """A video that gives no embedding. A run notes it and goes on with the next video."""

    def __init__(self, path: Path, outcome: str, reason: str) -> None:
        """outcome: one of `job.manifest.OUTCOMES`; reason: what is wrong and what to do."""
        super().__init__(f"{path}: {reason}")
        self.outcome, self.reason = outcome, reason


def check_opencv() -> None:
    """Raise InputError for an OpenCV whose frames have other pixels than the release's (4.11).

    From 4.13 on colours are converted by the video's tags, and frames of interlaced video, which
    cannot be converted, come as stale memory without an error. Both are invisible afterwards.
    """
    major, minor = (int(number) for number in cv2.__version__.split(".")[:2])
    if not (4, 10) <= (major, minor) < (4, 13):
        raise InputError(
            f"OpenCV {cv2.__version__} decodes some videos to other pixels than the versions this"
            ' extraction was checked with; pip install "opencv-python-headless>=4.10,<4.13"'
        )


def group_snippets(frames: Iterator[np.ndarray], tail: str) -> Iterator[np.ndarray]:
    """Resize frames and group them into whole snippets: new arrays (16, 256, 340, 3) BGR uint8.

    tail: "whole" yields every whole snippet. "released" reads blocks of 512 frames and keeps the
    whole snippets of the last, partial block only if more than 16 frames are left, so that a tail
    of exactly 16 is lost. Memory is one snippet, two where the rule has to wait for a 17th frame.
    """
    if tail not in TAILS:
        raise InputError(f"unknown tail rule {tail!r}; known are {', '.join(TAILS)}")
    waiting: np.ndarray | None = None  # a block's first snippet while its 17th frame is not seen
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
        snippet = np.empty_like(snippet)  # whoever got the last one may still be sending it
        filled = 0


class Video:
    """One pass over a video. `snippets()` may be walked once; the counts are final when it ends."""

    def __init__(self, path: str | Path, tail: str = "whole", fps: float | None = None) -> None:
        """Open a video file or a folder of frames. fps: frame rate of a folder, which stores none.

        Raises VideoError for a file that cannot be read or does not open as a video, and for a
        folder without frames or with a gap in their numbers.
        """
        self.path, self._tail = Path(path), tail
        self.frames = 0  # decoded so far
        self.fps = fps
        self._seconds = 0.0  # when the last decoded frame is shown
        self._log = DecoderLog()
        if os.path.isdir(path):
            files = _numbered_frames(self.path)
            self.declared: int | None = len(files)  # by the container, see `expected_frames`
            self._source = self._read_files(files)
            return
        with self._log:
            capture = _open(self.path)
        fps, count = (capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps < 1e6 else None
        self.declared = int(count) if count > 0 else None
        self._source = self._decode(capture)

    def _decode(self, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
        """Frames of a file; each is valid until the next one is read."""
        frame, unwritten = None, _unwritten_rows(capture)
        try:
            while True:
                with self._log:
                    ok, frame = capture.read(frame)  # into the same array: one allocation a video
                if not ok:
                    return
                self.frames += 1
                if self._log.conversion_failed():
                    raise VideoError(self.path, "conversion_failed", self._not_converted())
                if unwritten:
                    frame[-unwritten:] = frame[-unwritten - 1]
                self._seconds = max(self._seconds, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                yield frame
        finally:
            capture.release()

    def _not_converted(self) -> str:
        causes = "interlaced, of another size than the first, or in a rare colour space"
        return (
            f"OpenCV {cv2.__version__} cannot convert frame {self.frames} ({causes}); re-encode the"
            ' video to H.264 or install "opencv-python-headless>=4.10,<4.13"'
        )

    def _read_files(self, files: list[Path]) -> Iterator[np.ndarray]:
        """Frames of a folder."""
        for file in files:
            with self._log:
                frame = _read_image(self.path, file)
            self.frames += 1
            yield frame

    def snippets(self) -> Iterator[np.ndarray]:
        """Whole snippets (16, 256, 340, 3) BGR uint8, never written again.

        Raises VideoError where decoding fails, and at the end if there was no whole snippet.
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
        missing = self.declared is not None and self.declared > self.frames
        note = f" although {self.declared} are declared" if missing else ""
        if self.frames == 0:
            reason = f"opens but gives no frame{note}; copy it again, or re-encode it to H.264"
            raise VideoError(self.path, "no_frames", reason)
        needed = "at least 16 frames" if self._tail == "whole" else "more than 16 frames (released tail rule)"
        reason = f"has {self.frames} frames{note}, one snippet needs {needed}"
        raise VideoError(self.path, "too_short", reason + ("; copy it again" if missing else ""))

    def verdict(self) -> tuple[str, str]:
        """Outcome of a video whose snippets have been walked: "ok", or "short" and the reason.

        Where the container stores no number of frames this is a heuristic: the last frame has to be
        more than a snippet, a second and 2 % of the duration too early. Sound that runs on so much
        longer than the pictures looks the same, and a transport stream or WMV that was cut is "ok".
        """
        if self.declared is None or self.frames >= self.declared:
            return "ok", ""
        expected, exact = expected_frames(self.path, self.declared)
        if exact:
            if self.frames >= expected:
                return "ok", ""
            counted = f"its container counts {expected} frames, {self.frames} could be decoded"
            return "short", f"{counted}; copy it again"
        fps = self.fps or 1.0
        duration = expected / fps
        end = self._seconds + 1 / fps
        if duration - end <= max(SNIPPET_FRAMES / fps, 1.0, duration / 50):
            return "ok", ""
        times = f"its pictures end after {end:.1f} of {duration:.1f} seconds"
        return "short", f"{times}; copy it again, unless only its sound is longer"


def _open(path: Path) -> cv2.VideoCapture:
    """Open a video file. Raises VideoError."""
    place = str(path.absolute())  # of "a:b.mp4" alone a decoder would read a as a protocol
    if any("\ud800" <= letter <= "\udfff" for letter in place):
        # OpenCV itself would take the process with it
        reason = "its path holds bytes that are no UTF-8 text; rename it"
        raise VideoError(path, "unreadable", reason)
    try:
        if not path.is_file() and not path.is_symlink():
            raise VideoError(path, "unreadable", "no such file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise VideoError(path, "unreadable", f"cannot be read ({error.strerror})") from None
    if empty:
        raise VideoError(path, "empty", "is empty (0 bytes); copy it again")
    # one thread a video: videos are decoded side by side, and more threads were slower even alone
    capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        reason = "does not open as a video; is it one, and complete?"
        raise VideoError(path, "not_video", reason)
    return capture


def _unwritten_rows(capture: cv2.VideoCapture) -> int:
    """Rows at the bottom of every frame that OpenCV below 4.13 leaves as the memory was.

    Three, of H.264 and HEVC video of more than 8 bits whose height is no multiple of 16. They would
    differ from run to run; the row above stands in for them.
    """
    pixels = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFF
    more_than_8_bits = pixels == int.from_bytes(b"Y3\x0b", "little")  # planar 4:2:0
    return 3 if more_than_8_bits and capture.get(cv2.CAP_PROP_FRAME_HEIGHT) % 16 else 0


# ---- A folder of frames --------------------------------------------------------------------------


def is_frame_folder(path: Path) -> bool:
    """Whether a folder is a video: it holds frames and, unlike a class folder, no video file."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    return not suffixes & VIDEO_SUFFIXES and any(_number(name) is not None for name in names)


def frame_files(folder: Path) -> list[Path]:
    """Frames of a folder by number: image files whose names end in one, as 9.jpg or img_010.png."""
    files = [path for path in folder.iterdir() if _number(path.name) is not None]
    return sorted(files, key=lambda path: (_number(path.name), path.name))


def _number(name: str) -> int | None:
    """Number of a frame by its file name; None for a file that is no frame."""
    stem, suffix = os.path.splitext(name)
    digits = re.search(r"[0-9]+$", stem)
    is_frame = digits and suffix.lower() in FRAME_SUFFIXES and not name.startswith(".")
    return int(digits[0]) if is_frame else None


def _read_image(folder: Path, file: Path) -> np.ndarray:
    """A frame (height, width, 3) BGR uint8 of a folder. Raises VideoError."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        # the pixels of cv2.imread; that, however, fills up a JPEG that was cut with grey, unsaid
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
    """Frames of a folder. Raises VideoError for none, or for a gap, which would shift the rest."""
    try:
        files = frame_files(folder)
    except OSError as error:
        raise VideoError(folder, "unreadable", f"cannot be read ({error.strerror})") from None
    if not files:
        reason = "is a folder without frames, which are image files whose names end in a number"
        raise VideoError(folder, "not_video", reason)
    for before, file in pairwise(files):
        number, expected = _number(file.name), _number(before.name) + 1
        if number > expected:
            reason = f"frame {expected} is missing between {before.name} and {file.name}"
            raise VideoError(folder, "damaged", reason)
        if number < expected:
            reason = f"{before.name} and {file.name} have the same number"
            raise VideoError(folder, "damaged", reason)
    return files
