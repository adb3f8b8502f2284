"""AUC of causal scoring against that of offline scoring: what the lost future and the carried state change.

    python -m tests.benchmarks.live checkpoints/demo/fusion_seed*.pth

Rows: offline; causal with windows of 1, 8, 16, 32 and 64 snippets and of the training; then all test videos
joined in random order to one stream in which nothing is reset, as from a camera. There the filter is also reset
every T snippets (T: window of the training), as offline. Values are in percent, one column per checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from model import IEFVAD
from vad.evaluation import open_runs
from vad.metrics import roc_auc, samples
from vad.scoring import CausalScorer, ScoredVideo

CPU = torch.device("cpu")
WINDOWS = (1, 8, 16, 32, 64)


def causal(
    model: IEFVAD, videos: Sequence[dict[str, torch.Tensor]], window: int, joined: bool = False, every: int = 0
) -> list[np.ndarray]:
    """Return the causal scores (S,) of each video: stream → embeddings (S, D).

    joined: reset nothing between videos; every: reset the filter, but not the window, every so many snippets.
    """
    scorer, t, scores = CausalScorer(model, window, CPU), 0, []
    for streams in videos:
        rows = []
        for k in range(min(map(len, streams.values()))):
            if every and t % every == 0:
                scorer._state = None
            rows.append(scorer({name: x[k] for name, x in streams.items()}).score)
            t += 1
        scores.append(np.array(rows))
        if not joined:
            scorer.reset()
    return scores


def offline_joined(model: IEFVAD, videos: Sequence[dict[str, torch.Tensor]], T: int) -> list[np.ndarray]:
    """Return the offline scores of videos joined to one stream, in windows of T snippets."""
    streams = {name: torch.cat([video[name] for video in videos]) for name in videos[0]}
    parts = {name: x.split(T) for name, x in streams.items()}
    with torch.no_grad():
        logits = [
            model(*(parts[name][k][None] if name in parts else None for name in ("image", "event"))).logits.flatten()
            for k in range(len(next(iter(parts.values()))))
        ]
    lengths = [len(next(iter(video.values()))) for video in videos]
    return [x.numpy() for x in torch.cat(logits).sigmoid().split(lengths)]


def rows(path: str) -> Iterator[tuple[str, float]]:
    """Yield name and AUC of each kind of scoring of one checkpoint."""
    (run,) = open_runs([path], {}, CPU)
    # lists are sorted by class, and the classes of the neighbours would reveal that of a video
    order = np.random.default_rng(0).permutation(len(run.test.videos))
    test = replace(run.test, videos=[run.test.videos[k] for k in order])
    model, T = run.model.eval(), run.options.window
    videos = [
        {name: torch.from_numpy(test.embeddings(v.crops[0], name))[: v.snippets] for name in v.crops[0].streams}
        for v in test.videos
    ]

    def auc(scores: Sequence[np.ndarray]) -> float:
        cut = (s[: len(v.scores)] for s, v in zip(scores, scored, strict=True))
        return 100 * roc_auc(samples([replace(v, scores=s) for s, v in zip(cut, scored, strict=True)]))

    scored: list[ScoredVideo] = test.score(model, CPU, progress=False)
    yield "offline", auc([v.scores for v in scored])
    for window in dict.fromkeys((*WINDOWS, T)):
        yield f"causal, window {window}", auc(causal(model, videos, window))
    yield "joined, offline", auc(offline_joined(model, videos, T))
    for window in dict.fromkeys((*WINDOWS, T)):
        yield f"joined, causal, window {window}", auc(causal(model, videos, window, joined=True))
        yield f"joined, causal, window {window}, reset every T", auc(causal(model, videos, window, True, T))


def main() -> None:
    """Print a table of AUCs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", metavar="FILE", help="checkpoints with their data sets")
    table = [dict(rows(path)) for path in parser.parse_args().checkpoints]
    for name in table[0]:
        values = np.array([column[name] for column in table])
        change = values - np.array([column["joined, offline" if "joined" in name else "offline"] for column in table])
        print(f"{name:46s} {' '.join(f'{v:6.2f}' for v in values)}   mean {values.mean():6.2f}"
              f"   against offline {change.mean():+6.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
