"""Under what conditions a number was made: the line above every table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vad.catalog import Dataset
from vad.table import MARK, SEPARATOR

WEIGHTS = {
    "last": "weights of the last epoch",
    "best": "best weights, selected on the test set",
    "released": "released checkpoint, selected on the test set by its authors",
    "unfinished": "weights of a run stopped within an epoch",
    "given": "weights as found in the file, which does not say how they were selected",
    "several": "weights of several kinds",
    "mixed": "weights of several kinds, some selected on the test set",
}
SELECTED = ("best", "released", "mixed")  # weights chosen by looking at the test set
TAILS = {
    "whole": "every whole snippet",
    "released": "a last block of 16 frames or fewer dropped",
    "mixed": "not the same for all videos",
    "unknown": "not recorded",
}
ANO_AUC = {"abnormal": "abnormal videos only", "released": 'every video not labelled exactly "Normal"'}
AXES = {"feature": "a share of the feature dimensions set to 0", "time": "a share of the time steps × 0.01"}


@dataclass(frozen=True)
class Protocol:
    """Under what conditions a number was made; stands above every table."""

    dataset: Dataset
    profile: str
    split: str
    test_crops: tuple[int, ...]
    weights: str  # a key of WEIGHTS
    tail: str  # a key of TAILS
    ano_auc: str = "abnormal"  # a key of ANO_AUC
    noise_model: str = "StudentT"
    videos: int | None = None  # test videos that were scored
    runs: int | None = None  # runs behind a number
    remarks: tuple[str, ...] = ()  # what is odd about these runs, to be said below every table of theirs

    @property
    def mark(self) -> str:
        """What stands beside a number of ours: † where its weights were selected on the test set."""
        return MARK if self.weights in SELECTED else ""

    def line(self, omit: Iterable[str] = ()) -> str:
        """The protocol in one line, without the fields in `omit` (they vary and stand in columns)."""
        parts = {
            "dataset": self.dataset.title,
            "split": f"{self.split} split",
            "videos": "" if self.videos is None else f"{self.videos} test videos",
            "profile": f"profile {self.profile}",
            "noise_model": f"noise model {self.noise_model}",
            "test_crops": f"test crop{'s' if len(self.test_crops) > 1 else ''} {', '.join(map(str, self.test_crops))}",
            "runs": "" if self.runs is None else f"{self.runs} run{'s' if self.runs > 1 else ''}",
            "weights": WEIGHTS[self.weights],
            "AP": "AP is average_precision_score",
            "ano_auc": f"Ano-AUC: {ANO_AUC[self.ano_auc]}",
            "tail": f"tail: {TAILS[self.tail]}",
        }
        return SEPARATOR.join(part for name, part in parts.items() if part and name not in set(omit))

    def notes(self, beside_paper: bool = True) -> list[str]:
        """What a reader must know about these numbers, and before comparing them with the paper's."""
        which = "some of these" if self.weights == "mixed" else "these"
        found = [f"{MARK}: {which} weights were selected by their score on the test videos."] if self.mark else []
        found += self.remarks
        if self.dataset.drawn:
            what = "this shows that the machinery works, not how accurate it is."
            return [*found, f"Drawn videos, an untrained encoder: {what}"]
        counts = self.dataset.videos
        if not beside_paper or counts.get("official") == counts.get("released"):
            return found
        (_, official), (_, released) = counts["official"], counts["released"]
        split = f"The official split has {official} test videos, the authors' released lists {released}: see --split."
        return [*found, split]
