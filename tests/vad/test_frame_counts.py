"""Frames predicted from what is known of lengths: against counting every length that is possible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vad.catalog import UCFCRIME, snippet_count
from vad.errors import InputError
from vad.frame_counts import frames_of, in_words, predict, read_counts


@pytest.mark.parametrize("snippets", [0, 1, 2, 31, 32, 33, 34, 64, 65])
@pytest.mark.parametrize("tail", ["whole", "released", None])
def test_a_video_of_so_many_snippets_has_so_many_frames(snippets: int, tail: str | None) -> None:
    tails = [tail] if tail else ["whole", "released"]
    possible = [f for f in range(1200) if any(snippet_count(f, rule) == snippets for rule in tails)]
    assert frames_of(snippets, tail) == (possible[0], possible[-1])


def test_a_sum_of_ranges_holds_every_possible_sum() -> None:
    lengths = [frames_of(33, "whole"), (1040, 1040), frames_of(5, "whole")]
    for tail in ("whole", "released"):
        sums = {
            16 * (snippet_count(a, tail) + snippet_count(1040, tail) + snippet_count(b, tail))
            for a in range(lengths[0][0], lengths[0][1] + 1)
            for b in range(lengths[2][0], lengths[2][1] + 1)
        }
        assert predict(lengths, tail) == (min(sums), max(sums))
    assert in_words((16, 16)) == 16
    assert in_words((1600, 3200)) == "1,600 … 3,200"


def test_counts_from_json_and_from_masks(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    rows = [{"video": "Abuse/a_x264.mp4", "frames": 50}, {"video": "b", "chunks": 2}, {"video": "c", "frames": None}]
    path.write_text(json.dumps(rows))
    assert read_counts(path, UCFCRIME) == {"a": (50, 50), "b": (32, 47)}
    np.save(tmp_path / "d_x264.npy", np.zeros(40))
    assert read_counts(tmp_path, UCFCRIME) == {"d": (40, 40)}


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '[{"video": 1, "frames": 2}]', '[{"video": "a"}]', '[{"video": "a", "frames": -1}]',
             '[{"video": "a", "chunks": true}]', '[{"video": "a", "chunks": 1.5}]', "[" * 100_000],
)  # fmt: skip
def test_broken_counts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"counts\.json"):
        read_counts(path, UCFCRIME)
