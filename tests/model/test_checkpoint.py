"""Every checkpoint format loads, and every kind of damaged or wrong file is refused."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch

from model import IEFVAD, CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from model.checkpoint import from_released_name, to_released_name


def released_state(D: int = 32, layers: int = 2, steps: int = 3) -> dict[str, torch.Tensor]:
    """Return a small random state_dict with the names of the authors' code."""
    generator = torch.Generator().manual_seed(0)
    model = IEFVAD(
        embed_dim=D, num_layers=layers, num_refinement_steps=steps, temporal_update="none"
    )
    return {
        to_released_name(k): torch.randn(v.shape, generator=generator)
        for k, v in model.state_dict().items()
    }


def test_released_names_translate_in_both_directions(released_layout):
    ours = IEFVAD(temporal_update="none").state_dict()
    translated = {from_released_name(name): shape for name, shape in released_layout.items()}
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == translated
    assert sum(tensor.numel() for tensor in ours.values()) == 23_633_665
    assert all(to_released_name(from_released_name(name)) == name for name in released_layout)


@pytest.mark.parametrize(("layers", "steps"), [(2, 3), (1, 0), (3, 10)])
def test_state_dict_gets_inferred_sizes_and_released_options(tmp_path, layers, steps):
    state = released_state(layers=layers, steps=steps)
    torch.save(state, tmp_path / "ucf.pth")
    model = load_checkpoint(tmp_path / "ucf.pth")
    config = model.config
    assert (config.embed_dim, config.num_layers, config.num_refinement_steps) == (32, layers, steps)
    assert (config.temporal_update, config.padding) == ("none", "attended")
    assert config.epsilon_placement == "sum"
    assert (config.num_heads, config.nu, config.lambda_ref) == (8, 8.0, 0.5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[to_released_name(name)])
    assert not model.training


def test_training_file_of_the_authors_is_read(tmp_path):
    state = released_state()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    content = {
        "epoch": 3,
        "model_state_dict": {f"module.{k}": v for k, v in state.items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "ap": np.float64(0.8763),
    }
    torch.save(content, tmp_path / "xd.pth")
    model = load_checkpoint(tmp_path / "xd.pth")
    assert torch.equal(model.classifier.weight, state["temporal.classifier.weight"])
    content = read_checkpoint(tmp_path / "xd.pth")
    assert content["epoch"] == 3 and float(content["ap"]) == 0.8763


def test_saved_model_is_restored_unless_overridden(tmp_path):
    model = IEFVAD(
        embed_dim=32, num_heads=4, num_refinement_steps=2, nu=4.0, noise_model="Gaussian"
    ).eval()
    path = tmp_path / "folder" / "a.pth"
    save_checkpoint(path, model, epoch=7, settings={"lr": 1e-4, "test_crops": (5,)})
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    x = torch.randn(1, 6, 32)
    assert torch.equal(loaded(x, x).logits, model(x, x).logits)
    assert read_checkpoint(path)["settings"]["lr"] == 1e-4
    assert load_checkpoint(path, nu=2.0, temporal_update="none").config.nu == 2.0
    assert list(path.parent.iterdir()) == [path]


def test_single_modality_loads_from_fusion_checkpoint(tmp_path):
    torch.save(released_state(), tmp_path / "a.pth")
    model = load_checkpoint(tmp_path / "a.pth", modality="image")
    assert model.config.modality == "image"
    assert model(torch.randn(1, 4, 32), None).logits.shape == (1, 4, 1)


def corrupt(state: dict[str, torch.Tensor], damage: str) -> dict[str, torch.Tensor]:
    if damage == "missing":
        del state["temporal.event_norms.1.bias"]
    elif damage == "extra":
        state["temporal.text_prompt.weight"] = torch.zeros(3)
    elif damage == "misshapen":
        state["temporal.image_mu.weight"] = torch.zeros(32, 16)
    elif damage == "no classifier":
        state = {"conv1.weight": torch.zeros(3, 3)}
    return state


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"a\.pth: tensor 'temporal\.event_norms\.1\.bias' is missing"),
        ("extra", r"a\.pth: tensor 'temporal\.text_prompt\.weight' is unexpected"),
        (
            "misshapen",
            r"tensor 'temporal\.image_mu\.weight' has shape \(32, 16\) instead of \(32, 32\)",
        ),
        ("no classifier", r"'temporal\.classifier\.weight' is missing"),
    ],
)
def test_wrong_tensor_is_refused_by_its_name_in_the_file(tmp_path, damage, message):
    torch.save(corrupt(released_state(), damage), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"<html>quota exceeded</html>", "cannot be read as a checkpoint"),
        ([1, 2, 3], "contains a list instead of"),
        ({"weights": 5}, "contains no weights of this model"),
        ({"model_state_dict": {}}, "contains no weights of this model"),
        ({0: torch.zeros(1)}, "contains no weights of this model"),
        ({"format": "ief-vad 1"}, "contains no weights of this model"),
    ],
)
def test_non_checkpoint_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert "a.pth" in str(error.value) and "\n" not in str(error.value)


def test_truncated_file_is_refused(tmp_path):
    torch.save(released_state(), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"b\.pth cannot be read"):
        load_checkpoint(tmp_path / "b.pth")


def test_pickled_code_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    torch.save({"model_state_dict": Payload()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_refinement_step": 4}, "unknown options num_refinement_step;"),
        ({"num_refinement_steps": 5}, r"'temporal\.refinement_blocks\.3\.0\.bias' is missing"),
        ({"num_heads": 7}, "not divisible by 7 heads"),
        ({"temporal_update": "kalman"}, "trained without a learned process noise"),
        ({"nu": -1.0}, "nu must be positive"),
    ],
)
def test_invalid_override_is_refused(tmp_path, overrides, message):
    torch.save(released_state(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.pth", **overrides)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pth")


def test_failed_write_is_reported_and_keeps_the_old_file(tmp_path):
    model = IEFVAD(embed_dim=32, num_refinement_steps=1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"run\.pth cannot be written \(File exists\)"):
        save_checkpoint(tmp_path / "file" / "run.pth", model)
    save_checkpoint(tmp_path / "run.pth", model, epoch=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # simulates a full disk
        with pytest.raises(CheckpointError, match=r"run\.pth cannot be written \(.+\)\. Free"):
            save_checkpoint(tmp_path / "run.pth", model, epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # the old files are intact and no temporary file remains
    assert read_checkpoint(tmp_path / "run.pth")["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.pth"]
