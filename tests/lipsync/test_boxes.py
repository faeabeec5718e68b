from pathlib import Path

import numpy as np
import pytest

from lipsync.boxes import Smoother, check, iou, pad, smooth
from lipsync.errors import InvalidInput

LENGTHS = (1, 2, 3, 4, 5, 6, 9, 40)


@pytest.mark.parametrize("n", LENGTHS)
def test_padded_and_smoothed_boxes_equal_those_of_the_original(golden: Path, n: int) -> None:
    with np.load(golden / "boxes.npz") as recorded:
        padded = pad(recorded[f"rects_{n}"], int(recorded["frame_width"]), int(recorded["frame_height"]))
        np.testing.assert_array_equal(padded, recorded[f"padded_{n}"])
        np.testing.assert_array_equal(smooth(padded), recorded[f"smooth_{n}"])


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7])
def test_boxes_in_pieces_are_smoothed_like_the_whole_clip(golden: Path, n: int, piece: int) -> None:
    with np.load(golden / "boxes.npz") as recorded:
        boxes, expected = recorded[f"padded_{n}"], recorded[f"smooth_{n}"]
    smoother = Smoother()
    pieces = [smoother.feed(boxes[i : i + piece]) for i in range(0, n, piece)]
    np.testing.assert_array_equal(np.concatenate([*pieces, smoother.finish()]), expected)


def test_a_smoother_delays_at_most_four_boxes() -> None:
    smoother, returned = Smoother(), 0
    for fed in range(1, 30):
        returned += len(smoother.feed(np.full((1, 4), fed, np.int32)))
        assert fed - returned <= 4


def test_a_smoother_can_be_used_again_after_finish() -> None:
    smoother, boxes = Smoother(), np.arange(28, dtype=np.int32).reshape(7, 4)
    for _ in range(2):
        again = np.concatenate((smoother.feed(boxes), smoother.finish()))
        np.testing.assert_array_equal(again, smooth(boxes))


def test_pads_are_top_bottom_left_right() -> None:
    assert pad(np.array([[50, 50, 60, 60]], np.int32), 200, 100, (1, 2, 3, 4)).tolist() == [[47, 49, 64, 62]]


@pytest.mark.parametrize("box", [[-1, 0, 5, 5], [0, 0, 11, 5], [0, 0, 5, 9], [5, 0, 5, 5], [0, 6, 5, 5]])
def test_an_empty_box_or_one_outside_is_rejected_by_its_number(box: list[int]) -> None:
    with pytest.raises(InvalidInput, match=r"boxes\[1\]"):
        check(np.array([[0, 0, 10, 8], box], np.int32), 10, 8)


def test_iou_is_intersection_over_union() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(iou(box, others), [1, 1 / 3, 0, 0], atol=1e-6)
