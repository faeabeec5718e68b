"""Which face is selected, and that the same face is selected in the next frame."""

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.errors import InvalidField
from avatar.faces.selection import FaceSelector
from avatar.options import FaceIndex, FaceOrder, FacePoint, FaceSelection
from lipsync.face_detection import to_pixels

LEFT, MIDDLE, RIGHT = (0, 40, 40, 90), (100, 20, 190, 120), (300, 50, 350, 110)


def faces(*boxes: tuple[float, float, float, float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return detections of these boxes, best first."""
    boxes_found, scores = np.zeros((16, 4), np.float32), np.zeros(16, np.float32)
    for n, box in enumerate(boxes):
        boxes_found[n], scores[n] = box, 0.99 - 0.01 * n
    return boxes_found, scores


def selected(selector: FaceSelector, *boxes: tuple[float, float, float, float]) -> tuple[int, ...] | None:
    face = selector.select(*faces(*boxes))
    return None if face is None else tuple(map(int, to_pixels(face)))


def moved(box: tuple[int, int, int, int], by: int) -> tuple[int, int, int, int]:
    return (box[0] + by, box[1], box[2] + by, box[3])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (FaceOrder.BEST, RIGHT),
        (FaceOrder.LARGEST, MIDDLE),
        (FaceOrder.LEFT, LEFT),
        (FaceOrder.RIGHT, RIGHT),
        (FaceIndex(0), LEFT),
        (FaceIndex(1), MIDDLE),
        (FaceIndex(2), RIGHT),
        (FacePoint(150, 60), MIDDLE),
        (FacePoint(10, 50), LEFT),
        (FacePoint(299, 200), RIGHT),
    ],
)
def test_the_option_selects_the_expected_face(selection: FaceSelection, expected: tuple[int, ...]) -> None:
    assert selected(FaceSelector(selection), RIGHT, LEFT, MIDDLE) == expected


def test_of_boxes_that_contain_the_point_the_nearest_center_counts() -> None:
    assert selected(FaceSelector(FacePoint(40, 40)), (0, 0, 200, 200), (20, 20, 60, 60)) == (20, 20, 60, 60)


def test_an_index_without_a_face_is_rejected() -> None:
    with pytest.raises(InvalidField, match="face: no face with index 3; 3 found, counted from 0"):
        selected(FaceSelector(FaceIndex(3)), LEFT, MIDDLE, RIGHT)


@pytest.mark.parametrize("selection", [FaceOrder.BEST, FaceOrder.RIGHT, FaceIndex(2), FacePoint(320, 60)])
def test_the_face_stays_selected_when_others_get_better_scores(selection: FaceSelection) -> None:
    selector = FaceSelector(selection)
    assert selected(selector, RIGHT, MIDDLE, LEFT) == RIGHT
    for step in range(1, 10):
        assert selected(selector, MIDDLE, LEFT, moved(RIGHT, 5 * step)) == moved(RIGHT, 5 * step)


def test_the_face_stays_selected_when_another_appears_further_left() -> None:
    selector = FaceSelector(FaceOrder.LEFT)
    assert selected(selector, MIDDLE) == MIDDLE
    assert selected(selector, LEFT, moved(MIDDLE, 4)) == moved(MIDDLE, 4)


def test_the_face_is_selected_again_after_a_gap() -> None:
    selector = FaceSelector(FaceOrder.BEST)
    assert selected(selector, RIGHT, LEFT) == RIGHT
    assert selected(selector) is None
    assert selected(selector, LEFT, moved(RIGHT, 8)) == moved(RIGHT, 8)


def test_after_a_cut_the_selection_is_made_again() -> None:
    selector = FaceSelector(FaceOrder.BEST)
    assert selected(selector, RIGHT, LEFT) == RIGHT
    assert selected(selector, MIDDLE, LEFT) == MIDDLE


def test_with_one_face_the_selection_is_that_of_the_original_in_every_frame() -> None:
    selector = FaceSelector(FaceOrder.BEST)
    rng = np.random.RandomState(0)
    for _ in range(50):
        x, y = rng.randint(-20, 400, 2)
        box = (x + 0.7, y + 0.2, x + 90.9, y + 99.9)
        assert selected(selector, box) == (
            max(0, int(x + 0.7)) if x >= 0 else 0,
            max(0, y),
            int(x + 90.9),
            int(y + 99.9),
        )
