from pathlib import Path

import numpy as np
import pytest

from lipsync.errors import InvalidInput
from lipsync.face_detection import best_face, decode_boxes, non_max_suppression
from lipsync.tensors import FACES


def test_the_best_face_of_the_recorded_maps_equals_that_of_the_original(golden: Path) -> None:
    with np.load(golden / "s3fd.npz") as recorded:
        boxes, scores = non_max_suppression(*decode_boxes([recorded[f"head{i}"] for i in range(12)]))
        best = np.concatenate((boxes[:, 0], scores[:, :1]), axis=1)
        np.testing.assert_allclose(best, recorded["best"], rtol=1e-4)
        corners = [best_face(b, s) for b, s in zip(boxes, scores, strict=True)]
        np.testing.assert_array_equal(np.stack(corners), recorded["best_int"])  # type: ignore[arg-type]


def _candidates(*rows_of_one_image: tuple[float, float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array(rows_of_one_image, np.float32)
    return rows[None, :, :4], rows[None, :, 4]


def test_an_overlapping_weaker_face_is_suppressed_and_a_distant_one_kept() -> None:
    boxes, scores = non_max_suppression(
        *_candidates((0, 0, 100, 100, 0.9), (5, 5, 105, 105, 0.8), (300, 0, 400, 100, 0.7))
    )
    assert np.count_nonzero(scores) == 2
    np.testing.assert_allclose(scores[0, :2], (0.9, 0.7))
    np.testing.assert_array_equal(boxes[0, 1], (300, 0, 400, 100))


def test_overlap_counts_one_pixel_more_on_each_side() -> None:
    # 10x10 boxes shifted by 5: 66/176 = 0.375 with the +1, but 50/150 = 0.333 without; at a shift of 6
    # 55/187 = 0.294 is kept
    _, shifted_by_5 = non_max_suppression(*_candidates((0, 0, 10, 10, 0.9), (5, 0, 15, 10, 0.8)))
    _, shifted_by_6 = non_max_suppression(*_candidates((0, 0, 10, 10, 0.9), (6, 0, 16, 10, 0.8)))
    assert np.count_nonzero(shifted_by_5) == 1
    assert np.count_nonzero(shifted_by_6) == 2


def test_faces_are_sorted_by_score() -> None:
    _, scores = non_max_suppression(*_candidates((0, 0, 9, 9, 0.6), (100, 0, 109, 9, 0.9), (200, 0, 209, 9, 0.7)))
    np.testing.assert_allclose(scores[0, :3], (0.9, 0.7, 0.6))


def test_a_score_of_one_half_is_no_face() -> None:
    boxes, scores = non_max_suppression(*_candidates((0, 0, 9, 9, 0.5)))
    assert not scores.any()
    assert best_face(boxes[0], scores[0]) is None


def test_at_most_sixteen_faces_are_returned() -> None:
    crowd = [(20.0 * i, 0.0, 20.0 * i + 9, 9.0, 0.6 + 0.01 * i) for i in range(20)]
    boxes, scores = non_max_suppression(*_candidates(*crowd))
    assert boxes.shape == (1, FACES, 4)
    np.testing.assert_allclose(scores[0], [0.79 - 0.01 * i for i in range(FACES)], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_boxes_that_are_no_boxes_raise_no_warning(value: float) -> None:
    boxes, scores = non_max_suppression(np.full((2, 4, 4), value, np.float32), np.full((2, 4), 0.9, np.float32))
    assert (boxes.shape, scores.shape) == ((2, FACES, 4), (2, FACES))


def test_corners_are_clipped_at_zero_and_truncated() -> None:
    face = best_face(np.array([[-3.7, 2.9, 10.99, 20.0]], np.float32), np.array([0.9], np.float32))
    assert face is not None
    assert face.dtype == np.int32
    assert face.tolist() == [0, 2, 10, 20]


def test_boxes_and_scores_of_different_lengths_are_rejected() -> None:
    with pytest.raises(InvalidInput, match="boxes"):
        non_max_suppression(np.zeros((1, 5, 4), np.float32), np.zeros((1, 6), np.float32))
