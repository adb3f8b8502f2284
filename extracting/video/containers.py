"""How many frames a complete copy of a video file gives, where its container stores that number."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

TABLE_BYTES = 64 << 20  # more is read of no table, whatever a damaged header says; an hour has 2 MB


def expected_frames(path: Path, count: int) -> tuple[int, bool]:
    """Frames that a complete copy of a file gives, and whether this is exact. Never raises.

    count: OpenCV's. Of an MP4/MOV it is the number of samples, also of those that an edit list
    hides; of an AVI the number of chunks, also of empty ones, which repeat a picture; of any other
    container, and of a fragmented MP4, the duration of its longest stream times the frame rate.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data[:4] == b"RIFF":
                return count - _empty_chunks(data), True
            moov = _movie_box(data)
        if not moov or b"mvex" in moov:  # mvex: fragments follow
            return count, False
        shown = round(count * _share_shown(moov))
        return shown, shown == count
    except (OSError, ValueError, struct.error, ZeroDivisionError):  # unreadable, or nonsense
        return count, True


def _empty_chunks(data: mmap.mmap) -> int:
    """Video chunks of size 0 in the index at the end of an AVI."""
    at = data.rfind(b"idx1")
    if at < 0:
        return 0
    size = min(int.from_bytes(data[at + 4 : at + 8], "little"), TABLE_BYTES)
    index = data[at + 8 : at + 8 + size]
    entries = struct.iter_unpack("<2x2s8xI", index[: len(index) // 16 * 16])
    return sum(kind in (b"dc", b"db") and chunk == 0 for kind, chunk in entries)


def _movie_box(data: mmap.mmap) -> bytes:
    """The box of an MP4/MOV that holds its tables; b"" for any other file."""
    position = 0
    while position + 16 <= len(data):
        size, kind, long_size = struct.unpack(">I4sQ", data[position : position + 16])
        size = long_size if size == 1 else size
        if kind == b"moov":
            return data[position : position + min(size, TABLE_BYTES)]
        if size < 8:
            break
        position += size
    return b""


def _share_shown(moov: bytes) -> float:
    """Share of the video track's duration that its edit list shows; 1 where there is no list."""
    for track in moov.split(b"trak")[1:]:
        if b"vmhd" in track and b"elst" in track:
            at = track.index(b"elst") + 4
            entry = struct.Struct(">QqI" if track[at] else ">IiI")
            end = at + 8 + entry.size * int.from_bytes(track[at + 4 : at + 8], "big")
            edits = entry.iter_unpack(track[at + 8 : end])
            shown = sum(duration for duration, start, _ in edits if start >= 0)
            movie_scale, _ = _times(moov, b"mvhd")
            media_scale, media = _times(track, b"mdhd")
            return min(1.0, (shown / movie_scale) / (media / media_scale)) if shown else 1.0
    return 1.0


def _times(data: bytes, box: bytes) -> tuple[int, int]:
    """Units a second and duration in units, of a movie's or a track's header."""
    at = data.index(box) + 4
    return struct.unpack_from(">20xIQ" if data[at] else ">12xII", data, at)
