"""What is checked before anything runs, and the order in which training sees its videos."""

from __future__ import annotations

import numpy as np
import pytest

from vad.catalog import UCFCRIME
from vad.data import TrainingBatches, TrainingWindows, find_samples, find_test_videos, load_embedding
from vad.errors import InputError
from vad.lists import read_csv


def samples_of(tiny, modality: str = "fusion"):
    return find_samples(read_csv(tiny.lists / "train.csv", UCFCRIME), UCFCRIME, tiny.root, modality)


def test_samples_know_their_files_and_sizes(tiny):
    samples, width = samples_of(tiny)
    assert width == 16 and len(samples) == 12
    for sample in samples:
        image, event = (np.load(path) for path in sample.paths)
        assert len(image) == len(event) == sample.snippets
        assert sample.anomalous == (sample.label != "Normal")


@pytest.mark.parametrize(("modality", "used"), [("image", (True, False)), ("event", (False, True))])
def test_a_single_stream_needs_no_file_of_the_other(tiny, modality, used):
    other = "event_thr_10" if modality == "image" else "rgb"
    for path in (tiny.root / other).rglob("*.npy"):
        path.unlink()
    samples, _ = samples_of(tiny, modality)
    assert all(tuple(path is not None for path in sample.paths) == used for sample in samples)


def change(tiny, what: str) -> None:
    path = tiny.path("event_thr_10", "Arson001_x264", "Arson")
    if what == "missing":
        path.unlink()
    elif what == "other S":
        np.save(path, np.load(path)[:-1])
    elif what == "other width":
        np.save(path, np.load(path)[:, :8])
    elif what == "cut short":
        path.write_bytes(path.read_bytes()[:-7])
    elif what == "no array":
        path.write_text("not an array")
    elif what == "no folder":
        (tiny.root / "event_thr_10").rename(tiny.root / "elsewhere")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("missing", r"event_thr_10/Arson/Arson001_x264__5\.npy: no such embedding"),
        ("other S", r"Arson001_x264__5\.npy has \d+ snippets but .*rgb.* has \d+"),
        ("other width", r"Arson001_x264__5\.npy is 8 wide, the embeddings before it 16"),
        ("cut short", r"Arson001_x264__5\.npy: cut short"),
        ("no array", r"Arson001_x264__5\.npy: not a \.npy embedding"),
        ("no folder", r"no folder event_thr_10 or event beside rgb/"),
    ],
)
def test_an_embedding_that_does_not_fit_is_found_from_its_header(tiny, what, sentence):
    change(tiny, what)
    with pytest.raises(InputError, match=sentence):
        samples_of(tiny)


def test_nan_is_refused_by_name_or_counts_as_zero_where_asked(tiny):
    path = tiny.path("rgb", "Arson001_x264", "Arson")
    x = np.load(path)
    x[2] = np.nan
    np.save(path, x)
    with pytest.raises(InputError, match=r"Arson001_x264__5\.npy has NaN in 1 of its \d+ snippets.*--nan zero"):
        load_embedding(path, "refuse")
    assert (load_embedding(path, "zero")[2] == 0).all()
    np.testing.assert_array_equal(load_embedding(path, "zero")[0], x[0])


def test_nan_in_a_worker_process_arrives_as_the_same_sentence(tiny):
    path = tiny.path("rgb", "Arson001_x264", "Arson")
    np.save(path, np.full_like(np.load(path), np.nan))
    samples, width = samples_of(tiny)
    windows = TrainingWindows(samples, window=64, nan="refuse", width=width)
    batches = TrainingBatches(windows, batch_size=6, paired=True, seed=0, workers=1)
    with pytest.raises(InputError, match=r"^\S*Arson001_x264__5\.npy has NaN"):
        list(batches.epoch(0))


def test_pairs_are_half_normal_half_anomalous_and_an_epoch_can_be_run_again(tiny):
    samples, width = samples_of(tiny)
    batches = TrainingBatches(TrainingWindows(samples, window=64, nan="refuse", width=width), 2, True, seed=3)
    assert len(batches) == 3
    first = list(batches.epoch(0))
    for batch in first:
        assert batch.anomalous.tolist() == [0, 0, 1, 1]
        assert batch.image.shape == batch.event.shape == (4, 64, 16)
    assert sorted(v for b in first for v in b.videos) == sorted(s.video for s in samples)
    assert [b.videos for b in batches.epoch(0)] == [b.videos for b in first]
    assert [b.videos for b in batches.epoch(1)] != [b.videos for b in first]
    other = TrainingBatches(batches.data, 2, True, seed=4)
    assert [b.videos for b in other.epoch(0)] != [b.videos for b in first]


def test_a_set_smaller_than_a_batch_still_gives_one(tiny):
    samples, width = samples_of(tiny)
    batches = TrainingBatches(TrainingWindows(samples, window=64, nan="refuse", width=width), 64, True, seed=0)
    assert [len(batch.videos) for batch in batches.epoch(0)] == [12]


def test_one_kind_of_video_cannot_be_learned_from(tiny):
    samples, width = samples_of(tiny)
    normal = [sample for sample in samples if not sample.anomalous]
    with pytest.raises(InputError, match="normal videos only"):
        TrainingBatches(TrainingWindows(normal, window=64, nan="refuse", width=width), 4, True, seed=0)


def test_other_crops_are_found_beside_the_one_the_list_names(tiny):
    items = read_csv(tiny.lists / "test.csv", UCFCRIME)
    for kind in ("rgb", "event_thr_10"):
        for path in list((tiny.root / kind).rglob("*__5.npy")):
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path) + 1)
    videos, _ = find_test_videos(items, tiny.lists / "gt.npy", UCFCRIME, tiny.root, (0, 5))
    assert [[s.crop for s in video.crops] for video in videos] == [[0, 5]] * 8
    assert [video.name for video in videos] == [item.video for item in items]


def test_crops_that_differ_in_snippets_are_reported(tiny):
    items = read_csv(tiny.lists / "test.csv", UCFCRIME)
    for item in items:
        for kind in ("rgb", "event_thr_10"):
            path = tiny.path(kind, item.video, item.label)
            np.save(path.with_name(path.name.replace("__5", "__0")), np.load(path)[1:])
    with pytest.raises(InputError, match=r"the crops of \S+ differ in snippets \(crop 0: \d+, crop 5: \d+\)"):
        find_test_videos(items, tiny.lists / "gt.npy", UCFCRIME, tiny.root, (0, 5))
