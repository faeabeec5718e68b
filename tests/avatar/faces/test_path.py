"""A path is corrected by detections that waver, follows a drift, and returns a box as soon as it is final."""

import numpy as np

from avatar.faces.path import CorrectedPath
from lipsync.arrays import Floats

START = np.array([10, 20, 110, 140], np.float32)


def followed(detected: dict[int, float], count: int, motion: float = 1.0) -> tuple[Floats, list[int]]:
    """Return the left edges of a path that moves steadily to the right, and how many were final after each detection.

    `detected`: by frame, by how much the detector's box is to the right of the motion's.
    """
    path = CorrectedPath(START)
    boxes, final, last = [], [], 0
    for frame, error in detected.items():
        expected = path.expected()
        moved = [expected + motion * step for step in range(1, frame - last + 1)]
        path.extend(expected, moved, START + motion * frame + error)
        boxes += path.take_final()
        final.append(len(boxes))
        last = frame
    expected = path.expected()
    path.extend(expected, [expected + motion * step for step in range(1, count - last)])
    boxes += path.take_all()
    assert len(boxes) == count
    return np.array(boxes)[:, 0], final


def test_detections_that_agree_leave_the_path_as_it_is() -> None:
    edges, _ = followed({8: 0.0, 16: 0.0, 24: 0.0}, 30)
    np.testing.assert_allclose(edges, START[0] + np.arange(30), atol=1e-3)


def test_a_box_is_final_when_the_detection_after_the_next_is_known_or_the_next_is_farther_than_the_last() -> None:
    _, final = followed({8: 0.0, 12: 0.0, 24: 0.0}, 25)
    assert final == [5, 11, 19]


def test_what_a_detection_wavers_is_averaged() -> None:
    waver = [4.0 if number % 2 else -4.0 for number in range(1, 12)]
    edges, _ = followed({8 * number: error for number, error in enumerate(waver, 1)}, 89)
    assert np.abs(edges - START[0] - np.arange(89))[16:-16].max() <= 2.1


def test_a_drift_of_the_motion_is_followed() -> None:
    edges, _ = followed({8 * number: 0.5 * 8 * number for number in range(1, 12)}, 89)
    np.testing.assert_allclose(edges[8:-8], START[0] + 1.5 * np.arange(8, 81), atol=0.05)


def test_the_boxes_of_a_path_have_no_steps() -> None:
    edges, _ = followed({6: 3.0, 18: -3.0, 22: 2.0, 34: 0.0}, 35)
    assert np.abs(np.diff(edges) - 1).max() < 2


def test_a_path_of_one_detection_moves_as_the_image_does() -> None:
    edges, _ = followed({}, 6)
    np.testing.assert_allclose(edges, START[0] + np.arange(6), atol=1e-3)


def steadiness(detected: dict[int, float]) -> float | None:
    """Return the steadiness after detections at these frames, by how much each is to the right of the motion's box."""
    path = CorrectedPath(START)
    last = 0
    for frame, error in detected.items():
        path.extend(path.expected(), [path.expected()] * (frame - last), START + error)
        last = frame
    return path.steadiness()


def test_a_detector_is_steady_though_the_motion_drifts_if_the_drift_is_steady() -> None:
    drifting = steadiness({8: 4.0, 20: 10.0})
    assert drifting is not None
    assert drifting > 0.999


def test_a_detector_that_wavers_is_not_steady() -> None:
    wavering = steadiness({8: 6.0, 20: -6.0, 28: 6.0})
    assert wavering is not None
    assert wavering < 0.85


def test_nothing_is_known_of_a_detector_after_two_detections() -> None:
    assert steadiness({8: 4.0}) is None
