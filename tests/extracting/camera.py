"""A camera for tests: it serves motion JPEG over HTTP on loopback, and can be cut, silent or damaged."""

from __future__ import annotations

import itertools
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

NUMBERS = 110  # distinct frames; frame n has the grey level 2 (n mod 110) + 8


class Camera:
    """HTTP server of a motion-JPEG stream. Its frame numbers go on when nobody is connected."""

    def __init__(self, fps: float = 400.0) -> None:
        self.interval = 1 / fps
        self.cut_after = 10**9  # frames sent on a connection
        self.silent_after = 10**9
        self.grow_after = 10**9  # frames after which the picture is twice as large
        self.corrupt = 0.0  # probability of a damaged byte
        self.connections = 0
        self._numbers = itertools.count()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._closed = threading.Event()
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://user:secret@127.0.0.1:{self._server.server_port}/"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one connection."""
        self.connections += 1
        for _ in range(7):  # frames that nobody sees, so that a gap shows in the numbers
            next(self._numbers)
        random_bytes = random.Random(self.connections)
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for sent in range(self.cut_after):
            side = 64 if sent < self.grow_after else 128
            grey = 2 * (next(self._numbers) % NUMBERS) + 8
            jpeg = bytearray(cv2.imencode(".jpg", np.full((side, side, 3), grey, np.uint8))[1].tobytes())
            for k in range(20, len(jpeg) if self.corrupt else 0):
                if random_bytes.random() < self.corrupt:
                    jpeg[k] = random_bytes.randrange(256)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                handler.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            if self._closed.wait(self.interval if sent < self.silent_after else 60):
                return

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
