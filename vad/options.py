"""Options of training, evaluation and extraction: one field each, with default, help text and group.

Flags, profiles, sweeps, the network's configuration and the columns of runs.csv come from these fields.
The first that sets an option wins: a flag, the checkpoint, the data set's overrides of the profile,
the profile, the data set, the default.
"""

from __future__ import annotations

import argparse
import functools
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vad.datasets import Dataset, dataset_names, load_dataset
from vad.files import ROOT, InputError, sha256

STREAMS = ("image", "event", "audio")
# "fusion" is image+event, the paper's; the first three are the columns of its Table 2
MODALITIES = ("image", "event", "fusion", "audio", "image+audio", "event+audio", "image+event+audio")
METHODS = ("ief_vad", "avadclip")
TAILS = ("whole", "released")  # rules for the snippets at a video's end
SCALINGS = ("clamp", "block")  # divisors of event counts


def parse_crops(text: str) -> tuple[int, ...]:
    """Return the crop numbers in "5", "0,5", "0..9" or "0,2..4", ascending; raise InputError for other text."""
    crops: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        last = last if dots else first
        if not (first.isdecimal() and last.isdecimal()) or int(last) > 9:
            raise InputError(f"crops {text!r}: crops are numbered 0 to 9. Write 5, or 0,5, or 0..9.")
        crops.update(range(int(first), int(last) + 1))
    if not crops:
        raise InputError(f"crops {text!r}: the range is empty. Write 5, or 0,5, or 0..9.")
    return tuple(sorted(crops))


def parse_modality(text: str) -> str:
    """Return the value of --modality: "fusion", or names of streams joined by +, in any order."""
    names = text.split("+")
    if len(set(names)) < len(names) or not set(names) <= set(STREAMS):
        return text  # fusion, or an unknown value
    ordered = "+".join(name for name in STREAMS if name in names)
    return "fusion" if ordered == "image+event" else ordered


def streams_of(modality: str) -> frozenset[str]:
    """Return the streams of a value of --modality."""
    return frozenset(("image", "event") if modality == "fusion" else modality.split("+"))


def parse_epochs(text: str) -> tuple[int, ...]:
    """Return the epochs in "4,8", or "4+8" in a sweep, where commas separate values."""
    return tuple(int(epoch) for epoch in text.replace("+", ",").split(","))


def parse_on_off(text: str) -> bool:
    """Return True for "on" and False for "off"; raise ValueError for other text."""
    if text not in ("on", "off"):
        raise ValueError(f"use on or off, not {text}")
    return text == "on"


def option(
    default: object,
    help: str,
    group: str,
    *,
    choices: Sequence[str] | None = None,
    parse: object = None,
    flag: bool = True,
    everyday: bool = False,
    argument: str | None = None,
) -> Any:
    """Return a field of `Options`.

    help: a noun phrase; the command adds the default. parse: text → value, the type of `default` unless given.
    flag: whether commands offer --name; everyday: whether -h shows it, not only --help_all.
    argument: the field's name in the network's or the objective's configuration, where it differs.
    """
    metadata = {"help": help, "group": group, "choices": choices, "flag": flag, "everyday": everyday}
    return field(default=default, metadata={**metadata, "argument": argument, "parse": parse or type(default)})


everyday = functools.partial(option, everyday=True)


DATASET_HELP = f"{', '.join(dataset_names())} or your own folder"


@dataclass(frozen=True)
class Options:
    """Options of one run; the values here are those of the profile `default`."""

    # data
    dataset: str = everyday("ucfcrime", DATASET_HELP, "data")
    profile: str = everyday("default", "default, paper (its text) or released (its code)", "data",
                            choices=("default", "paper", "released"))  # fmt: skip
    modality: str = everyday("fusion", "image, event, audio, joined by +; fusion (default)", "data",
                             choices=MODALITIES, parse=parse_modality)  # fmt: skip
    list_root: str = everyday("", "folder of train.csv, test.csv and gt.npy", "data")
    feature_root: str = everyday("", "folder of rgb/ and the event embeddings", "data")
    nan: str = option("refuse", "NaN in an embedding: refuse or zero", "data", choices=("refuse", "zero"))
    insist_gt: bool = option(False, "accept a gt.npy that contradicts the videos' labels", "data")
    window: int = option(256, "time steps T of a window", "data", flag=False)
    # results
    exp_name: str = everyday("", "name of the results (default: the data set's)", "results")
    seed: int = everyday(0, "random seed; the first one of --runs", "results")
    checkpoint_dir: str = option(str(ROOT / "checkpoints"), "weights and logs (default: checkpoints/)", "results")
    figure_dir: str = option(str(ROOT / "figure"), "tables and pictures (default: figure/)", "results")
    # model (Sections 3.1 – 3.5)
    visual_layers: int = option(2, "attention layers of each encoder", "model", argument="num_layers")
    visual_head: int = option(8, "attention heads", "model", argument="num_heads")
    dropout: float = option(0.1, "attention dropout", "model")
    fusion: str = option("inverse_variance", "inverse_variance (Section 3.3), or to compare with: equal, concat, gate, "
                         "cross_attention, late", "model")  # fmt: skip
    noise_model: str = option("StudentT", "StudentT or Gaussian (Section 3.2)", "model")
    nu: float = option(8.0, "degrees of freedom ν of Student's t", "model")
    epsilon: float = option(1e-8, "ε of the weights (Eq. 4)", "model")
    epsilon_placement: str = option("weights", "ε in each weight (weights, Eq. 4), or in their sum (sum)", "model")
    temporal_update: str = option("kalman", "q learned (kalman), q = 0 (paper), no recursion (none)", "model")
    padding: str = option("masked", "zero steps after a video's end: masked, or attended", "model")
    num_refinement_steps: int = option(10, "refinement steps N (Section 3.5)", "model")
    lambda_ref: float = option(0.5, "step size λ_ref of the refinement", "model")
    # loss (Section 3.6)
    mil: str = option("topk", "score of a video: mean of the top k steps (topk), or largest segment mean", "loss")
    lambda_cos: float = option(0.5, "weight λ_1 of the regulariser's cosine term", "loss")
    lambda_norm: float = option(0.5, "weight λ_2 of the regulariser's norm term", "loss")
    lambda_reg: float = option(1.0, "weight of the regulariser", "loss")
    lambda_kl: float = option(1.0, "weight of the KL terms", "loss")
    kl_noise_model: str = option("model", "noise model of the KL terms: model (the network's), StudentT, Gaussian",
                                 "loss")  # fmt: skip
    reg_pairs: str = option("all", "pairs of streams in the regulariser: all, or image-event", "loss")
    # AVadCLIP (arXiv 2504.04495); it has `fusion` and `padding` too
    method: str = everyday("ief_vad", "ief_vad, or avadclip (docs/sound.md)", "method", choices=METHODS)
    student: bool = option(False, "train AVadCLIP's student, which needs no sound", "method")
    teacher: str = option("", "checkpoint of the teacher that the student learns from", "method")
    text_path: str = option("", "text tower, by extracting/clip/text.py (default: text.pt beside rgb/)", "method")
    temporal_layers: int = option(0, "layers of the local transformer; 0: teacher 2, student 1", "avadclip",
                                  argument="num_layers")  # fmt: skip
    local_window: int = option(0, "snippets that attend to each other; 0: teacher 4, student 64", "avadclip")
    prompt_weights: str = option("uniform", "weights of the video prompt: uniform, classes or none", "avadclip")
    global_weights: str = option("probability", "weights of its snippets: probability or logit", "avadclip")
    audio_delay: str = option("causal", "convolutions of the sound: causal, or both directions", "avadclip")
    enhancement_layers: int = option(3, "convolutions of the student", "avadclip")
    variance_head: str = option("none", "variance of the student's features: none, plain or released", "avadclip")
    focal: bool = option(True, "on: half of the alignment loss is a focal loss", "avadclip_loss", parse=parse_on_off)
    lambda_align: float = option(1.0, "weight of the alignment loss", "avadclip_loss")
    lambda_text: float = option(1e-4, "weight of the term that separates the texts", "avadclip_loss")
    distill: str = option("mse", "distillation: mse, nll or released", "avadclip_loss")
    lambda_distill: float = option(1.0, "weight of the distillation", "avadclip_loss")
    # training (Appendix F.2)
    pca: int = option(0, "principal components of the training embeddings to use; 0: the embeddings", "training")
    batch_size: int = option(64, "videos in a batch; of each class where paired", "training")
    paired: bool = option(True, "as many normal as anomalous videos in a batch", "training", flag=False)
    lr: float = option(2e-5, "learning rate of AdamW", "training")
    max_epoch: int = option(10, "number of epochs", "training")
    scheduler_milestones: tuple[int, ...] = option((4, 8), "epochs after which the learning rate falls", "training",
                                                   parse=parse_epochs)  # fmt: skip
    scheduler_rate: float = option(0.1, "factor by which the learning rate falls", "training")
    drop_stream: float = option(0.0, "share of training videos in which a stream is missing", "training")
    print_steps: int = option(1280, "training videos between two evaluations", "training")
    evaluate_at: str = option("epoch", "evaluate every print_steps videos and after each epoch (epoch), or at the "
                              "authors' steps (released)", "training",
                              choices=("epoch", "released"), flag=False)  # fmt: skip
    keep: str = option("last", "weights in <exp_name>.pth: last, or best on the test set", "training",
                       choices=("last", "best"))  # fmt: skip
    rollback: bool = option(False, "on: return to the best test weights after each epoch", "training",
                            parse=parse_on_off)  # fmt: skip
    # evaluation
    test_crops: tuple[int, ...] = everyday((5,), "crops to average: 5, 0,5 or 0..9", "evaluation",
                                           parse=parse_crops)  # fmt: skip
    ano_auc: str = option("abnormal", "videos of Ano-AUC: abnormal, or all not labelled Normal (released)", "metrics",
                          choices=("abnormal", "released"))  # fmt: skip
    mask_axis: str = everyday("feature", "feature, time or window (released)", "masking",
                              choices=("feature", "time", "window"))  # fmt: skip
    # lists and extraction (Appendix F.1)
    split: str = option("official", "split column of annotations.csv", "preparation")
    tail: str = option("whole", "snippets at a video's end: whole ones, or released (512-frame blocks)", "preparation",
                       choices=TAILS)  # fmt: skip
    event_threshold: int = option(10, "grey-level difference that is an event, of 255", "preparation")
    event_clamp: int = option(10, "largest event count of a pixel", "preparation")
    event_scaling: str = option("clamp", "divisor of the counts: the clamp, or the block's maximum", "preparation",
                                choices=SCALINGS)  # fmt: skip
    # runtime
    device: str = everyday("auto", "auto, cpu, cuda, cuda:1", "runtime")
    precision: str = option("fp32", "precision of the forward pass: fp32 or bf16", "runtime", choices=("fp32", "bf16"))
    compile: bool = option(False, "torch.compile: faster steps on a GPU, a slow start", "runtime")
    deterministic: bool = option(False, "identical bits in every run on one GPU; slower", "runtime")
    cache_dir: str = option("", "cache of training windows, or none (default: beside rgb/)", "runtime")
    overwrite: bool = everyday(False, "train again where results exist", "runtime")
    explicit: tuple[str, ...] = ()  # options set by a flag

    def __post_init__(self) -> None:
        for name in ("batch_size", "lr", "max_epoch", "scheduler_rate", "print_steps"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name} is {getattr(self, name)}. It must be positive and finite.")
        if not 0 <= self.drop_stream < 1:
            raise InputError(f"--drop_stream is {self.drop_stream}. It must be at least 0 and less than 1.")
        for f in option_fields():
            known, value = f.metadata["choices"], getattr(self, f.name)
            if known and value not in known:
                raise InputError(f"{f.name} is {value!r}. Choose from {', '.join(known)}.")

    @property
    def trained_groups(self) -> tuple[str, ...]:
        """Groups of options that weights and log depend on."""
        network = ("avadclip", "avadclip_loss") if self.method == "avadclip" else ("model", "loss")
        return (*network, "training", "evaluation")

    def group(self, name: str) -> dict[str, object]:
        """Return the options of a group under their names in the network's or objective's configuration."""
        return {f.metadata["argument"] or f.name: getattr(self, f.name) for f in option_fields(name)}

    def recorded(self) -> dict[str, object]:
        """Return what a checkpoint stores: plain values, without folders and runtime options."""
        names = [f.name for f in option_fields() if f.metadata["group"] not in ("results", "runtime")]
        values = {name: getattr(self, name) for name in names if name not in NOT_RECORDED}
        return values | {"teacher": Path(self.teacher).name}

    def fingerprint(self) -> dict[str, object]:
        """Return what must be equal for a run to be resumed or reused: all that weights and log depend on."""
        values = {f.name: getattr(self, f.name) for g in self.trained_groups for f in option_fields(g)}
        if self.method == "avadclip":
            values |= {name: getattr(self, name) for name in ("method", "student", "fusion", "padding")}
            values["teacher"] = sha256(Path(self.teacher)) if self.teacher else ""
        data = {name: getattr(self, name) for name in ("modality", "seed", "window", "nan", "precision")}
        return {"dataset": load_dataset(self.dataset).name, **data, **values}

    def describe(self) -> str:
        """Return one paragraph for the terminal; an asterisk marks explicitly set options."""
        groups = (*self.trained_groups, "metrics")
        shown = [f.name for f in option_fields() if f.metadata["group"] in groups]
        shown = ["method", "student", "fusion", "padding", *shown] if self.method == "avadclip" else shown
        parts = [f"{n}{'*' if n in self.explicit else ''} {as_text(getattr(self, n))}" for n in shown]
        return " · ".join([f"data set {load_dataset(self.dataset).name}", f"profile {self.profile}", *parts])


# folders and files of this computer
NOT_RECORDED = ("feature_root", "list_root", "insist_gt", "text_path")
TITLES = MappingProxyType({  # group → heading in the help
    "data": "data",
    "results": "results",
    "model": "model (Sections 3.1 – 3.5)",
    "loss": "loss (Section 3.6)",
    "method": "method",
    "avadclip": "AVadCLIP, network",
    "avadclip_loss": "AVadCLIP, loss",
    "training": "training (Appendix F.2; default: the data set's values)",
    "evaluation": "evaluation",
    "metrics": "evaluation",
    "masking": "evaluation",
    "preparation": "extraction (Appendix F.1)",
    "runtime": "runtime (several GPUs: torchrun --nproc-per-node=N main.py …)",
})

PROFILES: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "default": {},
    "paper": {
        "temporal_update": "paper",
        "mil": "segment",
        "batch_size": 64,
        "lr": 2e-5,
        "max_epoch": 10,
        "scheduler_milestones": (4, 8),
        "scheduler_rate": 0.1,
        "test_crops": tuple(range(10)),
    },
    "released": {
        "temporal_update": "none",
        "padding": "attended",
        "epsilon_placement": "sum",
        "lambda_cos": 1.0,
        "lambda_norm": 1.0,
        "evaluate_at": "released",
        "keep": "best",
        "rollback": True,
        "split": "released",
        "ano_auc": "released",
        "mask_axis": "window",
        "tail": "released",
        "event_clamp": 16,
        "event_scaling": "block",
        "nan": "zero",  # the released extraction divides a block without any event by 0
    },
})  # fmt: skip


# of AVadCLIP: what all profiles share (its Section IV), and what they change; see `model.avadclip`
AVADCLIP: Mapping[str, object] = MappingProxyType({
    "fusion": "adaptive",
    "batch_size": 96,
    "paired": False,
    "lr": 1e-5,
    "max_epoch": 10,
    "scheduler_milestones": (3, 6),
    "scheduler_rate": 0.1,
    "print_steps": 10**9,  # evaluated after each epoch
})  # fmt: skip
AVADCLIP_PROFILES: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "default": {},
    "paper": {
        "prompt_weights": "classes",
        "enhancement_layers": 1,
        "variance_head": "plain",
        "distill": "nll",
        "lambda_text": 0.0,
    },
    "released": {
        "padding": "attended",
        "global_weights": "logit",
        "variance_head": "released",
        "distill": "released",
        "lambda_distill": 1e-8,
        "keep": "best",
        "rollback": True,
    },
})  # fmt: skip


def option_fields(group: str | None = None) -> list[Any]:
    """Return the fields of `Options`, or those of one group."""
    return [f for f in fields(Options) if f.metadata and group in (None, f.metadata["group"])]


def preset(profile: str) -> Options:
    """Return the options of a profile without data set and flags, for extraction and the list scripts."""
    return Options(**{**preset_values(profile), "profile": profile})


def resolve(explicit: Mapping[str, object], saved: Mapping[str, object] | None = None) -> Options:
    """Return the options of a run.

    explicit: options set by flags. saved: options stored in a checkpoint; a profile set by a flag replaces
    them. Raises InputError for an unknown data set, profile or value.
    """
    saved = saved or {}
    dataset = load_dataset(str(explicit.get("dataset") or saved.get("dataset") or Options.dataset))
    profile = str(explicit.get("profile") or saved.get("profile") or Options.profile)
    names = {f.name for f in option_fields()}
    kept = {} if "profile" in explicit else {name: as_field(saved[name]) for name in saved if name in names}
    method = str(explicit.get("method") or saved.get("method") or Options.method)
    _check_method(method, explicit)
    presets, key = {**dataset.training, **preset_values(profile)}, profile
    if method == "avadclip":
        presets, key = {**AVADCLIP, **AVADCLIP_PROFILES[profile]}, method
    overrides = {name: as_field(value) for name, value in dataset.overrides.get(key, {}).items()}
    if unknown := [name for name in overrides if name not in names]:
        raise InputError(f"{dataset.path}: [overrides.{key}] has no option {unknown[0]}. See main.py --help_all.")
    values = {
        **presets,
        **overrides,
        **kept,
        **_split(dataset, explicit, saved),
        **explicit,
        "dataset": dataset.flag_value,
        "profile": profile,
        "window": dataset.window,
    }
    if values.get("method") == "avadclip":
        values["modality"] = _avadclip_modality(values, explicit)
    return Options(**values, explicit=tuple(sorted(name for name in explicit if name in names)))


def _check_method(method: str, explicit: Mapping[str, object]) -> None:
    """Raise InputError for an explicit option that this method does not have."""
    other = {"ief_vad": ("avadclip", "avadclip_loss"), "avadclip": ("model", "loss")}[method]
    names = [f.name for group in other for f in option_fields(group) if f.name not in ("fusion", "padding")]
    names += ["student", "teacher", "text_path"] if method == "ief_vad" else ["pca", "drop_stream"]
    if wrong := [name for name in names if name in explicit]:
        raise InputError(f"--{wrong[0]} is no option of --method {method}. Leave it out, or choose the other method.")


def _avadclip_modality(values: Mapping[str, object], explicit: Mapping[str, object]) -> str:
    """Return the streams that AVadCLIP is tested on. Raises InputError for others, and for a teacher of a teacher."""
    modality = "image" if values.get("student") else "image+audio"
    if explicit.get("modality", modality) != modality:
        who = "student takes images alone" if values.get("student") else "teacher takes image+audio"
        raise InputError(f"--modality {explicit['modality']}: AVadCLIP's {who}. Leave --modality out.")
    if values.get("teacher") and not values.get("student"):
        raise InputError("--teacher is for the student alone. Add --student.")
    if explicit.get("teacher") and not Path(str(explicit["teacher"])).is_file():
        raise InputError(f"--teacher {explicit['teacher']}: there is no such file. Train it with --method avadclip.")
    return modality


def _split(dataset: Dataset, explicit: Mapping[str, object], saved: Mapping[str, object]) -> dict[str, str]:
    """Return the split of a run where each run has its own: that of its training, whatever the profile, or by seed."""
    if not dataset.split_per_run:
        return {}
    trained, seed = str(saved.get("split")), int(explicit.get("seed", Options.seed))
    return {"split": trained if trained in dataset.splits else dataset.split_of_run(seed)}


def preset_values(profile: str) -> Mapping[str, object]:
    """Return the values that a profile overrides; raise InputError for an unknown profile."""
    if profile not in PROFILES:
        raise InputError(f"unknown profile {profile!r}. Choose from {', '.join(PROFILES)}.")
    return PROFILES[profile]


def upgrade(content: Mapping[str, object]) -> dict[str, object]:
    """Return the options stored in a checkpoint of this or an earlier version."""
    if "options" in content:
        return dict(content["options"])
    settings = content.get("settings", {})
    flat = {k: v for k, v in settings.items() if k not in ("switches", "recipe", "typed", "dataset_file")}
    flat |= {"dataset": settings.get("dataset_file") or settings.get("dataset", Options.dataset)}
    flat |= {"modality": content["config"].get("modality", "fusion"), "evaluate_at": "epoch"}
    flat |= {**settings.get("switches", {}), **settings.get("recipe", {})}
    # earlier versions had no value for the released masking; the profile sets it
    return {name: value for name, value in flat.items() if name != "mask_axis"}


def as_field(value: object) -> object:
    """Return a value as `Options` stores it: lists from files become tuples."""
    return tuple(value) if isinstance(value, list) else value


def as_text(value: object) -> str:
    """Return a value as tables and the terminal show it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def parse_value(name: str, text: str) -> object:
    """Return the value of an option from its text; raise InputError if it does not fit."""
    about = next(f for f in option_fields() if f.name == name).metadata
    try:
        value = about["parse"](text)
    except ValueError as error:
        reason = str(error) if isinstance(error, InputError) or about["parse"] is parse_on_off else "invalid value"
        raise InputError(f"{name} {text!r}: {reason} ({about['help']})") from None
    if about["choices"] and value not in about["choices"]:
        raise InputError(f"{name} {text!r}: unknown value. Choose from {', '.join(about['choices'])}.")
    return value


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help of at most 100 columns: `--dataset, --ds NAME  meaning`, on one line where it fits."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27, width=min(100, shutil.get_terminal_size().columns))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "")
        value += " …" if action.nargs in ("+", "*") else ""
        return f"{', '.join(action.option_strings)} {value}".strip() if action.option_strings else value


def command_parser(description: str, *examples: str, usage: str = "[options]", **more: Any) -> argparse.ArgumentParser:
    """Return a parser whose help ends with examples.

    description: its first paragraph is shown. usage: what follows the command's name.
    """
    return argparse.ArgumentParser(
        description=description.split("\n\n")[0],
        epilog="\n  ".join(["examples:", *examples]) if examples else None,
        usage=f"%(prog)s {usage}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        **more,
    )


def advanced(text: str) -> str:
    """Return the help of a flag that --help_all alone shows."""
    return text if "--help_all" in sys.argv else argparse.SUPPRESS


def add_flags(parser: argparse.ArgumentParser, *names: str, title: str | None = None) -> None:
    """Add a flag for each option, or for each option of a group, that is named; a flag not set stays absent.

    title: heading of all these flags, instead of their groups' headings.
    """
    if "--help_all" not in parser._option_string_actions:
        parser.add_argument("--help_all", action="help", help="show every flag and exit")
    for name in names:
        chosen = [f for f in option_fields() if f.metadata["flag"] and name in (f.name, f.metadata["group"])]
        for f in chosen:
            heading, text = title or TITLES[f.metadata["group"]], f.metadata["help"]
            target = next((g for g in parser._action_groups if g.title == heading), None)
            target = target or parser.add_argument_group(heading)
            flags = [f"--{f.name}", *(["--ds"] if f.name == "dataset" else [])]
            if f.default and f.metadata["group"] != "training" and not title and "(default" not in text:
                text += f" (default: {as_text(f.default)})"
            text = text if f.metadata["everyday"] else advanced(text)
            more: dict[str, object] = {"default": argparse.SUPPRESS, "dest": f.name, "help": text}
            if f.metadata["parse"] is bool:
                target.add_argument(*flags, action="store_true", **more)
            else:
                target.add_argument(*flags, type=_argument(f.name), metavar=_metavar(f), **more)


def _metavar(f: Any) -> str:
    folder = "DIR" if f.name.endswith(("_root", "_dir")) else "NAME"
    return {int: "N", float: "X", parse_crops: "CROPS", parse_epochs: "N,N"}.get(f.metadata["parse"], folder)


def _argument(name: str) -> object:
    """Return `parse_value` for one option, with the error type that argparse prints."""

    def parse(text: str) -> object:
        try:
            return parse_value(name, text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def explicit_options(flags: argparse.Namespace) -> dict[str, object]:
    """Return the options that were set by flags."""
    names = {f.name for f in option_fields()}
    return {name: value for name, value in vars(flags).items() if name in names}
