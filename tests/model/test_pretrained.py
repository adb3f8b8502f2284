"""A pretrained folder has the content of its checkpoint, and every damaged one is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from model import IEFVAD, CheckpointError, read_checkpoint, save_checkpoint, save_pretrained

SMALL = {"embed_dim": 16, "num_heads": 2, "num_layers": 1, "num_refinement_steps": 1}
EXTRA = {
    "weights": "last",
    "options": {"test_crops": (5, 7), "scheduler_milestones": (), "list": [1, [2.5, None]], "on": True},
    "metrics": {"AUC": 0.1 + 0.2, "AP": math.inf, "low": -math.inf},
    "encoder": {"image": {"tower": "ViT-L/14", "sha256": "é", "crops": ((0, 1), [2])}, "event": {}},
    "unheard_of": {"nested": {"deeper": ({"tuple": (1,)},)}},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a checkpoint with plain values of every type, and training state."""
    torch.manual_seed(0)
    state = {"rows": [{"step": 1}], "progress": {"step": 1}, "optimizer": {"state": torch.zeros(3)}}
    save_checkpoint(tmp_path / "a.pth", IEFVAD(**SMALL), **EXTRA, **state)
    return tmp_path / "a.pth"


@pytest.fixture
def folder(checkpoint: Path) -> Path:
    """Return the pretrained folder of the checkpoint."""
    save_pretrained(checkpoint.with_name("p"), read_checkpoint(checkpoint), "# card ŵ\n")
    return checkpoint.with_name("p")


def test_folder_has_the_content_of_the_checkpoint(checkpoint, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text(encoding="utf-8") == "# card ŵ\n"
    original, read = read_checkpoint(checkpoint), read_checkpoint(folder)
    for name in ("rows", "progress", "optimizer"):
        del original[name]
    model, tensors = original.pop("model"), read.pop("model")
    assert read == json.loads(json.dumps(original))  # with lists in place of tuples
    assert model.keys() == tensors.keys()
    assert all(torch.equal(model[name], tensors[name]) for name in model)


def test_nan_becomes_json_and_returns(checkpoint, tmp_path):
    content = {**read_checkpoint(checkpoint), "metrics": {"AUC": math.nan}}
    save_pretrained(tmp_path / "p", content, "")
    text = (tmp_path / "p" / "config.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # neither NaN nor Infinity, which are no JSON
    assert math.isnan(read_checkpoint(tmp_path / "p")["metrics"]["AUC"])


def test_released_checkpoint_keeps_its_form_and_options(tmp_path):
    from tests.model.test_checkpoint import released_state

    torch.save({"model_state_dict": released_state(), "epoch": 3}, tmp_path / "xd.pth")
    original = read_checkpoint(tmp_path / "xd.pth")
    save_pretrained(tmp_path / "p", original, "")
    read = read_checkpoint(tmp_path / "p")
    assert (read["form"], read["epoch"], read["config"]) == ("released", 3, original["config"])
    assert IEFVAD.from_pretrained(tmp_path / "p").config.padding == "attended"


def test_from_pretrained_loads_in_eval_mode_with_overrides(checkpoint, folder):
    x = torch.randn(2, 6, 16)
    models = [IEFVAD.from_pretrained(path) for path in (str(folder), checkpoint)]
    assert not models[0].training
    assert torch.equal(models[0](x, x).logits, models[1](x, x).logits)
    assert IEFVAD.from_pretrained(folder, modality="event", nu=3.0).config.nu == 3
    with pytest.raises(CheckpointError, match="unknown options no_such"):
        IEFVAD.from_pretrained(folder, no_such=1)


def test_name_on_the_hub_is_downloaded(folder, monkeypatch):
    names = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: names.append(name) or str(folder))
    assert IEFVAD.from_pretrained("someone/ief-vad-xd").config.embed_dim == 16
    assert names == ["someone/ief-vad-xd"]


@pytest.mark.parametrize("error", [OSError("no\nroute"), ValueError("Repo id is wrong")])
def test_unreachable_hub_is_one_sentence(monkeypatch, error):
    def fail(name: str, **_: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match="someone/x is no folder here and cannot be downloaded") as raised:
        IEFVAD.from_pretrained("someone/x")
    assert "\n" not in str(raised.value) and "Check the name and the network" in str(raised.value)


DAMAGES = {
    "no config": (lambda p: (p / "config.json").unlink(), "it has no config.json"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "it has no model.safetensors"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), "config.json cannot be read"),
    "no text": (lambda p: (p / "config.json").write_bytes(b"\xff"), "config.json cannot be read"),
    "a list": (lambda p: (p / "config.json").write_text("[]"), "does not describe a model of this code"),
    "another model": (
        lambda p: (p / "config.json").write_text('{"model_type": "clip", "config": {}}'),
        "does not describe a model of this code",
    ),
    "a float": (lambda p: (p / "config.json").write_text('{"__float__": "x"}'), "config.json cannot be read"),
    "cut": (lambda p: (p / "model.safetensors").write_bytes(b"\x10"), "model.safetensors cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder_is_refused_in_one_line(folder, damage):
    break_it, message = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(CheckpointError, match=message) as error:
        IEFVAD.from_pretrained(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_wrong_tensors_are_refused_by_name(checkpoint, tmp_path):
    content = read_checkpoint(checkpoint)
    del content["model"]["classifier.bias"]
    save_pretrained(tmp_path / "p", content, "")
    with pytest.raises(CheckpointError, match=r"p: tensor 'classifier\.bias' is missing"):
        IEFVAD.from_pretrained(tmp_path / "p")


@pytest.mark.parametrize("value", [torch.zeros(2), {1: "a"}])
def test_other_than_plain_values_are_refused(checkpoint, tmp_path, value):
    with pytest.raises(CheckpointError, match=r"config\.json cannot be written"):
        save_pretrained(tmp_path / "p", {**read_checkpoint(checkpoint), "extra": value}, "")
    assert not (tmp_path / "p").exists()


def test_missing_package_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="needs the package safetensors"):
        read_checkpoint(folder)


def test_new_folder_replaces_the_old_and_keeps_other_files(checkpoint, folder):
    (folder / "notes.txt").write_text("mine")
    save_pretrained(folder, {**read_checkpoint(checkpoint), "weights": "best"}, "new\n")
    assert read_checkpoint(folder)["weights"] == "best" and (folder / "README.md").read_text() == "new\n"
    assert (folder / "notes.txt").read_text() == "mine" and len(list(folder.iterdir())) == 4


def test_interrupted_write_leaves_no_mixture_of_two_models(checkpoint, folder, monkeypatch):
    replace = []

    def stop(source: Path, target: Path) -> None:
        replace.append(target.name)
        raise KeyboardInterrupt

    monkeypatch.setattr("model.checkpoint.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(folder, read_checkpoint(checkpoint), "")
    assert replace == ["model.safetensors"]  # first; config.json would be the last
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        read_checkpoint(folder)


def test_unwritable_folder_is_one_sentence(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be written \(.+\)\. Free"):
        save_pretrained(tmp_path / "file" / "p", read_checkpoint(checkpoint), "")
