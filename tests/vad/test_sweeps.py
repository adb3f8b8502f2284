"""What --sweep takes, the cells it makes of it, and which of them are the settings without a sweep."""

from __future__ import annotations

import argparse

import pytest

from model import ConfigError, IEFVADConfig
from vad.data import MODALITIES
from vad.errors import InputError
from vad.settings import add_dataset_flags, add_switch_flags, model_fields
from vad.sweeps import cells, parse_sweeps


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_dataset_flags(parser)
    parser.add_argument("--modality", choices=MODALITIES, default="fusion")
    add_switch_flags(parser, recipe=True)
    return parser.parse_args(["--dataset", "ucfcrime", *flags])


def grid(*texts: str, flags: tuple[str, ...] = ()) -> list:
    return cells(arguments(*flags), parse_sweeps(texts))


def test_the_value_in_force_anyway_is_the_run_without_a_sweep():
    """The default's nu is 8 and its N 10, so these cells have no flags, and share their runs with every other sweep."""
    made = grid("nu=2,8", "N=0,10")
    assert [cell.suffix for cell in made] == [
        "_nu=2_N=0", "_nu=2", "_N=0", "",
    ]  # fmt: skip
    assert [dict(cell.labels) for cell in made][1] == {"nu": "2", "num_refinement_steps": "10"}
    assert made[1].flags == {"nu": 2.0} and made[3].flags == {}
    assert made[0].settings.profile.nu == 2 and made[0].settings.profile.num_refinement_steps == 0
    assert [cell.suffix for cell in grid("nu=2,8", flags=("--nu", "2"))] == ["", "_nu=8"]


def test_the_four_losses_of_table_5_switch_the_other_terms_off():
    made = {cell.labels["loss"]: cell for cell in grid("loss=cls,cls+reg,cls+kl,cls+reg+kl")}
    switches = {label: cell.settings.profile for label, cell in made.items()}
    weights = {label: (profile.lambda_reg, profile.lambda_kl) for label, profile in switches.items()}
    assert weights == {"cls": (0, 0), "cls+reg": (1, 0), "cls+kl": (0, 1), "cls+kl+reg": (1, 1)}
    assert made["cls+kl+reg"].suffix == "" and made["cls"].suffix == "_loss=cls"


def test_modalities_profiles_and_training_values_are_swept_too():
    assert [(c.modality, c.suffix) for c in grid("modality=image,fusion")] == [("image", "_image"), ("fusion", "")]
    assert [c.suffix for c in grid("noise_model=StudentT,Gaussian")] == ["", "_gaussian"]
    assert [c.settings.profile.temporal_update for c in grid("profile=default,paper,released")] == [
        "kalman", "paper", "none",
    ]  # fmt: skip
    assert [c.settings.recipe.lr for c in grid("lr=1e-4,2e-5")] == [1e-4, 2e-5]
    made = grid("scheduler_milestones=4+8,2+6+10")
    assert [c.settings.recipe.scheduler_milestones for c in made] == [(4, 8), (2, 6, 10)]
    assert made[1].suffix == "_scheduler_milestones=2+6+10"
    assert [c.settings.profile.test_crops for c in grid("test_crops=5,0..9")] == [(5,), tuple(range(10))]
    assert [c.settings.profile.rollback for c in grid("rollback=on,off")] == [True, False]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["gamma=1"], "unknown name; known are modality, profile, loss, .*num_refinement_steps \\(N\\).* lr, "),
        (["nu"], "name=value,value"),
        (["nu="], "name=value,value"),
        (["nu=two"], "nu: no float: 'two'"),
        (["N=1.5"], "num_refinement_steps: no int: '1.5'"),
        (["nu=2,2.0"], "nu: 2 stands twice"),
        (["nu=2", "nu=4"], "nu is given twice"),
        (["mil=topk,best"], "unknown value 'best'; known are topk, segment"),
        (["modality=sound"], "unknown value 'sound'; known are image, event, fusion"),
        (["loss=cls+l2"], "'cls\\+l2' is none of"),
        (["loss=kl"], "'kl' is none of"),
        (["loss=cls", "lambda_kl=0,1"], "loss and --sweep lambda_kl both set lambda_kl"),
        (["test_crops=11"], "numbers from 0 to 9"),
        (["rollback=yes"], "on or off"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_sentence(texts, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_sweeps(texts)


def test_what_the_network_or_the_catalogue_refuses_is_refused_before_anything_runs():
    def check(settings, modality):
        return IEFVADConfig(embed_dim=16, modality=modality, **model_fields(settings))

    with pytest.raises(ConfigError, match="nu must be positive"):
        cells(arguments(), parse_sweeps(["nu=8,0"]), check)
    with pytest.raises(InputError, match="--lr must be positive"):
        grid("lr=1e-4,-1")
