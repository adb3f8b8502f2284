"""Sound as a third stream: files, training with missing streams, scores, and runs of before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import IEFVAD, load_checkpoint
from tests.conftest import write_sound
from tests.vad.runs import SMALL, assert_equal_results, content_of, interrupt_run_at, options_of
from vad.data import find_videos, read_list
from vad.datasets import load_dataset
from vad.evaluation import open_test_set
from vad.files import InputError
from vad.metrics import modality_weights
from vad.options import MODALITIES, STREAMS, parse_modality, streams_of
from vad.train import RunFiles, drop_streams, train_run

UCF, ALL = load_dataset("ucfcrime"), "image+event+audio"
SILENT = "Arson017_x264"  # a test video


@pytest.fixture
def sounding(tiny):
    """Return the tiny data set with sound of width 24; one test video is silent."""
    write_sound(tiny, 24, silent=(SILENT,))
    return tiny


def videos_of(tiny, modality: str):
    return find_videos(read_list(tiny.lists / "train.csv", UCF), UCF, tiny.root, modality)


@pytest.mark.parametrize("modality", MODALITIES)
def test_videos_have_the_streams_of_the_modality(sounding, modality):
    videos, widths = videos_of(sounding, modality)
    assert set(widths) == streams_of(modality) and list(widths) == [s for s in STREAMS if s in widths]
    assert all(widths[stream] == (24 if stream == "audio" else 16) for stream in widths)
    for video in videos:
        assert all(len(np.load(path)) == video.snippets for path in video.streams.values())
        if "audio" in widths:
            path = video.streams["audio"]
            assert path == sounding.root / "audio" / video.label / f"{video.name}.npy"


@pytest.mark.parametrize(("text", "value"), [
    ("event+image", "fusion"), ("image+event", "fusion"), ("fusion", "fusion"), ("audio+image", "image+audio"),
    ("audio+event+image", ALL), ("audio", "audio"), ("image+image", "image+image"), ("image+smell", "image+smell"),
])  # fmt: skip
def test_order_of_the_streams_does_not_matter(text, value):
    assert parse_modality(text) == value


def test_sound_of_another_length_is_refused_by_name(sounding):
    path = sounding.root / "audio" / "Arson" / "Arson001_x264.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match=r"Arson001_x264\.npy has \d+ snippets but .*rgb.*__5\.npy has \d+\. Extract"):
        videos_of(sounding, "image+audio")
    assert videos_of(sounding, "fusion")  # sound is not looked at


def test_missing_folder_of_sound_names_the_command(tiny):
    with pytest.raises(InputError, match=r"no folder audio beside rgb/\. Embed the sound with extracting/gen_audio"):
        videos_of(tiny, ALL)


def test_run_of_three_streams_weighs_a_silent_video_by_two(sounding, tmp_path):
    options = options_of(sounding, tmp_path, modality=ALL, **SMALL)
    content = train_run(options).content
    assert content["config"]["audio_dim"] == 24 and content["config"]["embed_dim"] == 16
    model = load_checkpoint(RunFiles.of(options).last)
    scored = open_test_set(options, UCF).score(model, torch.device("cpu"), progress=False)
    two = replace(options, modality="fusion")
    without = open_test_set(two, UCF).score(
        load_checkpoint(RunFiles.of(options).last, modality="fusion"), torch.device("cpu"), progress=False
    )
    for video, other in zip(scored, without, strict=True):
        np.testing.assert_allclose(sum(video.weights.values()), 1, atol=1e-6)
        assert list(video.weights) == list(STREAMS) and all(w.shape == (16,) for w in video.by_dimension.values())
        silent = video.name == SILENT
        assert (video.weights["audio"] == 0).all() == silent
        assert np.allclose(video.scores, other.scores, rtol=1e-5) == silent
    means = modality_weights(scored)
    assert means["w_image"] + means["w_event"] + means["w_audio"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("changes", [{}, {"drop_stream": 0.4, "dropout": 0.2, "reg_pairs": "image-event"}])
def test_resumed_run_of_three_streams_is_bitwise_equal(sounding, tmp_path, monkeypatch, changes):
    whole, parts = (
        options_of(sounding, tmp_path / name, modality=ALL, **SMALL, **changes) for name in ("whole", "parts")
    )
    train_run(whole)
    interrupt_run_at(monkeypatch, parts, 5)
    train_run(parts)
    assert_equal_results(whole, parts)


def test_dropped_streams_never_leave_a_video_without_any():
    torch.manual_seed(0)
    streams = {name: torch.ones(4000, 3, 2) for name in STREAMS}
    dropped = drop_streams(streams, 0.4)
    here = torch.stack([x.flatten(1).any(1) for x in dropped.values()], 1)
    assert here.any(1).all()
    # all three are dropped, and so kept, with probability 0.4³
    assert 1 - here.float().mean(0) == pytest.approx([0.4 - 0.4**3] * 3, abs=0.03)
    assert all(torch.equal(x, x.round()) for x in dropped.values())  # a stream is whole or zero


def test_dropping_streams_changes_the_training(sounding, tmp_path):
    plain, dropping = (
        options_of(sounding, tmp_path, exp_name=name, **SMALL, drop_stream=share)
        for name, share in (("plain", 0.0), ("dropping", 0.4))
    )
    weights = [train_run(options) and content_of(options)["model"] for options in (plain, dropping)]
    assert not torch.equal(*(w["classifier.weight"] for w in weights))


def test_run_of_before_sound_is_reused(tiny, tmp_path):
    """A fingerprint that lacks an option of this version has its default."""
    options = options_of(tiny, tmp_path, **SMALL)
    train_run(options)
    path = RunFiles.of(options).last
    content = content_of(options)
    for name in ("reg_pairs", "drop_stream"):
        del content["fingerprint"][name], content["options"][name]
    del content["config"]["audio_dim"]
    torch.save(content, path)
    before = path.read_bytes()
    train_run(options)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"was trained with reg_pairs all, not image-event"):
        train_run(replace(options, reg_pairs="image-event"))
    assert isinstance(load_checkpoint(path), IEFVAD)
