"""Two hundred malformed annotations, lists and CSVs, made by mutation: one sentence, exit 2, nothing written."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vad.catalog import UCFCRIME, XD, Dataset
from vad.errors import run_door
from vad.list_doors import generate_file, generate_gt

Lines = list[str]
Mutation = Callable[[Lines, random.Random], Lines | bytes]

# form → (data set, lines; each test video's label stands in its path)
FORMS: dict[str, tuple[Dataset, Lines]] = {
    "class": (UCFCRIME, [
        "Abuse028_x264.mp4  Abuse  16  40  -1  -1", "Arson 1 ü.mp4  Arson  3  9  20  30",
        "b__b_x264.mp4  Fighting  5  8", "Normal_003_x264.mp4  Normal  -1  -1  -1  -1",
    ]),
    "table": (UCFCRIME, [
        "Abuse028_x264 shop 50 16 40", "Arson 1 ü.mp4  road  60  3  9  20  30", "b__b_x264 road 40 5 8 -1 -1",
    ]),
    "pairs": (XD, [
        "v=a__#1_label_B1-0-0 16 40", "é film__#2_label_G-0-0.mp4 3 9 20 30", "v=b__#1_label_B2-B6-0 5 8",
    ]),
}  # fmt: skip
VIDEOS = {
    UCFCRIME.name: ["Abuse/Abuse028_x264", "Arson/Arson 1 ü", "Fighting/b__b_x264", "Normal/Normal_003_x264"],
    XD.name: ["v=a__#1_label_B1-0-0", "é film__#2_label_G-0-0", "v=b__#1_label_B2-B6-0", "v=c__#1_label_A"],
}


def _anomalous(lines: Lines, rng: random.Random) -> int:
    """Index of a line that has an interval."""
    return rng.choice([n for n, line in enumerate(lines) if "-1  -1  -1  -1" not in line])


def _tokens(line: str) -> tuple[str, Lines]:
    """A line's words as they are, and its numbers before the first -1."""
    words = line.split(" -1")[0].split(" ")
    first = next(n for n in range(len(words), 0, -1) if n < 2 or not (words[n - 1].isdecimal() or not words[n - 1]))
    return " ".join(words[:first]), [word for word in words[first:] if word]


def _with_numbers(change: Callable[[Lines, random.Random], Lines]) -> Mutation:
    def mutate(lines: Lines, rng: random.Random) -> Lines:
        at = _anomalous(lines, rng)
        head, numbers = _tokens(lines[at])
        gap = "  " if "  " in lines[at] else " "
        return [*lines[:at], gap.join([head.rstrip(), *change(numbers, rng)]), *lines[at + 1 :]]

    return mutate


def _replace_one(make: Callable[[str, random.Random], str]) -> Mutation:
    def change(numbers: Lines, rng: random.Random) -> Lines:
        at = rng.randrange(len(numbers))
        return [*numbers[:at], make(numbers[at], rng), *numbers[at + 1 :]]

    return _with_numbers(change)


def _insert(text: Lines, rng: random.Random, what: bytes) -> bytes:
    """The file with bytes put into it somewhere."""
    data = "\n".join(text).encode()
    at = rng.randrange(1, len(data))
    return data[:at] + what + data[at:]


def _double(lines: Lines, rng: random.Random) -> Lines:
    return [*lines, rng.choice(lines)]


ANNOTATION: dict[str, Mutation] = {
    "an end is lost": _with_numbers(lambda numbers, rng: numbers[:-1]),
    "the end comes first": _with_numbers(lambda numbers, rng: [*numbers[:-2], str(int(numbers[-1]) + 1), numbers[-1]]),
    "all numbers are lost": _with_numbers(lambda numbers, rng: []),
    "numbers behind the end": _with_numbers(lambda numbers, rng: [*numbers, "-1", "-1", str(rng.randrange(99)), "7"]),
    "a negative number": _replace_one(lambda number, rng: f"-{int(number) + 2}"),
    "a letter in a number": _replace_one(lambda number, rng: number + rng.choice("abcO.l") + "1"),
    "a fraction": _replace_one(lambda number, rng: f"{number}.{rng.randrange(10)}"),
    "a number without end": _replace_one(lambda number, rng: number + "9" * rng.randrange(12, 5000)),
    "other digits": _replace_one(lambda number, rng: number + "９"),
    "a line twice": _double,
    "an abnormal video is missing": lambda lines, rng: [
        line for n, line in enumerate(lines) if n != _anomalous(lines, random.Random(rng.random()))
    ][: len(lines) - 1],
    "only blanks": lambda lines, rng: [" " * rng.randrange(5)] * rng.randrange(1, 5),
    "a zero byte": lambda lines, rng: _insert(lines, rng, b"\0"),
    "not UTF-8": lambda lines, rng: _insert(lines, rng, bytes([rng.randrange(0xF8, 0x100)])),
    "UTF-16": lambda lines, rng: "\n".join(lines).encode("utf-16"),
    "a picture": lambda lines, rng: b"\x89PNG\r\n\x1a\n" + rng.randbytes(200),
}


def _row(change: Callable[[str, random.Random], str]) -> Mutation:
    def mutate(lines: Lines, rng: random.Random) -> Lines:
        at = rng.randrange(1, len(lines))
        return [*lines[:at], change(lines[at], rng), *lines[at + 1 :]]

    return mutate


CSV: dict[str, Mutation] = {
    "no header": lambda lines, rng: lines[1:],
    "another header": lambda lines, rng: [rng.choice(["file,label", "path;label", "path,class", "path"]), *lines[1:]],
    "an unknown class": _row(lambda row, rng: row.rpartition(",")[0] + "," + rng.choice(["Picnic", "", "abuse ", "-"])),
    "no crop": _row(lambda row, rng: row.replace("__5.npy", rng.choice([".npy", "__.npy", "__x.npy", "_5.npy"]))),
    "no array": _row(lambda row, rng: row.replace(".npy", rng.choice([".npz", ".mp4", "", ".npy.gz"]))),
    "a column more": _row(lambda row, rng: row + "," * rng.randrange(1, 4)),
    "a column less": _row(lambda row, rng: row.rpartition(",")[0]),
    "a row twice": lambda lines, rng: [*lines, rng.choice(lines[1:])],
    "an embedding that is not there": _row(lambda row, rng: row.replace("__5.npy", f"{rng.randrange(99)}__5.npy")),
    "a name without end": _row(lambda row, rng: row.replace("__5.npy", "x" * rng.randrange(300, 2000) + "__5.npy")),
    "a quote left open": _row(lambda row, rng: '"' + row),
    "a field without end": _row(lambda row, rng: "x" * 140_000 + row),
    "only a header": lambda lines, rng: lines[:1],
    "nothing": lambda lines, rng: [""],
    "a zero byte": lambda lines, rng: _insert(lines, rng, b"\0"),
    "not UTF-8": lambda lines, rng: _insert(lines, rng, b"\xff"),
    "a picture": lambda lines, rng: b"\x89PNG\r\n\x1a\n" + rng.randbytes(200),
}  # fmt: skip
NAMES: dict[str, Mutation] = {
    "a name twice": _double,
    "a video that is not there": lambda lines, rng: [*lines, f"Abuse{rng.randrange(100, 999)}_x264.mp4"],
    "a folder without a name": lambda lines, rng: [*lines, "Abuse/"],
    "a training video": lambda lines, rng: [*lines, "Robbery/Robbery001_x264.mp4"],
    "only blanks": lambda lines, rng: [" "] * rng.randrange(1, 5),
    "a zero byte": lambda lines, rng: _insert(lines, rng, b"\0"),
    "not UTF-8": lambda lines, rng: _insert(lines, rng, b"\xfe"),
    "UTF-16": lambda lines, rng: "\n".join(lines).encode("utf-16"),
}
EACH = {"annotation": 3, "csv": 3, "names": 2}  # mutants of every kind
COUNT = EACH["annotation"] * len(ANNOTATION) * len(FORMS) + EACH["csv"] * len(CSV) + EACH["names"] * len(NAMES)


class Place:
    """Embeddings of one data set, and its doors run in this process."""

    def __init__(self, root: Path, dataset: Dataset, capsys, monkeypatch) -> None:
        self.root, self.dataset, self._capsys, self._monkeypatch = root, dataset, capsys, monkeypatch
        for video in [*VIDEOS[dataset.name], *(["Robbery/Robbery001_x264"] if dataset is UCFCRIME else [])]:
            path = root / "rgb" / f"{video}__5.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((3, 4), np.float32))
        (root / "out").mkdir()
        paths = [f"rgb/{video}__5.npy" for video in VIDEOS[dataset.name]]
        self.csv = ["path,label", *(f"{path},{dataset.label_of(path)}" for path in paths)]
        (root / "test.csv").write_text("\n".join(self.csv) + "\n", encoding="utf-8")

    def write(self, name: str, content: Lines | bytes) -> Path:
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
        return path

    def run(self, door: Callable[[str], None], **flags: Path) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        typed = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        self._monkeypatch.setattr(sys, "argv", ["door.py", *typed])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_door(lambda: door(self.dataset.name))
        printed = self._capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    def truth(self, annotation: Path, csv: Path | None = None) -> tuple[int, str, str]:
        """generate_gt into out/."""
        return self.run(
            generate_gt, csv_path=csv or self.root / "test.csv", save_path=self.root / "out",
            annotation_path=annotation, feature_root=self.root,
        )  # fmt: skip

    def lists(self, test_list: Path) -> tuple[int, str, str]:
        """generate_file into out/."""
        train = self.write("train.txt", ["Robbery001_x264"])
        return self.run(
            generate_file, base_path=self.root / "rgb", train_list=train, test_list=test_list,
            train_save_path=self.root / "out/train.csv", test_save_path=self.root / "out/test.csv",
        )  # fmt: skip

    def refused(self, outcome: tuple[int, str, str], what: str) -> None:
        """One sentence, exit 2, nothing written."""
        code, out, err = outcome
        assert code == 2, f"{what}: {out}{err}"
        assert err.startswith("error: ") and len(err.splitlines()) == 1, f"{what}: {err}"
        assert len(err) < 7000 and not out
        assert not list((self.root / "out").iterdir()), what


@pytest.mark.parametrize("form", FORMS)
def test_malformed_annotations(tmp_path: Path, capsys, monkeypatch, form: str) -> None:
    dataset, lines = FORMS[form]
    place = Place(tmp_path, dataset, capsys, monkeypatch)
    for kind, mutate in ANNOTATION.items():
        for seed in range(EACH["annotation"]):
            content = mutate(lines, random.Random(f"{form} {kind} {seed}"))
            place.refused(place.truth(place.write("a.txt", content)), f"{kind}, {seed}: {content[:4]}")
    assert place.truth(place.write("a.txt", lines))[0] == 0  # what was mutated is good
    assert int(np.load(tmp_path / "out/gt.npy").sum()) == 24 + 6 + 10 + 3


def test_malformed_csvs(tmp_path: Path, capsys, monkeypatch) -> None:
    dataset, lines = FORMS["class"]
    place = Place(tmp_path, dataset, capsys, monkeypatch)
    annotation = place.write("a.txt", lines)
    for kind, mutate in CSV.items():
        for seed in range(EACH["csv"]):
            content = mutate(place.csv, random.Random(f"{kind} {seed}"))
            place.refused(place.truth(annotation, place.write("bad.csv", content)), f"{kind}, {seed}: {content[:4]}")


def test_malformed_lists(tmp_path: Path, capsys, monkeypatch) -> None:
    place = Place(tmp_path, UCFCRIME, capsys, monkeypatch)
    good = [f"{video}.mp4" for video in VIDEOS[UCFCRIME.name]]
    for kind, mutate in NAMES.items():
        for seed in range(EACH["names"]):
            content = mutate(good, random.Random(f"{kind} {seed}"))
            place.refused(place.lists(place.write("bad.txt", content)), f"{kind}, {seed}: {content[:4]}")
    assert place.lists(place.write("good.txt", good))[0] == 0


def test_there_are_two_hundred() -> None:
    assert COUNT >= 200


@pytest.mark.parametrize("form", FORMS)
def test_any_mutation_is_read_or_refused(tmp_path: Path, capsys, monkeypatch, form: str) -> None:
    """Bytes changed, lost and doubled at random, in annotation and CSV: never a traceback, nothing half written."""
    dataset, lines = FORMS[form]
    place = Place(tmp_path, dataset, capsys, monkeypatch)
    good, csv = "\n".join(lines).encode(), (tmp_path / "test.csv").read_bytes()
    rng = random.Random(form)
    outcomes = set()
    for number in range(60):
        data = bytearray(good if number % 2 else csv)
        for _ in range(rng.randrange(1, 4)):
            at, what = rng.randrange(len(data)), rng.randrange(3)
            other = rng.choice([b"\t", b" ", b",", b"\n", b"0"])
            data[at : at + (what < 2)] = bytes(data[at : at + 9]) if what else other
        annotation = place.write("a.txt", bytes(data) if number % 2 else good)
        outcome = place.truth(annotation, place.write("bad.csv", csv if number % 2 else bytes(data)))
        outcomes.add(outcome[0])
        if outcome[0] == 0:
            written = {path.name for path in (tmp_path / "out").iterdir()}
            assert written == {"gt.npy", "gt.json"}
            for name in written:
                (tmp_path / "out" / name).unlink()
        else:
            place.refused(outcome, repr(bytes(data)))
    assert outcomes == {0, 2}
