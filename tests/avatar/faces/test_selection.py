import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.errors import InvalidField
from avatar.faces.selection import FaceSelector, overlap
from avatar.options import FaceIndex, FacePoint, FaceOrder, FaceSelection
from lipsync.face_detection import to_pixels

LEFT, MIDDLE, RIGHT = (0, 40, 40, 90), (100, 20, 190, 120), (300, 50, 350, 110)


def faces(*boxes: tuple[float, float, float, float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What detection says: these, best first."""
    found, scores = np.zeros((16, 4), np.float32), np.zeros(16, np.float32)
    for n, box in enumerate(boxes):
        found[n], scores[n] = box, 0.99 - 0.01 * n
    return found, scores


def chosen(chooser: FaceSelector, *boxes: tuple[float, float, float, float]) -> tuple[int, ...] | None:
    face = chooser.select(*faces(*boxes))
    return None if face is None else tuple(map(int, to_pixels(face)))


def moved(box: tuple[int, int, int, int], by: int) -> tuple[int, int, int, int]:
    return (box[0] + by, box[1], box[2] + by, box[3])


@pytest.mark.parametrize(
    ("which", "wanted"),
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
def test_the_face_that_is_meant_is_chosen(which: FaceSelection, wanted: tuple[int, ...]) -> None:
    assert chosen(FaceSelector(which), RIGHT, LEFT, MIDDLE) == wanted


def test_of_boxes_that_hold_the_point_the_nearest_middle_counts() -> None:
    assert chosen(FaceSelector(FacePoint(40, 40)), (0, 0, 200, 200), (20, 20, 60, 60)) == (20, 20, 60, 60)


def test_a_number_that_no_face_has_is_refused() -> None:
    with pytest.raises(InvalidField, match="face: there is no face 3: 3 found, counted from 0"):
        chosen(FaceSelector(FaceIndex(3)), LEFT, MIDDLE, RIGHT)


@pytest.mark.parametrize("which", [FaceOrder.BEST, FaceOrder.RIGHT, FaceIndex(2), FacePoint(320, 60)])
def test_it_is_followed_when_others_get_better_scores(which: FaceSelection) -> None:
    chooser = FaceSelector(which)
    assert chosen(chooser, RIGHT, MIDDLE, LEFT) == RIGHT
    for step in range(1, 10):
        assert chosen(chooser, MIDDLE, LEFT, moved(RIGHT, 5 * step)) == moved(RIGHT, 5 * step)


def test_it_is_followed_past_others_that_come_in_further_left() -> None:
    chooser = FaceSelector(FaceOrder.LEFT)
    assert chosen(chooser, MIDDLE) == MIDDLE
    assert chosen(chooser, LEFT, moved(MIDDLE, 4)) == moved(MIDDLE, 4)


def test_it_is_found_again_after_a_gap() -> None:
    chooser = FaceSelector(FaceOrder.BEST)
    assert chosen(chooser, RIGHT, LEFT) == RIGHT
    assert chosen(chooser) is None
    assert chosen(chooser, LEFT, moved(RIGHT, 8)) == moved(RIGHT, 8)


def test_after_a_cut_the_choice_is_made_anew() -> None:
    chooser = FaceSelector(FaceOrder.BEST)
    assert chosen(chooser, RIGHT, LEFT) == RIGHT
    assert chosen(chooser, MIDDLE, LEFT) == MIDDLE


def test_with_one_face_it_is_the_originals_choice_in_every_frame() -> None:
    chooser = FaceSelector(FaceOrder.BEST)
    rng = np.random.RandomState(0)
    for _ in range(50):
        x, y = rng.randint(-20, 400, 2)
        box = (x + 0.7, y + 0.2, x + 90.9, y + 99.9)
        assert chosen(chooser, box) == (max(0, int(x + 0.7)) if x >= 0 else 0, max(0, y), int(x + 90.9), int(y + 99.9))


def test_the_overlap_is_intersection_over_union() -> None:
    one = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(overlap(one, others), [1, 1 / 3, 0, 0], atol=1e-6)
