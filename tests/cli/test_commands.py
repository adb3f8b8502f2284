"""The commands from a user's view: their output and files, and a one-line error for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from model import IEFVAD, read_checkpoint, save_checkpoint
from model.checkpoint import to_released_name

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = ["--max_epoch", "2", "--batch_size", "4", "--num_refinement_steps", "1", "--lr", "0.003"]


@pytest.fixture
def trained(tiny, command, tmp_path):
    """Train for two epochs; return figure flags, the checkpoint and the printed output."""
    places = ["--figure_dir", tmp_path / "figure"]
    where = ["--checkpoint_dir", tmp_path / "ck", *places, "--exp_name", "a"]
    code, out, err = command("main", *tiny.flags, *QUICK, *where)
    assert code == 0, err
    return places, tmp_path / "ck" / "a.pth", out


def test_training_prints_options_and_writes_weights_and_log(trained, tmp_path):
    _, checkpoint, out = trained
    assert "data set ucfcrime · profile default" in out and "max_epoch* 2" in out  # asterisk: explicitly set
    assert "weights of the last epoch" in out and "best AUC on the test set (selected on the test set):" in out
    content = read_checkpoint(checkpoint)
    assert content["epoch"] == 2 and content["options"]["batch_size"] == 4 and content["seed"] == 0
    assert len(pd.read_csv(checkpoint.with_suffix(".csv"))) == 2
    assert (tmp_path / "figure" / "a" / "training.png").stat().st_size > 10_000


def test_training_reuses_a_finished_run(trained, tiny, command, tmp_path):
    places, checkpoint, _ = trained
    before = checkpoint.read_bytes()
    flags = [*tiny.flags, *QUICK, "--checkpoint_dir", tmp_path / "ck", *places, "--exp_name", "a"]
    code, out, _ = command("main", *flags)
    assert code == 0 and "already finished, reused" in out and checkpoint.read_bytes() == before
    code, _, err = command("main", *flags, "--nu", "3")
    assert code == 2 and "was trained with nu 8.0, not 3.0" in err and checkpoint.read_bytes() == before
    code, out, _ = command("main", *flags, "--nu", "3", "--overwrite")
    assert code == 0 and read_checkpoint(checkpoint)["config"]["nu"] == 3


def test_evaluation_reproduces_the_metrics_of_training(trained, tiny, command, tmp_path):
    places, checkpoint, _ = trained
    code, out, err = command("test", *tiny.flags, "--ckpt_path", checkpoint, *places, "--exp_name", "e")
    assert code == 0, err
    folder = tmp_path / "figure" / "e"
    result = json.loads((folder / "results.json").read_text())["runs"][0]
    assert result["metrics"]["AUC"] == pytest.approx(read_checkpoint(checkpoint)["metrics"]["AUC"], abs=1e-6)
    assert result["options"]["profile"] == "default" and result["weights"] == "last"
    assert f"{100 * result['metrics']['AUC']:.2f}" in out and "Table 2" in out
    scores = pd.read_csv(folder / "scores.csv")
    assert scores.score.between(0, 1).all() and scores.video.nunique() == 8
    assert "UR-DMU" in out  # Table 1 includes other methods
    written = {path.name for path in folder.iterdir()}
    assert {"results.txt", "results.md", "results.csv", "curves.png", "curves.pdf"} <= written
    assert len(list(folder.glob("timeline_*.png"))) == 4  # the four anomalous videos


def test_pretrained_folder_gives_the_same_table_everywhere(trained, tiny, command, tmp_path):
    places, checkpoint, printed = trained
    folder = tmp_path / "ck" / "a_pretrained"
    assert f"as a folder for the Hugging Face hub: {folder}" in printed
    for name, flags in {"test": ["--table", "1"], "test2": ["--levels", "0"]}.items():
        lines = [[name, *tiny.flags, "--ckpt_path", path, *flags, *places] for path in (checkpoint, folder)]
        (code, table, _), (_, again, _) = (command(*line) for line in lines)
        assert code == 0 and "Table" in table and again == table
    exported = tmp_path / "other"
    code, out, err = command("test", "--ckpt_path", checkpoint, "--export", exported)  # without the data set
    assert code == 0 and "pretrained folder" in out, err
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (exported / name).read_bytes() == (folder / name).read_bytes()


def test_export_of_a_graph_needs_no_data_set(trained, command, tmp_path):
    _, checkpoint, _ = trained
    flags = ["--ckpt_path", checkpoint, "--modality", "image", "--temporal_update", "none"]
    code, out, err = command("test", *flags, "--export", tmp_path / "m.pt2")
    assert code == 0 and "image model for embeddings of width 16" in out, err
    assert "was trained with temporal_update kalman and is evaluated with none" in out
    program = torch.export.load(tmp_path / "m.pt2").module()
    assert program(image=torch.zeros(1, 3, 16), lengths=torch.tensor([3]))["score"].shape == (1, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--export", "m.pt"], "unknown suffix. Use .onnx, .pt2, or a folder name"),
        (["--export", "m", "--nu", "3"], "writes the checkpoint as it is. Leave out --nu"),
        (["--export", "m", "--dataset", "xd"], "writes the checkpoint as it is. Leave out --dataset"),
        (["--export", "m", "--table", "1"], "--table and --export make different results"),
        (["--export", "m", "--ckpt_path", "a.pth", "b.pth"], "--export takes one checkpoint"),
    ],
)
def test_wrong_export_is_one_sentence(command, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "a.pth", IEFVAD(embed_dim=16), options={"dataset": "ucfcrime"})
    code, _, err = command("test", "--ckpt_path", "a.pth", *flags)
    assert code == 2 and message in err and err.count("\n") == 1


def test_checkpoints_are_compared_by_modality_over_seeds(trained, tiny, command, tmp_path):
    places, checkpoint, _ = trained
    for name, flags in {"b": ["--seed", "1"], "i": ["--modality", "image"]}.items():
        where = ["--checkpoint_dir", tmp_path / "ck", *places, "--exp_name", name]
        assert command("main", *tiny.flags, *QUICK, *where, *flags)[0] == 0
    paths = [checkpoint, *(tmp_path / "ck" / f"{name}.pth" for name in "bi")]
    code, out, err = command("test", *tiny.flags, "--ckpt_path", *paths, *places, "--exp_name", "c")
    assert code == 0, err
    first_table = out.split("baselines")[0]
    rows = {row.split()[0]: row.split() for row in first_table.splitlines() if row.startswith(("image  ", "fusion  "))}
    assert rows["fusion"][1] == "2" and rows["image"][1] == "1"
    assert (tmp_path / "figure" / "c" / "modalities.png").is_file()


def test_masking_prints_every_level_of_both_modalities(trained, tiny, command, tmp_path):
    places, checkpoint, _ = trained
    code, out, err = command("test2", *tiny.flags, "--ckpt_path", checkpoint, *places, "--exp_name", "p")
    assert code == 0, err
    assert out.count("EV_NOISE") >= 5 and out.count("IMG_NOISE") >= 5
    rows = json.loads((tmp_path / "figure" / "p" / "probes.json").read_text())["rows"]
    assert [(r["masked"], r["level"]) for r in rows] == [
        ("CLEAN", 0.0),
        *((masked, level) for masked in ("EV_NOISE", "IMG_NOISE") for level in (0.05, 0.1, 0.2, 0.3, 0.5)),
    ]
    assert rows[0]["kl"] == 0 and all(row["kl"] > 0 for row in rows[1:])
    assert (tmp_path / "figure" / "p" / "weight_change.png").is_file()


def test_masking_of_two_runs_reports_weight_changes(trained, tiny, command, tmp_path):
    places, checkpoint, _ = trained
    where = ["--checkpoint_dir", tmp_path / "ck", *places]
    assert command("main", *tiny.flags, *QUICK, *where, "--exp_name", "b", "--seed", "1")[0] == 0
    flags = [*tiny.flags, "--ckpt_path", checkpoint, tmp_path / "ck" / "b.pth", *places, "--exp_name", "q"]
    code, out, err = command("test2", *flags, "--levels", "0.5")
    assert code == 0, err
    assert "2 runs" in out and "ŵ_i cannot be tested with only 2 runs" in out
    rows = pd.read_csv(tmp_path / "figure" / "q" / "probe_runs.csv")
    assert rows.run_seed.tolist() == [0, 0, 0, 1, 1, 1] and (tmp_path / "figure" / "q" / "probe_runs.png").is_file()
    code, _, err = command("test2", *flags[:-2], "--ckpt_path", checkpoint, checkpoint)
    assert code == 2 and "are both the run with seed 0. Name each run once" in err


def test_released_checkpoint_uses_released_options(tiny, command, tmp_path):
    torch.manual_seed(0)
    model = IEFVAD(embed_dim=16, num_refinement_steps=2, temporal_update="none")
    torch.save({to_released_name(k): v for k, v in model.state_dict().items()}, tmp_path / "ucf.pth")
    flags = [*tiny.flags, "--ckpt_path", tmp_path / "ucf.pth", "--figure_dir", tmp_path / "figure"]
    code, out, err = command("test", *flags)
    assert code == 0, err
    assert "profile released" in out and "selected on the test set by its authors" in out
    saved = json.loads((tmp_path / "figure" / "ucfcrime" / "results.json").read_text())["runs"][0]["options"]
    assert saved["temporal_update"] == "none" and saved["padding"] == "attended"
    code, _, err = command("test", *flags, "--profile", "default")
    assert code == 2 and "trained without a learned process noise" in err
    code, out, _ = command("test", *flags, "--temporal_update", "paper")
    assert code == 0


def damage(tiny, mistake: str) -> None:
    """Introduce one typical user mistake into the data set."""
    event = tiny.path("event_thr_10", "Arson001_x264", "Arson")
    test_csv, train_csv, gt = tiny.lists / "test.csv", tiny.lists / "train.csv", tiny.lists / "gt.npy"
    if mistake == "no list":
        train_csv.unlink()
    elif mistake == "empty list":
        train_csv.write_text("path,label\n")
    elif mistake == "no columns":
        test_csv.write_text(test_csv.read_text().replace("path,label", "file,class"))
    elif mistake == "unknown class":
        test_csv.write_text(test_csv.read_text().replace(",Arson", ",Picnic"))
    elif mistake == "event missing":
        event.unlink()
    elif mistake == "event S":
        np.save(event, np.load(event)[:-1])
    elif mistake == "NaN":
        np.save(event, np.load(event) * np.nan)
    elif mistake == "gt length":
        np.save(gt, np.load(gt)[:-16])
    elif mistake == "no gt":
        gt.unlink()
    elif mistake == "one label":
        rows = [line for line in train_csv.read_text().splitlines() if not line.endswith(("Arson", "Fighting"))]
        train_csv.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("no list", "train.csv: there is no such list"),
        ("empty list", "train.csv: the list contains no video"),
        ("no columns", "test.csv: the header has no column path and label"),
        ("unknown class", "unknown class 'Picnic'"),
        ("event missing", "Arson001_x264__5.npy: no such embedding"),
        ("event S", "snippets but"),
        ("NaN", "Arson001_x264__5.npy has NaN in"),
        ("gt length", "gt.npy has 3360 frames, but the 8 test videos have 3376"),
        ("no gt", "gt.npy: there is no ground truth"),
        ("one label", "the training list contains normal videos only"),
    ],
)
def test_user_mistake_gives_one_line_and_exit_code_2(tiny, command, tmp_path, mistake, message):
    damage(tiny, mistake)
    code, _, err = command("main", *tiny.flags, *QUICK, "--checkpoint_dir", tmp_path / "ck", "--figure_dir", tmp_path)
    last = err.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and message in last, err
    assert "Traceback" not in err
    assert not (tmp_path / "ck").exists()  # no partial result


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--feature_root", "nowhere"], "--feature_root nowhere is not a folder"),
        (["--device", "cuda:7"], "--device cuda:7 cannot be used here"),
        (["--device", "gpu"], "--device gpu cannot be used here"),
        (["--visual_head", "3"], "embedding width 16 is not divisible by 3 heads"),
        (["--nu", "0"], "nu must be positive"),
        (["--batch_size", "-1"], "--batch_size is -1. It must be positive"),
        (["--dataset", "avenue"], "unknown data set 'avenue'"),
    ],
)
def test_invalid_flag_gives_one_line_and_exit_code_2(tiny, command, tmp_path, flags, message):
    code, _, err = command("main", *tiny.flags, *QUICK, "--checkpoint_dir", tmp_path, "--figure_dir", tmp_path, *flags)
    assert code == 2 and message in err.strip().splitlines()[-1]


def test_checkpoint_of_another_width_is_refused(tiny, command, tmp_path):
    torch.save({to_released_name(k): v for k, v in IEFVAD(embed_dim=32, temporal_update="none").state_dict().items()},
               tmp_path / "wide.pth")  # fmt: skip
    for name in ("test", "test2"):
        code, _, err = command(name, *tiny.flags, "--ckpt_path", tmp_path / "wide.pth", "--figure_dir", tmp_path)
        assert code == 2 and "a model for image embeddings of width 32, but those of" in err and "have width 16" in err


def test_masking_refuses_a_single_modality_model(tiny, command, tmp_path):
    where = ["--checkpoint_dir", tmp_path / "ck", "--figure_dir", tmp_path / "figure"]
    assert command("main", *tiny.flags, *QUICK, *where, "--modality", "event")[0] == 0
    path = tmp_path / "ck" / "ucfcrime_event.pth"
    code, _, err = command("test2", *tiny.flags, "--ckpt_path", path, *where[2:])
    assert code == 2 and "is an event-only model" in err


def test_commands_run_as_scripts_and_import_silently(tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "test.py", *tiny.flags, "--ckpt_path", tmp_path / "none.pth"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no checkpoint at {tmp_path / 'none.pth'}. ") and "\n" not in done.stderr[:-1]
    for name in ("main", "test", "test2"):
        code = f"import importlib; importlib.import_module({name!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert not done.stdout and not done.stderr


# flags without effect on a command


@pytest.mark.parametrize("name", ["test", "test2"])
@pytest.mark.parametrize(
    "flag", ["mil", "lambda_kl", "lambda_reg", "kl_noise_model", "dropout", "lr", "batch_size", "max_epoch", "keep",
             "rollback", "num_refinement_steps", "visual_layers"],
)  # fmt: skip
def test_evaluation_refuses_training_flags(tiny, command, tmp_path, name, flag):
    code, _, err = command(name, *tiny.flags, "--ckpt_path", tmp_path / "a.pth", f"--{flag}", "1")
    assert code == 2 and f"unrecognized arguments: --{flag} 1" in err


@pytest.mark.parametrize("flag", ["mask_axis", "ano_auc"])
def test_training_refuses_evaluation_flags(tiny, command, flag):
    code, _, err = command("main", *tiny.flags, f"--{flag}", "time")
    assert code == 2 and f"unrecognized arguments: --{flag} time" in err


@pytest.mark.parametrize(("name", "first", "all_flags"), [("main", 20, 69), ("test", 27, 36), ("test2", 20, 24)])
def test_help_shows_common_flags_first(name, first, all_flags):
    def count(flag: str) -> int:
        text = subprocess.run([sys.executable, ROOT / f"{name}.py", flag], capture_output=True, text=True, check=True)
        return sum(line.startswith("  -") for line in text.stdout.splitlines())

    assert count("-h") <= first and count("--help_all") <= all_flags


def test_crops_are_parsed_from_ranges(tiny, command, tmp_path):
    code, _, err = command("main", *tiny.flags, "--test_crops", "0,2..11")
    assert code == 2 and "crops are numbered 0 to 9" in err
    code, _, err = command("main", *tiny.flags, "--test_crops", "0,2..4", "--checkpoint_dir", tmp_path)
    assert code == 2 and "__0.npy: no such embedding" in err  # parsed; the tiny data set has only crop 5


def test_lists_of_unknown_split_are_reported(trained):
    _, _, out = trained
    assert "· split not recorded ·" in out and "· official split ·" not in out
