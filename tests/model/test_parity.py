"""With the released options, the network matches the authors' released code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from model.checkpoint import RELEASED_OPTIONS, from_released_name, to_released_name
from model.ief_vad import IEFVAD
from model.losses import Objective

SMALL = ("model_studentt_small", "model_gaussian_small", "model_xd_small")
WEIGHTS = {"w_i": "image", "w_e": "event"}


def rebuild_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Rebuild the weights of a parity case from its seed (see tests/golden/README.md)."""
    rng = np.random.RandomState(seed)
    weights = {}
    for name in sorted(shapes):
        x = rng.standard_normal(shapes[name]).astype(np.float32)
        if x.ndim == 1:
            weights[name] = (1 + 0.1 * x if name.endswith("weight") else 0.1 * x).astype(np.float32)
        else:
            weights[name] = (x / np.float32(np.sqrt(x.shape[-1])) * 0.7).astype(np.float32)
    return weights


def rebuild_inputs(config: dict, embed_dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rebuild image, event and lengths of a parity case from its seed."""
    rng = np.random.RandomState(config["input_seed"])
    B, T = config["batch"], config["length"]
    image, event = (rng.standard_normal((B, T, embed_dim)).astype(np.float32) for _ in range(2))
    lengths = rng.randint(1, T + 1, size=B)
    lengths[0] = T
    for row, length in enumerate(lengths):
        image[row, length:] = event[row, length:] = 0
    return image, event, lengths


def run(
    case: np.lib.npyio.NpzFile, weights: dict[str, np.ndarray], image: np.ndarray, event: np.ndarray
):
    """Return output, losses and gradient norms (by released name) of our network on a case."""
    config = json.loads(str(case["config"]))
    model = IEFVAD(
        embed_dim=config["embed_dim"],
        num_layers=config["layers"],
        num_heads=config["heads"],
        dropout=0.0,
        noise_model=config["noise_model"],
        nu=config["nu"],
        epsilon=config["epsilon"],
        num_refinement_steps=config["refinement_steps"],
        lambda_ref=config["lambda_ref"],
        **RELEASED_OPTIONS,
    )
    model.load_state_dict(
        {from_released_name(name): torch.from_numpy(x) for name, x in weights.items()}
    )
    lengths = torch.from_numpy(case["lengths"])
    output = model(torch.from_numpy(image), torch.from_numpy(event), lengths)
    objective = Objective(
        config=model.config,
        lambda_cos=1.0,
        lambda_norm=1.0,
        lambda_reg=config["loss_weight_reg"],
        lambda_kl=config["loss_weight_kl"],
        # the released code for XD-Violence always uses Student's t in the KL terms
        kl_noise_model="StudentT" if config["refinement_steps"] == 0 else "model",
    )
    terms = objective.terms(output, lengths, torch.from_numpy(case["anomalous"]))
    total = objective.total(terms)
    total.backward()
    gradients = {
        to_released_name(name): p.grad.norm().item() for name, p in model.named_parameters()
    }
    return output, {**terms._asdict(), "total": total}, gradients


def output_of(output, field: str) -> torch.Tensor:
    """Return the output that a golden array is named after, such as w_i or image_logvar."""
    if field in WEIGHTS:
        return output.weights[WEIGHTS[field]]
    stream, _, name = field.partition("_")
    return getattr(output, name)[stream] if name else getattr(output, field)


def assert_losses_and_gradients(
    case: np.lib.npyio.NpzFile, losses: dict[str, torch.Tensor], gradients: dict[str, float]
) -> None:
    for key in (k for k in case.files if k.startswith("loss/")):
        value = losses[key.removeprefix("loss/")].item()
        assert value == pytest.approx(float(case[key]), abs=1e-5), key
    expected = {
        k.removeprefix("gradnorm/"): float(case[k]) for k in case.files if k.startswith("gradnorm/")
    }
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert gradients[name] == pytest.approx(value, rel=1e-4, abs=1e-9), name


@pytest.mark.parametrize("name", SMALL)
def test_small_cases_match_released_code(golden, name):
    case = golden(name)
    weights = {k.removeprefix("weight/"): case[k] for k in case.files if k.startswith("weight/")}
    output, losses, gradients = run(case, weights, case["image"], case["event"])
    for key in (k for k in case.files if k.startswith("out/")):
        field = key.removeprefix("out/")
        value = output_of(output, field).detach().numpy()
        np.testing.assert_allclose(value, case[key], atol=1e-5, rtol=0, err_msg=key)
    assert_losses_and_gradients(case, losses, gradients)


@pytest.mark.parametrize("name", SMALL)
def test_seeds_rebuild_small_cases(golden, name):
    case = golden(name)
    config = json.loads(str(case["config"]))
    stored = {k.removeprefix("weight/"): case[k] for k in case.files if k.startswith("weight/")}
    rebuilt = rebuild_weights({k: list(v.shape) for k, v in stored.items()}, config["weight_seed"])
    for key, value in stored.items():
        np.testing.assert_array_equal(rebuilt[key], value, err_msg=key)
    image, event, lengths = rebuild_inputs(config, config["embed_dim"])
    np.testing.assert_array_equal(image, case["image"])
    np.testing.assert_array_equal(event, case["event"])
    np.testing.assert_array_equal(lengths, case["lengths"])


def test_full_size_case_matches_released_code(golden, released_layout):
    case = golden("model_studentt_full")
    config = json.loads(str(case["config"]))
    weights = rebuild_weights(released_layout, config["weight_seed"])
    image, event, lengths = rebuild_inputs(config, config["embed_dim"])
    np.testing.assert_array_equal(lengths, case["lengths"])
    output, losses, gradients = run(case, weights, image, event)
    np.testing.assert_allclose(
        output.logits.detach().numpy(), case["out/logits"], atol=1e-5, rtol=0
    )
    for key in (k for k in case.files if k.startswith("outmean/")):
        field = key.removeprefix("outmean/")
        mean = output_of(output, field).detach().double().mean(-1).numpy()
        np.testing.assert_allclose(mean, case[key], atol=1e-5, rtol=0, err_msg=key)
    assert_losses_and_gradients(case, losses, gradients)
