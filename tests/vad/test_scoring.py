"""The inference loop: every snippet scored once, whatever shares its batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from model import IEFVAD
from vad.catalog import UCFCRIME
from vad.data import find_test_videos, own_video
from vad.lists import read_csv
from vad.metrics import roc_auc, samples
from vad.scoring import score_videos
from vad.windows import test_windows as windows_of
from vad.windows import window_lengths

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

    def forward(self, image, event, lengths, window):
        return Echo(image[..., :1], torch.full_like(image, 0.25), torch.full_like(event, 0.75))


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_scores_stand_at_their_snippets(tiny, padding):
    videos = videos_of(tiny)
    scored = score_videos(EchoModel(), videos, window=WINDOW, nan="refuse", padding=padding, progress=None)
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
    options = {"window": WINDOW, "nan": "refuse", "padding": padding, "progress": None}
    together = score_videos(model, videos, **options)
    for video, result in zip(videos, together, strict=True):
        alone = score_videos(model, [video], **options)[0]
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-6)
        np.testing.assert_allclose(alone.weight_image, result.weight_image, atol=1e-6)


def plainly(model, video, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ŵ_i of one video, its windows whole and one at a time."""
    image, event = (windows_of(np.load(path), window) for path in video.crops[0].paths)
    scores, weights = [], []
    for k, length in enumerate(window_lengths(video.snippets, window)):
        if length:
            streams = (torch.from_numpy(x[k : k + 1]) for x in (image, event))
            with torch.no_grad():
                output = model(*streams, torch.tensor([length]))
            scores.append(torch.sigmoid(output.logits[0, :length, 0]).numpy())
            weights.append(output.weight_image[0, :length].mean(1).numpy())
    return np.concatenate(scores), np.concatenate(weights)


@pytest.mark.parametrize("window", [16, 64])
@pytest.mark.parametrize(
    "switches",
    [
        {"padding": "masked"},
        {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
        {"padding": "attended", "temporal_update": "kalman"},
    ],
)
def test_batches_cut_short_give_the_plain_ways_numbers(tiny, switches, window, monkeypatch):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, **switches).eval()
    videos = videos_of(tiny)
    steps = []
    real = IEFVAD.forward

    def forward(self, image, *rest):
        steps.append(image.shape[1])
        return real(self, image, *rest)

    monkeypatch.setattr("vad.scoring.BATCH_WINDOWS", 3)
    expected = [plainly(model, video, window) for video in videos]
    monkeypatch.setattr(IEFVAD, "forward", forward)
    scored = score_videos(
        model, videos, window=window, nan="refuse", padding=switches["padding"], progress=None
    )
    assert min(steps) < window  # something was cut
    for (scores, weights), result in zip(expected, scored, strict=True):
        np.testing.assert_allclose(result.scores, scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.weight_image, weights, rtol=0, atol=1e-6)
    plain = [replace(result, scores=scores) for (scores, _), result in zip(expected, scored, strict=True)]
    assert roc_auc(samples(scored)) == pytest.approx(roc_auc(samples(plain)), abs=1e-7)


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_an_own_video_ends_with_its_shorter_stream(tmp_path, padding):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, padding=padding)
    longer, event = (np.random.default_rng(S).standard_normal((S, 16)).astype(np.float32) for S in (12, 9))
    for name, x in (("longer", longer), ("cut", longer[:9]), ("event", event)):
        np.save(tmp_path / f"{name}.npy", x)
    options = {"window": WINDOW, "nan": "refuse", "padding": padding, "progress": None}
    scores = [
        score_videos(model, [own_video("x", {"image": tmp_path / name, "event": tmp_path / "event.npy"})], **options)
        for name in ("longer.npy", "cut.npy")
    ]
    # a step beyond the end, where it stands for all the zeros there, would weigh as much as they
    np.testing.assert_array_equal(scores[0][0].scores, scores[1][0].scores)


def test_weights_by_dimension_are_means_over_the_valid_steps(tiny):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1).eval()
    videos = videos_of(tiny)
    scored = score_videos(model, videos, window=64, nan="refuse", padding="masked", progress=None)
    for video, result in zip(videos, scored, strict=True):
        image, event = (torch.from_numpy(np.load(path)).unsqueeze(0) for path in video.crops[0].paths)
        with torch.no_grad():
            weights = model(image, event).weight_image[0].numpy()
        np.testing.assert_allclose(result.weight_image_by_dimension, weights.mean(0), atol=1e-6)


def test_crops_are_averaged(tiny):
    for kind in ("rgb", "event_thr_10"):
        for path in list((tiny.root / kind).rglob("*__5.npy")):
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path) * 0)
    options = {"window": WINDOW, "nan": "refuse", "padding": "masked", "progress": None}
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
        EchoModel(), videos, window=WINDOW, nan="refuse", padding="masked", transform=transform, progress=None
    )
    assert seen == [(m, v.name, v.snippets) for v in videos for m in ("image", "event")]
    assert all((r.scores == 0.5).all() for r in scored)


def test_the_model_returns_to_the_mode_it_was_in(tiny):
    model = EchoModel().train()
    score_videos(model, videos_of(tiny), window=WINDOW, nan="refuse", padding="masked", progress=None)
    assert model.training
