"""Frame labels from tables and masks, and annotations that do not fit their videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vad.datasets import load_dataset
from vad.files import InputError
from vad.prepare.annotations import LabelledVideo, label_videos, read_masks


def labels(street, *videos: tuple[str, str, int], masks: Path | None = None) -> tuple[list[list[int]], list[str]]:
    """Return the positions of the anomalous frames of each video, and the warnings."""
    labelled = [LabelledVideo(*video) for video in videos]
    frame_labels, warnings = label_videos(street.dataset, "official", labelled, masks)
    assert [len(part) for part in frame_labels] == [16 * snippets for _, _, snippets in videos]
    return [np.flatnonzero(part).tolist() for part in frame_labels], warnings


def test_intervals_are_half_open_and_cut_at_the_end(street) -> None:
    street.write("annotations.csv", "video,label,official,intervals\nc2,Crash,test,3-5 7-7 30-40\n")
    assert labels(street, ("c2", "Crash", 2)) == ([[3, 4, 30, 31]], [])


@pytest.mark.parametrize(
    ("interval", "snippets", "message"),
    [
        ("47-48", 2, None),  # 15 frames after the last snippet; published annotations have up to 11
        ("48-50", 2, "the anomaly 48-50 starts after the last of 32 frames"),
        ("10-48", 2, ""),
        ("10-49", 2, "anomalies end at least one snippet after the last snippet and are cut: c2"),
    ],
)
def test_anomaly_after_the_end_is_cut_or_refused(street, interval: str, snippets: int, message: str | None) -> None:
    street.write("annotations.csv", f"video,label,official,intervals\nc2,Crash,test,{interval}\n")
    if message and message.startswith("the anomaly"):
        with pytest.raises(InputError, match=f"annotations.csv: c2: {message}"):
            labels(street, ("c2", "Crash", snippets))
        return
    empty = ["anomalous videos without anomalous frames: c2"]
    expected = empty if message is None else [message] if message else []
    assert labels(street, ("c2", "Crash", snippets))[1] == expected


@pytest.mark.parametrize("snippets", [39, 40, 41])
def test_one_snippet_more_or_less_gives_no_warning(street, snippets: int) -> None:
    """The table has 640 frames. The released tail rule drops a last block of 16 frames."""
    street.write("annotations.csv", "video,label,official,frames,intervals\nc2,Crash,test,640,10-20\n")
    assert labels(street, ("c2", "Crash", snippets))[1] == []


def test_other_length_than_table_warns_or_is_refused(street) -> None:
    street.write("annotations.csv", "video,label,official,frames,intervals\nc2,Crash,test,640,10-20\n")
    warnings = ["the length of the embeddings differs from the table by more than one snippet: c2"]
    assert labels(street, ("c2", "Crash", 38))[1] == labels(street, ("c2", "Crash", 42))[1] == warnings
    for snippets in (20, 80):  # another frame rate
        with pytest.raises(InputError, match=f"c2: the table has 640 frames, but .* {snippets} snippets of 16"):
            labels(street, ("c2", "Crash", snippets))


def test_missing_or_contradicting_table_row_is_refused(street) -> None:
    with pytest.raises(InputError, match=r"c7: this test video \(label Crash\) is not in the table"):
        labels(street, ("c7", "Crash", 2))
    with pytest.raises(InputError, match="n2: the label is Normal, but Crash in the list"):
        labels(street, ("n2", "Crash", 3))
    with pytest.raises(InputError, match=r"c1 \(Crash\) has no interval"):
        labels(street, ("c1", "Crash", 3))  # a training video in a test list


def masks_of(street, **frames: list[int]) -> Path:
    """Write masks of 40 frames with ones at the given positions, and return their folder."""
    folder = street.root / "masks"
    folder.mkdir(exist_ok=True)
    for name, ones in frames.items():
        mask = np.zeros(40, np.int64)
        mask[ones] = 1
        np.save(folder / f"{name}.npy", mask)
    return folder


def test_masks_are_used_as_labels_and_cut(street) -> None:
    folder = masks_of(street, c2=[3, 31, 39])
    arrays = {path.stem: np.load(path) for path in folder.iterdir()}
    np.savez(street.root / "masks.npz", **arrays)
    for source in (folder, street.root / "masks.npz"):
        videos = [("c2", "Crash", 2), ("n2", "Normal", 3)]  # a normal video needs no mask
        assert labels(street, *videos, masks=source) == ([[3, 31], []], [])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (("c2", "Crash", 3), "the mask has 40 frames, which do not fit 3 snippets of 16"),  # 8 frames missing
        (("c2", "Crash", 1), None),  # 24 frames more
        (("c2", "Crash", 0), "the mask has 40 frames, which do not fit 0 snippets"),  # 40 frames more
        (("c1", "Crash", 2), "this test video .label Crash. has no mask"),
        (("n1", "Normal", 2), "the label is Normal, but the mask has anomalous frames"),
        (("n2", "Running", 2), "the label is Running, but the mask has no anomalous frames"),
    ],
)
def test_mask_that_does_not_fit_its_video_is_refused(street, video: tuple[str, str, int], message: str | None) -> None:
    folder = masks_of(street, c2=[3], n1=[3], n2=[])
    if message is None:
        labels(street, video, masks=folder)
        return
    with pytest.raises(InputError, match=f"masks: {video[0]}: {message}"):
        labels(street, video, masks=folder)


def test_invalid_masks_are_refused(street) -> None:
    folder = masks_of(street, c2=[3])
    with pytest.raises(InputError, match="contains no masks"):
        read_masks(street.root / "nothing", street.dataset)
    np.save(folder / "n2.npy", np.arange(3))
    with pytest.raises(InputError, match="mask of n2 must be a 1-D array"):
        read_masks(folder, street.dataset)
    np.save(folder / "n2.npy", np.array([{}]))
    with pytest.raises(InputError, match="cannot read the frame masks"):
        read_masks(folder, street.dataset)
    (folder / "n2.npy").unlink()
    masks_of(street, n1=[], Normal_1=[])
    with pytest.raises(InputError, match="has two masks of the video n1"):
        read_masks(folder, street.dataset)


def test_masks_of_shanghaitech_equal_its_table(realdata: Path) -> None:
    """The official intervals of the table equal the authors' masks, frame by frame, for all test videos."""
    dataset = load_dataset("shang")
    path = realdata / "gt" / "shang_test_frame_mask.official.npz"
    masks = read_masks(path, dataset)
    tested = [name for name in dataset.split_names("official", "test") if name in masks]
    assert (len(masks), len(tested)) == (107, 44)
    videos = [LabelledVideo(name, dataset.videos[name].label, len(masks[name]) // 16) for name in tested]
    from_masks, from_table = (label_videos(dataset, "official", videos, source)[0] for source in (path, None))
    assert all(np.array_equal(a, b) for a, b in zip(from_masks, from_table, strict=True))
