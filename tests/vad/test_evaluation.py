"""Opening checkpoints and test sets, their notes, and the protocol of a result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from model import IEFVAD, CheckpointError, read_checkpoint, save_checkpoint
from model.checkpoint import to_released_name
from vad import evaluation
from vad.datasets import load_dataset
from vad.evaluation import (
    NETWORK_OPTIONS,
    Protocol,
    open_checkpoint,
    open_run,
    open_runs,
    open_test_set,
    preparation_commands,
    save_results,
    shared_protocol,
)
from vad.files import InputError, sha256
from vad.options import resolve

CPU = torch.device("cpu")
UCF = load_dataset("ucfcrime")


@pytest.fixture
def places(tiny) -> dict[str, object]:
    """Options with the folders of the tiny data set."""
    return {"feature_root": str(tiny.root), "list_root": str(tiny.lists)}


@pytest.fixture
def open_set(places) -> Callable[..., object]:
    """Function that opens the test set of the tiny data set with additional options."""
    return lambda **more: open_test_set(resolve({**places, **more}), UCF)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Function that saves an untrained model like a finished run; explicit: options of the run."""

    def write(name: str = "a", explicit: dict[str, object] | None = None, width: int = 16, **extra: object) -> Path:
        options = resolve({"num_refinement_steps": 1, **(explicit or {})})
        torch.manual_seed(0)
        model = IEFVAD(embed_dim=width, modality=options.modality, **options.group("model"))
        content = {"options": options.recorded(), "seed": 3, "weights": "last", **extra}
        save_checkpoint(tmp_path / f"{name}.pth", model, **content)
        return tmp_path / f"{name}.pth"

    return write


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """An untrained model in the form of a released file: only tensors, under the released names."""
    torch.manual_seed(0)
    state = IEFVAD(embed_dim=16, num_refinement_steps=2, temporal_update="none").state_dict()
    torch.save({to_released_name(name): tensor for name, tensor in state.items()}, tmp_path / "ucf.pth")
    return tmp_path / "ucf.pth"


def opened(path: Path, places: dict[str, object], **explicit: object):
    return open_run(path, {**places, **explicit}, CPU, {})


# test sets


def test_test_set_follows_the_list_and_its_ground_truth(open_set, tiny) -> None:
    test = open_set()
    listed = [line.split("/")[-1].split("__")[0] for line in (tiny.lists / "test.csv").read_text().splitlines()[1:]]
    assert [video.name for video in test.videos] == listed and test.widths == {"image": 16, "event": 16}
    truth = np.concatenate([video.frame_labels for video in test.videos])
    np.testing.assert_array_equal(truth, np.load(tiny.lists / "gt.npy"))
    assert [len(video.frame_labels) for video in test.videos] == [16 * video.snippets for video in test.videos]
    line = test.protocol("last").line()
    assert "split not recorded" in line  # these eight videos are no split of UCF-Crime
    assert "8 test videos" in line and "tail: not recorded" in line and "test crop 5" in line


def test_training_videos_of_the_test_split_are_noted(open_set, tiny) -> None:
    note = "The training list contains 2 test videos of the official split (Fighting003_x264, Arson009_x264)."
    assert open_set().footnotes == (note,)
    assert note in open_set().protocol("last").notes()
    train = tiny.lists / "train.csv"
    train.write_text(train.read_text().replace("Fighting003", "Fighting004") + "no row\n")
    # an evaluation ignores the damaged row of the training list
    assert open_set().footnotes == ("The training list contains 1 test video of the official split (Arson009_x264).",)
    train.unlink()
    assert open_set().footnotes == ()


def test_further_crops_are_read_beside_the_listed_one(open_set, tiny) -> None:
    for stream in ("rgb", "event_thr_10"):
        for path in list((tiny.root / stream).rglob("*__5.npy")):
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path))
    test = open_set(test_crops=(0, 5))
    assert [[crop.crop for crop in video.crops] for video in test.videos] == [[0, 5]] * 8
    assert len(test.crops) == 16 and "test crops 0, 5" in test.protocol("last").line()
    for stream in ("rgb", "event_thr_10"):
        path = tiny.path(stream, "Arson013_x264", "Arson")
        np.save(path.with_name("Arson013_x264__0.npy"), np.load(path)[1:])
    with pytest.raises(
        InputError, match=r"crops of Arson013_x264 differ in length \(crop 0: \d+, crop 5: \d+ snippets\)"
    ):
        open_set(test_crops=(0, 5))


def test_wrong_ground_truth_is_refused(open_set, tiny) -> None:
    gt = tiny.lists / "gt.npy"
    truth = np.load(gt)
    np.save(gt, truth[:-16])
    with pytest.raises(InputError, match=f"{len(truth) - 16} frames, but the 8 test videos have {len(truth)}"):
        open_set()
    np.save(gt, np.zeros_like(truth))
    with pytest.raises(InputError, match=r"videos contradict annotations\.csv .*--insist_gt"):
        open_set()
    open_set(insist_gt=True)
    gt.unlink()
    with pytest.raises(InputError, match=r"gt\.npy: there is no ground truth"):
        open_set()


def test_missing_files_are_reported_with_commands(places, tmp_path: Path) -> None:
    scripts = ("extracting/gen.py", "list/generate_file.py", "list/generate_gt.py")
    no_lists = {**places, "dataset": "xd", "list_root": str(tmp_path / "none")}
    with pytest.raises(InputError, match=r"test\.csv: there is no such list") as caught:
        open_test_set(resolve(no_lists), load_dataset("xd"))
    for script in scripts:
        assert f"python {script} --dataset xd" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no embeddings of UCF-Crime here"):
        open_test_set(resolve({**places, "feature_root": str(tmp_path / "empty")}), UCF)
    with pytest.raises(InputError, match="--feature_root nowhere is not a folder"):
        open_test_set(resolve({**places, "feature_root": "nowhere"}), UCF)
    demo = load_dataset("demo")
    assert preparation_commands(demo) == "python -m demo --dataset demo"
    own = replace(demo, custom=True, path=Path("small/dataset.toml"))
    assert preparation_commands(own) == "python -m demo --folder small"


@pytest.fixture
def custom(tiny, tmp_path: Path) -> Path:
    """TOML file that describes the tiny data set as a custom one, with metadata of its ground truth."""
    lists = {side: (tiny.lists / f"{side}.csv").read_text().splitlines()[1:] for side in ("train", "test")}
    rows, videos, start = [], [], 0
    truth = np.load(tiny.lists / "gt.npy")
    for side, lines in lists.items():
        for line in lines:
            path, label = line.split(",")
            name, frames = Path(path).stem.split("__")[0], 16 * len(np.load(tiny.root / path))
            marked = np.flatnonzero(truth[start : start + frames]) if side == "test" else np.array([])
            start += frames if side == "test" else 0
            interval = f"{marked[0]}-{marked[-1] + 1}" if len(marked) else ""
            rows.append(f"{name},{label},{side},{interval}")
            if side == "test":
                videos.append({"name": name, "frames": frames})
    (tmp_path / "annotations.csv").write_text("\n".join(["video,label,official,intervals", *rows]) + "\n")
    record = {"videos": videos, "tail": "whole", "sha256": sha256(tiny.lists / "gt.npy")}
    (tiny.lists / "gt.json").write_text(json.dumps(record))
    folders = f'[folders]\nembeddings = "{tiny.root}"\nlists = "{tiny.lists}"\n'
    text = 'name = "street"\nnormal = "Normal"\nclasses = ["Arson", "Fighting"]\n'
    (tmp_path / "street.toml").write_text(text + folders)
    return tmp_path / "street.toml"


def test_custom_data_set_reports_its_split_and_tail(custom: Path, tiny) -> None:
    options = resolve({"dataset": str(custom), "feature_root": str(tiny.root)})
    test = open_test_set(options, load_dataset(str(custom)))
    line = test.protocol("last").line()
    assert "street · official split · 8 test videos" in line and "tail: every whole snippet" in line
    assert test.footnotes == () and test.protocol("last").notes() == []  # there is no released split
    assert f"--dataset {custom}" in preparation_commands(test.dataset)
    (custom.parent / "annotations.csv").unlink()  # an evaluation needs only lists and ground truth
    test = open_test_set(options, load_dataset(str(custom)))
    assert test.split is None and test.protocol("last").notes() == []


@pytest.mark.parametrize("tail", ["custom rule", None, ["whole"]])
def test_unknown_tail_rule_counts_as_not_recorded(custom: Path, tiny, tail: object) -> None:
    record = json.loads((tiny.lists / "gt.json").read_text())
    (tiny.lists / "gt.json").write_text(json.dumps({**record, "tail": tail}))
    options = resolve({"dataset": str(custom), "feature_root": str(tiny.root)})
    assert "tail: not recorded" in open_test_set(options, load_dataset(str(custom))).protocol("last").line()


# checkpoints


def test_run_has_the_options_of_its_training(checkpoint, places) -> None:
    run = opened(checkpoint(explicit={"nu": 4.0, "mil": "segment", "profile": "paper", "test_crops": (5,)}), places)
    assert (run.options.nu, run.options.mil, run.options.profile) == (4.0, "segment", "paper")
    assert (run.model.config.nu, run.model.config.num_refinement_steps) == (4.0, 1)
    assert (run.seed, run.weights, run.modality, run.notes) == (3, "last", "fusion", ())
    assert "profile paper" in run.test.protocol(run.weights).line()
    assert run.dataset is UCF and len(run.videos) == 8


def test_flag_overrides_the_checkpoint_and_is_noted(checkpoint, places) -> None:
    path = checkpoint(explicit={"nu": 8.0})
    run = opened(path, places, nu=4.0, padding="attended")
    assert (run.model.config.nu, run.model.config.padding, run.options.nu) == (4.0, "attended", 4.0)
    assert run.notes == (
        f"{path} was trained with nu 8.0 and is evaluated with 4.0",
        f"{path} was trained with padding masked and is evaluated with attended",
    )
    assert opened(path, places, nu=8.0).notes == ()
    assert {"nu", "padding"} <= set(NETWORK_OPTIONS) and "num_refinement_steps" not in NETWORK_OPTIONS


def test_profile_replaces_all_options_but_the_shapes(checkpoint, places) -> None:
    path = checkpoint(explicit={"nu": 4.0, "mil": "segment", "epsilon_placement": "sum"})
    run = opened(path, places, profile="paper", test_crops=(5,))
    assert (run.options.nu, run.options.epsilon_placement) == (8.0, "weights")
    assert run.model.config.temporal_update == "paper"
    assert run.model.config.num_refinement_steps == run.options.num_refinement_steps == 1
    assert run.notes == (f"{path} was trained with profile default and is evaluated with profile paper",)


def test_released_file_gets_the_released_profile(released: Path, places) -> None:
    run = opened(released, places)
    assert run.options.profile == "released" and run.weights == "released" and run.seed is None
    config = run.model.config
    assert (config.temporal_update, config.padding, config.epsilon_placement) == ("none", "attended", "sum")
    assert run.options.num_refinement_steps == 2 and run.notes == ()
    protocol = run.test.protocol(run.weights)
    assert "selected on the test set by its authors" in protocol.line() and protocol.mark == "†"
    with pytest.raises(CheckpointError, match="trained without a learned process noise"):
        opened(released, places, profile="default")
    paper = opened(released, places, temporal_update="paper")
    assert paper.model.config.temporal_update == "paper" and paper.notes


def test_checkpoint_of_another_width_is_refused(checkpoint, places, tiny) -> None:
    with pytest.raises(
        InputError, match=r"a\.pth is a model for image embeddings of width 32, but those of .* have width 16"
    ):
        opened(checkpoint(width=32), places)


def test_infinite_embedding_is_refused_by_name(checkpoint, places, tiny) -> None:
    path = tiny.path("event_thr_10", "Fighting015_x264", "Fighting")
    x = np.load(path)
    x[1, 2] = np.inf
    np.save(path, x)
    run = opened(checkpoint(), places)
    with pytest.raises(InputError, match=r"Fighting015_x264__5\.npy has infinite values in 1 of its \d+ snippets"):
        _ = run.videos


def test_streams_of_fused_checkpoints_are_evaluated(checkpoint, places, monkeypatch) -> None:
    paths, count = [checkpoint("a"), checkpoint("b")], []
    real = evaluation.open_test_set
    monkeypatch.setattr(evaluation, "open_test_set", lambda *args: count.append(1) or real(*args))
    runs = open_runs(paths, places, CPU, streams=True)
    assert len(count) == 3  # one per modality, shared by both checkpoints
    assert [run.modality for run in runs] == ["fusion"] * 2 + ["image"] * 2 + ["event"] * 2
    assert runs[0].test is runs[1].test and runs[2].test is runs[3].test
    assert list(runs[2].test.crops[0].streams) == ["image"]
    assert runs[0].notes == () and "two streams of the fused model" in runs[2].notes[0]
    assert len(open_runs(paths, {**places, "modality": "image"}, CPU, streams=True)) == 2
    event = checkpoint("c", {"modality": "event"})
    assert [run.modality for run in open_runs([paths[0], event], places, CPU, streams=True)] == ["fusion", "event"]


def test_checkpoints_of_two_data_sets_are_refused(checkpoint, places, custom: Path, tiny) -> None:
    paths = [checkpoint("a"), checkpoint("b", {"dataset": str(custom)})]
    with pytest.raises(InputError, match=r"were trained on ucfcrime and street.*--dataset"):
        open_runs(paths, places, CPU)
    runs = open_runs(paths, {**places, "dataset": "ucf"}, CPU)
    assert runs[1].notes == (f"{paths[1]} was trained on street and is evaluated on ucfcrime",)


def test_checkpoint_of_an_earlier_version_is_opened(tmp_path: Path, places) -> None:
    settings = {
        "dataset": "ucfcrime", "profile": "default", "typed": (),
        "switches": {"num_refinement_steps": 1, "nu": 4.0}, "recipe": {"scheduler_milestones": [1, 2]},
    }  # fmt: skip
    model = IEFVAD(embed_dim=16, num_refinement_steps=1, nu=4.0, modality="image")
    save_checkpoint(tmp_path / "old.pth", model, settings=settings, seed=1, weights="best")
    run = opened(tmp_path / "old.pth", places)
    assert (run.modality, run.options.nu, run.model.config.nu, run.weights) == ("image", 4.0, 4.0, "best")
    _, _, content, _ = open_checkpoint(tmp_path / "old.pth", places)
    assert content["form"] == read_checkpoint(tmp_path / "old.pth")["form"] == "ours"


# protocol and files


def protocol(**changes: object) -> Protocol:
    return replace(Protocol(load_dataset("xd"), "default", "official", (5,), "last", "whole"), **changes)


def test_protocol_line_omits_the_given_fields() -> None:
    assert protocol(videos=800, runs=1).line() == (
        "XD-Violence · official split · 800 test videos · profile default · noise model StudentT · test crop 5 · "
        "1 run · weights of the last epoch · AP is average_precision_score · Ano-AUC: abnormal videos only · "
        "tail: every whole snippet"
    )
    line = protocol(runs=3, split=None, test_crops=(0, 5)).line(omit=("dataset", "AP", "ano_auc", "tail", "weights"))
    assert line == "split not recorded · profile default · noise model StudentT · test crops 0, 5 · 3 runs"


def test_dagger_marks_weights_selected_on_the_test_set() -> None:
    marks = {w: protocol(weights=w).mark for w in ("last", "given", "several", "best", "released", "mixed")}
    assert [w for w, mark in marks.items() if mark == "†"] == ["best", "released", "mixed"]
    assert protocol(weights="best").notes()[0] == "†: these weights were selected by their score on the test videos."
    assert protocol(weights="mixed").notes()[0].startswith("†: some of these weights")


def test_split_sizes_are_noted_beside_the_paper() -> None:
    note = "The official split has 800 test videos, the authors' released lists 753."
    assert protocol(footnotes=("odd",)).notes() == ["odd", note]
    assert protocol().notes(beside_paper=False) == []
    assert protocol(dataset=UCF).notes() == []  # 290 in both
    assert "this tests the pipeline, not the accuracy" in protocol(dataset=load_dataset("demo")).notes()[0]


def test_shared_protocol_describes_all_runs(checkpoint, places) -> None:
    paths = [checkpoint("a"), checkpoint("b", weights="best"), checkpoint("c", weights="given")]
    runs = open_runs(paths, {**places, "nu": 4.0}, CPU)
    assert shared_protocol(runs[:1]).weights == "last"
    assert shared_protocol(runs[::2]).weights == "several"
    shared = shared_protocol(runs, 3, ["More."])
    assert (shared.weights, shared.runs) == ("mixed", 3)
    trained = [f"{path} was trained with nu 8.0 and is evaluated with 4.0." for path in paths]
    assert shared.footnotes[:4] == (*trained, "More.")


def test_saved_results_include_their_provenance(checkpoint, places, tmp_path: Path) -> None:
    run = opened(checkpoint(), places)
    vars(run)["classes"] = {**run.classes, "Abuse": math.nan}  # a class with an undefined metric
    save_results([run], tmp_path / "out", "t_")
    scores = pd.read_csv(tmp_path / "out" / "t_scores.csv")
    assert list(scores.columns) == [
        "checkpoint", "video", "label", "first_frame", "score", "weight_image", "weight_event", "anomalous_frames",
    ]  # fmt: skip
    first = run.videos[0]
    rows = scores[scores.video == first.name]
    assert rows.first_frame.tolist() == [16 * k for k in range(len(first.scores))]
    np.testing.assert_allclose(rows.score, first.scores, rtol=1e-5)
    assert scores.anomalous_frames.sum() == sum(int(v.frame_labels.sum()) for v in run.videos)
    (result,) = json.loads((tmp_path / "out" / "t_results.json").read_text())["runs"]
    assert (result["checkpoint"], result["seed"], result["weights"]) == ("a.pth", 3, "last")
    assert result["options"]["num_refinement_steps"] == 1 and len(result["sha256"]) == 64
    assert result["metrics"]["AUC"] == run.metrics["AUC"]
    low, high = result["intervals_95"]["AUC"]
    assert 0 <= low <= result["metrics"]["AUC"] <= high <= 1
    assert list(result["classes"]) == ["Arson", "Fighting", "Abuse"] and result["classes"]["Abuse"] is None
