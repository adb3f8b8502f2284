"""The commands with AVadCLIP, as a user runs them: training, testing, a released file, and what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from extracting.clip.text import save_text_tower
from tests.conftest import ROOT, write_sound
from vad.datasets import TEXT_FILE, load_dataset

QUICK = ["--method", "avadclip", "--device", "cpu", "--test_crops", 5, "--batch_size", 4, "--lr", 0.01,
         "--max_epoch", 3]  # fmt: skip
LAYOUT = ROOT / "tests" / "golden" / "avadclip" / "avadclip_checkpoint_layout.json"
# sizes of the released layout → small ones
SMALL = {256: 32, 512: 64, 1024: 128, 1536: 192, 2048: 256, 768: 2, 2304: 2, 3072: 2}
CLASSES = ("Fighting", "Shooting", "Riot", "Abuse", "Car Accident", "Explosion")


@pytest.fixture
def places(tiny, tmp_path):
    """Write sound and a text tower of the tiny data set; return the flags of the folders."""
    write_sound(tiny, 16)
    save_text_tower(tiny.root / TEXT_FILE, load_dataset("ucfcrime").prompts, "untrained", 16)
    return [*tiny.flags, "--figure_dir", tmp_path / "figure"]


@pytest.fixture
def trained(places, command, tmp_path):
    """Train teacher and student; return their checkpoints."""
    where = [*places, *QUICK, "--checkpoint_dir", tmp_path]
    teacher = tmp_path / "ucfcrime_avadclip.pth"
    for flags in ([], ["--student", "--teacher", teacher]):
        code, out, err = command("main", *where, *flags)
        assert code == 0, err
        assert "AVadCLIP, student" in out if flags else "AVadCLIP, teacher, image and sound" in out
        assert "AP, alignment branch (%)" in out and "noise model" not in out and "Table 1" not in out
    return teacher, tmp_path / "ucfcrime_avadclip_student.pth"


def test_teacher_and_student_are_compared(trained, places, command, tmp_path):
    code, out, err = command("test", *places, "--ckpt_path", *trained, "--exp_name", "t")
    assert code == 0, err
    assert "UCF-Crime: AVadCLIP, both branches" in out and "student of ucfcrime_avadclip.pth" in out
    assert "mAP@0.5 (%)" in out and "without normal" in out
    folder = tmp_path / "figure" / "t"
    detected = pd.read_csv(folder / "detection.csv", comment="#")
    assert len(detected) == 4
    means = detected.filter(like="mAP@").mean(axis=1)
    assert detected["mean"].to_numpy() == pytest.approx(means.to_numpy(), abs=0.011)
    runs = json.loads((folder / "results.json").read_text())["runs"]
    assert [run["options"]["student"] for run in runs] == [False, True]
    pictures = [cv2.imread(str(path)) for path in folder.glob("class_map_*.png")]
    assert len(pictures) == 4 and all(picture.std() > 10 for picture in pictures)


@pytest.mark.parametrize(("name", "flags", "message"), [
    ("test2", [], "is a model of AVadCLIP, which test2.py does not take"),
    ("test", ["--export", "m.onnx"], "which --export does not take"),
    ("test", ["--export", "folder"], "which --export does not take"),
    ("test", ["--table", 2], "which --table does not take"),
    ("test", ["--video", "v.mp4"], "which --video and --live does not take"),
    ("test", ["--timeline"], "which --timeline does not take"),
    ("test", ["--modality", "audio"], "AVadCLIP's teacher takes image+audio"),
])  # fmt: skip
def test_commands_of_the_other_method_refuse_it(trained, places, command, name, flags, message):
    code, _, err = command(name, *places, "--ckpt_path", trained[0], *flags)
    assert code == 2 and message in err, err


def test_two_methods_are_not_mixed(trained, places, command, tmp_path):
    flags = ["--device", "cpu", "--test_crops", 5, "--max_epoch", 1, "--batch_size", 3, "--checkpoint_dir", tmp_path]
    assert command("main", *places, *flags, "--modality", "image", "--exp_name", "i")[0] == 0
    code, _, err = command("test", *places, "--ckpt_path", trained[0], tmp_path / "i.pth")
    assert code == 2 and "Test those of one method at a time" in err


def test_seeds_and_sweeps_of_avadclip(places, command, tmp_path):
    where = [*places, *QUICK, "--checkpoint_dir", tmp_path, "--exp_name", "s", "--max_epoch", 1]
    code, out, err = command("main", *where, "--runs", 2, "--sweep", "fusion=adaptive,concat", "--jobs", 2)
    assert code == 0, err
    runs = pd.read_csv(tmp_path / "s_runs.csv")
    assert sorted(runs.fusion) == ["adaptive"] * 2 + ["concat"] * 2 and set(runs.method) == {"avadclip"}
    code, out, err = command("test", *places, "--ckpt_path", *sorted(tmp_path.glob("s_*seed[01].pth")))
    assert code == 0 and "fusion concat" in out and "±" in out, err


def violence(folder, width: int = 64) -> list[object]:
    """Write a data set with the classes of XD-Violence and embeddings of this width; return its flags."""
    rng = np.random.default_rng(0)
    rows, labels, table = ["path,label"], [], ["video,label,official,frames,intervals"]
    for number, label in enumerate(("A", "A", "Fighting", "Explosion", "Car Accident")):
        name, S = f"v{number}", 6 + number
        for path in (folder / "rgb" / label / f"{name}__5.npy", folder / "audio" / label / f"{name}.npy"):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.standard_normal((S, width)).astype(np.float32))
        truth = np.zeros(16 * S, np.uint8)
        truth[32:64] = label != "A"
        labels.append(truth)
        rows.append(f"rgb/{label}/{name}__5.npy,{label}")
        table.append(f"{name},{label},test,{16 * S},{'' if label == 'A' else '32-64'}")
    (folder / "lists").mkdir()
    (folder / "lists" / "test.csv").write_text("\n".join(rows) + "\n")
    np.save(folder / "lists" / "gt.npy", np.concatenate(labels))
    (folder / "annotations.csv").write_text("\n".join(table) + "\n")
    names = ", ".join(f'"{name}"' for name in CLASSES)
    (folder / "dataset.toml").write_text(f'name = "violence"\nnormal = "A"\nclasses = [{names}]\n')
    return ["--dataset", folder / "dataset.toml", "--feature_root", folder]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_released_file_is_tested(command, tmp_path, role):
    (tmp_path / "data").mkdir()
    flags, generator = violence(tmp_path / "data"), torch.Generator().manual_seed(0)
    state = {}
    for name, shape in json.loads(LAYOUT.read_text())[role].items():
        size = [256, 64] if name == "frame_position_embeddings.weight" else [SMALL.get(n, n) for n in shape]
        state[name] = torch.randn(size, generator=generator) / (size[-1] if size else 1) ** 0.5
    path = tmp_path / f"model_xd_{role[0]}.pth"
    torch.save(state, path)
    where = ["--figure_dir", tmp_path / "figure", "--device", "cpu", "--exp_name", "r"]
    code, out, err = command("test", *flags, "--ckpt_path", path, *where)
    assert code == 0, err
    assert "profile released" in out and "†" in out and "released checkpoint" in out
    assert ("student without teacher" if role == "student" else "teacher") in out
    scores = pd.read_csv(tmp_path / "figure" / "r" / "scores.csv")
    assert len(scores) == 6 + 7 + 8 + 9 + 10 and scores.score.between(0, 1).all()
    probabilities = scores[[f"p_{name.lower()}" for name in ("normal", *CLASSES)]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)


def test_checkpoint_is_tested_on_another_data_set(trained, command, tmp_path):
    """Classes of the same name are detected; the others are left out and named (Table V)."""
    (tmp_path / "data").mkdir()
    flags = violence(tmp_path / "data", 16)
    where = ["--ckpt_path", trained[0], "--figure_dir", tmp_path / "figure", "--exp_name", "x"]
    code, out, err = command("test", *flags, *where)
    assert code == 0, err
    assert "does not know the classes riot, car accident; mAP leaves out their segments" in " ".join(out.split())
    table = pd.read_csv(tmp_path / "figure" / "x" / "detection_classes.csv", comment="#").set_index("class")
    assert {"fighting", "explosion", "robbery"} <= set(table.index)
