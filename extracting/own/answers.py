"""From your own videos or a live source to scores: the one room that knows both extraction and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from extracting.clip.encoder import Encoder, load_encoder
from extracting.clip.weights import find_weights
from extracting.own.footage import ShownScores, import_av, view
from extracting.own.live import LiveReport, SnippetEncoder
from extracting.own.videos import OwnVideo, embed_own_videos
from extracting.video.config import Config
from extracting.video.frames import VideoError
from extracting.video.live import LiveSource
from model import IEFVAD
from vad.datasets import load_dataset
from vad.evaluation import check_encoder, check_width, open_checkpoint, require_ief_vad
from vad.files import InputError, sha256
from vad.options import Options, as_text
from vad.prepare.ground_truth import EXTRACTION
from vad.report import own_videos as report
from vad.report.table import Table
from vad.scoring import LIVE_WINDOW, CausalScorer, Embeddings, ScoredVideo, score

FLAGS = {"image": "--clip_ckpt", "event": "--event_ckpt"}  # of the encoders


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint with the encoders and the extraction settings of its training."""

    path: Path
    model: IEFVAD
    options: Options
    threshold: report.Threshold
    encoders: Mapping[str, Encoder]  # by modality
    config: Config
    device: torch.device

    @classmethod
    def open(
        cls, path: Path, explicit: Mapping[str, object], weights: Mapping[str, str | None], threshold: float | None,
        device: torch.device, log: TextIO,
    ) -> TrainedModel:  # fmt: skip
        """Open a checkpoint. weights: modality → file of the encoder, or None to find that of the training.

        explicit: options set by flags; threshold: that of a flag; log: stream for a line per encoder.
        Raises InputError for an encoder with other weights than that of the training.
        """
        model, options, content, _ = open_checkpoint(path, explicit)
        require_ief_vad(path, options, "--video and --live")
        if "audio" in model.config.streams:
            raise InputError(
                f"{path} needs sound, which --video and --live do not embed. Give a model of images and events, or "
                f"only use its other streams with --modality."
            )
        chosen = report.choose_threshold(threshold, content)
        dataset, trained, encoders = load_dataset(options.dataset), content.get("encoders", {}), {}
        folders = (Path(), Path(options.checkpoint_dir), dataset.data_root / "weights")
        for modality in model.config.streams:
            recorded = trained.get(modality, {"weights": "", "settings": {}})
            file = weights[modality] or find_weights(recorded["weights"], folders)
            tower = recorded["settings"].get("tower", dataset.encoder)
            try:
                encoder = load_encoder(file, modality, tower=tower, device=options.device)
            except InputError:
                if file or not recorded["weights"]:
                    raise
                raise InputError(
                    f"{path} was trained on {modality} embeddings made with {recorded['weights']}. This file was not "
                    f"found ({', '.join(map(str, folders))}). Give its path with {FLAGS[modality]}."
                ) from None
            source = f"those of the {modality} encoder with {encoder.note}"
            check_width(path, model, {modality: encoder.embed_dim}, source)
            check_encoder(path, content, modality, encoder.hash, source)
            print(f"{modality} encoder: {encoder.note}", file=log)
            encoders[modality] = encoder
        recorded = {name: value for encoder in trained.values() for name, value in encoder["settings"].items()}
        settings = {name: recorded.get(name, getattr(options, name)) for name in EXTRACTION}
        config = Config(options.test_crops, fps=dataset.fps, **settings)
        return cls(path, model.to(device), options, chosen, encoders, config, device)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return Path(self.options.figure_dir) / (self.options.exp_name or "own_videos")

    def record(self) -> dict[str, object]:
        """Return what the results depend on, for their record."""
        encoders = {f"{modality} encoder": encoder.note for modality, encoder in self.encoders.items()}
        checkpoint = f"{self.path.name} (SHA-256 {sha256(self.path)[:16]}), {self.options.modality}"
        settings = " · ".join(f"{name} {as_text(getattr(self.config, name))}" for name in ("crops", *EXTRACTION))
        return {"checkpoint": checkpoint, **encoders, "extraction": settings}


def answer_videos(
    trained: TrainedModel, paths: Sequence[Path], *, embed: bool, annotated: Path | None
) -> tuple[Table, Path | None, dict[Path, str]]:
    """Embed and score videos, and folders of videos, and write an answer to each.

    embed, annotated: see `report.write_answer` and `view`. Returns the table of all events, the page to open (None if
    packages for pages are missing, or all videos failed), and why videos failed.
    Raises InputError for `annotated` with several videos.
    """
    if annotated:
        import_av()
    videos = embed_own_videos(paths, trained.encoders, trained.folder / "embeddings", trained.config)
    if annotated and len(videos) > 1:
        raise InputError(f"--annotated writes one video, but --video names {len(videos)}. Name one of them.")
    tests = [report.own_video(video.name, video.embeddings) for video in videos if not video.problem]
    options = trained.options
    scored = score(trained.model, tests, Embeddings(options.nan), window=options.window, device=trained.device)
    results, answers = {result.name: result for result in scored}, []
    for video in (video for video in videos if not video.problem):
        try:
            answer = _answer_video(trained, video, results[video.name], embed, annotated)
            answers.append((answer, results[video.name].scores))
        except VideoError as error:
            video.problem = error.reason
    failed, page = {video.path: video.problem for video in videos if video.problem}, None
    if answers and not report.missing_packages():
        page = trained.folder / answers[0][0]["video"] / "report.html"
        if len(videos) > 1:
            page = trained.folder / "index.html"
            report.write_index(page, answers, {video.name: video.problem for video in videos if video.problem})
    table = report.own_videos_table([answer for answer, _ in answers], trained.threshold)
    table.save(trained.folder / "videos")
    return table, page, failed


def _answer_video(
    trained: TrainedModel, video: OwnVideo, result: ScoredVideo, embed: bool, annotated: Path | None
) -> dict[str, Any]:
    """Write the files about one video, unless they exist; return the content of events.json."""
    folder, pages, threshold = trained.folder / video.name, not report.missing_packages(), trained.threshold
    files = ", ".join(file.name for crops in video.embeddings.values() for file in crops.values())
    made_from = {**trained.record(), "threshold": threshold.value, "embeddings": files, "pages": pages, "embed": embed}
    answer = report.finished_answer(folder, made_from)
    if answer and not annotated:
        return answer
    events = report.find_events(result.scores, threshold)
    shown = ShownScores(result.scores, report.in_events(events, len(result.scores)), threshold.value)
    clip = folder / report.CLIP if pages and not video.is_recording else None
    chosen = {k for snippets in report.shown_snippets(result.scores, events) for k in snippets}
    footage = view(video.path, chosen, shown, trained.config, preview=clip, annotated=annotated)
    answer = report.answer_of(result, footage.times, events, threshold, made_from, footage.note)
    report.write_answer(folder, result, answer, footage.times, events, footage.pictures, footage.event_maps,
                        clip=clip, embed=embed)  # fmt: skip
    return answer


def answer_live(trained: TrainedModel, source: LiveSource) -> None:
    """Score a camera, a stream or a file as it comes; print a line of JSON for each snippet."""
    encode = SnippetEncoder(trained.encoders, trained.config)
    scorer = CausalScorer(trained.model, LIVE_WINDOW, trained.device)
    with LiveReport(source, tuple(trained.encoders), trained.threshold) as lines, source:
        for snippet in source:
            if snippet.after_gap:
                scorer.reset()
            lines.print_line(snippet.number, snippet.arrived, scorer(encode(snippet.frames)))
