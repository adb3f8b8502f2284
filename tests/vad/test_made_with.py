"""Embeddings made otherwise than the profile says are told of below every table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vad.made_with import embedding_remarks
from vad.profile import DEFAULT, RELEASED
from vad.samples import Sample

MADE = {"tail": "whole", "event_threshold": 10, "event_clamp": 16, "event_scaling": "block"}


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """One video in a class folder below rgb/ and event_thr_10/, each with a record whose first lines do not count."""
    paths = []
    for folder, settings in (("rgb", {"tail": "whole"}), ("event_thr_10", MADE)):
        (tmp_path / folder / "Arson").mkdir(parents=True)
        failed = {"video": "a.mp4", "crops": [], "settings": {"tail": "released"}}
        lines = [json.dumps(failed), '{"torn', json.dumps({"video": "b.mp4", "crops": [5], "settings": settings})]
        (tmp_path / folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
        paths.append(tmp_path / folder / "Arson" / "b__5.npy")
    return [Sample("b", "Arson", True, 5, (paths[0], paths[1]), 4)]


def test_what_differs_is_said_by_modality(samples):
    assert embedding_remarks(samples, DEFAULT) == (
        "The event embeddings were made with event_clamp 16, event_scaling block (profile default: 10, clamp).",
    )
    assert embedding_remarks(samples, replace(DEFAULT, event_clamp=16, event_scaling="block")) == ()
    assert [remark.split()[1] for remark in embedding_remarks(samples, RELEASED)] == ["image", "event"]  # their tail


def test_embeddings_without_a_record_and_streams_that_are_not_read_are_passed_over(samples):
    image, event = samples[0].paths
    assert embedding_remarks([replace(samples[0], paths=(image, None))], DEFAULT) == ()
    (event.parent.parent / "manifest.jsonl").unlink()
    assert embedding_remarks(samples, DEFAULT) == ()
    assert embedding_remarks([], DEFAULT) == ()
