"""mAP@IoU matches the released code's numbers, and follows its rules at the edges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vad.avadclip.detection import IOUS, class_segments, detection_map, proposals
from vad.files import InputError
from vad.report.avadclip.report import PAPER, report_avadclip


@pytest.mark.parametrize("name", ["random", "weak", "strong", "few", "cctv"])
def test_map_equals_that_of_the_release(golden, name):
    arrays = golden("avadclip/detection_map")
    scores = np.split(arrays[f"{name}/scores"], np.cumsum(arrays[f"{name}/snippets"])[:-1])
    frames = int(arrays[f"{name}/frames_per"])
    result = detection_map(scores, arrays[f"{name}/segments"], frames_per_score=frames, ious=arrays["iou"])
    np.testing.assert_allclose(100 * result.mean(normal=True), arrays[f"{name}/map"], rtol=1e-12)


def one_video(*columns):
    """Return the scores of a video of 1 frame per score, one column a class."""
    return [np.array(columns, dtype=float).T]


def test_average_precision_of_a_worked_example():
    # class 1: frames 2-3 (score 1) and 6-7 (0.9) are proposals, all else is below 1 - 0.6 (1 - 0)
    scores = one_video(np.linspace(0, 1, 8), [0, 0, 1, 1, 0, 0, 0.9, 0.9])
    assert [p[1:] for p in proposals(scores[0][:, 1])] == [(2, 4), (6, 8)]
    # the second proposal alone meets the segment, with IoU 2/3: precision 1/2 at the only hit
    result = detection_map(scores, np.array([[0, 1, 5, 8]]), frames_per_score=1)
    np.testing.assert_array_equal(result.ap[1], [0.5] * 5)
    result = detection_map(scores, np.array([[0, 1, 5, 8]]), frames_per_score=1, ious=(2 / 3, 0.7))
    np.testing.assert_array_equal(result.ap[1], [0.5, 0])


def test_segment_is_used_only_once():
    # both proposals lie in one segment; the first hits, the second is wrong: AP 1, not 1 + 1
    scores = one_video(np.linspace(0, 1, 8), [0, 0, 1, 1, 0, 0, 0.9, 0.9])
    result = detection_map(scores, np.array([[0, 1, 2, 8], [0, 1, 0, 1]]), frames_per_score=1, ious=(0.3,))
    np.testing.assert_array_equal(result.ap[1], [0.5])  # one of two segments


def test_proposals_of_another_video_or_class_do_not_hit():
    scores = [one_video(np.linspace(0, 1, 8), [0, 0, 1, 1, 0, 0, 0, 0])[0] for _ in range(2)]
    segments = np.array([[1, 1, 2, 4], [0, 0, 2, 4]])
    # of two equal proposals, the first lies in video 0, without a segment of class 1
    np.testing.assert_array_equal(detection_map(scores, segments, frames_per_score=1).ap[1], [0.5] * 5)


def test_short_proposal_is_dropped():
    assert proposals(np.array([0.0, 1.0, 0.0, 0.0, 0.9, 0.9])) == [(pytest.approx(0.9 + 0.7 * 1), 4, 6)]


def test_cliffs_of_the_mean():
    rising, constant = np.linspace(0, 1, 8), np.full(8, 0.5)
    segments = np.array([[0, 0, 4, 8], [0, 1, 4, 8]])
    result = detection_map(one_video(rising, rising, rising), segments, frames_per_score=1)
    # class 2 has no segment and counts 0
    np.testing.assert_allclose(result.mean(normal=True), result.ap[:2].sum(0) / 3)
    np.testing.assert_allclose(result.mean(normal=False), result.ap[1] / 2)
    assert result.ap[1, 0] == 1
    # class 0 has no proposal: the mean over all classes is 0, that without the normal class is not
    result = detection_map(one_video(constant, rising), segments, frames_per_score=1)
    assert result.mean(normal=True).tolist() == [0] * len(IOUS)
    assert result.mean(normal=False)[0] == 1


def test_segments_of_annotated_videos():
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]])
    segments = class_segments(labels, [(), ((3, 5), (8, 9)), ((0, 2),)], [20, 10, 10])
    expected = [[0, 0, 0, 20], [1, 1, 3, 5], [1, 1, 8, 9], [1, 2, 3, 5], [1, 2, 8, 9], [2, 2, 0, 2]]
    assert segments.tolist() == expected
    assert class_segments(labels[:0], [], []).shape == (0, 4)


def test_averages_of_the_papers_tables_are_those_of_their_rows():
    """The last column of Table III is the mean of the five before it, up to the paper's rounding."""
    for values in PAPER["table3"]["rows"].values():
        assert np.mean(values[:-1]) == pytest.approx(values[-1], abs=0.011)


def test_networks_of_different_classes_are_not_compared(tmp_path):
    runs = [SimpleNamespace(path=name, model=SimpleNamespace(config=SimpleNamespace(classes=classes)))
            for name, classes in (("a.pth", ("normal", "fight")), ("b.pth", ("normal", "fire")))]  # fmt: skip
    with pytest.raises(InputError, match=r"a\.pth and b\.pth were trained for different classes"):
        report_avadclip(runs, tmp_path, {"a": runs[:1], "b": runs[1:]})
