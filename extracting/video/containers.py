"""Estimate from its container how many frames an undamaged copy of a video file decodes to."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

MAX_TABLE_BYTES = 64 << 20  # a damaged header may claim any size; one hour of video has 2 MB


def expected_frames(path: Path, count: int) -> tuple[int, bool]:
    """Return the frame count of an undamaged copy, and whether this count is exact. Never raises.

    count: frame count that OpenCV reports. For MP4/MOV it is the number of samples, including those
    that an edit list hides. For AVI it is the number of chunks, including empty ones, which repeat a
    frame. For other containers and fragmented MP4 it is the longest stream's duration × frame rate.
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
        shown = round(count * _shown_fraction(moov))
        return shown, shown == count
    except (OSError, ValueError, struct.error, ZeroDivisionError):  # unreadable or invalid file
        return count, True


def _empty_chunks(data: mmap.mmap) -> int:
    """Count the video chunks of size 0 in the index at the end of an AVI."""
    at = data.rfind(b"idx1")
    if at < 0:
        return 0
    size = min(int.from_bytes(data[at + 4 : at + 8], "little"), MAX_TABLE_BYTES)
    index = data[at + 8 : at + 8 + size]
    entries = struct.iter_unpack("<2x2s8xI", index[: len(index) // 16 * 16])
    return sum(code in (b"dc", b"db") and length == 0 for code, length in entries)


def _movie_box(data: mmap.mmap) -> bytes:
    """Return the moov box of an MP4/MOV, which holds its tables, or b"" for any other file."""
    position = 0
    while position + 16 <= len(data):
        size, box, long_size = struct.unpack(">I4sQ", data[position : position + 16])
        size = long_size if size == 1 else size
        if box == b"moov":
            return data[position : position + min(size, MAX_TABLE_BYTES)]
        if size < 8:
            break
        position += size
    return b""


def _shown_fraction(moov: bytes) -> float:
    """Return the fraction of the video track that its edit list shows, or 1 without an edit list."""
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
    """Return the time units per second and the duration in units from a movie or track header."""
    at = data.index(box) + 4
    return struct.unpack_from(">20xIQ" if data[at] else ">12xII", data, at)
