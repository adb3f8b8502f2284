"""Figure 1 shows the numbers of the network's modules, and the committed file is up to date."""

from __future__ import annotations

import html
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure

from model import IEFVAD, Objective
from vad.report import plots

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import figure/architecture.py as a module."""
    spec = importlib.util.spec_from_file_location("figure_architecture", ROOT / "figure" / "architecture.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses need it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def describe(script: ModuleType) -> Callable[..., object]:
    """Return a function that describes a network with the given configuration."""

    def call(mil: str = "topk", **config: object) -> object:
        model = IEFVAD(**config)
        return script.describe(model, Objective(config=model.config, mil=mil))

    return call


@pytest.fixture
def texts(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], str]:
    """Return a function that draws an architecture and returns all texts of the figure, one per line."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda fig, *rest, **about: figures.append(fig) or [])

    def call(facts: object) -> str:
        script.draw_architecture(facts, tmp_path / "x")
        return "\n".join(text.get_text() for text in figures[-1].axes[0].texts)

    return call


def test_figure_shows_numbers_of_the_network(describe, texts):
    """An encoder has 50 432 parameters: 3 × (attention 4·64² + 4·64, LayerNorm 2·64) and a LayerNorm 2·64."""
    facts = describe(embed_dim=64, num_layers=3, num_heads=4, num_refinement_steps=5, lambda_ref=0.25, nu=6.0)
    parts = dict(facts.parameters)
    assert parts.pop("all") == sum(parts.values()) + parts["encoder"] + parts["head"]  # two streams
    assert parts == {
        "encoder": 3 * (4 * 64 * 64 + 4 * 64 + 2 * 64) + 2 * 64,
        "head": 2 * (64 * 64 + 64),
        "temporal": 64,
        "refinement": 5 * 2 * (64 * 64 + 64),
        "classifier": 65,
    }
    drawn = texts(facts)
    for part in ("×3", "4 heads", "N = 5", "0.25", "ν = 6", "B×T×64", "50 432", "Linear\nReLU\nLinear", "$q$ learned"):
        assert part in drawn, part
    assert "$L_{reg}$" in drawn and drawn.count("$L_{kl}$:") == 2 and "top-$k$" in drawn


@pytest.mark.parametrize(
    ("config", "present", "absent"),
    [
        ({"temporal_update": "none"}, "no recursion", "P_{t-1}"),
        ({"temporal_update": "paper"}, "$q$ = 0", "$q$ learned"),
        ({"noise_model": "Gaussian"}, "3.2  Gaussian", r"\nu"),
        ({"epsilon_placement": "sum"}, r"1 / \sigma^2_{eff}$", r"\epsilon"),
        ({"num_refinement_steps": 0}, "N = 0", "ReLU"),
        ({"modality": "event"}, "single modality", "$L_{reg}$:"),
        ({"mil": "segment"}, "segment mean", "top-$k$"),
    ],
)
def test_option_changes_the_figure(describe, texts, config, present, absent):
    drawn = texts(describe(embed_dim=16, **config))
    assert present in drawn and absent not in drawn
    assert absent in texts(describe(embed_dim=16))


def test_figure_files_are_reproducible(script, describe, tmp_path):
    facts = describe(embed_dim=16)
    first, again = (script.draw_architecture(facts, tmp_path / name / "a") for name in ("one", "two"))
    assert [path.name for path in first] == ["a.png", "a.pdf", "a.svg"]
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, again, strict=True)] == [True] * 3
    changed = script.draw_architecture(replace(facts, steps=9), tmp_path / "three" / "a")
    assert changed[2].read_bytes() != first[2].read_bytes()


def test_committed_figure_matches_the_default_network(describe):
    """If this fails, run `python figure/architecture.py` and check the new figure."""
    svg = html.unescape((ROOT / "figure" / "architecture.svg").read_text(encoding="utf-8"))
    assert repr(describe(embed_dim=768)) in svg


def test_command_draws_the_network_of_its_flags(script, monkeypatch, tmp_path, capsys):
    flags = ["--embed_dim", "16", "--visual_head", "2", "--nu", "4", "--save_path", str(tmp_path / "a")]
    monkeypatch.setattr("sys.argv", ["architecture.py", *flags])
    script.main()
    assert capsys.readouterr().out.split() == [str(tmp_path / f"a.{suffix}") for suffix in ("png", "pdf", "svg")]
    assert "nu=4.0" in html.unescape((tmp_path / "a.svg").read_text(encoding="utf-8"))
