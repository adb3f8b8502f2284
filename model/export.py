"""Export of a network for deployment: an ONNX file, or a PyTorch program (torch.export)."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from model.checkpoint import CheckpointError, atomic_write
from model.fusion_baselines import WITHOUT_WEIGHTS
from model.ief_vad import IEFVAD

ONNX_PACKAGES = ("onnx", "onnxscript")


class Scorer(nn.Module):
    """The network with the inputs and outputs of an exported graph, both by name."""

    def __init__(self, model: IEFVAD) -> None:
        super().__init__()
        self.model, config = model.cpu(), model.config
        self.streams = config.streams
        weighted = len(self.streams) > 1 and config.fusion not in WITHOUT_WEIGHTS
        self.outputs = ("score", *(f"weight_{name}" for name in self.streams if weighted))
        self.eval()

    def forward(
        self,
        lengths: Tensor,
        image: Tensor | None = None,
        event: Tensor | None = None,
        audio: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return anomaly probabilities `score`, and the fusion weights averaged over D, (B, T) each.

        Arguments as in `IEFVAD.forward`. A network without fusion weights has only `score`.
        """
        output = self.model(image, event, lengths, audio)
        score = torch.sigmoid(output.logits).squeeze(-1)
        weights = (weight.mean(-1) for weight in output.weights.values())
        return dict(zip(self.outputs, (score, *weights), strict=False))

    def example(self) -> dict[str, Tensor]:
        """Return inputs for tracing: no size is 1, which would become fixed, and no two are equal."""
        width_of = self.model.config.width_of
        streams = {name: torch.randn(2, 3, width_of(name)) for name in self.streams}
        return {"lengths": torch.tensor([3, 2]), **streams}

    def shapes(self, batch: Dim | str, time: Dim | str) -> dict[str, dict[int, Dim | str]]:
        """Return the dynamic axes of each input."""
        return {"lengths": {0: batch}, **{name: {0: batch, 1: time} for name in self.streams}}


def to_program(model: IEFVAD) -> ExportedProgram:
    """Return the network as a graph of PyTorch operations for every B ≥ 1 and T ≥ 1, on the CPU.

    Call it as `to_program(model).module()(image=…, event=…, lengths=…)`; see `Scorer.forward`.
    """
    scorer = Scorer(model)
    shapes = scorer.shapes(Dim("batch"), Dim("time"))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # about PyTorch's own calls
        program = torch.export.export(scorer, (), scorer.example(), dynamic_shapes=shapes)
    for graph in (m.graph for m in program.graph_module.modules() if isinstance(m, GraphModule)):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)  # has paths of this computer
    return program


def to_onnx(model: IEFVAD) -> torch.onnx.ONNXProgram:
    """Return the network as an ONNX program of float32 operations; see `to_program`.

    The filter becomes an ONNX Scan. Raises CheckpointError if a package is missing.
    """
    if missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        names = " ".join(missing)
        raise CheckpointError(f"ONNX files need packages that are missing. Run pip install {names}.")
    scorer = Scorer(model)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            scorer, (), kwargs=scorer.example(), dynamic_shapes=scorer.shapes("batch", "time"),
            output_names=scorer.outputs, dynamo=True, verbose=False,
            optimize=False,  # the optimiser takes ε = 1e-8 for 0 and drops it
        )  # fmt: skip
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript

    ClearMetadataAndDocStringPass()(program.model)  # as in `to_program`
    return program


def export(model: IEFVAD, path: Path) -> None:
    """Write the network atomically as ONNX (*.onnx), or as a PyTorch program (*.pt2).

    Raises CheckpointError for a missing package, and if the file cannot be written.
    """
    onnx = path.suffix == ".onnx"
    program = to_onnx(model) if onnx else to_program(model)
    with atomic_write(path) as part:
        if onnx:
            program.save(part)
        else:
            with part.open("wb") as file:  # a path must end in .pt2
                torch.export.save(program, file)
