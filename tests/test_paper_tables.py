"""test.py from a reviewer's view: Tables 1 and 2, timelines, formats and one-line errors."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from model import IEFVAD, save_checkpoint
from vad.options import Options, option_fields

TABLE_1 = {"table1.txt", "table1.md", "table1.tex", "table1.csv"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves an untrained model in the format of main.py; keywords are options."""
    network = {f.name: f.metadata["argument"] or f.name for f in option_fields("model")}

    def write(name: str, seed: int | None = 0, weights: str = "last", **changes: object) -> Path:
        torch.manual_seed(seed or 0)
        options = Options(num_refinement_steps=1, **changes)
        config = {network[k]: v for k, v in changes.items() if k in network}
        model = IEFVAD(embed_dim=16, num_refinement_steps=1, modality=options.modality, **config)
        path = tmp_path / "ck" / f"{name}.pth"
        metadata = {} if seed is None else {"seed": seed}
        save_checkpoint(path, model, options=options.recorded(), weights=weights, **metadata)
        return path

    return write


@pytest.fixture
def evaluate(tiny, command, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs test.py on the tiny UCF-Crime."""
    places = ["--figure_dir", tmp_path / "figure", "--checkpoint_dir", tmp_path / "ck", "--device", "cpu"]
    return lambda *flags: command("test", *tiny.flags, *places, *flags)


def test_table_1_includes_runs_of_both_noise_models(evaluate, checkpoint, tmp_path):
    for seed in (0, 1):
        checkpoint(f"ucfcrime_seed{seed}", seed)
    code, out, err = evaluate("--table", 1, "--runs", 2)
    assert code == 0, err
    assert "IEF-VAD (Student-T), here      2  " in out and "IEF-VAD (Gaussian), here" not in out
    trained = "python main.py --dataset ucfcrime --noise_model Gaussian --exp_name ucfcrime_gaussian --runs 2"
    assert trained in " ".join(out.split())
    assert "UR-DMU" in out and "here − paper" in out and "test crop 5" in out
    for seed in (0, 1):
        checkpoint(f"ucfcrime_gaussian_seed{seed}", seed, noise_model="Gaussian")
    code, out, err = evaluate("--table", 1, "--runs", 2)
    assert code == 0, err
    assert "IEF-VAD (Gaussian), here       2  " in out and "gaussian runs are missing" not in out
    runs = json.loads((tmp_path / "figure" / "ucfcrime" / "table1_results.json").read_text())["runs"]
    assert len(runs) == 4 and 0 <= runs[0]["intervals_95"]["AUC"][0] <= runs[0]["metrics"]["AUC"]
    assert {path.name for path in (tmp_path / "figure" / "ucfcrime").glob("table1.*")} == TABLE_1


def test_table_2_evaluates_single_streams_of_fusion_model(evaluate, checkpoint, tmp_path):
    code, out, err = evaluate("--table", 2, "--ckpt_path", checkpoint("a", weights="best"))
    assert code == 0, err
    header = next(line for line in out.splitlines() if line.startswith("class "))
    assert header.split() == ["class", "image", "paper", "diff.", "event", "paper", "diff.", "fusion", "paper", "diff."]
    arson = next(line for line in out.splitlines() if line.startswith("Arson")).split()
    assert arson[2] == "65.49" and arson[5] == "66.75" and arson[8] == "72.68"  # the paper's values
    assert arson[1].endswith("†") and "selected by their score on the test videos" in out
    assert "two streams of the fused model" in out
    assert (tmp_path / "figure" / "ucfcrime" / "figure2.pdf").is_file()


def test_table_2_uses_separately_trained_modalities(evaluate, checkpoint):
    for modality, name in (("image", "r_image"), ("event", "r_event"), ("fusion", "r")):
        checkpoint(f"{name}_seed0", modality=modality)
    code, out, err = evaluate("--table", 2, "--runs", 1, "--exp_name", "r")
    assert code == 0, err
    assert "two streams" not in out and "image" in out and "event" in out and "1 run ·" in out


def test_one_checkpoint_gives_results_methods_and_classes(evaluate, checkpoint, tmp_path):
    code, out, err = evaluate("--ckpt_path", checkpoint("a", weights="best"))
    assert code == 0, err
    titles = [line for line in out.splitlines() if line.startswith(("UCF-Crime, fusion", "Table "))]
    assert [title.split(":")[0] for title in titles if "paper's" not in title] == [
        "UCF-Crime, fusion", "Table 1, UCF-Crime", "UCF-Crime, fusion", "Table 2, UCF-Crime"
    ]  # fmt: skip
    assert "split not recorded" in out and "per-video AUC, median (%)" in out and "†" in out
    assert "frames of normal-labelled videos" in out
    folder = tmp_path / "figure" / "ucfcrime"
    written = {path.name for path in folder.glob("*.*")}
    assert "UCF-Crime: baselines" in out and "at most 0.1 per hour" in out
    assert {"baselines.md", "localisation.csv"} < written
    assert {"results.txt", "methods.tex", "classes.csv", "scores.csv", "results.json"} < written
    assert {"classes.png", "curves.png", "reliability.pdf"} < written and "modalities.png" not in written
    assert len(list(folder.glob("timeline_*.png"))) == 4


def test_checkpoints_are_compared_over_their_seeds(evaluate, checkpoint, tmp_path):
    paths = [checkpoint("a"), checkpoint("b", 1), checkpoint("i", modality="image"), checkpoint("n", 2, nu=4.0)]
    code, out, err = evaluate("--ckpt_path", *paths)
    assert code == 0, err
    assert "UCF-Crime: mean ± std over seeds" in out and "fusion − image (8.0), AUC: " in out
    assert "Runs with different nu are averaged." in out.replace("\n  ", " ")
    header = next(line for line in out.splitlines() if line.startswith("modality "))
    assert header.split()[:3] == ["modality", "nu", "runs"]
    assert (tmp_path / "figure" / "ucfcrime" / "modalities.png").is_file()


def test_masking_works_for_one_run_and_for_several(tiny, command, checkpoint, tmp_path):
    flags = [*tiny.flags, "--figure_dir", tmp_path / "figure", "--device", "cpu", "--levels", 0.5]
    paths = [checkpoint("a"), checkpoint("b", 1)]
    code, out, err = command("test2", *flags, "--ckpt_path", paths[0])
    assert code == 0, err
    assert out.startswith("Table 6, UCF-Crime: response to masking") and "KL: KL(unmasked ‖ masked" in out
    folder = tmp_path / "figure" / "ucfcrime"
    assert json.loads((folder / "probes.json").read_text())["rows"][0]["masked"] == "CLEAN"
    code, out, err = command("test2", *flags, "--ckpt_path", *paths)
    assert code == 0, err
    assert "does the fusion weight of a masked modality fall?" in out and "cannot be tested with only 2 runs" in out
    runs = pd.read_csv(folder / "probe_runs.csv")
    assert len(runs) == 6 and set(runs.run_seed) == {0, 1}  # clean, event and image of each run
    assert {"probes.png", "weight_change.png", "probe_runs.png"} <= {path.name for path in folder.glob("*.png")}
    code, _, err = command("test2", *flags, "--ckpt_path", *paths, checkpoint("c", 2, nu=4.0))
    assert code == 2 and "has nu 8.0" in err and len(err.strip().splitlines()) == 1  # before scoring


def test_timeline_is_drawn_and_unknown_name_is_refused(evaluate, checkpoint, tmp_path):
    path = checkpoint("a")
    code, out, err = evaluate("--timeline", "Arson013", "--ckpt_path", path)  # the suffix _x264 is optional
    assert code == 0, err
    drawn = sorted(p.name for p in (tmp_path / "figure" / "ucfcrime").glob("timeline_*.png"))
    assert drawn == ["timeline_Arson013_x264.png"] and "Arson013_x264" in out
    code, _, err = evaluate("--timeline", "Arson018", "--ckpt_path", path)
    assert code == 2 and "has no test video of this name. Similar names: Arson017_x264, Arson013_x264" in err
    code, _, err = evaluate("--timeline", "--ckpt_path", path, checkpoint("b", 1))
    assert code == 2 and "--timeline takes one checkpoint, but --ckpt_path names 2" in err
    assert evaluate("--timeline", "--ckpt_path", path)[0] == 0
    assert len(list((tmp_path / "figure" / "ucfcrime").glob("timeline_*.png"))) == 4  # the anomalous videos


def test_formatted_table_is_alone_on_standard_output(evaluate, checkpoint):
    flags = ["--table", 1, "--ckpt_path", checkpoint("a", weights="best"), "--format"]
    code, out, err = evaluate(*flags, "csv")
    assert code == 0 and "in " in err
    table = pd.read_csv(io.StringIO(out), comment="#", index_col="method", keep_default_na=False)
    assert table.loc["IEF-VAD (Student-T), paper", "AUC (%)"] == "88.67 ± 0.45"
    assert 0 <= float(table.loc["IEF-VAD (Student-T), here", "AUC (%)"]) <= 100  # a number without †
    out = evaluate(*flags, "latex")[1]
    assert out.count(r"\begin{table}") == out.count(r"\end{table}") == 2 and r"$88.67 \pm 0.45$" in out
    assert r"^{\dagger}$" in out
    out = evaluate(*flags, "markdown")[1]
    assert out.startswith("**Table 1, UCF-Crime**") and "| UR-DMU | - | 86.97 | 68.62 |" in out


def test_changed_profile_is_reported_in_a_footnote(evaluate, checkpoint):
    path = checkpoint("a", mil="segment")
    code, out, err = evaluate("--table", 1, "--ckpt_path", path, "--profile", "paper", "--test_crops", "5")
    assert code == 0, err
    below = out.split("UCF-Crime: baselines")[0].split("-----\n")[-1].replace("\n  ", " ")
    assert f"{path} was trained with profile default and is evaluated with profile paper." in below
    code, out, err = evaluate("--table", 1, "--ckpt_path", path, "--nu", "4")
    assert code == 0, err
    assert f"{path} was trained with nu 8.0 and is evaluated with 4.0." in out.replace("\n  ", " ")
    assert "was trained with" not in evaluate("--table", 1, "--ckpt_path", path, "--nu", "8")[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table", 1], "no checkpoint is given. Give --ckpt_path, or --runs N"),
        (["--table", 1, "--runs", 3], "ucfcrime_seed0.pth: no such run. Train it with python main.py --dataset"),
        (["--table", 2, "--runs", 1, "--ckpt_path", "x"], "--ckpt_path and --runs both select"),
        (["--table", 3], "python main.py --dataset ucfcrime --runs 10 --sweep nu=2,4,6"),
        (["--table", 8, "--ckpt_path", "x"], "python test2.py --dataset ucfcrime --ckpt_path"),
        (["--runs", 0], "--runs must be 1 or more"),
        (["--table", 1, "--timeline", "--ckpt_path", "x"], "--table and --timeline make different results"),
        (["--timeline", "--video", "x", "--ckpt_path", "x"], "--timeline and --video make different results"),
        (["--video", "x.mp4", "--ckpt_path", "x", "y"], "--video takes one checkpoint, but --ckpt_path names 2"),
    ],
)
def test_impossible_table_names_the_needed_command(evaluate, flags, message):
    code, _, err = evaluate(*flags)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_runs_that_cannot_be_averaged_are_refused(evaluate, checkpoint, tmp_path):
    one, other = checkpoint("a"), checkpoint("b", 1, nu=4.0)
    assert "has nu 8.0" in evaluate("--table", 1, "--ckpt_path", one, other)[2]
    assert "both the run with seed 0" in evaluate("--table", 1, "--ckpt_path", one, checkpoint("c"))[2]
    code, _, err = evaluate("--ckpt_path", one, tmp_path / "ck" / "c.pth")  # also refused without a table of the paper
    assert code == 2 and "both the run with seed 0" in err and "scoring" not in err
    unknown = checkpoint("unknown", seed=None)
    assert "are both the same file" in evaluate("--table", 1, "--ckpt_path", unknown, unknown)[2]  # without seeds
    stream = checkpoint("s", modality="event")
    assert "Table 1 compares fused models" in evaluate("--table", 1, "--ckpt_path", stream)[2]


def test_missing_embeddings_name_the_commands_to_run(command, tiny, checkpoint, tmp_path):
    flags = ["--ckpt_path", checkpoint("a"), "--table", 1, "--figure_dir", tmp_path]
    code, _, err = command("test", "--dataset", "xd", "--list_root", tmp_path / "none", *flags)
    assert code == 2 and len(err.strip().splitlines()) == 1
    for script in ("extracting/gen.py", "list/generate_file.py", "list/generate_gt.py"):
        assert f"python {script} --dataset xd" in err
    (tmp_path / "empty").mkdir()
    code, _, err = command("test", *tiny.flags, "--feature_root", tmp_path / "empty", *flags)
    assert code == 2 and "no embeddings of UCF-Crime here" in err and "extracting/gen.py" in err
