"""Input errors, exit codes of commands, and atomic file writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class InputError(ValueError):
    """An error in the user's input. The message names the file, the problem and the remedy."""


def run_command(main: Callable[[], int | None], expected: tuple[type[Exception], ...] = ()) -> None:
    """Run the main function of a command and exit with its exit code.

    0 for success (or the value `main` returns). 2 and a one-line message for an `InputError` or any of `expected`.
    130 after Ctrl-C. 141 if the output pipe is closed. Other exceptions keep their traceback.
    """
    try:
        sys.exit(main() or 0)
    except (InputError, *expected) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # closed by the reader (`| head`); without this, Python's flush at exit would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("Interrupted. Finished work is saved. Run the same command again to resume.", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` after the block, or removed if the block fails.

    Creates the parent folder. Raises InputError if the path is not writable or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write this file ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> bool:
    """Write a file atomically. Return False if it already had this content."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return True


def write_json(path: Path, content: dict[str, object]) -> bool:
    """Write a JSON object atomically. Return False if the file already had this content."""
    return write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_text(path: Path, role: str) -> str:
    """Return the UTF-8 text of a file. Error messages call the file `role`.

    Raises InputError if the file is missing, unreadable or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors add a byte-order mark
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such {role}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this {role} is not UTF-8 text. Save it as plain UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this {role} ({error.strerror})") from None
    if "\0" in text:
        raise InputError(f"{path}: this {role} is not text (it contains NUL bytes)")
    return text


def read_json(path: Path, role: str) -> dict[str, object]:
    """Return the JSON object in a file. Raises InputError as `read_text` does, and for any other content."""
    text = read_text(path, role)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this {role} is not valid JSON ({error}). Create it again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: this {role} is not a JSON object. Create it again.")
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. For a folder, hash the names and bytes of its files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
