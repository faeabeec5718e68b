from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipsync.blend import _mask, _ring, feather
from lipsync.errors import InvalidInput
from lipsync.face_crop import crop, paste

BOX = np.array([214, 142, 416, 394], np.int32)  # the face in samples/face.png


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _smooth_image(height: int, width: int) -> np.ndarray:
    """Return a smooth image, 60 … 180 in each channel, which scaling to 96x96 pixels hardly changes."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * 5 + k) + np.cos(y / height * 4 - k) for k in range(3)]
    return np.rint(120 + 30 * np.dstack(waves)).astype(np.uint8)


def _crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    return crop(frame[None], box[None])[0]


def _shifted(face: np.ndarray, levels: tuple[int, int, int]) -> np.ndarray:
    return np.clip(face.astype(int) + levels, 0, 255).astype(np.uint8)


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other)


def _steps(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the differences between the pixels on both sides of the border of the box, BGR levels [n,3]."""
    x1, y1, x2, y2 = box
    p = image.astype(int)
    across = [p[y1:y2, x1] - p[y1:y2, x1 - 1], p[y1:y2, x2] - p[y1:y2, x2 - 1]]
    down = [p[y1, x1:x2] - p[y1 - 1, x1:x2], p[y2, x1:x2] - p[y2 - 1, x1:x2]]
    return np.abs(np.concatenate(across + down))


def _outside_unchanged(result: np.ndarray, frame: np.ndarray, box: np.ndarray) -> bool:
    x1, y1, x2, y2 = box
    changed = (result != frame).any(axis=2)
    changed[y1:y2, x1:x2] = False
    return not changed.any()


@pytest.fixture(scope="module")
def portrait(samples: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(samples / "face.png")))


def test_nothing_changes_outside_the_box_nor_on_its_border_nor_in_the_upper_face() -> None:
    frame, box = _noise(300, 400), np.array([90, 20, 290, 270], np.int32)
    result = feather(frame, box, _noise(96, 96, seed=1))
    x1, y1, x2, y2 = box
    changed = (result != frame).any(axis=2)
    assert changed[y1 + 150 : y2 - 40, x1 + 40 : x2 - 40].mean() > 0.95
    changed[y1 + 100 : y2 - 1, x1 + 1 : x2 - 1] = False  # the lower 60 % without the outermost pixels
    assert not changed.any()


def test_where_colors_agree_the_mouth_is_the_generated_one(portrait: np.ndarray) -> None:
    face = _crop(portrait, BOX)
    mouth = face.copy()
    cv2.ellipse(mouth, (48, 66), (16, 6), 0, 0, 360, (30, 25, 60), -1)  # opened: much darker than the frame
    pasted = paste(portrait[None], BOX[None], mouth[None])[0]
    result = feather(portrait, BOX, mouth)
    inside = np.s_[142 + 151 : 142 + 212, 214 + 50 : 214 + 151]  # 60 to 84 % of the height, 25 to 75 % of the width
    assert _difference(result[inside], pasted[inside]).max() <= 2
    assert _difference(result[inside], portrait[inside]).max() > 100


def test_blending_the_face_of_the_frame_itself_hardly_changes_it(portrait: np.ndarray) -> None:
    frame, box = _smooth_image(300, 400), np.array([90, 20, 290, 270], np.int32)
    assert _difference(feather(frame, box, _crop(frame, box)), frame).max() <= 2
    own = _difference(feather(portrait, BOX, _crop(portrait, BOX)), portrait)  # 202x252 through 96x96 loses detail
    assert own[142:394, 214:416].mean() < 1


@pytest.mark.parametrize("levels", [(20, 20, 20), (-25, -25, -25), (15, -5, -20)])
def test_an_offset_in_color_leaves_no_step_where_pasting_shows_it(levels: tuple[int, int, int]) -> None:
    frame, box = _smooth_image(300, 400), np.array([90, 20, 290, 270], np.int32)
    mouth = _shifted(_crop(frame, box), levels)
    result = feather(frame, box, mouth)
    assert (_steps(result, box) <= _steps(frame, box)).all()
    assert (_steps(paste(frame[None], box[None], mouth[None])[0], box).mean(axis=0) >= np.abs(levels) - 2).all()
    assert _difference(result, frame).max() <= 2, "the offset shows inside the box"


def test_an_offset_in_color_is_removed_from_a_real_face_and_its_mouth(portrait: np.ndarray) -> None:
    dull = (portrait // 2 + 50).astype(np.uint8)  # no black and no white, because a clipped value loses its offset
    face = _crop(dull, BOX)
    without, matched = (feather(dull, BOX, each) for each in (face, _shifted(face, (12, -6, 20))))
    assert _difference(without, matched).max() <= 1


def test_an_offset_that_changes_across_the_face_is_removed() -> None:
    frame, box = _smooth_image(300, 400), np.array([90, 20, 290, 270], np.int32)
    slope = np.linspace(-15, 15, 96)[None, :, None]
    mouth = np.rint(_crop(frame, box) + slope).astype(np.uint8)
    assert _difference(paste(frame[None], box[None], mouth[None])[0], frame).max() >= 14
    assert _difference(feather(frame, box, mouth), frame).max() <= 6


def test_a_change_inside_the_lower_face_is_not_removed_as_an_offset_in_color() -> None:
    frame, box = np.full((300, 400, 3), 150, np.uint8), np.array([90, 20, 290, 270], np.int32)
    mouth = np.full((96, 96, 3), 150, np.uint8)
    mouth[60:80, 20:76] = 160
    result, pasted = feather(frame, box, mouth), paste(frame[None], box[None], mouth[None])[0]
    assert _difference(result, pasted).max() <= 1


def test_a_chin_that_moved_does_not_tint_the_face() -> None:
    frame, box = np.full((300, 400, 3), 150, np.uint8), np.array([90, 20, 290, 270], np.int32)
    mouth = np.full((96, 96, 3), 150, np.uint8)
    mouth[86:, 30:66] = 20  # a dark area where the mask fades
    inside = feather(frame, box, mouth)[20 + 150 : 20 + 200, 90 + 40 : 290 - 40]
    assert _difference(inside, np.full_like(inside, 150)).max() <= 2


@pytest.mark.parametrize(
    ("box", "open_side"),
    [
        ((0, 40, 120, 190), lambda face: face[-60:-30, 0]),
        ((80, 40, 200, 190), lambda face: face[-60:-30, -1]),
        ((40, 90, 160, 240), lambda face: face[-1, 40:-40]),
        ((0, 0, 200, 240), lambda face: face[-1]),
    ],
    ids=["left", "right", "bottom", "whole"],
)
def test_the_mask_does_not_fade_towards_the_border_of_the_image(
    box: tuple[int, ...], open_side: Callable[[np.ndarray], np.ndarray]
) -> None:
    frame, box_array = np.full((240, 200, 3), 90, np.uint8), np.array(box, np.int32)
    squares = np.add.outer(np.arange(96) // 8, np.arange(96) // 8)
    mouth = np.repeat(np.where(squares % 2, 60, 120).astype(np.uint8)[..., None], 3, axis=2)  # a chessboard
    x1, y1, x2, y2 = box
    pasted, result = paste(frame[None], box_array[None], mouth[None])[0], feather(frame, box_array, mouth)
    pasted_contrast, contrast = (np.ptp(open_side(image[y1:y2, x1:x2])) for image in (pasted, result))
    assert pasted_contrast == 60
    assert contrast >= 55
    assert _outside_unchanged(result, frame, box_array)


def test_a_box_at_the_top_of_the_image_fades_like_any_other() -> None:
    frame, mouth = _noise(200, 200), _noise(96, 96, seed=1)
    below = np.concatenate((_noise(30, 200, seed=2), frame))
    at_top = feather(frame, np.array([40, 0, 160, 150], np.int32), mouth)
    np.testing.assert_array_equal(feather(below, np.array([40, 30, 160, 180], np.int32), mouth)[30:], at_top)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 40), (40, 1), (2, 300), (5, 300), (300, 5), (3, 3)])
@pytest.mark.parametrize("border", [0, 4])
def test_boxes_of_any_size_are_accepted(size: tuple[int, int], border: int) -> None:
    width, height = size
    frame = _noise(height + 2 * border, width + 2 * border)
    box = np.array([border, border, border + width, border + height], np.int32)
    result = feather(frame, box, _noise(96, 96, seed=1))
    assert (result.shape, result.dtype) == (frame.shape, np.uint8)
    assert _outside_unchanged(result, frame, box)
    assert border == 0 or min(size) > 2 or (result == frame).all()


def test_random_boxes_change_only_the_lower_face_inside_the_border() -> None:
    random = np.random.default_rng(7)
    for seed in range(150):
        height, width = (int(n) for n in random.integers(1, 160, 2))
        x1, y1 = int(random.integers(0, width)), int(random.integers(0, height))
        x2, y2 = int(random.integers(x1, width)) + 1, int(random.integers(y1, height)) + 1
        frame, mouth, box = _noise(height, width, seed), _noise(96, 96, seed + 1), np.array([x1, y1, x2, y2], np.int32)
        result = feather(frame, box, mouth)
        assert _outside_unchanged(result, frame, box), box
        changed = (result != frame).any(axis=2)[y1:y2, x1:x2]
        assert not changed[: int(0.4 * (y2 - y1))].any(), box
        assert x1 == 0 or not changed[:, 0].any(), box
        assert x2 == width or not changed[:, -1].any(), box
        assert y2 == height or not changed[-1].any(), box
        np.testing.assert_array_equal(feather(frame, box, mouth), result)


def test_inputs_are_unchanged_and_may_be_read_only_and_of_any_memory_order() -> None:
    frame, mouth, box = _noise(150, 200), _noise(96, 96, seed=1), np.array([30, 20, 150, 140], np.int32)
    copies = frame.copy(), mouth.copy(), box.copy()
    for array in (frame, mouth, box):
        array.flags.writeable = False
    result = feather(frame, box, mouth)
    for array, before in zip((frame, mouth, box), copies, strict=True):
        np.testing.assert_array_equal(array, before)
    assert result.flags.writeable
    assert not np.shares_memory(result, frame)
    mirrored = (np.ascontiguousarray(array[:, ::-1])[:, ::-1] for array in (frame, mouth))
    reordered = (np.asfortranarray(array) for array in (frame, mouth))
    wide = np.repeat(box, 2)[::2]
    for other_frame, other_mouth in (mirrored, reordered):
        assert not other_frame.flags.c_contiguous
        np.testing.assert_array_equal(feather(other_frame, wide, other_mouth), result)


def test_the_cache_of_masks_is_bounded_and_its_masks_are_read_only() -> None:
    frame, mouth = _noise(200, 200), _noise(96, 96, seed=1)
    for side in range(20, 60):
        feather(frame, np.array([10, 10, 10 + side, 100], np.int32), mouth)
    assert _mask.cache_info().currsize <= 8
    for mask in (_mask(120, 150, (False,) * 3)[1], _ring((False,) * 3)):
        assert mask.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            mask[0, 0] = 1


def test_a_mask_has_no_steps() -> None:
    skip, mask = _mask(200, 250, (False, False, False))
    whole = np.pad(mask, ((skip, 0), (0, 0)))
    assert whole.shape == (250, 200)
    assert (whole.min(), whole.max()) == (0, 1)
    for axis in (0, 1):
        assert np.abs(np.diff(whole, axis=axis)).max() < 0.1
    np.testing.assert_allclose(whole, whole[:, ::-1], atol=1e-6)
    assert (whole[int(0.6 * 250) : int(0.84 * 250), 50:150] == 1).all(), "the whole mouth is the generated one"


@pytest.mark.parametrize(
    ("frame", "box", "mouth", "message"),
    [
        (
            np.zeros((9, 9), np.uint8),
            [0, 0, 9, 9],
            (96, 96, 3),
            r"^frame: UINT8 \[H,W,3\] expected, got uint8 \[9, 9\]",
        ),
        (np.zeros((9, 9, 4), np.uint8), [0, 0, 9, 9], (96, 96, 3), "^frame: "),
        (np.zeros((9, 9, 3), np.float32), [0, 0, 9, 9], (96, 96, 3), "^frame: .* float32"),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 9], (96, 96, 3), "^box: "),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 9, 9]], (96, 96, 3), "^box: "),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 9, 8.5], (96, 96, 3), "^box: .* float64"),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 9, 9], (64, 64, 3), "^mouth: "),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 9, 9], (1, 96, 96, 3), "^mouth: "),
        (np.zeros((9, 9, 3), np.uint8), [0, 0, 10, 9], (96, 96, 3), "outside the 9x9 image"),
        (np.zeros((9, 9, 3), np.uint8), [-1, 0, 9, 9], (96, 96, 3), "outside"),
        (np.zeros((9, 9, 3), np.uint8), [4, 0, 4, 9], (96, 96, 3), "empty"),
        (np.zeros((0, 9, 3), np.uint8), [0, 0, 9, 9], (96, 96, 3), "outside"),
    ],
)
def test_invalid_arrays_are_rejected_by_name(
    frame: np.ndarray, box: list[float], mouth: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        feather(frame, np.array(box), np.zeros(mouth, np.uint8))


def test_a_mouth_of_another_type_is_rejected() -> None:
    with pytest.raises(InvalidInput, match=r"^mouth: .* float32"):
        feather(np.zeros((9, 9, 3), np.uint8), np.array([0, 0, 9, 9]), np.zeros((96, 96, 3), np.float32))
