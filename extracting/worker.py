"""A decoder process: takes jobs from its parent, streams their snippets back through shared memory."""

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2

from extracting.ring import SLOTS, Ring
from extracting.stream import Job, Snippet, promised_frames, stream


class Worker:
    """Messages to the parent are tuples: ready · snippet, modality, slot, divisors · said, Opened or Ended
    · bug, traceback. From it: setup, settings, crops, modalities · job, Job · probe, Job · free, modality, slot.
    """

    def __init__(self, connection: Connection, memory: int) -> None:
        _, self._settings, self._crops, modalities = connection.recv()
        self._connection = connection
        self._ring = Ring(memory, modalities)
        self._jobs: queue.SimpleQueue[tuple[str, Job]] = queue.SimpleQueue()
        self._free: dict[str, queue.SimpleQueue[int]] = {name: queue.SimpleQueue() for name in modalities}
        for name in modalities:
            for slot in range(SLOTS[name]):
                self._free[name].put(slot)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Sort what the parent says. When the parent is gone, so are we, even from inside a decoder that hangs."""
        try:
            while True:
                kind, *rest = self._connection.recv()
                if kind == "free":
                    self._free[rest[0]].put(rest[1])
                else:
                    self._jobs.put((kind, rest[0]))
        finally:
            os._exit(1)

    def run(self) -> None:
        """Work until the parent ends."""
        self._connection.send(("ready",))
        # decoders write what they think of a damaged file, which would tear the parent's progress bar
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while True:
            kind, job = self._jobs.get()
            if kind == "probe":
                self._connection.send(("said", promised_frames(job, self._settings)))
            else:
                self._decode(job)

    def _decode(self, job: Job) -> None:
        send, frames = self._connection.send, self._ring.frames

        def count(number: int) -> None:
            frames[0] = number

        count(0)
        for item in stream(job, self._settings, self._crops, count):
            if not isinstance(item, Snippet):
                send(("said", item))
                continue
            slot = self._free[item.modality].get()
            self._ring.put(slot, item)
            send(("snippet", item.modality, slot, item.divisors))


def main() -> None:
    """Serve the parent whose socket and memory are the two descriptors of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)  # frames are small and decoders run side by side: OpenCV's own threads only cost
    socket, memory = map(int, sys.argv[1:])
    connection = Connection(socket)
    try:
        Worker(connection, memory).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)
    except BaseException:
        connection.send(("bug", traceback.format_exc()))


if __name__ == "__main__":
    main()
