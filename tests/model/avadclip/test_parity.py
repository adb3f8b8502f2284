"""With the released options, teacher and student match the authors' released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.avadclip import PROFILES, AVadCLIPObjective
from model.avadclip.checkpoint import from_released_state
from model.avadclip.temporal import distance_graph, similarity_graph
from model.losses import valid_mask

TERMS = {"bce": "classification", "mil_ce": "alignment", "focal": "focal", "text": "text", "distill": "distillation"}
FORWARD, TOTAL, SINGLE = 1e-5, 1e-4, 1e-3  # relative tolerances; gradients of the total and of single terms


def outputs(case, model, role):
    """Return every quantity that the parity file has, by its name there."""
    all_steps = torch.ones(case.visual.shape[:2], dtype=torch.bool)
    valid = valid_mask(case.visual[..., 0], case.lengths)
    x = model.temporal.transform(case.visual, all_steps)
    out = model(case.visual, case.audio if role == "teacher" else None, case.lengths)
    video = model.temporal(case.visual, valid, all_steps)
    values = {
        "transformer": x,
        "similarity_graph": similarity_graph(x, valid),
        "video": video,
        "text": out.text,
        "logits1": out.logits,
        "logits2": out.class_logits,
    }
    if role == "student":
        return out, {**values, "enhanced": out.features, "theta": out.theta}
    audio = model.audio(case.audio, all_steps)
    return out, {
        **values,
        "distance_graph": distance_graph(all_steps)[0],
        "audio": audio,
        "gate": out.gate,
        "residual": model.fusion.residual(torch.cat([video, audio], -1)),
        "fused": out.features,
        "prompt": model.prompt.prompt(out.text, out.features, out.logits, all_steps).expand_as(out.prompted),
        "prompted": out.prompted,
        "class_embeddings": out.class_embeddings,
    }


def assert_close(value, expected, tolerance, name):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("size", ["small", "full"])
def test_outputs_losses_and_gradients_match_the_release(case, size):
    parity = case(size)
    teacher_features = None
    for role in ("teacher", "student"):
        model = parity.network(role)
        out, values = outputs(parity, model, role)
        keys = [k.split("/")[1] for k in parity.arrays if k.startswith(f"{role}/") and k.count("/") == 1]
        names = {k.split("@")[0] for k in keys}
        assert {"transformer", "video", "logits1", "logits2", "text"} < names <= values.keys()
        for key in keys:
            name, _, form = key.partition("@")
            value = values[name].detach()
            value = {"": value, "mean": value.double().mean(-1), "last": value[..., -1]}[form]
            assert_close(value.numpy(), parity.arrays[f"{role}/{key}"], FORWARD, f"{role}/{key}")

        options = {k: PROFILES["released"][k] for k in ("distill", "lambda_distill", "lambda_text")}
        objective = AVadCLIPObjective(config=model.config, **options)
        terms = objective.terms(out, parity.lengths, parity.labels, teacher_features)
        cctv = AVadCLIPObjective(config=model.config, **{**options, "lambda_distill": 1e-7})
        losses = {
            **{name: getattr(terms, term) for name, term in TERMS.items()},
            "align": (terms.alignment + terms.focal) / 2,
            "total": objective.total(terms),
            "total_cctv": cctv.total(terms),
        }
        expected = [k.split("/")[2] for k in parity.arrays if k.startswith(f"{role}/loss/")]
        assert {"total", "focal", "text"} < set(expected)
        for name in expected:
            assert losses[name].item() == pytest.approx(float(parity.arrays[f"{role}/loss/{name}"]), rel=FORWARD)

        names = [str(n) for n in parity.arrays[f"{role}/gradnorm/names"]]
        parameters = dict(model.named_parameters())
        ours = [next(iter(from_released_state({name: None}))) for name in names]
        assert set(ours) == parameters.keys()
        # at full size, a gradient takes a second
        for name in expected if size == "small" else ["total"]:
            norms = np.array(parity.arrays[f"{role}/gradnorm/{name}"])
            gradients = torch.autograd.grad(
                losses[name], [parameters[n] for n in ours], retain_graph=True, allow_unused=True
            )
            value = np.array([0.0 if g is None else g.norm().item() for g in gradients])
            large = norms > (0 if name.startswith("total") else 1e-4 * norms.max())
            tolerance = TOTAL if name.startswith("total") else SINGLE
            np.testing.assert_allclose(value[large], norms[large], rtol=tolerance, atol=1e-9, err_msg=f"{role} {name}")
            assert (value[norms == 0] == 0).all()
        teacher_features = out.features.detach()
