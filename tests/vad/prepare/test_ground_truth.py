"""gt.npy: made from the table, and refused if it does not belong to the test videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import snippet_count
from vad.data import Video
from vad.datasets import Dataset, load_dataset
from vad.files import InputError
from vad.options import preset
from vad.prepare.ground_truth import (
    load_ground_truth,
    make_ground_truth,
    provenance_notes,
    recorded_encoders,
    recorded_tail,
)


def make(street) -> Path:
    """Make the ground truth of c2 (48 frames) and n2 (16 frames), and a manifest with one incomplete line."""
    street.write("annotations.csv", "video,label,official,intervals\nn2,Normal,test,\nc2,Crash,test,10-20 40-49\n")
    street.embed("Crash/c2", 0, 5)
    street.embed("Normal/n2", snippets=1)
    rows = ["rgb/Crash/c2__5.npy,Crash", "rgb/Normal/n2__5.npy,Normal", "rgb/Crash/c2__0.npy,Crash"]
    street.write("lists/test.csv", "\n".join(["path,label", *rows]) + "\n")
    lines = [json.dumps({"video": f"{name}.mp4", "crops": [5], "settings": {"tail": "whole"}}) for name in ("c2", "n2")]
    street.write("rgb/manifest.jsonl", "\n".join([*lines, '{"vid']))
    street.make_gt(feature_root=street.root)
    return street.lists / "gt.npy"


def test_ground_truth_has_order_of_list_and_metadata(street) -> None:
    path = make(street)
    truth = np.load(path)
    assert truth.dtype == np.uint8
    assert np.flatnonzero(truth).tolist() == [*range(10, 20), *range(40, 48)]  # 48 frames of c2, then 16 of n2
    metadata = json.loads(path.with_suffix(".json").read_text())
    assert metadata["videos"] == [
        {"name": "c2", "frames": 48, "positive": 18},
        {"name": "n2", "frames": 16, "positive": 0},
    ]
    assert metadata["tail"] == "whole"
    assert metadata["annotation"]["name"] == "annotations.csv"
    assert set(metadata) == {"videos", "tail", "annotation", "sha256"}
    labels, notes = load_ground_truth(path, [("c2", 3), ("n2", 1)], street.dataset)
    assert [len(part) for part in labels] == [48, 16]
    assert (np.concatenate(labels) == truth).all()
    assert notes == []
    summary = street.make_gt(feature_root=street.root)
    assert summary[0] == "street, annotations.csv (official split): 2 videos, 64 frames, 18 anomalous"
    assert summary[-1].endswith("unchanged")


def test_masks_replace_the_table(street) -> None:
    make(street)
    np.savez(street.root / "masks.npz", c2=np.arange(48) == 7)
    summary = street.make_gt(feature_root=street.root, masks=street.root / "masks.npz")
    assert summary[0] == "street, masks.npz (masks): 2 videos, 64 frames, 1 anomalous"
    assert np.flatnonzero(np.load(street.lists / "gt.npy")).tolist() == [7]


def test_refused_input_keeps_the_old_ground_truth(street) -> None:
    path = make(street)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    street.embed("Crash/c2", 0, snippets=2)
    with pytest.raises(InputError, match="has 2 snippets, but another crop has 3"):
        street.make_gt(feature_root=street.root)
    street.embed("Crash/c2", 0, snippets=0)
    with pytest.raises(InputError, match="contains no snippets"):
        street.make_gt(feature_root=street.root)
    street.embed("Crash/c2", 0)
    street.write("annotations.csv", "video,label,official,intervals\nc2,Crash,test,20-10\n")
    with pytest.raises(InputError, match="'20-10' ends before it starts"):
        street.make_gt(feature_root=street.root)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([("n2", 1), ("c2", 3)], "video 1 is c2 with 48 frames, but n2 with 16 frames"),
        ([("c2", 3), ("n2", 2)], "video 2 is n2 with 16 frames, but n2 with 32 frames"),
        ([("c2", 3)], "video 2 is n2 with 16 frames, but no video with 0 frames in the test list"),
        ([("c2", 3), ("n2", 1), ("n3", 1)], "video 3 is no video with 0 frames, but n3 with 16 frames"),
    ],
)
def test_videos_that_differ_from_metadata_are_refused(street, videos: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_ground_truth(make(street), videos, street.dataset, insist=True)


def test_array_that_differs_from_its_digest_is_refused(street) -> None:
    path = make(street)
    np.save(path, np.load(path)[::-1])
    with pytest.raises(InputError, match=r"is not the array that gt.json was written for"):
        load_ground_truth(path, [("c2", 3), ("n2", 1)], street.dataset)
    street.write("lists/gt.json", "{}")
    with pytest.raises(InputError, match="not the metadata of a ground truth"):
        load_ground_truth(path, [("c2", 3), ("n2", 1)], street.dataset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no ground truth\. Make it with"),
        (b"no array", r"not a .npy array"),
        (np.full(16, 0.5), "other values than 0 and 1"),
        (np.zeros((1, 16)), "must have one number per frame"),
        (np.zeros(48), "has 48 frames, but the 2 test videos have 64"),
    ],
)
def test_invalid_ground_truth_is_refused(street, content: object, message: str) -> None:
    path = street.root / "gt.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(InputError, match=message):
        load_ground_truth(path, [("c2", 3), ("n2", 1)], street.dataset)


# arrays without metadata are compared with the table: c2 is anomalous in 10-20 of 64 frames, n2 (50) is normal


def save(street, *ones: int, frames: int = 64 + 48) -> Path:
    """Save an array of c2 and then n2, with ones at the given frames."""
    truth = np.zeros(frames, np.uint8)
    truth[list(ones)] = 1
    np.save(street.root / "gt.npy", truth)
    return street.root / "gt.npy"


VIDEOS = [("c2", 4), ("n2", 3)]


def test_array_that_agrees_with_the_table_is_accepted(street) -> None:
    labels, notes = load_ground_truth(save(street, *range(10, 20)), VIDEOS, street.dataset)
    assert ([len(part) for part in labels], notes) == ([64, 48], [])
    _, notes = load_ground_truth(save(street, *range(12, 20)), VIDEOS, street.dataset)
    assert len(notes) == 1
    assert notes[0].endswith("differs from annotations.csv in 2 frames of 1 videos")


@pytest.mark.parametrize(
    ("ones", "names"),
    [
        ((), "c2"),  # no anomalous frames
        ((15, 70), "n2"),  # a normal video has an anomalous frame
        ((30, 31), "c2"),  # none of the anomalous frames of the table
        ((70, 71), "c2, n2"),
    ],
)
def test_array_that_contradicts_the_table_is_refused(street, ones: tuple[int, ...], names: str) -> None:
    path = save(street, *ones)
    with pytest.raises(InputError, match=rf"of 2 videos contradict annotations.csv \({names}\).*--insist_gt"):
        load_ground_truth(path, VIDEOS, street.dataset)
    _, notes = load_ground_truth(path, VIDEOS, street.dataset, insist=True)
    assert notes[0].endswith("contradict it (accepted by --insist_gt)")


def test_array_one_snippet_shorter_is_aligned(street) -> None:
    """Published arrays lack the last snippet of c2, whose 64 frames are whole snippets, but not of n2 (50)."""
    path = save(street, *range(10, 20), frames=48 + 48)
    labels, notes = load_ground_truth(path, VIDEOS, street.dataset)
    assert [len(part) for part in labels] == [48, 48]
    assert notes == [f"{path} is one snippet shorter than the embeddings of 1 videos; their scores are cut to fit"]
    with pytest.raises(InputError, match="has 80 frames, but the 2 test videos have 112"):
        load_ground_truth(save(street, 10, frames=80), VIDEOS, street.dataset)


def test_array_one_snippet_longer_is_cut(street) -> None:
    labels, notes = load_ground_truth(save(street, *range(10, 20)), [("c2", 3), ("n2", 3)], street.dataset)
    assert [len(part) for part in labels] == [48, 48]
    assert notes[0].endswith("one snippet longer than the embeddings of 1 videos; their labels are cut to fit")


# published arrays


def counts(realdata: Path, name: str) -> list[tuple[str, int | None]]:
    """Return videos with their chunks or frames, in the order of the array."""
    rows = json.loads((realdata / "gt" / f"{name}.json").read_text())
    return [(row["video"], row.get("chunks", row.get("frames"))) for row in rows]


def published(realdata: Path, name: str, tmp_path: Path) -> Path:
    """Save the published array as gt.npy without metadata."""
    path = tmp_path / "published" / "gt.npy"
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.load(realdata / "gt" / f"{name}.npz", allow_pickle=False)["gt"])
    return path


def remade(dataset: Dataset, split: str, videos: list[tuple[str, int]], folder: Path) -> np.ndarray:
    """Return the ground truth made for placeholder embeddings of these videos."""
    rows = ["path,label"]
    for name, snippets in videos:
        label = dataset.find(name).label
        (folder / "rgb" / label).mkdir(parents=True, exist_ok=True)
        np.save(folder / f"rgb/{label}/{name}__5.npy", np.zeros((snippets, 1), np.float16))
        rows.append(f'"rgb/{label}/{name}__5.npy",{label}')
    (folder / "test.csv").write_text("\n".join(rows) + "\n")
    make_ground_truth(dataset, split, folder / "test.csv", folder, feature_root=folder)
    return np.load(folder / "gt.npy")


@pytest.mark.parametrize(
    ("folder", "split", "array", "order", "frames", "anomalous"),
    [
        ("ucf", "official", "ucf_gt_290.published", "ucf_test_290", 1_109_680, 84_128),
        ("xd", "official", "xd_gt_800.published", "xd_test_800", 2_330_384, 537_805),
        ("shang", "released", "shang_gt.released", "shang_test_197_frames", 139_568, 7_245),
    ],
)
def test_published_arrays_are_reproduced_bit_for_bit(
    realdata: Path, tmp_path: Path, folder: str, split: str, array: str, order: str, frames: int, anomalous: int
) -> None:
    dataset, videos = load_dataset(folder), counts(realdata, order)
    if folder == "shang":  # the published length follows the released tail rule
        videos = [(name, snippet_count(count, "released")) for name, count in videos]
    truth = remade(dataset, split, videos, tmp_path)
    path = published(realdata, array, tmp_path)
    assert (len(truth), int(truth.sum())) == (frames, anomalous)
    assert np.array_equal(truth, np.load(path))
    labels, notes = load_ground_truth(path, videos, dataset)
    assert notes == []
    assert np.array_equal(np.concatenate(labels), truth)


def msad_videos(realdata: Path, dataset: Dataset, order: list[str]) -> list[tuple[str, int]]:
    """Return S of MSAD's test videos. The known sum of the 120 normal ones, 5,475, is divided evenly."""
    frames = {dataset.key(name): count for name, count in counts(realdata, "msad_test_241_frames")}
    parts = iter(np.diff(np.linspace(0, 5_475, 121).astype(int)))
    known = {name: int(next(parts)) if count is None else count // 16 for name, count in frames.items()}
    return [(name, known[dataset.key(name)]) for name in order]


def test_published_msad_array_is_reproduced(realdata: Path, tmp_path: Path) -> None:
    dataset = load_dataset("msad")
    order = [name for name, _ in counts(realdata, "msad_test_241_frames")]
    truth = remade(dataset, "released", msad_videos(realdata, dataset, order), tmp_path)
    assert (len(truth), int(truth.sum())) == (144_144, 33_248)
    assert np.array_equal(truth, np.load(published(realdata, "msad_gt.released", tmp_path)))


@pytest.mark.parametrize("folder", ["ucf", "shang", "msad", "xd"])
def test_published_arrays_in_table_order_are_refused(realdata: Path, tmp_path: Path, folder: str) -> None:
    """The length is right, but test.csv has the order of the table, which is not that of the array."""
    split, array, order = {
        "ucf": ("official", "ucf_gt_290.published", "ucf_test_290"),
        "xd": ("official", "xd_gt_800.published", "xd_test_800"),
        "shang": ("released", "shang_gt.released", "shang_test_197_frames"),
        "msad": ("released", "msad_gt.released", ""),
    }[folder]
    dataset = load_dataset(folder)
    names = dataset.split_names(split, "test")
    if folder == "msad":
        videos = msad_videos(realdata, dataset, names)
    else:
        snippets = {dataset.key(name): count for name, count in counts(realdata, order)}
        known = {n: snippet_count(c, "released") if folder == "shang" else c for n, c in snippets.items()}
        videos = [(name, known[name]) for name in names]
    path = published(realdata, array, tmp_path)
    assert sum(count for _, count in videos) * 16 == len(np.load(path))
    with pytest.raises(InputError, match=r"videos contradict annotations.csv .* another order .*generate_gt.py"):
        load_ground_truth(path, videos, dataset)


@pytest.mark.parametrize(("folder", "shorter"), [("ucf", 9), ("xd", 54)])
def test_published_arrays_of_longer_embeddings_are_aligned(
    realdata: Path, tmp_path: Path, folder: str, shorter: int
) -> None:
    dataset = load_dataset(folder)
    array, order = {"ucf": ("ucf_gt_290.published", "ucf_test_290"),
                    "xd": ("xd_gt_800.published", "xd_test_800")}[folder]  # fmt: skip
    published_counts = counts(realdata, order)
    videos = [(name, dataset.find(name).frames // 16) for name, _ in published_counts]
    labels, notes = load_ground_truth(published(realdata, array, tmp_path), videos, dataset)
    assert len(notes) == 1
    assert f"one snippet shorter than the embeddings of {shorter} videos" in notes[0]
    for part, (name, count) in zip(labels, published_counts, strict=True):
        if dataset.is_anomalous(dataset.find(name).label):  # labels do not show which normal ones are shorter
            assert len(part) == 16 * count, name
            assert np.array_equal(part, dataset.frame_labels(name, 16 * count, "official"))


# provenance of embeddings


@pytest.mark.parametrize(
    ("records", "tail"),
    [
        ({"a": "whole", "b": "whole", "other": "released"}, "whole"),
        ({"a": "whole", "b": "released"}, "mixed"),
        ({"other": "whole"}, None),
    ],
)
def test_recorded_tail_is_one_rule_mixed_or_none(tmp_path: Path, records: dict[str, str], tail: str | None) -> None:
    """Only the given videos count, each with its last line."""
    lines = [{"video": "a.mp4", "crops": [5], "settings": None}]
    lines += [{"video": f"x/{name}.mp4", "crops": [5], "settings": {"tail": rule}} for name, rule in records.items()]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert recorded_tail([tmp_path / "x/a__5.npy", tmp_path / "b__5.npy"]) == tail


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """Return a video whose manifests also have lines of failed videos and incomplete lines."""
    event = {"tail": "whole", "event_threshold": 10, "event_clamp": 16, "event_scaling": "block"}
    for folder, settings in (("rgb", {"tail": "whole"}), ("event_thr_10", event)):
        (tmp_path / folder / "Arson").mkdir(parents=True)
        failed = {"video": "a.mp4", "crops": [], "settings": {"tail": "released"}}
        lines = [json.dumps(failed), '{"torn', json.dumps({"video": "b.mp4", "crops": [5], "settings": settings})]
        (tmp_path / folder / "manifest.jsonl").write_text("\n".join(lines))
    streams = {"image": tmp_path / "rgb/Arson/b__5.npy", "event": tmp_path / "event_thr_10/Arson/b__5.npy"}
    return Video("b", "Arson", True, 5, streams, 4, {})


def test_embeddings_with_other_settings_are_noted(video: Video) -> None:
    default, encoders = preset("default"), recorded_encoders([video])
    assert provenance_notes(encoders, default) == (
        "The event embeddings were made with event_clamp 16, event_scaling block (profile default: 10, clamp).",
    )
    assert provenance_notes(encoders, replace(default, event_clamp=16, event_scaling="block")) == ()
    assert [note.split()[1] for note in provenance_notes(encoders, preset("released"))] == ["image", "event"]  # tail
    image = replace(video, streams={"image": video.streams["image"]})
    assert provenance_notes(recorded_encoders([image]), default) == ()
    (video.streams["event"].parents[1] / "manifest.jsonl").unlink()
    assert provenance_notes(recorded_encoders([video]), default) == () and recorded_encoders([]) == {}
