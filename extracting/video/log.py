"""What decoders write to stderr: kept off the terminal, and searched for failed conversions."""

from __future__ import annotations

import os
import tempfile

# OpenCV would shorten the lines, and drop the name of the library that wrote them
os.environ.pop("OPENCV_FFMPEG_LOGLEVEL", None)


class DecoderLog:
    """Catches this process's stderr within `with`: what is wrong is said in a sentence of ours.

    Where a picture cannot be converted to BGR, OpenCV reports success and returns the pixels of the
    frame before, or memory that nobody wrote. Only a line of the converter, libswscale, shows it.
    It comes for interlaced video from OpenCV 4.13 on; below, for pictures that grow in mid-stream.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long as this
        self._stderr = os.fdopen(os.dup(2), "wb", buffering=0)

    def __enter__(self) -> None:
        os.dup2(self._file.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr.fileno(), 2)

    def conversion_failed(self) -> bool:
        """Whether a conversion has failed since the last call."""
        if not self._file.tell():  # stderr writes at the same position
            return False
        self._file.seek(0)
        failed = b"[swscaler" in self._file.read()
        self._file.truncate(0)
        self._file.seek(0)
        return failed
