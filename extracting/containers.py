"""How many bytes a video file lacks by the sizes that its own container states: what tells a cut copy."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = bytes.fromhex("1A45DFA3"), bytes.fromhex("18538067")
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")


def bytes_missing(path: Path) -> int:
    """Bytes that are missing at the end of an MP4/MOV, AVI or Matroska/WebM file; at least 1 where its index is gone.

    0 where nothing is missing, and for a file that does not say how long it is. Raises OSError if it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] in _FIRST_BOXES:
            return _boxes(file, size)
        if start[:4] == b"RIFF" and start[8:] == b"AVI ":
            return _riff(file, size)
        if start[:4] == _EBML:
            return _matroska(file, size)
    return 0


def _boxes(file: BinaryIO, size: int) -> int:
    """ISO base media file: boxes of a 32- or 64-bit size and a type, one behind the other."""
    position, types = 0, set()
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return 1  # inside the head of a box
        length, kind = struct.unpack(">I4s", head[:8])
        types.add(kind)
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        elif length == 0:  # to the end of the file
            break
        if length < 8 or not kind.isascii():
            return 0  # no box: damaged, not cut
        position += length
    # the index comes last unless the file was made for streaming: without it the end was never copied
    return max(position - size, 0) or int(b"moov" not in types)


def _riff(file: BinaryIO, size: int) -> int:
    """AVI: RIFF chunks, several in long files."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length == 0:
            return 0
        position += 8 + length + length % 2
    return position - size if position - size > 1 else 0  # the padding byte at the very end may lack


def _matroska(file: BinaryIO, size: int) -> int:
    """Matroska: a header element, then the segment, whose size may be left open."""
    file.seek(4)
    header = _vint(file)
    if header is None:
        return 1
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    segment = _vint(file)
    return 0 if segment is None else max(file.tell() + segment - size, 0)


def _vint(file: BinaryIO) -> int | None:
    """Matroska's number of variable length; None where it says "unknown" or the file ends."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    bits = 7 * (more + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if len(rest) < more or value == (1 << bits) - 1 else value
