"""Many runs through the door: same numbers whatever --jobs is, nothing repeated, failures reported."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

QUICK = ["--max_epoch", "2", "--batch_size", "4", "--num_refinement_steps", "1", "--lr", "0.003", "--exp_name", "x"]


@pytest.fixture
def train(tiny, door):
    """main.py in this process, its runs in their own; results go to folder/ck and folder/fig."""

    def run(folder: Path, *flags: str) -> tuple[int, str, str]:
        places = ["--checkpoint_dir", folder / "ck", "--figure_dir", folder / "fig", "--device", "cpu"]
        return door("main", *tiny.flags, *QUICK, *places, *flags)

    return run


def runs(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "ck" / "x_runs.csv").set_index("run").sort_index()


def test_jobs_change_no_number_and_what_is_finished_is_not_repeated(train, tmp_path):
    flags = ["--sweep", "nu=2,8", "--runs", "2"]
    code, _, err = train(tmp_path / "one", *flags, "--jobs", "1")
    assert code == 0, err
    code, _, err = train(tmp_path / "four", *flags, "--jobs", "4")
    assert code == 0, err
    names = ["x_nu=2_seed0", "x_nu=2_seed1", "x_seed0", "x_seed1"]
    same = [column for column in runs(tmp_path / "one").columns if column not in ("seconds", "command")]
    assert runs(tmp_path / "one").index.tolist() == names
    pd.testing.assert_frame_equal(runs(tmp_path / "one")[same], runs(tmp_path / "four")[same])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "four" / "ck").glob("*.pth")}
    lost = tmp_path / "four" / "ck" / "x_nu=2_seed1.pth"
    lost.unlink()
    code, out, err = train(tmp_path / "four", *flags, "--jobs", "2")
    assert code == 0 and "4 runs, 3 of them trained already" in out, err
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "four" / "ck").glob("*.pth")}
    assert {path for path in before if after[path] != before[path]} == {lost, lost.with_stem("x_nu=2_seed1_best")}
    pd.testing.assert_frame_equal(runs(tmp_path / "four")[same], runs(tmp_path / "one")[same])
    # another sweep meets the same run at the value that is in force anyway
    code, out, err = train(tmp_path / "four", "--sweep", "mil=topk,segment", "--format", "csv")
    assert code == 0 and "2 runs, 1 of them trained already" in err
    assert out.strip().splitlines()[-2].startswith("topk,1,") and out.startswith("# ")  # the table and nothing else
    assert len(runs(tmp_path / "four")) == 5
    assert (tmp_path / "four" / "fig" / "x" / "sweep_mil.png").stat().st_size > 5_000


def test_a_run_that_fails_is_reported_and_the_others_are_tabled(train, tmp_path):
    assert train(tmp_path, "--runs", "1", "--dropout", "0.5")[0] == 0
    # seed 0 is there with other settings, which is no reason to overwrite it
    code, out, err = train(tmp_path, "--runs", "2", "--jobs", "2")
    assert code == 1
    assert "x_seed0 failed (exit code 2)" in out and "was trained with dropout 0.5, not 0.1" in out
    assert "1 of 2 runs failed" in out and "one run each, seed 1" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sweep", "gamma=1"], "unknown name; known are modality"),
        (["--sweep", "nu=0,8"], "nu must be positive"),
        (["--runs", "0"], "--runs must be 1 or more"),
        (["--runs", "2", "--jobs", "0"], "--jobs must be 1 or more"),
    ],
)
def test_a_plan_that_makes_no_sense_trains_nothing(train, tmp_path, flags, sentence):
    code, _, err = train(tmp_path, *flags)
    assert code == 2 and sentence in err.strip().splitlines()[-1]
    assert not (tmp_path / "ck").exists()


def test_two_tables_of_runs_are_compared_from_the_command_line(train, door, tmp_path):
    assert train(tmp_path, "--runs", "2", "--sweep", "mil=topk,segment", "--exp_name", "folder/x")[0] == 0
    table = tmp_path / "ck" / "folder" / "x_runs.csv"
    code, out, err = door("main", "--compare", f"{table}:mil=topk", f"{table}:mil=segment")
    assert code == 0, err
    assert "differs: mil topk → segment" in out and "2 pairs cannot reach" in out.replace("\n  ", " ")


def test_ctrl_c_names_the_command_that_continues_and_not_the_one_that_starts_all_again(train, tmp_path, monkeypatch):
    def stopped(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("vad.experiments.run_commands", stopped)
    code, _, err = train(tmp_path, "--runs", "2")
    assert code == 130 and "the same command continues from there" in err
    code, _, err = train(tmp_path, "--runs", "2", "--overwrite")
    assert code == 130 and "stopped: the same command without --overwrite continues from there" in err


def test_to_resume_and_to_overwrite_exclude_each_other(train, tmp_path):
    code, _, err = train(tmp_path, "--resume", "--overwrite")
    assert code == 2 and "argument --overwrite: not allowed with argument --resume" in err
