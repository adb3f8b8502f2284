"""Do the fusion weights follow disturbances that affect only the events? AUC of ŵ_i on disturbed snippets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
from sklearn.metrics import roc_auc_score

from demo.script import write_script
from demo.videos import DATASET, plan_videos
from vad.datasets import SNIPPET_FRAMES
from vad.evaluation import open_runs
from vad.files import InputError, read_json, run_command
from vad.options import command_parser
from vad.runtime import pick_device
from vad.scoring import ScoredVideo


def disturbed_snippets() -> dict[str, np.ndarray]:
    """Return test video → (S,) bool, whether at least half of the frames of a snippet are disturbed.

    Sources are sensor noise, mains flicker and a flickering sign; see `demo.script`.
    """
    record = DATASET.data_root / "demo.json"
    if not record.is_file():
        raise InputError(f"{record}: there is no demo. Make it first: python -m demo")
    settings = read_json(record, "description of the synthetic videos")
    videos = plan_videos(settings["seed"], settings["train"], settings["test"])
    masks = {v.name: write_script(settings["seed"], v.index, v.label).disturbed for v in videos if v.split == "test"}
    whole = {name: mask[: len(mask) // SNIPPET_FRAMES * SNIPPET_FRAMES] for name, mask in masks.items()}
    return {name: mask.reshape(-1, SNIPPET_FRAMES).mean(1) >= 0.5 for name, mask in whole.items()}


def weight_auc(videos: list[ScoredVideo], disturbed: Mapping[str, np.ndarray]) -> float:
    """Return the AUC of ŵ_i as a score of disturbed snippets: above 0.5 if disturbed events count less."""
    weights = np.concatenate([video.weights["image"] for video in videos])
    labels = np.concatenate([disturbed[video.name][: len(video.scores)] for video in videos])
    return float(roc_auc_score(labels, weights))


def main() -> None:
    """Print the AUC of ŵ_i of each checkpoint, and their mean."""
    parser = command_parser(
        __doc__, "python -m demo.disturbances --ckpt_path checkpoints/demo/fusion_seed0.pth",
        usage="--ckpt_path FILE …", prog="python -m demo.disturbances",
    )  # fmt: skip
    parser.add_argument("--ckpt_path", nargs="+", required=True, metavar="FILE", help="checkpoints of a fusion model")
    runs = open_runs(parser.parse_args().ckpt_path, {"dataset": DATASET.name}, pick_device("auto"))
    disturbed = disturbed_snippets()
    values = []
    for run in runs:
        if run.modality != "fusion" or np.isnan(run.videos[0].weights["image"]).any():
            raise InputError(f"{run.path} has no fusion weights. Give checkpoints of another --fusion.")
        values.append(weight_auc(run.videos, disturbed))
        print(f"{run.path.name}: {100 * values[-1]:.2f}")
    share = np.concatenate(list(disturbed.values())).mean()
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    print(f"AUC (%) of ŵ_i on disturbed snippets ({share:.0%} of all): {100 * statistics.fmean(values):.2f}{spread}")


if __name__ == "__main__":
    run_command(main)
