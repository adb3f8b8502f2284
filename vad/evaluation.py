"""Evaluation of checkpoints on test sets, and the protocol behind every result."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from model import IEFVAD, build_model, read_checkpoint
from model.avadclip import AVadCLIP, build_avadclip, is_avadclip, parse_avadclip
from model.checkpoint import load_file, parse_checkpoint
from vad.data import (
    TestVideo,
    Video,
    embedding_root,
    feature_root_of,
    find_videos,
    group_crops,
    list_rows,
    read_list,
    resolve_path,
)
from vad.datasets import IMAGE_FOLDER, SNIPPET_FRAMES, Dataset, load_dataset
from vad.files import InputError, read_json, sha256, write_bytes, write_json
from vad.metrics import calibration_error, evaluate, per_class, samples, video_aucs, video_spread, within_videos
from vad.options import Options, option_fields, resolve, upgrade
from vad.prepare.ground_truth import load_ground_truth, provenance_notes, recorded_encoders
from vad.prepare.lists import shorten
from vad.scoring import Embeddings, ScoredVideo, Transform, score
from vad.statistics import intervals, resample

MARK = "†"  # marks results of weights that were selected on the test set
WEIGHTS = {
    "last": "weights of the last epoch",
    "best": "best weights, selected on the test set",
    "released": "released checkpoint, selected on the test set by its authors",
    "unfinished": "weights of an unfinished epoch",
    "given": "weights whose selection is not recorded in the file",
    "several": "weights selected in different ways",
    "mixed": "weights selected in different ways, some on the test set",
}
SELECTED = ("best", "released", "mixed")  # kinds of weights that were selected on the test set
TAILS = {
    "whole": "every whole snippet",
    "released": "last block dropped if it has at most 16 frames",
    "mixed": "differs between videos",
    "unknown": "not recorded",
}
ANO_AUC = {"abnormal": "abnormal videos only", "released": 'every video not labelled exactly "Normal"'}


@dataclass(frozen=True)
class Protocol:
    """The evaluation protocol of a result. It is printed above every table."""

    dataset: Dataset
    profile: str
    split: str | None  # None: the test list matches no split of the data set
    test_crops: tuple[int, ...]
    weights: str  # a key of WEIGHTS
    tail: str  # a key of TAILS
    ano_auc: str = "abnormal"  # a key of ANO_AUC
    noise_model: str = "StudentT"
    videos: int | None = None  # number of test videos
    runs: int | None = None  # number of runs
    method: str = ""  # of another system than the paper's
    splits: int = 1  # number of splits, if each run has its own
    footnotes: tuple[str, ...] = ()  # warnings about these runs, printed below each of their tables

    @property
    def mark(self) -> str:
        """† if the weights were selected on the test set, else an empty string."""
        return MARK if self.weights in SELECTED else ""

    def line(self, omit: Iterable[str] = ()) -> str:
        """Return the protocol as one line, without the fields in `omit`, which the table shows as columns."""
        parts = {
            "dataset": self.dataset.title,
            "split": f"{self.split} split" if self.split else "split not recorded",
            **({"split": f"{self.splits} random splits, one per run"} if self.splits > 1 else {}),
            "videos": "" if self.videos is None else f"{self.videos} test videos",
            "method": self.method,
            "profile": f"profile {self.profile}",
            "noise_model": "" if self.method else f"noise model {self.noise_model}",
            "test_crops": f"test crop{'s' if len(self.test_crops) > 1 else ''} {', '.join(map(str, self.test_crops))}",
            "runs": "" if self.runs is None else f"{self.runs} run{'s' if self.runs > 1 else ''}",
            "weights": WEIGHTS[self.weights],
            "AP": "AP is average_precision_score",
            "ano_auc": f"Ano-AUC: {ANO_AUC[self.ano_auc]}",
            "tail": f"tail: {TAILS[self.tail]}",
        }
        return " · ".join(part for name, part in parts.items() if part and name not in set(omit))

    def notes(self, beside_paper: bool = True) -> list[str]:
        """Return the notes below a table. beside_paper: include what matters for a comparison with the paper."""
        subject = "some of these" if self.weights == "mixed" else "these"
        notes = [f"{MARK}: {subject} weights were selected by their score on the test videos."] if self.mark else []
        notes += self.footnotes
        if self.dataset.synthetic:
            return [*notes, "Synthetic videos and an untrained encoder: this tests the pipeline, not the accuracy."]
        if not beside_paper or self.dataset.custom:
            return notes
        counts = self.dataset.split_counts
        if counts["official"] == counts["released"]:
            return notes
        (_, official), (_, released) = counts["official"], counts["released"]
        return [*notes, f"The official split has {official} test videos, the authors' released lists {released}."]


@dataclass(frozen=True)
class TestSet:
    """The test videos of a data set with their embeddings and ground truth."""

    dataset: Dataset
    options: Options
    videos: list[TestVideo]
    widths: Mapping[str, int]  # stream → D of the embeddings
    train_list: Path
    test_list: Path
    gt_path: Path
    feature_root: Path | None
    split: str | None
    tail: str  # a key of TAILS
    footnotes: tuple[str, ...]
    encoders: Mapping[str, Mapping[str, Any]]  # see `recorded_encoders`
    embeddings: Embeddings = field(repr=False)

    @property
    def crops(self) -> list[Video]:
        """All crops of all videos."""
        return [crop for video in self.videos for crop in video.crops]

    def score(
        self, model: IEFVAD, device: torch.device, transform: Transform | None = None, progress: bool = True
    ) -> list[ScoredVideo]:
        """Return scores and modality weights of every test video."""
        return score(
            model, self.videos, self.embeddings, window=self.options.window, device=device, transform=transform,
            progress=progress,
        )  # fmt: skip

    def recorded(self) -> dict[str, object]:
        """Return the part of the protocol that a checkpoint stores beside its options."""
        return {"videos": len(self.videos), "tail": self.tail, "footnotes": list(self.footnotes)}

    def protocol(self, weights: str, runs: int | None = None, footnotes: Sequence[str] = ()) -> Protocol:
        """Return the protocol of results on this test set. weights: a key of WEIGHTS."""
        options = self.options
        return Protocol(
            dataset=self.dataset,
            profile=options.profile,
            split=self.split,
            test_crops=options.test_crops,
            weights=weights,
            tail=self.tail,
            ano_auc=options.ano_auc,
            noise_model=options.noise_model,
            method=method_title(options),
            videos=len(self.videos),
            runs=runs,
            footnotes=(*footnotes, *self.footnotes),
        )


def method_title(options: Options) -> str:
    """Return the name of AVadCLIP's network, or nothing for the paper's own method."""
    role = "student, image alone" if options.student else "teacher, image and sound"
    return f"AVadCLIP, {role}" if options.method == "avadclip" else ""


def open_test_set(options: Options, dataset: Dataset) -> TestSet:
    """Open a test set. Raises InputError if its list, embeddings and ground truth do not match."""
    root = Path(options.list_root) if options.list_root else dataset.lists_of(options.split)
    train_list, test_list, gt_path = (root / name for name in ("train.csv", "test.csv", "gt.npy"))
    if not test_list.is_file():
        commands = preparation_commands(dataset)
        raise InputError(f"{test_list}: there is no such list. Prepare {dataset.title} first: {commands}")
    rows = read_list(test_list, dataset)
    feature_root = feature_root_of(test_list)
    if options.feature_root:
        feature_root = Path(options.feature_root).expanduser()
        if not feature_root.is_dir():
            raise InputError(f"--feature_root {feature_root} is not a folder. It must be the folder of rgb/.")
    _check_embeddings(rows[0].path, dataset, feature_root)
    crops, widths = find_videos(group_crops(rows, options.test_crops), dataset, feature_root, options.modality)
    count = len(options.test_crops)
    groups = [tuple(crops[k : k + count]) for k in range(0, len(crops), count)]
    for group in groups:
        if len({crop.snippets for crop in group}) > 1:
            counts = ", ".join(f"crop {crop.crop}: {crop.snippets}" for crop in group)
            raise InputError(f"the crops of {group[0].name} differ in length ({counts} snippets). Extract them again.")
    names = [(group[0].name, group[0].snippets) for group in groups]
    labels, notes = load_ground_truth(gt_path, names, dataset, options.insist_gt)
    for note in notes:
        print(note)
    videos = [TestVideo(g[0].name, g[0].label, g, truth) for g, truth in zip(groups, labels, strict=True)]
    split, leaks = dataset.split_of(_names(train_list, dataset), [video.name for video in videos])
    encoders = recorded_encoders(crops)
    footnotes = [*provenance_notes(encoders, options), *([_leak_note(leaks)] if leaks else [])]
    record = gt_path.with_suffix(".json")
    tail = str(read_json(record, "metadata of the ground truth").get("tail")) if record.is_file() else ""
    return TestSet(
        dataset, options, videos, widths, train_list, test_list, gt_path, feature_root, split,
        tail if tail in TAILS else "unknown", tuple(footnotes), encoders, Embeddings(options.nan),
    )  # fmt: skip


def _names(path: Path, dataset: Dataset) -> list[str]:
    """Return the distinct video names of a list, or nothing if the list is missing."""
    if not path.is_file():
        return []
    return list(dict.fromkeys(row.video for _, row in list_rows(path, dataset) if not isinstance(row, InputError)))


def _leak_note(leaks: Sequence[str]) -> str:
    videos = f"{len(leaks)} test video{'s' if len(leaks) > 1 else ''}"
    return f"The training list contains {videos} of the official split ({shorten(leaks)})."


def preparation_commands(dataset: Dataset) -> str:
    """Return the commands that make embeddings, lists and ground truth from videos, as one line."""
    if dataset.synthetic:
        which = f"--folder {dataset.path.parent}" if dataset.custom else f"--dataset {dataset.name}"
        return f"python -m demo {which}"
    flag = f"--dataset {dataset.flag_value}"
    steps = (
        f"python extracting/gen.py {flag} --modality both --video_dir VIDEOS --image_dir EMBEDDINGS/{IMAGE_FOLDER} "
        f"--event_dir EMBEDDINGS/{dataset.event_folders[0]} --event_ckpt EVENT_WEIGHTS",
        f"python list/generate_file.py {flag} --base_path EMBEDDINGS/{IMAGE_FOLDER}",
        f"python list/generate_gt.py {flag}",
    )
    return "; ".join(steps)


def _check_embeddings(path: str, dataset: Dataset, feature_root: Path | None) -> None:
    root = embedding_root(resolve_path(path, feature_root))
    if not any((root / name).is_dir() for name in (IMAGE_FOLDER, *dataset.event_folders)):
        raise InputError(
            f"{root}: no embeddings of {dataset.title} here. Set --feature_root to their folder, or create them: "
            f"{preparation_commands(dataset)}"
        )


@dataclass
class Run:
    """One checkpoint with its test set. Scores and metrics are computed on first use."""

    path: Path
    options: Options
    model: IEFVAD | AVadCLIP
    seed: int | None  # None if not recorded
    weights: str  # a key of WEIGHTS
    notes: tuple[str, ...]
    test: TestSet
    device: torch.device

    @property
    def dataset(self) -> Dataset:
        """The data set of the evaluation."""
        return self.test.dataset

    @property
    def modality(self) -> str:
        """The streams: image, event, audio, fusion (image and event), or names joined by +."""
        return self.options.modality

    @cached_property
    def videos(self) -> list[ScoredVideo]:
        """Scores of every test video."""
        return self.test.score(self.model.to(self.device), self.device)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics as fractions: the paper's, calibration, spread over videos, and modality weights."""
        metrics = evaluate(self.videos, self.dataset, ano_auc=self.options.ano_auc)
        weights = {name: metrics.pop(name) for name in list(metrics) if name.startswith("w_")}
        spread = video_spread(*within_videos(self.videos))
        return {**metrics, "ECE": calibration_error(samples(self.videos)), **spread, **weights}

    @cached_property
    def classes(self) -> dict[str, float]:
        """Per-class metric (Table 2)."""
        return per_class(self.videos, self.dataset)

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Metrics of every bootstrap resample."""
        return resample(self.videos, self.dataset, ano_auc=self.options.ano_auc)

    def record(self) -> dict[str, object]:
        """Return the fields that identify this checkpoint in a file of results."""
        return {
            "checkpoint": self.path.name,
            "sha256": sha256(self.path),
            "modality": self.modality,
            "seed": self.seed,
            "weights": self.weights,
            "options": self.options.recorded(),
        }


Network = IEFVAD | AVadCLIP
SHAPE_OPTIONS = ("visual_layers", "num_refinement_steps", "fusion")  # fixed by the tensors
FIXED_OPTIONS = (*SHAPE_OPTIONS, "visual_head", "dropout")  # an evaluation may change all other network options
NETWORK_OPTIONS = tuple(f.name for f in option_fields("model") if f.name not in FIXED_OPTIONS)


def open_runs(
    paths: Sequence[str | Path], explicit: Mapping[str, object], device: torch.device, *, streams: bool = False
) -> list[Run]:
    """Open checkpoints with their test sets. Raises InputError for checkpoints of different data sets.

    streams: if all are fused models, also evaluate the image and the event stream of each (Table 2).
    """
    tests: dict[object, TestSet] = {}
    runs = [open_run(path, explicit, device, tests) for path in paths]
    names = list(dict.fromkeys(run.dataset.name for run in runs))
    if len(names) > 1:
        raise InputError(f"these checkpoints were trained on {' and '.join(names)}. Choose one with --dataset.")
    if not streams or "modality" in explicit or any(run.modality != "fusion" for run in runs):
        return runs
    note = (
        "The columns image and event evaluate the two streams of the fused model separately; "
        "main.py --modality image|event trains single-stream models"
    )
    for modality in ("image", "event"):
        single = [open_run(path, {**explicit, "modality": modality}, device, tests) for path in paths]
        runs += [replace(run, notes=(*run.notes, note)) for run in single]
    return runs


def open_run(
    path: str | Path, explicit: Mapping[str, object], device: torch.device, tests: dict[object, TestSet]
) -> Run:
    """Open a checkpoint with its recorded options, which explicitly set flags override.

    A released file contains only weights and gets the profile `released`. --profile replaces all options except
    those that the tensor shapes fix. tests: cache of test sets, shared by runs with equal options.
    """
    model, options, content, notes = open_checkpoint(path, explicit)
    dataset = load_dataset(options.dataset)
    key = (options.dataset, options.list_root, options.feature_root, options.test_crops, options.modality, options.nan,
           options.ano_auc, options.profile, options.noise_model, options.method, options.student,
           *options.group("preparation").values())  # fmt: skip
    test = tests.get(key) or tests.setdefault(key, open_test_set(options, dataset))
    check_width(path, model, test.widths, f"those of {test.test_list}")
    for stream, encoder in test.encoders.items():
        check_encoder(path, content, stream, encoder["hash"], f"those of {test.test_list} with {encoder['weights']}")
    return Run(Path(path), options, model, content.get("seed"), weights_of(content), tuple(notes), test, device)


def open_checkpoint(
    path: str | Path, explicit: Mapping[str, object]
) -> tuple[Network, Options, Mapping[str, object], list[str]]:
    """Return model, options, content and notes of a checkpoint, see `open_run`."""
    content = read_any(path)
    released, saved = content["form"] == "released", recorded_options(content)
    options = resolve(explicit, saved)
    if options.method == "avadclip":
        return _open_avadclip(path, content, options)
    fixed = SHAPE_OPTIONS if "profile" in explicit else [f.name for f in option_fields("model")]
    replaced = [f for f in option_fields("model") if f.name in explicit or f.name not in fixed]
    changed = {f.metadata["argument"] or f.name: getattr(options, f.name) for f in replaced}
    changed |= {name: explicit[name] for name in ("modality",) if name in explicit}
    model = build_model(content, path, **changed)
    config = model.config
    options = replace(
        options, modality=config.modality, visual_layers=config.num_layers,
        num_refinement_steps=config.num_refinement_steps,
    )  # fmt: skip
    trained = Options(**resolve({}, saved).recorded())
    notes = []
    if trained.profile != options.profile:
        before, now = trained.profile, options.profile
        notes.append(f"{path} was trained with profile {before} and is evaluated with profile {now}")
    for name in (f.name for f in option_fields("model") if f.name in explicit):
        before, now = getattr(trained, name), getattr(options, name)
        if before != now:
            notes.append(f"{path} was trained with {name} {before} and is evaluated with {now}")
    before, now = load_dataset(trained.dataset).name, load_dataset(options.dataset).name
    if not released and before != now:
        notes.append(f"{path} was trained on {before} and is evaluated on {now}")
    return model, options, content, notes


def require_ief_vad(path: str | Path, options: Options, command: str) -> None:
    """Raise InputError for a checkpoint of AVadCLIP, which a command does not take."""
    if options.method == "avadclip":
        raise InputError(f"{path} is a model of AVadCLIP, which {command} does not take. Evaluate it with test.py.")


def read_any(path: str | Path) -> dict[str, object]:
    """Read a checkpoint of any method, see `read_checkpoint` and `read_avadclip`. Raises CheckpointError."""
    if Path(path).is_dir():
        return read_checkpoint(path)
    content = load_file(Path(path))
    return parse_avadclip(content, path) if is_avadclip(content) else parse_checkpoint(content, path)


def _open_avadclip(
    path: str | Path, content: Mapping[str, object], options: Options
) -> tuple[AVadCLIP, Options, Mapping[str, object], list[str]]:
    """Return what `open_checkpoint` does for a checkpoint of AVadCLIP, whose network no flag changes."""
    names = [f.name for group in ("avadclip", "model") for f in option_fields(group)]
    if changed := [name for name in names if name in options.explicit]:
        raise InputError(f"--{changed[0]} cannot change a trained AVadCLIP. Train another one with main.py.")
    dataset, trained = load_dataset(options.dataset), tuple(content["config"]["classes"])
    unknown = [name for name in dataset.prompts if name not in trained]
    model = build_avadclip(content, path)
    if options.window > (longest := model.config.max_length):
        raise InputError(f"{path} takes windows of at most {longest} snippets, but those of {dataset.title} have "
                         f"{options.window}. Train a model on it.")  # fmt: skip
    notes = [f"{path} keeps the weights of the best test AP of its alignment branch"] if options.keep == "best" else []
    if unknown:
        notes.append(f"{path} does not know the classes {', '.join(unknown)}; mAP leaves out their segments")
    return model, replace(options, student=model.config.student, padding=model.config.padding), content, notes


def recorded_options(content: Mapping[str, object]) -> dict[str, object]:
    """Return the options stored in a checkpoint; a released one has those of its profile."""
    if content["form"] != "released":
        return upgrade(content)
    if "classes" in content["config"]:
        student = content["config"]["student"]
        return {"profile": "released", "method": "avadclip", "student": student, "dataset": "xd"}
    return {"profile": "released"}


def weights_of(content: Mapping[str, object]) -> str:
    """Return how the weights of a checkpoint were selected, a key of WEIGHTS."""
    return "released" if content["form"] == "released" else str(content.get("weights", "given"))


def recorded_protocol(content: Mapping[str, object], options: Options) -> Protocol:
    """Return the protocol of the metrics in a checkpoint, without its data set. options: the recorded ones."""
    recorded = content.get("protocol", {})
    return Protocol(
        dataset=load_dataset(options.dataset),
        profile=options.profile,
        split=content.get("split"),
        test_crops=options.test_crops,
        weights=weights_of(content),
        tail=recorded.get("tail", "unknown"),
        ano_auc=options.ano_auc,
        noise_model=options.noise_model,
        method=method_title(options),
        videos=recorded.get("videos"),
        footnotes=tuple(recorded.get("footnotes", ())),
    )


def check_width(path: Path | str, model: Network, widths: Mapping[str, int], source: str) -> None:
    """Raise InputError if the width of a stream of a checkpoint is not that of its embeddings, named by `source`."""
    for stream, width in widths.items():
        if (expected := model.config.width_of(stream)) != width:
            raise InputError(
                f"{path} is a model for {stream} embeddings of width {expected}, but {source} have width {width}. Use "
                f"the encoder of its training, or another checkpoint."
            )


def check_encoder(path: Path | str, content: Mapping[str, Any], stream: str, weights_hash: str, source: str) -> None:
    """Raise InputError if a checkpoint records that it was trained on embeddings of other weights."""
    trained = content.get("encoders", {}).get(stream)
    if trained and trained["hash"] != weights_hash:
        raise InputError(
            f"{path} was trained on {stream} embeddings made with {trained['weights']} (hash {trained['hash'][:8]}), "
            f"but {source} (hash {weights_hash[:8]}). Use the encoder of its training, or another checkpoint."
        )


def shared_protocol(runs: Sequence[Run], count: int | None = None, footnotes: Sequence[str] = ()) -> Protocol:
    """Return the common protocol of these runs, with the notes of each run."""
    kinds = {run.weights for run in runs}
    several_kinds = "mixed" if kinds & set(SELECTED) else "several"
    notes = dict.fromkeys(f"{note}." for run in runs for note in run.notes)
    protocol = runs[0].test.protocol(kinds.pop() if len(kinds) == 1 else several_kinds, count, (*notes, *footnotes))
    return replace(protocol, splits=len({run.test.split for run in runs}) if protocol.dataset.split_per_run else 1)


def save_results(runs: Sequence[Run], folder: Path, prefix: str = "") -> None:
    """Write scores.csv (a row per checkpoint, video and snippet) and results.json (metrics of each checkpoint)."""
    rows = [
        pd.DataFrame({
            "checkpoint": run.path.stem,
            "video": video.name,
            "label": video.label,
            "first_frame": SNIPPET_FRAMES * np.arange(len(video.scores)),
            "score": video.scores,
            **{f"weight_{stream}": weight for stream, weight in video.weights.items()},
            **_class_columns(run, video),
            "anomalous_frames": video.frame_labels.reshape(-1, SNIPPET_FRAMES).sum(1),
        })
        for run in runs
        for video in run.videos
    ]  # fmt: skip
    stream = io.StringIO()
    pd.concat(rows).to_csv(stream, index=False, float_format="%.6g")
    write_bytes(folder / f"{prefix}scores.csv", stream.getvalue().encode())
    results = [
        {
            **run.record(),
            "metrics": _json(run.metrics),
            "classes": _json(run.classes),
            "intervals_95": intervals(run.resampled),
            "video_auc": video_aucs(run.videos),
        }
        for run in runs
    ]
    write_json(folder / f"{prefix}results.json", {"runs": results})


def _class_columns(run: Run, video: ScoredVideo) -> dict[str, np.ndarray]:
    """Return a column of probabilities for each class of AVadCLIP, and none for another method."""
    if video.class_scores is None:
        return {}
    return {f"p_{name}": column for name, column in zip(run.model.config.classes, video.class_scores.T, strict=True)}


def _json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN by None, because JSON has no NaN."""
    return {name: None if np.isnan(value) else value for name, value in metrics.items()}
