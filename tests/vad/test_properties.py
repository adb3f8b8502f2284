"""Property tests: arbitrary names survive the pipeline, arbitrary files are read or refused in one line."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vad.data import read_list
from vad.datasets import Dataset, load_dataset
from vad.files import InputError
from vad.prepare.ground_truth import load_ground_truth, make_ground_truth
from vad.prepare.lists import make_lists, read_names

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# letters of several alphabets, blanks, and parts of real names
PARTS = st.sampled_from(
    ["a", "Z", "7", "ü", "é", "语", "я", "-", "#", "=", ".", "__", "_", " ", "(1)", "'", "__5", "label_A", "&", ","]
)
# a name does not start or end with a blank or a dot
NAMES = st.lists(PARTS, min_size=1, max_size=6).map(lambda parts: "v" + "".join(parts).rstrip(" ."))
TOML = 'name = "mine"\nnormal = "Normal"\n'


def make_dataset(folder: Path, classes: list[str], rows: list[tuple[str, ...]]) -> Dataset:
    """Write and load a custom data set with these rows of video, label, official and intervals."""
    quoted = ", ".join(f"'''{label}'''" for label in classes)
    (folder / "dataset.toml").write_text(f"{TOML}classes = [{quoted}]\n", encoding="utf-8")
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("video", "label", "official", "intervals"), *rows])
    return load_dataset(str(folder))


@QUICK
@given(st.dictionaries(NAMES, st.sampled_from([0, 1, 2]), min_size=2, max_size=5), NAMES, NAMES)
def test_lists_and_ground_truth_accept_arbitrary_names(videos: dict[str, int], one: str, two: str) -> None:
    """Lists and frame labels follow the order of the table for arbitrary class and video names."""
    assume(one != two and not any("'" in label for label in (one, two)))
    labels = {name: ("Normal", one, two)[index] for name, index in videos.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, (name, label) in enumerate([*labels.items(), ("train", "Normal"), ("other", one)], 1):
            path = folder / "rgb" / label / f"{name}__5.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((number, 2)))
        order = sorted(labels, key=lambda name: name[::-1])
        rows = [(name, labels[name], "test", "" if labels[name] == "Normal" else "3-9") for name in order]
        rows += [("train", "Normal", "train", ""), ("other", one, "train", "")]
        dataset = make_dataset(folder, [one, two], rows)
        make_lists(dataset, "official", folder / "rgb", folder / "train.csv", folder / "test.csv")
        listed = read_list(folder / "test.csv", dataset)
        assert [(row.video, row.label) for row in listed] == [(name, labels[name]) for name in order]
        make_ground_truth(dataset, "official", folder / "test.csv", folder)
        snippets = {name: number for number, name in enumerate(labels, 1)}
        truth, _ = load_ground_truth(folder / "gt.npy", [(name, snippets[name]) for name in order], dataset)
        assert [np.flatnonzero(part).tolist() for part in truth] == [
            [] if labels[name] == "Normal" else list(range(3, 9)) for name in order
        ]


def read_toml(path: Path) -> object:
    return load_dataset(str(path))


def read_table(path: Path) -> object:
    path.rename(path.parent / "annotations.csv")
    (path.parent / "dataset.toml").write_text(f'{TOML}classes = ["Abuse"]\n')
    return load_dataset(str(path.parent)).videos


READERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "data set": (read_toml, "file.toml", TOML),
    "table": (read_table, "annotations.csv", "video,label,official,frames,intervals\nx,Normal,train,,\n"),
    "names": (lambda path: read_names(path, load_dataset("ucfcrime")), "file.txt", ""),
}
# fragments with a meaning for some reader, so that more than the first characters are parsed
PIECES = st.lists(
    st.sampled_from([
        "a", "b.mp4", "Abuse", "Normal", "train", "-1", "0", "12", "7-30", "30-7", "1e5", "９", "\t", " ", "\n", "\r",
        "\r\n", '"', ",", "a,Abuse,test,,3-9\n", "\x0b", "\x1c", "\u2028", "\x85", "\ufeff", "{", "[", "]", "=", ":",
        "'''", "classes = ['Abuse']\n", "\\", "/", "\0",
    ]) | st.text(max_size=3),
    max_size=25,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@QUICK
@given(content=PIECES.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60))
def test_arbitrary_content_is_read_or_refused_in_one_line(reader: str, content: bytes) -> None:
    read, name, prefix = READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(prefix.encode() + content)
        try:
            read(path)
        except InputError as error:
            assert name in str(error) and len(str(error).splitlines()) == 1, str(error)
