"""Which gaps between boxes are filled, and how the boxes around them are smoothed."""

import numpy as np
import pytest

from avatar.faces.interpolation import fill_gaps
from lipsync.boxes import smooth


@pytest.mark.parametrize("smoothed", [True, False])
def test_boxes_without_gaps_are_smoothed_like_any_clip(smoothed: bool) -> None:
    boxes = np.random.RandomState(0).randint(0, 50, (23, 4)).astype(np.int32)
    expected = smooth(boxes) if smoothed else boxes
    filled = [box for box in fill_gaps(list(boxes), 25, smoothed=smoothed) if box is not None]
    np.testing.assert_array_equal(filled, expected)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("11.11", "11111"),
        ("1..1", "1111"),
        ("1...1", "1...1"),
        ("..1..1.", "..1111."),
        ("", ""),
        ("....", "...."),
        ("1.1...1.1", "111...111"),
    ],
)
@pytest.mark.parametrize("cuts", [(), (99,)])
def test_gaps_up_to_the_limit_are_filled_and_no_others(pattern: str, expected: str, cuts: tuple[int, ...]) -> None:
    boxes = [np.full(4, 10 * n, np.int32) if mark == "1" else None for n, mark in enumerate(pattern)]
    filled = fill_gaps(boxes, 2, smoothed=False, cuts=cuts)
    assert "".join("." if box is None else "1" for box in filled) == expected
    assert all(box is None or box[0] == 10 * n for n, box in enumerate(filled))


@pytest.mark.parametrize(("cut", "expected"), [(1, "11111"), (2, "11.11"), (3, "11.11"), (4, "11111")])
def test_a_gap_with_a_cut_stays(cut: int, expected: str) -> None:
    boxes = [np.full(4, 10 * n, np.int32) if n != 2 else None for n in range(5)]
    filled = fill_gaps(boxes, 2, smoothed=False, cuts={cut})
    assert "".join("." if box is None else "1" for box in filled) == expected
