"""A custom data set in a temporary folder, with two training and two test videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vad.datasets import Dataset, load_dataset
from vad.prepare.ground_truth import make_ground_truth
from vad.prepare.lists import make_lists

TABLE = """video,alias,label,official,frames,intervals
n1,Normal_1,Normal,train,,
c1,,Crash,train,,
n2,,Normal,test,50,
c2,,Crash,test,64,10-20
"""


@dataclass(frozen=True)
class Street:
    """The data set in its folder, which also gets embeddings, table and lists."""

    root: Path

    @property
    def dataset(self) -> Dataset:
        """Load the data set again, so that a changed table takes effect."""
        return load_dataset(str(self.root / "street.toml"))

    @property
    def lists(self) -> Path:
        """Return the folder of train.csv, test.csv and gt.npy."""
        return self.root / "lists"

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def embed(self, name: str, *crops: int, snippets: int = 3, stream: str = "rgb") -> None:
        """Write embeddings of `Class/video`, by default of crop 5."""
        for crop in crops or (5,):
            path = self.root / stream / f"{name}__{crop}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.ones((snippets, 8), np.float16))

    def make_lists(self, **changes: object) -> list[str]:
        paths = [self.root / "rgb", self.lists / "train.csv", self.lists / "test.csv"]
        return make_lists(self.dataset, "official", *paths, **changes)

    def make_gt(self, **changes: object) -> list[str]:
        return make_ground_truth(self.dataset, "official", self.lists / "test.csv", self.lists, **changes)


@pytest.fixture
def street(tmp_path: Path) -> Street:
    """Return the data set with table and TOML file, without embeddings."""
    data_set = Street(tmp_path)
    data_set.write("street.toml", 'name = "street"\nnormal = "Normal"\nclasses = ["Crash", "Running"]\n')
    data_set.write("annotations.csv", TABLE)
    return data_set
