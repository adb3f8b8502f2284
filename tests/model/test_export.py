"""Exported graphs compute what the network computes, for every B and T, and hold nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from model import IEFVAD, CheckpointError
from model.export import Scorer, export
from tests.conftest import ROOT

SMALL = {"embed_dim": 16, "num_heads": 2, "num_layers": 1, "num_refinement_steps": 1}
SIZES = [(1, 1), (1, 2), (3, 1), (2, 16), (2, 255)]  # B, T; the graph is traced with 2, 3
WEIGHTED = ["score", "weight_image", "weight_event"]
# every temporal update, modality, fusion, padding and projection, and the outputs to expect
NETWORKS = [
    ({}, WEIGHTED),
    ({"temporal_update": "paper", "padding": "attended", "fusion": "equal"}, WEIGHTED),
    ({"temporal_update": "none", "input_dim": 20, "noise_model": "Gaussian"}, WEIGHTED),
    ({"epsilon_placement": "sum", "fusion": "gate"}, WEIGHTED),
    ({"fusion": "late"}, WEIGHTED),
    ({"fusion": "concat"}, ["score"]),
    ({"fusion": "cross_attention"}, ["score"]),
    ({"modality": "image"}, ["score"]),
    ({"modality": "event", "padding": "attended", "input_dim": 20}, ["score"]),
]


def network(**config: object) -> IEFVAD:
    """Return a small network whose fusion weights differ between dimensions and steps."""
    torch.manual_seed(0)
    model = IEFVAD(**SMALL, **config).eval()
    for projection in (m for m in model.modules() if hasattr(m, "fit")):
        projection.fit(torch.randn(50, 20))
    return model


def batch(model: IEFVAD, B: int, T: int) -> dict[str, torch.Tensor]:
    """Return random inputs of an exported graph, with lengths from 1 to T."""
    generator = torch.Generator().manual_seed(T)
    shape = B, T, model.config.embedding_width
    names = [m for m in ("image", "event") if model.config.modality in (m, "fusion")]
    inputs = {name: torch.randn(shape, generator=generator) for name in names}
    return {**inputs, "lengths": torch.randint(1, T + 1, (B,), generator=generator)}


def expected(model: IEFVAD, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return score and weights of the network itself, which uses the fast kernels."""
    with torch.no_grad():
        output = model(inputs.get("image"), inputs.get("event"), inputs["lengths"])
    weights = {f"weight_{m}": getattr(output, f"weight_{m}").mean(-1) for m in ("image", "event")}
    score = torch.sigmoid(output.logits)[..., 0]
    return {name: value.numpy() for name, value in {"score": score, **weights}.items()}


def runtime(path: Path):
    """Return an ONNX Runtime session; skip the test without the packages of `.[export]`."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is missing: pip install .[export]")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that it could not simplify constants
    return onnxruntime.InferenceSession(path, options)


@pytest.mark.parametrize(("config", "outputs"), NETWORKS)
def test_reloaded_program_equals_the_network(tmp_path, config, outputs):
    model = network(**config)
    export(model, tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    for B, T in SIZES:
        inputs = batch(model, B, T)
        result = program(**inputs)
        assert list(result) == outputs
        for name, value in expected(model, inputs).items():
            if name in outputs:
                np.testing.assert_allclose(result[name].detach(), value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("config", "outputs"), [NETWORKS[k] for k in (0, 4, 6, 8)])
def test_onnx_file_equals_the_network(tmp_path, config, outputs):
    model = network(**config)
    pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install .[export]")
    export(model, tmp_path / "m.onnx")
    session = runtime(tmp_path / "m.onnx")
    shapes = {x.name: x.shape for x in session.get_inputs()}
    width = model.config.embedding_width
    streams = {m: ["batch", "time", width] for m in Scorer(model).streams}
    assert shapes == {"lengths": ["batch"], **streams}
    for B, T in SIZES:
        inputs = batch(model, B, T)
        result = session.run(outputs, {name: x.numpy() for name, x in inputs.items()})
        for name, value in zip(outputs, result, strict=True):
            np.testing.assert_allclose(value, expected(model, inputs)[name], rtol=0, atol=1e-6)


def test_onnx_file_keeps_the_epsilon_of_small_variances(tmp_path):
    """σ² = e^−30 ≪ ε: w_i = 1/ε and w_e = 1/(e^−17 + ε) give ŵ_i = 0.84; without ε it would be 1."""
    pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install .[export]")
    model = network(epsilon=1e-8, noise_model="Gaussian")
    for head, logvar in ((model.image_head, -30.0), (model.event_head, -17.0)):
        torch.nn.init.zeros_(head.log_variance.weight)
        torch.nn.init.constant_(head.log_variance.bias, logvar)
    export(model, tmp_path / "m.onnx")
    inputs = {name: x.numpy() for name, x in batch(model, 1, 4).items()}
    (weight,) = runtime(tmp_path / "m.onnx").run(["weight_image"], inputs)
    w_image, w_event = 1 / (np.exp(-30) + 1e-8), 1 / (np.exp(-17) + 1e-8)
    np.testing.assert_allclose(weight, w_image / (w_image + w_event), rtol=1e-5)


def test_exported_files_have_no_paths_of_this_computer(tmp_path):
    suffixes = [".pt2", *([".onnx"] if importlib.util.find_spec("onnxscript") else [])]
    for suffix in suffixes:
        export(network(), tmp_path / f"m{suffix}")
        assert str(ROOT).encode() not in (tmp_path / f"m{suffix}").read_bytes()
        assert str(Path.home()).encode() + b"/" not in (tmp_path / f"m{suffix}").read_bytes()


def test_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("model.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"Run pip install onnx onnxscript\."):
        export(network(), tmp_path / "m.onnx")


def test_failed_export_is_reported_and_keeps_the_old_file(tmp_path, monkeypatch):
    export(network(modality="image"), tmp_path / "m.pt2")
    before = (tmp_path / "m.pt2").read_bytes()

    def fail(program: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(CheckpointError, match=r"m\.pt2 cannot be written \(No space left"):
        export(network(modality="image"), tmp_path / "m.pt2")
    assert (tmp_path / "m.pt2").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
