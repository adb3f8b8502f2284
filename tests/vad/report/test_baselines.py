"""Baselines beside every table, and data sets whose runs each have their own split."""

from __future__ import annotations

import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from vad.datasets import load_dataset
from vad.evaluation import open_test_set
from vad.files import InputError
from vad.options import resolve
from vad.report.baselines import LABELS, LARGEST, SUM, SUPERVISED, baseline_table, baselines
from vad.report.tables import average_splits

ROOT = Path(__file__).resolve().parents[3]
TOML = """
name = "walk"
normal = "Normal"
encoder = "tiny"
window = 32
split_per_run = true
classes = ["Odd"]
[training]
batch_size = 2
lr = 1e-3
max_epoch = 2
pca = 8
"""


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    """Return the TOML of a data set of 16 videos in two splits, with lists, ground truth and event maps."""
    root = tmp_path_factory.mktemp("walk")
    (root / "dataset.toml").write_text(TOML)
    rng, rows = np.random.default_rng(0), ["video,label,a,b,frames,intervals"]
    for k in range(16):
        label, S = ("Normal", "Odd")[k % 2], int(rng.integers(4, 9))
        rows.append(f"v{k:02d},{label},{('train', 'test')[k < 8]},{('test', 'train')[k < 8]},{16 * S},"
                    f"{'16-48' if k % 2 else ''}")  # fmt: skip
        maps = rng.integers(0, 3, (S, 256, 340), dtype=np.uint8)
        for folder in ("rgb", "event_thr_10"):
            x = rng.standard_normal((S, 16)).astype(np.float32)
            if k % 2:
                x[1:3] += 1
                maps[1:3, 32:48, 20:40] += 3
            (root / folder / label).mkdir(parents=True, exist_ok=True)
            np.save(root / folder / label / f"v{k:02d}__5.npy", x)
        np.savez_compressed(root / "event_thr_10" / label / f"v{k:02d}__events.npz", counts=maps)
    (root / "annotations.csv").write_text("\n".join(rows) + "\n")
    for script in ("generate_file", "generate_gt"):
        run_script(script, "--dataset", str(root), *(["--base_path", str(root / "rgb")] * (script == "generate_file")))
    return root / "dataset.toml"


def run_script(name: str, *flags: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"list/{name}.py", *flags])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "list" / f"{name}.py"), run_name="__main__")
    assert not stopped.value.code


def open_split(walk: Path, seed: int = 0, **more):
    options = resolve({"dataset": str(walk), "seed": seed, **more})
    return open_test_set(options, load_dataset(str(walk)))


def frames(test, scores) -> tuple[np.ndarray, np.ndarray]:
    """Return frame labels and frame scores, by plain repetition."""
    labels = np.concatenate([video.frame_labels for video in test.videos])
    return labels, np.concatenate([np.repeat(values, 16) for values in scores])


def test_each_run_has_its_own_split(walk):
    """Run k tests on the k-th split column; the third run has the first split again."""
    names = [{video.name for video in open_split(walk, seed).videos} for seed in range(3)]
    assert names[0] == names[2] == {f"v{k:02d}" for k in range(8, 16)} ^ {f"v{k:02d}" for k in range(16)}
    assert names[1] == {f"v{k:02d}" for k in range(8, 16)}
    assert open_split(walk, 1).split == "b"
    # another profile must not test a run on another split than its own
    assert resolve({"dataset": str(walk), "profile": "paper"}, {"split": "b"}).split == "b"
    assert resolve({"dataset": str(walk)}, {"split": "official"}).split == "a"  # a checkpoint of another data set
    explicit = resolve({"dataset": str(walk), "seed": 1, "split": "a"})
    assert explicit.split == "a"  # a flag wins


def test_baselines_equal_plain_code(walk):
    test = open_split(walk)
    found = baselines(test)
    folder = walk.parent
    for name, scores in (
        (LABELS, [np.full(v.snippets, float(v.label == "Odd")) for v in test.videos]),
        (SUM, [np.load(_maps(folder, v))["counts"].sum((1, 2), dtype=int) for v in test.videos]),
        (LARGEST, [_largest(np.load(_maps(folder, v))["counts"]) for v in test.videos]),
    ):
        labels, values = frames(test, scores)
        assert found[name]["AUC"] == pytest.approx(roc_auc_score(labels, values), abs=1e-12), name
        assert found[name]["AP"] == pytest.approx(average_precision_score(labels, values), abs=1e-12), name
        odd = np.concatenate([np.full(16 * v.snippets, v.label == "Odd") for v in test.videos])
        assert found[name]["Ano-AUC"] == pytest.approx(roc_auc_score(labels[odd], values[odd]), abs=1e-12), name
    assert found[LARGEST]["AUC"] == pytest.approx(1)  # the planted cell


def _maps(folder: Path, video) -> Path:
    return folder / "event_thr_10" / video.label / f"{video.name}__events.npz"


def _largest(maps: np.ndarray) -> list[int]:
    return [
        max(int(one[r : r + 16, c : c + 20].sum()) for r in range(0, 256, 16) for c in range(0, 340, 20))
        for one in maps
    ]


def test_supervised_baseline_trains_on_the_training_videos_alone(walk):
    test = open_split(walk)
    x, y = [], []
    for k in range(8, 16):  # the training videos of the first split
        label = ("Normal", "Odd")[k % 2]
        both = [np.load(walk.parent / s / label / f"v{k:02d}__5.npy") for s in ("rgb", "event_thr_10")]
        x.append(np.hstack(both))
        y += [k % 2 and 1 <= s < 3 for s in range(len(both[0]))]
    x = np.vstack(x)
    mean, std = x.mean(0), x.std(0)
    model = LogisticRegression(C=0.01, max_iter=1000).fit((x - mean) / std, y)
    scores = []
    for video in test.videos:
        both = [np.load(walk.parent / s / video.label / f"{video.name}__5.npy") for s in ("rgb", "event_thr_10")]
        scores.append(model.predict_proba((np.hstack(both) - mean) / std)[:, 1])
    labels, values = frames(test, scores)
    assert baselines(test)[SUPERVISED]["AUC"] == pytest.approx(roc_auc_score(labels, values), abs=1e-3)


def test_missing_maps_and_labels_are_named_with_the_command(walk, tmp_path):
    test = open_split(walk)
    moved = [
        replace(v, crops=tuple(replace(c, streams={**c.streams, "event": tmp_path / "x__5.npy"}) for c in v.crops))
        for v in test.videos
    ]
    without = replace(test, videos=moved, train_list=tmp_path / "none.csv")
    found = baselines(without)
    assert math.isnan(found[SUM]["AUC"]) and math.isnan(found[SUPERVISED]["AUC"]) and found[LABELS]["AUC"] > 0.5
    notes = " ".join(baseline_table([without], without.protocol("last")).notes)
    assert "there are no event maps. Make them: python extracting/gen.py" in notes and "--save_events" in notes
    assert "the training videos or their anomalous frames are missing" in notes


@pytest.mark.parametrize("line", ["", "rgb/Odd/gone__5.npy,Odd\n"])
def test_evaluation_does_not_need_the_training_videos(walk, tmp_path, line):
    """Reviewers extract the test videos alone: the training list is then empty, or names missing files."""
    (tmp_path / "train.csv").write_text("path,label\n" + line)
    found = baselines(replace(open_split(walk), train_list=tmp_path / "train.csv"))
    assert math.isnan(found[SUPERVISED]["AUC"]) and found[LABELS]["AUC"] > 0.5


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated"])
def test_damaged_maps_are_refused(walk, tmp_path, content):
    test = open_split(walk)
    crop = test.videos[0].crops[0]
    (tmp_path / "x__events.npz").write_bytes(content)
    bad = replace(test.videos[0], crops=(replace(crop, streams={**crop.streams, "event": tmp_path / "x__5.npy"}),))
    with pytest.raises(InputError, match=r"x__events.npz: no readable event maps .* --save_events"):
        baselines(replace(test, videos=[bad]))
    np.savez(tmp_path / "x__events.npz", counts=np.zeros((bad.snippets + 1, 256, 340), np.uint8))
    with pytest.raises(InputError, match="event maps, but the embedding has"):
        baselines(replace(test, videos=[bad]))


def test_table_has_mean_and_std_over_splits(walk):
    tests = [open_split(walk, seed) for seed in range(2)]
    table = baseline_table(tests, tests[0].protocol("last"))
    values = [100 * baselines(test)[SUM]["AUC"] for test in tests]
    row = next(line for line in table.lines if line[0] == SUM)
    assert row[1] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_seeds_of_a_split_are_averaged():
    runs = pd.DataFrame({"modality": ["image"] * 4, "seed": [0, 1, 2, 3], "AUC": [0.1, 0.2, 0.3, 0.6]})
    averaged = average_splits(runs, ["a", "b", "a", "b"])
    assert averaged.AUC.tolist() == pytest.approx([0.2, 0.4]) and averaged.seed.tolist() == [0, 1]


def test_training_and_evaluation_follow_the_split(walk, command, tmp_path):
    """Two seeds on each of two splits give a table of two splits, and test.py opens each run's own split."""
    flags = ["--dataset", str(walk), "--checkpoint_dir", str(tmp_path), "--figure_dir", str(tmp_path / "figure")]
    code, out, err = command("main", *flags, "--runs", 4, "--jobs", 1)
    assert code == 0, err
    assert "2 random splits, one per run" in out and "mean ± std over splits 0, 1" in out and LABELS in out
    log = pd.read_csv(tmp_path / "walk_runs.csv")
    assert log.split.tolist() == ["a", "b", "a", "b"] and (log.pca == 8).all()
    code, out, err = command("test", *flags, "--runs", 4)
    assert code == 0, err
    row = next(line for line in out.splitlines() if line.startswith("fusion  "))
    expected = log.groupby("split").AUC.mean() * 100
    assert f"{expected.mean():.2f} ± {expected.std():.2f}" in row


def test_few_steps_and_too_many_components_are_named(walk, command, tmp_path):
    flags = ["--dataset", str(walk), "--checkpoint_dir", str(tmp_path), "--figure_dir", str(tmp_path / "figure")]
    code, out, err = command("main", *flags)
    assert code == 0 and "warning: fewer than 100 steps train little. Raise --max_epoch" in out, err
    code, _, err = command("main", *flags, "--pca", 999, "--exp_name", "many")
    assert code == 2 and "--pca 999 is too large: the training videos have" in err
