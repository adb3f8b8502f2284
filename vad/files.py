"""Small file work that several rooms need: text with a sentence for what is wrong, whole files or none, hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from vad.errors import InputError


def read_text(path: Path, what: str) -> str:
    """Text of a file; `what` names it in the sentence that a missing or unreadable one ends in.

    Raises InputError where there is no such file, it cannot be read, or it is not UTF-8 text.
    """
    try:
        # a byte-order mark, which Windows editors leave, is no part of the first name
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {what}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this {what} is not UTF-8 text; save it as plain UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what} ({error.strerror})") from None
    if "\0" in text:
        raise InputError(f"{path}: this {what} is not text (it holds zero bytes)")
    return text


def read_json(path: Path, what: str) -> dict[str, object]:
    """The JSON object in a file; InputError as `read_text`, and where the text is no JSON object."""
    try:
        content = json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: this {what} is not valid JSON ({error}); make it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: this {what} holds no JSON object; make it again")
    return content


def write_whole(path: Path, data: bytes) -> bool:
    """Write a file completely or not at all; returns False where it already held exactly this.

    Raises InputError where the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):  # where the folder is none, there is nothing to remove either
            temporary.unlink()
    return True


def write_json(path: Path, content: dict[str, object]) -> bool:
    """As `write_whole`, for a JSON object."""
    return write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a folder, over the names and bytes of the files in it."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
