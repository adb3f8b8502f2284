"""Training and evaluation of AVadCLIP on tiny embeddings: labels, teacher, student, resume, both branches."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from extracting.clip.text import save_text_tower
from model.avadclip import PROFILES, AVadCLIP, AVadCLIPConfig, AVadCLIPObjective, read_avadclip
from tests.conftest import write_sound
from tests.vad.runs import interrupt_run_at, options_of
from vad.avadclip.method import AVadCLIPLoss, multi_hot
from vad.data import Batch
from vad.datasets import TEXT_FILE, load_dataset
from vad.evaluation import open_run, open_test_set
from vad.files import InputError
from vad.metrics import ALIGNMENT
from vad.options import AVADCLIP, AVADCLIP_PROFILES, Options, resolve
from vad.scoring import score
from vad.train import RunFiles, train_run

UCF, XD = load_dataset("ucfcrime"), load_dataset("xd")
CPU = torch.device("cpu")
SHORT = {"method": "avadclip", "batch_size": 4, "max_epoch": 3, "local_window": 4}


@pytest.fixture
def sounding(tiny):
    """Return the tiny data set with sound as wide as the images, and an untrained text tower."""
    write_sound(tiny, 16)
    save_text_tower(tiny.root / TEXT_FILE, UCF.prompts, "untrained", 16)
    return tiny


def train(tiny, folder, **changes) -> Options:
    options = options_of(tiny, folder, **{**SHORT, **changes})
    train_run(options)
    return options


def opened(tiny, options: Options):
    explicit = {"feature_root": str(tiny.root), "list_root": str(tiny.lists), "test_crops": (5,)}
    return open_run(RunFiles.of(options).last, explicit, CPU, {})


def equal(one, other) -> bool:
    a, b = (read_avadclip(RunFiles.of(options).last)["model"] for options in (one, other))
    return all(torch.equal(x, b[name]) for name, x in a.items())


def test_prompts_of_xd_violence_are_the_released_ones():
    assert "road accident" in UCF.prompts
    words = "normal", "fighting", "shooting", "riot", "abuse", "car accident", "explosion"
    assert XD.prompts == words
    labels = multi_hot(["A", "B1-0-0", "B2-G-0"], XD)
    assert labels.tolist() == [[1, *[0] * 6], [0, 1, *[0] * 5], [0, 0, 1, 0, 0, 0, 1]]


def test_options_are_those_of_network_and_loss():
    # of the data, of another group, or without effect worth a flag
    sizes = ("classes", "student", "embed_dim", "max_length", "fusion", "padding", "num_heads")
    config = {f.name: f.default for f in fields(AVadCLIPConfig) if f.name not in sizes}
    assert Options().group("avadclip") == config
    loss = {f.name: f.default for f in fields(AVadCLIPObjective) if f.name != "config"}
    assert Options().group("avadclip_loss") == loss


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_those_of_the_model(profile):
    options = resolve({"method": "avadclip", "profile": profile, "dataset": "xd"})
    names = {f.metadata["argument"] or f.name: f.name for f in fields(Options) if f.metadata}
    assert {name: getattr(options, names[name]) for name in PROFILES[profile]} == dict(PROFILES[profile])
    assert set(AVADCLIP_PROFILES) == set(PROFILES)
    # section 6 of the facts: AdamW 1e-5, mixed batches of 96, ten epochs, a tenth after the third and the sixth
    assert {name: getattr(options, name) for name in AVADCLIP} == dict(AVADCLIP)
    assert (options.keep, options.rollback) == (("best", True) if profile == "released" else ("last", False))


def test_method_decides_modality_and_fingerprint():
    ours, teacher = resolve({"dataset": "xd"}), resolve({"dataset": "xd", "method": "avadclip"})
    student = resolve({"dataset": "xd", "method": "avadclip", "student": True})
    assert (ours.modality, teacher.modality, student.modality) == ("fusion", "image+audio", "image")
    assert "method" not in ours.fingerprint() and "distill" not in ours.fingerprint()
    assert teacher.fingerprint()["fusion"] == "adaptive" and "nu" not in teacher.fingerprint()
    assert teacher.fingerprint() != student.fingerprint()


@pytest.mark.parametrize("student", [False, True])
def test_network_learns_and_both_branches_are_measured(sounding, tmp_path, student):
    options = train(sounding, tmp_path, student=student, max_epoch=25, lr=0.01)
    run = opened(sounding, options)
    labels = np.concatenate([video.frame_labels for video in run.videos])
    for name, scores in (
        ("", [video.scores for video in run.videos]),
        (", alignment branch", [1 - video.class_scores[:, 0] for video in run.videos]),
    ):
        frames = np.repeat(np.concatenate(scores), 16)
        assert run.metrics[f"AUC{name}"] == pytest.approx(roc_auc_score(labels, frames))
        assert run.metrics[f"AP{name}"] == pytest.approx(average_precision_score(labels, frames))
    assert all(np.allclose(video.class_scores.sum(1), 1, atol=1e-5) for video in run.videos)
    losses = [row["loss"] for row in read_avadclip(RunFiles.of(options).last)["rows"]]
    assert losses[-1] < 0.7 * losses[0]
    if not student:  # its sound is another in every anomalous video
        assert run.metrics["AUC"] > 0.6


@pytest.mark.parametrize("window", [7, 256])
@pytest.mark.parametrize("student", [False, True])
def test_scores_equal_those_of_one_window_at_a_time(sounding, tmp_path, window, student):
    """A plain loop over the windows of each video gives the same scores of both branches."""
    test = open_test_set(options_of(sounding, tmp_path, **SHORT, student=student), UCF)
    torch.manual_seed(0)
    model = AVadCLIP(None, classes=UCF.prompts, embed_dim=16, student=student).eval()
    torch.nn.init.normal_(model.text_embedding)
    scored = score(model, test.videos, test.embeddings, window=window, device=CPU, progress=False)
    for result, video in zip(scored, test.videos, strict=True):
        x = {name: torch.from_numpy(np.load(path))[None] for name, path in video.crops[0].streams.items()}
        with torch.no_grad():
            parts = [
                model(**{name: rows[:, start : start + window] for name, rows in x.items()})
                for start in range(0, video.snippets, window)
            ]
        expected = torch.cat([output.logits[0, :, 0] for output in parts]).sigmoid()
        classes = torch.cat([output.class_logits[0].softmax(-1) for output in parts])
        np.testing.assert_allclose(result.scores, expected, atol=1e-5)
        np.testing.assert_allclose(result.class_scores, classes, atol=1e-5)
    assert any(video.snippets > window for video in test.videos) == (window == 7)


def test_checkpoint_needs_no_text_tower(sounding, tmp_path):
    options = train(sounding, tmp_path)
    before = opened(sounding, options).videos
    (sounding.root / TEXT_FILE).unlink()
    after = opened(sounding, options).videos
    assert all(np.array_equal(a.class_scores, b.class_scores) for a, b in zip(before, after, strict=True))
    assert RunFiles.of(options).last.stat().st_size < 2e6


def test_student_is_tested_without_sound_but_learns_with_it(sounding, tmp_path):
    teacher = RunFiles.of(train(sounding, tmp_path, exp_name="teacher")).last
    alone = train(sounding, tmp_path, exp_name="alone", student=True)
    taught = train(sounding, tmp_path, exp_name="taught", student=True, teacher=str(teacher))
    assert not equal(alone, taught)
    rows = read_avadclip(RunFiles.of(taught).last)["rows"]
    assert all(row["loss_distillation"] > 0 for row in rows)
    weightless = train(sounding, tmp_path, exp_name="zero", student=True, teacher=str(teacher), lambda_distill=0.0)
    assert equal(alone, weightless)  # a term of weight 0 changes no bit
    scores = opened(sounding, taught).videos
    for path in (sounding.root / "audio").rglob("*.npy"):
        path.unlink()
    (sounding.root / "audio").rename(sounding.root / "away")
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(scores, opened(sounding, taught).videos, strict=True))


@pytest.mark.parametrize("student", [False, True])
def test_resumed_run_is_bitwise_equal(sounding, tmp_path, monkeypatch, student):
    changes = {"student": student}
    if student:
        changes["teacher"] = str(RunFiles.of(train(sounding, tmp_path, exp_name="teacher")).last)
    whole, parts = (
        options_of(sounding, tmp_path / name, **SHORT, **changes) for name in ("whole", "parts")
    )
    train_run(whole)
    interrupt_run_at(monkeypatch, parts, 5)
    train_run(parts)
    assert equal(whole, parts) and RunFiles.of(whole).log.read_text() == RunFiles.of(parts).log.read_text()


@pytest.mark.parametrize("padding", ["attended", "masked"])
def test_teacher_sees_the_windows_of_its_training(padding):
    """Its features of a truncated batch are those of whole windows, also where it attends to their padding."""
    torch.manual_seed(0)
    sizes = {"classes": UCF.prompts, "embed_dim": 16, "max_length": 12}
    teacher = AVadCLIP(None, **sizes, padding=padding).eval()
    student = AVadCLIP(None, **sizes, student=True).eval()
    for model in (teacher, student):
        torch.nn.init.normal_(model.text_embedding)
    x = {name: torch.randn(2, 5, 16) for name in ("image", "audio")}
    lengths = torch.tensor([5, 3])
    batch = Batch({name: rows * (torch.arange(5) < lengths[:, None])[..., None] for name, rows in x.items()}, lengths,
                  torch.zeros(2), ("a", "b"))  # fmt: skip
    labels = {name: torch.eye(len(UCF.prompts))[k] for k, name in enumerate("ab")}
    loss = AVadCLIPLoss(AVadCLIPObjective(config=student.config), labels, teacher)
    with torch.no_grad():
        output = student(batch.streams["image"], lengths=lengths)
        whole = {name: torch.cat([rows, torch.zeros(2, 7, 16)], 1) for name, rows in batch.streams.items()}
        features = teacher(**whole, lengths=lengths).features[:, :5]
        valid = torch.arange(5) < lengths[:, None]
        expected = (output.features - features).square().mean(-1)[valid].mean()
        assert loss.terms(output, batch).distillation.item() == pytest.approx(expected.item(), rel=1e-5)


def test_run_with_another_teacher_is_not_resumed(sounding, tmp_path):
    first, second = (
        RunFiles.of(train(sounding, tmp_path, exp_name=f"teacher{seed}", seed=seed)).last for seed in (0, 1)
    )
    options = train(sounding, tmp_path, student=True, teacher=str(first))
    with pytest.raises(InputError, match=r"was trained with teacher [0-9a-f]+, not [0-9a-f]+"):
        train_run(replace(options, teacher=str(second)))


def test_released_profile_keeps_the_best_test_weights(sounding, tmp_path):
    options = train(sounding, tmp_path, profile="released", nan="refuse", lr=0.01)
    content = read_avadclip(RunFiles.of(options).last)
    best = max(row[ALIGNMENT["AP"]] for row in content["rows"])
    assert content["weights"] == "best" and content["metrics"][ALIGNMENT["AP"]] == best
    assert opened(sounding, options).test.protocol("best").mark == "†"


@pytest.mark.parametrize(("changes", "message"), [
    ({"nu": 3.0}, "--nu is no option of --method avadclip"),
    ({"drop_stream": 0.2}, "--drop_stream is no option of --method avadclip"),
    ({"method": "ief_vad", "student": True}, "--local_window is no option of --method ief_vad"),
    ({"modality": "fusion"}, "AVadCLIP's teacher takes image\\+audio. Leave --modality out"),
    ({"teacher": "x.pth"}, "--teacher is for the student alone"),
    ({"student": True, "teacher": "x.pth"}, "--teacher x.pth: there is no such file"),
    ({"text_path": "x.pt"}, "x.pt: there is no text tower of CLIP.*extracting.clip.text"),
])  # fmt: skip
def test_contradictions_are_refused(sounding, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(sounding, tmp_path, **changes)


def test_data_set_without_sound_offers_the_streams(tiny, tmp_path):
    save_text_tower(tiny.root / TEXT_FILE, UCF.prompts, "untrained", 16)
    with pytest.raises(InputError, match=r"no folder audio beside rgb/.*--student"):
        train(tiny, tmp_path)
    train(tiny, tmp_path, student=True)


def test_unfit_text_towers_and_embeddings_are_refused(sounding, tmp_path):
    path = sounding.root / TEXT_FILE
    for classes, width, message in (
        (XD.prompts, 16, "is for the classes normal, fighting, .*, not normal, abuse"),
        (UCF.prompts, 32, "text tower of width 32, but the embeddings have width 16"),
    ):
        save_text_tower(path, classes, "untrained", width)
        with pytest.raises(InputError, match=message):
            train(sounding, tmp_path)
    path.write_bytes(b"no tower")
    with pytest.raises(InputError, match="not a text tower"):
        train(sounding, tmp_path)
    write_sound(sounding, 24)
    with pytest.raises(InputError, match="embeddings of one width, but these have image 16 and audio 24"):
        train(sounding, tmp_path)


def test_student_as_teacher_is_refused(sounding, tmp_path):
    path = RunFiles.of(train(sounding, tmp_path, exp_name="s", student=True)).last
    with pytest.raises(InputError, match=r"s\.pth is a student. Give a teacher"):
        train(sounding, tmp_path, student=True, teacher=str(path))
