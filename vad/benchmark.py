"""What the doors share: where a data set's lists and embeddings are, its test set, and the protocol of a number."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vad.computing import Computing
from vad.data import Sample, TestVideo, find_test_videos
from vad.embeddings import KeptEmbeddings, load_embedding
from vad.errors import InputError
from vad.files import read_json
from vad.lists import feature_root_of, lists_sidecar, read_csv
from vad.made_with import embedding_remarks
from vad.metrics import evaluate
from vad.preparation import check_embeddings, check_list
from vad.protocol import Protocol
from vad.scoring import Load, ScoredVideo, Transform, score_videos
from vad.settings import Settings, feature_root


@dataclass(frozen=True)
class Lists:
    """Where lists, ground truth and embeddings of one data set are, and what was noted when they were made."""

    train: Path
    test: Path
    gt: Path
    feature_root: Path | None
    split: str
    tail: str  # "whole", "released", "mixed", or "unknown" where nothing is recorded


def add_list_flags(parser: argparse.ArgumentParser) -> None:
    """--feature_root, --list_root, --train_list, --test_list, --gt_path."""
    group = parser.add_argument_group("files", "by default what list/…_generate_file.py and …_generate_gt.py wrote")
    group.add_argument("--feature_root", help="folder that holds rgb/ and the event embeddings; for released lists")
    group.add_argument("--list_root", help="folder of train.csv, test.csv and gt.npy (list/<data set>/rgb/vitl)")
    group.add_argument("--train_list", help="train.csv, where it is not in --list_root")
    group.add_argument("--test_list", help="test.csv, where it is not in --list_root")
    group.add_argument("--gt_path", help="gt.npy, where it is not in --list_root")


def find_lists(args: argparse.Namespace, settings: Settings) -> Lists:
    """Paths from flags, else from the catalogue. Raises InputError where --split contradicts the lists' own note."""
    root = Path(args.list_root) if args.list_root else settings.dataset.list_root
    test = Path(args.test_list) if args.test_list else root / "test.csv"
    gt = Path(args.gt_path) if args.gt_path else root / "gt.npy"
    split = str(lists_sidecar(test).get("split", settings.profile.split))
    if split != settings.profile.split and "split" in settings.typed:
        raise InputError(
            f"{test} was made for the {split} split; make it again with list/generate_file.py --split "
            f"{settings.profile.split}, or leave --split out"
        )
    note = gt.with_suffix(".json")
    tail = read_json(note, "note beside the ground truth").get("tail") if note.is_file() else None
    return Lists(
        train=Path(args.train_list) if args.train_list else root / "train.csv",
        test=test,
        gt=gt,
        feature_root=feature_root(args) or feature_root_of(test),
        split=split,
        tail=str(tail or "unknown"),
    )


@dataclass(frozen=True)
class TestSet:
    """The test videos of a data set with their truth, ready to be scored."""

    videos: list[TestVideo]
    width: int  # D of the embeddings
    settings: Settings
    lists: Lists
    load: Load = load_embedding

    def kept(self) -> TestSet:
        """The same, for many evaluations: embeddings stay in memory once read, as far as they fit."""
        return replace(self, load=KeptEmbeddings())

    @property
    def samples(self) -> list[Sample]:
        """Every crop of every video."""
        return [sample for video in self.videos for sample in video.crops]

    def score(
        self,
        model: torch.nn.Module,
        device: torch.device,
        transform: Transform | None = None,
        progress: str | None = "scoring",
    ) -> list[ScoredVideo]:
        """Run the inference loop with this data set's window and this run's switches."""
        return score_videos(
            model,
            self.videos,
            window=self.settings.dataset.window,
            nan=self.settings.profile.nan,
            padding=self.settings.profile.padding,
            device=device,
            transform=transform,
            progress=progress,
            load=self.load,
        )

    def judge(self, model: torch.nn.Module, computing: Computing) -> dict[str, float]:
        """Every metric of the model as it is; processes that train together share the videos."""
        ranks = computing.ranks
        part = replace(self, videos=list(ranks.share(self.videos)))
        videos = ranks.merge(part.score(model, computing.device, progress=None))
        ano_auc = self.settings.profile.ano_auc
        return ranks.together(lambda: evaluate(videos, self.settings.dataset, ano_auc=ano_auc))

    def protocol(self, weights: str, runs: int | None = None, remarks: tuple[str, ...] = ()) -> Protocol:
        """Under what conditions numbers of this test set are made; weights: a key of `vad.protocol.WEIGHTS`.

        runs: how many are behind a number. remarks: what is odd about them, said below the tables.
        """
        switches = self.settings.profile
        return Protocol(
            dataset=self.settings.dataset,
            profile=switches.name,
            split=self.lists.split,
            test_crops=switches.test_crops,
            weights=weights,
            tail=self.lists.tail,
            ano_auc=switches.ano_auc,
            noise_model=switches.noise_model,
            videos=len(self.videos),
            runs=runs,
            remarks=(*remarks, *embedding_remarks(self.samples, switches)),
        )


def open_test_set(lists: Lists, settings: Settings, modality: str) -> TestSet:
    """Check the test list, its embeddings and its ground truth against each other; InputError as those say."""
    check_list(lists.test, settings.dataset)
    items = read_csv(lists.test, settings.dataset)
    check_embeddings(items, settings.dataset, lists.feature_root)
    videos, width = find_test_videos(
        items, lists.gt, settings.dataset, lists.feature_root, settings.profile.test_crops, modality
    )
    return TestSet(videos, width, settings, lists)


def trims(settings: Settings) -> bool:
    """Whether a batch may be cut to its longest window without changing a number: where padding is masked."""
    return settings.profile.padding == "masked"


def check_width(path: Path | str, model_width: int, width: int, what: str) -> None:
    """InputError where a checkpoint's width is not that of `what` it is to be used with."""
    if model_width != width:
        raise InputError(
            f"{path} is a model for embeddings {model_width} wide, but {what} are {width} wide; use the encoder it "
            f"was trained with, or another checkpoint"
        )


def describe(settings: Mapping[str, object]) -> str:
    """Settings in one paragraph for the terminal: what was used, what the user typed marked by an asterisk."""
    typed = set(settings["typed"])
    flat = {**settings["switches"], **settings["recipe"]}
    parts = [f"{name}{'*' if name in typed else ''} {_plain(value)}" for name, value in flat.items()]
    return f"data set {settings['dataset']} · profile {settings['profile']} · " + " · ".join(parts)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
