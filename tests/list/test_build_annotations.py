"""The tables of the four data sets are reproduced from their sources."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def builder():
    path = ROOT / "list" / "build_annotations.py"
    spec = importlib.util.spec_from_file_location("build_annotations", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", ["ucf", "xd", "shang", "msad"])
def test_tables_are_reproduced_byte_for_byte(builder, realdata: Path, folder: str) -> None:
    made = builder.as_csv(folder, builder.TABLES[folder](realdata)).encode()
    assert made == (ROOT / "list" / folder / "annotations.csv").read_bytes()


def test_command_prints_which_tables_changed(builder, realdata: Path, tmp_path, monkeypatch, capsys) -> None:
    flags = ["build_annotations.py", str(realdata), "--out", str(tmp_path)]
    for outcome in ("written", "unchanged"):
        monkeypatch.setattr("sys.argv", flags)
        builder.main()
        assert capsys.readouterr().out.count(f"videos, {outcome}\n") == 4


def test_missing_source_folder_is_refused(builder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["build_annotations.py", str(tmp_path / "none")])
    with pytest.raises(builder.InputError, match=r"none does not exist\. Give the folder of the sources"):
        builder.main()
