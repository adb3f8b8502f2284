"""What a run uses: flags the user typed beat the profile, the profile beats the catalogue. Saved with every result."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vad.catalog import Dataset, Recipe, dataset
from vad.errors import InputError
from vad.profile import PROFILES, Profile, profile


@dataclass(frozen=True)
class Settings:
    """One run's data set, switches and training values after flags, profile and catalogue have been merged."""

    dataset: Dataset
    profile: Profile
    recipe: Recipe
    typed: tuple[str, ...] = ()  # names the user set by flag

    def as_dict(self) -> dict[str, object]:
        """Plain values only, for checkpoints and logs."""
        names = [field.name for field in fields(Profile) if field.name not in ("name", "recipe")]
        return {
            "dataset": self.dataset.name,
            "dataset_file": str(self.dataset.source) if self.dataset.source else None,
            "profile": self.profile.name,
            "window": self.dataset.window,
            "typed": self.typed,
            "switches": {name: getattr(self.profile, name) for name in names},
            "recipe": asdict(self.recipe),
        }


def crops(text: str) -> tuple[int, ...]:
    """Crop numbers from `5`, `0,5` or `0..9`, for argparse."""
    first, dots, last = text.partition("..")
    try:
        numbers = tuple(range(int(first), int(last) + 1)) if dots else tuple(int(n) for n in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not set(numbers) <= set(range(10)):
        raise argparse.ArgumentTypeError(f"crops are numbers from 0 to 9 like 5, 0,5 or 0..9; got {text!r}")
    return numbers


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"on or off; got {text!r}")
    return text == "on"


# flag → (type, choices, what it sets); one row for every switch that training and evaluation read
SWITCHES: Mapping[str, tuple[object, tuple[str, ...] | None, str]] = {
    "visual_layers": (int, None, "attention layers of each encoder"),
    "visual_head": (int, None, "attention heads"),
    "dropout": (float, None, "attention dropout"),
    "noise_model": (str, ("StudentT", "Gaussian"), "noise model of Section 3.2"),
    "nu": (float, None, "degrees of freedom ν of Student's t"),
    "epsilon": (float, None, "ε of the weights"),
    "epsilon_placement": (str, ("weights", "sum"), "ε inside each weight (Eq. 4) or once, added to their sum"),
    "temporal_update": (str, ("kalman", "paper", "none"), "process noise of Section 3.4: learned, 0, or infinite"),
    "padding": (str, ("masked", "attended"), "whether zero steps beyond a video's end take part"),
    "num_refinement_steps": (int, None, "refinement steps N"),
    "lambda_ref": (float, None, "refinement weight λ_ref"),
    "mil": (str, ("topk", "segment"), "how steps become one probability per video"),
    "lambda_cos": (float, None, "λ_1 of the regulariser"),
    "lambda_norm": (float, None, "λ_2 of the regulariser"),
    "lambda_reg": (float, None, "weight of the regulariser"),
    "lambda_kl": (float, None, "weight of the KL terms"),
    "kl_noise_model": (str, ("model", "StudentT", "Gaussian"), "σ²_eff of the KL term"),
    "keep": (str, ("last", "best"), "weights left in <exp_name>.pth: last epoch, or best on the test set"),
    "rollback": (_on_off, None, "on or off: weights return to the best on the test set at each epoch's end"),
    "split": (str, ("official", "released"), "which lists the files are expected to be"),
    "test_crops": (crops, None, "crops whose scores are averaged, e.g. 5 or 0..9"),
    "ano_auc": (str, ("abnormal", "released"), "videos that Ano-AUC is computed on"),
    "mask_axis": (str, ("feature", "time"), "what the masking probe masks"),
    "nan": (str, ("refuse", "zero"), "NaN in embeddings: ends the run, or counts as 0"),
}
# those of them that change what the network computes
NETWORK_SWITCHES = (
    "visual_layers", "visual_head", "dropout", "noise_model", "nu", "epsilon", "epsilon_placement",
    "temporal_update", "padding", "num_refinement_steps", "lambda_ref",
)  # fmt: skip
RECIPE_FLAGS: Mapping[str, tuple[object, str]] = {
    "batch_size": (int, "videos a batch; of each side where normal and anomalous ones are paired"),
    "lr": (float, "learning rate of AdamW"),
    "max_epoch": (int, "epochs"),
    "scheduler_milestones": (int, "epochs after which the learning rate falls"),
    "scheduler_rate": (float, "factor by which it falls"),
    "print_steps": (int, "training samples between two evaluations on the test set"),
}


def add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    """--dataset (and its short form --ds), --profile."""
    parser.add_argument("--dataset", help="ucfcrime (default), xd, shang, msad, demo, or one's own .toml file")
    parser.add_argument("--ds", help="the same as --dataset; the short folder name (ucf) will do")
    parser.add_argument("--profile", choices=tuple(PROFILES), help="switches: default, paper's text or released code")


def add_switch_flags(parser: argparse.ArgumentParser, recipe: bool = False) -> None:
    """A flag for every switch; with `recipe`, for every training value as well. Untyped flags stay None."""
    group = parser.add_argument_group("switches", "each beats the profile; see the README's table of differences")
    for name, (kind, choices, text) in SWITCHES.items():
        group.add_argument(f"--{name}", type=kind, choices=choices, help=text)
    if recipe:
        group = parser.add_argument_group("training values", "each beats the catalogue's value for the data set")
        for name, (kind, text) in RECIPE_FLAGS.items():
            group.add_argument(f"--{name}", type=kind, nargs="+" if name == "scheduler_milestones" else None, help=text)


def resolve(args: argparse.Namespace, saved: Mapping[str, object] | None = None) -> Settings:
    """Settings from parsed flags; `saved` are the settings of a checkpoint, used for what no flag says.

    Raises InputError for an unknown data set or profile, or --dataset and --ds that disagree.
    """
    names = {dataset(name).given for name in (args.dataset, args.ds) if name}
    if len(names) > 1:
        raise InputError(f"--dataset {args.dataset} and --ds {args.ds} name two data sets; give one of them")
    saved = saved or {}
    record = dataset(names.pop() if names else str(saved.get("dataset_file") or saved.get("dataset", "ucfcrime")))
    chosen = profile(args.profile or str(saved.get("profile", "default")))
    typed = {k: v for k, v in vars(args).items() if v is not None and (k in SWITCHES or k in RECIPE_FLAGS)}
    if "scheduler_milestones" in typed:
        typed["scheduler_milestones"] = tuple(typed["scheduler_milestones"])
    # a checkpoint's own switches stand unless the user asks for another profile or types the flag
    kept = {} if args.profile else _tuples(saved.get("switches", {}))
    switches = {**record.exceptions.get(chosen.name, {}), **kept, **typed}
    training = {**chosen.recipe, **typed}
    return Settings(
        dataset=record,
        profile=replace(chosen, **_only(switches, Profile)),
        recipe=_check(replace(record.recipe, **_only(training, Recipe))),
        typed=tuple(sorted(typed)),
    )


def model_fields(settings: Settings, names: tuple[str, ...] | None = None) -> dict[str, object]:
    """The switches that the network takes, under its config's names; with `names`, only these switches of ours."""
    renamed = {"visual_layers": "num_layers", "visual_head": "num_heads"}
    wanted = [name for name in NETWORK_SWITCHES if names is None or name in names]
    return {renamed.get(name, name): getattr(settings.profile, name) for name in wanted}


def loss_fields(settings: Settings) -> dict[str, object]:
    """The switches that the objective takes, under its names."""
    names = ("mil", "lambda_cos", "lambda_norm", "lambda_reg", "lambda_kl", "kl_noise_model")
    return {name: getattr(settings.profile, name) for name in names}


def feature_root(args: argparse.Namespace) -> Path | None:
    """--feature_root as a path, refused where it is no folder."""
    if args.feature_root is None:
        return None
    root = Path(args.feature_root).expanduser()
    if not root.is_dir():
        raise InputError(f"--feature_root {root} is no folder; give the one that holds rgb/ and the event embeddings")
    return root


def _only(values: Mapping[str, object], record: type) -> dict[str, object]:
    names = {field.name for field in fields(record)}
    return {name: value for name, value in values.items() if name in names}


def _tuples(values: Mapping[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _check(recipe: Recipe) -> Recipe:
    for name in ("batch_size", "lr", "max_epoch", "scheduler_rate", "print_steps"):
        if not 0 < getattr(recipe, name) < math.inf:
            raise InputError(f"--{name} must be positive and finite; got {getattr(recipe, name)}")
    return recipe
