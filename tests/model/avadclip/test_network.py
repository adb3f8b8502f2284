"""Padding, window lengths, fusions, prompts and options of the network."""

from __future__ import annotations

import copy

import pytest
import torch

from extracting.clip.tower import import_open_clip
from model.avadclip import PROFILES, AVadCLIP, AVadCLIPConfig, AVadCLIPObjective, TextTower
from model.avadclip.distillation import VarianceHead
from model.avadclip.fusion import FUSIONS
from model.avadclip.temporal import TemporalConvolution, TemporalModel
from model.ief_vad import ConfigError

FIELDS = AVadCLIPConfig.__dataclass_fields__
ROLES = pytest.mark.parametrize("student", [False, True])
B, T, D = 3, 20, 16
LENGTHS = torch.tensor([20, 13, 1])
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 0]])


def split(profile: str) -> tuple[dict, dict]:
    """Return the options of the network and of the objective in a profile."""
    options = PROFILES[profile]
    return {k: v for k, v in options.items() if k in FIELDS}, {k: v for k, v in options.items() if k not in FIELDS}


def inputs(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, B, T, D, generator=generator)


def with_noise_in_padding(x):
    padding = (torch.arange(T) >= LENGTHS[:, None])[..., None]
    return torch.where(padding, inputs(seed=2)[0] * 3, x)


@ROLES
@pytest.mark.parametrize("options", [{}, {"prompt_weights": "classes"}, {"audio_delay": "both"}, {"fusion": "cross"},
                                     {"variance_head": "released"}, {"num_layers": 2, "local_window": 3}])  # fmt: skip
def test_noise_in_masked_padding_changes_nothing(network, student, options):
    model = network(student=student, **options)
    image, audio = inputs()
    teacher = inputs(seed=3)[0]
    objective = AVadCLIPObjective(config=model.config)
    clean = model(image, audio, LENGTHS)
    noisy = model(with_noise_in_padding(image), with_noise_in_padding(audio), LENGTHS)
    valid = torch.arange(T) < LENGTHS[:, None]
    for name in ("logits", "class_logits", "features", "theta", "gate"):
        if (value := getattr(clean, name)) is not None:
            torch.testing.assert_close(getattr(noisy, name)[valid], value[valid], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(noisy.class_embeddings, clean.class_embeddings, rtol=1e-6, atol=1e-6)
    before = torch.stack(objective.terms(clean, LENGTHS, LABELS, teacher))
    after = torch.stack(objective.terms(noisy, LENGTHS, LABELS, with_noise_in_padding(teacher)))
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@ROLES
def test_noise_in_attended_padding_changes_scores(network, student):
    model = network(student=student, padding="attended")
    image, audio = inputs()
    clean = model(image, audio, LENGTHS)
    noisy = model(with_noise_in_padding(image), audio, LENGTHS)
    assert (noisy.logits - clean.logits)[1, :13].abs().max() > 1e-3


@ROLES
@pytest.mark.parametrize("window", [1, 4, 7, 64])
def test_masked_window_equals_the_video_alone(network, student, window):
    # T = 20 is no multiple of 7; 13 is no multiple of 4
    model = network(student=student, local_window=window, variance_head="released", audio_delay="both")
    image, audio = inputs()
    batch = model(image, audio, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(image[row : row + 1, :length], audio[row : row + 1, :length])
        for name in ("logits", "class_logits", "features", "theta" if student else "gate"):
            value = getattr(batch, name)[row, :length]
            torch.testing.assert_close(getattr(alone, name)[0], value, rtol=1e-4, atol=1e-5)


def test_local_transformer_attends_inside_blocks():
    torch.manual_seed(0)
    model = TemporalModel(embed_dim=8, max_length=10, num_layers=2, num_heads=2, local_window=4)
    x, used = torch.randn(2, 10, 8), torch.ones(2, 10, dtype=torch.bool)
    y = model.transform(x, used)
    x = x + model.positions
    for start, end in ((0, 4), (4, 8), (8, 10)):
        part = x[:, start:end]
        for block in model.blocks:
            normed = block.ln_1(part)
            part = part + block.attn(normed, normed, normed)[0]
            part = part + block.mlp(block.ln_2(part))
        torch.testing.assert_close(y[:, start:end], part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("delay", "first", "last"), [("causal", 6, 20), ("both", 13, 27)])
def test_audio_convolutions_see_fifteen_steps(delay, first, last):
    # step 20 sees the steps 6 … 20, or 13 … 27
    torch.manual_seed(0)
    audio = TemporalConvolution(embed_dim=8, audio_delay=delay).eval()
    x = torch.randn(1, 40, 8, requires_grad=True)
    audio(x, torch.ones(1, 40, dtype=torch.bool))[0, 20].sum().backward()
    seen = x.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert (seen[0], seen[-1]) == (first, last)


def test_plain_variance_leaves_features_to_other_losses():
    x, used = torch.randn(2, 9, 8, requires_grad=True), torch.ones(2, 9, dtype=torch.bool)
    for kind, reached in (("plain", False), ("released", True)):
        x.grad, theta = None, VarianceHead(embed_dim=8, kind=kind)(x, used)
        theta.sum().backward()
        assert (x.grad is not None) == reached


def test_student_ignores_audio(network):
    model = network(student=True)
    image, audio = inputs()
    assert torch.equal(model(image, audio, LENGTHS).logits, model(image, None, LENGTHS).logits)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_fusion_hears_the_audio(network, fusion):
    model = network(fusion=fusion)
    image, audio = inputs()
    output, silent = model(image, audio, LENGTHS), model(image, 0 * audio, LENGTHS)
    assert (output.gate is not None) == (fusion == "adaptive")
    assert (output.logits - silent.logits).abs().max() > 1e-4
    if fusion == "add":
        valid = torch.arange(T) < LENGTHS[:, None]
        features = model.temporal(image, valid, valid) + model.audio(audio, valid)
        torch.testing.assert_close(output.features, features)


def test_prompt_weights(network):
    image, audio = inputs()
    added = {}
    for weights in ("uniform", "classes", "none"):
        output = network(prompt_weights=weights, global_weights="logit")(image, audio)
        added[weights] = output.prompted - output.text
    g = torch.einsum("bti,btd->bd", output.logits, output.features)
    g = g / g.norm(dim=-1, keepdim=True)
    for row in range(B):
        share = torch.softmax(output.text @ g[row], 0)
        for c in range(3):
            torch.testing.assert_close(added["uniform"][row, c], g[row], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(added["classes"][row, c], share[c] * g[row], rtol=1e-4, atol=1e-5)
    assert not added["none"].any()


def test_global_vector_weighs_steps_by_probability(network):
    image, audio = inputs()
    output = network(global_weights="probability")(image, audio)
    g = torch.einsum("bti,btd->bd", output.logits.sigmoid(), output.features)
    g = g / g.norm(dim=-1, keepdim=True)
    torch.testing.assert_close((output.prompted - output.text)[:, 0], g, rtol=1e-4, atol=1e-5)


@ROLES
@pytest.mark.parametrize("profile", PROFILES)
def test_every_parameter_gets_a_gradient(network, student, profile):
    # distributed training waits for the gradient of every parameter
    config, loss = split(profile)
    model = network(student=student, **config).train()
    output = model(*inputs(), LENGTHS)
    objective = AVadCLIPObjective(config=model.config, **loss)
    objective.total(objective.terms(output, LENGTHS, LABELS, inputs(seed=3)[0])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.text_prompt.places.grad.norm() > 0


def test_defaults_are_the_default_profile():
    config, loss = split("default")
    defaults = AVadCLIPConfig(classes=("normal", "riot"))
    assert config == {name: getattr(defaults, name) for name in config}
    objective = AVadCLIPObjective(config=defaults)
    assert loss == {name: getattr(objective, name) for name in loss}
    assert all(options.keys() == PROFILES["default"].keys() for options in PROFILES.values())


def test_layers_and_window_are_those_of_the_release_by_default():
    teacher, student = (AVadCLIPConfig(classes=("a", "b"), student=s) for s in (False, True))
    assert (teacher.layers, teacher.block, student.layers, student.block) == (2, 4, 1, 64)
    assert AVadCLIPConfig(classes=("a", "b"), num_layers=3, local_window=8).layers == 3


def test_text_tower_is_frozen_and_not_saved(network):
    model = network()
    assert not any("tower" in name for name in [*model.state_dict(), *dict(model.named_parameters())])
    assert copy.deepcopy(model).double().tower.words.dtype == torch.float64
    other = network().train()
    other.load_state_dict(model.state_dict())
    image, audio = inputs()
    assert torch.equal(other.eval()(image, audio).logits, model(image, audio).logits)


def test_text_tower_equals_open_clip():
    torch.manual_seed(0)
    open_clip = import_open_clip()
    clip = open_clip.CLIP(
        embed_dim=128,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        text_cfg={"width": 128, "heads": 2, "layers": 3},
        quick_gelu=True,
    ).eval()
    tokens = open_clip.tokenize(["normal", "car accident", "a person falls down the stairs"])
    tower = TextTower.from_clip(clip.state_dict(), tokens)
    with torch.no_grad():
        torch.testing.assert_close(tower(tower.words, tower.ends), clip.encode_text(tokens), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no weights of a CLIP text tower"):
        TextTower.from_clip({"positional_embedding": torch.zeros(77, 128)}, tokens)


def test_double_precision_and_autocast(network):
    image, audio = inputs()
    model = network(student=False)
    single = model(image, audio, LENGTHS)
    double = network().double()(image, audio, LENGTHS)
    assert double.class_logits.dtype == torch.float64
    torch.testing.assert_close(double.class_logits.float(), single.class_logits, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(image, audio, LENGTHS)
    assert half.logits.dtype == half.class_logits.dtype == torch.float32
    assert (half.class_logits - single.class_logits).abs().max() < 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fusion": "late"}, "fusion must be one of adaptive, concat, add, cross, not 'late'"),
        ({"prompt_weights": "all"}, "prompt_weights must be one of uniform, classes, none"),
        ({"global_weights": "x"}, "global_weights must be one of logit, probability"),
        ({"padding": "x"}, "padding must be one of masked, attended"),
        ({"audio_delay": "x"}, "audio_delay must be one of causal, both"),
        ({"variance_head": "x"}, "variance_head must be one of released, plain, none"),
        ({"num_layers": -1}, "num_layers must be 0 or more, but is -1"),
        ({"num_heads": 0}, "num_heads must be 1 or more"),
        ({"num_heads": 3}, "embed_dim must be divisible by 2 and by 3 heads, not 512"),
        ({"embed_dim": 7}, "embed_dim must be divisible by 2"),
        ({"classes": ("a",)}, "classes must be two or more different texts"),
        ({"classes": ("a", "a")}, "classes must be two or more different texts"),
    ],
)
def test_invalid_option_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        AVadCLIPConfig(**{"classes": ("normal", "riot"), **option})


def test_wrong_inputs_are_refused(network):
    image, audio = inputs()
    model = network()
    with pytest.raises(ValueError, match=r"audio embeddings must have shape \(3, 20, 16\), not None"):
        model(image, None)
    with pytest.raises(ValueError, match=r"audio embeddings must have shape \(3, 20, 16\), not \(3, 19, 16\)"):
        model(image, audio[:, 1:])
    with pytest.raises(ValueError, match=r"image embeddings must have shape \(B, T, 16\), not \(3, 20, 15\)"):
        model(image[..., 1:], audio)
    with pytest.raises(ValueError, match="a window has 60 steps, more than the 40"):
        model(image.repeat(1, 3, 1), audio.repeat(1, 3, 1))
    with pytest.raises(ConfigError, match="the text tower has 3 classes and width 16, not 2 and 16"):
        network(classes=("normal", "riot"))
    with pytest.raises(ValueError, match="training needs the text tower"):
        AVadCLIP(None, **vars(model.config))(image, audio)
