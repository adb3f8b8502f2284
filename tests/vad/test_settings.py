"""A flag beats the profile, the profile beats the catalogue; and every switch of the method has a flag."""

from __future__ import annotations

import argparse
from dataclasses import fields

import pytest

from vad.catalog import DATASETS, Recipe
from vad.errors import InputError
from vad.profile import PROFILES, Profile
from vad.settings import RECIPE_FLAGS, SWITCHES, add_dataset_flags, add_switch_flags, crops, resolve


def settings_of(*flags: str, saved=None):
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    add_switch_flags(parser, recipe=True)
    return resolve(parser.parse_args(list(flags)), saved)


def test_a_flag_beats_the_profile_and_the_profile_the_catalogue():
    assert settings_of("--dataset", "shang").recipe.lr == 1e-4
    assert settings_of("--dataset", "shang", "--profile", "paper").recipe.lr == 2e-5
    assert settings_of("--dataset", "shang", "--profile", "paper", "--lr", "0.5").recipe.lr == 0.5
    assert settings_of().profile.temporal_update == "kalman"
    assert settings_of("--profile", "released").profile.temporal_update == "none"
    typed = settings_of("--profile", "released", "--temporal_update", "paper")
    assert typed.profile.temporal_update == "paper" and typed.typed == ("temporal_update",)


# the table of the specification, row by row: switch → paper, released, default
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
    "keep": ("last", "best", "last"),
    "rollback": (False, True, False),
    "split": ("official", "released", "official"),
    "test_crops": (tuple(range(10)), (5,), (5,)),
    "ano_auc": ("abnormal", "released", "abnormal"),
    "event_threshold": (10, 10, 10),
    "event_clamp": (10, 16, 10),
    "event_scaling": ("clamp", "block", "clamp"),
    "mask_axis": ("feature", "time", "feature"),
    "tail": ("whole", "released", "whole"),
    "nan": ("refuse", "zero", "refuse"),
}


@pytest.mark.parametrize("switch", TABLE)
def test_profiles_are_the_specifications(switch):
    found = tuple(getattr(settings_of("--profile", name).profile, switch) for name in ("paper", "released", "default"))
    assert found == TABLE[switch]


def test_every_field_that_profiles_differ_in_is_in_the_table():
    differing = {
        field.name
        for field in fields(Profile)
        if field.name not in ("name", "recipe") and len({repr(getattr(p, field.name)) for p in PROFILES.values()}) > 1
    }
    assert differing <= TABLE.keys()


def test_xd_has_its_own_weights_in_every_profile_but_the_papers():
    found = {name: settings_of("--dataset", "xd", "--profile", name).profile for name in PROFILES}
    assert [(found[n].lambda_reg, found[n].lambda_kl) for n in ("default", "released", "paper")] == [
        (0.01, 0.01),
        (0.01, 0.01),
        (1.0, 1.0),
    ]
    assert [found[n].kl_noise_model for n in ("default", "released", "paper")] == ["model", "StudentT", "model"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ucfcrime", (64, True, 2e-5, 10, (4, 8), 0.1, 1280)),
        ("xd", (2, False, 2e-5, 10, (2, 6, 10), 0.1, 512)),
        ("shang", (8, True, 1e-4, 20, (8, 15), 0.5, 512)),
        ("msad", (64, True, 2e-5, 10, (4, 8), 0.1, 1280)),
    ],
)
def test_recipes_are_the_releases(name, expected):
    recipe = settings_of("--dataset", name).recipe
    assert tuple(getattr(recipe, field.name) for field in fields(Recipe)) == expected


def test_every_switch_of_training_and_evaluation_has_a_flag():
    extraction = {"name", "recipe", "tail", "event_threshold", "event_clamp", "event_scaling"}
    assert {field.name for field in fields(Profile)} - extraction == SWITCHES.keys()
    # whether videos are paired follows from the data set
    assert {field.name for field in fields(Recipe)} - {"paired"} == RECIPE_FLAGS.keys()


def test_a_checkpoints_settings_stand_until_a_flag_or_a_profile_replaces_them():
    saved = settings_of("--dataset", "xd", "--nu", "4", "--mil", "segment").as_dict()
    assert settings_of(saved=saved).dataset.name == "xd"
    assert settings_of(saved=saved).profile.nu == 4
    assert settings_of("--nu", "2", saved=saved).profile.nu == 2
    assert settings_of("--nu", "2", saved=saved).profile.mil == "segment"
    assert settings_of("--profile", "default", saved=saved).profile.mil == "topk"


def test_ds_is_the_short_name():
    assert settings_of("--ds", "ucf").dataset.name == "ucfcrime"
    assert settings_of("--ds", "ucf", "--dataset", "ucfcrime").dataset.name == "ucfcrime"
    with pytest.raises(InputError, match="name two data sets"):
        settings_of("--ds", "xd", "--dataset", "msad")
    with pytest.raises(InputError, match=f"known are {', '.join(DATASETS)}"):
        settings_of("--dataset", "avenue")


@pytest.mark.parametrize(("text", "expected"), [("5", (5,)), ("0,5", (0, 5)), ("0..9", tuple(range(10)))])
def test_crops(text, expected):
    assert crops(text) == expected


@pytest.mark.parametrize("text", ["", "10", "a", "3..", "5..2", "-1"])
def test_crops_that_do_not_exist(text):
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 9"):
        crops(text)


def test_a_training_value_must_be_positive():
    for rate in ("-1", "0", "nan", "inf"):
        with pytest.raises(InputError, match="--scheduler_rate must be positive and finite; got"):
            settings_of("--scheduler_rate", rate)
    with pytest.raises(InputError, match="--batch_size must be positive and finite; got 0"):
        settings_of("--batch_size", "0")
