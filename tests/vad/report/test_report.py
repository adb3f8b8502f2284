"""Reports: incompatible runs are refused; compatible runs are grouped and get intervals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard

from vad.datasets import load_dataset
from vad.evaluation import Protocol, recorded_options, recorded_protocol
from vad.experiments import BEST, SweepResult
from vad.files import InputError
from vad.options import Options, resolve
from vad.report.report import (
    _classes,
    by_modality,
    check_masking_runs,
    check_number,
    check_table,
    count_of,
    log_stream,
    mean_intervals,
    model_card,
    report_sweep,
    runs_frame,
)
from vad.report.tables import varying_options


def run(seed: int | None, path: str = "a.pth", weights: str = "last", **options: object) -> SimpleNamespace:
    """Return a stand-in for the result of `open_run` with the attributes that the checks read."""
    opened = Options(**options)
    return SimpleNamespace(
        path=Path(path), seed=seed, weights=weights, options=opened, modality=opened.modality, metrics={"AUC": 0.5},
        dataset=load_dataset("ucfcrime"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "runs", "sentence"),
    [
        (None, [run(0), run(0, "b.pth")], r"a\.pth and b\.pth are both the run with seed 0\. Name each run once"),
        (1, [run(None), run(None)], r"a\.pth and a\.pth are both the same file"),
        (1, [run(0), run(1, "b.pth", nu=4.0)], r"a\.pth has nu 8\.0, but b\.pth has 4\.0\. Average only runs"),
        (1, [run(0), run(0, "b.pth", "best")], r"a\.pth has weights last, but b\.pth has best"),
        (1, [run(0, modality="event")], r"a\.pth is an event-only model, but Table 1 compares fused models"),
        (2, [run(0), run(0, "b.pth", noise_model="Gaussian")], "Table 2 takes one noise model"),
    ],
)
def test_runs_that_do_not_fit_a_table_are_refused(table: int | None, runs: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_table(table, runs)


def test_table_of_another_command_names_that_command() -> None:
    with pytest.raises(InputError, match=r"python main\.py --dataset xd --runs 10 --sweep loss=cls"):
        check_number(5, "xd")
    with pytest.raises(InputError, match=r"Table 8 is made by another command: python test2\.py --dataset xd"):
        check_number(8, "xd")
    check_number(None, "xd")


def test_runs_that_fit_a_table_pass() -> None:
    """Table 1 takes two seeds of each noise model; Table 2 takes three modalities of one seed."""
    models = [run(seed, noise_model=name) for seed in (0, 1) for name in ("StudentT", "Gaussian")]
    check_table(1, models)
    check_table(2, [run(0, modality=m) for m in ("image", "event", "fusion")])
    check_table(None, [run(0), run(1, nu=4.0)])  # outside the paper's tables runs may differ
    check_table(1, [run(None), run(None, "b.pth")])  # released files do not record their seed


def test_masking_takes_runs_that_differ_only_in_seed() -> None:
    check_masking_runs([run(0), run(1, "b.pth")])
    check_masking_runs([run(None)])
    with pytest.raises(InputError, match=r"a\.pth has nu 8\.0, but b\.pth has 2\.0\. Average only runs"):
        check_masking_runs([run(0), run(1, "b.pth", nu=2.0)])
    with pytest.raises(InputError, match=r"a\.pth and b\.pth are both the run with seed 0"):
        check_masking_runs([run(0), run(0, "b.pth")])
    # last and best weights of one run are two different checkpoints
    with pytest.raises(InputError, match=r"a\.pth has weights last, but b\.pth has best"):
        check_masking_runs([run(0), run(0, "b.pth", "best")])
    with pytest.raises(InputError, match=r"b\.pth does not record its seed"):
        check_masking_runs([run(0), run(None, "b.pth")])
    with pytest.raises(InputError, match=r"a\.pth has --fusion concat: it has no fusion weights"):
        check_masking_runs([run(0, fusion="concat")])
    with pytest.raises(InputError, match=r"a\.pth is an image-only model: it has no fusion weights"):
        check_masking_runs([run(0, modality="image")])


def test_varying_options_are_found_in_a_frame_of_runs() -> None:
    frame = runs_frame([run(0), run(1, nu=2.0, test_crops=(0, 5)), run(2, weights="best", dataset="ucf")])
    assert varying_options(frame) == ["weights", "nu", "test_crops"]  # ucf and ucfcrime are the same
    assert list(frame.test_crops) == ["5", "0,5", "5"] and list(frame.seed) == [0, 1, 2]


def test_modality_groups_are_image_event_fusion() -> None:
    groups = by_modality([run(0), run(1), run(0, modality="event"), run(0, modality="image")])
    assert {name: len(group) for name, group in groups.items()} == {"image": 1, "event": 1, "fusion": 2}
    assert list(groups) == ["image", "event", "fusion"]
    assert count_of(groups) is None and count_of({"a": [1], "b": [2]}) == 1


def test_class_report_notes_videos_with_several_labels(tmp_path: Path) -> None:
    """`B1-G-0` means Fighting and Explosion. Runs without a class have no Figure 2."""
    videos = [SimpleNamespace(label=label) for label in ("B1-G-0", "B1-0-0")]
    xd = load_dataset("xd")
    run = SimpleNamespace(dataset=xd, videos=videos, metrics={"AP": 0.5, "Ano-AUC": 0.5}, classes={})
    protocol = Protocol(xd, "default", "official", (5,), "last", "whole")
    table, pictures = _classes({"fusion": [run]}, protocol, tmp_path / "classes", "t")
    assert any(note.startswith("1 of 2 videos have several labels and count for each") for note in table.notes)
    assert pictures == []
    run.classes = {"Fighting": 0.5}
    run.videos = videos[1:]
    table, pictures = _classes({"fusion": [run]}, protocol, tmp_path / "classes", "t")
    assert not any("several labels" in note for note in table.notes) and len(pictures) == 2


def test_interval_is_that_of_the_mean_over_runs() -> None:
    """The resamples of two runs move in opposite directions, so their mean is always 0.5."""
    rising = np.linspace(0, 1, 101)
    pair = [SimpleNamespace(resampled={"AUC": values}) for values in (rising, 1 - rising)]
    assert mean_intervals(pair) == {"AUC": (0.5, 0.5)}
    assert mean_intervals(pair[:1])["AUC"] == pytest.approx((0.025, 0.975))


def test_log_goes_to_stderr_unless_the_format_is_text(capsys) -> None:
    print("a", file=log_stream("text"))
    print("b", file=log_stream("latex"))
    assert tuple(capsys.readouterr()) == ("a\n", "b\n")


@pytest.mark.parametrize(("names", "stem"), [((), "runs"), (("nu", "num_refinement_steps"), "sweep_nu_N")])
def test_sweep_report_has_table_figure_and_curves(
    tmp_path: Path, names: tuple[str, ...], stem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vad.report.report.baseline_table", lambda tests, protocol: (tests, protocol))
    rows = [
        {"run": f"x/r{seed}{nu}", "seed": str(seed), "weights": "last", "AUC": value, f"{BEST}AUC": "0.9",
         "nu": "8.0", "sweep nu": nu, "sweep num_refinement_steps": steps}
        for seed, value in enumerate(("0.8", "0.7"))
        for nu, steps in (("2", "0"), ("8", "0"))
    ]  # fmt: skip
    protocol = Protocol(load_dataset("demo"), "default", "official", (5,), "last", "whole")
    runs = pd.DataFrame(rows if names else rows[::2])
    for run in runs["run"]:
        (tmp_path / run).parent.mkdir(exist_ok=True)
        log = pd.DataFrame({"step": [1, 2], "epoch": [0, 1], "loss": [2.0, 1.0], "AUC": [0.5, 0.6]})
        log.to_csv(tmp_path / f"{run}.csv")
    result = SweepResult(names, runs, None, protocol, len(runs), (), tmp_path / "x" / "sweep_runs.csv", ())
    (table, baselines), files = report_sweep(result, tmp_path / "figures" / "sweep")
    assert {path.parent.name for path in tmp_path.rglob("training.png")} == {Path(run).name for run in runs["run"]}
    assert baselines == ((), protocol)
    suffixes = ["txt", "md", "tex", "csv", *(["png", "pdf"] if names else [])]
    assert [path.name for path in files] == [f"{stem}.{suffix}" for suffix in suffixes]
    assert all(path.stat().st_size for path in files)
    assert table.lines[0][: len(names) + 2] == [*(["nu", "N"] if names else []), "runs", "AUC (%)"]
    assert len(table.lines) == (3 if names else 2)


def checkpoint_content(**more: object) -> dict[str, object]:
    """Return the content of a checkpoint of UCF-Crime without weights."""
    options = {"dataset": "ucfcrime", "nu": 4.0}
    return {"form": "ours", "config": {"embed_dim": 768}, "options": options, "split": "official", **more}


def card_of(content: dict[str, object]) -> str:
    options = resolve({}, recorded_options(content))
    return model_card(content, recorded_protocol(content, options), options)


def test_model_card_has_metrics_protocol_and_mark(tmp_path: Path) -> None:
    protocol = {"videos": 290, "tail": "whole", "footnotes": ["A leak."]}
    metrics = {"AUC": 0.88123, "AP": np.nan}
    encoder = {"image": {"hash": "ab", "weights": "weights of clip.pt", "settings": {"tail": "whole", "device": "cpu"}}}
    content = checkpoint_content(weights="best", metrics=metrics, protocol=protocol, encoders=encoder)
    content["threshold"] = {"value": 0.75, "source": "one false alarm per hour"}
    (tmp_path / "README.md").write_text(card_of(content), encoding="utf-8")
    card = ModelCard.load(tmp_path / "README.md")
    (result,) = card.data.eval_results  # the undefined AP is left out
    assert (result.dataset_type, result.metric_name, result.metric_value) == ("ucfcrime", "AUC†", 0.8812)
    assert card.data.license == "mit" and card.data.library_name == "ief-vad"
    options = resolve({}, content["options"])
    assert recorded_protocol(content, options).line() in card.text and "290 test videos" in card.text
    assert "| AUC (%) | 88.12† |" in card.text and "- A leak." in card.text
    assert "†: these weights were selected by their score on the test videos." in card.text
    assert "nu 4.0" in card.text
    assert "- image embeddings: weights of clip.pt (hash ab); tail whole, device cpu" in card.text
    assert "- threshold of an alarm: 0.7500, one false alarm per hour" in card.text
    assert 'IEFVAD.from_pretrained("' in card.text and "model(image=image, event=event, lengths=lengths)" in card.text


def test_model_card_of_a_released_file_keeps_the_mark() -> None:
    released = {"form": "released", "config": {"embed_dim": 768}}
    options = resolve({"dataset": "xd"}, recorded_options(released))
    card = model_card(released, recorded_protocol(released, options), options)
    assert "No metrics are recorded" in card and "XD-Violence" in card and "profile released" in card
    assert "†: these weights were selected by their score on the test videos." in card


def test_model_card_of_synthetic_videos_says_so() -> None:
    content = checkpoint_content(options={"dataset": "demo"}, weights="last", metrics={"AUC": 0.9})
    content["config"] = {"embed_dim": 16, "input_dim": 64, "modality": "event"}
    card = card_of(content)
    assert "Synthetic videos and an untrained encoder" in card and "†" not in card
    assert "model(event=event, lengths=lengths).logits  # (B, T, 1) of embeddings (B, T, 64)" in card
