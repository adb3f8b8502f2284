"""Options: which value wins, what follows from a field, crops, and what older checkpoints hold."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from model import IEFVADConfig, Objective
from vad import options as module
from vad.datasets import dataset_names
from vad.files import InputError
from vad.options import (
    PROFILES,
    Options,
    add_flags,
    command_parser,
    explicit_options,
    option_fields,
    parse_crops,
    preset,
    resolve,
    upgrade,
)

GROUPS = ("data", "results", "model", "loss", "training", "evaluation", "metrics", "masking", "runtime")


def parsed(*flags: str, groups: tuple[str, ...] = GROUPS) -> dict[str, object]:
    parser = command_parser("A command.")
    add_flags(parser, *groups)
    return explicit_options(parser.parse_args(list(flags)))


def options_of(*flags: str, saved: dict[str, object] | None = None) -> Options:
    return resolve(parsed(*flags), saved)


def test_flag_overrides_profile_and_profile_overrides_data_set() -> None:
    assert options_of("--dataset", "shang").lr == 1e-4  # the data set's
    assert options_of("--dataset", "shang", "--profile", "paper").lr == 2e-5  # one value for all data sets
    assert options_of("--dataset", "shang", "--profile", "paper", "--lr", "0.5").lr == 0.5
    assert options_of().temporal_update == "kalman"
    assert options_of("--profile", "released").temporal_update == "none"
    set_by_flag = options_of("--profile", "released", "--temporal_update", "paper")
    assert set_by_flag.temporal_update == "paper" and set_by_flag.explicit == ("profile", "temporal_update")


def test_checkpoint_overrides_profile_of_the_data_set() -> None:
    assert resolve({"dataset": "xd", "profile": "released"}).lambda_kl == 0.01  # XD-Violence's override of 1
    assert resolve({"dataset": "xd"}, {"lambda_kl": 0.3}).lambda_kl == 0.3
    assert resolve({"dataset": "xd", "lambda_kl": 0.5}, {"lambda_kl": 0.3}).lambda_kl == 0.5


# the table of differences, row by row: option → paper, released, default
TABLE = {
    "temporal_update": ("paper", "none", "kalman"),
    "padding": ("masked", "attended", "masked"),
    "epsilon_placement": ("weights", "sum", "weights"),
    "mil": ("segment", "topk", "topk"),
    "lambda_cos": (0.5, 1.0, 0.5),
    "lambda_norm": (0.5, 1.0, 0.5),
    "lambda_reg": (1.0, 1.0, 1.0),
    "lambda_kl": (1.0, 1.0, 1.0),
    "kl_noise_model": ("model", "model", "model"),
    "evaluate_at": ("epoch", "released", "epoch"),
    "keep": ("last", "best", "last"),
    "rollback": (False, True, False),
    "split": ("official", "released", "official"),
    "test_crops": (tuple(range(10)), (5,), (5,)),
    "ano_auc": ("abnormal", "released", "abnormal"),
    "event_threshold": (10, 10, 10),
    "event_clamp": (10, 16, 10),
    "event_scaling": ("clamp", "block", "clamp"),
    "mask_axis": ("feature", "window", "feature"),
    "tail": ("whole", "released", "whole"),
    "nan": ("refuse", "zero", "refuse"),
}


@pytest.mark.parametrize("name", TABLE)
def test_profiles_have_the_specified_values(name: str) -> None:
    profiles = ("paper", "released", "default")
    assert tuple(getattr(options_of("--profile", p), name) for p in profiles) == TABLE[name]
    assert tuple(getattr(preset(p), name) for p in profiles) == TABLE[name]


def test_no_other_option_differs_between_profiles() -> None:
    resolved = [options_of("--profile", name) for name in PROFILES]
    differing = {f.name for f in option_fields() if len({getattr(o, f.name) for o in resolved}) > 1}
    assert differing - {"profile"} <= TABLE.keys()
    with pytest.raises(InputError, match=r"unknown profile 'own'\. Choose from default, paper, released"):
        preset("own")


def test_xd_overrides_loss_weights_except_in_paper_profile() -> None:
    xd = {name: options_of("--dataset", "xd", "--profile", name) for name in PROFILES}
    weights = {name: (o.lambda_reg, o.lambda_kl, o.kl_noise_model) for name, o in xd.items()}
    assert weights == {
        "default": (0.01, 0.01, "model"), "paper": (1.0, 1.0, "model"), "released": (0.01, 0.01, "StudentT"),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), [
    ("ucfcrime", (64, True, 2e-5, 10, (4, 8), 0.1, 1280)),
    ("xd", (2, False, 2e-5, 10, (2, 6, 10), 0.1, 512)),
    ("shang", (8, True, 1e-4, 20, (8, 15), 0.5, 512)),
    ("msad", (64, True, 2e-5, 10, (4, 8), 0.1, 1280)),
])  # fmt: skip
def test_training_values_equal_the_released_ones(name: str, expected: tuple[object, ...]) -> None:
    o = options_of("--dataset", name)
    values = (o.batch_size, o.paired, o.lr, o.max_epoch, o.scheduler_milestones, o.scheduler_rate, o.print_steps)
    assert values == expected


SIZES = ("embed_dim", "input_dim", "audio_dim", "modality")  # of the data, not options of the model


def test_options_match_configurations_of_model_and_loss() -> None:
    config = {f.name: f.default for f in fields(IEFVADConfig) if f.name not in SIZES}
    assert Options().group("model") == config  # the same names and the same defaults
    loss = {name: p.default for name, p in inspect.signature(Objective).parameters.items() if name != "config"}
    assert Options().group("loss") == loss


def test_field_defines_flag_fingerprint_and_description() -> None:
    changed = {"visual_layers": 3, "paired": False, "test_crops": (0, 5), "rollback": True, "noise_model": "Gaussian",
               "drop_stream": 0.5}  # fmt: skip
    base = Options()
    for f in (f for g in ("model", "loss", "training", "evaluation") for f in option_fields(g)):
        doubled = f.default * 2 + 1 if isinstance(f.default, int | float) else "other"
        value = changed.get(f.name, (f.metadata["choices"] or (doubled,))[-1])
        other = Options(**{f.name: value}, explicit=(f.name,))
        assert other.fingerprint() != base.fingerprint() and other.fingerprint()[f.name] == value
        assert f"{f.name}* {module.as_text(value)}" in other.describe()  # * marks what was set
        assert other.recorded()[f.name] == value
    parser = command_parser("")
    add_flags(parser, *GROUPS)
    offered = {action.dest for action in parser._actions}
    assert offered - {"help", "help_all"} == {
        f.name for g in GROUPS for f in option_fields(g) if f.metadata["flag"]
    }  # fmt: skip
    assert {"window", "paired", "evaluate_at"}.isdisjoint(offered)  # the data set or the profile decides


def test_fingerprint_ignores_options_without_effect_on_weights() -> None:
    base = Options()
    harmless = {"ano_auc": "released", "mask_axis": "time", "device": "cpu", "exp_name": "x", "split": "s"}
    for name, value in harmless.items():
        assert Options(**{name: value}).fingerprint() == base.fingerprint()
    for name, value in {"seed": 1, "modality": "image", "nan": "zero", "precision": "bf16", "dataset": "xd"}.items():
        assert Options(**{name: value}).fingerprint() != base.fingerprint()
    assert {"feature_root", "list_root", "checkpoint_dir", "device"}.isdisjoint(base.recorded())


def test_parser_offers_only_its_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("--nu", "3", groups=("model",)) == {"nu": 3.0}
    assert parsed(groups=("model", "test_crops")) == {}  # what is not set stays absent
    for flags in (["--mask_axis", "time"], ["--keep", "best"], ["--n", "3"]):  # and no abbreviations
        with pytest.raises(SystemExit):
            parsed(*flags, groups=("model", "test_crops"))
        assert "unrecognized arguments" in capsys.readouterr().err


def test_help_shows_everyday_flags_and_help_all_the_rest(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    shown = []
    for flag in ("-h", "--help_all"):
        monkeypatch.setattr("sys.argv", ["main.py", flag])
        with pytest.raises(SystemExit) as stopped:
            parsed(flag, groups=("data", "model"))
        assert stopped.value.code == 0
        shown.append(capsys.readouterr().out)
    assert "--dataset" in shown[0] and "--nu" not in shown[0].split("options:")[1]
    assert "--nu" in shown[1] and "degrees of freedom" in shown[1]


def test_checkpoint_options_hold_until_flag_or_profile_is_set() -> None:
    saved = options_of("--dataset", "xd", "--nu", "4", "--mil", "segment").recorded()
    assert options_of(saved=saved).recorded() == saved
    again = options_of("--nu", "2", saved=saved)
    assert (again.dataset, again.nu, again.mil, again.explicit) == ("xd", 2, "segment", ("nu",))
    assert options_of("--profile", "default", saved=saved).mil == "topk"
    assert options_of("--profile", "default", saved=saved).dataset == "xd"


def test_ds_is_an_alias_of_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert options_of("--ds", "ucf").dataset == options_of("--dataset", "ucfcrime").dataset == "ucfcrime"
    with pytest.raises(InputError, match=f"unknown data set 'avenue'. Known are {', '.join(dataset_names())}"):
        options_of("--dataset", "avenue")


@pytest.mark.parametrize(("text", "crops"), [
    ("5", (5,)), ("0,5", (0, 5)), ("0..9", tuple(range(10))), ("0,2..4", (0, 2, 3, 4)), ("5, 0,5", (0, 5)),
])  # fmt: skip
def test_crops_are_parsed(text: str, crops: tuple[int, ...]) -> None:
    assert parse_crops(text) == crops


@pytest.mark.parametrize("text", ["", "10", "a", "3..", "5..2", "-1", "1,,2", "0..1..2", "²"])
def test_invalid_crops_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"Write 5, or 0,5, or 0\.\.9"):
        parse_crops(text)
    with pytest.raises(SystemExit) as stopped:
        parsed(f"--test_crops={text}")
    assert stopped.value.code == 2 and "argument --test_crops: test_crops" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "text", "sentence"), [
    ("nu", "x", "nu 'x': invalid value (degrees of freedom"),
    ("keep", "first", "keep 'first': unknown value. Choose from last, best"),
    ("rollback", "yes", "rollback 'yes': use on or off, not yes"),
    ("scheduler_milestones", "4;8", "scheduler_milestones '4;8': invalid value (epochs after which"),
])  # fmt: skip
def test_invalid_value_is_refused_with_the_option_name(flag: str, text: str, sentence: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed(f"--{flag}", text)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_values_are_parsed_by_option_type() -> None:
    flags = ("--scheduler_milestones", "3,5", "--rollback", "on", "--max_epoch", "7", "--insist_gt")
    assert parsed(*flags) == {"scheduler_milestones": (3, 5), "rollback": True, "max_epoch": 7, "insist_gt": True}


def test_training_values_must_be_positive() -> None:
    for rate in ("-1", "0", "nan", "inf"):
        with pytest.raises(InputError, match=r"--scheduler_rate is .*\. It must be positive and finite"):
            options_of(f"--scheduler_rate={rate}")
    with pytest.raises(InputError, match=r"--batch_size is 0\. It must be positive and finite"):
        options_of("--batch_size", "0")


def test_options_of_older_checkpoints_are_read() -> None:
    settings = {
        "dataset": "xd", "dataset_file": None, "profile": "paper", "window": 256, "typed": ("nu",),
        "switches": {"nu": 4.0, "mil": "segment", "test_crops": [0, 5], "keep": "last"},
        "recipe": {"batch_size": 2, "paired": False, "lr": 1e-3, "max_epoch": 3, "scheduler_milestones": [1, 2]},
    }  # fmt: skip
    saved = upgrade({"settings": settings, "config": {"modality": "event"}})
    o = resolve({}, saved)
    assert (o.dataset, o.profile, o.modality, o.nu, o.mil) == ("xd", "paper", "event", 4.0, "segment")
    assert (o.test_crops, o.lr, o.max_epoch, o.scheduler_milestones) == ((0, 5), 1e-3, 3, (1, 2))
    assert upgrade({"options": {"nu": 2.0}}) == {"nu": 2.0}
    assert resolve({}, upgrade({"config": {}})).dataset == "ucfcrime"  # a file that says nothing


def test_custom_data_set_is_recorded_by_its_file(tmp_path: Path, monkeypatch) -> None:
    text = 'name = "street"\nnormal = "Normal"\nclasses = ["Fire"]\nwindow = 8\n[training]\nbatch_size = 4\n'
    (tmp_path / "street.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    o = options_of("--dataset", "street.toml")
    saved = o.recorded()
    assert (o.batch_size, o.window, saved["dataset"]) == (4, 8, str(tmp_path / "street.toml"))  # from anywhere
    assert resolve({}, saved).recorded() == saved
    assert o.fingerprint()["dataset"] == "street"  # the folder may move


def test_older_checkpoint_names_custom_data_set_by_its_file() -> None:
    settings = {"dataset": "street", "dataset_file": "/data/street.toml", "switches": {}, "recipe": {}}
    assert upgrade({"settings": settings, "config": {}})["dataset"] == "/data/street.toml"
    with pytest.raises(InputError, match=r"/data/street\.toml: there is no such data set file"):
        resolve({}, upgrade({"settings": settings, "config": {}}))


def test_parser_accepts_single_options_under_a_title() -> None:
    parser = command_parser("")
    add_flags(parser, "exp_name")
    add_flags(parser, "nu", "padding", title="network")
    args = parser.parse_args(["--exp_name", "e", "--nu", "3", "--padding", "attended"])
    assert isinstance(args, argparse.Namespace)
    assert explicit_options(args) == {"exp_name": "e", "nu": 3.0, "padding": "attended"}


def test_overrides_of_custom_data_set_are_options(tmp_path):
    table = 'name = "street"\nnormal = "Normal"\nclasses = ["Fire"]\n[overrides.default]\n'
    path = tmp_path / "dataset.toml"
    path.write_text(f"{table}gamma = 1\n")
    with pytest.raises(InputError, match=r"dataset.toml: \[overrides.default\] has no option gamma"):
        resolve({"dataset": str(path)})
    path.write_text(f'{table}nan = "keep"\n')
    with pytest.raises(InputError, match=r"nan is 'keep'\. Choose from refuse, zero"):
        resolve({"dataset": str(path)})
    path.write_text(f'{table}nan = "zero"\n')
    assert resolve({"dataset": str(path)}).nan == "zero"
