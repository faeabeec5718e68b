"""Concurrent requests: their frames share batches, and an invalid request does not affect the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedded.server import Triton
from lipsync.tensors import WAV2LIP_BATCH
from tests.support.triton_calls import Caller, caller, rejection

BOX = np.array([[10, 10, 74, 90]], np.int32)
INVALID = "StatusCode.INVALID_ARGUMENT"
ATTEMPTS = 10  # to let requests arrive at the same moment


@pytest.fixture(scope="module")
def call(triton: Triton) -> Iterator[Caller]:
    with caller(triton.grpc_address) as connection:
        yield connection


def _lipsync_inputs(windows: int, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {
        "frames": noise.integers(0, 256, (1, 100, 100, 3), np.uint8),
        "boxes": BOX,
        "mel": noise.uniform(-4, 4, (windows, 80, 16)).astype(np.float32),
    }


def _concurrently(tasks: list[Callable[[], None]]) -> None:
    barrier = threading.Barrier(len(tasks))

    def wait_and_run(task: Callable[[], None]) -> None:
        barrier.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(wait_and_run, task) for task in tasks]:
            done.result()


def test_concurrent_requests_run_in_larger_batches_and_each_gets_its_own_frames(call: Caller) -> None:
    requests = [_lipsync_inputs(4, seed) for seed in range(8)]
    alone = [call("lipsync", inputs)["mouths"] for inputs in requests]

    def call_and_compare(inputs: dict[str, np.ndarray], expected: np.ndarray) -> None:
        # a batch of another size may round differently
        np.testing.assert_allclose(call("lipsync", inputs)["mouths"].astype(int), expected, atol=1)

    def merged_sizes() -> list[int]:
        before = call.batches("wav2lip")
        _concurrently([lambda i=i, e=e: call_and_compare(i, e) for i, e in zip(requests, alone, strict=True)])  # type: ignore[misc]
        runs = {size: count - before.get(size, 0) for size, count in call.batches("wav2lip").items()}
        assert sum(size * count for size, count in runs.items()) == 8 * 4
        assert max(size for size, count in runs.items() if count) <= WAV2LIP_BATCH
        return [size for size, count in runs.items() if count and size > 4]

    assert any(merged_sizes() for _ in range(ATTEMPTS))


def test_an_invalid_request_does_not_affect_the_others_of_its_batch(call: Caller) -> None:
    valid, outside = _lipsync_inputs(2), _lipsync_inputs(2) | {"boxes": np.array([[0, 0, 101, 50]], np.int32)}
    expected = call("lipsync", valid)["mouths"].astype(int)

    def call_validly() -> None:
        np.testing.assert_allclose(call("lipsync", valid)["mouths"].astype(int), expected, atol=1)

    def call_invalidly() -> None:
        status, message = rejection(call, "lipsync", outside)
        assert status == INVALID
        assert "boxes[0]" in message

    _concurrently([call_invalidly if i % 3 == 1 else call_validly for i in range(9)])


def _frames(count: int) -> np.ndarray:
    return np.zeros((count, 100, 100, 3), np.uint8)


def _boxes(*boxes: list[int]) -> np.ndarray:
    return np.array(boxes, np.int32).reshape(-1, 4)


INSIDE = [10, 10, 74, 90]
SPEECH = np.zeros(16_000, np.float32)
MOUTHS = np.zeros((2, 96, 96, 3), np.uint8)

INVALID_INPUTS: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "fps 0": ("mel_spectrogram", {"audio": SPEECH, "fps": np.array([0.0])}, "fps: a positive number expected, got 0"),
    "fps negative": ("mel_spectrogram", {"audio": SPEECH, "fps": np.array([-25.0])}, "fps: a positive number"),
    "fps NaN": ("mel_spectrogram", {"audio": SPEECH, "fps": np.array([np.nan])}, "fps: a positive number"),
    "fps huge": ("mel_spectrogram", {"audio": SPEECH, "fps": np.array([1e9])}, "fps: 1000 at most, got 1000000000"),
    "speech shorter than a window": (
        "mel_spectrogram",
        {"audio": SPEECH[:2999], "fps": np.array([25.0])},
        "audio: too short",
    ),
    "very short speech": ("mel_spectrogram", {"audio": SPEECH[:100], "fps": np.array([25.0])}, "audio: "),
    "no speech": ("mel_spectrogram", {"audio": SPEECH[:0], "fps": np.array([25.0])}, "audio: "),
    "box outside": ("face_crop", {"frames": _frames(1), "boxes": _boxes([50, 50, 101, 90])}, "boxes[0]: [50, 50, 101"),
    "box negative": ("face_crop", {"frames": _frames(1), "boxes": _boxes([-1, 0, 50, 50])}, "boxes[0]: "),
    "box empty": ("face_crop", {"frames": _frames(1), "boxes": _boxes([50, 50, 50, 90])}, "boxes[0]: "),
    "second box": ("face_crop", {"frames": _frames(1), "boxes": _boxes(INSIDE, [0, 0, 0, 0])}, "boxes[1]: "),
    "no box": ("face_crop", {"frames": _frames(1), "boxes": _boxes()}, "boxes: "),
    "no frame": ("face_crop", {"frames": _frames(0), "boxes": _boxes(INSIDE)}, "frames: "),
    "2 frames, 3 boxes": ("face_crop", {"frames": _frames(2), "boxes": _boxes(*[INSIDE] * 3)}, "frames: 1 or 3"),
    "3 boxes, 2 mouths": (
        "face_paste",
        {"frames": _frames(2), "boxes": _boxes(*[INSIDE] * 3), "mouths": MOUTHS},
        "boxes: 1 or 2 expected, got 3",
    ),
    "boxes and scores of different numbers of images": (
        "face_nms",
        {"boxes": np.zeros((2, 1024, 4), np.float32), "scores": np.zeros((1, 1024), np.float32)},
        "boxes [N,K,4] and scores [N,K] expected",
    ),
    "3 frames, 2 windows": ("lipsync", _lipsync_inputs(2) | {"frames": _frames(3)}, "frames: 1 or 2 expected, got 3"),
    "fps 0 in a clip": (
        "lipsync_clip",
        {"audio": SPEECH, "fps": np.array([0.0]), "frames": _frames(1), "boxes": BOX},
        "fps: a positive number",
    ),
}


@pytest.mark.parametrize(("model", "inputs", "reason"), INVALID_INPUTS.values(), ids=INVALID_INPUTS.keys())
def test_invalid_input_gets_an_error_of_one_line(
    call: Caller, model: str, inputs: dict[str, np.ndarray], reason: str
) -> None:
    status, message = rejection(call, model, inputs)
    assert status == INVALID, message
    assert reason in message
    assert "Traceback" not in message
    assert ".py" not in message
    assert "\n" not in message.strip()
