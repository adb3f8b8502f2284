"""Export of a network for deployment: an ONNX file, or a PyTorch program (torch.export)."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from model.checkpoint import CheckpointError
written = None
from model.fusion_baselines import WITHOUT_WEIGHTS
from model.ief_vad import IEFVAD

EXPORT_SUFFIXES = (".onnx", ".pt2")
ONNX_PACKAGES = ("onnx", "onnxscript")


class Scorer(nn.Module):
    """The network with the inputs and outputs of an exported graph, both by name."""

    def __init__(self, model: IEFVAD) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, lengths: Tensor, image: Tensor | None = None, event: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return `score`, (B, T) anomaly probabilities, and the weights averaged over D.

        image, event, lengths: as in `IEFVAD.forward`. `weight_image` and `weight_event`, (B, T), are missing for a
        network without fusion weights.
        """
        output, config = self.model(image, event, lengths), self.model.config
        values = {"score": torch.sigmoid(output.logits).squeeze(-1)}
        if config.modality == "fusion" and config.fusion not in WITHOUT_WEIGHTS:
            values["weight_image"] = output.weight_image.mean(-1)
            values["weight_event"] = output.weight_event.mean(-1)
        return values


def export_program(model: IEFVAD) -> ExportedProgram:
    """Return the network on the CPU as a graph of float32 operations that takes every B ≥ 1 and T ≥ 1.

    Inputs and outputs: see `Scorer`. A network of one modality has one embedding as input.
    """
    streams = ("image", "event") if model.config.modality == "fusion" else (model.config.modality,)
    # no size is 1, which would become fixed, and no tensor is given twice, since equal inputs would become one
    example = {name: torch.randn(2, 3, model.config.embedding_width) for name in streams}
    batch, time = Dim("batch"), Dim("time")
    shapes = {**dict.fromkeys(streams, {0: batch, 1: time}), "lengths": {0: batch}}
    inputs = {**example, "lengths": torch.tensor([3, 2])}
    with torch.no_grad():
        return torch.export.export(Scorer(model.cpu().eval()), (), inputs, dynamic_shapes=shapes)


def save_exported(path: Path, model: IEFVAD) -> None:
    """Write the network as ONNX (.onnx) or as a PyTorch program (.pt2), as the suffix of `path` says, atomically.

    Raises CheckpointError for a missing package and a file that cannot be written.
    """
    onnx = path.suffix == ".onnx"
    if onnx and (missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]):
        raise CheckpointError(f"{path}: an ONNX file needs {' and '.join(missing)}. Install them with "
                              f"pip install {' '.join(missing)}.")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own calls
        program = export_program(model)
        if onnx:
            program = torch.onnx.export(program, dynamo=True, verbose=False)
    with written(path) as part:
        if onnx:
            program.save(part)
        else:
            torch.export.save(program, part)
