"""The audit of lists, embeddings, ground truth and videos: what does not fit, said before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vad.audit_files import Embeddings, audit_embeddings
from vad.audit_material import LISTS, AuditRequest, Material, find_feature_root, read_lists, read_official, video_names
from vad.audit_report import Audit, Row, none_of, not_checked
from vad.audit_truth import audit_frames, audit_truth
from vad.catalog import IMAGE_FOLDER, Dataset
from vad.errors import InputError
from vad.splits import scan, split_files

__all__ = ["AuditRequest", "audit"]

UNKNOWN = "?"  # stands for the class of a video whose label is not in the catalogue


def audit(ask: AuditRequest) -> Audit:
    """Read what is there and check it all.

    Raises InputError where a folder that was named does not hold what it should, a file cannot be read as what it
    is, or there is nothing to audit at all; what is merely wrong inside is a finding.
    """
    split_files(ask.dataset, ask.split)
    root = ask.list_root or ask.dataset.list_root
    material = Material()
    read_lists(ask, root, material)
    read_official(ask, material)
    feature_root = find_feature_root(ask, root, material)
    videos = video_names(ask, material)
    if not material.items and not material.official and feature_root is None and not videos:
        raise InputError(f"{root}: no train.csv or test.csv; give --list_root, or make them with list/generate_file.py")
    report = Audit(ask.dataset.title, ask.dataset.name, ask.split, material.sources, material.rows)
    report.rows += _counts(ask, material)
    report.rows += _membership(ask, material)
    report.rows += _neither(ask, material, feature_root, videos)
    embeddings = Embeddings()
    if material.items and feature_root:
        embeddings = audit_embeddings(material.items, ask.dataset, feature_root, ask.values, ask.progress)
    report.rows += embeddings.rows or [not_checked("embeddings", "no --feature_root with rgb/ in it")]
    test = material.items.get("test", [])
    gt_path = ask.gt_path or root / "gt.npy"
    report.rows += audit_truth(ask.dataset, ask.split, ask.annotation_root, gt_path, test, embeddings.snippets)
    names = {ask.dataset.key(item.video) for item in test} or set(material.official.get("test", []))
    report.rows += audit_frames(ask.dataset, names, embeddings, ask.frame_counts)
    return report


def _counts(ask: AuditRequest, material: Material) -> list[Row]:
    """Videos of each list and class beside the catalogue's numbers, or the number in the data set's own list."""
    rows = []
    census = ask.dataset.class_videos.get(ask.split, {})
    for n, which in enumerate(LISTS):
        if which not in material.items:
            rows.append(not_checked(f"{which} videos", "no list"))
            continue
        expected = ask.dataset.videos[ask.split][n] if ask.split in ask.dataset.videos else None
        if expected is None and which in material.official:
            expected = len(material.official[which])
        labels = {item.video: item.label for item in material.items[which]}
        rows.append(_count(f"{which} videos", len(labels), expected))
        found = Counter(_class(ask.dataset, label) for label in labels.values())
        for name in dict.fromkeys([ask.dataset.normal, *ask.dataset.classes, *census, *sorted(found)]):
            there = census[name][n] if name in census else 0 if census else None
            if found[name] or there:
                rows.append(_count(f"  {which}, {_title(ask.dataset, name)}", found[name], there))
    return rows


def _class(dataset: Dataset, label: str) -> str:
    try:
        return dataset.class_key(label)
    except InputError:
        return UNKNOWN


def _title(dataset: Dataset, name: str) -> str:
    full = "normal" if name == dataset.normal else dataset.classes.get(name, name)
    return full if full.lower() == name.lower() else f"{full} ({name})"


def _count(check: str, found: int, expected: int | None) -> Row:
    if expected is None or found == expected:
        return Row(check, found, expected)
    more = found - expected
    return Row(check, found, expected, True, f"{more} too many" if more > 0 else f"{-more} missing")


def _membership(ask: AuditRequest, material: Material) -> list[Row]:
    """Who stands in both lists, and who stands on the other side of the data set's own split."""
    names = {
        which: {ask.dataset.key(item.video): item.video for item in rows} for which, rows in material.items.items()
    }
    train, test = names.get("training", {}), names.get("test", {})
    rows = []
    if len(names) == 2:
        rows.append(none_of("videos in both lists", [train[key] for key in train if key in test]))
    known = "the released split trains on them" if ask.split == "released" else ""
    if train:
        leaked = [train[key] for key in train if key in material.moved]
        rows.append(none_of("official test videos used for training", leaked, known))
    if test:
        # a video may be known from both sides only where the data set's lists contradict each other
        returned = [test[key] for key in test if key in material.returned and key not in material.moved]
        known = "the released split tests on them" if ask.split == "released" else ""
        rows.append(none_of("official training videos used for testing", returned, known))
    both = [n for n in material.official.get("training", []) if n in set(material.official.get("test", []))]
    if len(material.official) == 2:
        rows.append(none_of("videos in both of the data set's own lists", both))
    return rows


def _neither(ask: AuditRequest, material: Material, feature_root: Path | None, videos: set[str]) -> list[Row]:
    """Videos that exist, or that the data set lists, and that neither train.csv nor test.csv names."""
    if not material.items:
        return []
    key = ask.dataset.key
    listed = {key(item.video) for rows in material.items.values() for item in rows}
    rows = []
    for which, names in material.official.items():
        rows.append(none_of(f"official {which} videos in neither list", [n for n in names if n not in listed]))
    embedded: set[str] = set()
    if feature_root:
        try:
            found = scan(feature_root / IMAGE_FOLDER)
        except InputError as error:
            rows.append(Row("tree of image embeddings", "broken", None, True, str(error)))
        else:
            embedded = {key(name) for name in found}
            rows.append(none_of("embedded videos in neither list", [n for n in found if key(n) not in listed]))
    if videos:
        rows.append(none_of("video files in neither list", [n for n in sorted(videos) if key(n) not in listed]))
        there = {key(name) for name in videos}
        rows.append(none_of("listed videos without a video file", sorted(listed - there)))
        if embedded:
            rows.append(none_of("video files without embeddings", sorted(there - embedded)))
    return rows or [not_checked("videos in neither list", "no official list, embeddings or videos")]
