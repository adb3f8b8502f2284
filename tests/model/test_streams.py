"""Any number of streams: inverse-variance fusion of K estimates, missing streams, regularised pairs."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from model import IEFVAD, MODALITIES, STREAMS, Objective, load_checkpoint, save_checkpoint
from model.fusion import fuse
from model.fusion_baselines import BASELINES, LateFusion
from model.ief_vad import FUSIONS

B, T, D = 4, 9, 16
SMALL = {"embed_dim": D, "num_layers": 1, "num_heads": 4, "dropout": 0.0, "num_refinement_steps": 2}
ALL = "image+event+audio"
LENGTHS, ANOMALOUS = torch.tensor([9, 4, 7, 1]), torch.tensor([0.0, 1.0, 0.0, 1.0])


def network(modality: str = ALL, **config) -> IEFVAD:
    torch.manual_seed(3)
    return IEFVAD(**SMALL, modality=modality, **config).eval()


def inputs(audio_dim: int = D) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {name: torch.randn(B, T, audio_dim if name == "audio" else D) for name in STREAMS}


def estimates() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return means and log-variances of three streams in float64."""
    torch.manual_seed(7)
    means = {name: torch.randn(B, T, D, dtype=torch.float64) for name in STREAMS}
    return means, {name: torch.randn(B, T, D, dtype=torch.float64) for name in STREAMS}


def part(streams: dict, *names: str) -> dict:
    return {name: streams[name] for name in names}


def test_fusion_is_the_product_of_gaussians():
    """The mode of Σ log N(x; μ_m, σ²_m) and its curvature, by autograd, are z and 1/σ²_fused."""
    means, logvars = estimates()
    fused = fuse(means, logvars, epsilon=0.0)
    x = fused.mean.clone().requires_grad_()
    normals = [torch.distributions.Normal(means[m], (0.5 * logvars[m]).exp()) for m in STREAMS]
    slope = torch.autograd.grad(sum(n.log_prob(x).sum() for n in normals), x, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), x)[0]
    torch.testing.assert_close(slope, torch.zeros_like(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(-1 / curvature, fused.variance)
    torch.testing.assert_close(sum(fused.weights.values()), torch.ones_like(x))


@pytest.mark.parametrize("placement", ["weights", "sum"])
def test_two_streams_keep_the_bits_of_the_papers_formula(placement):
    """Values and gradients of Section 3.3, written for image and event alone, are equal bit for bit."""
    means, s = ({k: v.float().requires_grad_() for k, v in part(x, "image", "event").items()} for x in estimates())
    inside, outside = (1e-3, 0.0) if placement == "weights" else (0.0, 1e-3)
    w_i, w_e = (1 / (s[name].exp() + inside) for name in ("image", "event"))
    total = w_i + w_e + outside
    weight_i, weight_e = w_i / total, w_e / total
    expected = weight_i * means["image"] + weight_e * means["event"], 1 / total, weight_i, weight_e
    none = {name: torch.zeros(B, 1, 1, dtype=torch.bool) for name in means}
    leaves = [*means.values(), *s.values()]
    slopes = torch.autograd.grad(sum(x.square().sum() for x in expected), leaves)
    for missing in (None, none):
        fused = fuse(means, s, epsilon=1e-3, epsilon_placement=placement, missing=missing)
        outputs = fused.mean, fused.variance, *fused.weights.values()
        assert all(map(torch.equal, outputs, expected))
        assert all(map(torch.equal, torch.autograd.grad(sum(x.square().sum() for x in outputs), leaves), slopes))


def test_fusion_is_associative():
    means, logvars = estimates()
    two = fuse(part(means, "image", "event"), part(logvars, "image", "event"), epsilon=0.0)
    nested = fuse(
        {"both": two.mean, "audio": means["audio"]},
        {"both": two.variance.log(), "audio": logvars["audio"]},
        epsilon=0.0,
    )
    torch.testing.assert_close(nested.mean, fuse(means, logvars, epsilon=0.0).mean)


@pytest.mark.parametrize("placement", ["weights", "sum"])
@pytest.mark.parametrize("absent", STREAMS)
def test_missing_stream_leaves_exactly_the_fusion_of_the_others(absent, placement):
    means, logvars = estimates()
    options = {"epsilon": 1e-8, "epsilon_placement": placement}
    here = torch.tensor([True, False, True, False])[:, None, None]
    fused = fuse(means, logvars, missing={absent: here}, **options)
    others = [name for name in STREAMS if name != absent]
    expected, whole = fuse(part(means, *others), part(logvars, *others), **options), fuse(means, logvars, **options)
    for row in range(B):
        reference = expected if here[row] else whole
        assert torch.equal(fused.mean[row], reference.mean[row])
        assert torch.equal(fused.variance[row], reference.variance[row])
    assert (fused.weights[absent][here[:, 0, 0]] == 0).all()


@pytest.mark.parametrize("temporal_update", ["kalman", "none"])
def test_network_ignores_a_missing_stream(temporal_update):
    """Zeros of one stream give exactly the scores of the network without this stream."""
    model, x = network(temporal_update=temporal_update), inputs()
    for absent, others in (("audio", "fusion"), ("event", "image+audio"), ("image", "event+audio")):
        smaller = network(others, temporal_update=temporal_update)
        smaller.load_state_dict({k: v for k, v in model.state_dict().items() if k in smaller.state_dict()})
        with torch.no_grad():
            output = model(**{**x, absent: torch.zeros(B, T, D)}, lengths=LENGTHS)
            expected = smaller(**part(x, *MODALITIES[others]), lengths=LENGTHS)
        assert torch.equal(output.logits, expected.logits)
        assert output.missing[absent].all() and not any(output.missing[name].any() for name in MODALITIES[others])


def test_nothing_is_missing_where_all_streams_are_zero():
    zeros = {name: torch.zeros(B, T, D) for name in STREAMS}
    output = network()(**zeros)
    assert not any(absent.any() for absent in output.missing.values())
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_losses_leave_out_the_stream_that_a_video_lacks(padding):
    """With zeros in its mean, one video adds nothing to KL and pairs of the stream it lacks."""
    model, x = network(padding=padding), inputs()
    x["audio"][1] = 0
    objective = Objective(config=model.config)
    output = model(**x, lengths=LENGTHS)
    terms = objective.terms(output, LENGTHS, ANOMALOUS)
    valid = torch.arange(T) < LENGTHS[:, None] if padding == "masked" else torch.ones(B, T, dtype=torch.bool)
    audio = valid & torch.tensor([True, False, True, True])[:, None]
    mu, s = output.mu, output.logvar["audio"] + torch.log(torch.tensor(8 / 9))
    kl = -0.5 * (1 + s - mu["audio"] ** 2 - s.exp()).mean(-1)
    assert terms.kl_audio.item() == pytest.approx((kl[audio].sum() / valid.sum()).item(), rel=1e-5)
    cosine = 0
    for m, n in combinations(STREAMS, 2):
        steps = audio if "audio" in (m, n) else valid
        pair = 1 - torch.cosine_similarity(mu[m], mu[n], dim=-1)
        cosine += (pair[steps].sum() / valid.sum()).item() / 3
    assert terms.cosine.item() == pytest.approx(cosine, rel=1e-5)


def test_regularised_pairs_are_an_option():
    model, x = network(), inputs()
    output = model(**x, lengths=LENGTHS)
    every, one = (
        Objective(config=model.config, reg_pairs=pairs).terms(output, LENGTHS, ANOMALOUS)
        for pairs in ("all", "image-event")
    )
    two = network("fusion")
    two.load_state_dict({k: v for k, v in model.state_dict().items() if k in two.state_dict()})
    expected = Objective(config=two.config).terms(two(x["image"], x["event"], LENGTHS), LENGTHS, ANOMALOUS)
    assert one.cosine == expected.cosine and one.norm == expected.norm
    assert every.cosine != one.cosine and every.kl_audio == one.kl_audio > 0
    without = Objective(config=network("image+audio").config, reg_pairs="image-event")
    assert without.terms(network("image+audio")(**part(x, "image", "audio")), LENGTHS, ANOMALOUS).cosine == 0


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_subset_trains_and_survives_a_checkpoint(modality, fusion, tmp_path):
    model = network(modality, fusion=fusion, audio_dim=24)
    x = part(inputs(24), *MODALITIES[modality])
    output = model(**x, lengths=LENGTHS)
    assert output.weights.keys() == set(MODALITIES[modality]) and output.logits.shape == (B, T, 1)
    objective = Objective(config=model.config)
    objective.total(objective.terms(output, LENGTHS, ANOMALOUS)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    save_checkpoint(tmp_path / "m.pth", model)
    assert torch.equal(load_checkpoint(tmp_path / "m.pth")(**x, lengths=LENGTHS).logits, output.logits)


def test_checkpoint_of_three_streams_gives_any_of_them(tmp_path):
    model, x = network(), inputs()
    save_checkpoint(tmp_path / "m.pth", model)
    for modality, names in MODALITIES.items():
        loaded = load_checkpoint(tmp_path / "m.pth", modality=modality)
        assert loaded(**part(x, *names), lengths=LENGTHS).weights.keys() == set(names)


@pytest.mark.parametrize("fusion", BASELINES)
def test_symmetric_baselines_ignore_the_order_of_streams(fusion):
    """Equal weights, cross-attention and late fusion are symmetric in the streams."""
    torch.manual_seed(1)
    module = BASELINES[fusion](embed_dim=D, num_heads=4, num_streams=3).eval()
    means, logvars = ({k: v.float() for k, v in x.items()} for x in estimates())
    variance = {name: s.exp() for name, s in logvars.items()}
    a, b = (
        module({m: means[m] for m in order}, {m: variance[m] for m in order}, None).mean
        for order in (STREAMS, STREAMS[::-1])
    )
    if fusion == "late":
        a, b = (LateFusion.mean_score(x.mean(-1, keepdim=True), 3) for x in (a, b))
    assert torch.allclose(a, b, atol=1e-6) == (fusion in ("equal", "cross_attention", "late"))


def test_gate_of_three_streams_has_weights_that_add_up_to_one():
    torch.manual_seed(1)
    means, logvars = ({k: v.float() for k, v in x.items()} for x in estimates())
    fused = BASELINES["gate"](embed_dim=D, num_heads=4, num_streams=3)(means, logvars, None)
    torch.testing.assert_close(sum(fused.weights.values()), torch.ones(B, T, D))


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"audio embeddings must have shape \(B, T, 24\), not \(4, 9, 16\)"):
        network(audio_dim=24)(**inputs())
