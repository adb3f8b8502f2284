"""Released files and files of this code load; damaged and foreign ones are refused."""

from __future__ import annotations

import pytest
import torch

from model import IEFVAD, CheckpointError, save_checkpoint
from model.avadclip import AVadCLIP, TextTower, load_avadclip, read_avadclip, save_avadclip
from model.avadclip.checkpoint import RELEASED_CLASSES, from_released_state

ROLES = pytest.mark.parametrize("role", ["teacher", "student"])
PARAMETERS = {"teacher": 17_106_441, "student": 13_163_017}
# sizes of the released layout → small ones; 256 is both the window and D / 2
SMALL = {256: 32, 512: 64, 1024: 128, 1536: 192, 2048: 256, 768: 2, 2304: 2, 3072: 2}


@pytest.fixture
def released_state(layout):
    """Return a builder of random released state_dicts of width 64, with a CLIP of 12 layers inside."""

    def build(role: str) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        state = {}
        for name, shape in layout[role].items():
            size = [SMALL.get(n, n) for n in shape]
            scale = size[-1] ** -0.5 if len(size) > 1 else 0.1
            state[name] = scale * torch.randn(size, generator=generator)
        for name in [name for name in state if ".net." in name]:  # the second names
            state[name] = state[name.replace("net.0", "conv1").replace("net.4", "conv2")]
        return state

    return build


@ROLES
def test_released_layout_is_that_of_the_network(layout, role):
    with torch.device("meta"):
        model = AVadCLIP(None, classes=tuple(RELEASED_CLASSES), student=role == "student", variance_head="released")
        released = {name: torch.empty(shape) for name, shape in layout[role].items()}
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert ours.pop("text_embedding") == (7, 512)
    assert {name: tensor.shape for name, tensor in from_released_state(released).items()} == ours
    # the unused disAdj.sigma is one more
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[role] - 1


@ROLES
@pytest.mark.parametrize("wrapped", [False, True])
def test_released_file_loads(tmp_path, released_state, role, wrapped):
    state = released_state(role)
    content = {f"module.{k}": v for k, v in state.items()} if wrapped else state
    content = {"model_state_dict": content, "epoch": 3, "ap": 0.86} if wrapped else content
    torch.save(content, tmp_path / "model.pth")
    content = read_avadclip(tmp_path / "model.pth")
    assert (content["form"], content.get("epoch")) == ("released", 3 if wrapped else None)
    model = load_avadclip(tmp_path / "model.pth")
    c = model.config
    assert not model.training and model.tower is None
    assert (c.student, c.embed_dim, c.max_length) == (role == "student", 64, 32)
    assert (c.layers, c.block) == ((1, 64) if c.student else (2, 4))
    assert (c.padding, c.global_weights, c.prompt_weights) == ("attended", "logit", "uniform")
    assert torch.equal(model.prompt.feed_forward.c_fc.weight, state["mlp1.c_fc.weight"])
    assert torch.equal(model.classifier.feed_forward.c_fc.weight, state["mlp2.c_fc.weight"])
    x = torch.randn(1, 9, 64)
    output = model(x, x)
    assert output.logits.isfinite().all() and output.class_logits.isfinite().all()


def test_weights_of_temporal_convolutions_are_normalised(tmp_path, released_state):
    # weight norm: g · v / ‖v‖
    state = released_state("teacher")
    torch.save(state, tmp_path / "model.pth")
    conv = load_avadclip(tmp_path / "model.pth").audio.blocks[1][1]
    name = "temporalconvnet.network.1.conv2."
    g, v = state[f"{name}weight_g"], state[f"{name}weight_v"]
    torch.testing.assert_close(conv.weight, g * v / v.flatten(1).norm(dim=1)[:, None, None])
    assert torch.equal(conv.bias, state[f"{name}bias"])


def test_released_prompts_have_the_tokens_of_clip(case, tmp_path, released_state):
    state = released_state("student")
    torch.save(state, tmp_path / "model.pth")
    parity = case("small")
    assert tuple(parity.config["prompts"]) == tuple(RELEASED_CLASSES)
    clip = {k.removeprefix("clipmodel."): v for k, v in state.items() if k.startswith("clipmodel.")}
    tower = TextTower.from_clip(clip, torch.from_numpy(parity.arrays["tokens"]))
    content = read_avadclip(tmp_path / "model.pth")
    model = load_avadclip(tmp_path / "model.pth", tower)
    torch.testing.assert_close(content["model"]["text_embedding"], model.embed_text(), rtol=1e-5, atol=1e-6)


@ROLES
def test_saved_network_needs_no_text_tower(tmp_path, network, role):
    model = network(student=role == "student", variance_head="plain")
    path = tmp_path / "folder" / "a.pth"
    save_avadclip(path, model, epoch=7, settings={"lr": 1e-5})
    content = read_avadclip(path)
    assert (content["form"], content["epoch"], content["settings"]) == ("ours", 7, {"lr": 1e-5})
    assert not any("tower" in name for name in content["model"])
    loaded = load_avadclip(path)
    assert loaded.config == model.config and not loaded.training
    x = torch.randn(2, 11, 16)
    for name, value in vars(model(x, x)).items():
        assert value is None or torch.equal(getattr(loaded(x, x), name), value), name
    assert list(path.parent.iterdir()) == [path]
    assert load_avadclip(path, padding="attended").config.padding == "attended"
    # saved again, without a tower
    save_avadclip(path, loaded)
    assert torch.equal(load_avadclip(path).text_embedding, loaded.text_embedding)


def test_unusable_files_are_refused(tmp_path, network, released_state):
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_avadclip(path)
    save_checkpoint(path, IEFVAD(embed_dim=16, num_heads=2, num_refinement_steps=1))
    with pytest.raises(CheckpointError, match=r"a\.pth contains no weights of AVadCLIP, teacher or student"):
        load_avadclip(path)
    torch.save({"weights": [1, 2]}, path)
    with pytest.raises(CheckpointError, match="contains no weights of AVadCLIP"):
        load_avadclip(path)
    state = released_state("student")
    torch.save({k: v for k, v in state.items() if k != "mlp1.c_fc.bias"}, path)
    with pytest.raises(CheckpointError, match=r"does not fit the network\. Missing key.*forward\.c_fc\.bias"):
        load_avadclip(path)
    torch.save({k: v for k, v in state.items() if not k.startswith("clipmodel.")}, path)
    with pytest.raises(CheckpointError, match="no weights of a CLIP text tower"):
        load_avadclip(path)
    torch.save({**state, "alpha": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"has 2 classes\. A released file has 7"):
        load_avadclip(path)
    save_avadclip(path, network())
    with pytest.raises(CheckpointError, match="fusion must be one of"):
        load_avadclip(path, fusion="late")
    with pytest.raises(CheckpointError, match=r"Missing key.*enhancement\.convs\.0\.weight"):
        load_avadclip(path, student=True)
