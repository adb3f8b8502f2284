"""The process that decodes one video: whole snippets go to the run through a socket, then one last word."""

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

from extracting.config import Config, Job
from extracting.video.events import EventCounter, EventScaling
from extracting.video.frames import HEIGHT, WIDTH, Video, VideoError

LENGTH = struct.Struct("<I")  # bytes of the pickled message that follows
AHEAD = 2  # messages that wait in this process, so that decoding and sending overlap; each is up to 4 MB


@dataclass(frozen=True)
class Ended:
    """The last word on a video."""

    outcome: str  # one of `job.manifest.OUTCOMES`
    reason: str = ""  # a sentence where the outcome is not "ok"
    frames: int = 0  # decoded
    declared: int | None = None  # frames that the container says it holds
    fps: float | None = None

    @property
    def usable(self) -> bool:
        """Whether the snippets that came before make embeddings."""
        return self.outcome in ("ok", "short")


class Sender:
    """Sends messages in a thread of its own and bounds the time between two of them.

    Where `time_limit` seconds pass without one the kernel ends the process (SIGALRM at its default
    action), also inside a decoder that hangs in native code. Waiting for the run is no hang.
    """

    def __init__(self, run: socket.socket, time_limit: float) -> None:
        self._run, self._time_limit = run, time_limit
        self._queue: queue.Queue[tuple[bytes, np.ndarray | None] | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()
        signal.setitimer(signal.ITIMER_REAL, time_limit)

    def send(self, *message: object, array: np.ndarray | None = None) -> None:
        """Queue a message; the array follows it as plain bytes and must not change any more."""
        data = pickle.dumps(message)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._queue.put((LENGTH.pack(len(data)) + data, array))
        signal.setitimer(signal.ITIMER_REAL, self._time_limit)

    def close(self) -> None:
        """Wait until everything is sent."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._queue.put(None)
        self._thread.join()

    def _pump(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                data, array = item
                self._run.sendall(data)
                if array is not None:
                    self._run.sendall(array)
        except OSError:
            os._exit(1)  # the run is gone, and the decoder may be waiting for it


def decode(run: socket.socket, job: Job, config: Config, maps: Path | None) -> None:
    """Decode one video for the run at the other end of the socket: the body of a decoder process.

    maps: where the event maps are written, uncompressed until the video has ended; None: nowhere.
    Messages: ("image",) + frames (16, 256, 340, 3) BGR uint8; ("event", divisors (C,) float32) +
    clamped counts (256, 340) uint8; last ("end", Ended), or ("stop", sentence) where a file cannot
    be written, or ("bug", traceback).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to answer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # decoders write what they think of a damaged file, which would tear the run's progress bar
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    cv2.setNumThreads(1)  # frames are small and decoders run side by side
    sender = Sender(run, config.time_limit)
    try:
        sender.send("end", _send_snippets(job, config, sender.send, maps))
    except Exception as error:
        if maps and isinstance(error, OSError):  # the only file that is written here
            sender.send("stop", f"{maps}: cannot be written ({error.strerror or error})")
        else:
            sender.send("bug", traceback.format_exc())
    sender.close()


def _send_snippets(
    job: Job, config: Config, send: Callable[..., None], maps: Path | None
) -> Ended:
    """Send every snippet of a video, image before event; under block scaling events follow later."""
    count = EventCounter().count
    scaling = EventScaling(config.crops, config.event_clamp, config.event_scaling)
    video = None
    saved = maps.open("wb") if maps else None
    try:
        video = Video(job.path, config.tail, config.fps)
        for frames in video.snippets():
            if "image" in job.modalities:
                send("image", array=frames)
            if "event" in job.modalities:
                counts = count(frames, config.event_threshold)
                if saved:
                    saved.write(counts)
                for clamped, divisors in scaling.add(counts):
                    send("event", divisors, array=clamped)
        for clamped, divisors in scaling.end():
            send("event", divisors, array=clamped)
    except VideoError as error:
        found = (video.frames, video.declared, video.fps) if video else ()
        return Ended(error.outcome, error.reason, *found)
    finally:
        if saved:
            saved.close()
    if maps:
        signal.setitimer(signal.ITIMER_REAL, 0)  # decoding is over: what is left cannot hang
        _compress(maps)
    return Ended(*video.verdict(), video.frames, video.declared, video.fps)


def _compress(maps: Path) -> None:
    """Turn a file of raw counts into an .npz with `counts` (S, 256, 340) uint8 under the same name."""
    shape = (maps.stat().st_size // (HEIGHT * WIDTH), HEIGHT, WIDTH)
    packed = maps.with_suffix(".npz")
    # counts are mostly zero: level 1 takes a third of the time of level 6 for a few percent more room
    with (
        maps.open("rb") as raw,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        # the member carries no time of day, so that equal counts make equal files
        archive.open("counts.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(raw, member, HEIGHT * WIDTH)
    os.replace(packed, maps)
