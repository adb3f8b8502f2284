"""How much does a model lose where the sound is missing? AUC with no sound in 0, 50 and 100 % of the test videos."""

from __future__ import annotations

import hashlib
import statistics

import numpy as np

from vad.evaluation import Run, open_runs
from vad.files import InputError, run_command
from vad.metrics import roc_auc, samples
from vad.options import command_parser
from vad.runtime import pick_device
from vad.scoring import Transform

SHARES = (0.0, 0.5, 1.0)


def without_sound(share: float) -> Transform:
    """Return a transform that removes the sound of this share of the videos, the same ones for every model."""

    def transform(stream: str, embedding: np.ndarray, name: str) -> np.ndarray:
        place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8  # in [0, 1)
        return 0 * embedding if stream == "audio" and place < share else embedding

    return transform


def aucs(run: Run) -> list[float]:
    """Return the AUC of a run for each share of videos without sound."""
    scored = (run.test.score(run.model, run.device, without_sound(share), progress=False) for share in SHARES)
    return [roc_auc(samples(videos)) for videos in scored]


def main() -> None:
    """Print the AUCs of each checkpoint, and their means."""
    parser = command_parser(
        __doc__, "python -m demo.missing_sound --ckpt_path checkpoints/demo_av/streams_image+event+audio_seed0.pth",
        usage="--ckpt_path FILE …", prog="python -m demo.missing_sound",
    )  # fmt: skip
    parser.add_argument("--ckpt_path", nargs="+", required=True, metavar="FILE", help="models with sound")
    rows = []
    for run in open_runs(parser.parse_args().ckpt_path, {}, pick_device("auto")):
        if "audio" not in run.test.widths:
            raise InputError(f"{run.path} does not use sound. Give models with sound.")
        rows.append(aucs(run))
        print(f"{run.path.name}: " + ", ".join(f"{100 * value:.2f}" for value in rows[-1]))
    for share, values in zip(SHARES, zip(*rows, strict=True), strict=True):
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        print(f"AUC (%), {share:.0%} of the test videos without sound: {100 * statistics.fmean(values):.2f}{spread}")


if __name__ == "__main__":
    run_command(main)
