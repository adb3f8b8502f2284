"""Decoder process of one video: it sends whole snippets through a socket, then the result."""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
import socket
import struct
import threading
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from extracting.video.config import Config, Job
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import HEIGHT, WIDTH, Video, VideoError
from extracting.video.recordings import Recording

LENGTH = struct.Struct("<I")  # size in bytes of the pickled message that follows
QUEUE_SIZE = 2  # messages of up to 4 MB; queueing lets decoding and sending overlap


@dataclass(frozen=True)
class DecodeResult:
    """Result of decoding one video."""

    outcome: str  # a key of `job.manifest.OUTCOMES`
    reason: str = ""  # explains any outcome but "ok", or is a note
    frames: int = 0  # decoded
    declared: int | None = None  # frame count stored in the container
    fps: float | None = None

    @property
    def usable(self) -> bool:
        """Return whether the decoded snippets are kept as embeddings."""
        return self.outcome in ("ok", "short", "silent")


class Sender:
    """Sends messages from its own thread, with a time limit between two messages.

    After `time_limit` seconds without a message the kernel ends the process by SIGALRM, even if
    native decoder code hangs. Time spent waiting for the parent process does not count.
    """

    def __init__(self, connection: socket.socket, time_limit: float) -> None:
        self._connection, self._time_limit = connection, time_limit
        self._queue: queue.Queue[tuple[bytes, np.ndarray | None] | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._send_queued, daemon=True)
        self._thread.start()
        signal.setitimer(signal.ITIMER_REAL, time_limit)

    def send(self, *message: object, array: np.ndarray | None = None) -> None:
        """Queue a message. The array follows it as raw bytes and must not be modified later."""
        data = pickle.dumps(message)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._queue.put((LENGTH.pack(len(data)) + data, array))
        signal.setitimer(signal.ITIMER_REAL, self._time_limit)

    def close(self) -> None:
        """Wait until all messages are sent."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._queue.put(None)
        self._thread.join()

    def _send_queued(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                data, array = item
                self._connection.sendall(data)
                if array is not None:
                    self._connection.sendall(array)
        except OSError:
            os._exit(1)  # the parent has died, and the main thread may be blocked on the queue


def decode(connection: socket.socket, job: Job, config: Config, maps_path: Path | None) -> None:
    """Decode one video and send its snippets: the body of a decoder process.

    maps_path: file for the event maps, uncompressed until the video ends, or None.
    Messages: ("image",) + frames (16, 256, 340, 3) BGR uint8; ("event", divisors (C,) float32) +
    clamped counts (256, 340) uint8; last ("end", DecodeResult), or ("stop", error) if a file
    cannot be written, or ("bug", traceback).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # warnings of the decoders about damaged files would disrupt the progress bar
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    cv2.setNumThreads(1)  # frames are small, and several decoders run in parallel
    sender = Sender(connection, config.time_limit)
    try:
        sender.send("end", _send_snippets(job, config, sender.send, maps_path))
    except Exception as error:
        if maps_path and isinstance(error, OSError):  # the only file written here
            sender.send("stop", f"{maps_path}: cannot be written ({error.strerror or error})")
        else:
            sender.send("bug", traceback.format_exc())
    sender.close()


def _send_snippets(
    job: Job, config: Config, send: Callable[..., None], maps_path: Path | None
) -> DecodeResult:
    """Send every snippet of a video, image before event; block scaling delays the events."""
    count = EventCounter().count
    scaling = EventScaling(config.crops, config.event_clamp, config.event_scaling)
    video = None
    maps = maps_path.open("wb") if maps_path else None
    try:
        if job.is_recording:
            video = Recording(job.path, config.tail, config.recording_fps)
        else:
            video = Video(job.path, config.tail, config.fps)
        for snippet in video.snippets():
            if "image" in job.modalities:
                send("image", array=snippet)
            if "event" in job.modalities:
                counts = snippet if job.is_recording else count(snippet, config.event_threshold)
                if maps:
                    maps.write(counts)
                for clamped, divisors in scaling.add(counts):
                    send("event", divisors, array=clamped)
        for clamped, divisors in scaling.flush():
            send("event", divisors, array=clamped)
    except VideoError as error:
        properties = (video.frames, video.declared, video.fps) if video else ()
        return DecodeResult(error.outcome, error.reason, *properties)
    finally:
        if maps:
            maps.close()
    if maps_path:
        signal.setitimer(signal.ITIMER_REAL, 0)  # decoding is over; compression cannot hang
        _compress(maps_path)
    return DecodeResult(*video.check_completeness(), video.frames, video.declared, video.fps)


def _compress(path: Path) -> None:
    """Replace a file of raw counts by an .npz with `counts` (S, 256, 340) uint8, same file name."""
    shape = (path.stat().st_size // (HEIGHT * WIDTH), HEIGHT, WIDTH)
    packed = path.with_suffix(".npz")
    # counts are mostly zero: level 1 takes a third of the time of level 6 and a few percent more space
    with (
        path.open("rb") as raw,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        # open() by name stores no time stamp, so equal counts give equal files
        archive.open("counts.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(raw, member, HEIGHT * WIDTH)
    os.replace(packed, path)
