"""Every form of checkpoint in circulation, and every way in which a file can be wrong."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch

from model import IEFVAD, CheckpointError, load_checkpoint, read_checkpoint, save_checkpoint
from model.checkpoint import from_released_name, to_released_name


def released_state(D: int = 32, layers: int = 2, steps: int = 3) -> dict[str, torch.Tensor]:
    """A state_dict as the authors' code would save it, random, small."""
    generator = torch.Generator().manual_seed(0)
    model = IEFVAD(
        embed_dim=D, num_layers=layers, num_refinement_steps=steps, temporal_update="none"
    )
    return {
        to_released_name(k): torch.randn(v.shape, generator=generator)
        for k, v in model.state_dict().items()
    }


def test_released_names_translate_both_ways(released_layout):
    ours = IEFVAD(temporal_update="none").state_dict()
    translated = {from_released_name(name): shape for name, shape in released_layout.items()}
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == translated
    assert sum(tensor.numel() for tensor in ours.values()) == 23_633_665
    assert all(to_released_name(from_released_name(name)) == name for name in released_layout)


@pytest.mark.parametrize(("layers", "steps"), [(2, 3), (1, 0), (3, 10)])
def test_a_state_dict_gets_its_sizes_and_the_released_options(tmp_path, layers, steps):
    state = released_state(layers=layers, steps=steps)
    torch.save(state, tmp_path / "ucf.pth")
    model = load_checkpoint(tmp_path / "ucf.pth")
    config = model.config
    assert (config.embed_dim, config.num_layers, config.num_refinement_steps) == (32, layers, steps)
    assert (config.temporal_update, config.padding, config.epsilon_placement) == (
        "none",
        "attended",
        "sum",
    )
    assert (config.num_heads, config.nu, config.lambda_ref) == (8, 8.0, 0.5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[to_released_name(name)])
    assert not model.training


def test_the_authors_training_dictionary_with_its_numpy_score(tmp_path):
    state = released_state()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    content = {
        "epoch": 3,
        "model_state_dict": {f"module.{k}": v for k, v in state.items()},
        "optimizer_state_dict": optimizer.state_dict(),
        "ap": np.float64(0.8763),
    }
    torch.save(content, tmp_path / "xd.pth")
    assert torch.equal(
        load_checkpoint(tmp_path / "xd.pth").classifier.weight, state["temporal.classifier.weight"]
    )
    read = read_checkpoint(tmp_path / "xd.pth")
    assert read["epoch"] == 3 and float(read["ap"]) == 0.8763


def test_our_file_returns_what_was_saved_unless_overridden(tmp_path):
    model = IEFVAD(
        embed_dim=32, num_heads=4, num_refinement_steps=2, nu=4.0, noise_model="Gaussian"
    ).eval()
    save_checkpoint(
        tmp_path / "deep" / "a.pth", model, epoch=7, settings={"lr": 1e-4, "test_crops": (5,)}
    )
    loaded = load_checkpoint(tmp_path / "deep" / "a.pth")
    assert loaded.config == model.config
    x = torch.randn(1, 6, 32)
    assert torch.equal(loaded(x, x).logits, model(x, x).logits)
    assert read_checkpoint(tmp_path / "deep" / "a.pth")["settings"]["lr"] == 1e-4
    assert (
        load_checkpoint(tmp_path / "deep" / "a.pth", nu=2.0, temporal_update="none").config.nu
        == 2.0
    )
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.pth"]


def test_one_stream_can_be_taken_out_of_a_fused_checkpoint(tmp_path):
    torch.save(released_state(), tmp_path / "a.pth")
    model = load_checkpoint(tmp_path / "a.pth", modality="image")
    assert model.config.modality == "image"
    assert model(torch.randn(1, 4, 32), None).logits.shape == (1, 4, 1)


def corrupt(state: dict[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    if what == "missing":
        del state["temporal.event_norms.1.bias"]
    elif what == "extra":
        state["temporal.text_prompt.weight"] = torch.zeros(3)
    elif what == "misshapen":
        state["temporal.image_mu.weight"] = torch.zeros(32, 16)
    elif what == "no classifier":
        state = {"conv1.weight": torch.zeros(3, 3)}
    return state


@pytest.mark.parametrize(
    ("what", "sentence"),
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
def test_a_wrong_tensor_is_named_as_the_file_names_it(tmp_path, what, sentence):
    torch.save(corrupt(released_state(), what), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"<html>quota exceeded</html>", "cannot be read as a checkpoint"),
        ([1, 2, 3], "holds a list"),
        ({"weights": 5}, "holds no weights of this model"),
        ({"model_state_dict": {}}, "holds no weights of this model"),
        ({0: torch.zeros(1)}, "holds no weights of this model"),
        ({"format": "ief-vad 1"}, "holds no weights of this model"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(path)
    assert "a.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    torch.save(released_state(), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"b\.pth cannot be read"):
        load_checkpoint(tmp_path / "b.pth")


def test_pickled_code_is_never_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    torch.save({"model_state_dict": Payload()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"num_refinement_step": 4}, "unknown settings num_refinement_step"),
        (
            {"num_refinement_steps": 5},
            r"tensor 'temporal\.refinement_blocks\.3\.0\.bias' is missing",
        ),
        ({"num_heads": 7}, "cannot be divided among 7"),
        ({"temporal_update": "kalman"}, "trained without a learned process noise"),
        ({"nu": -1.0}, "nu must be positive"),
    ],
)
def test_an_override_that_cannot_hold_is_refused(tmp_path, overrides, sentence):
    torch.save(released_state(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "a.pth", **overrides)


def test_no_such_file(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pth")


def test_a_full_or_unwritable_place_is_one_sentence(tmp_path):
    model = IEFVAD(embed_dim=32, num_refinement_steps=1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"run\.pth cannot be written \(File exists\)"):
        save_checkpoint(tmp_path / "file" / "run.pth", model)
    save_checkpoint(tmp_path / "run.pth", model, epoch=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # stands for a full disk
        with pytest.raises(CheckpointError, match=r"run\.pth cannot be written \(.+\); make room"):
            save_checkpoint(tmp_path / "run.pth", model, epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # what was there is there, and nothing else
    assert read_checkpoint(tmp_path / "run.pth")["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.pth"]
