"""The inference loop: every snippet is scored once, independently of its batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import IEFVAD
from vad import scoring
from vad.data import TestVideo as CroppedVideo  # pytest would collect a name that begins with Test
from vad.data import Video
from vad.datasets import load_dataset
from vad.evaluation import open_test_set
from vad.metrics import roc_auc, samples
from vad.options import resolve
from vad.scoring import CausalScorer, Embeddings, ScoredVideo, score

CPU = torch.device("cpu")
WINDOW = 16
SIZES = (1, 5, 255, 256, 257, 300, 511, 512, 513, 1000)  # those of tests/golden/windows.npz


def videos_of(tiny, crops: tuple[int, ...] = (5,)) -> list[CroppedVideo]:
    places = {"feature_root": str(tiny.root), "list_root": str(tiny.lists)}
    return open_test_set(resolve({**places, "test_crops": crops}), load_dataset("ucfcrime")).videos


def run(model: torch.nn.Module, videos: list[CroppedVideo], window: int = WINDOW, **more: object) -> list[ScoredVideo]:
    return score(model, videos, Embeddings("refuse"), window=window, device=CPU, progress=False, **more)


def make_video(folder: Path, x: np.ndarray, truth_snippets: int | None = None) -> CroppedVideo:
    """Return a video whose image and event embeddings are x."""
    np.save(folder / "x.npy", x)
    streams = {"image": folder / "x.npy", "event": folder / "x.npy"}
    crop = Video("x", "Arson", True, 5, streams, len(x), dict.fromkeys(streams, x.dtype))
    snippets = len(x) if truth_snippets is None else truth_snippets
    return CroppedVideo("x", "Arson", (crop,), np.ones(16 * snippets, np.uint8))


@dataclass
class Echo:
    """A model output whose score and weights follow from the input."""

    logits: torch.Tensor
    weights: dict[str, torch.Tensor]


class EchoModel(torch.nn.Module):
    """Model with logit = first image feature, ŵ_i = 0.25, ŵ_e = 0.75. It records its inputs."""

    def __init__(self, padding: str = "masked", width: int = 16) -> None:
        super().__init__()
        self.config = SimpleNamespace(padding=padding, embed_dim=width, streams=("image", "event"))
        self.inputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, image: torch.Tensor, event: torch.Tensor, lengths: torch.Tensor) -> Echo:
        self.inputs.append((image, lengths))
        return Echo(image[..., :1], {"image": torch.full_like(image, 0.25), "event": torch.full_like(event, 0.75)})


@pytest.mark.parametrize("S", SIZES)
def test_windows_equal_the_released_code(golden, tmp_path: Path, S: int) -> None:
    case = golden("windows")
    model = EchoModel("attended", width=3)
    run(model, [make_video(tmp_path, case[f"in/{S}"])], window=256)
    windows, lengths = (torch.cat(parts) for parts in zip(*model.inputs, strict=True))
    expected = case[f"test/{S}"].reshape(-1, 256, 3)
    used = -(-S // 256)  # the released code adds a window of padding if S is a multiple of 256
    assert len(windows) == used and not expected[used:].any()
    np.testing.assert_array_equal(windows, expected[:used])
    assert lengths.sum() == S == case[f"testlen/{S}"]


def test_last_window_ends_at_the_last_snippet(tmp_path: Path) -> None:
    model = EchoModel()
    run(model, [make_video(tmp_path, np.ones((38, 16), np.float32))])
    lengths = [n for _, lengths in model.inputs for n in lengths.tolist()]
    assert lengths == [16, 16, 6]


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_scores_align_with_their_snippets(tiny, padding: str) -> None:
    videos = videos_of(tiny)
    model = EchoModel(padding)
    scored = run(model, videos)
    for video, result in zip(videos, scored, strict=True):
        image = np.load(video.crops[0].streams["image"])
        np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-image[:, 0])), rtol=1e-5)
        assert (result.name, result.label) == (video.name, video.label)
        assert result.scores.dtype == np.float32 and len(result.frame_labels) == 16 * len(result.scores)
        assert list(result.weights) == ["image", "event"]
        np.testing.assert_allclose(result.weights["image"], 0.25)
        np.testing.assert_allclose(result.weights["event"], 0.75)
        np.testing.assert_allclose(result.by_dimension["image"], np.full(16, 0.25))
    assert {len(result.scores) > WINDOW for result in scored} == {True, False}  # videos of one window and of several
    steps = {image.shape[1] for image, _ in model.inputs}
    assert steps == {WINDOW} if padding == "attended" else min(steps) < WINDOW


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_sharing_a_batch_does_not_change_scores(tiny, padding: str) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, padding=padding)
    videos = videos_of(tiny)
    for video, together in zip(videos, run(model, videos), strict=True):
        (alone,) = run(model, [video])
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-6)
        np.testing.assert_allclose(alone.weights["image"], together.weights["image"], atol=1e-6)


def score_by_window(model: IEFVAD, video: CroppedVideo, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and ŵ_i of one video, computed one full zero-padded window at a time."""
    image, event = (np.load(path) for path in video.crops[0].streams.values())
    scores, weights = [], []
    for start in range(0, video.snippets, window):
        length = min(window, video.snippets - start)
        streams = np.zeros((2, 1, window, 16), np.float32)
        for stream, x in zip(streams, (image, event), strict=True):
            stream[0, :length] = x[start : start + length]
        with torch.no_grad():
            output = model(*map(torch.from_numpy, streams), torch.tensor([length]))
        scores.append(torch.sigmoid(output.logits[0, :length, 0]).numpy())
        weights.append(output.weights["image"][0, :length].mean(1).numpy())
    return np.concatenate(scores), np.concatenate(weights)


@pytest.mark.parametrize("window", [16, 64])
@pytest.mark.parametrize("options", [
    {"padding": "masked"},
    {"padding": "attended", "temporal_update": "none", "epsilon_placement": "sum"},
    {"padding": "attended", "temporal_update": "kalman"},
])  # fmt: skip
def test_batched_scores_equal_those_of_full_windows(tiny, options: dict[str, str], window: int, monkeypatch) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1, **options).eval()
    videos = videos_of(tiny)
    monkeypatch.setattr(scoring, "BATCH_WINDOWS", 3)
    expected = [score_by_window(model, video, window) for video in videos]
    scored = run(model, videos, window=window)
    for (scores, weights), result in zip(expected, scored, strict=True):
        np.testing.assert_allclose(result.scores, scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.weights["image"], weights, rtol=0, atol=1e-6)
    reference = [replace(result, scores=scores) for (scores, _), result in zip(expected, scored, strict=True)]
    assert roc_auc(samples(scored)) == pytest.approx(roc_auc(samples(reference)), abs=1e-7)


def test_weights_by_dimension_are_means_over_snippets(tiny) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1).eval()
    videos = videos_of(tiny)
    for video, result in zip(videos, run(model, videos, window=64), strict=True):
        image, event = (torch.from_numpy(np.load(path))[None] for path in video.crops[0].streams.values())
        with torch.no_grad():
            weights = model(image, event).weights["image"][0].numpy()
        np.testing.assert_allclose(result.by_dimension["image"], weights.mean(0), atol=1e-6)


def test_crop_scores_are_averaged(tiny) -> None:
    for stream in ("rgb", "event_thr_10"):
        for path in list((tiny.root / stream).rglob("*__5.npy")):
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path) * 0)
    for a, b in zip(run(EchoModel(), videos_of(tiny, (0, 5))), run(EchoModel(), videos_of(tiny)), strict=True):
        np.testing.assert_allclose(a.scores, (b.scores + 0.5) / 2, rtol=1e-6)  # crop 0: sigmoid(0)


def test_scores_are_truncated_to_a_shorter_ground_truth(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    (whole,) = run(EchoModel(), [make_video(tmp_path, x)])
    (cut,) = run(EchoModel(), [make_video(tmp_path, x, truth_snippets=4)])
    assert len(cut.frame_labels) == 64 and len(cut.weights["image"]) == len(cut.weights["event"]) == 4
    np.testing.assert_array_equal(cut.scores, whole.scores[:4])


def test_transform_gets_whole_embeddings_with_stream_and_name(tiny) -> None:
    seen = set()

    def transform(stream: str, x: np.ndarray, name: str) -> np.ndarray:
        seen.add((stream, name, len(x)))
        return x * 0

    videos = videos_of(tiny)
    scored = run(EchoModel(), videos, transform=transform)
    assert seen == {(stream, v.name, v.snippets) for v in videos for stream in ("image", "event")}
    assert all((result.scores == 0.5).all() for result in scored)


def test_model_returns_to_its_previous_mode(tiny) -> None:
    model = EchoModel().train()
    run(model, videos_of(tiny))
    assert model.training
    videos = videos_of(tiny)
    videos[0].crops[0].streams["image"].unlink()
    with pytest.raises(ValueError, match="is not a readable array"):
        run(model, videos)
    assert model.training


def test_embeddings_are_cached_up_to_the_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "MAX_CACHED_BYTES", 64)  # two of three embeddings, 32 bytes each
    embeddings = Embeddings("refuse")
    crops = []
    for value in range(3):
        np.save(tmp_path / f"{value}.npy", np.full((3, 4), value, np.float32))
        crops.append(Video("v", "Normal", False, 5, {"image": tmp_path / f"{value}.npy"}, 2, {}))
    assert [embeddings(crop, "image").shape for crop in crops] == [(2, 4)] * 3  # truncated to S = 2
    for value in range(3):
        np.save(tmp_path / f"{value}.npy", np.full((3, 4), 9, np.float32))
    assert [embeddings(crop, "image")[0, 0] for crop in crops] == [0, 1, 9]


# causal scoring of a stream


def causal_oracle(model: IEFVAD, streams: dict[str, torch.Tensor], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (T,) and weights (K, T): the network on each window, then a textbook Kalman filter in float64.

    Source: the filter in its usual form, with variance V, gain K = (V + q) / (V + q + r), V ← (1 − K)(V + q).
    """
    config = vars(model.config) | {"temporal_update": "none", "num_refinement_steps": 0}
    observer = IEFVAD(**config).eval()  # its state is the fused observation
    observer.load_state_dict(model.state_dict(), strict=False)
    q = model.temporal_update.process_noise(torch.zeros(16)).double().detach().numpy()
    scores, weights, V = [], [], None
    for t in range(len(next(iter(streams.values())))):
        parts = {name: x[max(0, t + 1 - window) : t + 1] for name, x in streams.items()}
        n = min(t + 1, window)
        rows = [torch.cat([x, torch.zeros(window - n, 16)])[None] for x in parts.values()]
        by_name = dict(zip(parts, rows, strict=True))
        with torch.no_grad():
            output = observer(by_name.get("image"), by_name.get("event"), torch.tensor([n]))
        z, r = (x[:, n - 1].double().numpy() for x in (output.fused, output.variance))
        if V is None or model.config.temporal_update == "none":
            s, V = z, r
        else:
            predicted, r = V + q + model.config.epsilon, r + model.config.epsilon
            gain = predicted / (predicted + r)
            s, V = s + gain * (z - s), (1 - gain) * predicted
        x = torch.from_numpy(s).float()
        with torch.no_grad():
            for block in model.refinement.blocks:
                x = x - model.config.lambda_ref * block(x)
            scores.append(torch.sigmoid(model.classifier(x)).mean().item())  # late fusion: two states
        weights.append([w[0, n - 1].mean().item() for w in output.weights.values()])
    return np.array(scores), np.array(weights).T


FUSIONS = ("inverse_variance", "equal", "concat", "gate", "cross_attention", "late")


@pytest.mark.parametrize("options", [
    *({"fusion": fusion} for fusion in FUSIONS),
    *({"temporal_update": update, "padding": "attended"} for update in ("kalman", "paper", "none")),
    {"fusion": "late", "temporal_update": "paper"},
    {"fusion": "cross_attention", "padding": "attended"},
    {"modality": "image"}, {"modality": "event", "temporal_update": "paper"},
], ids=lambda options: "-".join(options.values()))  # fmt: skip
@pytest.mark.parametrize("window", [1, 5])
def test_causal_scores_equal_window_by_window_filtering(options: dict[str, str], window: int) -> None:
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=2, **options)
    for p in model.classifier.parameters():  # scores away from 1/2
        torch.nn.init.normal_(p, std=0.5)
    names = [name for name in ("image", "event") if model.config.modality in (name, "fusion")]
    streams = {name: torch.randn(13, 16) for name in names}
    scorer = CausalScorer(model, window, CPU)
    rows = [scorer({name: x[t] for name, x in streams.items()}) for t in range(13)]
    scores, weights = causal_oracle(model, streams, window)
    assert np.ptp(scores) > 0.1
    np.testing.assert_allclose([row.score for row in rows], scores, rtol=0, atol=2e-6)
    np.testing.assert_allclose([list(row.weights.values()) for row in rows], weights.T, rtol=0, atol=1e-6)


def test_first_causal_score_is_that_of_a_single_snippet() -> None:
    """And after a reset the stream begins again; without it, the state is carried on beyond the window."""
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_heads=4, num_refinement_steps=1).eval()
    a, b = torch.randn(2, 2, 16).unbind(0)  # (image and event, D) of two snippets

    def stream(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": x[0], "event": x[1]}

    with torch.no_grad():
        alone = torch.sigmoid(model(b[0][None, None], b[1][None, None]).logits).item()
    scorer = CausalScorer(model, 1, CPU)
    scorer(stream(a))
    assert scorer(stream(b)).score != pytest.approx(alone, abs=1e-6)
    scorer.reset()
    assert scorer(stream(b)).score == pytest.approx(alone, abs=1e-6)
