"""Calls of single models at their limits and over them, on a live server: rejected at once, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from embedded.server import Triton
from embedded.stubs import find_stubs
from lipsync import limits
from lipsync.tensors import FACES
from tests.support.triton_calls import Caller, caller, rejection

INVALID = "StatusCode.INVALID_ARGUMENT"
MIB = 1 << 20
NO_BOX = np.empty((0, 4), np.int32)
BOX = np.array([[0, 0, 1, 1]], np.int32)
PICTURE = (1, 64, 64, 3)
UHD = (1, 2160, 3840, 3)

Inputs = dict[str, np.ndarray]


def _images(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


def _windows(count: int) -> np.ndarray:
    return np.zeros((count, 80, 16), np.float32)


def _mouths(count: int) -> np.ndarray:
    return _images(count, 96, 96, 3)


def _candidates(count: int) -> Inputs:
    """The worst case for non-maximum suppression: no candidate overlaps another."""
    boxes = np.zeros((count, 1024, 4), np.float32)
    boxes[..., 0] = 20 * np.arange(1024)
    boxes[..., 2:] = boxes[..., :2] + 9
    return {"boxes": boxes, "scores": np.full((count, 1024), 0.9, np.float32)}


def _speech(seconds: float, fps: float) -> Inputs:
    return {"audio": np.zeros(int(seconds * 16_000), np.float32), "fps": np.array([fps], np.float64)}


def _still(*shape: int) -> Inputs:
    return {"frames": _images(*shape), "boxes": BOX}


@pytest.fixture(scope="module")
def call(triton: Triton) -> Iterator[Caller]:
    with caller(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module", autouse=True)
def _every_model_survives(triton: Triton) -> Iterator[None]:
    before = find_stubs(triton.pid)
    yield
    assert find_stubs(triton.pid) == before


OVER: dict[str, tuple[str, Inputs, str]] = {
    "face_paste": (
        "face_paste",
        _still(*UHD) | {"mouths": _mouths(22)},
        "face_paste: mouths: 22 images of 3840x2160 are 522 MiB, at most 512 MiB (21 such images)",
    ),
    "face_paste, mouths": (
        "face_paste",
        _still(*PICTURE) | {"mouths": _mouths(4097)},
        "face_paste: mouths: 1 to 4096 expected in one call, got 4097",
    ),
    "face_crop": ("face_crop", _still(*PICTURE) | {"mel": _windows(4097)}, "face_crop: mel: 1 to 4096 expected"),
    "face_nms": ("face_nms", _candidates(65), "face_nms: boxes: 1 to 64 expected in one call, got 65"),
    "mel_spectrogram, windows": (
        "mel_spectrogram",
        _speech(110, 1000),
        "mel_spectrogram: audio: 110 s at 1000 frames per second are",
    ),
    "s3fd": ("s3fd", {"image": _images(1, 3000, 3000, 3)}, "s3fd: image: at most 8.3 megapixels"),
    "detect_faces": ("detect_faces", {"frames": _images(1, 3000, 3000, 3)}, "s3fd: image: at most 8.3 megapixels"),
    "segmentation": ("segmentation", {"image": _images(3000, 3000, 3)}, "segmentation: image: at most 8.3 megapixels"),
    "lipsync, windows": ("lipsync", _still(*PICTURE) | {"mel": _windows(4097)}, "face_crop: mel: 1 to 4096 expected"),
    "lipsync_clip, windows": (
        "lipsync_clip",
        _still(*PICTURE) | _speech(110, 1000),
        "mel_spectrogram: audio: 110 s at",
    ),
    "lipsync_clip, crops": ("lipsync_clip", _still(*PICTURE) | _speech(42, 100), "face_crop: mel: 1 to 4096 expected"),
    "lipsync_clip, batch": ("lipsync_clip", _still(*PICTURE) | _speech(2, 25), "<= 32"),
    "lipsync_clip, images": (
        "lipsync_clip",
        _still(*UHD) | _speech(1.1, 25),
        "face_paste: mouths: 25 images of 3840x2160 are 593 MiB",
    ),
}


@pytest.mark.parametrize(("model", "inputs", "reason"), OVER.values(), ids=OVER.keys())
def test_a_call_over_a_limit_is_rejected_without_memory_for_its_answer(
    call: Caller, triton: Triton, model: str, inputs: Inputs, reason: str
) -> None:
    with _at_most(triton, 6 * sum(array.nbytes for array in inputs.values()) + 100 * MIB):
        status, message = rejection(call, model, inputs)
    assert status == INVALID, message
    assert reason in message
    assert "\n" not in message.strip()


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 100_000), (100_000, 1)], ids=str)
@pytest.mark.parametrize("model", ["s3fd", "detect_faces", "segmentation", "face_crop", "lipsync", "face_paste"])
def test_images_without_pixels_and_very_long_ones_are_rejected(
    call: Caller, triton: Triton, model: str, size: tuple[int, int]
) -> None:
    shape = (*size, 3) if model == "segmentation" else (1, *size, 3)
    inputs: dict[str, Inputs] = {
        "detect_faces": {"frames": _images(*shape)},
        "face_crop": _still(*shape),
        "lipsync": _still(*shape) | {"mel": _windows(1)},
        "face_paste": _still(*shape) | {"mouths": _mouths(1)},
    }
    log = triton.log_path.stat().st_size
    status, message = rejection(call, model, inputs.get(model, {"image": _images(*shape)}))
    assert status == INVALID, message
    assert f"to 16384 pixels expected, got {size[1]}x{size[0]}" in message
    assert "Traceback" not in _tail(triton.log_path, log)


@pytest.mark.parametrize("model", ["s3fd", "detect_faces"])
@pytest.mark.parametrize("size", [(1, 1), (31, 400)], ids=str)
def test_images_too_small_for_the_detector_are_rejected(call: Caller, model: str, size: tuple[int, int]) -> None:
    status, message = rejection(call, model, {"image" if model == "s3fd" else "frames": _images(1, *size, 3)})
    assert status == INVALID, message
    assert f"sides of 32 to 16384 pixels expected, got {size[1]}x{size[0]}" in message


EMPTY: dict[str, tuple[str, Inputs]] = {
    "face_crop": ("face_crop", {"frames": _images(0, 9, 9, 3), "boxes": NO_BOX}),
    "face_crop, mel": ("face_crop", _still(*PICTURE) | {"mel": _windows(0)}),
    "face_paste": ("face_paste", _still(*PICTURE) | {"mouths": _mouths(0)}),
    "face_nms": ("face_nms", _candidates(0)),
    "s3fd": ("s3fd", {"image": _images(0, 64, 64, 3)}),
    "detect_faces": ("detect_faces", {"frames": _images(0, 64, 64, 3)}),
    "wav2lip": ("wav2lip", {"face": _images(0, 96, 96, 3), "mel": _windows(0)}),
    "lipsync": ("lipsync", _still(*PICTURE) | {"mel": _windows(0)}),
}


@pytest.mark.parametrize(("model", "inputs"), EMPTY.values(), ids=EMPTY.keys())
def test_a_call_without_images_is_rejected(call: Caller, triton: Triton, model: str, inputs: Inputs) -> None:
    log = triton.log_path.stat().st_size
    status, message = rejection(call, model, inputs)
    assert status == INVALID, message
    assert "Traceback" not in _tail(triton.log_path, log)


def test_the_smallest_images_are_accepted(call: Caller) -> None:
    assert call("detect_faces", {"frames": _images(1, 32, 32, 3)})["boxes"].shape == (1, FACES, 4)
    assert call("segmentation", {"image": _images(1, 1, 3)})["labels"].shape == (1, 1)
    assert call("lipsync", _still(1, 1, 1, 3) | {"mel": _windows(1)})["mouths"].shape == (1, 96, 96, 3)
    assert call("face_paste", _still(1, 1, 1, 3) | {"mouths": _mouths(1)})["frames"].shape == (1, 1, 1, 3)


def test_64_images_of_candidates_are_accepted(call: Caller) -> None:
    faces = call("face_nms", _candidates(limits.MAX_NMS_IMAGES))
    assert faces["scores"].shape == (limits.MAX_NMS_IMAGES, FACES)
    assert (faces["scores"] > 0.5).all()


def test_4096_crops_are_accepted(call: Caller) -> None:
    faces = call("face_crop", _still(*PICTURE) | {"mel": _windows(limits.MAX_CROPS)})["faces"]
    assert faces.shape == (limits.MAX_CROPS, 96, 96, 3)


def test_an_image_of_8_3_megapixels_is_accepted(call: Caller) -> None:
    assert call("segmentation", {"image": _images(2160, 3840, 3)})["labels"].shape == (2160, 3840)


def test_an_extreme_but_valid_frame_rate_has_a_first_and_a_last_window(call: Caller) -> None:
    assert call("mel_spectrogram", _speech(1, 1e-300))["mel"].shape == (2, 80, 16)


@pytest.mark.slow
def test_21_images_of_4k_are_pasted_in_one_call(call: Caller) -> None:
    answer = call("face_paste", _still(*UHD) | {"mouths": _mouths(21)})["frames"]
    assert answer.shape == (21, *UHD[1:])


@pytest.mark.slow
def test_an_hour_of_speech_is_accepted_and_a_sample_more_is_not(call: Caller) -> None:
    speech = _speech(limits.MAX_AUDIO_SECONDS, 25)
    assert len(call("mel_spectrogram", speech)["mel"]) == pytest.approx(90_000, abs=10)
    speech["audio"] = np.append(speech["audio"], np.float32(0))
    status, message = rejection(call, "mel_spectrogram", speech)
    assert status == INVALID, message
    assert "audio: at most 3600 s expected in one call" in message


def _tail(path: Path, start: int) -> str:
    return path.read_bytes()[start:].decode(errors="replace")


@contextmanager
def _at_most(triton: Triton, allowed: int) -> Iterator[None]:
    """Assert that no process of the server takes more than `allowed` bytes in addition, for however short a time."""
    before = {pid: _reset_peak(pid) for pid in (triton.pid, *(stub.pid for stub in find_stubs(triton.pid)))}
    yield
    for pid, memory in before.items():
        assert _peak(pid) - memory < allowed, psutil.Process(pid).cmdline()


def _reset_peak(pid: int) -> int:
    """Return the memory that a process has now, in bytes; its peak counts from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) << 10
