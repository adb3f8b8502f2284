"""Read a camera, a stream or a video file as it comes, in whole 16-frame snippets."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from extracting.video.frames import Video, group_snippets, unwritten_rows
from extracting.video.log import DecoderLog
from vad.datasets import DEFAULT_FPS, RECORDING_SUFFIXES, SNIPPET_FRAMES
from vad.files import InputError

TIMEOUT = 4  # seconds without a frame, or for a connection
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the next attempt to connect, doubled after each failure
QUEUE_SIZE = 2  # snippets


@dataclass
class LiveSnippet:
    """One snippet of a live source."""

    number: int  # of the snippets read so far, dropped ones included; counts from 0
    frames: np.ndarray  # (16, 256, 340, 3) BGR uint8
    arrived: float  # time.monotonic() of the last frame, seconds
    after_gap: bool  # the connection was lost since the last snippet


class LiveSource:
    """Iterable over the snippets of a live source. Use it in a `with` block, which ends its thread.

    A thread reads the source, so that a slow consumer does not delay it. If `QUEUE_SIZE` snippets wait, the
    oldest is dropped, since the newest matters most. Single frames are never dropped: this would change the events.
    A camera or stream that ends or is silent for `TIMEOUT` seconds is opened again, for ever. No snippet contains
    frames from before and after such a gap. A file is delivered at its own frame rate and ends at its end.
    """

    def __init__(self, source: str) -> None:
        """source: number of a camera, URL, or path of a video file or frame folder.

        Raises InputError for a camera or file that cannot be opened. An unreachable URL is tried again.
        """
        number = source.removeprefix("/dev/video")
        self._camera = int(number) if number.isdecimal() else None
        self._url = source if "://" in source else None
        self._name = re.sub(r"//[^/@]*@", "//", source)  # without password
        self._video, self._log = None, DecoderLog()
        if self._camera is None and self._url is None:
            if Path(source).suffix.lower() in RECORDING_SUFFIXES:
                raise InputError(f"{source} is an event-camera recording and has no frames. Score it with --video.")
            self._video = Video(source)
        elif self._camera is not None and not self._open().isOpened():
            raise InputError(f"camera {source} cannot be opened. Give the number of a connected camera, as in "
                             "/dev/video0, that no other program uses.")  # fmt: skip
        self.frames_dropped = 0  # read, but not delivered: the consumer was slow, or their snippet was cut off
        self.reconnects = 0
        self.started = time.monotonic()
        self._frames = self._number = 0  # frames and whole snippets read
        self._queue: deque[LiveSnippet] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="live source", daemon=True)

    def __enter__(self) -> LiveSource:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()  # a silent source answers after TIMEOUT

    def __iter__(self) -> Iterator[LiveSnippet]:
        """Yield the snippets of the source. Raises VideoError for a file that cannot be decoded."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ended)
                if not self._queue:
                    break
                snippet = self._queue.popleft()
            yield snippet
        if self._error:
            raise self._error

    def _read(self) -> None:
        """Read the source until its end: the body of the thread."""
        try:
            if self._video:
                self._read_file(self._video)
            else:
                self._read_stream()
        except Exception as error:  # raised again by the consumer
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _read_file(self, video: Video) -> None:
        seconds = SNIPPET_FRAMES / (video.fps or DEFAULT_FPS)
        for number, frames in enumerate(video.snippets(), 1):
            if self._stop.wait(max(0, self.started + number * seconds - time.monotonic())):
                return
            self._put(frames, after_gap=False)

    def _read_stream(self) -> None:
        wait, noted, connections = FIRST_WAIT, 0.0, 0
        while not self._stop.is_set():
            capture, frames_before = self._open(), self._frames
            if capture.isOpened():
                if connections:
                    self.reconnects += 1
                    self._note(f"connected again (reconnect {self.reconnects})")
                connections += 1
                for k, frames in enumerate(group_snippets(self._decode(capture), "whole")):
                    self._put(frames, after_gap=k == 0 and connections > 1)
            capture.release()
            if self._stop.is_set():
                return
            frames = self._frames - frames_before
            self.frames_dropped += frames % SNIPPET_FRAMES
            if frames:
                wait, noted = FIRST_WAIT, 0.0
            if wait > noted:
                reason = f"no further frame after {frames} frames" if frames else "cannot be opened"
                self._note(f"{reason}; next attempt in {wait:g} seconds")
                noted = wait
            self._stop.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _open(self) -> cv2.VideoCapture:
        if self._camera is not None:
            os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(TIMEOUT)
            with self._log:
                return cv2.VideoCapture(self._camera)
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        options = [value for timeout in timeouts for value in (timeout, 1000 * TIMEOUT)]
        with self._log:  # more decoder threads would delay each frame by as many frames
            return cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, [*options, cv2.CAP_PROP_N_THREADS, 1])

    def _decode(self, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
        """Yield the frames of a connection. Each is valid until the next one is read."""
        frame, unwritten = None, unwritten_rows(capture)
        while not self._stop.is_set():
            try:
                with self._log:
                    ok, frame = capture.read(frame)
            except cv2.error:  # damaged beyond what the decoder conceals
                return
            # a frame larger than the first one cannot be converted: OpenCV would repeat the last frame for ever
            if not ok or self._log.conversion_failed():
                return
            if unwritten:
                frame[-unwritten:] = frame[-unwritten - 1]
            self._frames += 1
            yield frame

    def _put(self, frames: np.ndarray, after_gap: bool) -> None:
        snippet = LiveSnippet(self._number, frames, time.monotonic(), after_gap)
        self._number += 1
        with self._changed:
            if len(self._queue) == QUEUE_SIZE:
                dropped = self._queue.popleft()
                self._queue[0].after_gap |= dropped.after_gap
                self.frames_dropped += SNIPPET_FRAMES
            self._queue.append(snippet)
            self._changed.notify()

    def _note(self, text: str) -> None:
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)
