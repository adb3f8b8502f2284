"""Whatever the text: what is written well is read back, what is not is one sentence and no other exception."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vad.annotations import SUFFIXES, frame_labels, read_annotation, read_names, split_crop, video_name
from vad.catalog import DEMO, UCFCRIME, dataset
from vad.errors import InputError
from vad.frame_counts import read_counts
from vad.lists import read_csv
from vad.splits import ListRequest, make_lists
from vad.truth import TruthRequest, make_ground_truth

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# letters of several alphabets, blanks, and what real names hold; the first character is never a blank or a dot
PARTS = st.sampled_from(
    ["a", "Z", "7", "ü", "é", "语", "я", "-", "#", "=", ".", "__", "_", " ", "(1)", "'", "__5", "label_A", "&"]
)
# a name of digits alone is a number to a reader of lines, and a name may not end as a suffix or a crop does
NAMES = (
    st.lists(PARTS, min_size=1, max_size=6)
    .map(lambda parts: "v" + "".join(parts).rstrip(" ."))
    .filter(lambda name: "  " not in name)
)
CLASSES = NAMES.filter(lambda name: not name.endswith("__5"))
INTERVALS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 300)), max_size=4).map(
    lambda pairs: tuple((start, start + length) for start, length in pairs)
)


def _read(read: Callable[[Path], object], content: str | bytes, suffix: str = ".txt") -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return read(path)


@QUICK
@given(
    st.dictionaries(NAMES, st.tuples(CLASSES, INTERVALS), min_size=1, max_size=5),
    st.sampled_from(["", *(f".{suffix}" for suffix in SUFFIXES if suffix != "npy")]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.integers(0, 3),
    st.sampled_from(["class", "pairs", "table"]),
)
def test_annotations_are_read_back_whatever_the_names(videos, suffix, newline, ends, form) -> None:
    lines = []
    for name, (label, intervals) in videos.items():
        numbers = [str(n) for interval in intervals for n in interval] + ["-1"] * (ends or not intervals)
        between = {"class": [label], "pairs": [], "table": [label, "9999"]}[form]
        lines.append("\t".join([name + suffix, *between, *numbers]))
    annotation = _read(lambda path: read_annotation(path, form), newline.join(lines))
    assert dict(annotation.marks) == {name: intervals for name, (_, intervals) in videos.items()}


@QUICK
@given(INTERVALS, st.integers(0, 40))
def test_interval_edges(intervals, snippets: int) -> None:
    labels = frame_labels(intervals, snippets)
    marked = {frame for start, end in intervals for frame in range(start, end)}
    assert len(labels) == 16 * snippets
    assert set(np.flatnonzero(labels)) == {frame for frame in marked if frame < 16 * snippets}
    for start, end in intervals:
        if start < end <= 16 * snippets:
            assert labels[start] == labels[end - 1] == 1
            assert end == 16 * snippets or labels[end] == (end in marked)


@given(NAMES, st.integers(0, 9))
def test_the_crop_is_behind_the_last_two_underscores(name: str, crop: int) -> None:
    assert split_crop(f"{name}__{crop}") == (name, crop)
    assert video_name(f"/some/where/{name}__{crop}.npy") == name


@QUICK
@given(st.dictionaries(NAMES, st.sampled_from([0, 1, 2]), min_size=2, max_size=5), CLASSES, CLASSES)
def test_from_embeddings_to_ground_truth_whatever_the_names(videos, first: str, second: str) -> None:
    """Class folders and videos of any name: through lists and CSV to frame labels, in the list's order."""
    assume(first != second and {first, second}.isdisjoint({"Normal"}))
    # the released split of UCF-Crime has no training list: what is not tested trains
    mine = replace(DEMO, classes={first: first, second: second}, annotations=UCFCRIME.annotations)
    labels = dict(zip(videos, [("Normal", first, second)[n] for n in videos.values()], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, (name, label) in enumerate(labels.items(), 1):
            path = root / "rgb" / label / f"{name}__5.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((number, 2)))
        order = sorted(labels, key=lambda name: name[::-1])
        (root / "test.txt").write_text("".join(f"{name}.mp4\n" for name in order), encoding="utf-8")
        marks = {name: "-1 -1" if labels[name] == "Normal" else "3 9" for name in order}
        (root / "a.txt").write_text("".join(f"{n}.mp4\t{labels[n]}\t{m}\n" for n, m in marks.items()), encoding="utf-8")
        ask = ListRequest(mine, "released", root / "rgb", root / "train.csv", root / "test.csv",
                          test_list=root / "test.txt")  # fmt: skip
        make_lists(ask)
        rows = read_csv(root / "test.csv", mine)
        assert [(row.video, row.label) for row in rows] == [(name, labels[name]) for name in order]
        make_ground_truth(TruthRequest(mine, "official", root / "test.csv", root, root / "a.txt"))
        sizes = {name: 16 * number for number, name in enumerate(labels, 1)}
        truth = np.split(np.load(root / "gt.npy"), np.cumsum([sizes[name] for name in order])[:-1])
        expected = [[] if labels[name] == "Normal" else list(range(3, 9)) for name in order]
        assert [np.flatnonzero(part).tolist() for part in truth] == expected


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "annotation": (read_annotation, ".txt"),
    "pairs": (lambda path: read_annotation(path, "pairs"), ".txt"),
    "masks": (read_annotation, ".npz"),
    "names": (read_names, ".txt"),
    "csv": (lambda path: read_csv(path, UCFCRIME), ".csv"),
    "data set": (lambda path: dataset(str(path)), ".toml"),
    "counts": (lambda path: read_counts(path, UCFCRIME), ".json"),
}
# pieces that have a meaning to one reader or another, so that chance does not stop at the first character
PIECES = st.lists(
    st.sampled_from([
        "a", "b.mp4", "Abuse", "-1", "0", "12", "7 3", "1e5", "９", "\t", " ", "\n", "\r", "\r\n", '"', ",",
        "path,label",
        "rgb/x__5.npy", "\x0b", "\x1c", "\u2028", "\x85", "\ufeff", "{", "[", "]", "=", '"video"', ":", "'''", "\\",
        "/",
    ]) | st.text(max_size=3),
    max_size=25,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@QUICK
@given(content=PIECES | st.binary(max_size=60))
def test_any_content_is_read_or_refused_in_one_sentence(reader: str, content: str | bytes) -> None:
    read, suffix = READERS[reader]
    try:
        _read(read, content, suffix)
    except InputError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        assert f"file{suffix}" in str(error)
