"""Seeds and sweeps: plans, run names, parallel training, failures, and the table of runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from model import ConfigError
from vad.experiments import find_runs, parse_sweeps, plan_runs, read_runs, short_name, spread_note, write_rows
from vad.files import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = ["--max_epoch", "2", "--batch_size", "4", "--num_refinement_steps", "1", "--lr", "0.003", "--exp_name", "x"]
BASE = {"dataset": "ucfcrime"}


# plans


def names(*sweeps: str, **explicit: object) -> list[str]:
    return [run.name.removesuffix("_seed0") for run in plan_runs({**BASE, **explicit}, sweeps, None)]


def test_grid_varies_the_last_sweep_fastest():
    assert names("nu=2,8", "mil=topk,segment") == [
        "ucfcrime_nu=2", "ucfcrime_nu=2_mil=segment", "ucfcrime", "ucfcrime_mil=segment",
    ]  # fmt: skip


def test_default_values_do_not_change_the_run_name():
    plan = plan_runs(BASE, ["nu=8,2"], None)
    assert [(run.name, run.is_base) for run in plan] == [("ucfcrime_seed0", True), ("ucfcrime_nu=2_seed0", False)]
    # a value set by the profile changes nothing with this profile
    assert names("profile=default,paper", "mil=segment") == ["ucfcrime_mil=segment", "ucfcrime_profile=paper"]


def test_modality_and_noise_model_have_short_names():
    assert names("modality=image,fusion") == ["ucfcrime_image", "ucfcrime"]
    assert names("noise_model=Gaussian,StudentT") == ["ucfcrime_gaussian", "ucfcrime"]


def test_run_names_are_short_and_valid_file_names():
    assert names("N=0,10") == ["ucfcrime_N=0", "ucfcrime"] and short_name("num_refinement_steps") == "N"
    assert names("epsilon=1e-4") == ["ucfcrime_epsilon=0.0001"]
    assert names("scheduler_milestones=4+8,2+6") == ["ucfcrime", "ucfcrime_scheduler_milestones=2+6"]


def test_loss_sweep_sets_omitted_weights_to_zero():
    plan = plan_runs(BASE, ["loss=cls,cls+reg,cls+kl+reg"], None)
    assert [(run.options.lambda_kl, run.options.lambda_reg) for run in plan] == [(0, 0), (0, 1), (1, 1)]
    assert [run.values["loss"] for run in plan] == ["cls", "cls+reg", "cls+kl+reg"]


def test_plan_is_ordered_by_seed():
    plan = plan_runs({**BASE, "seed": 3}, ["nu=2,8"], 2)
    assert [run.name for run in plan] == [
        "ucfcrime_nu=2_seed3", "ucfcrime_seed3", "ucfcrime_nu=2_seed4", "ucfcrime_seed4",
    ]  # fmt: skip
    assert [run.options.seed for run in plan] == [3, 3, 4, 4]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["nu"], "takes name=value"),
        (["nu="], "takes name=value"),
        (["gamma=1"], "unknown name. Known names: modality"),
        (["nu=x"], "nu 'x': invalid value"),
        (["nu=2,2.0"], "nu: the value 2 is repeated"),
        (["nu=2", "nu=4"], "nu is set twice"),
        (["keep=last,first"], "unknown value. Choose from last, best"),
        (["modality=sound"], "unknown value. Choose from image, event, fusion"),
        (["loss=cls+l2"], r"'cls\+l2' is not one of"),
        (["loss=kl"], "'kl' is not one of"),
        (["loss=cls", "lambda_kl=0,1"], "loss and --sweep lambda_kl both set lambda_kl"),
        (["test_crops=11"], "crops are numbered 0 to 9"),
        (["rollback=yes"], "on or off"),
    ],
)
def test_invalid_sweep_is_refused(texts, message):
    with pytest.raises(InputError, match=message):
        parse_sweeps(texts)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [("nu=8,0", "nu must be positive"), ("mil=topk,best", "mil must be"), ("noise_model=A", "noise_model must be")],
)
def test_invalid_model_option_is_refused_before_any_run(sweep, message):
    with pytest.raises((ConfigError, InputError), match=message):
        plan_runs(BASE, [sweep], None)


# training


@pytest.fixture
def train(tiny, command):
    """Function that calls main.py in this process. Results go to folder/ck and folder/fig."""

    def run(folder: Path, *flags: str) -> tuple[int, str, str]:
        folders = ["--checkpoint_dir", folder / "ck", "--figure_dir", folder / "fig", "--device", "cpu"]
        return command("main", *tiny.flags, *QUICK, *folders, *flags)

    return run


def runs(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "ck" / "x_runs.csv").set_index("run").sort_index()


def test_jobs_do_not_change_results_or_repeat_runs(train, tmp_path):
    flags = ["--sweep", "nu=2,8", "--runs", "2"]
    code, _, err = train(tmp_path / "one", *flags, "--jobs", "1")
    assert code == 0, err
    code, _, err = train(tmp_path / "four", *flags, "--jobs", "4")
    assert code == 0, err
    same = [column for column in runs(tmp_path / "one").columns if column not in ("seconds", "command")]
    assert all((tmp_path / "one" / "fig" / name / "training.png").is_file() for name in runs(tmp_path / "one").index)
    assert runs(tmp_path / "one").index.tolist() == ["x_nu=2_seed0", "x_nu=2_seed1", "x_seed0", "x_seed1"]
    pd.testing.assert_frame_equal(runs(tmp_path / "one")[same], runs(tmp_path / "four")[same])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "four" / "ck").glob("*.pth")}
    deleted = tmp_path / "four" / "ck" / "x_nu=2_seed1.pth"
    deleted.unlink()
    code, out, err = train(tmp_path / "four", *flags, "--jobs", "2")
    assert code == 0 and "4 runs, 2 at a time" in out, err
    assert re.search(r"Spread so far: AUC differs by ± \d+\.\d\d points. To show one point takes about \d+ seeds", out)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "four" / "ck").glob("*.pth")}
    assert {path for path in before if after[path] != before[path]} == {deleted, deleted.with_stem("x_nu=2_seed1_best")}
    pd.testing.assert_frame_equal(runs(tmp_path / "four")[same], runs(tmp_path / "one")[same])
    # another sweep reuses the run at its default value
    code, out, err = train(tmp_path / "four", "--sweep", "mil=topk,segment", "--format", "csv")
    assert code == 0, err
    assert any(line.startswith("topk,1,") for line in out.splitlines()) and out.startswith("# ")  # only tables
    assert len(runs(tmp_path / "four")) == 5
    assert (tmp_path / "four" / "fig" / "x" / "sweep_mil.png").stat().st_size > 5_000


def test_failed_run_is_reported_and_the_others_are_tabled(train, tmp_path):
    assert train(tmp_path, "--runs", "1", "--dropout", "0.5")[0] == 0
    # seed 0 exists with other options and must not be overwritten
    code, out, err = train(tmp_path, "--runs", "2", "--jobs", "2")
    assert code == 1
    assert "x_seed0 failed: " in out and "was trained with dropout 0.5, not 0.1" in out
    assert "1 of 2 runs failed" in out and "one run each, seed 1" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--sweep", "gamma=1"], "unknown name. Known names: modality"), (["--sweep", "nu=0,8"], "nu must be positive"),
     (["--runs", "0"], "--runs must be 1 or more")],
)  # fmt: skip
def test_invalid_plan_trains_nothing(train, tmp_path, flags, message):
    code, _, err = train(tmp_path, *flags)
    assert code == 2 and message in err.strip().splitlines()[-1]
    assert not (tmp_path / "ck").exists()


def children(process: int) -> list[int]:
    """Return the descendants of a process."""
    fields = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    pairs = [(int(pid), int(parent)) for pid, parent in zip(fields[::2], fields[1::2], strict=True)]
    direct = [pid for pid, parent in pairs if parent == process]
    return direct + [pid for child in direct for pid in children(child)]


def alive(process: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_sweep_leaves_no_process(tiny, tmp_path, number):
    folders = ["--checkpoint_dir", tmp_path / "ck", "--figure_dir", tmp_path / "fig", "--device", "cpu"]
    flags = [*tiny.flags, *QUICK, *folders, "--max_epoch", "2000", "--runs", "2", "--jobs", "2"]
    process = subprocess.Popen([sys.executable, ROOT / "main.py", *map(str, flags)], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 90
    while len(list((tmp_path / "ck").glob("x_seed?.pth"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = children(process.pid)
    os.kill(process.pid, number)
    error = process.communicate(timeout=60)[1].decode()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Run the same command again to resume" in error, error
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) >= 2 and not any(map(alive, workers))


# the table of runs


def test_new_row_replaces_the_row_of_the_same_run(tmp_path):
    path = tmp_path / "x_runs.csv"
    row = {"dataset": "d", "profile": "default", "modality": "fusion", "seed": 0, "weights": "last"}
    write_rows(path, [{"run": "a", **row, "AUC": 0.5}, {"run": "b", **row, "AUC": 0.6}])
    write_rows(path, [{"run": "a", **row, "AUC": 0.7, "new": "x"}])
    table = read_runs(path)
    assert table.run.tolist() == ["a", "b"] and table.AUC.tolist() == ["0.7", "0.6"] and table.new.tolist() == ["x", ""]


def test_concurrent_writers_lose_no_row(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from vad.experiments import write_rows\n"
        "row = dict(dataset='d', profile='p', modality='m', seed=0, weights='last')\n"
        "name = 'ab'[os.fork() == 0]\n"  # two concurrent processes
        "for k in range(30): write_rows(Path(sys.argv[1]), [dict(run=f'{name}{k}', **row)])\n"
        "if name == 'a': os.wait()"
    )
    path = tmp_path / "x_runs.csv"
    subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, check=True)
    assert sorted(read_runs(path).run) == sorted(f"{name}{k}" for name in "ab" for k in range(30))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", 'run,"\n'])
def test_invalid_table_of_runs_is_refused(tmp_path, text):
    path = tmp_path / "x_runs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="not a table of runs"):
        read_runs(path)


def test_finished_runs_are_found_with_related_runs(tmp_path):
    explicit = {"dataset": "xd", "checkpoint_dir": str(tmp_path)}
    with pytest.raises(InputError, match=r"xd_seed0.pth: no such run. Train it with .* --dataset xd --runs 2"):
        find_runs(explicit, 2, None)
    for name in ("xd_seed0", "xd_seed1", "xd_image_seed0", "xd_image_seed1"):
        (tmp_path / f"{name}.pth").touch()
    paths, notes = find_runs(explicit, 2, 2)
    assert [path.stem for path in paths] == ["xd_seed0", "xd_seed1", "xd_image_seed0", "xd_image_seed1"]
    assert len(notes) == 1 and "The event runs are missing" in notes[0]
    assert "Train them with python main.py --dataset xd --modality event --exp_name xd_event --runs 2." in notes[0]


def test_each_planned_run_has_the_split_of_its_own_options():
    """A swept profile chooses its split; on UCSD Ped2 the seed does."""
    plan = plan_runs({"dataset": "xd"}, ["profile=default,released"], 2)
    assert [run.options.split for run in plan] == ["official", "released"] * 2
    assert [run.options.split for run in plan_runs({"dataset": "ped2", "seed": 9}, [], 2)] == ["split9", "split0"]


def test_spread_is_that_of_paired_differences(tmp_path):
    """Two seeds of two values: differences of 2 and 6 points have a standard deviation of √8 points."""
    plan, log = plan_runs({"dataset": "demo"}, ["nu=2,8"], 2), tmp_path / "runs.csv"
    assert "After two seeds" in spread_note(plan, log)
    auc = dict(zip([run.name for run in plan], (0.92, 0.90, 0.96, 0.90), strict=True))
    columns = {"dataset": "demo", "profile": "default", "modality": "fusion", "seed": 0, "weights": "last"}
    pd.DataFrame([{"run": name, **columns, "AUC": value} for name, value in auc.items()]).to_csv(log, index=False)
    assert "AUC differs by ± 2.83 points. To show one point takes about 63 seeds." in spread_note(plan, log)
