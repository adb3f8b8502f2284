"""What a data set needs before anything can be evaluated on it, and the commands that make it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vad.catalog import IMAGE_FOLDER, Dataset
from vad.errors import InputError
from vad.lists import Item, embedding_root, resolve_path


def commands(dataset: Dataset) -> str:
    """The commands from videos to embeddings, lists and ground truth, in one line."""
    if dataset.drawn:
        return "python -m vad.demo"
    flag = f"--dataset {dataset.given}"
    steps = (
        f"python extracting/gen.py {flag} --modality both --video_dir VIDEOS --image_dir EMBEDDINGS/{IMAGE_FOLDER} "
        f"--event_dir EMBEDDINGS/{dataset.event_folders[0]} --event_ckpt EVENT_WEIGHTS",
        f"python list/generate_file.py {flag} --base_path EMBEDDINGS/{IMAGE_FOLDER}",
        f"python list/generate_gt.py {flag}",
    )
    return "; ".join(steps)


def check_list(path: Path, dataset: Dataset) -> None:
    """InputError with the commands where there is no test list yet."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such list; prepare {dataset.title} first: {commands(dataset)}")


def check_embeddings(items: Sequence[Item], dataset: Dataset, feature_root: Path | None) -> None:
    """InputError with the commands where the list is there but the whole folder of its embeddings is not."""
    root = embedding_root(resolve_path(items[0].path, feature_root))
    if not (root / IMAGE_FOLDER).is_dir() and not any((root / name).is_dir() for name in dataset.event_folders):
        raise InputError(
            f"{root}: no embeddings of {dataset.title} here; give their folder with --feature_root, or make them: "
            f"{commands(dataset)}"
        )
