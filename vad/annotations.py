"""Every annotation in circulation → intervals or masks → frame labels: one reader per form, not per data set.

| form    | a line                                         | whose                                             |
|---------|------------------------------------------------|---------------------------------------------------|
| class   | name, class or scene, pairs until −1 or its end | UCF-Crime's authors, the release's four files     |
| pairs   | name, pairs; abnormal videos only              | XD-Violence's authors                             |
| table   | name, scene, number of frames, pairs           | MSAD's authors; abnormal videos only              |
| masks   | folder of <video>.npy, or one .npz             | ShanghaiTech's authors; abnormal videos only      |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vad.catalog import SNIPPET_FRAMES, VIDEO_SUFFIXES, Dataset
from vad.errors import InputError
from vad.files import read_text
from vad.record import FORMS

SUFFIXES = (*sorted(suffix[1:] for suffix in VIDEO_SUFFIXES), "npy")

Interval = tuple[int, int]
Marks = tuple[Interval, ...] | np.ndarray  # what an annotation says of one video: intervals, or a mask (frames,)

# names have dots of their own (`A.Beautiful.Mind.2001__#…`), so only known suffixes end one
_SUFFIX = re.compile(rf"\.({'|'.join(SUFFIXES)})(?=[\s,]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_DIGIT = re.compile(r"[-+.]?\d")
_GAP = re.compile(r"\t\s*|\s{2,}")  # what separates fields that hold blanks themselves


def split_crop(stem: str) -> tuple[str, int | None]:
    """Video and crop of an embedding's name without suffix: the crop is the number after the *last* `__`.

    XD-Violence's names hold a `__` of their own. The crop is None where no number ends the name.
    """
    found = re.fullmatch(r"(.+)__([0-9]{1,4})", stem)
    return (found.group(1), int(found.group(2))) if found else (stem, None)


def video_name(text: str) -> str:
    """Name of a video as its embeddings carry it: without folder and suffix, and (`.npy`) without crop."""
    name = text.strip().replace("\\", "/").rsplit("/", 1)[-1]
    suffix = _SUFFIX.search(name)
    if suffix is None or suffix.end() != len(name):
        return name
    stem = name[: suffix.start()]
    return split_crop(stem)[0] if suffix.group(1).lower() == "npy" else stem


def frame_labels(marks: Marks, snippets: int) -> np.ndarray:
    """Labels (16·S,) uint8 of the frames that a video's S snippets stand for; 1 in anomalous frames.

    An interval (s, e) marks frames s … e − 1, counted from 0; a mask is taken as it is. Both are cut at 16·S.
    Raises InputError for a mask of fewer frames.
    """
    frames = SNIPPET_FRAMES * snippets
    if isinstance(marks, np.ndarray):
        if len(marks) < frames:
            raise InputError(f"a mask of {len(marks)} frames for {snippets} snippets, which stand for {frames}")
        return marks[:frames].astype(np.uint8)
    labels = np.zeros(frames, dtype=np.uint8)
    for start, end in marks:
        labels[start:end] = 1
    return labels


@dataclass(frozen=True)
class Annotation:
    """What one annotation file or folder says, video by video, under the names it uses."""

    source: Path
    form: str
    marks: Mapping[str, Marks]

    def of(self, dataset: Dataset) -> dict[str, Marks]:
        """The marks under `dataset.key` of each name; a video annotated in parts also under its own.

        Raises InputError where two names mean one video.
        """
        found: dict[str, Marks] = {}
        for name, marks in self.marks.items():
            if dataset.key(name) in found:
                raise InputError(f"{self.source}: {name} stands in it under two spellings; keep one")
            found[dataset.key(name)] = marks
        for video, parts in dataset.parts.items():
            given = [found[part] for part in parts if part in found]
            if given and video not in found and self.form != "masks":
                found[video] = tuple(interval for marks in given for interval in marks)
        return found

    @property
    def complete(self) -> bool:
        """Whether this form names every test video, normal ones too."""
        return self.form == "class"


def read_annotation(path: Path, form: str = "auto") -> Annotation:
    """Read an annotation of any form; "auto" tells the form from the lines.

    Raises InputError naming file and line.
    """
    if form != "auto" and form not in FORMS:
        raise InputError(f"unknown annotation form {form!r}; known are auto, {', '.join(FORMS)}")
    if form == "masks" or (form == "auto" and (path.is_dir() or path.suffix in (".npz", ".npy"))):
        return Annotation(path, "masks", _read_masks(path))
    lines = [(n, line) for n, line in enumerate(read_text(path, "annotation").split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: the annotation is empty")
    if form == "auto":
        # the form most lines have: one broken line is then named instead of misleading the rest
        form = Counter(_form_of(line) for _, line in lines).most_common(1)[0][0]
    marks: dict[str, Marks] = {}
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            name, intervals = _parse(line, form)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        if name in seen:
            raise InputError(f"{path}, line {number}: {name} is annotated in line {seen[name]} already; keep one")
        seen[name] = number
        marks[name] = intervals
    return Annotation(path, form, marks)


def read_names(path: Path, known: Container[str] = ()) -> list[str]:
    """Video names of a list, in its order, each once: a name a line, with or without folder, suffix, other columns.

    A CSV with the path in its first column and a list of embeddings, crop by crop, are read too. known: names
    of videos that exist, by which a name with blanks and without suffix is recognised.
    Raises InputError naming file and line.
    """
    names: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_text(path, "list of videos").split("\n"), 1):
        text = line.strip()
        if not text or (number == 1 and text.lower().startswith("path,")):
            continue
        name = _listed_name(text, known)
        if not name:
            raise InputError(f"{path}, line {number}: {text[:80]!r} holds no video name")
        first = names.setdefault(name, (number, text))
        if first[0] != number and (first[1] == text or ".npy" not in text):
            raise InputError(f"{path}, line {number}: {name} stands in line {first[0]} already; keep one")
    if not names:
        raise InputError(f"{path}: the list names no video")
    return list(names)


def _listed_name(text: str, known: Container[str]) -> str:
    suffix = _SUFFIX.search(text)
    if suffix:
        return video_name(text[: suffix.end()].lstrip('"'))
    whole = video_name(text)
    return whole if whole in known else video_name(_GAP.split(text)[0].split()[0])


def _head_and_numbers(line: str, at_least: int) -> tuple[str, str, list[int]]:
    """A line's words, the blanks behind them, and the run of whole numbers that ends it.

    at_least: how many words are no numbers whatever they look like (a video may be called `001`).
    """
    tokens = list(re.finditer(r"\S+", line))
    first = len(tokens)
    while first > at_least and _NUMBER.fullmatch(tokens[first - 1].group()):
        first -= 1
    head = line[tokens[0].start() : tokens[first - 1].end()] if first else ""
    gap = line[tokens[first - 1].end() : tokens[first].start()] if 0 < first < len(tokens) else ""
    return head, gap, [int(token.group()) for token in tokens[first:]]


def _fields_between_gaps(line: str, words: int) -> tuple[list[str], list[int]] | None:
    """The first fields of a line and the numbers behind them, where tabs or double blanks separate all of them.

    Only so a class can end in a number (`Zone 2`). None where the line is not written like that.
    """
    fields = _GAP.split(line.strip())
    numbers = " ".join(fields[words:]).split()
    if not numbers or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    if any(all(map(_NUMBER.fullmatch, field.split())) for field in fields[1:words]):
        return None  # numbers begin before: the fields in front are not separated
    return fields[:words], [int(number) for number in numbers]


def _fields_between_blanks(line: str, words: int) -> tuple[list[str] | None, list[int]]:
    """As `_fields_between_gaps` where single blanks separate; None for the fields where they cannot be told."""
    head, gap, numbers = _head_and_numbers(line, words)
    parts = _split_head(head, gap, words)
    if parts and words == 2 and any(_DIGIT.match(word) for word in parts[1].split()[1:]):
        return None, numbers  # `Arson 3 9x` is a class and a damaged number, not a class
    return parts, numbers


def _split_head(head: str, gap: str, fields: int) -> list[str] | None:
    """The words of a line as one field (name) or two (name, class); None where that cannot be told."""
    suffix = _SUFFIX.search(head)
    if fields == 1:
        with_blanks = suffix.end() == len(head) if suffix else _GAP.fullmatch(gap) and not _GAP.search(head)
        return [head] if len(head.split()) == 1 or with_blanks else None
    for parts in (_GAP.split(head), head.split()):
        if len(parts) == 2:
            return parts
    if suffix and suffix.end() < len(head):
        return [head[: suffix.end()], head[suffix.end() :].strip()]
    return None


def _before_end(numbers: Sequence[int]) -> list[int]:
    return list(numbers[: numbers.index(-1)]) if -1 in numbers else list(numbers)


def _form_of(line: str) -> str:
    by_gaps = _fields_between_gaps(line, 2)
    head, _, numbers = _head_and_numbers(line, 1)
    if not by_gaps and _split_head(head, "", 1):
        return "pairs"
    numbers = by_gaps[1] if by_gaps else numbers
    return "table" if len(_before_end(numbers)) % 2 else "class"


def _parse(line: str, form: str) -> tuple[str, tuple[Interval, ...]]:
    """Name and intervals of one line; InputError says what is wrong with it."""
    fields = 1 if form == "pairs" else 2
    parts, numbers = _fields_between_gaps(line, fields) or _fields_between_blanks(line, fields)
    shown = line.strip()[:80]
    if parts is None or not video_name(parts[0]):
        wanted = {"class": "name, class", "pairs": "name", "table": "name, scene, number of frames"}[form]
        raise InputError(f"{shown!r} is not {wanted} and whole numbers (a name with blanks needs a tab behind it)")
    if not numbers:
        raise InputError(f"{shown!r} has no frame numbers; a video without anomaly ends in -1 -1")
    values = _before_end(numbers)
    if any(number != -1 for number in numbers[len(values) :]):
        raise InputError(f"{shown!r} goes on after the -1 that ends its intervals")
    if any(value < 0 for value in values):
        raise InputError(f"{shown!r} has a negative frame number")
    total = None
    if form == "table":
        if not values:
            raise InputError(f"{shown!r} lacks the number of frames")
        total = values.pop(0)
    if len(values) % 2:
        raise InputError(f"{shown!r} has an interval without an end")
    intervals = tuple(zip(values[::2], values[1::2], strict=True))
    for start, end in intervals:
        # start = end marks nothing; two of the release's intervals are like that
        if end < start:
            raise InputError(f"the interval {start} {end} of {video_name(parts[0])} ends before it starts")
        if total is not None and end > total:
            raise InputError(f"the interval {start} {end} of {video_name(parts[0])} ends after its {total} frames")
    return video_name(parts[0]), intervals


def _read_masks(path: Path) -> dict[str, Marks]:
    """Frame masks from a folder of <video>.npy or from one .npz with a key per video."""
    masks: dict[str, Marks] = {}
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            raise InputError(f"{path}: no folder of <video>.npy masks and no .npz of them")
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        raise InputError(f"{path}: cannot read the frame masks ({error})") from None
    for name, mask in arrays.items():
        if mask.ndim != 1 or mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
            raise InputError(f"{path}: the mask of {name} is no row of zeros and ones, one a frame")
        masks[name] = mask.astype(np.uint8)
    if not masks:
        raise InputError(f"{path}: holds no <video>.npy mask")
    return masks
