"""The inference loop: every snippet scored once, whatever shares its batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from model import IEFVAD
from vad.catalog import UCFCRIME
from vad.data import find_test_videos
from vad.lists import read_csv
from vad.scoring import score_videos

WINDOW = 16


def videos_of(tiny, crops=(5,)):
    return find_test_videos(
        read_csv(tiny.lists / "test.csv", UCFCRIME), tiny.lists / "gt.npy", UCFCRIME, tiny.root, crops
    )[0]


@dataclass
class Echo:
    """Stands for an output whose score and weights can be told from the input."""

    logits: torch.Tensor
    weight_image: torch.Tensor
    weight_event: torch.Tensor


class EchoModel(torch.nn.Module):
    """logit = first image feature, ŵ_i = 0.25, ŵ_e = 0.75."""

    def forward(self, image, event, lengths):
        return Echo(image[..., :1], torch.full_like(image, 0.25), torch.full_like(event, 0.75))


@pytest.mark.parametrize("trim", [True, False])
def test_scores_stand_at_their_snippets(tiny, trim):
    videos = videos_of(tiny)
    scored = score_videos(EchoModel(), videos, window=WINDOW, nan="refuse", trim=trim, progress=None)
    for video, result in zip(videos, scored, strict=True):
        image = np.load(video.crops[0].paths[0])
        np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-image[:, 0])), rtol=1e-5)
        assert len(result.scores) * 16 == len(result.frame_labels)
        np.testing.assert_allclose(result.weight_image, 0.25)
        np.testing.assert_allclose(result.weight_event, 0.75)
        np.testing.assert_allclose(result.weight_image_by_dimension, np.full(16, 0.25))
    assert {len(r.scores) > WINDOW for r in scored} == {True, False}  # one window and several are both covered


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_sharing_a_batch_changes_no_number(tiny, padding):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, padding=padding)
    videos = videos_of(tiny)
    options = {"window": WINDOW, "nan": "refuse", "trim": padding == "masked", "progress": None}
    together = score_videos(model, videos, **options)
    for video, result in zip(videos, together, strict=True):
        alone = score_videos(model, [video], **options)[0]
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-6)
        np.testing.assert_allclose(alone.weight_image, result.weight_image, atol=1e-6)


def test_trimming_changes_no_number_where_padding_is_masked(tiny):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1)
    options = {"window": 64, "nan": "refuse", "progress": None}
    short, long = (score_videos(model, videos_of(tiny), trim=trim, **options) for trim in (True, False))
    for a, b in zip(short, long, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_crops_are_averaged(tiny):
    for kind in ("rgb", "event_thr_10"):
        for path in list((tiny.root / kind).rglob("*__5.npy")):
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path) * 0)
    options = {"window": WINDOW, "nan": "refuse", "trim": True, "progress": None}
    both = score_videos(EchoModel(), videos_of(tiny, (0, 5)), **options)
    one = score_videos(EchoModel(), videos_of(tiny), **options)
    for a, b in zip(both, one, strict=True):
        np.testing.assert_allclose(a.scores, (b.scores + 0.5) / 2, rtol=1e-6)  # sigmoid(0) for crop 0


def test_a_transform_sees_whole_embeddings_by_modality_and_name(tiny):
    seen = []

    def transform(modality, embedding, name):
        seen.append((modality, name, len(embedding)))
        return embedding * 0

    videos = videos_of(tiny)
    scored = score_videos(
        EchoModel(), videos, window=WINDOW, nan="refuse", trim=True, transform=transform, progress=None
    )
    assert seen == [(m, v.name, v.snippets) for v in videos for m in ("image", "event")]
    assert all((r.scores == 0.5).all() for r in scored)


def test_the_model_returns_to_the_mode_it_was_in(tiny):
    model = EchoModel().train()
    score_videos(model, videos_of(tiny), window=WINDOW, nan="refuse", trim=True, progress=None)
    assert model.training
