"""Probes of several runs: each against itself unmasked, and a verdict only where it can be told from chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from vad.catalog import DEMO
from vad.degradation import Degradation, check_alike, degradation_table
from vad.errors import InputError
from vad.figures_probes import draw_weight_fall
from vad.profile import DEFAULT
from vad.protocol import Protocol
from vad.settings import Settings


def probes(runs: int) -> Degradation:
    """ŵ_i = 0.5 + seed/100 unmasked, 0.01 higher with the image masked; ŵ_e is 0.02 lower with the event masked."""
    tables = {}
    for seed in range(runs):
        clean = 0.5 + seed / 100
        rows = [("CLEAN", 0.0, clean), ("EV_NOISE", 0.5, clean + 0.02), ("IMG_NOISE", 0.5, clean + 0.01)]
        tables[seed] = pd.DataFrame([
            {"masked": masked, "level": level, "AUC": 0.9, "brier": 0.1, "kl": 0.0, "w_image": w, "w_event": 1 - w}
            for masked, level, w in rows
        ])
    return Degradation(tables)


def table_of(runs: int):
    protocol = Protocol(DEMO, "default", "official", (5,), "last", "whole", runs=runs)
    return degradation_table(probes(runs), protocol, axis="feature", seed=4)


def test_the_change_is_that_of_the_masked_modality_and_the_verdict_names_the_wrong_way():
    """Six runs that agree: 2 of the 64 sign patterns are as far from zero, p = 0.031."""
    table = table_of(6)
    assert [row[:2] for row in table.rows] == [("CLEAN", "0.00"), ("EV_NOISE", "0.50"), ("IMG_NOISE", "0.50")]
    assert table.rows[0][-3:] == ("-", "-", "-")
    assert table.rows[1][-3:] == ("-0.0200", "6 of 6", "0.0312")
    assert table.rows[2][-3:] == ("+0.0100", "0 of 6", "0.0312")
    assert table.rows[0][5] == "0.5250 ± 0.0187"  # std of 0, 1, …, 5 hundredths with n − 1
    assert "image masked at 0.5: ŵ_i rises: the wrong way (+0.0100)." in table.notes
    assert "event masked at 0.5: ŵ_e falls, as it should (-0.0200)." in table.notes
    assert "±: standard deviation over runs (n − 1). p: sign-flip test of Δŵ over runs." in table.notes
    assert "6 runs" in table.protocol and "mask seed 4" in table.protocol


def test_two_runs_that_agree_are_no_verdict():
    assert "image masked at 0.5: ŵ_i cannot be judged from 2 runs (+0.0100)." in table_of(2).notes


def opened(seed: int | None, path: str, **switches: object) -> SimpleNamespace:
    settings = Settings(DEMO, replace(DEFAULT, **switches), DEMO.recipe)
    return SimpleNamespace(path=Path(path), seed=seed, weights="last", settings=settings)


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged():
    check_alike([opened(0, "a.pth"), opened(1, "b.pth")])
    with pytest.raises(InputError, match=r"b\.pth and a\.pth differ in more than their seed \(nu 8\.0 and 2\.0\)"):
        check_alike([opened(0, "a.pth"), opened(1, "b.pth", nu=2.0)])
    with pytest.raises(InputError, match=r"a\.pth and b\.pth are both the run of seed 0"):
        check_alike([opened(0, "a.pth"), opened(0, "b.pth")])
    # weights of one run, but not the same ones: what is wrong is not that a run is named twice
    best = SimpleNamespace(**{**vars(opened(0, "b.pth")), "weights": "best"})
    with pytest.raises(InputError, match=r"differ in more than their seed \(weights last and best\)"):
        check_alike([opened(0, "a.pth"), best])
    with pytest.raises(InputError, match=r"b\.pth does not say which seed it was trained with"):
        check_alike([opened(None, "a.pth"), opened(None, "b.pth")])


def test_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    changes = {m: {level: list(rng.normal(size=5)) for level in (0.1, 0.5)} for m in ("image", "event")}
    png, pdf = draw_weight_fall(changes, tmp_path / "fall", title="made up")
    assert pdf.read_bytes().startswith(b"%PDF") and cv2.imread(str(png)).std() > 10
