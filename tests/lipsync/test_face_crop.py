from pathlib import Path

import numpy as np
import pytest

from lipsync.errors import InvalidInput
from lipsync.face_crop import crop, paste


@pytest.fixture
def clip(golden: Path) -> dict[str, np.ndarray]:
    """Return the recorded clip, with its three frames looped over five windows."""
    with np.load(golden / "clip.npz") as arrays:
        looped = np.arange(len(arrays["mel"])) % len(arrays["frames"])
        return {**arrays, "frames": arrays["frames"][looped], "boxes": arrays["boxes"][looped]}


def test_crops_equal_those_of_the_original(clip: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(crop(clip["frames"], clip["boxes"]), clip["crops"])


def test_pasting_changes_nothing_outside_the_box_and_not_its_input(clip: dict[str, np.ndarray]) -> None:
    before = clip["frames"].copy()
    result = paste(clip["frames"], clip["boxes"], np.zeros_like(clip["crops"]))
    np.testing.assert_array_equal(clip["frames"], before)
    for frame, original, (x1, y1, x2, y2) in zip(result, before, clip["boxes"], strict=True):
        assert not frame[y1:y2, x1:x2].any()
        original[y1:y2, x1:x2] = 0
        np.testing.assert_array_equal(frame, original)


def test_one_frame_and_one_box_are_used_for_every_window() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), dtype=np.uint8)
    box = np.array([[10, 5, 50, 55]], np.int32)
    faces = crop(frame, box, count=3)
    assert faces.shape == (3, 96, 96, 3)
    for face in faces:
        np.testing.assert_array_equal(face, crop(frame, box)[0])
    assert paste(frame, box, faces).shape == (3, 60, 80, 3)


def test_each_frame_is_cropped_at_its_own_box() -> None:
    frames = np.zeros((2, 40, 40, 3), np.uint8)
    frames[0, :20, :20], frames[1, 20:, 20:] = 100, 200
    faces = crop(frames, np.array([[0, 0, 20, 20], [20, 20, 40, 40]], np.int32))
    assert (faces[0] == 100).all()
    assert (faces[1] == 200).all()


@pytest.mark.parametrize(
    ("frames", "boxes", "message"),
    [
        ((2, 9, 9, 3), [[0, 0, 9, 9]] * 3, "frames: 1 or 3 expected, got 2"),
        ((3, 9, 9, 3), [[0, 0, 9, 9]] * 2, "boxes: 1 or 3 expected, got 2"),
        ((1, 9, 9), [[0, 0, 9, 9]], "frames: "),
        ((1, 9, 9, 3), [[0, 0, 9]], "boxes: "),
        ((1, 9, 9, 3), [[0, 0, 10, 9]], r"boxes\[0\]: .* outside"),
    ],
)
def test_invalid_arrays_are_rejected_by_name(frames: tuple[int, ...], boxes: list[list[int]], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        crop(np.zeros(frames, np.uint8), np.array(boxes, np.int32))


def test_mouths_of_another_size_are_rejected() -> None:
    with pytest.raises(InvalidInput, match=r"^mouths: "):
        paste(np.zeros((1, 9, 9, 3), np.uint8), np.array([[0, 0, 9, 9]], np.int32), np.zeros((1, 64, 64, 3), np.uint8))
