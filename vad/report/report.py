"""Reports of the commands: results, Tables 1 and 2, seeds, sweeps and training, with their figures."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from model import read_checkpoint, save_pretrained
from model.export import export
from model.fusion_baselines import WITHOUT_WEIGHTS
from vad.evaluation import (
    WEIGHTS,
    Protocol,
    Run,
    open_checkpoint,
    read_any,
    recorded_options,
    recorded_protocol,
    require_ief_vad,
    save_results,
    shared_protocol,
)
from vad.experiments import TABLE_COMMANDS, SweepResult
from vad.files import InputError
from vad.localisation import localisation
from vad.options import MODALITIES, STREAMS, Options, as_text, option_fields, resolve, streams_of
from vad.report import plots
from vad.report.avadclip.report import report_avadclip
from vad.report.baselines import baseline_table
from vad.report.paper import paper_methods, paper_sweep
from vad.report.table import Table, render_all
from vad.report.tables import (
    Intervals,
    average_splits,
    class_table,
    localisation_table,
    method_table,
    results_table,
    seeds_table,
    sweep_runs,
    sweep_table,
    varying_options,
)
from vad.report.timelines import draw_timelines, select_videos
from vad.statistics import intervals
from vad.train import RunFiles, TrainedRun, best_row, run_name

CARD_METRICS = ("AUC", "AP", "Ano-AUC")  # in the model index of the hub


def report_results(runs: Sequence[Run], folder: Path, video_dir: Path | None) -> tuple[list[Table], list[Path]]:
    """Return tables and figures of one checkpoint, or of several for comparison, and save them in `folder`."""
    methods = {run.options.method for run in runs}
    if len(methods) > 1:
        raise InputError("some of these checkpoints are AVadCLIP, others are not. Test those of one method at a time.")
    if methods == {"avadclip"}:
        return report_avadclip(runs, folder, by_network(runs))
    frame, groups = runs_frame(runs), by_modality(runs)
    first = fused(groups)[0]
    pooled = [f"Runs with different {name} are averaged." for name in varying_options(frame)]
    protocol = shared_protocol(runs, count_of(groups), pooled)
    title = f"{first.dataset.title}, {len(first.videos)} test videos"
    tables, pictures = {}, []
    if len(runs) == 1:
        bounds = mean_intervals(runs)
        tables["results"] = results_table(first.metrics, protocol, modality=first.modality, intervals=bounds)
        if paper_methods(protocol.dataset) and first.modality == "fusion":
            tables["methods"] = method_table(frame, protocol, {protocol.noise_model: bounds})
    else:
        tables["results"] = seeds_table(frame, shared_protocol(runs))
        metrics = ("AUC", "Ano-AUC", "AP")
        bars = {m: {name: list(group[m]) for name, group in frame.groupby("modality")} for m in metrics}
        pictures += plots.draw_modalities(bars, folder / "modalities", title=title)
    tables["baselines"] = baseline_table([run.test for run in fused(groups)], protocol, frame)
    located = localisation(first.videos, first.dataset)
    tables["localisation"] = localisation_table(located, shared_protocol([first], 1), modality=first.modality)
    tables["classes"], radar = _classes(groups, protocol, folder / "classes", title)
    pictures += radar + _curves(runs, groups, folder, title)
    pictures += draw_timelines(select_videos(first.videos), folder, video_dir, first.dataset.fps)
    for name, table in tables.items():
        table.save(folder / name)
    save_results(runs, folder)
    return list(tables.values()), pictures


def _curves(runs: Sequence[Run], groups: Mapping[str, Sequence[Run]], folder: Path, title: str) -> list[Path]:
    """Draw ROC and precision–recall curves and reliability diagram of the first run of each modality."""
    videos = {modality: group[0].videos for modality, group in groups.items()}
    title += ", first run of each modality" if len(runs) > len(videos) else ""
    labels = np.concatenate([video.frame_labels for video in runs[0].videos])
    pictures = []
    if labels.any() and not labels.all():  # otherwise the curves are undefined
        pictures += plots.draw_curves(videos, folder / "curves", title=title)
    return pictures + plots.draw_reliability(videos, folder / "reliability", title=title)


def _classes(
    groups: Mapping[str, Sequence[Run]], protocol: Protocol, path: Path, title: str
) -> tuple[Table, list[Path]]:
    """Return Table 2 and Figure 2 as means over runs, without figure if no test video has a class."""
    run = next(iter(groups.values()))[0]
    several = sum(len(run.dataset.class_names(video.label)) > 1 for video in run.videos)
    if several:
        counting = "have several labels and count for each of them (in the released code: for the first)"
        note = f"{several} of {len(run.videos)} videos {counting}."
        protocol = replace(protocol, footnotes=(*protocol.footnotes, note))
    frames = {m: pd.DataFrame([{**run.metrics, **run.classes} for run in group]) for m, group in groups.items()}
    means = {m: frame[list(run.classes)].mean(skipna=False).to_dict() for m, frame in frames.items()}
    pictures = plots.draw_radar(means, path, metric=run.dataset.metric, title=title) if run.classes else []
    return class_table(frames, protocol), pictures


def report_table(
    number: int, runs: Sequence[Run], folder: Path, notes: Sequence[str] = ()
) -> tuple[list[Table], list[Path]]:
    """Return Table 1, or Table 2 with Figure 2, and save it in `folder`. notes: about missing runs."""
    groups, pictures = by_modality(runs), []
    if number == 1:
        names = sorted({run.options.noise_model for run in runs})
        models = {name: [run for run in runs if run.options.noise_model == name] for name in names}
        bounds = {name: mean_intervals(group) for name, group in models.items()}
        frame = runs_frame([run for group in models.values() for run in group])
        protocol = shared_protocol(runs, footnotes=notes)
        table = method_table(frame, protocol, bounds)
    else:
        count = count_of(groups)
        if count is None:
            numbers = ", ".join(f"{modality} {len(group)}" for modality, group in groups.items())
            notes = [*notes, f"Number of runs per column: {numbers}."]
        protocol = shared_protocol(runs, count, notes)
        several = f", mean of {count} runs" if count and count > 1 else ""
        title = f"{protocol.dataset.title}, {protocol.videos} test videos{several}"
        table, pictures = _classes(groups, protocol, folder / "figure2", title)
    baselines = baseline_table([run.test for run in fused(groups)], protocol, runs_frame(runs))
    table.save(folder / f"table{number}")
    baselines.save(folder / f"table{number}_baselines")
    save_results(runs, folder, f"table{number}_")  # Tables 1 and 2 may share a folder
    return [table, baselines], pictures


def report_training(trained: TrainedRun, options: Options) -> tuple[list[Table], str]:
    """Return results and baselines of a newly trained run, and closing lines to print.

    Also draw its training curves, and write its pretrained folder.
    """
    content, metric = trained.content, trained.protocol.dataset.metric
    best, name = best_row(content, metric), run_name(options)
    path, files = Path(options.figure_dir) / name / "training", RunFiles.of(options)
    folder = ""
    if options.method == "ief_vad":
        kept = read_checkpoint(files.last)
        save_pretrained(files.pretrained, kept, model_card(kept, trained.protocol, options))
        folder = f"\nthe same weights as a folder for the Hugging Face hub: {files.pretrained}"
    plots.draw_training(pd.DataFrame(content["rows"]), path, title=f"{name}, training")
    summary = (
        f"best {metric} on the test set (selected on the test set): {100 * best[metric]:.2f} % after step "
        f"{best['step']} ({name}_best.pth)\n"
        f"{WEIGHTS[content['weights']]} and logs: {options.checkpoint_dir}/{name}.pth, _best.pth, .csv{folder}"
    )
    results = results_table(content["metrics"], trained.protocol, modality=options.modality)
    run = pd.DataFrame([{"modality": options.modality, **content["metrics"]}])
    return [results, baseline_table([trained.test], trained.protocol, run)], summary


def report_sweep(result: SweepResult, folder: Path) -> tuple[list[Table], list[Path]]:
    """Return the table of a sweep, or of several seeds, the baselines, and the paths of its files and figure.

    Also draw the training curves of each run in a folder of its own next to `folder`.
    """
    table, (runs, names) = sweep_table(result), sweep_runs(result)
    path = folder / ("_".join(["sweep", *names]) if names else "runs")
    files = table.save(path)
    for name in (Path(run).name for run in result.runs["run"]):
        log, picture = result.log.with_name(f"{name}.csv"), folder.with_name(name) / "training"
        png = picture.with_suffix(".png")
        if not png.is_file() or png.stat().st_mtime < log.stat().st_mtime:
            plots.draw_training(pd.read_csv(log), picture, title=f"{name}, training")
    if names:
        title, (_, paper) = result.protocol.dataset.title, paper_sweep(result)
        files += plots.draw_sweep(runs, path, names=names, title=title, paper=paper)
    return [table, baseline_table(result.tests, result.protocol)], files


def export_checkpoint(path: Path, explicit: Mapping[str, object], target: Path) -> str:
    """Write a checkpoint as ONNX (.onnx), PyTorch program (.pt2), or pretrained folder; return words to print.

    Raises InputError for another suffix, and for a folder with other options than the recorded ones.
    """
    if target.suffix in (".onnx", ".pt2"):
        model, options, _, notes = open_checkpoint(path, explicit)
        require_ief_vad(path, options, "--export")
        export(model, target)
        widths = dict.fromkeys(str(model.config.width_of(stream)) for stream in model.config.streams)
        return "\n".join([*notes, f"{target}: {options.modality} model for embeddings of width "
                                  f"{' and '.join(widths)}, any batch and any number of snippets"])  # fmt: skip
    if target.suffix:
        raise InputError(f"--export {target}: unknown suffix. Use .onnx, .pt2, or a folder name without a suffix.")
    content = read_any(path)
    require_ief_vad(path, resolve({}, recorded_options(content)), "--export")
    released = content["form"] == "released"
    dataset = {name: value for name, value in explicit.items() if name == "dataset" and released}
    recorded = resolve(dataset, recorded_options(content))
    free = {f.name for group in ("results", "runtime") for f in option_fields(group)}
    now = resolve(explicit, recorded_options(content))
    changed = [name for name in explicit if name not in free and getattr(now, name) != getattr(recorded, name)]
    if changed:
        raise InputError(f"--export {target} writes the checkpoint as it is. Leave out --{changed[0]}.")
    save_pretrained(target, content, model_card(content, recorded_protocol(content, recorded), recorded))
    return f"{target}: pretrained folder with model.safetensors, config.json and the model card README.md"


def model_card(content: Mapping[str, object], protocol: Protocol, options: Options) -> str:
    """Return the model card of a checkpoint for the Hugging Face hub, in Markdown with YAML front matter.

    content: see `read_checkpoint`; protocol: that of its metrics; options: those of its training.
    """
    config, metrics, dataset = content["config"], content.get("metrics", {}), protocol.dataset
    modality = str(config.get("modality", "fusion"))
    streams = ", ".join(f"{name}={name}" for name in STREAMS if name in streams_of(modality))
    entries = [
        EvalResult(
            task_type="video-classification", task_name="Video anomaly detection", dataset_type=dataset.name,
            dataset_name=dataset.title, metric_type=name.lower(), metric_name=f"{name}{protocol.mark}",
            metric_value=round(metrics[name], 4),
        )
        for name in CARD_METRICS
        if math.isfinite(metrics.get(name, math.nan))
    ]  # fmt: skip
    front = ModelCardData(
        license="mit", library_name="ief-vad", pipeline_tag="video-classification", eval_results=entries,
        tags=["video-anomaly-detection", "weakly-supervised", "event-camera", "arxiv:2505.02393"],
        model_name=f"IEF-VAD, {dataset.title}, {modality}",
    )  # fmt: skip
    table = results_table(metrics, protocol, modality=modality).markdown() if metrics else "\n".join(
        [protocol.line(), "", "No metrics are recorded in this checkpoint.", *protocol.notes(beside_paper=False)]
    )  # fmt: skip
    extra = []
    for stream, encoder in content.get("encoders", {}).items():
        settings = ", ".join(f"{name} {value}" for name, value in encoder["settings"].items())
        extra.append(f"- {stream} embeddings: {encoder['weights']} (hash {encoder['hash']}); {settings}")
    if "threshold" in content:
        extra.append(f"- threshold of an alarm: {content['threshold']['value']:.4f}, {content['threshold']['source']}")
    return "\n".join([
        "---", front.to_yaml().strip(), "---", "",
        f"# IEF-VAD, {dataset.title}, {modality}", "",
        "The model scores each snippet of a surveillance video from embeddings of its frames and event maps.",
        "It comes from an independent reproduction of [Jeong, Park and Imani (2025)](https://arxiv.org/abs/2505.02393).",
        "", "## Results", "", table,
        "", "## Training", "", replace(options, explicit=()).describe(), *extra,
        "", "## Use", "", "```python",
        "from model import IEFVAD",
        'model = IEFVAD.from_pretrained("FOLDER_OR_NAME_ON_THE_HUB")',
        f"logits = model({streams}, lengths=lengths).logits  # (B, T, 1) of embeddings (B, T, "
        f"{config.get('input_dim') or config['embed_dim']})",
        "```", "", "`python test.py --ckpt_path FOLDER` evaluates it.",
        "", "## Cite", "",
        "Jeong, Park and Imani, *Uncertainty-Weighted Image-Event Multimodal Fusion for Video Anomaly Detection*, "
        "arXiv:2505.02393, 2025.", "",
    ])  # fmt: skip


def show(tables: Sequence[Table], pictures: Sequence[Path], folder: Path, form: str) -> None:
    """Print tables in a format of `vad.report.table.SUFFIXES`, and the folder of all files."""
    print(render_all(tables, form))
    names = ", ".join(path.name for path in pictures if path.suffix == ".png")
    print(f"\nTables and figures are in {folder}" + (f":\n{names}" if names else ""), file=log_stream(form))


def log_stream(form: str) -> TextIO:
    """Return the stream for everything except tables: stderr if a machine-readable table goes to stdout."""
    return sys.stdout if form == "text" else sys.stderr


# checks of runs before they are scored


def check_number(number: int | None, dataset: str) -> None:
    """Raise InputError, with the right command, for a table of the paper that another command makes."""
    if number in TABLE_COMMANDS:
        raise InputError(f"Table {number} is made by another command: {TABLE_COMMANDS[number].format(name=dataset)}")


def check_table(number: int | None, runs: Sequence[Run]) -> None:
    """Raise InputError if these runs cannot make the paper's table of this number. None: another table.

    Reasons: a run is named twice, averaged runs differ in more than their seed, Table 1 has a single-stream
    model, or Table 2 has two noise models.
    """
    _check_once(runs)
    for run in runs if number is not None else ():
        require_ief_vad(run.path, run.options, "--table")
    single = next((run for run in runs if run.modality != "fusion"), None)
    if number == 1 and single:
        raise InputError(f"{single.path} is an {single.modality}-only model, but Table 1 compares fused models. "
                         f"For single streams use --table 2.")  # fmt: skip
    if number == 2 and len({run.options.noise_model for run in runs}) > 1:
        raise InputError("Table 2 takes one noise model, but these checkpoints have two. Name those of one.")
    if number is not None:
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            groups.setdefault((run.modality, run.options.noise_model), []).append(run)
        for group in groups.values():
            _check_alike(group)


def check_masking_runs(runs: Sequence[Run]) -> None:
    """Raise InputError if a run has no fusion weights, or if the runs differ in more than their seed."""
    for run in runs:
        require_ief_vad(run.path, run.options, "test2.py")
        if len(streams_of(run.modality)) == 1:
            raise InputError(f"{run.path} is an {run.modality}-only model: it has no fusion weights to examine.")
        if run.options.fusion in WITHOUT_WEIGHTS:
            raise InputError(f"{run.path} has --fusion {run.options.fusion}: it has no fusion weights to examine.")
        if run.seed is None and len(runs) > 1:
            raise InputError(f"{run.path} does not record its seed. Evaluate it without other checkpoints.")
    _check_once(runs)
    _check_alike(runs)


def _check_once(runs: Sequence[Run]) -> None:
    seen: dict[object, Run] = {}
    for run in runs:
        # a released checkpoint does not record its seed, so two files count as two runs
        identity = run.path.resolve() if run.seed is None else run.seed
        first = seen.setdefault((identity, *recorded(run).items()), run)
        if first is not run:
            same = "the same file" if run.seed is None else f"the run with seed {run.seed}"
            raise InputError(f"{first.path} and {run.path} are both {same}. Name each run once.")


def _check_alike(runs: Sequence[Run]) -> None:
    first = recorded(runs[0])
    for run in runs:
        values = recorded(run)
        name = next((name for name in first if values[name] != first[name]), None)
        if name:
            raise InputError(f"{runs[0].path} has {name} {first[name]}, but {run.path} has {values[name]}. "
                             f"Average only runs that differ in their seed.")  # fmt: skip


# runs as data frames


def recorded(run: Run) -> dict[str, str]:
    """Return weights, options and modality of a run as text: all that distinguishes runs, except the seed."""
    options = {name: as_text(value) for name, value in run.options.recorded().items()}
    del options["dataset"]  # it has several spellings; `open_runs` accepts one data set only
    if run.dataset.split_per_run:
        options["split"] = "one per run"
    return {"weights": run.weights, **options, "modality": run.modality}


def runs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run: modality, seed (None: unknown), weights, options as text, metrics as fractions."""
    frame = pd.DataFrame([{**recorded(run), "seed": run.seed, **run.metrics} for run in runs])
    return average_splits(frame, [run.test.split for run in runs]) if runs[0].dataset.split_per_run else frame


def by_modality(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each modality that occurs, in the order of `MODALITIES`."""
    groups = {modality: [run for run in runs if run.modality == modality] for modality in MODALITIES}
    return {modality: group for modality, group in groups.items() if group}


def by_network(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs of AVadCLIP by teacher or student and the options in which they differ, except the seed."""
    options = [recorded(run) for run in runs]
    apart = ("student", "modality", "teacher")  # in the title
    varying = [k for k in options[0] if k not in apart and len({o[k] for o in options}) > 1]
    groups: dict[str, list[Run]] = {}
    for run, own in zip(runs, options, strict=True):
        parts = ["teacher", *(f"{name} {own[name]}" for name in varying)]
        if run.options.student:
            parts[0] = f"student of {own['teacher']}" if own["teacher"] else "student without teacher"
        groups.setdefault(", ".join(parts), []).append(run)
    return groups


def fused(groups: Mapping[str, Sequence[Run]]) -> Sequence[Run]:
    """Return the runs with the most streams. groups: see `by_modality`."""
    return groups[max(groups, key=lambda modality: len(streams_of(modality)))]


def count_of(groups: Mapping[str, Sequence[Run]]) -> int | None:
    """Return the number of runs per group, or None if the groups differ in size."""
    counts = {len(group) for group in groups.values()}
    return counts.pop() if len(counts) == 1 else None


def mean_intervals(runs: Sequence[Run]) -> Intervals:
    """Return 95 % intervals over videos of the mean over runs; all runs share each resample of videos."""
    rows = [run.resampled for run in runs]
    return intervals({name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]})
