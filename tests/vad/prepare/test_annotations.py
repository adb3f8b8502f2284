"""Frame labels from tables and masks, and annotations that cannot belong to the videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vad.datasets import load_dataset
from vad.files import InputError
from vad.prepare.annotations import LabelledVideo, label_videos, read_masks


def labels(street, *videos: tuple[str, str, int], masks: Path | None = None) -> tuple[list[list[int]], list[str]]:
    """Positions of the anomalous frames of each video, and the sentences."""
    found, said = label_videos(street.dataset, "official", [LabelledVideo(*video) for video in videos], masks)
    assert [len(part) for part in found] == [16 * snippets for _, _, snippets in videos]
    return [np.flatnonzero(part).tolist() for part in found], said


def test_intervals_are_half_open_and_cut(street) -> None:
    street.write("annotations.csv", "video,label,official,intervals\nc2,Crash,test,3-5 7-7 30-40\n")
    assert labels(street, ("c2", "Crash", 2)) == ([[3, 4, 30, 31]], [])


@pytest.mark.parametrize(
    ("interval", "snippets", "says"),
    [
        ("47-48", 2, None),  # 15 frames past the last snippet: published annotations have 11
        ("48-50", 2, "the anomaly 48-50 starts after its 32 frames"),
        ("10-48", 2, ""),
        ("10-49", 2, "anomalies end a snippet or more past the last snippet, and are cut: c2"),
    ],
)
def test_anomalies_past_the_last_snippet(street, interval: str, snippets: int, says: str | None) -> None:
    street.write("annotations.csv", f"video,label,official,intervals\nc2,Crash,test,{interval}\n")
    if says and says.startswith("the anomaly"):
        with pytest.raises(InputError, match=f"annotations.csv: c2: {says}"):
            labels(street, ("c2", "Crash", snippets))
        return
    empty = ["anomalous videos without an anomalous frame: c2"]
    assert labels(street, ("c2", "Crash", snippets))[1] == (empty if says is None else [says] if says else [])


@pytest.mark.parametrize("snippets", [39, 40, 41])
def test_a_snippet_more_or_less_than_the_table_is_usual(street, snippets: int) -> None:
    """Of 640 frames: the released tail loses a last block of 16 frames."""
    street.write("annotations.csv", "video,label,official,frames,intervals\nc2,Crash,test,640,10-20\n")
    assert labels(street, ("c2", "Crash", snippets))[1] == []


def test_other_lengths_than_the_table_are_said_or_refused(street) -> None:
    street.write("annotations.csv", "video,label,official,frames,intervals\nc2,Crash,test,640,10-20\n")
    odd = ["embeddings are longer or shorter than the table's frames by more than a snippet: c2"]
    assert labels(street, ("c2", "Crash", 38))[1] == labels(street, ("c2", "Crash", 42))[1] == odd
    for snippets in (20, 80):  # another frame rate
        with pytest.raises(InputError, match=f"annotations.csv: c2: 640 frames here, but {snippets} snippets of 16"):
            labels(street, ("c2", "Crash", snippets))


def test_who_is_annotated_and_as_what(street) -> None:
    with pytest.raises(InputError, match=r"c7: a test video labelled Crash has no row here"):
        labels(street, ("c7", "Crash", 2))
    with pytest.raises(InputError, match="n2: Normal here, but Crash in the list"):
        labels(street, ("n2", "Crash", 3))
    with pytest.raises(InputError, match=r"c1 \(Crash\) has no interval"):
        labels(street, ("c1", "Crash", 3))  # a training video in a test list


def masks_of(street, **frames: list[int]) -> Path:
    """A folder of masks of 40 frames, 1 at these positions."""
    folder = street.root / "masks"
    folder.mkdir(exist_ok=True)
    for name, ones in frames.items():
        mask = np.zeros(40, np.int64)
        mask[ones] = 1
        np.save(folder / f"{name}.npy", mask)
    return folder


def test_masks_are_taken_as_they_are_and_cut(street) -> None:
    folder = masks_of(street, c2=[3, 31, 39])
    arrays = {path.stem: np.load(path) for path in folder.iterdir()}
    np.savez(street.root / "masks.npz", **arrays)
    for source in (folder, street.root / "masks.npz"):
        videos = [("c2", "Crash", 2), ("n2", "Normal", 3)]  # a normal video needs no mask
        assert labels(street, *videos, masks=source) == ([[3, 31], []], [])


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (("c2", "Crash", 3), "a mask of 40 frames for 3 snippets of 16"),  # 48: eight are unknown
        (("c2", "Crash", 1), None),  # 24 frames more
        (("c2", "Crash", 0), "a mask of 40 frames for 0 snippets"),  # 40 more
        (("c1", "Crash", 2), "a test video labelled Crash has no mask"),
        (("n1", "Normal", 2), "labelled Normal, but its mask has anomalous frames"),  # slipped by a row
        (("n2", "Running", 2), "labelled Running, but its mask has no anomalous frame"),
    ],
)
def test_masks_that_cannot_belong_to_a_video(street, video: tuple[str, str, int], says: str | None) -> None:
    folder = masks_of(street, c2=[3], n1=[3], n2=[])
    if says is None:
        labels(street, video, masks=folder)
        return
    with pytest.raises(InputError, match=f"masks: {video[0]}: {says}"):
        labels(street, video, masks=folder)


def test_what_is_no_mask(street) -> None:
    folder = masks_of(street, c2=[3])
    with pytest.raises(InputError, match="holds no mask"):
        read_masks(street.root / "nothing", street.dataset)
    np.save(folder / "n2.npy", np.arange(3))
    with pytest.raises(InputError, match="mask of n2 is no row of zeros and ones"):
        read_masks(folder, street.dataset)
    np.save(folder / "n2.npy", np.array([{}]))
    with pytest.raises(InputError, match="cannot read the frame masks"):
        read_masks(folder, street.dataset)
    (folder / "n2.npy").unlink()
    masks_of(street, n1=[], Normal_1=[])
    with pytest.raises(InputError, match="two masks mean the video n1"):
        read_masks(folder, street.dataset)


def test_masks_of_shanghaitech_are_its_table(realdata: Path) -> None:
    """The table's official reading is the authors' masks, frame by frame, of all their test videos."""
    dataset = load_dataset("shang")
    path = realdata / "gt" / "shang_test_frame_mask.official.npz"
    masks = read_masks(path, dataset)
    tested = [name for name in dataset.split_names("official", "test") if name in masks]
    assert (len(masks), len(tested)) == (107, 44)
    videos = [LabelledVideo(name, dataset.videos[name].label, len(masks[name]) // 16) for name in tested]
    given, table = (label_videos(dataset, "official", videos, source)[0] for source in (path, None))
    assert all(np.array_equal(a, b) for a, b in zip(given, table, strict=True))
