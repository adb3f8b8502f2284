"""AVadCLIP in this code's training and evaluation: its prompts, labels, text tower, loss and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.avadclip import (
    AVadCLIP,
    AVadCLIPConfig,
    AVadCLIPObjective,
    AVadCLIPOutput,
    AVadCLIPTerms,
    TextTower,
    load_avadclip,
)
from vad.data import Batch, Video, embedding_root
from vad.datasets import TEXT_FILE, Dataset, as_prompt
from vad.files import InputError
from vad.options import Options

HEAD_WIDTH = 64  # of every CLIP's attention


def multi_hot(labels: Sequence[str], dataset: Dataset, names: Sequence[str] = ()) -> np.ndarray:
    """Return the classes (V, C) of videos from their labels: column 0 for normal, several ones for several classes.

    names: texts of the classes of a network, by default those of the data set. Other classes are left out.
    """
    names = names or dataset.prompts
    rows = np.zeros((len(labels), len(names)), np.float32)
    for row, label in zip(rows, labels, strict=True):
        for name in dataset.class_names(label) or (names[0],):
            if as_prompt(name) in names:
                row[names.index(as_prompt(name))] = 1
    return rows


def network_options(options: Options, dataset: Dataset, width: int = 2) -> dict[str, object]:
    """Return the fields of `AVadCLIPConfig`. width: D of the embeddings."""
    shared = {"fusion": options.fusion, "padding": options.padding, "student": options.student}
    sizes = {"classes": dataset.prompts, "embed_dim": width, "max_length": dataset.window}
    return {**options.group("avadclip"), **shared, **sizes}


def check_avadclip(options: Options, dataset: Dataset) -> None:
    """Raise ConfigError for options that the network or its loss does not accept."""
    config = AVadCLIPConfig(**network_options(options, dataset))
    AVadCLIPObjective(config=config, **options.group("avadclip_loss"))


def build_avadclip_network(options: Options, dataset: Dataset, widths: Mapping[str, int], video: Video) -> AVadCLIP:
    """Return the untrained network. video: any, to find the text tower beside its embeddings.

    Raises InputError if the text tower is missing or does not fit, or if image and sound differ in width.
    """
    if len(set(widths.values())) > 1:
        both = " and ".join(f"{stream} {width}" for stream, width in widths.items())
        raise InputError(f"AVadCLIP needs embeddings of one width, but these have {both}. Use encoders of "
                         f"equal width, such as CLIP ViT-B/16 and Wav2CLIP.")  # fmt: skip
    path = Path(options.text_path) if options.text_path else embedding_root(video.streams["image"]) / TEXT_FILE
    text = read_text_tower(path, dataset.prompts)
    width = widths["image"]
    if text.text_projection.shape[1] != width:
        raise InputError(f"{path} is a text tower of width {text.text_projection.shape[1]}, but the embeddings have "
                         f"width {width}. Make it again with the CLIP of the images.")  # fmt: skip
    return AVadCLIP(text, **network_options(options, dataset, width))


def read_text_tower(path: Path, names: Sequence[str]) -> TextTower:
    """Read the text tower of a CLIP with the words of these classes. Raises InputError for another file."""
    advice = "Make it with python -m extracting.clip.text."
    if not path.is_file():
        raise InputError(f"{path}: there is no text tower of CLIP, which AVadCLIP needs for training. {advice}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        recorded, tokens, state = content["classes"], content["tokens"], content["model"]
        if tuple(recorded) != tuple(names):
            raise InputError(f"{path} is for the classes {', '.join(recorded)}, not {', '.join(names)}. {advice}")
        width = state["positional_embedding"].shape[1]
        return TextTower.from_clip(state, tokens, num_heads=max(1, width // HEAD_WIDTH))
    except InputError:
        raise
    except Exception as error:  # torch.load raises many types
        raise InputError(f"{path}: not a text tower ({str(error).splitlines()[0][:160]}). {advice}") from None


@dataclass(frozen=True)
class AVadCLIPLoss:
    """The objective with the labels of the training videos, and for a student with its teacher."""

    objective: AVadCLIPObjective
    labels: Mapping[str, Tensor]  # video → (C,) multi-hot
    teacher: AVadCLIP | None
    names = AVadCLIPTerms._fields

    @classmethod
    def of(cls, options: Options, model: AVadCLIP, videos: Sequence[Video], dataset: Dataset) -> AVadCLIPLoss:
        """Return the loss of a run; the teacher goes to the model's device. Raises InputError for another teacher."""
        names = [video.name for video in videos]
        rows = torch.from_numpy(multi_hot([video.label for video in videos], dataset))
        objective = AVadCLIPObjective(config=model.config, **options.group("avadclip_loss"))
        teacher = _load_teacher(options.teacher, model) if options.teacher else None
        return cls(objective, dict(zip(names, rows, strict=True)), teacher)

    def terms(self, output: AVadCLIPOutput, batch: Batch) -> AVadCLIPTerms:
        """Compute the terms of a batch on its device."""
        labels = torch.stack([self.labels[name] for name in batch.names]).to(output.logits.device)
        features = None
        if self.teacher is not None:
            c, T = self.teacher.config, output.logits.shape[1]
            # a teacher that attends to padding was trained with whole windows
            missing = c.max_length - T if c.padding == "attended" else 0
            streams = {name: F.pad(x, (0, 0, 0, missing)) for name, x in batch.streams.items()}
            with torch.no_grad():
                features = self.teacher(**streams, lengths=batch.lengths).features[:, :T]
        return self.objective.terms(output, batch.lengths, labels, features)

    def total(self, terms: AVadCLIPTerms) -> Tensor:
        """Return the weighted sum of the terms."""
        return self.objective.total(terms)


def _load_teacher(path: str, student: AVadCLIP) -> AVadCLIP:
    teacher, c = load_avadclip(path), student.config
    if teacher.config.student:
        raise InputError(f"--teacher {path} is a student. Give a teacher, trained without --student.")
    for name in ("embed_dim", "max_length"):
        if getattr(teacher.config, name) != getattr(c, name):
            raise InputError(f"--teacher {path} has {name} {getattr(teacher.config, name)}, not {getattr(c, name)}. "
                             f"Train it on embeddings of the same data set.")  # fmt: skip
    return teacher.requires_grad_(False).to(student.alpha.device)
