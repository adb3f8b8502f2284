"""Files that appear whole or not at all."""

from __future__ import annotations

import pytest

from vad.errors import InputError
from vad.files import write_whole


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/x/a\.csv: cannot write here \(Not a directory\)"):
        write_whole(tmp_path / "file" / "x" / "a.csv", b"1")


def test_a_file_is_replaced_as_a_whole_and_told_apart_from_the_same(tmp_path):
    path = tmp_path / "new" / "a.csv"
    assert [write_whole(path, data) for data in (b"1", b"1", b"2")] == [True, False, True]
    assert path.read_bytes() == b"2" and list(path.parent.iterdir()) == [path]
