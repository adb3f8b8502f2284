"""The commands with sound as a third stream, as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from model import load_checkpoint
from tests.conftest import write_sound

ALL = "image+event+audio"
QUICK = ["--device", "cpu", "--test_crops", 5, "--batch_size", 3, "--lr", 0.003, "--max_epoch", 2,
         "--num_refinement_steps", 1]  # fmt: skip
SILENT = "Arson017_x264"


@pytest.fixture
def places(tiny, tmp_path):
    """Write sound of the tiny data set; return the flags of the folders."""
    write_sound(tiny, 24, silent=(SILENT,))
    return [*tiny.flags, "--figure_dir", tmp_path / "figure"]


def train(command, places, tmp_path, modality: str, *flags) -> str:
    code, out, err = command(
        "main", *places, *QUICK, "--checkpoint_dir", tmp_path, "--modality", modality, "--exp_name", "run", *flags
    )
    assert code == 0, err
    return out


def test_streams_are_trained_tested_masked_and_exported(places, command, tmp_path):
    assert "width 16, 24, image+event+audio" in train(command, places, tmp_path, "audio+image+event")
    path = tmp_path / "run.pth"
    code, out, err = command("test", *places, "--ckpt_path", path, "--exp_name", "t", "--timeline", SILENT)
    assert code == 0 and SILENT in out, err
    code, out, err = command("test", *places, "--ckpt_path", path, "--exp_name", "t")
    assert code == 0, err
    assert "UCF-Crime, image+event+audio" in out and "ŵ_a, abnormal frames" in out and "Table 1" not in out
    scores = pd.read_csv(tmp_path / "figure" / "t" / "scores.csv")
    assert (scores.weight_audio.eq(0) == scores.video.eq(SILENT)).all()
    assert (scores.weight_image + scores.weight_event + scores.weight_audio).to_numpy() == pytest.approx(1, abs=1e-5)
    code, out, err = command("test2", *places, "--ckpt_path", path, "--exp_name", "m", "--levels", 0.5, 1)
    assert code == 0, err
    assert "As Tables 6–9" in out and "A stream masked as a whole counts as missing" in out
    rows = json.loads((tmp_path / "figure" / "m" / "probes.json").read_text())["rows"]
    assert [row["masked"] for row in rows] == ["CLEAN", *np.repeat(["EV_NOISE", "IMG_NOISE", "AU_NOISE"], 2)]
    assert rows[-1]["w_audio"] == 0 < rows[-2]["w_audio"]


def test_subset_of_the_streams_is_evaluated(places, command, tmp_path):
    train(command, places, tmp_path, ALL)
    for modality, shown in (("audio", "UCF-Crime, audio"), ("event+image", "UCF-Crime, fusion")):
        code, out, err = command("test", *places, "--ckpt_path", tmp_path / "run.pth", "--modality", modality)
        assert code == 0 and shown in out, err


def test_exported_streams_equal_the_network(places, command, tmp_path):
    train(command, places, tmp_path, "image+audio")
    code, out, err = command("test", *places, "--ckpt_path", tmp_path / "run.pth", "--export", tmp_path / "m.onnx")
    assert code == 0 and "width 16 and 24" in out, err
    x = {"image": torch.randn(2, 5, 16), "audio": torch.randn(2, 5, 24)}
    x["audio"][1] = 0  # the second video is silent
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    lengths = torch.tensor([5, 3])
    values = session.run(None, {"lengths": lengths.numpy(), **{name: v.numpy() for name, v in x.items()}})
    outputs = dict(zip((o.name for o in session.get_outputs()), values, strict=True))
    expected = load_checkpoint(tmp_path / "run.pth")(**x, lengths=lengths)
    np.testing.assert_allclose(outputs["score"][0], torch.sigmoid(expected.logits[0, :, 0]).detach(), atol=1e-5)
    assert (outputs["weight_audio"][1] == 0).all() and (outputs["weight_image"][1] == 1).all()


def test_options_of_streams_are_checked(places, command, tmp_path):
    for flags, message in (
        (["--modality", "image+smell"], "Choose from image, event, fusion, audio, image+audio"),
        (["--drop_stream", 1], "--drop_stream is 1.0. It must be at least 0 and less than 1"),
        (["--reg_pairs", "audio"], "reg_pairs must be one of all, image-event"),
    ):
        code, _, err = command("main", *places, *flags)
        assert code == 2 and message in err, err


def test_own_videos_refuse_a_model_with_sound(places, command, tmp_path):
    train(command, places, tmp_path, ALL)
    (tmp_path / "v.mp4").write_bytes(b"")
    code, _, err = command("test", *places, "--ckpt_path", tmp_path / "run.pth", "--video", tmp_path / "v.mp4")
    assert code == 2 and "needs sound, which --video and --live do not embed" in err, err
