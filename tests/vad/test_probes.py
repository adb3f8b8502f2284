"""Masking probes, on a scorer small enough to know the answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad import probes
from vad.catalog import UCFCRIME, XD
from vad.errors import InputError
from vad.scoring import ScoredVideo

S, D = 24, 40
ROOT = Path(__file__).resolve().parents[2]
PAPER = json.loads((ROOT / "vad" / "paper_tables.json").read_text())


def embeddings() -> dict[str, dict[str, np.ndarray]]:
    """Six videos of two modalities, no value zero."""
    rng = np.random.default_rng(0)
    return {
        f"v{number}": {m: (rng.random((S + number, D)) + 0.5).astype(np.float32) for m in ("image", "event")}
        for number in range(6)
    }


def scorer(labels: tuple[str, str]) -> Callable[[probes.Transform | None], list[ScoredVideo]]:
    """A 'model' whose score and ŵ_i are read off the embeddings: ŵ_i = |image| / (|image| + |event|)."""
    data = embeddings()

    def score(transform: probes.Transform | None) -> list[ScoredVideo]:
        videos = []
        for number, (name, both) in enumerate(data.items()):
            image, event = (
                both[m] if transform is None else transform(m, both[m], name) for m in ("image", "event")
            )
            weight = (image + 1e-3) / (image + event + 2e-3)
            frames = np.zeros(16 * len(image), np.uint8)
            if number % 2:
                frames[20:100] = 1
            mean = weight.mean(1)
            videos.append(ScoredVideo(
                name, labels[number % 2], np.clip(image.mean(1) - 0.4, 0, 1), mean, 1 - mean, weight.mean(0), frames
            ))
        return videos

    return score


@pytest.fixture(scope="module")
def found() -> probes.Probes:
    return probes.run_probes(scorer(("Normal", "Abuse")), UCFCRIME, seed=1)


@given(share=st.floats(0, 1), length=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99))
def test_mask_hits_exactly_its_share(share: float, length: int, width: int, seed: int) -> None:
    ones = np.ones((length, width), np.float32)
    feature = probes.mask(ones, share, "feature", np.random.default_rng(seed))
    assert set(np.unique(feature)) <= {0, 1}
    assert (feature == feature[0]).all()  # the same dimensions in every snippet
    assert (feature[0] == 0).sum() == round(share * width)
    time = probes.mask(ones, share, "time", np.random.default_rng(seed))
    assert (time == time[:, :1]).all()
    assert (time[:, 0] < 1).sum() == round(share * length)
    assert time.min() == pytest.approx(0.01 if round(share * length) else 1)
    assert (ones == 1).all()  # the input is not touched
    assert time.dtype == feature.dtype == np.float32


def test_transform_masks_one_modality_and_depends_on_nothing_but_its_key() -> None:
    embedding = np.ones((5, 64), np.float32)
    transform = probes.masking("image", 0.3, "feature", 7)
    assert transform("event", embedding, "a") is embedding
    first = transform("image", embedding, "a")
    transform("image", embedding, "b")
    assert np.array_equal(transform("image", embedding, "a"), first)  # whatever was asked in between
    assert np.array_equal(probes.masking("image", 0.3, "feature", 7)("image", embedding, "a"), first)
    others = [
        transform("image", embedding, "b"),
        probes.masking("image", 0.3, "feature", 8)("image", embedding, "a"),
        probes.masking("event", 0.3, "feature", 7)("event", embedding, "a"),
    ]
    assert not any(np.array_equal(first, other) for other in others)


def test_the_choice_is_the_same_in_every_process() -> None:
    """Python's own hash() changes from process to process; the choice must not."""
    code = (
        "import numpy as np; from vad.probes import masking; "
        "masked = masking('image', 0.1, 'feature', 0)('image', np.ones((1, 99)), 'Abuse028'); "
        "print(np.flatnonzero(masked[0] == 0).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = probes.masking("image", 0.1, "feature", 0)("image", np.ones((1, 99)), "Abuse028")
    assert outputs == {f"{np.flatnonzero(here[0] == 0).tolist()}\n"}


@pytest.mark.parametrize(("dataset", "table"), [(UCFCRIME, "table6"), (XD, "table7")])
def test_columns_and_rows_are_the_papers(dataset: object, table: str) -> None:
    labels = ("Normal", "Abuse") if dataset is UCFCRIME else ("A", "B1-0-0")
    frame = probes.run_probes(scorer(labels), dataset).table
    assert list(frame.columns) == PAPER[table]["columns"]
    assert frame[["masked", "level"]].values.tolist() == [row[:2] for row in PAPER[table]["rows"]]


def test_share_zero_is_clean() -> None:
    for axis in probes.AXES:
        result = probes.run_probes(scorer(("Normal", "Abuse")), UCFCRIME, axis=axis, levels=(0.0,))
        numbers = result.table.drop(columns=["masked", "level"]).to_numpy(float)
        assert np.array_equal(numbers[1:], np.tile(numbers[0], (2, 1)))
        assert all((change == 0).all() for change in result.weight_change.values())


def test_masking_moves_the_weight_away_from_the_masked_modality(found: probes.Probes) -> None:
    """The scorer trusts what is large: zeroing image dimensions must lower ŵ_i, zeroing event dimensions raise it."""
    frame = found.table
    clean = frame.w_image[0]
    image, event = (frame[frame.masked == name] for name in ("IMG_NOISE", "EV_NOISE"))
    assert (np.diff([clean, *image.w_image]) < 0).all()
    assert (np.diff([clean, *event.w_image]) > 0).all()
    assert np.allclose(frame.w_image + frame.w_event, 1)
    assert (event.kl == 0).all()  # this scorer's score knows the image only
    assert (np.diff([0, *image.kl]) > 0).all()


def test_weight_change_is_the_tables_change_dimension_by_dimension(found: probes.Probes) -> None:
    assert list(found.weight_change) == [(m, level) for m in ("event", "image") for level in probes.LEVELS]
    frame = found.table
    for (modality, level), change in found.weight_change.items():
        assert change.shape == (D,)
        row = frame[(frame.masked == probes.MASKED[modality]) & (frame.level == level)].iloc[0]
        assert change.mean() == pytest.approx(row.w_image - frame.w_image[0], abs=1e-6)


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"axis": "space"}, "unknown mask axis 'space'"),
    ({"levels": (0.1, 5)}, "a share of 5 cannot be masked"),
    ({"levels": (0.1, 0.3, 0.1)}, "the level 0.1 is given twice"),
])
def test_bad_input_is_refused_before_scoring(arguments: dict[str, object], sentence: str) -> None:
    def never(transform: probes.Transform | None) -> list[ScoredVideo]:
        raise AssertionError("scored before the arguments were checked")

    with pytest.raises(InputError, match=sentence):
        probes.run_probes(never, UCFCRIME, **arguments)
