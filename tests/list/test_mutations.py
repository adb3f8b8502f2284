"""Malformed tables, lists and CSVs made by mutation: the commands print one line, exit with 2 and write nothing."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vad.files import run_command

Lines = list[str]
Mutation = Callable[[Lines, random.Random], Lines | bytes]
MUTANTS = 3  # per mutation

TABLE = [
    "video,alias,label,official,frames,intervals",
    "Abuse028,Abuse028_x264,Abuse,test,60,16-40",
    "Arson 1 ü,,Arson,test,,3-9 20-30",
    "b__b,,Fighting,test,,5-8",
    "Normal_003,,Normal,test,48,",
    "Robbery001,,Robbery,train,,",
]
VIDEOS = ["Abuse/Abuse028_x264", "Arson/Arson 1 ü", "Fighting/b__b", "Normal/Normal_003"]
CSV = ["path,label", *(f"rgb/{video}__5.npy,{video.split('/')[0]}" for video in VIDEOS)]
NAMES = [f"{video}.mp4" for video in VIDEOS]


def insert(lines: Lines, rng: random.Random, inserted: bytes) -> bytes:
    """Return the file with bytes inserted at a random position."""
    data = "\n".join(lines).encode()
    at = rng.randrange(1, len(data))
    return data[:at] + inserted + data[at:]


def change_row(change: Callable[[str, random.Random], str], first: int, last: int) -> Mutation:
    """Return a mutation that changes one of the rows first … last."""

    def mutate(lines: Lines, rng: random.Random) -> Lines:
        at = rng.randint(first, last)
        return [*lines[:at], change(lines[at], rng), *lines[at + 1 :]]

    return mutate


def intervals(change: Callable[[str, random.Random], str]) -> Mutation:
    """Return a mutation that changes the intervals of an anomalous test video."""

    def mutate(row: str, rng: random.Random) -> str:
        head, _, cell = row.rpartition(",")
        return f"{head},{change(cell, rng)}"

    return change_row(mutate, 1, 3)


BYTES: dict[str, Mutation] = {
    "a zero byte": lambda lines, rng: insert(lines, rng, b"\0"),
    "not UTF-8": lambda lines, rng: insert(lines, rng, bytes([rng.randrange(0xF8, 0x100)])),
    "UTF-16": lambda lines, rng: "\n".join(lines).encode("utf-16"),
    "a picture": lambda lines, rng: b"\x89PNG\r\n\x1a\n" + rng.randbytes(200),
    "only blanks": lambda lines, rng: [" " * rng.randrange(5)] * rng.randrange(1, 5),
    "a page that says 404": lambda lines, rng: ["<!DOCTYPE html>", "<title>404</title>", "<p>Not found</p>"],
}
TABLES: dict[str, Mutation] = BYTES | {
    "an end is lost": intervals(lambda cell, rng: cell.rpartition("-")[0]),
    "the end comes first": intervals(lambda cell, rng: "90-" + cell.partition("-")[2]),
    "all numbers are lost": intervals(lambda cell, rng: ""),
    "a negative number": intervals(lambda cell, rng: f"-{cell}"),
    "a letter in a number": intervals(lambda cell, rng: cell + rng.choice("abcO.l") + "1"),
    "a fraction": intervals(lambda cell, rng: cell.replace("-", f".{rng.randrange(10)}-")),
    "a number without end": intervals(lambda cell, rng: cell + "9" * rng.randrange(12, 5000)),
    "other digits": intervals(lambda cell, rng: cell + "９"),
    "after the end of the video": intervals(lambda cell, rng: f"{rng.randrange(64, 999)}-{rng.randrange(1000, 5000)}"),
    "another side": change_row(lambda row, rng: row.replace(",test,", f",{rng.choice(['tset', 'Test', '1'])},"), 1, 4),
    "an unknown class": change_row(lambda row, rng: row.replace(",test,", f"{rng.choice('xyz')},test,"), 1, 4),
    "no number of frames": change_row(lambda row, rng: row.replace(",60,", ",6o,").replace(",,Ar", ",,Arr"), 1, 2),
    "a normal video with an anomaly": change_row(lambda row, rng: f"{row}1-{rng.randrange(2, 40)}", 4, 4),
    "a row twice": lambda lines, rng: [*lines, rng.choice(lines[1:])],
    "a test video is missing": change_row(lambda row, rng: f"other{row}", 2, 4),
    "a column more": change_row(lambda row, rng: f"{row},7", 1, 4),
    "another header": lambda lines, rng: [rng.choice(["name,label", "video;label", "video"]), *lines[1:]],
}
CSVS: dict[str, Mutation] = BYTES | {
    "no header": lambda lines, rng: lines[1:],
    "another header": lambda lines, rng: [rng.choice(["file,label", "path;label", "path,class", "path"]), *lines[1:]],
    "an unknown class": change_row(lambda r, rng: r.rpartition(",")[0] + rng.choice([",Picnic", ",", ",abuse "]), 1, 4),
    "no crop": change_row(lambda r, rng: r.replace("__5.npy", rng.choice([".npy", "__.npy", "__x.npy"])), 1, 4),
    "no array": change_row(lambda r, rng: r.replace(".npy", rng.choice([".npz", ".mp4", "", ".npy.gz"])), 1, 4),
    "a column more": change_row(lambda r, rng: r + "," * rng.randrange(1, 4), 1, 4),
    "a column less": change_row(lambda r, rng: r.rpartition(",")[0], 1, 4),
    "a row twice": lambda lines, rng: [*lines, rng.choice(lines[1:])],
    "an embedding that is not there": change_row(lambda r, rng: r.replace("__5", f"{rng.randrange(99)}__5"), 1, 4),
    "a name without end": change_row(lambda r, rng: r.replace("__5", "x" * rng.randrange(300, 2000) + "__5"), 1, 4),
    "a quote left open": change_row(lambda r, rng: f'"{r}', 1, 4),
    "a field without end": change_row(lambda r, rng: "x" * 140_000 + r, 1, 4),
    "only a header": lambda lines, rng: lines[:1],
}
LISTS: dict[str, Mutation] = BYTES | {
    "a name twice": lambda lines, rng: [*lines, rng.choice(lines)],
    "a video that is not there": lambda lines, rng: [*lines, f"Abuse{rng.randrange(100, 999)}_x264.mp4"],
    "a folder without a name": lambda lines, rng: [*lines, "Abuse/"],
    "a training video": lambda lines, rng: [*lines, "Robbery/Robbery001.mp4"],
    "all on one line": lambda lines, rng: [rng.choice([" ", ",", ", "]).join(lines)],
}


class Place:
    """A data set of five videos with embeddings, whose commands run in this process."""

    def __init__(self, root: Path, capsys, monkeypatch) -> None:
        self.root, self.capsys, self.monkeypatch = root, capsys, monkeypatch
        for video in [*VIDEOS, "Robbery/Robbery001"]:
            path = root / "rgb" / f"{video}__5.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((3, 4), np.float32))
        classes = '["Abuse", "Arson", "Fighting", "Robbery"]'
        self.write("street.toml", [f'name = "street"\nnormal = "Normal"\nclasses = {classes}'])
        self.write("annotations.csv", TABLE)
        self.write("test.csv", CSV)
        (root / "out").mkdir()

    def write(self, name: str, content: Lines | bytes) -> Path:
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        return path

    def run(self, script: str, **flags: Path) -> tuple[int, str, str]:
        """Run list/generate_<script>.py and return its exit code, stdout and stderr."""
        path = Path(__file__).resolve().parents[2] / "list" / f"generate_{script}.py"
        spec = importlib.util.spec_from_file_location(f"generate_{script}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        self.monkeypatch.setattr(sys, "argv", [path.name, "--dataset", str(self.root / "street.toml"), *arguments])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            run_command(module.main)
        printed = self.capsys.readouterr()
        return exit_info.value.code, printed.out, printed.err

    def gt(self) -> tuple[int, str, str]:
        return self.run("gt", csv_path=self.root / "test.csv", save_path=self.root / "out", feature_root=self.root)

    def lists(self, **flags: Path) -> tuple[int, str, str]:
        paths = {f"{side}_save_path": self.root / f"out/{side}.csv" for side in ("train", "test")}
        return self.run("file", base_path=self.root / "rgb", **paths, **flags)

    def assert_refused(self, outcome: tuple[int, str, str], mutant: str) -> None:
        """Assert one line of error, exit code 2, and no written file."""
        code, out, err = outcome
        assert code == 2, f"{mutant}: {out}{err}"
        assert err.startswith("error: ") and len(err.splitlines()) == 1, f"{mutant}: {err}"
        assert len(err) < 7000 and not out
        assert not list((self.root / "out").iterdir()), mutant


@pytest.fixture
def place(tmp_path: Path, capsys, monkeypatch) -> Place:
    return Place(tmp_path, capsys, monkeypatch)


def mutants(mutations: dict[str, Mutation], lines: Lines) -> list[tuple[str, Lines | bytes]]:
    return [(f"{name}, {seed}", mutate(lines, random.Random(f"{name} {seed}")))
            for name, mutate in mutations.items() for seed in range(MUTANTS)]  # fmt: skip


def test_malformed_tables_are_refused(place: Place) -> None:
    for name, content in mutants(TABLES, TABLE):
        place.write("annotations.csv", content)
        place.assert_refused(place.gt(), f"{name}: {content[:4]}")
    place.write("annotations.csv", TABLE)
    assert place.gt()[0] == 0  # the unmutated table is valid
    assert int(np.load(place.root / "out/gt.npy").sum()) == 24 + 6 + 10 + 3


def test_malformed_csvs_are_refused(place: Place) -> None:
    for name, content in mutants(CSVS, CSV):
        place.write("test.csv", content)
        place.assert_refused(place.gt(), f"{name}: {content[:4]}")


def test_malformed_lists_are_refused(place: Place) -> None:
    for name, content in mutants(LISTS, NAMES):
        place.assert_refused(place.lists(test_list=place.write("list.txt", content)), f"{name}: {content[:4]}")
    assert place.lists(test_list=place.write("list.txt", NAMES))[0] == 0


def test_any_mutation_is_read_or_refused(place: Place) -> None:
    """Random bytes of table or CSV are changed, deleted or repeated: no traceback and no partial output."""
    rng, outcomes = random.Random(0), set()
    files = {"annotations.csv": TABLE, "test.csv": CSV}
    for number in range(120):
        name = ("annotations.csv", "test.csv")[number % 2]
        data = bytearray("\n".join(files[name]).encode())
        for _ in range(rng.randrange(1, 3)):
            at, operation = rng.randrange(len(data)), rng.randrange(3)
            replacement = rng.choice([b"\t", b" ", b",", b"\n", b"0"])
            data[at : at + (operation < 2)] = bytes(data[at : at + 9]) if operation else replacement
        for file, lines in files.items():
            place.write(file, bytes(data) if file == name else lines)
        outcome = place.gt()
        outcomes.add(outcome[0])
        if outcome[0]:
            place.assert_refused(outcome, repr(bytes(data)))
            continue
        assert {path.name for path in (place.root / "out").iterdir()} == {"gt.npy", "gt.json"}
        for path in (place.root / "out").iterdir():
            path.unlink()
    assert outcomes == {0, 2}
