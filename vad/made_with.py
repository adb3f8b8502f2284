"""How embeddings were made, by extraction's own record beside them, against what a profile says of extraction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vad.catalog import MANIFEST
from vad.profile import Profile
from vad.samples import Sample

SWITCHES = ("tail", "event_threshold", "event_clamp", "event_scaling")


def embedding_remarks(samples: Sequence[Sample], switches: Profile) -> tuple[str, ...]:
    """A sentence for each modality whose embeddings were made otherwise than the profile says.

    The numbers of a network depend on it, and no flag of training or evaluation can change it. Embeddings without
    a record (the released ones) are passed over.
    """
    remarks = []
    for modality, path in zip(("image", "event"), samples[0].paths if samples else (), strict=False):
        manifest = _manifest(path) if path else None
        made = _settings(manifest) if manifest else {}
        odd = {name: made[name] for name in SWITCHES if name in made and made[name] != getattr(switches, name)}
        if odd:
            here = ", ".join(f"{name} {value}" for name, value in odd.items())
            said = ", ".join(str(getattr(switches, name)) for name in odd)
            remarks.append(f"The {modality} embeddings were made with {here} (profile {switches.name}: {said}).")
    return tuple(remarks)


def _manifest(embedding: Path) -> Path | None:
    """The record of an embedding's folder: beside it, or one class folder above."""
    return next((path for folder in embedding.parents[:2] if (path := folder / MANIFEST).is_file()), None)


def _settings(manifest: Path) -> Mapping[str, object]:
    """Settings of the first video that was written; extraction keeps them the same for a whole folder."""
    try:
        with manifest.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:  # torn by a kill
                    continue
                if isinstance(record, dict) and record.get("crops") and isinstance(record.get("settings"), dict):
                    return record["settings"]
    except OSError:
        pass  # unreadable: nothing is known
    return {}
