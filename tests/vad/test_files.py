"""Atomic file writes, error messages of readers, and exit codes of commands."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from vad.files import (
    ROOT,
    InputError,
    atomic_write,
    read_json,
    read_text,
    run_command,
    sha256,
    write_bytes,
    write_json,
)


def test_write_replaces_the_file_and_reports_changes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    assert [write_bytes(path, data) for data in (b"1", b"1", b"2")] == [True, False, True]
    assert path.read_bytes() == b"2" and list(path.parent.iterdir()) == [path]
    assert [write_json(path, {"ü": 1}), write_json(path, {"ü": 1})] == [True, False]
    assert read_json(path, "file") == {"ü": 1}


def test_open_reader_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_bytes(path, b"new")
        assert reader.read() == b"old" and path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_write_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as part:
        part.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_unwritable_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/x/a\.csv: cannot write this file \(Not a directory\)"):
        write_bytes(tmp_path / "file" / "x" / "a.csv", b"1")
    with pytest.raises(InputError, match=r"a: cannot write this file \(No space left\)"), atomic_write(tmp_path / "a"):
        raise OSError(28, "No space left")


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no such table"),
    (b"\xff\xfe\x00", "this table is not UTF-8 text"),
    (b"a\0b", "this table is not text"),
    (b"{", "this table is not valid JSON"),
    (b"[" * 100_000, "this table is not valid JSON"),
    (b"[1]", "this table is not a JSON object"),
])  # fmt: skip
def test_unreadable_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, "table")
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1


def test_byte_order_mark_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffpath,label".encode())
    assert read_text(tmp_path / "a.txt", "list") == "path,label"
    with pytest.raises(InputError, match=r"cannot read this list \(Is a directory\)"):
        read_text(tmp_path, "list")


def test_sha256_hashes_a_file_or_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()
    before = sha256(tmp_path)
    assert before == hashlib.sha256(b"a1").hexdigest()  # name and content
    (tmp_path / "b").write_bytes(b"")
    assert sha256(tmp_path) != before


class OtherError(Exception):
    """Error class of another package."""


@pytest.mark.parametrize(("outcome", "code", "message"), [
    (None, 0, ""),
    (1, 1, ""),
    (InputError("a.csv: wrong"), 2, "error: a.csv: wrong\n"),
    (OtherError("nu must be positive"), 2, "error: nu must be positive\n"),
    (KeyboardInterrupt(), 130, "Interrupted. Finished work is saved. Run the same command again to resume.\n"),
])  # fmt: skip
def test_exception_determines_the_exit_code(outcome: object, code: int, message: str, capsys) -> None:
    def main() -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as stopped:
        run_command(main, expected=(OtherError,))
    assert stopped.value.code == code and capsys.readouterr().err == message


def test_unexpected_exception_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_closed_output_pipe_ends_the_command_silently() -> None:
    code = "from vad.files import run_command; run_command(lambda: [print('x' * 1000) for _ in range(1000)] and 0)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
