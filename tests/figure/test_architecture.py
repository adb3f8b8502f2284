"""Figure 1 is a drawing of the network as it is: its numbers are the modules', and the committed file is up to date."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from model import IEFVAD, Objective
from vad import plotting
from vad.figures_architecture import Architecture, draw_architecture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def describe() -> Callable[..., Architecture]:
    """The door's `describe` on a network made from keywords."""
    spec = importlib.util.spec_from_file_location("door_architecture", ROOT / "figure" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(mil: str = "topk", **config: object) -> Architecture:
        model = IEFVAD(**config)
        return module.describe(model, Objective(config=model.config, mil=mil))

    return call


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Architecture], str]:
    """Every text of the drawing of a network, a line each."""
    kept: list[Figure] = []
    monkeypatch.setattr(plotting, "save", lambda fig, *rest, **about: kept.append(fig) or [])

    def call(facts: Architecture) -> str:
        draw_architecture(facts, tmp_path / "x")
        return "\n".join(text.get_text() for text in kept[-1].axes[0].texts)

    return call


def test_the_numbers_are_the_networks(describe, texts):
    """D = 64: attention 4·64² + 4·64, LayerNorm 2·64; three layers and the last LayerNorm: 50 432 in an encoder."""
    facts = describe(embed_dim=64, num_layers=3, num_heads=4, num_refinement_steps=5, lambda_ref=0.25, nu=6.0)
    assert facts.parameters["encoder"] == 3 * (4 * 64 * 64 + 4 * 64 + 2 * 64) + 2 * 64
    assert facts.parameters["head"] == 2 * (64 * 64 + 64)
    assert facts.parameters["refinement"] == 5 * 2 * (64 * 64 + 64)
    assert facts.parameters["temporal"] == 64 and facts.parameters["classifier"] == 65
    parts = facts.parameters
    assert parts["all"] == 2 * (parts["encoder"] + parts["head"]) + sum(
        parts[name] for name in ("temporal", "refinement", "classifier")
    )
    drawn = texts(facts)
    for part in ("×3", "4 heads", "N = 5", "0.25", "ν = 6", "B×T×64", "50 432", "Linear\nReLU\nLinear", "$q$ learned"):
        assert part in drawn, part
    assert "$L_{reg}$" in drawn and drawn.count("$L_{kl}$:") == 2 and "top-$k$" in drawn


@pytest.mark.parametrize(
    ("config", "there", "not_there"),
    [
        ({"temporal_update": "none"}, "no recursion", "P_{t-1}"),
        ({"temporal_update": "paper"}, "$q$ = 0", "learned"),
        ({"noise_model": "Gaussian"}, "3.2  Gaussian", r"\nu"),
        ({"epsilon_placement": "sum"}, r"1 / \sigma^2_{eff}$", r"\epsilon"),
        ({"num_refinement_steps": 0}, "N = 0", "ReLU"),
        ({"modality": "event"}, "one stream", "$L_{reg}$:"),
        ({"mil": "segment"}, "segment mean", "top-$k$"),
    ],
)
def test_a_setting_changes_the_drawing(describe, texts, config, there, not_there):
    drawn = texts(describe(embed_dim=16, **config))
    assert there in drawn and not_there not in drawn
    assert not_there in texts(describe(embed_dim=16)) or "learned" in not_there


def test_the_files_are_whole_and_the_same_every_time(describe, tmp_path):
    facts = describe(embed_dim=16)
    first, again = (draw_architecture(facts, tmp_path / name / "a") for name in ("one", "two"))
    assert [path.name for path in first] == ["a.png", "a.pdf", "a.svg"]
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, again, strict=True)] == [True] * 3
    changed = draw_architecture(replace(facts, steps=9), tmp_path / "three" / "a")
    assert changed[2].read_bytes() != first[2].read_bytes()


def test_the_committed_figure_is_of_the_present_network(describe):
    """Fails when the default network changes: run `python figure/architecture.py` and look at the result."""
    svg = html.unescape((ROOT / "figure" / "architecture.svg").read_text(encoding="utf-8"))
    assert repr(describe(embed_dim=768)) in svg
