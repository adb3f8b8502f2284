"""The text tower of CLIP with the words of a data set's classes, for AVadCLIP (Section III-D of arXiv 2504.04495)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from extracting.clip.tower import import_open_clip
from extracting.clip.weights import UNTRAINED, read_checkpoint
from vad.datasets import TEXT_FILE, load_dataset
from vad.files import InputError, run_command, write_bytes
from vad.options import DATASET_HELP, command_parser

CLIP, TAG = "ViT-B-16", "openai"  # that of the paper
PARTS = ("positional_embedding", "token_embedding.", "transformer.", "ln_final.", "text_projection")
UNTRAINED_LAYERS, CONTEXT = 2, 77


def text_part(state: Mapping[str, Tensor], tokens: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the float32 tensors of the text tower, with the used rows of its vocabulary, and tokens (C, 77) of these.

    Raises InputError for weights without a text tower.
    """
    tensors = {name: x.detach().float().clone() for name, x in state.items() if name.startswith(PARTS)}
    if "token_embedding.weight" not in tensors or "text_projection" not in tensors:
        raise InputError("these weights have no text tower. Give a whole CLIP, image and text.")
    used, compact = tokens.unique(return_inverse=True)  # sorted, so the end token stays the largest
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][used]
    return tensors, compact


def untrained_state(width: int, tokens: Tensor) -> dict[str, Tensor]:
    """Return random weights, seed 0, of a small text tower: for tests and the demo."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(shape, generator=generator)

    state = {
        "token_embedding.weight": normal(int(tokens.max()) + 1, width, std=0.02),
        "positional_embedding": normal(CONTEXT, width, std=0.01),
        "text_projection": normal(width, width, std=width**-0.5),
        "ln_final.weight": torch.ones(width),
        "ln_final.bias": torch.zeros(width),
    }
    for k in range(UNTRAINED_LAYERS):
        block = f"transformer.resblocks.{k}."
        for name, shape in (
            ("attn.in_proj", (3 * width, width)), ("attn.out_proj.", (width, width)),
            ("mlp.c_fc.", (4 * width, width)), ("mlp.c_proj.", (width, 4 * width)),
        ):  # fmt: skip
            separator = "_" if name.endswith("in_proj") else ""
            state[f"{block}{name}{separator}weight"] = normal(*shape, std=shape[1] ** -0.5)
            state[f"{block}{name}{separator}bias"] = torch.zeros(shape[0])
        for name in ("ln_1", "ln_2"):
            state |= {f"{block}{name}.weight": torch.ones(width), f"{block}{name}.bias": torch.zeros(width)}
    return state


def save_text_tower(path: Path, classes: Sequence[str], checkpoint: str | None, width: int) -> str:
    """Write the text tower for these class names; return a description of its weights.

    checkpoint: file of a whole CLIP, "untrained", or None to download that of the paper. width: of an untrained tower.
    """
    open_clip = import_open_clip()
    tokens = open_clip.tokenize(list(classes))
    if checkpoint == UNTRAINED:
        state, note = untrained_state(width, tokens), "random weights, seed 0"
    elif checkpoint:
        state, note = read_checkpoint(Path(checkpoint)), f"weights of {Path(checkpoint).name}"
    else:
        try:
            state = open_clip.create_model(CLIP, pretrained=TAG).state_dict()
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"CLIP {CLIP} cannot be downloaded ({reason}). Give its file with --clip_ckpt.") from None
        note = f"weights of {CLIP} ({TAG})"
    tensors, compact = text_part(state, tokens)
    content = io.BytesIO()
    torch.save({"classes": list(classes), "tokens": compact, "model": tensors, "note": note}, content)
    write_bytes(path, content.getvalue())
    return note


def main() -> None:
    """Parse the flags and write the file."""
    parser = command_parser(
        "Write the text tower of CLIP for the classes of a data set, for AVadCLIP.",
        "python -m extracting.clip.text --dataset xd --clip_ckpt ViT-B-16.pt --save_path FEATURES/text.pt",
        prog="python -m extracting.clip.text",
    )
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help=DATASET_HELP)
    add("--clip_ckpt", metavar="FILE", help=f"a whole CLIP, or {UNTRAINED} (default: {CLIP}, downloaded)")
    add("--save_path", type=Path, metavar="FILE", help=f"default: {TEXT_FILE} beside the data set's rgb/")
    add("--width", type=int, default=64, metavar="N", help="of an untrained tower (default: 64)")
    flags = parser.parse_args()
    dataset = load_dataset(flags.dataset)
    path = flags.save_path or dataset.data_root / TEXT_FILE
    checkpoint = flags.clip_ckpt or (UNTRAINED if dataset.synthetic else None)
    note = save_text_tower(path, dataset.prompts, checkpoint, flags.width)
    print(f"{path}: {note}; classes {', '.join(dataset.prompts)}")


if __name__ == "__main__":
    run_command(main)
