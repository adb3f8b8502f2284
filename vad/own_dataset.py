"""One's own data set: a small TOML file read into the record that the built-in data sets have (list/README.md)."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from vad.errors import InputError
from vad.files import read_text
from vad.record import FORMS, Annotations, Dataset, Recipe

TOML = ".toml"
METRICS = ("AUC", "AP")
FOLDERS = {"videos": "videos", "embeddings": ".", "lists": "lists", "annotations": "."}  # relative to the file

Table = Mapping[str, object]

# key → (type, in words); what a key means stands in list/README.md
_TOP = {
    "name": (str, "text"),
    "title": (str, "text"),
    "normal": (str, "text"),
    "metric": (str, "text"),
    "encoder": (str, "text"),
    "name_suffix": (str, "text"),
    "fps": ((int, float), "a number"),
    "window": (int, "a whole number"),
    "label_in_name": (bool, "true or false"),
    "classes": ((list, dict), "a list of labels, or a table label = name"),
    "folder_labels": (dict, "a table folder = label"),
    "event_folders": (list, "a list of folder names"),
    "folders": (dict, "a table"),
    "annotation": (dict, "a table"),
    "training": (dict, "a table"),
}
_ANNOTATION = {key: (str, "text") for key in ("file", "form", "train_list", "test_list")}
_NUMBER = ((int, float), "a number")
_TRAINING = {
    "batch_size": (int, "a whole number"),
    "paired": (bool, "true or false"),
    "lr": _NUMBER,
    "max_epoch": (int, "a whole number"),
    "scheduler_milestones": (list, "a list of epochs"),
    "scheduler_rate": _NUMBER,
    "print_steps": (int, "a whole number"),
}


def read_dataset(path: Path, taken: tuple[str, ...] = ()) -> Dataset:
    """The record of a TOML file. taken: names of data sets that it may not have.

    Folders are relative to the file. Both splits are the file's lists: one's own data has no other.
    Raises InputError for what is missing, unknown or of the wrong kind, naming file and key.
    """
    path = path.expanduser()
    try:
        table = tomllib.loads(read_text(path, "data set file"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: this data set file is not valid TOML ({error})") from None
    try:
        return _record(path.absolute(), table, taken)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _record(path: Path, table: Table, taken: tuple[str, ...]) -> Dataset:
    _check_table(table, _TOP, "", needed=("name", "normal", "classes", "annotation"))
    name = str(table["name"])
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith("."):
        raise InputError(f"name is {name!r}; it names folders and files, so use letters, digits, - and _")
    if name in taken:
        raise InputError(f"name is {name!r}, which is a built-in data set; choose another")
    normal = _label(table["normal"], "normal")
    classes = _classes(table["classes"], normal)
    annotations = _annotations(table["annotation"])
    folders = {**FOLDERS, **_texts(table.get("folders", {}), "folders", FOLDERS)}
    return Dataset(
        name=name,
        title=str(table.get("title", name)),
        folder=name,
        classes=MappingProxyType(classes),
        normal=normal,
        metric=_one_of(table.get("metric", "AUC"), METRICS, "metric"),
        annotations=MappingProxyType({split: annotations for split in ("official", "released")}),
        videos=MappingProxyType({}),
        recipe=_recipe(table.get("training", {})),
        label_in_name=bool(table.get("label_in_name", False)),
        folder_labels=MappingProxyType(_folder_labels(table.get("folder_labels", {}), {normal, *classes})),
        event_folders=_event_folders(table.get("event_folders", list(Dataset.event_folders))),
        encoder=_encoder(table.get("encoder", "vitl")),
        window=int(_positive(table.get("window", 256), "window")),
        name_suffix=str(table.get("name_suffix", "")),
        fps=float(_positive(table["fps"], "fps")) if "fps" in table else None,
        roots=MappingProxyType({kind: path.parent / Path(folder).expanduser() for kind, folder in folders.items()}),
        source=path,
    )


def _check_table(table: object, known: Mapping[str, tuple], where: str, needed: tuple[str, ...] = ()) -> None:
    """InputError for a key that is unknown, of the wrong type, or needed and missing."""
    inside = f" in [{where}]" if where else ""
    for key, value in table.items():
        if key not in known:
            raise InputError(f"unknown key {key!r}{inside}; known are {', '.join(known)}")
        kind, words = known[key]
        # True is an int to Python, and not a number of epochs to anybody
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{key}{inside} is {value!r}; it must be {words}")
    for key in needed:
        if key not in table:
            raise InputError(f"{key}{inside} is missing; it must be {known[key][1]}")


def _texts(table: Table, where: str, known: Mapping[str, object]) -> dict[str, str]:
    _check_table(table, dict.fromkeys(known, (str, "text")), where)
    return {key: str(value) for key, value in table.items()}


def _label(value: object, where: str) -> str:
    """A label as folders and lists have it; accents in one piece, however the file writes them."""
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable() or "/" in value:
        raise InputError(f"{where} is {value!r}; a label is a folder's name, without / and without blanks at its ends")
    return unicodedata.normalize("NFC", value)


def _classes(value: object, normal: str) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else [(label, label) for label in value]
    classes: dict[str, str] = {}
    for label, name in pairs:
        key = _label(label, "a label of classes")
        if key == normal:
            raise InputError(f"classes holds {label!r}, which is normal; list the anomalous classes alone")
        if key in classes:
            raise InputError(f"classes holds {label!r} twice; keep one")
        classes[key] = _label(name, f"the name of class {label!r}")
    if not classes:
        raise InputError("classes is empty; name at least one kind of anomaly")
    return classes


def _annotations(table: Table) -> Annotations:
    _check_table(table, _ANNOTATION, "annotation", needed=("file",))
    file = str(table["file"])
    form = _one_of(table.get("form", "auto"), ("auto", *FORMS), "form in [annotation]")
    if "test_list" not in table and form in ("pairs", "table", "masks"):
        raise InputError(f"test_list in [annotation] is missing; the form {form} does not name the normal test videos")
    train = table.get("train_list")
    return Annotations(str(train) if train else None, str(table.get("test_list", file)), file, form=form)


def _recipe(table: Table) -> Recipe:
    _check_table(table, _TRAINING, "training")
    for key, value in table.items():
        if key == "scheduler_milestones":
            if not all(isinstance(epoch, int) and not isinstance(epoch, bool) and epoch > 0 for epoch in value):
                raise InputError(f"{key} in [training] is {value!r}; it must be a list of epochs")
        elif key != "paired":
            _positive(value, f"{key} in [training]")
    return Recipe(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _folder_labels(table: Table, labels: set[str]) -> dict[str, str]:
    for folder, label in table.items():
        if label not in labels:
            raise InputError(f"folder_labels says {folder} = {label!r}, which is no label of this data set")
    return {unicodedata.normalize("NFC", folder): str(label) for folder, label in table.items()}


def _event_folders(value: list) -> tuple[str, ...]:
    if not value or not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in value):
        raise InputError(f"event_folders is {value!r}; it must be a list of folder names")
    return tuple(value)


def _encoder(value: object) -> str:
    if not re.fullmatch(r"\w+|(open_clip|timm):[\w.-]+", str(value)):
        raise InputError(f"encoder is {value!r}; it must be vitl, open_clip:NAME, timm:NAME, or tiny for trying")
    return str(value)


def _one_of(value: object, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise InputError(f"{where} is {value!r}; known are {', '.join(known)}")
    return str(value)


def _positive(value: object, where: str) -> object:
    # written so that NaN, which TOML has, is refused as well
    if not 0 < value < float("inf"):
        raise InputError(f"{where} is {value}; it must be positive")
    return value
