"""Draw Figure 1 from the network itself: `python figure/architecture.py` writes figure/architecture.{svg,pdf,png}."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from the root and from here

from model import IEFVAD, ConfigError, Objective
from vad.errors import run_door
from vad.figures_architecture import Architecture, draw_architecture
from vad.settings import add_dataset_flags, add_switch_flags, loss_fields, model_fields, resolve


def describe(model: IEFVAD, objective: Objective) -> Architecture:
    """What the drawing shows, read from the network's modules and settings."""
    c = model.config
    streams = tuple(m for m in ("image", "event") if hasattr(model, f"{m}_encoder"))
    encoder, head = (getattr(model, f"{streams[0]}_{part}") for part in ("encoder", "head"))
    blocks = model.refinement.blocks
    return Architecture(
        streams=streams,
        width=model.classifier.in_features,
        layers=len(encoder.attentions),
        heads=encoder.attentions[0].num_heads,
        noise_model=c.noise_model,
        nu=c.nu,
        epsilon_placement=c.epsilon_placement,
        temporal_update=c.temporal_update,
        steps=len(blocks),
        step_layers=tuple(type(layer).__name__ for layer in blocks[0]) if len(blocks) else (),
        lambda_ref=model.refinement.lambda_ref,
        mil=objective.mil,
        parameters={
            "encoder": _count(encoder),
            "head": _count(head),
            "temporal": _count(model.temporal_update),
            "refinement": _count(model.refinement),
            "classifier": _count(model.classifier),
            "all": _count(model),
        },
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_dataset_flags(parser)
    parser.add_argument("--embed_dim", type=int, default=768, help="embedding width D (default 768, ViT-L/14)")
    parser.add_argument("--modality", choices=("image", "event", "fusion"), default="fusion", help="default fusion")
    here = Path(__file__).resolve().parent / "architecture"
    parser.add_argument("--save_path", type=Path, default=here, help="where, without suffix (figure/architecture)")
    add_switch_flags(parser)
    args = parser.parse_args()
    settings = resolve(args)
    model = IEFVAD(embed_dim=args.embed_dim, modality=args.modality, **model_fields(settings))
    facts = describe(model, Objective(config=model.config, **loss_fields(settings)))
    print("\n".join(map(str, draw_architecture(facts, args.save_path))))


if __name__ == "__main__":
    run_door(main, expected=(ConfigError,))
