"""Calls over a limit are rejected by the shapes of their inputs, before anything is allocated or computed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest

from avatar import limits as job
from avatar.faces import detection
from avatar.settings import JobSettings
from lipsync import limits
from lipsync.errors import InvalidInput
from lipsync.mel_windows import count_windows, window_starts
from lipsync.tensors import MODELS, Tensor

HOUR = 3600 * 16_000
UHD = (2160, 3840, 3)

Shapes = Mapping[str, tuple[int, ...]]

# name of the case: model, shapes of its inputs, frame rate, reason
OVER: dict[str, tuple[str, Shapes, float, str]] = {
    "100 mouths on a 4K image": (
        "face_paste",
        {"frames": (1, *UHD), "boxes": (1, 4), "mouths": (100, 96, 96, 3)},
        25,
        "mouths: 100 images of 3840x2160 are 2373 MiB, at most 512 MiB (21 such images) are allowed in one call; "
        "send them in several calls",
    ),
    "one image of 805 MB": (
        "face_paste",
        {"frames": (1, 16_384, 16_384, 3), "boxes": (1, 4), "mouths": (1, 96, 96, 3)},
        25,
        "frames: an image of 16384x16384 has 768 MiB, at most 512 MiB are allowed; scale it down",
    ),
    "many small images": (
        "face_paste",
        {"frames": (1, 1, 1, 3), "boxes": (1, 4), "mouths": (4097, 96, 96, 3)},
        25,
        "mouths: 1 to 4096 expected in one call, got 4097; send them in several calls",
    ),
    "crops for a long mel": (
        "face_crop",
        {"frames": (1, *UHD), "boxes": (1, 4), "mel": (4097, 80, 16)},
        25,
        "mel: 1 to 4096 expected in one call, got 4097; send them in several calls",
    ),
    "many boxes": (
        "face_crop",
        {"frames": (1, *UHD), "boxes": (10**9, 4)},
        25,
        "boxes: 1 to 4096 expected in one call, got 1000000000",
    ),
    "candidates of 65 images": (
        "face_nms",
        {"boxes": (65, 1024, 4), "scores": (65, 1024)},
        25,
        "boxes: 1 to 64 expected in one call, got 65; send them in several calls",
    ),
    "an hour and a sample": (
        "mel_spectrogram",
        {"audio": (HOUR + 1,)},
        25,
        "audio: at most 3600 s expected in one call, got 3600 s (57600001 samples); send it in several calls",
    ),
    "days": ("mel_spectrogram", {"audio": (10**12,)}, 1, "audio: at most 3600 s"),
    "an hour at 30 frames per second": (
        "mel_spectrogram",
        {"audio": (HOUR,)},
        30,
        "audio: 3600 s at 30 frames per second are 107996 windows, at most 104857 are allowed in one call; "
        "send them in several calls",
    ),
    "two minutes at 1000 frames per second": ("mel_spectrogram", {"audio": (HOUR // 30,)}, 1000, "at most 104857"),
    "a detection of 33 megapixels": (
        "s3fd",
        {"image": (1, 4320, 7680, 3)},
        25,
        "image: at most 8.3 megapixels (AVATAR_WORK_MEGAPIXELS) expected, got 7680x4320; scale it down",
    ),
    "a segmentation of 33 megapixels": (
        "segmentation",
        {"image": (4320, 7680, 3)},
        25,
        "image: at most 8.3 megapixels",
    ),
    "a narrow detection": (
        "s3fd",
        {"image": (1, 31, 400, 3)},
        25,
        "image: sides of 32 to 16384 pixels expected, got 400x31; scale it",
    ),
    "a long detection": ("s3fd", {"image": (1, 32, 100_000, 3)}, 25, "image: sides of 32 to 16384 pixels"),
    "no pixel to detect in": ("s3fd", {"image": (1, 0, 0, 3)}, 25, "image: sides of 32 to 16384 pixels"),
    "no pixel to segment": ("segmentation", {"image": (0, 0, 3)}, 25, "image: sides of 1 to 16384 pixels"),
    "a line of 100000 pixels to segment": (
        "segmentation",
        {"image": (1, 100_000, 3)},
        25,
        "image: sides of 1 to 16384",
    ),
    "no pixel to crop": ("face_crop", {"frames": (1, 0, 5, 3), "boxes": (1, 4)}, 25, "frames: sides of 1 to 16384"),
    "no image to crop": (
        "face_crop",
        {"frames": (0, 9, 9, 3), "boxes": (0, 4)},
        25,
        "frames: 1 to 4096 expected in one call, got 0",
    ),
    "nothing to paste": (
        "face_paste",
        {"frames": (1, 9, 9, 3), "boxes": (1, 4), "mouths": (0, 96, 96, 3)},
        25,
        "mouths: 1 to 4096 expected in one call, got 0",
    ),
    "no candidates": ("face_nms", {"boxes": (0, 1024, 4), "scores": (0, 1024)}, 25, "boxes: 1 to 64"),
}

WITHIN: dict[str, tuple[str, Shapes, float]] = {
    "21 mouths on a 4K image": (
        "face_paste",
        {"frames": (1, *UHD), "boxes": (1, 4), "mouths": (21, 96, 96, 3)},
        25,
    ),
    "as many small images as are allowed": (
        "face_paste",
        {"frames": (1, 1, 1, 3), "boxes": (4096, 4), "mouths": (4096, 96, 96, 3)},
        25,
    ),
    "as many crops as are allowed": ("face_crop", {"frames": (1, *UHD), "boxes": (1, 4), "mel": (4096, 80, 16)}, 25),
    "crops without mel": ("face_crop", {"frames": (4096, 9, 9, 3), "boxes": (4096, 4)}, 25),
    "candidates of 64 images": ("face_nms", {"boxes": (64, 1024, 4), "scores": (64, 1024)}, 25),
    "an hour": ("mel_spectrogram", {"audio": (HOUR,)}, 29.1),
    "a minute and a half at 1000 frames per second": ("mel_spectrogram", {"audio": (90 * 16_000,)}, 1000),
    "the smallest detection": ("s3fd", {"image": (1, 32, 32, 3)}, 25),
    "a 4K detection": ("s3fd", {"image": (4, *UHD)}, 25),
    "one pixel to segment": ("segmentation", {"image": (1, 1, 3)}, 25),
    "one pixel to crop": ("face_crop", {"frames": (1, 1, 1, 3), "boxes": (1, 4)}, 25),
}


def _inputs(model: str, shapes: Shapes, fps: float) -> dict[str, np.ndarray]:
    """Return inputs of these shapes that take no memory: one element, repeated."""
    (tensors,) = (each.inputs for each in MODELS if each.name == model)
    inputs = {each.name: np.broadcast_to(_one(each), shapes[each.name]) for each in tensors if each.name in shapes}
    return inputs | ({"fps": np.array([fps])} if model == "mel_spectrogram" else {})


def _one(tensor: Tensor) -> np.ndarray:
    return np.zeros(1, tensor.numpy)


@pytest.mark.parametrize(("model", "shapes", "fps", "reason"), OVER.values(), ids=OVER.keys())
def test_a_call_over_a_limit_is_rejected_before_anything_is_allocated(
    model: str, shapes: Shapes, fps: float, reason: str
) -> None:
    inputs = _inputs(model, shapes, fps)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as error:
            limits.check(model, inputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reason in str(error.value)
    assert peak < 1 << 20


@pytest.mark.parametrize(("model", "shapes", "fps"), WITHIN.values(), ids=WITHIN.keys())
def test_a_call_within_the_limits_is_accepted(model: str, shapes: Shapes, fps: float) -> None:
    limits.check(model, _inputs(model, shapes, fps))


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf"), 1e9, 1e-320])
def test_a_frame_rate_out_of_range_is_rejected(fps: float) -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        limits.check("mel_spectrogram", _inputs("mel_spectrogram", {"audio": (16_000,)}, fps))


@pytest.mark.parametrize("columns", [16, 17, 96, 1201])
@pytest.mark.parametrize("fps", [1e-300, 1.0, 12.5, 25.0, 30_000 / 1001, 150.0, 1000.0])
def test_the_windows_are_counted_without_making_them(columns: int, fps: float) -> None:
    assert count_windows(columns, fps) == len(window_starts(columns, fps))


def test_the_largest_detection_follows_the_setting_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.broadcast_to(np.uint8(0), (1, 4320, 7680, 3))
    monkeypatch.setenv("AVATAR_WORK_MEGAPIXELS", "33.2")
    limits.check("s3fd", {"image": image})
    monkeypatch.setenv("AVATAR_WORK_MEGAPIXELS", "0.1")
    limits.check("s3fd", {"image": image[:, :1000, :1000]})
    with pytest.raises(InvalidInput, match="at most 1 megapixels"):
        limits.check("s3fd", {"image": image[:, :1000, :1001]})


def test_the_limits_allow_everything_that_the_job_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.DETECTION_MEGAPIXELS_VARIABLE, raising=False)
    assert JobSettings().work_megapixels == limits.DETECTION_MEGAPIXELS
    assert limits.DETECTION_MEGAPIXELS_VARIABLE == "AVATAR_WORK_MEGAPIXELS"
    assert limits.detection_pixels() >= job.Limits().max_work_pixels
    assert limits.MAX_SIDE == job.MAX_SIDE
    assert limits.MIN_DETECTION_SIDE == detection.MIN_SIDE
    assert (
        max(detection.ROI_PIXELS, detection.SEARCH_PIXELS, job.MAX_SIDE * detection.MIN_SIDE)
        <= limits.LEAST_MEGAPIXELS * 1e6
    )
