"""Input errors, exit codes of commands, and files that are written whole or not at all."""

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
    """A mistake in the user's input; the message names the file, what is wrong and what to do."""


def run_command(main: Callable[[], int | None], expected: tuple[type[Exception], ...] = ()) -> None:
    """Run the body of a command and turn its outcome into an exit code.

    0 for success (or what `main` returns). 2 with one sentence for an `InputError` or any of `expected`.
    130 after Ctrl-C. 141 where the reader of the output is gone. Other exceptions keep their traceback.
    """
    try:
        sys.exit(main() or 0)
    except (InputError, *expected) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # the reader is gone (`| head`); Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted: finished work is kept; run the same command again to resume", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it at the end of the block, removed where the block fails.

    Creates the folder. Raises InputError where the place cannot be written to or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> bool:
    """Write a file whole or not at all; returns False where it already held these bytes."""
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return True


def write_json(path: Path, content: dict[str, object]) -> bool:
    """As `write_bytes`, for a JSON object."""
    return write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_text(path: Path, what: str) -> str:
    """UTF-8 text of a file; `what` names the file in the error.

    Raises InputError where the file is missing, unreadable or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte-order mark
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
    """The JSON object in a file; raises InputError as `read_text`, and where it is no JSON object."""
    text = read_text(path, what)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this {what} is not valid JSON ({error}); make it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: this {what} holds no JSON object; make it again")
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; of a folder, over the names and bytes of its files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
