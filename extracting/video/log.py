"""Capture what video decoders write to stderr, and search it for failed colour conversions."""

from __future__ import annotations

import os
import tempfile

# this setting would shorten the lines and drop the name of the library that wrote them
os.environ.pop("OPENCV_FFMPEG_LOGLEVEL", None)


class DecoderLog:
    """Context manager that redirects this process's stderr to a temporary file.

    If a frame cannot be converted to BGR, OpenCV reports success and returns the previous frame or
    uninitialised memory. Only a log line of the converter, libswscale, reveals this. It happens for
    interlaced video from OpenCV 4.13 on, and in older versions if the frame size grows mid-stream.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as this object)
        self._stderr = os.fdopen(os.dup(2), "wb", buffering=0)

    def __enter__(self) -> None:
        os.dup2(self._file.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr.fileno(), 2)

    def conversion_failed(self) -> bool:
        """Return whether a conversion has failed since the last call."""
        if not self._file.tell():  # stderr shares this file position
            return False
        self._file.seek(0)
        failed = b"[swscaler" in self._file.read()
        self._file.truncate(0)
        self._file.seek(0)
        return failed
