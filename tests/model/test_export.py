"""Exported graphs compute what the network computes, for every B and T, and hold nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model import IEFVAD, CheckpointError
from model.export import Scorer, export
from model.uncertainty import GaussianHead
from tests.conftest import ROOT

SMALL = {"embed_dim": 16, "num_heads": 2, "num_layers": 1, "num_refinement_steps": 1}
SIZES = [(1, 1), (1, 2), (3, 1), (2, 16), (2, 70)]  # B, T; the graph is traced with 2, 3
WEIGHTED = ["score", "weight_image", "weight_event"]
NONE = {"temporal_update": "none"}  # much faster to export
# every temporal update, modality, fusion, padding and projection, and the outputs to expect
NETWORKS = [
    ({}, WEIGHTED),
    ({"temporal_update": "paper", "padding": "attended", "fusion": "late", "input_dim": 20}, WEIGHTED),
    ({**NONE, "fusion": "cross_attention"}, ["score"]),
    ({**NONE, "fusion": "concat", "noise_model": "Gaussian"}, ["score"]),
    ({**NONE, "fusion": "equal", "epsilon_placement": "sum"}, WEIGHTED),
    ({**NONE, "fusion": "gate"}, WEIGHTED),
    ({**NONE, "modality": "image", "padding": "attended"}, ["score"]),
    ({**NONE, "modality": "event", "input_dim": 20}, ["score"]),
]


def network(**config: object) -> IEFVAD:
    """Return a small network with variances around 2e−9, so that ε = 1e−8 matters."""
    torch.manual_seed(0)
    model = IEFVAD(**SMALL, **config).eval()
    for head in (m for m in model.modules() if isinstance(m, GaussianHead)):
        torch.nn.init.constant_(head.log_variance.bias, -20.0)
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
    weights = {f"weight_{m}": w.mean(-1) for m, w in output.weights.items()}
    score = torch.sigmoid(output.logits)[..., 0]
    return {name: value.numpy() for name, value in {"score": score, **weights}.items()}


def onnx_session(model: IEFVAD, path: Path):
    """Export to ONNX and open the file; skip the test without the packages of `.[export]`."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is missing: pip install .[export]")
    import onnxruntime

    export(model, path)
    assert_no_paths(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that it could not simplify constants
    return onnxruntime.InferenceSession(path, options)


def assert_no_paths(path: Path) -> None:
    """Assert that a file does not contain the folder of this code, as stack traces would."""
    assert str(ROOT).encode() not in path.read_bytes()


@pytest.mark.parametrize(("config", "outputs"), NETWORKS)
def test_reloaded_program_equals_the_network(tmp_path, config, outputs):
    model = network(**config)
    export(model, tmp_path / "m.pt2")
    assert_no_paths(tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    for B, T in SIZES:
        inputs = batch(model, B, T)
        result = program(**inputs)
        assert list(result) == outputs
        for name, value in expected(model, inputs).items():
            if name in outputs:
                np.testing.assert_allclose(result[name].detach(), value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("config", "outputs"), NETWORKS[:3])
def test_onnx_file_equals_the_network(tmp_path, config, outputs):
    model = network(**config)
    session = onnx_session(model, tmp_path / "m.onnx")
    shapes = {x.name: x.shape for x in session.get_inputs()}
    width = model.config.embedding_width
    streams = {m: ["batch", "time", width] for m in Scorer(model).streams}
    assert shapes == {"lengths": ["batch"], **streams}
    assert [x.name for x in session.get_outputs()] == outputs
    for B, T in SIZES:
        inputs = batch(model, B, T)
        result = session.run(outputs, {name: x.numpy() for name, x in inputs.items()})
        for name, value in zip(outputs, result, strict=True):
            np.testing.assert_allclose(value, expected(model, inputs)[name], rtol=0, atol=1e-6)


def test_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("model.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"Run pip install onnx onnxscript\."):
        export(network(), tmp_path / "m.onnx")


def test_failed_export_is_reported_and_keeps_the_old_file(tmp_path, monkeypatch):
    model = network(**NONE, modality="image")
    export(model, tmp_path / "m.pt2")
    before = (tmp_path / "m.pt2").read_bytes()

    def fail(program: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(CheckpointError, match=r"m\.pt2 cannot be written \(No space left"):
        export(model, tmp_path / "m.pt2")
    assert (tmp_path / "m.pt2").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]
